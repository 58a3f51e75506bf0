//! Walks a tree beside the JSON Schema of its config type. What it finds is worded by the rules it calls: unknown and
//! missing fields, wrong types, values out of range or unknown.
use std::{ops::Range, sync::Arc};

use serde_json::Value as Json;

use super::{missing_field, out_of_range, unknown_field, unknown_value, wrong_type};
use crate::{
    config::{Node, NodeValue, Typed},
    diagnostic::{Diagnostic, SourceFile},
    registry::enumerated,
};

/// What a section belongs to, in words.
pub(super) struct Subject {
    /// As the start of a sentence: ``input `mqtt` ``.
    pub what: String,
    /// As the owner of fields: `` `mqtt` ``.
    pub short: String,
}

impl Subject {
    pub fn pipeline() -> Self {
        Self::named("the pipeline", "a pipeline")
    }

    pub fn named(what: impl Into<String>, short: impl Into<String>) -> Self {
        Self { what: what.into(), short: short.into() }
    }
}

/// A node on the way.
pub(super) struct Place<'a> {
    pub subject: &'a Subject,
    pub file: &'a Arc<SourceFile>,
    /// From the section down, levels joined with dots; empty for the section itself.
    pub path: String,
    /// Where its key stands; for an item of a list, the item.
    pub key_span: Range<usize>,
    /// The doc comment of the field.
    pub description: Option<String>,
}

impl Place<'_> {
    /// ``input `mqtt` `` or `` `tls.ca` of input `mqtt` ``.
    pub fn what(&self) -> String {
        match self.path.as_str() {
            "" => self.subject.what.clone(),
            path => format!("`{path}` of {}", self.subject.what),
        }
    }

    /// `` `mqtt` `` or `` `tls` ``.
    pub fn short(&self) -> String {
        if self.path.is_empty() { self.subject.short.clone() } else { format!("`{}`", self.path) }
    }

    /// Where a fault of the value is shown: the value, or its key when there is none or it is a whole block.
    pub fn value_span(&self, node: &Node) -> Range<usize> {
        if (node.span.is_empty() || node.scalar().is_none()) && !self.key_span.is_empty() {
            self.key_span.clone()
        } else if node.scalar().is_some() {
            node.span.clone()
        } else {
            let line = self.file.text[node.span.clone()].lines().next().map_or(0, str::len);
            node.span.start..node.span.start + line
        }
    }

    pub fn error(&self, code: &'static str, span: Range<usize>, title: String) -> Diagnostic {
        let diagnostic = Diagnostic::error(code, self.file, span, title);
        match &self.description {
            Some(description) => diagnostic.with_help(format!("{}: {}", self.short(), one_line(description))),
            None => diagnostic,
        }
    }

    fn below(&self, segment: &str, key_span: Range<usize>, schema: &Json, root: &Json) -> Self {
        let path = if self.path.is_empty() { segment.to_owned() } else { format!("{}.{segment}", self.path) };
        let description = schema["description"].as_str().or_else(|| follow(schema, root)["description"].as_str());
        Self { subject: self.subject, file: self.file, path, key_span, description: description.map(str::to_owned) }
    }
}

/// The first sentence of a doc comment.
pub(super) fn first_sentence(text: &str) -> String {
    let text = one_line(text);
    text.split_once(". ").map_or(text.as_str(), |(first, _)| first).trim_end_matches('.').to_owned()
}

/// A doc comment on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every fault of `node` by `schema`. `key_span` is where the section's key stands.
pub(super) fn walk(
    file: &Arc<SourceFile>,
    subject: &Subject,
    node: &Node,
    schema: &Json,
    key_span: Range<usize>,
) -> Vec<Diagnostic> {
    let mut walker = Walker { root: schema, found: Vec::new() };
    let place = Place { subject, file, path: String::new(), key_span, description: None };
    // A script is not left out like that.
    if node.is_null() && allows(schema, "object", schema) && !allows(schema, "string", schema) {
        // `stdout:` with nothing after it is `stdout: {}`.
        walker.object(&[], schema, &place);
    } else {
        walker.node(node, schema, &place);
    }
    // A field that stands there under another name is one fault, not two.
    let meant: Vec<(String, String)> = walker.found.iter().filter_map(unknown_field::meant).collect();
    walker.found.retain(|found| missing_field::of(found).is_none_or(|missing| !meant.contains(&missing)));
    walker.found
}

struct Walker<'a> {
    /// Holds the definitions that `$ref` names.
    root: &'a Json,
    found: Vec<Diagnostic>,
}

impl<'a> Walker<'a> {
    fn node(&mut self, node: &Node, schema: &'a Json, place: &Place<'_>) {
        if node.scalar().is_some_and(|scalar| scalar.unread) {
            return;
        }
        let schema = follow(schema, self.root);
        for branch in schema["allOf"].as_array().into_iter().flatten() {
            self.node(node, branch, place);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(branches) = schema[key].as_array() {
                if schema["properties"].is_object() {
                    // Fields beside the choice: a flattened enum.
                    self.object(node.entries(), schema, place);
                }
                return self.choice(node, schema, branches, place);
            }
        }
        if !schema["type"].is_null() && !fits(node, schema) {
            let wanted = expected(schema, self.root);
            return self.found.push(wrong_type::diagnose(place, node, &wanted));
        }
        let values = enumerated(schema, self.root);
        if !values.is_empty() && !node.is_null() {
            let text = node.scalar().map_or("", |scalar| scalar.text.as_str());
            if !values.iter().any(|value| value == text) {
                self.found.push(unknown_value::diagnose(place, node, &values));
            }
            return;
        }
        match &node.value {
            NodeValue::Scalar(_) => self.found.extend(out_of_range::diagnose(place, node, schema)),
            NodeValue::Sequence(items) => {
                self.found.extend(out_of_range::diagnose(place, node, schema));
                for (index, item) in items.iter().enumerate() {
                    let below = place.below(&index.to_string(), item.span.clone(), &schema["items"], self.root);
                    self.node(item, &schema["items"], &below);
                }
            }
            NodeValue::Mapping(entries) => {
                self.found.extend(out_of_range::diagnose(place, node, schema));
                self.object(entries, schema, place);
            }
        }
    }

    fn object(&mut self, entries: &[crate::config::Entry], schema: &'a Json, place: &Place<'_>) {
        let schema = follow(schema, self.root);
        let properties = &schema["properties"];
        let closed = |key: &str| schema[key] == Json::Bool(false);
        for entry in entries {
            let key = entry.key.as_str();
            if closed("unevaluatedProperties") && properties.get(key).is_none() {
                // Flattened types: their fields stand in the parts of this schema, which are walked on their own.
                let known = known(schema, self.root);
                if !known.contains(&key) {
                    self.found.push(unknown_field::diagnose(place, entry, &known, entries));
                }
                continue;
            }
            let field = match (properties.get(key), schema.get("additionalProperties")) {
                (Some(field), _) => field,
                (None, Some(Json::Bool(false))) => {
                    self.found.push(unknown_field::diagnose(place, entry, &known(schema, self.root), entries));
                    continue;
                }
                (None, Some(any)) => any,
                (None, None) => continue,
            };
            let below = place.below(key, entry.key_span.clone(), field, self.root);
            self.node(&entry.value, field, &below);
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|entry| entry.key == name) {
                let field = &properties[name];
                let about = place.below(name, 0..0, field, self.root).description;
                self.found.push(missing_field::diagnose(place, name, about.as_deref()));
            }
        }
    }

    /// One of several shapes: none is reported when one fits, else the one that was most likely meant.
    fn choice(&mut self, node: &Node, schema: &'a Json, branches: &'a [Json], place: &Place<'_>) {
        let mut best: Option<(i64, Vec<Diagnostic>)> = None;
        for branch in branches {
            let mut walker = Walker { root: self.root, found: Vec::new() };
            walker.node(node, branch, place);
            if walker.found.is_empty() {
                return;
            }
            if fits_any(node, branch, self.root) {
                let score = likeness(node, follow(branch, self.root), self.root) - walker.found.len() as i64;
                if best.as_ref().is_none_or(|(other, _)| score > *other) {
                    best = Some((score, walker.found));
                }
            }
        }
        let values = enumerated(schema, self.root);
        match best {
            Some(_) if !values.is_empty() => self.found.push(unknown_value::diagnose(place, node, &values)),
            Some(_) if self.tag(node, branches, place) => {}
            Some((_, found)) => self.found.extend(found),
            None => self.found.push(wrong_type::diagnose(place, node, &expected(schema, self.root))),
        }
    }

    /// Shapes told apart by a field (`type: a`): reports a tag that none of them has.
    fn tag(&mut self, node: &Node, branches: &'a [Json], place: &Place<'_>) -> bool {
        for entry in node.entries() {
            let tags: Vec<String> = branches
                .iter()
                .flat_map(|branch| enumerated(&follow(branch, self.root)["properties"][&entry.key], self.root))
                .collect();
            let text = entry.value.scalar().map(|scalar| scalar.text.as_str());
            if tags.len() >= branches.len() && !tags.iter().any(|tag| Some(tag.as_str()) == text) {
                let below = place.below(&entry.key, entry.key_span.clone(), &Json::Null, self.root);
                self.found.push(unknown_value::diagnose(&below, &entry.value, &tags));
                return true;
            }
        }
        false
    }
}

/// The fields of an object, those of its parts included, sorted.
fn known<'a>(schema: &'a Json, root: &'a Json) -> Vec<&'a str> {
    let schema = follow(schema, root);
    let mut names: Vec<_> =
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    for key in ["allOf", "anyOf", "oneOf"] {
        names.extend(schema[key].as_array().into_iter().flatten().flat_map(|part| known(part, root)));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The schema that a `$ref` names.
fn follow<'a>(mut schema: &'a Json, root: &'a Json) -> &'a Json {
    for _ in 0..16 {
        match schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

/// How well the keys of a mapping are those of one shape; a tag that differs rules it out.
fn likeness(node: &Node, schema: &Json, root: &Json) -> i64 {
    let mut score = 0;
    for entry in node.entries() {
        let field = &schema["properties"][&entry.key];
        let values = if field.is_null() { Vec::new() } else { enumerated(field, root) };
        let text = entry.value.scalar().map_or("", |scalar| scalar.text.as_str());
        score += match values.iter().any(|value| value == text) {
            _ if field.is_null() => 0,
            _ if values.is_empty() => 10,
            true => 100,
            false => -100,
        };
    }
    score
}

fn kinds(schema: &Json) -> impl Iterator<Item = &str> {
    let one = schema["type"].as_str();
    one.into_iter().chain(schema["type"].as_array().into_iter().flatten().filter_map(Json::as_str))
}

fn fits(node: &Node, schema: &Json) -> bool {
    kinds(schema).any(|kind| match (&node.value, kind) {
        (NodeValue::Mapping(_), kind) => kind == "object",
        (NodeValue::Sequence(_), kind) => kind == "array",
        (NodeValue::Scalar(scalar), kind) => match scalar.typed() {
            Typed::Null => kind == "null",
            Typed::Bool(_) => kind == "boolean",
            Typed::Integer(_) => matches!(kind, "integer" | "number"),
            Typed::Float(_) => kind == "number",
            Typed::Text(_) => kind == "string",
        },
    })
}

fn fits_any(node: &Node, schema: &Json, root: &Json) -> bool {
    let schema = follow(schema, root);
    let nested = ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    let text = || node.text().is_some() && !enumerated(schema, root).is_empty();
    schema["type"].is_null() && text()
        || fits(node, schema)
        || nested.into_iter().any(|branch| fits_any(node, branch, root))
}

fn allows(schema: &Json, kind: &str, root: &Json) -> bool {
    let schema = follow(schema, root);
    let nested = ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    kinds(schema).any(|k| k == kind) || nested.into_iter().any(|branch| allows(branch, kind, root))
}

/// The kinds of value that may stand there, each once.
fn expected<'a>(schema: &'a Json, root: &'a Json) -> Vec<&'a str> {
    let schema = follow(schema, root);
    let mut out: Vec<&str> = kinds(schema).filter(|kind| *kind != "null").collect();
    if out.is_empty() && !enumerated(schema, root).is_empty() {
        out.push("string");
    }
    for branch in ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten() {
        for kind in expected(branch, root) {
            if !out.contains(&kind) {
                out.push(kind);
            }
        }
    }
    out
}
