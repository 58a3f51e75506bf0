//! *What it checks*: pipelines of one run have different names. Code `same-name`.
//! *Why it matters*: metrics, logs and dead letters of the two could not be told apart.
//! *Example*: two files with `name: telemetry`. *Write instead*: a name of its own for each.
use std::collections::HashMap;

use crate::{
    config::Document,
    diagnostic::{Diagnostic, line_column},
    registry::Registry,
};

/// Diagnostics with the index of their file.
pub(super) fn check(documents: &[Document], _: &Registry) -> Vec<(usize, Diagnostic)> {
    let mut first: HashMap<&str, &Document> = HashMap::new();
    let mut found = Vec::new();
    for (index, document) in
        documents.iter().enumerate().filter(|(_, document)| document.root.is_some() && !document.is_example)
    {
        let name = document.name();
        let Some(other) = first.get(name) else {
            first.insert(name, document);
            continue;
        };
        let title = format!("two pipelines are called `{name}`");
        let place = match span(other) {
            span if span.is_empty() => other.file.path.clone(),
            span => format!("{}:{}", other.file.path, line_column(&other.file.text, span.start).0),
        };
        let diagnostic = Diagnostic::error("same-name", &document.file, span(document), title)
            .with_label(format!("also in {place}"))
            .with_help("give each a `name:` of its own");
        found.push((index, diagnostic));
    }
    found
}

fn span(document: &Document) -> std::ops::Range<usize> {
    let entry = document.root.as_ref().and_then(|root| root.entry("name"));
    entry.map_or(0..0, |entry| entry.value.span.clone())
}
