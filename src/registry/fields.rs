//! A component's JSON Schema as a flat list of fields, for `streamer list` and the reference pages.
use serde_json::Value as Json;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Field {
    /// Dots separate levels: `tls.ca`; `[]` stands for any item of a list, `*` for any key.
    pub name: String,
    /// In words: `integer, 0 to 2`, `text`, `list of text`, `one of \`a\`, \`b\``.
    #[serde(rename = "type")]
    pub kind: String,
    /// As YAML on one line; none for what is required or has no default.
    #[serde(serialize_with = "as_value")]
    pub default: Option<String>,
    pub required: bool,
    /// The doc comment.
    pub description: String,
}

/// A default as the value that it is.
fn as_value<S: serde::Serializer>(default: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let value = default.as_deref().map(|text| serde_json::from_str::<Json>(text).unwrap_or_else(|_| text.into()));
    serde::Serialize::serialize(&value, serializer)
}

/// What may stand under the component's key, in words: `fields` for most.
pub fn shape(schema: &Json) -> String {
    words(schema, schema, 0)
}

/// Every field of a section, nested ones after their parent, in order of name.
pub fn fields(schema: &Json) -> Vec<Field> {
    let mut out = Vec::new();
    collect(schema, schema, "", 0, &mut out);
    out
}

fn collect(schema: &Json, root: &Json, prefix: &str, depth: usize, out: &mut Vec<Field>) {
    // Schemas may refer to themselves; what is deeper is no setting.
    if depth > 6 {
        return;
    }
    for branch in alternatives(schema, root) {
        let required: Vec<_> = branch["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        for (name, field) in branch["properties"].as_object().into_iter().flatten() {
            let name = format!("{prefix}{name}");
            if out.iter().any(|known| known.name == name) {
                continue;
            }
            let target = follow(field, root);
            let description = [field, target].iter().find_map(|s| s["description"].as_str()).unwrap_or_default();
            out.push(Field {
                kind: words(field, root, depth),
                default: field.get("default").filter(|default| !default.is_null()).map(ToString::to_string),
                required: required.contains(&name.strip_prefix(prefix).unwrap_or(&name)),
                description: description.split('\n').collect::<Vec<_>>().join(" "),
                name: name.clone(),
            });
            collect(field, root, &format!("{name}."), depth + 1, out);
        }
        for (key, mark) in [("items", "[]."), ("additionalProperties", "*.")] {
            if branch[key].is_object() {
                let prefix = prefix
                    .strip_suffix('.')
                    .map_or(String::new(), |p| format!("{p}{}", if key == "items" { "" } else { "." }));
                collect(&branch[key], root, &format!("{prefix}{mark}"), depth + 1, out);
            }
        }
    }
}

/// The schema that a `$ref` names.
fn follow<'a>(schema: &'a Json, root: &'a Json) -> &'a Json {
    schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))).unwrap_or(schema)
}

fn alternatives<'a>(schema: &'a Json, root: &'a Json) -> Vec<&'a Json> {
    let schema = follow(schema, root);
    let nested = ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    std::iter::once(schema).chain(nested.map(|branch| follow(branch, root))).collect()
}

/// The type in words.
fn words(schema: &Json, root: &Json, depth: usize) -> String {
    let schema = follow(schema, root);
    if depth > 8 {
        return "any value".to_owned();
    }
    let choices: Vec<&Json> = ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten().collect();
    let values: Vec<String> = enumerated(schema, root).iter().map(|value| format!("`{value}`")).collect();
    if !values.is_empty() {
        return format!("one of {}", values.join(", "));
    }
    if !choices.is_empty() {
        let mut all: Vec<String> = Vec::new();
        for choice in choices.iter().filter(|choice| choice["type"] != "null") {
            let text = words(choice, root, depth + 1);
            if !all.contains(&text) {
                all.push(text);
            }
        }
        return all.join(" or ");
    }
    if let [only] = schema["allOf"].as_array().map(Vec::as_slice).unwrap_or_default() {
        return words(only, root, depth + 1);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Json::String(kind) => vec![kind],
        Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).filter(|kind| *kind != "null").collect(),
        _ => return "any value".to_owned(),
    };
    let word = |kind: &str| match kind {
        "string" => "text".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" if schema["items"].is_object() => format!("list of {}", words(&schema["items"], root, depth + 1)),
        "array" => "list".to_owned(),
        "object" if schema["additionalProperties"].is_object() => {
            format!("keys with {}", words(&schema["additionalProperties"], root, depth + 1))
        }
        "object" => "fields".to_owned(),
        number => match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
            (Some(low), Some(high)) => format!("{number}, {low} to {high}"),
            (Some(low), None) if low != 0.0 => format!("{number}, at least {low}"),
            (None, Some(high)) => format!("{number}, at most {high}"),
            _ => number.to_owned(),
        },
    };
    kinds.into_iter().map(word).collect::<Vec<_>>().join(" or ")
}

/// The values of an enum, however it is written; empty unless every alternative is a fixed text.
pub fn enumerated(schema: &Json, root: &Json) -> Vec<String> {
    let schema = follow(schema, root);
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().filter(|value| !value.is_null()).map(text).collect();
    }
    if let Some(value) = schema.get("const") {
        return vec![text(value)];
    }
    let mut out = Vec::new();
    for branch in ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten() {
        if branch["type"] == "null" {
            continue;
        }
        let values = enumerated(branch, root);
        if values.is_empty() {
            return Vec::new();
        }
        out.extend(values);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroU16};

    use schemars::{JsonSchema, schema_for};
    use serde::Deserialize;

    use super::*;

    /// Config types of every shape components use.
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Config {
        /// A list or one.
        topics: OneOrMany,
        /// From 0 to 2.
        #[schemars(range(max = 2))]
        #[serde(default = "one")]
        qos: u8,
        /// A port.
        port: NonZeroU16,
        /// How.
        #[serde(default)]
        mode: Mode,
        /// Encryption.
        tls: Option<Tls>,
        /// More.
        columns: Option<BTreeMap<String, Tls>>,
    }

    fn one() -> u8 {
        1
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    #[derive(Default, serde::Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        /// Quick.
        #[default]
        Fast,
        /// Careful.
        Safe,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Tls {
        /// File.
        ca: Option<String>,
    }

    #[test]
    fn a_schema_reads_as_a_list_of_fields() {
        let schema = schema_for!(Config).to_value();
        let lines: Vec<String> = fields(&schema)
            .into_iter()
            .map(|f| format!("{}: {} {:?} {}", f.name, f.kind, f.default, if f.required { "required" } else { "" }))
            .collect();
        assert_eq!(
            lines,
            [
                "columns: keys with fields None ",
                "columns.*.ca: text None ",
                "mode: one of `fast`, `safe` Some(\"\\\"fast\\\"\") ",
                "port: integer, 1 to 65535 None required",
                "qos: integer, 0 to 2 Some(\"1\") ",
                "tls: fields None ",
                "tls.ca: text None ",
                "topics: text or list of text None required",
            ]
        );
    }
}
