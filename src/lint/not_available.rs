//! *What it checks*: nothing is asked for that this version cannot do: `archive:`. Code `not-available`.
//! *Why it matters*: a promise that is silently not kept is worse than none.
//! *Example*: `archive:`. *Write instead*: an output that gets every message.
use super::File;
use crate::diagnostic::Diagnostic;

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let error = |span, title: &str| Diagnostic::error("not-available", &file.document.file, span, title);
    if let Some(entry) = file.root.entry("archive").filter(|entry| !entry.value.is_null()) {
        found.push(
            error(entry.key_span.clone(), "`archive` is not available in this version")
                .with_label("cannot be honoured yet")
                .with_help("add an output that gets every message instead; it gets them after the steps"),
        );
    }
}
