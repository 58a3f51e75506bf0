//! The JSON Schema of a whole pipeline file: the grammar's top level with every component's own schema put in. Editors
//! complete and check by it; lint goes further.
use serde_json::{Map, Value as Json, json};

use super::{Found, Registry};
use crate::config::{Kind, grammar_schema};

/// The schema for editors.
pub fn pipeline_schema(registry: &Registry) -> Json {
    let mut schema = grammar_schema();
    let mut defs = match schema["$defs"].take() {
        Json::Object(defs) => defs,
        _ => Map::new(),
    };
    for kind in Kind::ALL {
        for found in registry.all(kind) {
            add(&mut defs, &format!("{}-{}", kind.word(), found.name()), found.schema(), found.summary());
        }
    }
    let one_of = |kind: Kind, condition: bool, is_meant: fn(&Found) -> bool| {
        let mut properties = Map::new();
        for found in registry.all(kind).into_iter().filter(is_meant) {
            let target = format!("#/$defs/{}-{}", kind.word(), found.name());
            let schema = found.schema();
            let bare = schema["type"] == "object" && schema["required"].as_array().is_none_or(Vec::is_empty);
            // `stdout:` with nothing after it is `stdout: {}`.
            let section = if bare {
                json!({ "anyOf": [{ "$ref": target }, { "type": "null" }] })
            } else {
                json!({ "$ref": target })
            };
            properties.insert(found.name().to_owned(), section);
        }
        if condition {
            let text = "Condition in Rhai: only messages for which it is true go to this output.";
            properties.insert("when".to_owned(), json!({ "type": "string", "description": text }));
        }
        let most = if condition { 2 } else { 1 };
        json!({ "type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1, "maxProperties": most })
    };
    let properties = &mut schema["properties"];
    let label = json!({ "pattern": "^[a-z0-9_-]+$" });
    for (key, condition, kind) in [("inputs", false, Kind::Input), ("outputs", true, Kind::Output)] {
        properties[key]["propertyNames"] = label.clone();
        properties[key]["additionalProperties"] = one_of(kind, condition, |_| true);
    }
    properties["steps"]["items"] = one_of(Kind::Step, false, |_| true);
    let archive = one_of(Kind::Output, false, Found::can_archive);
    for (key, outputs) in [("dead_letter", one_of(Kind::Output, false, |_| true)), ("archive", archive)] {
        let description = properties[key]["description"].take();
        properties[key] = outputs;
        properties[key]["description"] = description;
    }
    for definition in defs.values_mut() {
        allow_variables(definition);
    }
    schema["$defs"] = defs.into();
    schema
}

/// Adds a component's schema and its definitions under names of their own.
fn add(defs: &mut Map<String, Json>, name: &str, mut schema: Json, summary: &str) {
    rename(&mut schema, name);
    let own = schema.as_object_mut().and_then(|schema| {
        schema.remove("$schema");
        schema.remove("title");
        schema.insert("description".to_owned(), summary.into());
        schema.remove("$defs")
    });
    for (key, definition) in own.as_ref().and_then(Json::as_object).into_iter().flatten() {
        defs.insert(format!("{name}.{key}"), definition.clone());
    }
    defs.insert(name.to_owned(), schema);
}

fn rename(schema: &mut Json, name: &str) {
    match schema {
        Json::Object(object) => {
            for (key, value) in object {
                match value {
                    Json::String(path) if key == "$ref" => {
                        *path = path.replacen("#/$defs/", &format!("#/$defs/{name}."), 1);
                    }
                    value => rename(value, name),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| rename(item, name)),
        _ => {}
    }
}

/// `port: ${PORT}` is text to an editor, whatever it becomes.
fn allow_variables(schema: &mut Json) {
    let Json::Object(object) = schema else {
        if let Json::Array(items) = schema {
            items.iter_mut().for_each(allow_variables);
        }
        return;
    };
    for (key, value) in object.iter_mut() {
        if key != "default" && key != "examples" && key != "enum" {
            allow_variables(value);
        }
    }
    let plain = |kind: &Json| matches!(kind.as_str(), Some("integer" | "number" | "boolean"));
    let number = match object.get("type") {
        Some(Json::Array(kinds)) => kinds.iter().any(plain) && !kinds.iter().any(|kind| kind == "string"),
        Some(kind) => plain(kind),
        None => false,
    };
    if number || (object.contains_key("enum") && object.get("type").is_some()) {
        let outside = ["description", "default", "title"].map(|key| (key, object.remove(key)));
        let inner = std::mem::take(object);
        object.insert("anyOf".to_owned(), json!([inner, { "type": "string", "pattern": "\\$\\{.+\\}" }]));
        for (key, value) in outside {
            if let Some(value) = value {
                object.insert(key.to_owned(), value);
            }
        }
    }
}
