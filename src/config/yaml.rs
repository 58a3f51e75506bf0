//! YAML text to a tree in which every node knows its bytes in the file. Anchors, aliases and merge keys (`<<`) are
//! resolved here: an alias stands where it is used, what is inside it stands where it was written.
//!
//! Faults found here: `yaml-syntax` (the parser stops there, so there is one a file), `duplicate-key`, `yaml-limit`.
use std::{collections::HashMap, ops::Range, sync::Arc};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::scalar::Scalar;
use crate::diagnostic::{Diagnostic, SourceFile, line_column};

/// Deepest nesting of a file.
const DEPTH_MAX: usize = 64;
/// Most nodes of a file, aliases counted as often as they are used.
const NODES_MAX: usize = 100_000;

/// One node of a file.
#[derive(Clone, Debug)]
pub struct Node {
    /// Byte range in the file.
    pub span: Range<usize>,
    pub value: NodeValue,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum NodeValue {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One key of a mapping and what stands under it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub value: Node,
}

impl Node {
    /// The entries of a mapping, in file order; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            NodeValue::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            NodeValue::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The entry of that key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The single value, unless it is a list or a mapping.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            NodeValue::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text, when the value is text.
    pub fn text(&self) -> Option<&str> {
        match self.scalar()?.typed() {
            super::Typed::Text(text) => Some(text),
            _ => None,
        }
    }

    /// True for a key with nothing after it.
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.typed() == super::Typed::Null)
    }

    /// The value for a component.
    pub fn to_value(&self) -> serde_yaml::Value {
        match &self.value {
            NodeValue::Scalar(scalar) => scalar.to_value(),
            NodeValue::Sequence(items) => items.iter().map(Self::to_value).collect(),
            NodeValue::Mapping(entries) => {
                let mut mapping = serde_yaml::Mapping::with_capacity(entries.len());
                for entry in entries {
                    mapping.insert(entry.key.as_str().into(), entry.value.to_value());
                }
                mapping.into()
            }
        }
    }
}

/// Reads one file. The tree is missing when the text is not YAML. `text` is the file's, or has blanks in place of some of
/// its bytes.
pub(super) fn parse(file: &Arc<SourceFile>, text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let mut reader = Reader {
        file,
        parser: Parser::new_from_str(text),
        bytes: (!text.is_ascii()).then(|| text.char_indices().map(|(byte, _)| byte).collect()),
        anchors: HashMap::new(),
        faults: Vec::new(),
        nodes: 0,
    };
    let root = reader.document().unwrap_or_else(|fault| {
        reader.faults.push(fault);
        None
    });
    (root, reader.faults)
}

struct Reader<'a> {
    file: &'a Arc<SourceFile>,
    parser: Parser<'a, StrInput<'a>>,
    /// Byte offset of every character; none when they are the same.
    bytes: Option<Vec<usize>>,
    anchors: HashMap<usize, Node>,
    faults: Vec<Diagnostic>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Option<Node>, Diagnostic> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => break,
                (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
                (Event::DocumentStart(_), span) if root.is_some() => {
                    let fault = self
                        .fault("yaml-syntax", self.range(span), "a file holds one pipeline, not several YAML documents")
                        .with_label("a second document begins here")
                        .with_help("put it into a file of its own");
                    self.faults.push(fault);
                    break;
                }
                (Event::DocumentStart(_), _) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                (_, span) => {
                    return Err(self.fault("yaml-syntax", self.range(span), "this is not a YAML document"));
                }
            }
        }
        if root.is_none() {
            let fault = self.fault("yaml-syntax", 0..self.file.text.len().min(1), "the file is empty");
            self.faults.push(fault.with_label("nothing here").with_help("a pipeline needs `inputs:` and `outputs:`"));
        }
        Ok(root)
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Diagnostic> {
        let start = self.range(span);
        self.count(1, &start)?;
        if depth > DEPTH_MAX {
            return Err(self.fault("yaml-limit", start, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag.as_deref(), span)?),
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &start, &["seq"])?;
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break self.range(end).end,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                let flow = self.file.text[start.clone()].ends_with('[');
                let span = collection_span(start, end, flow, items.last().map(|item: &Node| item.span.end));
                (anchor, Node { span, value: NodeValue::Sequence(items) })
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &start, &["map"])?;
                let mut entries = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, end) => break self.range(end).end,
                        (event, span) => self.entry(event, span, depth, &mut entries)?,
                    }
                };
                let flow = self.file.text[start.clone()].ends_with('{');
                let last = entries.last().map(|entry: &Entry| entry.value.span.end);
                let span = collection_span(start, end, flow, last);
                (anchor, Node { span, value: NodeValue::Mapping(self.merge(entries)) })
            }
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    return Err(self.fault("yaml-syntax", start, "an alias cannot stand inside its own anchor"));
                };
                let node = Node { span: start.clone(), value: target.value.clone() };
                self.count(size(&node), &start)?;
                return Ok(node);
            }
            _ => return Err(self.fault("yaml-syntax", start, "a value is missing here")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entry(
        &mut self,
        event: Event<'a>,
        span: Span,
        depth: usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Diagnostic> {
        let key = self.node(event, span, depth + 1)?;
        let (event, span) = self.next()?;
        let value = self.node(event, span, depth + 1)?;
        let NodeValue::Scalar(Scalar { text, .. }) = key.value else {
            let fault = self.fault("yaml-syntax", key.span, "a key must be a word, not a list or a mapping");
            self.faults.push(fault.with_label("not a word"));
            return Ok(());
        };
        if let Some(first) = entries.iter().find(|entry| entry.key == text) {
            let fault = self
                .fault("duplicate-key", key.span, format!("`{text}` is defined twice"))
                .with_label("defined again here")
                .with_other(first.key_span.clone(), "first defined here")
                .with_help("keep one of them");
            self.faults.push(fault);
            return Ok(());
        }
        entries.push(Entry { key: text, key_span: key.span, value });
        Ok(())
    }

    /// Puts in what `<<: *base` or `<<: [*a, *b]` stands for. Keys that stand there themselves win.
    fn merge(&mut self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let Some(at) = entries.iter().position(|entry| entry.key == "<<") else { return entries };
        let merged = entries.remove(at);
        let sources = match &merged.value.value {
            NodeValue::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(&merged.value),
        };
        for source in sources {
            let NodeValue::Mapping(theirs) = &source.value else {
                let fault = self.fault("yaml-syntax", source.span.clone(), "`<<` merges mappings only");
                self.faults
                    .push(fault.with_label("not a mapping").with_help("write `<<: *name` of an anchored mapping"));
                continue;
            };
            for entry in theirs {
                if !entries.iter().any(|own| own.key == entry.key) {
                    entries.push(entry.clone());
                }
            }
        }
        entries
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Node, Diagnostic> {
        let mut range = self.range(span);
        self.check_tag(tag, &range, &["str", "int", "float", "bool", "null"])?;
        let raw = &self.file.text[range.clone()];
        let mut scalar = Scalar {
            text: text.to_owned(),
            plain: style == ScalarStyle::Plain,
            always_text: tag.is_some_and(|tag| tag.suffix == "str"),
            ..Scalar::default()
        };
        match style {
            ScalarStyle::Literal | ScalarStyle::Folded => {
                // Blank lines before the first word belong to the text but not to the parser's span.
                let blank = text.bytes().take_while(|byte| *byte == b'\n').count().min(span.start.line() - 1);
                scalar.origin = (span.start.line() - blank, span.start.col() + 1);
                scalar.exact = style == ScalarStyle::Literal;
                range.end = range.start + raw.trim_end().len();
            }
            _ => {
                // Between brackets the parser's span of a quoted text takes the blanks behind it in.
                range.end = range.start + raw.trim_end().len();
                // A tag, an anchor or a quote may stand before the text.
                let quote = usize::from(style != ScalarStyle::Plain);
                let content = range.end.saturating_sub(text.len() + quote);
                scalar.exact = !text.contains('\n') && self.file.text.get(content..range.end - quote) == Some(text);
                scalar.origin = line_column(&self.file.text, if scalar.exact { content } else { range.start });
            }
        }
        if range.is_empty() && !text.is_empty() {
            range.end = range.start + 1;
        }
        Ok(Node { span: range, value: NodeValue::Scalar(scalar) })
    }

    /// Own tags would change what a value is without anybody hearing of it.
    fn check_tag(&self, tag: Option<&Tag>, span: &Range<usize>, known: &[&str]) -> Result<(), Diagnostic> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() || !known.contains(&tag.suffix.as_str()) => Err(self
                .fault("yaml-syntax", span.clone(), format!("the tag `{tag}` is not known here"))
                .with_label("unknown tag")
                .with_help("leave it out; text that begins with `!` needs quotes")),
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, span: &Range<usize>) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let title = format!("the file has more than {NODES_MAX} values, aliases counted as often as they are used");
            return Err(self.fault("yaml-limit", span.clone(), title).with_label("too many by here"));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Diagnostic> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let at = self.byte(error.marker());
        let length = self.file.text[at..].chars().next().map_or(0, char::len_utf8);
        let (info, rest) = (error.info(), &self.file.text[at..]);
        let line =
            self.file.text[self.file.text[..at].rfind('\n').map_or(0, |i| i + 1)..].lines().next().unwrap_or_default();
        let help = match info {
            _ if info.starts_with("while parsing a flow") && line.contains("${") => {
                Some("between `{ }` or `[ ]`, a value with `${…}` needs quotes")
            }
            _ if info.starts_with("while parsing a flow") => {
                Some("a text that begins with `{` or `[` needs quotes, for it begins a map or a list")
            }
            _ if info.contains("unknown anchor") => {
                Some("a text that begins with `*` needs quotes, for it names an anchor")
            }
            _ if info.starts_with("invalid trailing content") => {
                Some("behind the closing quote nothing may follow; inside of `'…'` a quote is written twice: `''`")
            }
            _ if info.contains("tab") => Some("indent with spaces"),
            _ if info.starts_with("mapping values are not allowed") => {
                Some("a value that contains `: ` needs quotes; a key must be indented like its neighbours")
            }
            _ if info.starts_with("unexpected character") => {
                Some("a value that begins with this character needs quotes")
            }
            _ if info.contains("unexpected end of stream") => Some("the closing quote is missing"),
            _ => None,
        };
        let title = if info.contains("unknown anchor") {
            let name = rest.trim_start_matches('*').split(|c: char| c.is_whitespace() || ",]}".contains(c)).next();
            format!("no anchor is called `{}`", name.unwrap_or_default())
        } else {
            info.to_owned()
        };
        let fault = self.fault("yaml-syntax", at..at + length, title).with_label("not YAML from here on");
        match help {
            Some(help) => fault.with_help(help),
            None => fault,
        }
    }

    fn fault(&self, code: &'static str, span: Range<usize>, title: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.file, span, title)
    }

    /// The parser counts characters.
    fn byte(&self, marker: &Marker) -> usize {
        let byte = match &self.bytes {
            Some(bytes) => bytes.get(marker.index()).copied().unwrap_or(self.file.text.len()),
            None => marker.index(),
        };
        byte.min(self.file.text.len())
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(&span.start);
        start..self.byte(&span.end).max(start)
    }
}

/// A block's end is where the next token starts, which is too far.
fn collection_span(start: Range<usize>, end: usize, flow: bool, last: Option<usize>) -> Range<usize> {
    let end = if flow { end } else { last.unwrap_or(start.end) };
    start.start..end.max(start.end)
}

fn size(node: &Node) -> usize {
    1 + node.items().iter().map(size).sum::<usize>()
        + node.entries().iter().map(|entry| size(&entry.value)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let file = Arc::new(SourceFile { path: "p.yaml".into(), text: text.into() });
        let (root, faults) = parse(&file, &file.text);
        let faults = faults.iter().map(|fault| {
            let (line, column) = fault.line_column();
            format!("{line}:{column} {}: {} ({})", fault.code, fault.title, fault.label)
        });
        (root, faults.collect())
    }

    fn check_faults(text: &str, expected: &[&str]) {
        assert_eq!(read(text).1, expected, "{text}");
    }

    #[test]
    fn every_node_knows_its_bytes() {
        let text = "°C: µ\nb:\n  - x: 'é'\n    y: 2\n  - [1, {f: 2}]\nc: 3\n";
        let root = read(text).0.unwrap();
        let at = |node: &Node| text[node.span.clone()].to_owned();
        assert_eq!(at(&root.entry("°C").unwrap().value), "µ");
        assert_eq!(&text[root.entry("°C").unwrap().key_span.clone()], "°C");
        let list = &root.entry("b").unwrap().value;
        assert_eq!(at(&list.items()[0]), "x: 'é'\n    y: 2");
        assert_eq!(at(&list.items()[0].entry("x").unwrap().value), "'é'");
        assert_eq!(at(&list.items()[1]), "[1, {f: 2}]");
        assert_eq!(at(&list.items()[1].items()[1]), "{f: 2}");
    }

    #[test]
    fn the_text_of_a_scalar_has_its_origin() {
        fn check(text: &str, origin: (usize, usize), exact: bool) {
            let root = read(text).0.unwrap();
            let scalar = root.entry("a").unwrap().value.scalar().unwrap();
            assert_eq!((scalar.origin, scalar.exact), (origin, exact), "{text}");
        }
        check("a: x + 1\n", (1, 4), true);
        check("a: \"x + 1\"\n", (1, 5), true);
        check("{ a: \"x + 1\" }\n", (1, 7), true);
        check("a: \"x\\n1\"\n", (1, 4), false);
        check("a: 'it''s'\n", (1, 4), false);
        check("a: !!str x\n", (1, 10), true);
        check("a: x\n  y\n", (1, 4), false);
        check("a: >-\n  x\n  y\n", (2, 3), false);
        check("a: |\n    °C\n      b\n", (2, 5), true);
        check("a: |\n\n\n    b\n", (2, 5), true);
        check("a: |2-\n    b\nb: 1\n", (2, 3), true);
        check("é: 1\nb: {a: x}\na: y", (3, 4), true);
    }

    #[test]
    fn aliases_and_merge_keys_are_put_in() {
        let root = read("base: &b { x: 1, y: 2 }\nown:\n  <<: *b\n  y: 3\nlist: [*b]\n").0.unwrap();
        let own = root.entry("own").unwrap().value.to_value();
        assert_eq!(serde_yaml::to_string(&own).unwrap(), "y: 3\nx: 1\n");
        assert_eq!(root.entry("list").unwrap().value.items()[0].entries().len(), 2);
        check_faults("a:\n  <<: 5\n", &["2:7 yaml-syntax: `<<` merges mappings only (not a mapping)"]);
    }

    #[test]
    fn what_is_not_yaml_is_one_fault_at_its_place() {
        check_faults(
            "a: b: c",
            &["1:5 yaml-syntax: mapping values are not allowed in this context (not YAML from here on)"],
        );
        check_faults(
            "a:\n\tb: 1\n",
            &["2:2 yaml-syntax: tabs disallowed within this context (block indentation) (not YAML from here on)"],
        );
        check_faults("", &["1:1 yaml-syntax: the file is empty (nothing here)"]);
        check_faults("# °C\n", &["1:1 yaml-syntax: the file is empty (nothing here)"]);
        check_faults("a: *nope", &["1:4 yaml-syntax: no anchor is called `nope` (not YAML from here on)"]);
        check_faults(
            "a: 1\n---\nb: 2\n",
            &["2:1 yaml-syntax: a file holds one pipeline, not several YAML documents (a second document begins here)"],
        );
        check_faults("a: !env X", &["1:4 yaml-syntax: the tag `!env` is not known here (unknown tag)"]);
        check_faults("? [a]\n: 1\n", &["1:3 yaml-syntax: a key must be a word, not a list or a mapping (not a word)"]);
        check_faults("a: &x [*x]", &["1:8 yaml-syntax: an alias cannot stand inside its own anchor ()"]);
    }

    #[test]
    fn a_key_given_twice_names_the_first() {
        check_faults(
            "é: {a: 1, a: 2}\né: 3\n",
            &[
                "1:11 duplicate-key: `a` is defined twice (defined again here)",
                "2:1 duplicate-key: `é` is defined twice (defined again here)",
            ],
        );
    }

    #[test]
    fn a_file_cannot_blow_up() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let use_of = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [use_of.as_str(); 10].join(", ")));
        }
        assert!(read(&text).1[0].contains("yaml-limit"));
        assert!(read(&"[".repeat(200)).1[0].contains("yaml-limit"));
    }
}
