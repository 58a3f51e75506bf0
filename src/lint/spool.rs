//! *What it checks*: `spool:` has an input that gains from it. Code `spool-useless`.
//! *Why it matters*: whoever asks for a spool counts on it.
//! *Example*: `spool: {}` with a `kafka` input, whose topic is on disk already. *Write instead*: nothing.
use super::{File, Promised};
use crate::{
    config::{Role, Typed},
    diagnostic::Diagnostic,
};

pub(super) fn check(file: &File<'_>, promised: &[Promised<'_>], found: &mut Vec<Diagnostic>) {
    let Some(entry) = file.root.entry("spool").filter(|entry| !entry.value.is_null()) else { return };
    let enabled = entry.value.entry("enabled").and_then(|entry| entry.value.scalar());
    let is_off = enabled.is_some_and(|scalar| scalar.typed() == Typed::Bool(false));
    let inputs = file.slots.iter().filter(|slot| slot.role == Role::Input);
    let sound: Vec<_> = promised.iter().filter(|part| part.slot.role == Role::Input).collect();
    // An input with a fault may be one that gains.
    if is_off || inputs.count() > sound.len() || sound.iter().any(|part| part.promise.can_spool) {
        return;
    }
    let names: Vec<_> =
        sound.iter().flat_map(|part| part.slot.components()).map(|entry| format!("`{}`", entry.key)).collect();
    let title = format!("`spool` is of no use to {}", names.join(" and "));
    found.push(
        Diagnostic::error("spool-useless", &file.document.file, entry.key_span.clone(), title)
            .with_label("its source keeps messages until they are delivered, or cannot be acknowledged")
            .with_help("leave `spool` out; it is for `mqtt` inputs, whose broker keeps few messages"),
    );
}
