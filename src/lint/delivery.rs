//! *What it checks*: the parts can give the guarantee that `delivery:` demands. Code `delivery-impossible`.
//! *Why it matters*: a guarantee that one part breaks is none.
//! *Example*: `delivery: at_least_once` with an `mqtt` input of `qos: 0`. *Write instead*: `qos: 1`.
use super::{File, Promised};
use crate::{
    config::{Entry, Role, Typed},
    diagnostic::Diagnostic,
    input::Replay,
};

pub(super) fn check(file: &File<'_>, promised: &[Promised<'_>], found: &mut Vec<Diagnostic>) {
    let Some(entry) = file.root.entry("delivery") else { return };
    let wanted = match entry.value.scalar().map(|scalar| scalar.typed()) {
        Some(Typed::Text(wanted @ ("at_least_once" | "exactly_once"))) => wanted,
        _ => return,
    };
    if wanted == "exactly_once" {
        exactly_once(file, entry, promised, found);
    }
    for Promised { slot, .. } in promised.iter().filter(|part| part.promise.replay == Some(Replay::Never)) {
        let title = format!("input `{}` cannot give `{wanted}`", slot.label);
        let diagnostic = Diagnostic::error("delivery-impossible", &file.document.file, slot.span.clone(), title);
        found.push(diagnostic.with_label("what it reads never comes again").with_help(
            "let the source keep messages until they are acknowledged (for MQTT: `qos: 1`), or leave `delivery:` out",
        ));
    }
}

/// Each message once: inputs that hand out the same ranges again, and one output that recognises them.
fn exactly_once(file: &File<'_>, entry: &Entry, promised: &[Promised<'_>], found: &mut Vec<Diagnostic>) {
    let mut report = |span, title: String, label: &str, help: &str| {
        let diagnostic = Diagnostic::error("delivery-impossible", &file.document.file, span, title);
        found.push(diagnostic.with_label(label).with_help(help));
    };
    let outputs: Vec<_> = file.slots.iter().filter(|slot| matches!(slot.role, Role::Output)).collect();
    if outputs.len() > 1 {
        report(
            entry.value.span.clone(),
            format!("`exactly_once` needs a single output, and there are {}", outputs.len()),
            "more than one output",
            "write one pipeline for each output, each with a `group` of its own",
        );
    }
    for Promised { slot, promise } in promised {
        if promise.replay == Some(Replay::Unacknowledged) {
            report(
                slot.span.clone(),
                format!("input `{}` cannot give `exactly_once`", slot.label),
                "it cannot hand out the same ranges again",
                "read from `kafka`, or write `delivery: at_least_once`",
            );
        }
        if matches!(slot.role, Role::Output) && !promise.recognises {
            report(
                slot.span.clone(),
                format!("output `{}` cannot give `exactly_once`", slot.label),
                "it cannot tell that a message comes again",
                "write to `clickhouse`, or write `delivery: at_least_once`",
            );
        }
    }
}
