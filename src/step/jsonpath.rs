//! Makes a new payload of each message from fields found by JSONPath, without a script.
//!
//! The new payload is an object with the fields sorted by name. A value is copied as it stands, so numbers stay exact. A
//! path that can find several values (`[*]`, `..`, slices, filters) gives the list of them. A field that is not found,
//! or null, gets its `default`; without one it is left out, or, if it is `required`, the message is a dead letter. So is
//! a message whose payload is not JSON, or with a value of another type than the field's.
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Failure, Step, StepReport};
use crate::{
    codec::json::{self, Kind, Reader},
    diagnostic::{Fault, PathSegment},
    message::{ArenaFull, Batch, Documents, Layout, MessageRef, NodeId, Scanned, Slot, SlotKind},
    script::{Found, JsonPaths, LookupError},
    shape::{self, Field as ShapeField, Fields, Place, Shape},
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Step> = Spec {
    name: "jsonpath",
    summary: "Makes a new payload of each message from fields found by JSONPath.",
    example: "device_id: $.device.id\nbattery: { path: $.battery, type: int, default: 0 }\nreadings: $.readings[*].value\n",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// The fields of the new payload, by name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Config {
    fields: BTreeMap<String, FieldConfig>,
}

/// Where a field comes from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum FieldConfig {
    /// JSONPath of an optional field of any type.
    Path(String),
    /// A field with all its settings.
    Field(Field),
}

/// One field of the new payload.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Field {
    /// JSONPath of the value, from `$`.
    path: String,
    /// What the value must be. A message with a value of another type is a dead letter; nothing is converted. For a path
    /// that gives a list, this is the type of its items.
    #[serde(default, rename = "type")]
    kind: FieldType,
    /// What the field is where the path finds nothing, or null. Without a default the field is left out.
    #[serde(default)]
    default: Option<Value>,
    /// When true, a message in which the path finds nothing, or null, is a dead letter.
    #[serde(default)]
    required: bool,
}

/// What a value must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FieldType {
    /// A string.
    String,
    /// A number without a fraction or an exponent.
    Int,
    /// Any number.
    Float,
    /// True or false.
    Bool,
    /// Anything.
    #[default]
    Any,
}

struct JsonPath {
    paths: JsonPaths,
    fields: Vec<Target>,
    /// The fields as members of the new payload: the first has the first slot after the payload's own.
    members: Arc<Layout>,
    /// Where they are in the payload at hand.
    index: Vec<Slot>,
}

struct Target {
    name: String,
    /// `"name":`, ready to be written.
    prefix: Vec<u8>,
    kind: FieldType,
    default: Option<String>,
    required: bool,
}

impl Target {
    /// What is known of it in the new payload.
    fn shape(&self, is_list: bool) -> ShapeField {
        let found = match self.kind {
            _ if is_list => Shape::Any,
            FieldType::String => Shape::one(shape::Kind::Text),
            FieldType::Int => Shape::one(shape::Kind::Int),
            FieldType::Float => Shape::one(shape::Kind::Number),
            FieldType::Bool => Shape::one(shape::Kind::Bool),
            FieldType::Any => Shape::Any,
        };
        let default = self.default.as_ref().map_or(Shape::NEVER, |json| Shape::exactly(json.as_str()));
        ShapeField {
            name: self.name.clone(),
            shape: found.or(default),
            certain: self.required || self.default.is_some(),
            place: Place::of_key(&[&self.name]),
        }
    }
}

fn build(section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
    let config: Config = decode(section)?;
    let mut faults = Vec::new();
    let mut step =
        JsonPath { paths: JsonPaths::default(), fields: Vec::new(), members: Arc::default(), index: Vec::new() };
    for (name, field) in config.fields {
        let (field, short) = match field {
            FieldConfig::Path(path) => (Field { path, kind: FieldType::Any, default: None, required: false }, true),
            FieldConfig::Field(field) => (field, false),
        };
        let mut add = |mut fault: Fault, setting: Option<&str>| {
            let setting = setting.filter(|_| !short).map(|s| PathSegment::Key(s.to_owned()));
            fault.path = [PathSegment::Key(name.clone())].into_iter().chain(setting).collect();
            faults.push(fault);
        };
        let is_list = match step.paths.add(&field.path) {
            Ok(is_list) => is_list,
            Err(fault) => {
                add(fault, Some("path"));
                continue;
            }
        };
        let default = field.default.as_ref().map(Value::to_string);
        if let Some(found) = default.as_deref().and_then(|json| mismatch(field.kind, is_list, json)) {
            let title = format!("the default of `{name}` is {found}, and its type is `{}`", field.kind.name());
            add(
                Fault::new("wrong-type", "", title).label(format!("not of type `{}`", field.kind.name())),
                Some("default"),
            );
        }
        if field.required && default.is_some() {
            let title = format!("`{name}` is required, so its default is never used");
            add(
                Fault::new("useless-default", "", title).label("never used").help("take one of the two away"),
                Some("default"),
            );
        }
        let mut prefix = Vec::new();
        json::string(&name, &mut prefix);
        prefix.push(b':');
        step.fields.push(Target { name, prefix, kind: field.kind, default, required: field.required });
    }
    if step.fields.is_empty() {
        faults.push(Fault::new("no-fields", "", "`jsonpath` without fields").label("expected `name: $.path`"));
    }
    let mut members = Layout::new();
    for field in &step.fields {
        members.key(NodeId::ROOT, &field.name);
    }
    step.index = vec![Slot::default(); members.len()];
    step.members = Arc::new(members);
    if faults.is_empty() { Ok(Box::new(step)) } else { Err(faults) }
}

/// Why a message has no such fields.
struct Problem {
    code: &'static str,
    reason: String,
}

impl From<ArenaFull> for Problem {
    fn from(error: ArenaFull) -> Self {
        Self { code: "batch-too-large", reason: error.to_string() }
    }
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        Self { code: error.code(), reason: error.to_string() }
    }
}

impl Step for JsonPath {
    fn apply(&mut self, mut batch: Batch, report: &mut StepReport) -> Batch {
        self.paths.scan(&mut batch);
        let mut documents = Documents::with_capacity(self.members.clone(), batch.len());
        let mut writer = batch.rewrite();
        for message in batch.iter() {
            let written = writer.push(message, |out| {
                self.index.fill(Slot::default());
                write(&self.paths, &self.fields, message, out, &mut self.index)?;
                documents.push(|slots| {
                    slots.copy_from_slice(&self.index);
                    Scanned::Json { depth: u8::MAX, complete: true }
                });
                Ok(())
            });
            if let Err(Problem { code, reason }) = written {
                report.failures.push(Failure::of(message, code, reason));
            }
            // A payload that no longer fits into the batch was written all the same.
            documents.truncate(writer.len());
        }
        writer.documents(documents);
        writer.finish()
    }

    fn shape(&self, _before: &Shape) -> Shape {
        let known = self.fields.iter().enumerate().map(|(number, field)| field.shape(self.paths.gives_list(number)));
        let known = known.collect();
        Shape::one(shape::Kind::Map(Fields { known, open: false, place: Place::default() }))
    }

    fn wants(&mut self, layout: &mut Layout) {
        self.paths.wants(layout);
    }

    fn bind(&mut self, layout: &Arc<Layout>) {
        self.paths.bind(layout);
    }
}

/// Writes the new payload, and where its members are.
fn write(
    paths: &JsonPaths,
    fields: &[Target],
    message: MessageRef<'_>,
    out: &mut Vec<u8>,
    index: &mut [Slot],
) -> Result<(), Problem> {
    let start = out.len();
    out.push(b'{');
    let place = |at: usize| u32::try_from(at - start).map_err(|_| Problem::from(ArenaFull));
    paths.find(message, |number, found| {
        let field = &fields[number];
        let value = match found {
            Found::Nothing | Found::Value(SlotKind::Null, _) => None,
            Found::Value(kind, json) => Some((kind, Cow::Borrowed(json))),
            Found::Made(json) if json == "null" => None,
            Found::Made(json) => Some((kind_of(&json), Cow::Owned(json))),
        };
        let (kind, value) = match value {
            Some((kind, json)) => match mismatch(field.kind, paths.gives_list(number), &json) {
                None => (kind, json),
                Some(found) => {
                    let reason = format!("field `{}` is {found}, and its type is `{}`", field.name, field.kind.name());
                    return Err(Problem { code: "wrong-type", reason });
                }
            },
            None => match &field.default {
                Some(default) => (kind_of(default), Cow::Borrowed(default.as_str())),
                None if field.required => {
                    let reason = format!("field `{}` is required, and its path finds nothing", field.name);
                    return Err(Problem { code: "missing-field", reason });
                }
                None => return Ok(()),
            },
        };
        if out.len() > start + 1 {
            out.push(b',');
        }
        out.extend_from_slice(&field.prefix);
        let quote = usize::from(matches!(kind, SlotKind::Text | SlotKind::Escaped));
        let from = place(out.len() + quote)?;
        out.extend_from_slice(value.as_bytes());
        // The first slot is the whole payload's.
        index[number + 1] = Slot { kind, start: from, end: place(out.len() - quote)? };
        Ok(())
    })?;
    out.push(b'}');
    index[0] = Slot { kind: SlotKind::Object, start: 0, end: place(out.len())? };
    Ok(())
}

/// What a JSON text is.
fn kind_of(json: &str) -> SlotKind {
    match Reader::new(json).value() {
        Ok(Kind::Null) => SlotKind::Null,
        Ok(Kind::Bool(true)) => SlotKind::True,
        Ok(Kind::Bool(false)) => SlotKind::False,
        Ok(Kind::Number(number)) if number.integer => SlotKind::Int,
        Ok(Kind::Number(_)) => SlotKind::Float,
        Ok(Kind::String(text)) if text.is_escaped() => SlotKind::Escaped,
        Ok(Kind::String(_)) => SlotKind::Text,
        Ok(Kind::Array) => SlotKind::Array,
        Ok(Kind::Object) => SlotKind::Object,
        Err(_) => SlotKind::Missing,
    }
}

impl FieldType {
    fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Any => "any",
        }
    }
}

/// What `json` is, when it is not of this type; when it is a list whose items are not, where a path gives a list.
fn mismatch(wanted: FieldType, is_list: bool, json: &str) -> Option<String> {
    if wanted == FieldType::Any {
        return None;
    }
    const SOUND: &str = "a value that was found is JSON";
    let fits = |kind: Kind<'_>| match kind {
        Kind::String(_) => wanted == FieldType::String,
        Kind::Number(number) => wanted == FieldType::Float || (wanted == FieldType::Int && number.integer),
        Kind::Bool(_) => wanted == FieldType::Bool,
        _ => false,
    };
    let shown = |kind: Kind<'_>, json: &str| match kind {
        Kind::Array | Kind::Object => "an object or a list".to_owned(),
        _ => {
            let shown: String = json.chars().take(40).collect();
            format!("`{shown}{}`", if shown.len() < json.len() { "…" } else { "" })
        }
    };
    let mut reader = Reader::new(json);
    let kind = reader.value().expect(SOUND);
    if !is_list {
        return (!fits(kind)).then(|| shown(kind, json));
    }
    if kind != Kind::Array {
        return Some(format!("{}, no list", shown(kind, json)));
    }
    let mut first = true;
    while reader.next_item(std::mem::take(&mut first)).expect(SOUND) {
        let item = reader.raw().expect(SOUND);
        let kind = Reader::new(item).value().expect(SOUND);
        if !fits(kind) {
            return Some(format!("a list with {} in it", shown(kind, item)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::tests::run;

    fn made(fields: &str, payload: &str) -> Result<String, (String, String)> {
        let (mut made, mut report) = run(&SPEC, &Section::from_yaml(fields), &[payload.as_bytes()]);
        match report.failures.pop() {
            None => Ok(made.pop().expect("a message is made or fails")),
            Some(failure) => Err((failure.code, failure.reason)),
        }
    }

    #[track_caller]
    fn refused(fields: &str, payload: &str, code: &str, reason: &str) {
        assert_eq!(made(fields, payload), Err((code.to_owned(), reason.to_owned())));
    }

    #[test]
    fn fields_are_found_left_out_or_have_their_default() {
        let fields = "{a: $.x.y, b: {path: $.b, default: [1]}, c: {path: $.c, required: true}, 'd\"': $.gone}";
        assert_eq!(made(fields, r#"{"x":{"y":1e3},"b":null,"c":"°"}"#).unwrap(), r#"{"a":1e3,"b":[1],"c":"°"}"#);
        assert_eq!(made(fields, r#"{"b":2,"c":[],"gone":0}"#).unwrap(), r#"{"b":2,"c":[],"d\"":0}"#);
        for payload in ["{}", r#"{"c":null}"#] {
            refused(fields, payload, "missing-field", "field `c` is required, and its path finds nothing");
        }
        assert!(made(fields, "{").unwrap_err().1.starts_with("the payload is not JSON: "));
    }

    #[test]
    fn values_are_of_their_type_or_the_message_is_refused() {
        for (kind, taken, refuse) in [
            ("string", &[r#""""#, r#""\u00b0""#][..], &["1", "true", "[]", "{}"][..]),
            ("int", &["0", "-7", "18446744073709551615"], &["1.0", "1e3", "\"1\"", "false"]),
            ("float", &["0", "1.5", "-1E-3"], &["\"1\"", "[1]"]),
            ("bool", &["true", "false"], &["0", "\"true\""]),
            ("any", &["0", "[1,\"a\"]", "{}"], &[]),
        ] {
            let fields = format!("{{v: {{path: $.v, type: {kind}}}}}");
            for json in taken {
                let payload = format!("{{\"v\":{json}}}");
                assert_eq!(made(&fields, &payload).as_ref(), Ok(&payload), "{kind}");
            }
            for json in refuse {
                let code = made(&fields, &format!("{{\"v\":{json}}}")).map_err(|(code, _)| code);
                assert_eq!(code, Err("wrong-type".to_owned()), "{kind} {json}");
            }
        }
        let fields = "{v: {path: $.v, type: int}}";
        refused(fields, r#"{"v":1.5}"#, "wrong-type", "field `v` is `1.5`, and its type is `int`");
        refused(fields, r#"{"v":[1]}"#, "wrong-type", "field `v` is an object or a list, and its type is `int`");
    }

    #[test]
    fn the_type_of_a_path_to_many_is_that_of_its_items() {
        let fields = "{v: {path: '$.r[*].v', type: int, default: [0]}}";
        assert_eq!(made(fields, r#"{"r":[{"v":1},{},{"v":2}]}"#).unwrap(), r#"{"v":[1,2]}"#);
        assert_eq!(made(fields, r#"{"r":[]}"#).unwrap(), r#"{"v":[0]}"#, "nothing is found");
        let reason = "field `v` is a list with `\"x\"` in it, and its type is `int`";
        refused(fields, r#"{"r":[{"v":1},{"v":"x"}]}"#, "wrong-type", reason);
        let faults = |fields: &str| {
            let built = (SPEC.build)(&Section::from_yaml(fields));
            built.err().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let wrong = faults("{v: {path: '$.r[*].v', type: int, default: 0}}");
        assert!(wrong[0].contains("the default of `v` is `0`, no list, and its type is `int`"), "{wrong:?}");
        assert_eq!(faults("{v: {path: $.v, type: int, default: '0'}}").len(), 1);
    }
}
