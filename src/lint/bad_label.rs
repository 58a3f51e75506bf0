//! *What it checks*: labels of inputs and outputs are lower-case letters, digits, `_` and `-`. Code `bad-label`.
//! *Why it matters*: labels stand in metrics, logs, file names and URLs, where other characters need care.
//! *Example*: `inputs: { "Living Room": … }`. *Write instead*: `living-room`.
use super::File;
use crate::{config::Role, diagnostic::Diagnostic};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    for slot in file.slots.iter().filter(|slot| matches!(slot.role, Role::Input | Role::Output)) {
        let label = &*slot.label;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if label.is_empty() || !label.chars().all(good) {
            let lower = label.to_ascii_lowercase();
            let better = lower.split(|c| !good(c)).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
            let title = format!("`{label}` cannot be a label");
            let diagnostic = Diagnostic::error("bad-label", &file.document.file, slot.span.clone(), title)
                .with_label("lower-case letters, digits, `_` and `-` only");
            found.push(if better.is_empty() { diagnostic } else { diagnostic.with_help(format!("write `{better}`")) });
        }
    }
}
