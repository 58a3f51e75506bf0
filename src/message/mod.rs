//! Messages. Everything moves in batches, and a batch is one arena of bytes plus small descriptors that point into it.
//!
//! ```text
//! Source   bytes:   [topic|payload|topic|payload|…]   as the input read them; never changed, kept until the ack
//!          origins: [Origin, Origin, …]               where in `bytes` each message's parts lie, and its metadata
//! Batch    bytes:   [payload|payload|…]               the payloads as the last step left them (at first: the source's)
//!          messages: [Message{origin, payload}, …]    fewer, as many or more than origins: steps filter and split
//! ```
//!
//! Cloning a `Batch` copies descriptors, never payloads. The original bytes stay reachable through `origin`, so a dead
//! letter can always show what was really received. Nothing here allocates per message.
mod changes;
mod layout;
mod source;

use std::{any::Any, sync::Arc};

use bytes::Bytes;

pub use changes::{Changed, Changes, Setting};
pub use layout::{Document, Documents, Key, Layout, NodeId, Scanned, Slot, SlotKind};
pub use source::{Captures, Header, Origin, Parts, Recorded, Redriven, Source, SourceBuilder};

/// A run of bytes inside an arena: start and length, at most 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

/// An arena would pass 4 GiB, the most a `Span` can address.
#[derive(Debug, thiserror::Error)]
#[error("a batch cannot hold more than 4 GiB of bytes")]
pub struct ArenaFull;

impl Span {
    /// The span `start..start + len`, in bytes.
    ///
    /// # Errors
    /// `ArenaFull` when the end lies past 4 GiB.
    pub fn new(start: usize, len: usize) -> Result<Self, ArenaFull> {
        let end = start.checked_add(len).ok_or(ArenaFull)?;
        u32::try_from(end).map_err(|_| ArenaFull)?;
        Ok(Self { start: start as u32, len: len as u32 })
    }

    /// The bytes of this span in `arena`. The span must have been made for that arena.
    pub fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..][..self.len as usize]
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// True when the span holds no bytes.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// One message on its way: its payload as the last step left it, and which message of the source it came from.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Index into `Source::origins`.
    pub origin: u32,
    /// Where the payload lies in `Batch::bytes`.
    pub payload: Span,
    /// Number of its changes in the batch's `Changes`; `NONE` for most messages.
    changes: u32,
    /// Number of its scan in the batch's `Documents`, when it has them.
    scan: u32,
    /// Which part of the source's message it is, when a step has split that: counted from 0, `NONE` for a whole one.
    part: u32,
}

/// No number.
const NONE: u32 = u32::MAX;

/// Messages that move together, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    source: Arc<Source>,
    bytes: Bytes,
    messages: Vec<Message>,
    /// What steps have set.
    changes: Option<Arc<Changes>>,
    /// The payloads' scans, when a step has made them.
    documents: Option<Arc<Documents>>,
}

impl Batch {
    /// Every message of `source`, payloads unchanged.
    pub fn new(source: Source) -> Self {
        let bytes = source.bytes().clone();
        let messages = source
            .origins()
            .iter()
            .enumerate()
            .map(|(i, o)| Message { origin: i as u32, payload: o.payload, changes: NONE, scan: i as u32, part: NONE })
            .collect();
        Self { source: Arc::new(source), bytes, messages, changes: None, documents: None }
    }

    /// How many messages are in the batch.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when no message is left, for example because a filter dropped them all.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What the input read, shared by every batch made from it.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The message at `index`, in batch order.
    pub fn get(&self, index: usize) -> MessageRef<'_> {
        MessageRef { batch: self, message: self.messages[index] }
    }

    /// The messages in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MessageRef<'_>> + Clone {
        self.messages.iter().map(|&message| MessageRef { batch: self, message })
    }

    /// Bytes of all current payloads together.
    pub fn payload_bytes(&self) -> usize {
        self.messages.iter().map(|m| m.payload.len()).sum()
    }

    /// Bytes of memory this batch keeps alive: the source's arena and, after a step, the payloads' own.
    pub fn memory_bytes(&self) -> usize {
        let own = if self.bytes.as_ptr() == self.source.bytes().as_ptr() { 0 } else { self.bytes.len() };
        let changes = self.changes.as_ref().map_or(0, |changes| changes.memory_bytes());
        self.source.bytes().len() + own + changes + self.messages.len() * size_of::<Message>()
    }

    /// Keeps only the messages for which `keep` answers true. Payloads are not touched.
    pub fn retain(&mut self, mut keep: impl FnMut(MessageRef<'_>) -> bool) {
        let mut messages = std::mem::take(&mut self.messages);
        messages.retain(|&message| keep(MessageRef { batch: self, message }));
        self.messages = messages;
    }

    /// The messages at `indexes`, in that order, sharing this batch's bytes.
    pub fn select(&self, indexes: &[u32]) -> Self {
        let messages = indexes.iter().map(|&i| self.messages[i as usize]).collect();
        Self { messages, ..self.shared() }
    }

    /// The same without messages.
    fn shared(&self) -> Self {
        Self {
            source: self.source.clone(),
            bytes: self.bytes.clone(),
            messages: Vec::new(),
            changes: self.changes.clone(),
            documents: self.documents.clone(),
        }
    }

    /// True when any message has headers. Outputs take their faster way when none does.
    pub fn has_headers(&self) -> bool {
        self.source.has_headers() || self.changes.as_ref().is_some_and(|changes| changes.has_headers())
    }

    /// True when the payloads were scanned with this very layout.
    pub fn is_scanned(&self, layout: &Arc<Layout>) -> bool {
        self.documents.as_ref().is_some_and(|documents| Arc::ptr_eq(&documents.layout, layout))
    }

    /// Keeps the scans of the payloads, one for each message in order, for the steps that read them next.
    pub fn set_documents(&mut self, documents: Documents) {
        debug_assert_eq!(documents.scanned.len(), self.messages.len());
        for (scan, message) in self.messages.iter_mut().enumerate() {
            message.scan = scan as u32;
        }
        self.documents = Some(Arc::new(documents));
    }

    /// Sets key, headers and metadata of messages. `set` is asked for each, answers what to set or why the message
    /// cannot be worked on; then it is left out.
    pub fn change<E: From<ArenaFull>>(
        &mut self,
        mut set: impl FnMut(MessageRef<'_>, &mut dyn FnMut(&Setting<'_>) -> Result<(), ArenaFull>) -> Result<(), E>,
        mut failed: impl FnMut(MessageRef<'_>, E),
    ) {
        let mut all = Changes::default();
        let mut messages = std::mem::take(&mut self.messages);
        messages.retain_mut(|message| {
            let reference = MessageRef { batch: self, message: *message };
            let mut number = None;
            let mut write = |setting: &Setting<'_>| {
                number = Some(all.push(reference.changed(), setting)?);
                Ok(())
            };
            let done = set(reference, &mut write).and_then(|()| match (number, reference.changed()) {
                (Some(number), _) => Ok(number),
                (None, None) => Ok(NONE),
                (None, before) => Ok(all.push(before, &Setting::default())?),
            });
            match done {
                Ok(number) => {
                    message.changes = number;
                    true
                }
                Err(error) => {
                    failed(reference, error);
                    false
                }
            }
        });
        self.messages = messages;
        self.changes = Some(Arc::new(all));
    }

    /// Starts a batch with new payloads for messages of this one.
    pub fn rewrite(&self) -> BatchWriter {
        BatchWriter {
            source: self.source.clone(),
            bytes: Vec::with_capacity(self.payload_bytes() * 5 / 4),
            messages: Vec::with_capacity(self.len()),
            changes: self.changes.clone(),
            documents: None,
        }
    }

    /// Ties `guard` to the memory of this batch: it is dropped together with the source's bytes. The pipeline hangs its
    /// byte budget on this, once a source.
    pub fn hold(&self, guard: Box<dyn Any + Send + Sync>) {
        self.source.hold(guard);
    }
}

/// Writes the payloads a step makes into a new arena.
#[derive(Debug)]
pub struct BatchWriter {
    source: Arc<Source>,
    bytes: Vec<u8>,
    messages: Vec<Message>,
    changes: Option<Arc<Changes>>,
    documents: Option<Documents>,
}

impl BatchWriter {
    /// Adds one message that is made of `from`, a message of the batch that is rewritten. `write` appends its payload to
    /// the buffer; when it fails, what it wrote is taken back and no message is added. Key, headers and metadata stay.
    ///
    /// # Errors
    /// Whatever `write` answers, or `ArenaFull`.
    pub fn push<E: From<ArenaFull>>(
        &mut self,
        from: MessageRef<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let span = write(&mut self.bytes).and_then(|()| Ok(Span::new(start, self.bytes.len() - start)?));
        match span {
            Ok(payload) => {
                let scan = self.messages.len() as u32;
                self.messages.push(Message { payload, scan, ..from.message });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// The same for one part of a message that is split.
    ///
    /// # Errors
    /// As `push`.
    pub fn push_part<E: From<ArenaFull>>(
        &mut self,
        from: MessageRef<'_>,
        part: u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push(from, write)?;
        if let Some(message) = self.messages.last_mut() {
            // A part of a part is told by the first split: that one names a place in the source's payload.
            message.part = if message.part == NONE { part } else { message.part };
        }
        Ok(())
    }

    /// Takes back all messages after the first `messages`.
    pub fn truncate(&mut self, messages: usize) {
        if let Some(first) = self.messages.get(messages) {
            self.bytes.truncate(first.payload.start as usize);
            self.messages.truncate(messages);
        }
    }

    /// How many messages were pushed.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when none was.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps scans of the new payloads. There must be one for each message that was pushed, in order.
    pub fn documents(&mut self, documents: Documents) {
        self.documents = Some(documents);
    }

    /// The finished batch.
    pub fn finish(self) -> Batch {
        let Self { source, bytes, messages, changes, documents } = self;
        debug_assert!(documents.as_ref().is_none_or(|documents| documents.scanned.len() == messages.len()));
        Batch { source, bytes: Bytes::from(bytes), messages, changes, documents: documents.map(Arc::new) }
    }
}

/// One message of a batch, to read.
#[derive(Clone, Copy)]
pub struct MessageRef<'a> {
    batch: &'a Batch,
    message: Message,
}

impl<'a> MessageRef<'a> {
    /// The payload as the last step left it.
    pub fn payload(self) -> &'a [u8] {
        self.message.payload.of(&self.batch.bytes)
    }

    /// Index of the message in the source it came from.
    pub fn origin_index(self) -> u32 {
        self.message.origin
    }

    /// Metadata and original bytes of the message it came from.
    pub fn origin(self) -> &'a Origin {
        &self.batch.source.origins()[self.message.origin as usize]
    }

    /// What the input read this message with.
    pub fn source(self) -> &'a Source {
        &self.batch.source
    }

    /// Which part of the source's message it is, when a step has split that; from 0.
    pub fn part(self) -> Option<u32> {
        (self.message.part != NONE).then_some(self.message.part)
    }

    /// The topic it was received on; empty where the input has none.
    pub fn topic(self) -> &'a str {
        self.batch.source.topic(self.origin())
    }

    /// What steps have set on it.
    fn changed(self) -> Option<Changed<'a>> {
        let changes = self.batch.changes.as_ref().filter(|_| self.message.changes != NONE)?;
        Some(changes.get(self.message.changes))
    }

    /// Its key: what a step has set, else what it was received with.
    pub fn key(self) -> Option<&'a [u8]> {
        match self.changed().and_then(Changed::key) {
            Some(key) => key,
            None => self.batch.source.key(self.origin()),
        }
    }

    /// Its headers, as name and value: those it was received with that no step has set or taken away, then those that
    /// steps have set.
    pub fn headers(self) -> impl Iterator<Item = (&'a str, &'a [u8])> + Clone {
        let changed = self.changed();
        let set = changed.into_iter().flat_map(Changed::headers);
        let is_set = move |name: &str| changed.is_some_and(|changed| changed.headers().any(|(set, _)| set == name));
        let received = self.batch.source.headers(self.origin()).filter(move |(name, _)| !is_set(name));
        received.chain(set.filter_map(|(name, value)| Some((name, value?))))
    }

    /// The metadata of that name: what a step has set, else the topic level that the input's filter calls so.
    pub fn named(self, name: &str) -> Option<&'a [u8]> {
        let set = self.changed().and_then(|changed| changed.meta().find(|(set, _)| &***set == name));
        match set {
            Some((_, value)) => value,
            None => self.batch.source.capture(self.origin(), name).map(str::as_bytes),
        }
    }

    /// Names and values of all named metadata.
    pub fn all_named(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let changed = self.changed();
        let is_set = move |name: &str| changed.is_some_and(|changed| changed.meta().any(|(set, _)| &**set == name));
        let captured = self.batch.source.captures(self.origin()).filter(move |(name, _)| !is_set(name));
        let set = changed.into_iter().flat_map(Changed::meta).filter_map(|(name, value)| Some((&**name, value?)));
        captured.map(|(name, level)| (name, level.as_bytes())).chain(set)
    }

    /// The scan of its payload, when a step has made one.
    pub fn document(self) -> Option<Document<'a>> {
        let documents = self.batch.documents.as_ref()?;
        let (scan, width) = (self.message.scan as usize, documents.layout.len());
        Some(Document {
            layout: &documents.layout,
            slots: &documents.slots[scan * width..][..width],
            scanned: documents.scanned[scan],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(payloads: &[&str]) -> Batch {
        let mut source = SourceBuilder::new("test");
        for (i, payload) in payloads.iter().enumerate() {
            source
                .push(payload.as_bytes(), |o, b| {
                    o.topic = b.text("t")?;
                    o.key = Some(b.bytes(format!("k{i}").as_bytes())?);
                    o.offset = i as i64;
                    Ok(())
                })
                .unwrap();
        }
        Batch::new(source.finish())
    }

    #[test]
    fn a_rewritten_message_keeps_its_original_bytes() {
        let old = batch(&["one", "two", "three"]);
        let mut writer = old.rewrite();
        for m in old.iter().filter(|m| m.payload() != b"two") {
            writer
                .push::<ArenaFull>(m, |out| {
                    out.extend(m.payload().iter().rev());
                    Ok(())
                })
                .unwrap();
        }
        let new = writer.finish();
        let seen: Vec<_> =
            new.iter().map(|m| (m.payload(), m.source().original(m.origin()), m.key().unwrap())).collect();
        assert_eq!(seen, [(&b"eno"[..], &b"one"[..], &b"k0"[..]), (b"eerht", b"three", b"k2")]);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let old = batch(&["a", "b"]);
        let mut writer = old.rewrite();
        let failed = writer.push(old.get(0), |out| {
            out.extend_from_slice(b"half");
            Err(ArenaFull)
        });
        assert!(failed.is_err());
        writer
            .push::<ArenaFull>(old.get(1), |out| {
                out.extend_from_slice(b"whole");
                Ok(())
            })
            .unwrap();
        let new = writer.finish();
        assert_eq!(new.iter().map(|m| m.payload()).collect::<Vec<_>>(), [b"whole"]);
    }

    #[test]
    fn select_and_retain_share_the_bytes() {
        let all = batch(&["a", "b", "c", "d"]);
        let mut some = all.select(&[3, 1]);
        assert_eq!(some.iter().map(|m| m.payload()).collect::<Vec<_>>(), [b"d", b"b"]);
        some.retain(|m| m.origin().offset == 1);
        assert_eq!(some.len(), 1);
        assert_eq!(some.payload_bytes(), 1);
    }

    #[test]
    fn a_span_past_4_gib_is_refused() {
        assert!(Span::new(u32::MAX as usize, 1).is_err());
        assert!(Span::new(usize::MAX, 1).is_err());
        assert!(Span::new(u32::MAX as usize, 0).is_ok());
    }

    #[test]
    fn a_guard_is_dropped_with_the_last_batch() {
        let guard = Arc::new(());
        let first = batch(&["a"]);
        first.hold(Box::new(guard.clone()));
        let second = first.clone();
        drop(first);
        assert_eq!(Arc::strong_count(&guard), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
