//! *What it checks*: the named input, step or output exists. Codes `unknown-input`, `unknown-step`, `unknown-output`.
//! *Why it matters*: there is nothing to run. *Example*: `mqqt: { … }`. *Write instead*: `mqtt: { … }`.
use super::{File, one_component::forgotten_label};
use crate::{
    config::{Kind, Slot},
    diagnostic::{Diagnostic, nearest},
};

/// True when the component exists.
pub(super) fn check(file: &File<'_>, slot: &Slot<'_>, found: &mut Vec<Diagnostic>) -> bool {
    let kind = slot.role.kind();
    let Some(entry) = slot.components().next() else { return false };
    let name = entry.key.as_str();
    if file.registry.find(kind, name).is_some() {
        return true;
    }
    let names = file.registry.names(kind);
    let code = match kind {
        Kind::Input => "unknown-input",
        Kind::Step => "unknown-step",
        Kind::Output => "unknown-output",
    };
    let near = nearest(name, names.iter().map(String::as_str));
    let label = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("unknown {}", kind.word()),
    };
    let elsewhere = Kind::ALL.into_iter().find(|other| file.registry.find(*other, name).is_some());
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let help = forgotten_label(file, slot).unwrap_or_else(|| match elsewhere {
        Some(other) => format!("`{name}` is an {}; {}: {list}", other.word(), kind.key()).replace("an step", "a step"),
        None => format!("{}: {list}", kind.key()),
    });
    let title = format!("no {} is called `{name}`", kind.word());
    let diagnostic = Diagnostic::error(code, &file.document.file, entry.key_span.clone(), title);
    let diagnostic = diagnostic.with_label(label).with_help(help);
    found.push(match near {
        Some(near) => diagnostic.with_word_fix(name, near),
        None => diagnostic,
    });
    false
}
