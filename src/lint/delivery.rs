//! *What it checks*: the parts can give the guarantee that `delivery:` demands. Code `delivery-impossible`.
//! *Why it matters*: a guarantee that one part breaks is none.
//! *Example*: `delivery: at_least_once` with an `mqtt` input of `qos: 0`. *Write instead*: `qos: 1`.
use super::{File, Promised};
use crate::{config::Typed, diagnostic::Diagnostic, input::Replay};

pub(super) fn check(file: &File<'_>, promised: &[Promised<'_>], found: &mut Vec<Diagnostic>) {
    let Some(entry) = file.root.entry("delivery") else { return };
    let wanted = entry.value.scalar().map(|scalar| scalar.typed());
    if wanted != Some(Typed::Text("at_least_once")) {
        return;
    }
    for Promised { slot, .. } in promised.iter().filter(|part| part.promise.replay == Some(Replay::Never)) {
        let title = format!("input `{}` cannot give `at_least_once`", slot.label);
        let diagnostic = Diagnostic::error("delivery-impossible", &file.document.file, slot.span.clone(), title);
        found.push(diagnostic.with_label("what it reads never comes again").with_help(
            "let the source keep messages until they are acknowledged (for MQTT: `qos: 1`), or leave `delivery:` out",
        ));
    }
}
