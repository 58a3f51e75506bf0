//! Rule `spool-useless`: `spool:` has an input that gains from it.
use super::File;
use crate::{
    config::{Role, Typed},
    diagnostic::Diagnostic,
};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let Some(entry) = file.root.entry("spool").filter(|entry| !entry.value.is_null()) else { return };
    let enabled = entry.value.entry("enabled").and_then(|entry| entry.value.scalar());
    let is_off = enabled.is_some_and(|scalar| scalar.typed() == Typed::Bool(false));
    let inputs: Vec<_> = file.parts.iter().filter(|part| part.role == Role::Input).collect();
    // An input with a fault may be one that gains.
    let all_sound = file.slots.iter().filter(|slot| slot.role == Role::Input).count() == inputs.len();
    if is_off || !all_sound || inputs.iter().any(|part| part.promise.can_spool) {
        return;
    }
    let names: Vec<_> = inputs.iter().map(|part| format!("`{}`", part.component.name)).collect();
    let title = format!("`spool` is of no use to {}", names.join(" and "));
    found.push(
        Diagnostic::error("spool-useless", &file.document.file, entry.key_span.clone(), title)
            .with_label("its source keeps messages until they are delivered, or takes no acknowledgement")
            .with_help("leave `spool` out; it is for `mqtt`, whose broker keeps few messages"),
    );
}
