//! *What it checks*: nothing is asked for that this version cannot do: `archive:`, `delivery: exactly_once`. Code
//! `not-available`.
//! *Why it matters*: a promise that is silently not kept is worse than none.
//! *Example*: `delivery: exactly_once`. *Write instead*: leave it out; `at_least_once` is what the parts give.
use super::File;
use crate::{
    config::{Node, Typed},
    diagnostic::Diagnostic,
};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let error = |span, title: &str| Diagnostic::error("not-available", &file.document.file, span, title);
    if let Some(entry) = file.root.entry("archive").filter(|entry| !entry.value.is_null()) {
        found.push(
            error(entry.key_span.clone(), "`archive` is not available in this version")
                .with_label("cannot be honoured yet")
                .with_help("add an output that gets every message instead; it gets them after the steps"),
        );
    }
    let demanded = file.root.entry("delivery").map(|entry| &entry.value);
    let exactly_once = |node: &&Node| node.scalar().map(|scalar| scalar.typed()) == Some(Typed::Text("exactly_once"));
    if let Some(node) = demanded.filter(exactly_once) {
        found.push(
            error(node.span.clone(), "`exactly_once` is not available in this version")
                .with_label("cannot be honoured yet")
                .with_help("write `at_least_once`, or leave it out to get what the parts can give"),
        );
    }
}
