//! Makes several messages of one: each item of a list becomes a message of its own.
//!
//! Items are copied as they stand in the payload, so numbers stay exact. They keep the message's key, headers and
//! metadata; `meta.part` tells them apart. The message is acknowledged when every part has ended: delivered, filtered or
//! dead-lettered. A dead letter of a part holds the whole message as it was received, and the number of the part.
//! A message in which there is no list is a dead letter; one with an empty list is filtered.
use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Failure, Step, StepReport, shape_in};
use crate::{
    codec::json::{self, Kind, Reader},
    diagnostic::Fault,
    message::{ArenaFull, Batch, BatchWriter, Layout, MessageRef},
    script::{Emit, Mapping, ScriptError},
    shape::{self, Field, Fields, Place, Shape},
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Step> = Spec {
    name: "split",
    summary: "Makes several messages of one: each item of a list becomes a message of its own.",
    example: "of: payload.readings\nkeep: { device: payload.id }\n",
    scripts: &["", "of", "keep.*"],
    schema: schema_of::<Config>,
    build,
};

/// A Rhai expression of the list, or the settings.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Config {
    Of(String),
    Settings(Settings),
}

/// Settings of the `split` step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Expression of the list.
    #[serde(default = "of")]
    of: String,
    /// Expressions of fields that each item gets from the whole message, by name; a field of that name in the item gives
    /// way. The items must then be objects.
    #[serde(default)]
    keep: BTreeMap<String, String>,
    /// Most parts of one message. A message with more is a dead letter.
    #[serde(default = "parts_max")]
    #[schemars(range(min = 1, max = 1_000_000))]
    parts_max: u32,
}

fn of() -> String {
    "payload".to_owned()
}

fn parts_max() -> u32 {
    10_000
}

/// Largest size of all parts of one message, in bytes: what is kept could make many times the message of it.
const PARTS_BYTES_MAX: usize = 256 << 20;

struct Split {
    of: Mapping,
    /// True when the section is the expression itself.
    short: bool,
    /// Name, `"name":` ready to be written, and the expression.
    keep: Vec<(String, Vec<u8>, Mapping)>,
    parts_max: u32,
    list: Vec<u8>,
    kept: Vec<u8>,
}

fn build(section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
    let (settings, short) = match decode(section)? {
        Config::Of(of) => (Settings { of, keep: BTreeMap::new(), parts_max: parts_max() }, true),
        Config::Settings(settings) => (settings, false),
    };
    let mut faults = Vec::new();
    let field = if short { "" } else { "of" };
    let of = Mapping::compile(&settings.of, section.script(field)).map_err(|found| {
        faults.extend(found.into_iter().map(|fault| if short { fault } else { fault.within("of") }));
    });
    let mut keep = Vec::new();
    for (name, source) in &settings.keep {
        match Mapping::compile(source, section.script(&format!("keep.{name}"))) {
            Ok(expression) => {
                let mut prefix = Vec::new();
                json::string(name, &mut prefix);
                prefix.push(b':');
                keep.push((name.clone(), prefix, expression));
            }
            Err(found) => faults.extend(found.into_iter().map(|fault| fault.within(name).within("keep"))),
        }
    }
    if !(1..=1_000_000).contains(&settings.parts_max) {
        let title = format!("`parts_max` is {}, and must be from 1 to 1000000", settings.parts_max);
        faults.push(Fault::new("out-of-range", "parts_max", title).label("out of range"));
    }
    match of {
        Ok(of) if faults.is_empty() => {
            Ok(Box::new(Split { of, short, keep, parts_max: settings.parts_max, list: Vec::new(), kept: Vec::new() }))
        }
        _ => Err(faults),
    }
}

/// Why a message has no parts.
enum Whole {
    Dropped,
    Script(ScriptError),
    Bad(&'static str, String),
}

impl From<ArenaFull> for Whole {
    fn from(error: ArenaFull) -> Self {
        Self::Bad("batch-too-large", error.to_string())
    }
}

impl Step for Split {
    fn apply(&mut self, mut batch: Batch, report: &mut StepReport) -> Batch {
        self.of.scan(&mut batch);
        self.keep.iter().for_each(|(_, _, expression)| expression.scan(&mut batch));
        let mut writer = batch.rewrite();
        for message in batch.iter() {
            let before = writer.len();
            match self.split(message, &mut writer) {
                // An empty list.
                Ok(()) if writer.len() == before => report.filtered += 1,
                Ok(()) => {}
                Err(whole) => {
                    // No part of it goes on: the message is one dead letter.
                    writer.truncate(before);
                    match whole {
                        Whole::Dropped => report.filtered += 1,
                        Whole::Script(error) => report.failures.push(Failure::script(message, error)),
                        Whole::Bad(code, reason) => report.failures.push(Failure::of(message, code, reason)),
                    }
                }
            }
        }
        report.interpreted += self.of.interpreted();
        for (_, _, expression) in &mut self.keep {
            report.interpreted += expression.interpreted();
        }
        writer.finish()
    }

    fn notes(&self) -> Vec<Fault> {
        let of = self.of.notes().into_iter().map(|note| if self.short { note } else { note.within("of") });
        let kept = self.keep.iter().flat_map(|(name, _, expression)| {
            expression.notes().into_iter().map(|note| note.within(name).within("keep"))
        });
        of.chain(kept).collect()
    }

    fn shape(&self, before: &Shape) -> Shape {
        if self.keep.is_empty() {
            return Shape::Any;
        }
        let known = self.keep.iter().map(|(name, _, expression)| Field {
            name: name.clone(),
            shape: shape_in(expression.shape(before), &["keep", name]),
            certain: true,
            place: Place::of_key(&["keep", name]),
        });
        Shape::one(shape::Kind::Map(Fields { known: known.collect(), open: true, place: Place::default() }))
    }

    fn wants(&mut self, layout: &mut Layout) {
        self.of.wants(layout);
        self.keep.iter_mut().for_each(|(_, _, expression)| expression.wants(layout));
    }

    fn bind(&mut self, layout: &Arc<Layout>) {
        self.of.bind(layout);
        self.keep.iter_mut().for_each(|(_, _, expression)| expression.bind(layout));
    }
}

impl Split {
    fn split(&mut self, message: MessageRef<'_>, writer: &mut BatchWriter) -> Result<(), Whole> {
        let Self { of, keep, parts_max, list, kept, .. } = self;
        list.clear();
        value(of, message, list)?;
        kept.clear();
        for (at, (_, prefix, expression)) in keep.iter_mut().enumerate() {
            if at > 0 {
                kept.push(b',');
            }
            kept.extend_from_slice(prefix);
            value(expression, message, kept)?;
        }
        const CHECKED: &str = "scripts write JSON";
        let list = std::str::from_utf8(list).expect(CHECKED);
        let mut reader = Reader::new(list);
        if reader.value().expect(CHECKED) != Kind::Array {
            let shown: String = list.chars().take(40).collect();
            return Err(Whole::Bad("not-a-list", format!("`split` takes a list, and this is `{shown}`")));
        }
        let (mut part, mut bytes) = (0, 0);
        while reader.next_item(part == 0).expect(CHECKED) {
            let item = reader.raw().expect(CHECKED);
            if part == *parts_max {
                return Err(Whole::Bad("too-many-parts", format!("the list has more than {parts_max} items")));
            }
            bytes += item.len() + kept.len();
            if bytes > PARTS_BYTES_MAX {
                let reason = format!("its parts would be larger than {PARTS_BYTES_MAX} bytes together");
                return Err(Whole::Bad("too-large", reason));
            }
            writer.push_part(message, part, |out| {
                if keep.is_empty() {
                    out.extend_from_slice(item.as_bytes());
                    return Ok(());
                }
                merge(item, keep.iter().map(|(name, ..)| name.as_str()), kept, out).ok_or_else(|| {
                    Whole::Bad(
                        "not-an-object",
                        format!("item {part} of the list is no object, and gets fields by `keep`"),
                    )
                })
            })?;
            part += 1;
        }
        Ok(())
    }
}

/// Appends the value of an expression as JSON.
fn value(expression: &mut Mapping, message: MessageRef<'_>, out: &mut Vec<u8>) -> Result<(), Whole> {
    match expression.run(message, out) {
        Ok(Emit::Written) => Ok(()),
        Ok(Emit::Dropped) => Err(Whole::Dropped),
        Err(error) => Err(Whole::Script(error)),
    }
}

/// Appends the object `item` with the members `kept`, whose names are `names`, in place of its own of these names.
/// `None` when it is no object.
fn merge<'n>(item: &str, names: impl Iterator<Item = &'n str> + Clone, kept: &[u8], out: &mut Vec<u8>) -> Option<()> {
    const CHECKED: &str = "an item of a list that was read";
    let mut reader = Reader::new(item);
    if reader.value().expect(CHECKED) != Kind::Object {
        return None;
    }
    out.push(b'{');
    out.extend_from_slice(kept);
    let mut first = true;
    while let Some(key) = reader.next_key(first).expect(CHECKED) {
        first = false;
        let member = reader.raw().expect(CHECKED);
        if names.clone().any(|name| key.is(name)) {
            continue;
        }
        out.extend_from_slice(b",\"");
        out.extend_from_slice(key.raw().as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(member.as_bytes());
    }
    out.push(b'}');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::tests::run;

    fn check(yaml: &str, payload: &str, expected: &[&str]) {
        let (parts, report) = run(&SPEC, &Section::from_yaml(yaml), &[payload.as_bytes()]);
        assert_eq!(parts, expected, "{yaml} of {payload}: {:?}", report.failures);
        assert_eq!(report.filtered, u64::from(expected.is_empty()));
    }

    #[test]
    fn items_become_messages_as_they_stand() {
        check(
            "payload",
            r#"[1.10, "a", {"z":1, "a":2}, [18446744073709551616], null]"#,
            &["1.10", "\"a\"", "{\"z\":1, \"a\":2}", "[18446744073709551616]", "null"],
        );
        check("payload.l", r#"{"l":[{"x":1}]}"#, &["{\"x\":1}"]);
        check("{ of: 'payload.l.filter(|x| x > 1)' }", r#"{"l":[1,2,3]}"#, &["2", "3"]);
        check("payload", "[]", &[]);
    }

    #[test]
    fn kept_fields_take_the_place_of_an_items_own() {
        let yaml = "{ of: payload.l, keep: { id: payload.id, at: 5 } }".replace("at: 5", "at: '5'");
        check(
            &yaml,
            r#"{"id":"a","l":[{"x":1,"id":"mine"},{}]}"#,
            &[r#"{"at":5,"id":"a","x":1}"#, r#"{"at":5,"id":"a"}"#],
        );
    }

    #[test]
    fn a_message_without_a_list_is_one_failure_and_has_no_parts() {
        for (yaml, payload, code) in [
            ("payload", "{}", "not-a-list"),
            ("payload.a.b", "{}", "script-error"),
            ("{ of: payload, parts_max: 2 }", "[1,2,3]", "too-many-parts"),
            ("{ of: payload, keep: { a: '1' } }", "[{}, 5]", "not-an-object"),
        ] {
            let (parts, report) = run(&SPEC, &Section::from_yaml(yaml), &[payload.as_bytes()]);
            assert_eq!((parts.len(), report.failures.len()), (0, 1), "{yaml}");
            assert_eq!((report.failures[0].code.as_str(), report.failures[0].part), (code, None), "{yaml}");
        }
    }

    #[test]
    fn parts_are_numbered_and_a_part_of_a_part_keeps_the_number_of_the_first_split() {
        let (batch, _) = crate::step::tests::apply(&SPEC, &Section::from_yaml("payload"), {
            let mut source = crate::message::SourceBuilder::new("test");
            source.push(b"[[1,2],[3]]", |_, _| Ok(())).unwrap();
            Batch::new(source.finish())
        });
        let (batch, _) = crate::step::tests::apply(&SPEC, &Section::from_yaml("payload"), batch);
        let parts: Vec<_> =
            batch.iter().map(|m| (String::from_utf8_lossy(m.payload()).into_owned(), m.part())).collect();
        assert_eq!(parts, [("1".into(), Some(0)), ("2".into(), Some(0)), ("3".into(), Some(1))]);
        assert!(batch.iter().all(|m| m.source().original(m.origin()) == b"[[1,2],[3]]"));
    }
}
