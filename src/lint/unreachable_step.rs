//! Rule `unreachable-step`: messages get as far as every step.
use super::File;
use crate::{config::Role, diagnostic::Diagnostic};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let mut steps = file.parts.iter().filter(|part| part.role == Role::Step);
    let ends = |note: &crate::diagnostic::Fault| note.code == "never-matches";
    let Some(last) = steps.find(|part| part.promise.notes.iter().any(ends)) else { return };
    let Some(next) = steps.next() else { return };
    let title = format!("no message gets to `{}`", next.label);
    let line = file.document.file.text[next.span.clone()].lines().next().map_or(0, str::len);
    found.push(
        Diagnostic::error("unreachable-step", &file.document.file, next.span.start..next.span.start + line, title)
            .with_label("never reached")
            .with_help(format!("`{}` lets none through", last.label))
            .into_warning(),
    );
}
