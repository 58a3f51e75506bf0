//! Puts the environment into the right values of a file: every text but scripts (`${…}` is Rhai's own there), `when:`
//! conditions and `tests:`.
use std::{ops::Range, path::Path, sync::Arc};

use serde_json::Value as Json;

use super::{
    Catalog, Environment, Kind,
    grammar::grammar_schema,
    scalar::Scalar,
    yaml::{Entry, Node, NodeValue},
};
use crate::diagnostic::{Diagnostic, SourceFile};

/// Puts the environment into the tree of `file`.
pub(super) fn expand(
    root: &mut Node,
    file: &Arc<SourceFile>,
    environment: &Environment,
    catalog: &dyn Catalog,
) -> Vec<Diagnostic> {
    let grammar = grammar_schema();
    let mut expander = Expander { file, environment, catalog, faults: Vec::new() };
    let NodeValue::Mapping(entries) = &mut root.value else { return Vec::new() };
    for entry in entries {
        match (entry.key.as_str(), &mut entry.value.value) {
            ("inputs", NodeValue::Mapping(slots)) => {
                slots.iter_mut().for_each(|slot| expander.slot(Kind::Input, &mut slot.value));
            }
            ("outputs", NodeValue::Mapping(slots)) => {
                slots.iter_mut().for_each(|slot| expander.slot(Kind::Output, &mut slot.value));
            }
            ("steps", NodeValue::Sequence(slots)) => {
                slots.iter_mut().for_each(|slot| expander.slot(Kind::Step, slot));
            }
            ("dead_letter" | "archive", _) => expander.slot(Kind::Output, &mut entry.value),
            ("tests", _) => {}
            (key, _) => {
                let schema = child(&grammar, &grammar, key);
                expander.values(&mut entry.value, schema, &grammar);
            }
        }
    }
    expander.faults
}

struct Expander<'a> {
    file: &'a Arc<SourceFile>,
    environment: &'a Environment,
    catalog: &'a dyn Catalog,
    faults: Vec<Diagnostic>,
}

impl Expander<'_> {
    fn slot(&mut self, kind: Kind, node: &mut Node) {
        let NodeValue::Mapping(entries) = &mut node.value else { return };
        for entry in entries {
            // Of a component that does not exist nobody knows where its scripts are. Lint reports it.
            let Some(facts) = self.catalog.facts(kind, &entry.key) else { continue };
            match &mut entry.value.value {
                NodeValue::Scalar(_) if facts.scripts.contains(&"") => {}
                NodeValue::Mapping(fields) => {
                    let is_script = |field: &Entry| {
                        let below = |script: &&str| script.strip_suffix(".*") == Some(&field.key);
                        facts.scripts.contains(&field.key.as_str()) || facts.scripts.iter().any(below)
                    };
                    for field in fields.iter_mut().filter(|field| !is_script(field)) {
                        let schema = child(&facts.schema, &facts.schema, &field.key);
                        self.values(&mut field.value, schema, &facts.schema);
                    }
                }
                _ => self.values(&mut entry.value, &facts.schema, &facts.schema),
            }
        }
    }

    /// Expands all below `node`. `schema` says what is wanted there, `root` holds its definitions; null: anything.
    fn values(&mut self, node: &mut Node, schema: &Json, root: &Json) {
        match &mut node.value {
            NodeValue::Scalar(scalar) => self.scalar(scalar, &node.span, schema, root),
            NodeValue::Sequence(items) => {
                let schema = branches(schema, root).into_iter().map(|branch| &branch["items"]).find(|s| !s.is_null());
                items.iter_mut().for_each(|item| self.values(item, schema.unwrap_or(&Json::Null), root));
            }
            NodeValue::Mapping(entries) => {
                entries.iter_mut().for_each(|e| self.values(&mut e.value, child(schema, root, &e.key), root));
            }
        }
    }

    fn scalar(&mut self, scalar: &mut Scalar, span: &Range<usize>, schema: &Json, root: &Json) {
        if !scalar.text.contains("${") {
            return;
        }
        scalar.has_variables = true;
        let folder = Path::new(&self.file.path).parent().unwrap_or(Path::new("."));
        let found = self.environment.expand(&scalar.text, folder);
        scalar.unread = !found.faults.is_empty();
        for fault in found.faults {
            let span = occurrence(&self.file.text, span, fault.nth, &fault.source);
            let diagnostic = Diagnostic::error(fault.code, self.file, span, fault.title);
            self.faults.push(diagnostic.with_label(fault.label).with_help(fault.help));
        }
        if found.changed {
            scalar.text = found.text;
            scalar.exact = false;
            // A password of digits is still a password, and inside `{ }` YAML wants quotes round `${PORT}`.
            match wants(schema, root) {
                Wanted::Text => scalar.always_text = true,
                Wanted::NoText => scalar.plain = true,
                Wanted::AsWritten => {}
            }
            scalar.secrets.extend(found.secrets);
            scalar.origins = found.origins;
        }
    }
}

/// Bytes of the nth `${…}` of a scalar; all of the scalar when its raw text reads differently.
fn occurrence(text: &str, span: &Range<usize>, nth: usize, source: &str) -> Range<usize> {
    let raw = &text[span.clone()];
    match raw.match_indices("${").nth(nth) {
        Some((at, _)) if raw[at..].starts_with(source) => span.start + at..span.start + at + source.len(),
        _ => span.clone(),
    }
}

/// The alternatives of a schema: references followed, `anyOf` and its kin opened.
pub(super) fn branches<'a>(schema: &'a Json, root: &'a Json) -> Vec<&'a Json> {
    fn open<'a>(schema: &'a Json, root: &'a Json, depth: usize, out: &mut Vec<&'a Json>) {
        // Schemas may refer to themselves.
        if depth > 16 {
            return;
        }
        if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))) {
            open(target, root, depth + 1, out);
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for branch in schema[key].as_array().into_iter().flatten() {
                open(branch, root, depth + 1, out);
            }
        }
        out.push(schema);
    }
    let mut out = Vec::new();
    open(schema, root, 0, &mut out);
    out
}

fn child<'a>(schema: &'a Json, root: &'a Json, key: &str) -> &'a Json {
    let branches = branches(schema, root);
    let named = branches.iter().map(|branch| &branch["properties"][key]).find(|schema| !schema.is_null());
    let any = || branches.iter().map(|branch| &branch["additionalProperties"]).find(|schema| schema.is_object());
    named.or_else(any).unwrap_or(&Json::Null)
}

/// How a value with variables is typed: by what its field can take, and only when that is open as it was written.
enum Wanted {
    Text,
    NoText,
    AsWritten,
}

fn wants(schema: &Json, root: &Json) -> Wanted {
    let branches = branches(schema, root);
    let allows = |kinds: &[&str]| {
        let is = |value: &Json| value.as_str().is_some_and(|kind| kinds.contains(&kind));
        branches.iter().any(|b| is(&b["type"]) || b["type"].as_array().is_some_and(|all| all.iter().any(is)))
    };
    match (allows(&["string"]), allows(&["integer", "number", "boolean"])) {
        (true, false) => Wanted::Text,
        (false, true) => Wanted::NoText,
        _ => Wanted::AsWritten,
    }
}
