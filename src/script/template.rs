//! Templates of keys and topics: text with `{meta.…}` in it. `{{` and `}}` stand for the brackets themselves.
use super::MetaField;
use crate::{diagnostic::Fault, message::MessageRef};

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Meta(MetaField),
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
                .help("values are written `{meta.topic}`, `{meta.levels[1]}`, `{meta.key}`, `{meta.headers.name}`; a bracket itself is `{{` or `}}`")
        };
        let mut parts = Vec::new();
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
            let Some(meta) = value.strip_prefix("meta.").and_then(MetaField::parse) else {
                return Err(fault(format!("`{{{value}}}` is not a value a template knows")));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Meta(meta));
            rest = &bracket[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
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
    pub fn write(&self, message: MessageRef<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        for part in &self.parts {
            let written = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                Part::Meta(field) => field.write(message, out),
            };
            if !written {
                out.truncate(start);
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Batch, SourceBuilder};

    fn check(template: &str, expected: Option<&str>) {
        let mut source = SourceBuilder::new("mqtt");
        source
            .push(b"{}", |o, parts| {
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
    }

    #[test]
    fn a_missing_value_makes_the_whole_missing() {
        check("x{meta.levels[9]}", None);
        check("{meta.key}", None);
        check("{meta.headers[\"no\"]}", None);
        check("{meta.device}", None);
    }

    #[test]
    fn faults_name_what_is_wrong() {
        for (text, title) in [
            ("a{b", "`{` without its partner in `a{b`"),
            ("a}b", "`}` without its partner in `a}b`"),
            ("{mta.key}", "`{mta.key}` is not a value a template knows"),
            ("{meta.levels[x]}", "`{meta.levels[x]}` is not a value a template knows"),
        ] {
            assert_eq!(Template::parse("key", text).unwrap_err().title, title);
        }
    }
}
