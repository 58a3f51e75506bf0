//! JSONPath (RFC 9535), compiled once.
//!
//! A path that names one place (`$.a.b[0]`) is a place of the layout that the payload is scanned with: nothing is
//! decoded, and numbers keep their text. Only wildcards, slices, filters, `..` and counting from the end need a decoded
//! document; there, a number that 64 bits cannot hold is an error, since decoding would round it.
use std::sync::Arc;

use jsonpath_rust::{
    parser::{
        model::{JpQuery, Segment as JpSegment, Selector},
        parse_json_path,
    },
    query::js_path_process,
};
use serde_json::Value;

use super::{
    path::{self, Segment},
    scan::scan_batch,
};
use crate::{
    codec::json::{Kind, NotJson, Reader},
    diagnostic::Fault,
    message::{Batch, Layout, MessageRef, NodeId, Scanned, Slot, SlotKind},
};

/// Paths that are looked up together.
#[derive(Debug, Default)]
pub struct JsonPaths {
    lookups: Vec<Lookup>,
    layout: Arc<Layout>,
}

#[derive(Debug)]
enum Lookup {
    /// One place, and its node in the layout.
    Fixed(Vec<Segment>, NodeId),
    /// `many` when it may find more than one value: then the answer is their list.
    Query { query: JpQuery, many: bool },
}

/// What a path finds.
#[derive(Debug, PartialEq)]
pub enum Found<'a> {
    Nothing,
    /// A value as it stands in the payload.
    Value(SlotKind, &'a str),
    /// JSON made from what a query finds.
    Made(String),
}

/// Why paths cannot be looked up in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("the payload is not JSON: it is not UTF-8")]
    NotUtf8,
    #[error("the payload is not JSON: {0}")]
    NotJson(NotJson),
    #[error("the payload is JSON {0}")]
    TooDeep(NotJson),
    #[error(
        "the payload holds a number that 64 bits cannot hold, which a path with wildcards, slices or filters would round"
    )]
    WideNumber,
}

impl LookupError {
    /// Kebab-case name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 | Self::NotJson(_) => "not-json",
            Self::TooDeep(_) => "nested-too-deep",
            Self::WideNumber => "number-too-large",
        }
    }
}

impl From<NotJson> for LookupError {
    fn from(error: NotJson) -> Self {
        if error.too_deep { Self::TooDeep(error) } else { Self::NotJson(error) }
    }
}

impl JsonPaths {
    /// Compiles one more path; its answer is the next one. True when it gives a list, see `gives_list`.
    ///
    /// # Errors
    /// A fault without a place: the caller knows the field.
    pub fn add(&mut self, path: &str) -> Result<bool, Fault> {
        let query = parse_json_path(path).map_err(|error| {
            // The parser draws a picture of several lines; the last one says what it expected.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("= ");
            Fault::new("bad-jsonpath", "", format!("`{path}` is not a JSONPath"))
                .label(reason)
                .help("paths start with `$`: `$.device.id`, `$.readings[0]`, `$['a-b']`, `$.readings[*].value`")
        })?;
        self.lookups.push(match fixed(&query) {
            Some(segments) => Lookup::Fixed(segments, NodeId::ROOT),
            None => {
                let many = !query.segments.iter().all(|s| single(s).is_some());
                Lookup::Query { query, many }
            }
        });
        let mut layout = Layout::new();
        self.wants(&mut layout);
        self.layout = Arc::new(layout);
        Ok(self.gives_list(self.lookups.len() - 1))
    }

    /// True when the path of that number may find several values, and gives their list.
    pub fn gives_list(&self, number: usize) -> bool {
        matches!(self.lookups[number], Lookup::Query { many: true, .. })
    }

    /// Adds the places it looks at to `layout`; `bind` takes it when all steps that share it have done so.
    pub fn wants(&mut self, layout: &mut Layout) {
        for lookup in &mut self.lookups {
            if let Lookup::Fixed(segments, node) = lookup {
                *node = path::add(layout, segments);
            }
        }
    }

    /// Takes the layout that the payloads are scanned with.
    pub fn bind(&mut self, layout: &Arc<Layout>) {
        self.layout = layout.clone();
    }

    /// Reads the payloads of a batch before `find` is called for its messages.
    pub fn scan(&self, batch: &mut Batch) {
        scan_batch(batch, &self.layout);
    }

    /// Looks every path up in the payload of a message, whose batch `scan` has read, and hands over what each finds, in
    /// the order they were added, by its number.
    ///
    /// # Errors
    /// The payload is not JSON, or holds a number that cannot be decoded exactly; or whatever `take` answers.
    pub fn find<'a, E: From<LookupError>>(
        &self,
        message: MessageRef<'a>,
        mut take: impl FnMut(usize, Found<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let payload = message.payload();
        let document = message.document().filter(|document| matches!(document.scanned, Scanned::Json { .. }));
        let (Some(document), Ok(json)) = (document, simdutf8::basic::from_utf8(payload)) else {
            return Err(why_not(payload).into());
        };
        let mut decoded = None;
        for (number, lookup) in self.lookups.iter().enumerate() {
            let found = match lookup {
                Lookup::Fixed(_, node) => match document.slots[node.index()] {
                    Slot { kind: SlotKind::Missing, .. } => Found::Nothing,
                    slot => Found::Value(slot.kind, slot.json(json)),
                },
                Lookup::Query { query, many } => {
                    let decoded = match &mut decoded {
                        Some(decoded) => decoded,
                        none => none.insert(decode(json)?),
                    };
                    let values = js_path_process(query, decoded).unwrap_or_default();
                    match (values.as_slice(), many) {
                        ([], _) => Found::Nothing,
                        ([value, ..], false) => Found::Made(value.val.to_string()),
                        (values, true) => {
                            let items: Vec<_> = values.iter().map(|v| v.val.to_string()).collect();
                            Found::Made(format!("[{}]", items.join(",")))
                        }
                    }
                }
            };
            take(number, found)?;
        }
        Ok(())
    }
}

/// Why a payload is not JSON that can be read.
fn why_not(payload: &[u8]) -> LookupError {
    let Ok(text) = simdutf8::basic::from_utf8(payload) else { return LookupError::NotUtf8 };
    let mut reader = Reader::new(text);
    match reader.skip().and_then(|()| reader.end()) {
        Err(error) => error.into(),
        Ok(()) => LookupError::NotJson(NotJson { at: 0, expected: "a payload that was scanned", too_deep: false }),
    }
}

fn decode(json: &str) -> Result<Value, LookupError> {
    if !exact(&mut Reader::new(json))? {
        return Err(LookupError::WideNumber);
    }
    // It was read from end to end before; what is left is the one level that serde_json nests less.
    serde_json::from_str(json).map_err(|_| LookupError::TooDeep(NotJson { at: 0, expected: "", too_deep: true }))
}

/// True when every number of the next value survives being decoded.
fn exact(reader: &mut Reader<'_>) -> Result<bool, NotJson> {
    let mut first = true;
    let mut all = true;
    match reader.value()? {
        Kind::Object => {
            while reader.next_key(first)?.is_some() {
                all &= exact(reader)?;
                first = false;
            }
        }
        Kind::Array => {
            while reader.next_item(first)? {
                all &= exact(reader)?;
                first = false;
            }
        }
        Kind::Number(number) if number.integer => {
            all = number.text.parse::<i64>().is_ok() || number.text.parse::<u64>().is_ok();
        }
        Kind::Number(number) => all = number.text.parse::<f64>().is_ok_and(f64::is_finite),
        _ => {}
    }
    Ok(all)
}

/// The one selector of a segment that finds at most one value.
fn single(segment: &JpSegment) -> Option<&Selector> {
    match segment {
        JpSegment::Selector(selector @ (Selector::Name(_) | Selector::Index(_))) => Some(selector),
        _ => None,
    }
}

/// The query as a fixed path, when it is one.
fn fixed(query: &JpQuery) -> Option<Vec<Segment>> {
    query
        .segments
        .iter()
        .map(|segment| match single(segment)? {
            Selector::Index(index) => usize::try_from(*index).ok().map(Segment::Index),
            Selector::Name(name) => {
                // Names in brackets keep their quotes. Those with escapes are left to the query engine.
                let quoted = ['\'', '"'].iter().find_map(|&q| name.strip_prefix(q)?.strip_suffix(q));
                let name = quoted.unwrap_or(name);
                (!name.contains('\\')).then(|| Segment::Key(name.to_owned()))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod compliance;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::SourceBuilder;

    fn find(json: &str, path: &str) -> Result<Option<String>, LookupError> {
        let mut paths = JsonPaths::default();
        paths.add("$.unrelated").unwrap();
        paths.add(path).unwrap();
        let mut source = SourceBuilder::new("test");
        source.push(json.as_bytes(), |_, _| Ok(())).unwrap();
        let mut batch = Batch::new(source.finish());
        paths.scan(&mut batch);
        let mut all = Vec::new();
        paths.find(batch.get(0), |_, found| {
            all.push(match found {
                Found::Nothing => None,
                Found::Value(_, json) => Some(json.to_owned()),
                Found::Made(json) => Some(json),
            });
            Ok::<_, LookupError>(())
        })?;
        Ok(all.swap_remove(1))
    }

    #[test]
    fn paths_find_values() {
        let json = r#"{"a":{"b-c":[1.10,{"d":null},3]},"it's":18446744073709551615,"l":[{"v":1},{"v":2},{}]}"#;
        for (path, expected) in [
            ("$.a['b-c'][0]", Some("1.10")),
            ("$", Some(json)),
            ("$['a'][\"b-c\"][1].d", Some("null")),
            ("$.a['b-c'][-1]", Some("3")),
            ("$['it\\'s']", Some("18446744073709551615")),
            ("$.l[*].v", Some("[1,2]")),
            ("$..v", Some("[1,2]")),
            ("$.l[?@.v > 1]", Some("[{\"v\":2}]")),
            ("$.l[0:2].v", Some("[1,2]")),
            ("$.l[*].x", None),
            ("$.x", None),
            ("$.a.b.c", None),
        ] {
            assert_eq!(find(json, path).unwrap().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let json = r#"{"l":[123456789012345678901234567890]}"#;
        assert_eq!(find(json, "$.l[0]").unwrap().unwrap(), "123456789012345678901234567890");
        assert_eq!(find(json, "$.l[*]"), Err(LookupError::WideNumber));
    }

    #[test]
    fn payloads_that_cannot_be_read_say_why() {
        assert_eq!(find("x", "$.a").unwrap_err().to_string(), "the payload is not JSON: expected a value at byte 0");
        assert_eq!(find(&"[".repeat(10_000), "$..a").unwrap_err().code(), "nested-too-deep");
        let edge = format!("{}1{}", "[".repeat(128), "]".repeat(128));
        assert_eq!(find(&edge, "$[*]").unwrap_err().code(), "nested-too-deep");
    }

    #[test]
    fn a_bad_path_is_a_fault() {
        for path in ["a.b", "$.", "$[", "$.a[?]", ""] {
            let fault = JsonPaths::default().add(path).unwrap_err();
            assert_eq!(fault.title, format!("`{path}` is not a JSONPath"));
            assert!(!fault.label.is_empty(), "{path}");
        }
    }
}
