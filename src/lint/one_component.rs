//! *What it checks*: every label, every step and `dead_letter` hold exactly one component. Code `one-component`.
//! *Why it matters*: with two under one label nobody could tell them apart in logs and metrics.
//! *Example*: `inputs: { mqtt: { url: …, topics: … } }`: the label is missing, so `url` seems to be a component.
//! *Write instead*: `inputs: { devices: { mqtt: { url: …, topics: … } } }`.
use super::File;
use crate::{
    config::{Role, Slot},
    diagnostic::Diagnostic,
};

/// True when the slot holds one component's name.
pub(super) fn check(file: &File<'_>, slot: &Slot<'_>, found: &mut Vec<Diagnostic>) -> bool {
    let kind = slot.role.kind();
    let names: Vec<_> = slot.components().map(|entry| entry.key.as_str()).collect();
    let all = file.registry.names(kind).iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let what = describe(slot.role, &slot.label);
    let error = |span, title| Diagnostic::error("one-component", &file.document.file, span, title);
    let diagnostic = match names.as_slice() {
        [_] => return true,
        [] => {
            let diagnostic = error(slot.span.clone(), format!("{what} names no {}", kind.word()))
                .with_label(format!("which {}?", kind.word()));
            match slot.node.text() {
                Some(text) if file.registry.find(kind, text).is_some() => diagnostic
                    .with_help(format!("write `{text}:` with its settings, `{text}: {{}}` when it needs none")),
                _ if all.is_empty() => diagnostic,
                _ => diagnostic.with_help(format!("{}: {all}", kind.key())),
            }
        }
        [_, rest @ ..] => {
            let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            // The one that is not known is the one that does not belong.
            let is_known = |name: &&&str| file.registry.find(kind, name).is_some();
            let owner = names.iter().find(is_known);
            let stranger = names.iter().find(|name| !is_known(name));
            let shown = stranger.copied().unwrap_or(rest[0]);
            let span = slot.node.entry(shown).map_or(slot.span.clone(), |entry| entry.key_span.clone());
            let help = match (forgotten_label(file, slot), owner) {
                (Some(help), _) => help,
                (None, _) if shown == "when" => {
                    "only outputs have conditions; in front of them, `filter` is the step to use".to_owned()
                }
                (None, _) if slot.role == Role::Step => "each step is an item of its own: begin it with `-`".to_owned(),
                (None, Some(owner)) if stranger.is_some() => {
                    format!("if `{shown}` is a field of `{owner}`, indent it more")
                }
                (None, Some(_)) => "give each a label of its own".to_owned(),
                (None, None) => format!("{}: {all}", kind.key()),
            };
            error(span, format!("{what} holds {} keys instead of one {}: {list}", names.len(), kind.word()))
                .with_label("one too many")
                .with_help(help)
        }
    };
    found.push(diagnostic);
    false
}

/// ``input `devices` ``, `steps[0]`, `dead_letter`.
pub(super) fn describe(role: Role, label: &str) -> String {
    match role {
        Role::Input | Role::Output => format!("{} `{label}`", role.kind().word()),
        Role::Step | Role::DeadLetter | Role::Archive => format!("`{label}`"),
    }
}

/// The advice for a component that stands where its label belongs.
pub(super) fn forgotten_label(file: &File<'_>, slot: &Slot<'_>) -> Option<String> {
    let (kind, label) = (slot.role.kind(), &slot.label);
    let labelled = matches!(slot.role, Role::Input | Role::Output);
    let is_component = |name: &str| file.registry.find(kind, name).is_some();
    let meant = labelled && is_component(label) && !slot.components().any(|entry| is_component(&entry.key));
    meant.then(|| {
        format!(
            "`{label}` stands where a label of your own belongs: `{}:`, below it `my-{label}:`, below it `{label}:`",
            kind.key()
        )
    })
}
