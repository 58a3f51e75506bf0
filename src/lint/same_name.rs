//! Rule `same-name`: pipelines of one run have different names.
use std::collections::HashMap;

use super::File;
use crate::diagnostic::{Diagnostic, line_column};

/// Diagnostics with the index of their file.
pub(super) fn check(files: &[(usize, &File<'_>)]) -> Vec<(usize, Diagnostic)> {
    let mut first: HashMap<&str, &File<'_>> = HashMap::new();
    let mut found = Vec::new();
    for (index, file) in files {
        let document = file.document;
        let name = document.name();
        let Some(other) = first.get(name) else {
            first.insert(name, file);
            continue;
        };
        let title = format!("two pipelines are called `{name}`");
        let place = match (span(other), &other.document.file) {
            (span, file) if span.is_empty() => file.path.clone(),
            (span, file) => format!("{}:{}", file.path, line_column(&file.text, span.start).0),
        };
        let diagnostic = Diagnostic::error("same-name", &document.file, span(file), title)
            .with_label(format!("also in {place}"))
            .with_help("give each a `name:` of its own");
        found.push((*index, diagnostic));
    }
    found
}

fn span(file: &File<'_>) -> std::ops::Range<usize> {
    file.root.entry("name").map_or(0..0, |entry| entry.value.span.clone())
}
