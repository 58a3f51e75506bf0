//! Templates of keys and topics: text with `{meta.…}` and `{payload.…}` in it. `{{` and `}}` stand for the brackets
//! themselves.
use super::{
    MetaField,
    path::{self, PathSet},
};
use crate::{
    codec::json::{Kind, Reader},
    diagnostic::Fault,
    message::MessageRef,
};

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    paths: PathSet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Meta(MetaField),
    /// The place of a path in the template's `PathSet`.
    Payload(usize),
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
        let mut paths = PathSet::default();
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
            let Some(part) = meta.or_else(|| payload().map(|path| Part::Payload(paths.add(path)))) else {
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
        Ok(Self { parts, paths })
    }

    /// The text, when the template is the same for every message.
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text for `message`. Answers false, and appends nothing, when the message lacks one of the values.
    ///
    /// `{payload.…}` is looked up in the payload as it is now: what a string says, the text of a number, `true` or
    /// `false`. Null, objects and arrays count as missing, and so does everything in a payload that is not JSON.
    pub fn write(&self, message: MessageRef<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let mut found = Vec::new();
        if !self.paths.is_empty() {
            let payload = simdutf8::basic::from_utf8(message.payload()).ok();
            if payload.is_none_or(|json| self.paths.find(json, &mut found).is_err()) {
                return false;
            }
        }
        for part in &self.parts {
            let written = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                Part::Meta(field) => field.write(message, out),
                Part::Payload(path) => found[*path].is_some_and(|json| scalar(json, out)),
            };
            if !written {
                out.truncate(start);
                return false;
            }
        }
        true
    }
}

/// Appends the text of a value. Answers false when it has none.
fn scalar(json: &str, out: &mut Vec<u8>) -> bool {
    match Reader::new(json).value() {
        Ok(Kind::String(text)) => out.extend_from_slice(text.decode().as_bytes()),
        Ok(Kind::Number(_) | Kind::Bool(_)) => out.extend_from_slice(json.as_bytes()),
        _ => return false,
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
