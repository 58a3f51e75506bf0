//! Sets a message's key, headers and named metadata. The payload stays as it is.
//!
//! Each setting is a Rhai expression. A text is taken as it is, any other value as JSON, `()` takes away what was there.
//! Later steps, keys and topics of outputs, and the outputs themselves see what is set; a dead letter shows what was
//! received. A message for which an expression fails is a dead letter.
use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Failure, Step, StepReport};
use crate::{
    codec::json::{Kind, Reader},
    diagnostic::Fault,
    message::{ArenaFull, Batch, Layout, MessageRef, Setting, Span},
    script::{Emit, Mapping, ScriptError},
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Step> = Spec {
    name: "set",
    summary: "Sets a message's key, headers and named metadata from Rhai expressions.",
    example: "key: payload.device_id\nheaders: { site: '\"berlin\"', trace: meta.headers.trace ?? uuid() }\nmeta: { shard: 'shard(meta.key, 4)' }\n",
    scripts: &["key", "headers.*", "meta.*"],
    schema: schema_of::<Config>,
    build,
};

/// Settings of the `set` step: at least one of them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Expression of the new key. `()` takes the key away.
    #[serde(default)]
    key: Option<String>,
    /// Expressions of headers, by name. `()` takes a header away.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Expressions of metadata, by name: `meta.name` in scripts, `{meta.name}` in keys and topics of outputs. Names that
    /// messages have of their own (`topic`, `offset`, …) cannot be set.
    #[serde(default)]
    meta: BTreeMap<String, String>,
}

/// Names that `meta` has of its own.
const OWN: &[&str] = &[
    "headers",
    "key",
    "levels",
    "offset",
    "part",
    "partition",
    "qos",
    "received_at",
    "received_at_ms",
    "retain",
    "timestamp_ms",
    "topic",
];

struct Set {
    expressions: Vec<Mapping>,
    /// Which of the expressions is the key's: the first, when there is one.
    has_key: bool,
    /// Names and the values of the message at hand.
    headers: Vec<(Arc<str>, Option<Span>)>,
    meta: Vec<(Arc<str>, Option<Span>)>,
    texts: Vec<u8>,
    json: Vec<u8>,
}

fn build(section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
    let config: Config = decode(section)?;
    let mut faults = Vec::new();
    let mut expressions = Vec::new();
    let mut add = |parent: &str, name: &str, source: &str| {
        let field = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        match Mapping::compile(source, section.script(&field)) {
            Ok(expression) => expressions.push(expression),
            Err(found) => faults.extend(found.into_iter().map(|fault| match parent {
                "" => fault.within(name),
                parent => fault.within(name).within(parent),
            })),
        }
    };
    config.key.iter().for_each(|source| add("", "key", source));
    config.headers.iter().for_each(|(name, source)| add("headers", name, source));
    config.meta.iter().for_each(|(name, source)| add("meta", name, source));
    for name in config.meta.keys().filter(|name| OWN.contains(&name.as_str())) {
        let title = format!("`meta.{name}` is the message's own and cannot be set");
        let help = match name.as_str() {
            "key" | "headers" => format!("set it with `{name}:` beside `meta:`"),
            _ => "choose another name".to_owned(),
        };
        faults.push(Fault::new("name-taken", "", title).label("taken").help(help).within(name).within("meta"));
    }
    if config.key.is_none() && config.headers.is_empty() && config.meta.is_empty() {
        faults
            .push(Fault::new("nothing-to-set", "", "`set` sets nothing").label("expected `key`, `headers` or `meta`"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let names = |map: BTreeMap<String, String>| map.into_keys().map(|name| (name.into(), None)).collect();
    // One scan for all of them, also when no other step shares it.
    let mut layout = Layout::new();
    expressions.iter_mut().for_each(|expression: &mut Mapping| expression.wants(&mut layout));
    let layout = Arc::new(layout);
    expressions.iter_mut().for_each(|expression| expression.bind(&layout));
    Ok(Box::new(Set {
        expressions,
        has_key: config.key.is_some(),
        headers: names(config.headers),
        meta: names(config.meta),
        texts: Vec::new(),
        json: Vec::new(),
    }))
}

/// Why nothing is set.
enum Unset {
    Dropped,
    Failed(ScriptError),
}

impl From<ArenaFull> for Unset {
    fn from(error: ArenaFull) -> Self {
        Self::Failed(ScriptError { code: "batch-too-large", reason: error.to_string(), place: None })
    }
}

impl Step for Set {
    fn apply(&mut self, mut batch: Batch, report: &mut StepReport) -> Batch {
        self.expressions.iter().for_each(|expression| expression.scan(&mut batch));
        let StepReport { failures, filtered, .. } = report;
        batch.change(
            |message, write| {
                let key = self.evaluate(message)?;
                let Self { headers, meta, texts, .. } = self;
                Ok(write(&Setting { texts, key, headers, meta })?)
            },
            |message, unset| match unset {
                Unset::Dropped => *filtered += 1,
                Unset::Failed(error) => failures.push(Failure::script(message, error)),
            },
        );
        for expression in &mut self.expressions {
            report.interpreted += expression.interpreted();
        }
        batch
    }

    fn notes(&self) -> Vec<Fault> {
        let names = |parent: &'static str, names: &[(Arc<str>, Option<Span>)]| {
            names.iter().map(|(name, _)| vec![parent.to_owned(), name.to_string()]).collect::<Vec<_>>()
        };
        let key = self.has_key.then(|| vec!["key".to_owned()]);
        let fields = key.into_iter().chain(names("headers", &self.headers)).chain(names("meta", &self.meta));
        let notes = self.expressions.iter().zip(fields).flat_map(|(expression, field)| {
            let within = move |note| field.iter().rev().fold(note, |note: Fault, name| note.within(name));
            expression.notes().into_iter().map(within)
        });
        notes.collect()
    }

    fn wants(&mut self, layout: &mut Layout) {
        self.expressions.iter_mut().for_each(|expression| expression.wants(layout));
    }

    fn bind(&mut self, layout: &Arc<Layout>) {
        self.expressions.iter_mut().for_each(|expression| expression.bind(layout));
    }

    fn keeps_payloads(&self) -> bool {
        true
    }
}

impl Set {
    /// Works every expression out; answers the key's value, when it is to be set.
    fn evaluate(&mut self, message: MessageRef<'_>) -> Result<Option<Option<Span>>, Unset> {
        let Self { expressions, has_key, headers, meta, texts, json } = self;
        texts.clear();
        let mut key = None;
        let targets = headers.iter_mut().chain(meta).map(|(_, value)| value);
        let targets = has_key.then_some(&mut key).into_iter().chain(targets);
        for (expression, target) in expressions.iter_mut().zip(targets) {
            json.clear();
            match expression.run(message, json).map_err(Unset::Failed)? {
                Emit::Written => *target = text_of(json, texts)?,
                Emit::Dropped => return Err(Unset::Dropped),
            }
        }
        Ok(has_key.then_some(key))
    }
}

/// Appends the text of a JSON value: what a text says, any other as it is written. `None` for null.
fn text_of(json: &[u8], texts: &mut Vec<u8>) -> Result<Option<Span>, ArenaFull> {
    let json = std::str::from_utf8(json).expect("scripts write JSON, which is UTF-8");
    let start = texts.len();
    match Reader::new(json).value() {
        Ok(Kind::Null) => return Ok(None),
        Ok(Kind::String(text)) => text.pieces(|piece| texts.extend_from_slice(piece.as_bytes())),
        _ => texts.extend_from_slice(json.as_bytes()),
    }
    Span::new(start, texts.len() - start).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::SourceBuilder, script::Template, step::tests::apply};

    fn batch(payloads: &[&str]) -> Batch {
        let mut source = SourceBuilder::new("kafka");
        for payload in payloads {
            source
                .push(payload.as_bytes(), |origin, parts| {
                    origin.key = Some(parts.bytes(b"old")?);
                    parts.header(origin, "a", b"1")?;
                    parts.header(origin, "b", b"2")
                })
                .unwrap();
        }
        Batch::new(source.finish())
    }

    fn headers(message: MessageRef<'_>) -> String {
        let headers = message.headers().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)));
        headers.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn key_headers_and_metadata_are_set_kept_and_taken_away() {
        let section = Section::from_yaml(
            "{ key: payload.id, headers: { a: 'payload.none', c: '[1, true]' }, meta: { shard: payload.n, °: '\"x\"' } }",
        );
        let (batch, report) = apply(&SPEC, &section, batch(&[r#"{"id":"p\"1","n":1.50}"#, r#"{"n":2}"#]));
        assert_eq!((batch.len(), report.failures.len()), (2, 0));
        let (one, two) = (batch.get(0), batch.get(1));
        assert_eq!((one.key(), two.key()), (Some(&b"p\"1"[..]), None));
        assert_eq!(headers(one), "b=2 c=[1,true]");
        assert_eq!(
            (one.named("shard"), two.named("shard"), one.named("°")),
            (Some(&b"1.50"[..]), Some(&b"2"[..]), Some(&b"x"[..]))
        );
        assert_eq!(one.payload(), br#"{"id":"p\"1","n":1.50}"#);
        // What was received is still known.
        assert_eq!(one.source().key(one.origin()), Some(&b"old"[..]));
        assert!(batch.has_headers());

        // A second step changes a part of it, and sees the rest.
        let section = Section::from_yaml("{ headers: { c: meta.shard, d: 'meta.key ?? \"none\"' } }");
        let (batch, _) = apply(&SPEC, &section, batch);
        assert_eq!(
            (headers(batch.get(0)), headers(batch.get(1))),
            ("b=2 c=1.50 d=p\"1".into(), "b=2 c=2 d=none".into())
        );
        let mut key = Vec::new();
        assert!(
            Template::parse("key", "{meta.key}/{meta.shard}/{meta.headers.c}").unwrap().write(batch.get(0), &mut key)
        );
        assert_eq!(key, b"p\"1/1.50/1.50");
    }

    #[test]
    fn a_message_whose_expression_fails_or_drops_is_left_out() {
        let section = Section::from_yaml("{ key: 'if payload.n == 1 { drop() } payload.n + payload.x.y' }");
        let (batch, report) = apply(&SPEC, &section, batch(&[r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":2,"x":{"y":1}}"#]));
        assert_eq!((batch.len(), report.filtered), (1, 1));
        assert_eq!(batch.get(0).key(), Some(&b"3"[..]));
        assert_eq!((report.failures[0].origin, report.failures[0].place.as_deref()), (1, Some("test/test:1:52")));
    }

    #[test]
    fn faults_name_the_field() {
        for (yaml, code, path) in [
            ("{}", "nothing-to-set", ""),
            ("{ meta: { topic: '1' } }", "name-taken", "meta.topic"),
            ("{ headers: { x: 'payload.' } }", "script-syntax", "headers.x"),
            ("{ key: 'nope(1)' }", "unknown-function", "key"),
        ] {
            let fault = (SPEC.build)(&Section::from_yaml(yaml)).err().unwrap().remove(0);
            let found: Vec<_> = fault.path.iter().map(ToString::to_string).collect();
            assert_eq!((fault.code, found.join(".").as_str()), (code, path), "{yaml}");
        }
    }
}
