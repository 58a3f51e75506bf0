//! Checks pipeline files against the registry, one file per rule. All faults come in one pass and in file order; every
//! node is reported or descended into. Nothing here opens a connection.
//!
//! What reading finds comes first (`config`: syntax, duplicate keys, variables), then the rules over one file, then
//! those over all files of one run.
mod bad_label;
mod component_fault;
mod delivery;
mod missing_dead_letter;
mod missing_field;
mod not_available;
mod one_component;
mod out_of_range;
mod same_client;
mod same_name;
mod schema;
mod spool;
mod unknown_component;
mod unknown_field;
mod unknown_value;
mod wrong_type;

use crate::{
    config::{Document, Node, Role, Slot, grammar_schema},
    diagnostic::Diagnostic,
    registry::{Promise, Registry},
    script::Condition,
};

/// One file while it is checked.
struct File<'a> {
    document: &'a Document,
    registry: &'a Registry,
    root: &'a Node,
    slots: Vec<Slot<'a>>,
}

/// What a slot's component promised once it was found correct.
struct Promised<'a> {
    slot: &'a Slot<'a>,
    promise: Promise,
}

/// Every fault in the files of one run, in the order of the files and of their text.
pub fn lint(documents: &[Document], registry: &Registry) -> Vec<Diagnostic> {
    let grammar = grammar_schema();
    let mut found: Vec<Vec<Diagnostic>> = documents.iter().map(|document| one(document, registry, &grammar)).collect();
    for rule in [same_name::check, same_client::check] {
        for (index, diagnostic) in rule(documents, registry) {
            found[index].push(diagnostic);
        }
    }
    for diagnostics in &mut found {
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    }
    registry.plugins().faults.iter().cloned().chain(found.into_iter().flatten()).collect()
}

/// The faults of one file that can be told from it alone.
fn one(document: &Document, registry: &Registry, grammar: &serde_json::Value) -> Vec<Diagnostic> {
    let mut found = document.faults.clone();
    let Some(root) = &document.root else { return found };
    found.extend(schema::walk(&document.file, &schema::Subject::pipeline(), root, grammar, 0..0));
    let file = File { document, registry, root, slots: document.slots() };
    bad_label::check(&file, &mut found);
    not_available::check(&file, &mut found);
    let mut promised = Vec::new();
    for slot in &file.slots {
        if one_component::check(&file, slot, &mut found) && unknown_component::check(&file, slot, &mut found) {
            let promise = component_fault::check(&file, slot, &mut found);
            promised.extend(promise.map(|promise| Promised { slot, promise }));
        }
        condition(&file, slot, &mut found);
    }
    delivery::check(&file, &promised, &mut found);
    missing_dead_letter::check(&file, &mut found);
    spool::check(&file, &promised, &mut found);
    found
}

/// `when:` beside an output is one script.
fn condition(file: &File<'_>, slot: &Slot<'_>, found: &mut Vec<Diagnostic>) {
    let schema = serde_json::json!({ "type": ["string", "boolean"] });
    if let (Role::Output, Some(entry)) = (slot.role, slot.node.entry("when")) {
        let subject = schema::Subject::named(format!("`when` of output `{}`", slot.label), "`when`");
        let faults = schema::walk(&file.document.file, &subject, &entry.value, &schema, entry.key_span.clone());
        if let (true, Some(when)) = (faults.is_empty(), file.document.condition(slot, file.registry)) {
            let compiled = Condition::compile(&when.script, when.site());
            match compiled {
                Ok(condition) => found.extend(condition.note().map(|note| when.diagnose(&note).into_note())),
                Err(faults) => found.extend(faults.iter().map(|fault| when.diagnose(fault))),
            }
        }
        found.extend(faults);
    }
}

#[cfg(test)]
mod tests;
