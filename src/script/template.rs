//! Templates of keys and topics: text with `{meta.…}` and `{payload.…}` in it. `{{` and `}}` stand for the brackets
//! themselves.
use super::{
    MetaField,
    path::{self, Segment},
    scan::with_slots,
};
use crate::{
    codec::json::Text,
    diagnostic::Fault,
    message::{Layout, MessageRef, NodeId, Slot, SlotKind},
};

/// A compiled template.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
    /// What of the payload is put in.
    layout: Layout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Meta(MetaField),
    /// A place of the template's layout, and the name of the member when it is one of the payload's own.
    Payload(NodeId, Option<String>),
}

impl Template {
    /// Compiles the text of the setting `field`.
    ///
    /// # Errors
    /// A fault at `field` that names the bracket or the value that is not known.
    pub fn parse(field: &str, text: &str) -> Result<Self, Fault> {
        let fault = |title: String| {
            Fault::new("bad-template", field, title)
                .label("in this template")
                .help("values are written `{meta.topic}`, `{meta.levels[1]}`, `{meta.key}`, `{meta.headers.name}`, `{payload.name}`; a bracket itself is `{{` or `}}`")
        };
        let mut parts = Vec::new();
        let mut layout = Layout::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let bracket = &rest[at..];
            if bracket.starts_with("{{") || bracket.starts_with("}}") {
                literal.push_str(&bracket[..1]);
                rest = &bracket[2..];
                continue;
            }
            let Some(end) = bracket.find('}').filter(|_| bracket.starts_with('{')) else {
                return Err(fault(format!("`{}` without its partner in `{text}`", &bracket[..1])));
            };
            let value = bracket[1..end].trim();
            let meta = value.strip_prefix("meta.").and_then(MetaField::parse).map(Part::Meta);
            let payload = || {
                let path = value.strip_prefix("payload").filter(|p| p.starts_with(['.', '[']))?;
                path::parse(path.strip_prefix('.').unwrap_or(path))
            };
            let mut place = |path: Vec<Segment>| {
                let member = match path.as_slice() {
                    [Segment::Key(name)] => Some(name.clone()),
                    _ => None,
                };
                Part::Payload(path::add(&mut layout, &path), member)
            };
            let Some(part) = meta.or_else(|| payload().map(&mut place)) else {
                return Err(fault(format!("`{{{value}}}` is not a value a template knows")));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
            rest = &bracket[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts, layout })
    }

    /// The text, when the template is the same for every message.
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with `value` in place of everything that a message decides.
    pub fn shape(&self, value: char) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Meta(_) | Part::Payload(..) => out.push(value),
            }
        }
        out
    }

    /// True when it is `{meta.topic}` and no more.
    pub fn is_received_topic(&self) -> bool {
        self.parts == [Part::Meta(MetaField::Topic)]
    }

    /// Appends the text for `message`. Answers false, and appends nothing, when the message lacks one of the values.
    ///
    /// `{payload.…}` is looked up in the payload as it is now: what a string says, the text of a number, `true` or
    /// `false`. Null, objects and arrays count as missing, and so does everything in a payload that is not JSON.
    pub fn write(&self, message: MessageRef<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let written = if self.layout.is_empty() {
            self.write_parts(message, "", |_, _| Slot::default(), out)
        } else if let Some((json, members)) = self.indexed(message) {
            self.write_parts(message, json, |_, member| members(member), out)
        } else {
            with_slots(message, &self.layout, |json, slots| {
                self.write_parts(message, json, |node, _| slots[node.index()], out)
            })
            .unwrap_or(false)
        };
        if !written {
            out.truncate(start);
        }
        written
    }

    /// The payload and its members, when the step that made it has said where they are, and nothing else is asked for.
    fn indexed<'m>(&self, message: MessageRef<'m>) -> Option<(&'m str, impl Fn(&str) -> Slot + use<'m>)> {
        let document = message.document().filter(|document| document.is_complete())?;
        if !self.parts.iter().all(|part| !matches!(part, Part::Payload(_, None))) {
            return None;
        }
        let json = simdutf8::basic::from_utf8(message.payload()).ok()?;
        let member = move |name: &str| {
            document.layout.find(NodeId::ROOT, name).map_or_else(Slot::default, |node| document.slots[node.index()])
        };
        Some((json, member))
    }

    fn write_parts(
        &self,
        message: MessageRef<'_>,
        json: &str,
        slot: impl Fn(NodeId, &str) -> Slot,
        out: &mut Vec<u8>,
    ) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                true
            }
            Part::Meta(field) => field.write(message, out),
            Part::Payload(node, member) => scalar(json, slot(*node, member.as_deref().unwrap_or("")), out),
        })
    }
}

/// Appends the text of a value. Answers false when it has none.
fn scalar(json: &str, slot: Slot, out: &mut Vec<u8>) -> bool {
    match slot.kind {
        SlotKind::Escaped => Text::escaped(slot.of(json)).pieces(|piece| out.extend_from_slice(piece.as_bytes())),
        SlotKind::Text | SlotKind::Int | SlotKind::Float | SlotKind::True | SlotKind::False => {
            out.extend_from_slice(slot.of(json).as_bytes());
        }
        SlotKind::Missing | SlotKind::Null | SlotKind::Object | SlotKind::Array => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Batch, SourceBuilder};

    fn check(template: &str, expected: Option<&str>) {
        check_payload(r#"{"id":"a\u0062","n":{"v":1.10,"list":[true,null]}}"#, template, expected);
    }

    fn check_payload(payload: &str, template: &str, expected: Option<&str>) {
        let mut source = SourceBuilder::new("mqtt");
        source
            .push(payload.as_bytes(), |o, parts| {
                o.topic = parts.text("devices/phone-1/telemetry")?;
                o.offset = 7;
                o.received_at_ms = 1_700_000_000_999;
                parts.header(o, "trace", b"abc")
            })
            .unwrap();
        let batch = Batch::new(source.finish());
        let mut out = Vec::new();
        let written = Template::parse("key", template).unwrap().write(batch.get(0), &mut out);
        assert_eq!(written.then(|| String::from_utf8(out).unwrap()).as_deref(), expected, "{template}");
    }

    #[test]
    fn values_are_put_in() {
        check("{meta.levels[1]}", Some("phone-1"));
        check("a-{meta.topic}-{{b}}", Some("a-devices/phone-1/telemetry-{b}"));
        check("{meta.offset}/{meta.received_at}/{meta.headers.trace}", Some("7/1700000000/abc"));
        check("", Some(""));
        check("{payload.id}-{payload.n.v}-{payload[\"n\"].list[0]}-{meta.offset}", Some("ab-1.10-true-7"));
    }

    #[test]
    fn a_missing_value_makes_the_whole_missing() {
        check("x{meta.levels[9]}", None);
        check("{meta.key}", None);
        check("{meta.headers[\"no\"]}", None);
        check("{meta.device}", None);
        for template in ["{payload.x}", "{payload.n}", "{payload.n.list[1]}", "{payload.n.list[7]}", "{payload.id.x}"] {
            check(template, None);
        }
        check_payload("not JSON", "{payload.id}", None);
    }

    #[test]
    fn faults_name_what_is_wrong() {
        for (text, title) in [
            ("a{b", "`{` without its partner in `a{b`"),
            ("a}b", "`}` without its partner in `a}b`"),
            ("{mta.key}", "`{mta.key}` is not a value a template knows"),
            ("{payload.}", "`{payload.}` is not a value a template knows"),
            ("{payloads.a}", "`{payloads.a}` is not a value a template knows"),
            ("{payload}", "`{payload}` is not a value a template knows"),
            ("{meta.levels[x]}", "`{meta.levels[x]}` is not a value a template knows"),
        ] {
            assert_eq!(Template::parse("key", text).unwrap_err().title, title);
        }
    }
}
