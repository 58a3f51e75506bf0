//! Which places of a document are wanted, and where a scan found them.
use std::sync::Arc;

/// A place in a document: the number of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u16);

impl NodeId {
    /// The document itself.
    pub const ROOT: Self = Self(0);

    /// Index of its slot.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Wanted places of a document, as a tree of keys and indexes. Any number of them is looked up in one scan.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    nodes: Vec<Node>,
}

/// What is wanted below one place.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Members of an object.
    pub keys: Vec<Key>,
    /// Items of an array.
    pub items: Vec<(usize, NodeId)>,
}

/// A wanted member.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: Box<str>,
    /// The first eight bytes of the name, for a quick comparison.
    pub head: u64,
    pub node: NodeId,
}

impl Key {
    /// The first eight bytes of a name as a number; shorter names are filled up with zeros.
    pub fn head(name: &[u8]) -> u64 {
        let mut head = [0; 8];
        let len = name.len().min(8);
        head[..len].copy_from_slice(&name[..len]);
        u64::from_le_bytes(head)
    }
}

/// More places than a layout can hold.
const NODES_MAX: usize = u16::MAX as usize;

impl Layout {
    /// Nothing but the document itself.
    pub fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// How many slots a scan fills.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when nothing is wanted but the document itself.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// What is wanted below a place.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    /// Adds member `name` of the object at `parent`, unless it is there.
    ///
    /// # Panics
    /// With more than 65,535 places: scripts and settings are limited to far fewer.
    pub fn key(&mut self, parent: NodeId, name: &str) -> NodeId {
        if let Some(known) = self.find(parent, name) {
            return known;
        }
        let node = self.add();
        self.nodes[parent.index()].keys.push(Key { name: name.into(), head: Key::head(name.as_bytes()), node });
        node
    }

    /// Adds item `index` of the array at `parent`, unless it is there.
    ///
    /// # Panics
    /// As `key`.
    pub fn item(&mut self, parent: NodeId, index: usize) -> NodeId {
        let known = self.nodes[parent.index()].items.iter().find(|(known, _)| *known == index);
        if let Some((_, known)) = known {
            return *known;
        }
        let node = self.add();
        self.nodes[parent.index()].items.push((index, node));
        node
    }

    /// The place of member `name` of the object at `parent`.
    pub fn find(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        self.nodes[parent.index()].keys.iter().find(|key| *key.name == *name).map(|key| key.node)
    }

    fn add(&mut self) -> NodeId {
        assert!(self.nodes.len() < NODES_MAX, "a layout has at most {NODES_MAX} places");
        self.nodes.push(Node::default());
        NodeId((self.nodes.len() - 1) as u16)
    }
}

/// Where a value lies in a payload, and what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub kind: SlotKind,
    /// First byte; of a text the one after the opening quote.
    pub start: u32,
    /// The byte after the last; of a text the closing quote.
    pub end: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotKind {
    /// There is none.
    #[default]
    Missing,
    Null,
    True,
    False,
    /// A number without fraction and exponent, of any size.
    Int,
    Float,
    /// A text without escapes.
    Text,
    /// A text with escapes.
    Escaped,
    Object,
    Array,
}

impl Slot {
    /// The text of the value as it stands in `payload`; of a text what is between its quotes.
    pub fn of(self, payload: &str) -> &str {
        &payload[self.start as usize..self.end as usize]
    }

    /// The same with the quotes of a text.
    pub fn json(self, payload: &str) -> &str {
        let quote = usize::from(matches!(self.kind, SlotKind::Text | SlotKind::Escaped));
        &payload[self.start as usize - quote..self.end as usize + quote]
    }
}

/// What a payload turned out to be when it was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// JSON, nested so deep. `complete` when it is an object without members that the layout does not name.
    Json { depth: u8, complete: bool },
    /// JSON as far as it was read, nested deeper than is read.
    TooDeep,
    /// Anything else.
    Other,
}

/// The scans of a batch's payloads: what each is, and `layout.len()` slots for each.
#[derive(Clone, Debug)]
pub struct Documents {
    pub(super) layout: Arc<Layout>,
    pub(super) slots: Vec<Slot>,
    pub(super) scanned: Vec<Scanned>,
}

impl Documents {
    /// Room for the scans of `messages` payloads.
    pub fn with_capacity(layout: Arc<Layout>, messages: usize) -> Self {
        let slots = Vec::with_capacity(messages * layout.len());
        Self { layout, slots, scanned: Vec::with_capacity(messages) }
    }

    /// Adds the next payload: `fill` gets its slots, all missing, and says what it is.
    pub fn push(&mut self, fill: impl FnOnce(&mut [Slot]) -> Scanned) {
        let start = self.slots.len();
        self.slots.resize(start + self.layout.len(), Slot::default());
        let scanned = fill(&mut self.slots[start..]);
        self.scanned.push(scanned);
    }

    /// Forgets the scans after the first `messages`.
    pub fn truncate(&mut self, messages: usize) {
        self.scanned.truncate(messages);
        self.slots.truncate(messages * self.layout.len());
    }
}

/// The scan of one payload.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    pub layout: &'a Arc<Layout>,
    pub slots: &'a [Slot],
    pub scanned: Scanned,
}

impl Document<'_> {
    /// True when the payload is an object without members that the layout does not name.
    pub fn is_complete(&self) -> bool {
        matches!(self.scanned, Scanned::Json { complete: true, .. })
    }
}
