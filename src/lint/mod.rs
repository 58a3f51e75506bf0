//! Checks pipeline files against the registry, one file per rule. All faults come in one pass and in file order; every
//! node is reported or descended into. Nothing here opens a connection, but for the questions that components bring along
//! themselves, when asked to (`connect`).
//!
//! What reading finds comes first (`config`: syntax, duplicate keys, variables), then the rules over one file, then
//! those over all files of one run. What each code means stands in `diagnostic/rules/CODE.md`.
mod bad_label;
mod clean_start;
mod component_fault;
mod connect;
mod dead_letter_loop;
mod delivery;
mod missing_dead_letter;
mod missing_field;
mod one_component;
mod out_of_range;
mod overlapping_filters;
mod payload;
mod plain_secret;
mod same_client;
mod same_group;
mod same_name;
mod schema;
mod shared_subscription;
mod small_window;
mod spool;
mod topic_loop;
mod unknown_component;
mod unknown_field;
mod unknown_label;
mod unknown_value;
mod unreachable_step;
mod wrong_type;

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use crate::{
    client::Contact,
    config::{Component, Document, Node, Role, Slot, grammar_schema},
    diagnostic::{Diagnostic, Fault},
    input::Replay,
    output::Once,
    registry::{Promise, Registry},
    script::Condition,
};

/// One file while it is checked.
struct File<'a> {
    document: &'a Document,
    registry: &'a Registry,
    root: &'a Node,
    slots: Vec<Slot<'a>>,
    /// The components that were found correct.
    parts: Vec<Part>,
}

/// A component that was found correct, and what it promises.
struct Part {
    role: Role,
    label: Arc<str>,
    /// Where the label stands; for a step, the step.
    span: Range<usize>,
    component: Component,
    promise: Promise,
    /// True for an output that gets only some of the messages.
    has_condition: bool,
}

impl Part {
    fn contact(&self) -> Option<&Contact> {
        self.promise.contact.as_ref()
    }

    /// What it is called in a finding.
    fn shown(&self) -> String {
        one_component::describe(self.role, &self.label)
    }

    /// A warning at one of its settings.
    fn warn(&self, code: &'static str, field: &str, title: impl Into<String>) -> Diagnostic {
        self.component.diagnose(&Fault::new(code, field, title).into_warning())
    }
}

impl File<'_> {
    fn inputs(&self) -> impl Iterator<Item = (&Part, &Contact)> {
        self.contacts(|role| role == Role::Input)
    }

    /// The outputs that messages wait for, the archive among them.
    fn outputs(&self) -> impl Iterator<Item = (&Part, &Contact)> {
        self.contacts(|role| matches!(role, Role::Output | Role::Archive))
    }

    fn contacts(&self, wanted: impl Fn(Role) -> bool) -> impl Iterator<Item = (&Part, &Contact)> {
        self.parts.iter().filter(move |part| wanted(part.role)).filter_map(|part| Some((part, part.contact()?)))
    }

    /// What `delivery:` asks of the outputs.
    fn once(&self) -> Once {
        let of = |wanted| self.parts.iter().filter(move |part: &&Part| part.role == wanted);
        let replays = of(Role::Input).all(|part| part.promise.replay == Some(Replay::ByOffset));
        let mut outputs = of(Role::Output);
        let one = matches!((outputs.next(), outputs.next()), (Some(part), None) if part.promise.recognises);
        let demanded = self.root.entry("delivery").map(|entry| entry.value.text() == Some("exactly_once"));
        Once::of(demanded, replays && one)
    }

    /// `path:line:column` of a place in it.
    fn locate(&self, at: usize) -> String {
        let (line, column) = crate::diagnostic::line_column(&self.document.file.text, at);
        format!("{}:{line}:{column}", self.document.file.path)
    }
}

/// Every fault in the files of one run, in the order of the files and of their text.
pub fn lint(documents: &[Document], registry: &Registry) -> Vec<Diagnostic> {
    let (files, mut found) = check(documents, registry);
    for (file, found) in files.iter().zip(&mut found) {
        file.iter().for_each(|file| payload::check(file, found));
    }
    in_order(registry, found)
}

/// The same, and what the servers that the files name answer within `limit`. Nothing is written anywhere.
pub async fn lint_connected(documents: &[Document], registry: &Registry, limit: Duration) -> Vec<Diagnostic> {
    let (files, mut found) = check(documents, registry);
    for (index, diagnostic) in connect::ask(&files, limit).await {
        found[index].push(diagnostic);
    }
    in_order(registry, found)
}

/// Each file, and what is wrong with it.
fn check<'a>(documents: &'a [Document], registry: &'a Registry) -> (Vec<Option<File<'a>>>, Vec<Vec<Diagnostic>>) {
    let grammar = grammar_schema();
    let mut found: Vec<Vec<Diagnostic>> = Vec::new();
    let mut files: Vec<Option<File<'_>>> = Vec::new();
    for document in documents {
        let mut faults = document.faults.clone();
        files.push(one(document, registry, &grammar, &mut faults));
        found.push(faults);
    }
    // An example in a page runs beside nothing else.
    let is_of_run = |file: &&(usize, &File<'_>)| !file.1.document.is_example;
    let all: Vec<(usize, &File<'_>)> =
        files.iter().enumerate().filter_map(|(index, file)| Some((index, file.as_ref()?))).collect();
    let together: Vec<(usize, &File<'_>)> = all.iter().filter(is_of_run).copied().collect();
    let alone = all.iter().filter(|file| !is_of_run(file)).copied();
    for run in std::iter::once(together).chain(alone.map(|file| vec![file])) {
        for rule in [same_name::check, same_client::check, same_group::check, topic_loop::check] {
            for (index, diagnostic) in rule(&run) {
                found[index].push(diagnostic);
            }
        }
    }
    (files, found)
}

fn in_order(registry: &Registry, mut found: Vec<Vec<Diagnostic>>) -> Vec<Diagnostic> {
    for diagnostics in &mut found {
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        // What stands under an anchor is met wherever its aliases are.
        let mut seen = HashSet::new();
        diagnostics.retain(|found| {
            seen.insert((found.code, found.file.path.clone(), found.span.clone(), found.title.clone()))
        });
    }
    registry.plugins().faults.iter().cloned().chain(found.into_iter().flatten()).collect()
}

/// The faults of one file that can be told from it alone.
fn one<'a>(
    document: &'a Document,
    registry: &'a Registry,
    grammar: &serde_json::Value,
    found: &mut Vec<Diagnostic>,
) -> Option<File<'a>> {
    let root = document.root.as_ref()?;
    let start = root.span.start;
    found.extend(schema::walk(&document.file, &schema::Subject::pipeline(), root, grammar, start..start));
    let mut file = File { document, registry, root, slots: document.slots(), parts: Vec::new() };
    bad_label::check(&file, found);
    let mut parts = Vec::new();
    for slot in &file.slots {
        if one_component::check(&file, slot, found) && unknown_component::check(&file, slot, found) {
            parts.extend(component_fault::check(&file, slot, found));
        }
        condition(&file, slot, found);
    }
    file.parts = parts;
    for rule in [
        clean_start::check,
        dead_letter_loop::check,
        delivery::check,
        missing_dead_letter::check,
        overlapping_filters::check,
        plain_secret::check,
        shared_subscription::check,
        small_window::check,
        spool::check,
        unknown_label::check,
        unreachable_step::check,
    ] {
        rule(&file, found);
    }
    Some(file)
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
                Ok(condition) => found.extend(condition.notes().iter().map(|note| when.diagnose(note))),
                Err(faults) => found.extend(faults.iter().map(|fault| when.diagnose(fault))),
            }
        }
        found.extend(faults);
    }
}

#[cfg(test)]
mod tests;
