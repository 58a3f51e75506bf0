//! Rule `delivery-impossible`: the parts can give the guarantee that `delivery:` demands, and which one cannot.
use super::{File, Part};
use crate::{
    config::{Entry, Role, Typed},
    diagnostic::{Diagnostic, Fault},
    input::Replay,
};

/// What `delivery:` demands, when it is there and known.
pub(super) fn demanded<'a>(file: &File<'a>) -> Option<(&'a Entry, &'a str)> {
    let entry = file.root.entry("delivery")?;
    match entry.value.scalar()?.typed() {
        Typed::Text(wanted) => Some((entry, wanted)),
        _ => None,
    }
}

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let Some((entry, wanted @ ("at_least_once" | "exactly_once"))) = demanded(file) else { return };
    if wanted == "exactly_once" {
        exactly_once(file, entry, found);
    }
    for part in file.parts.iter().filter(|part| part.promise.replay == Some(Replay::Never)) {
        let title = format!("input `{}` cannot give `{wanted}`", part.label);
        let label = "what it reads never comes again";
        let help =
            "let the source keep messages until they are acknowledged (for MQTT: `qos: 1`), or leave `delivery:` out";
        let setting = part.contact().and_then(|contact| contact.forgets);
        // The setting that is the reason, when it is written there.
        let written = setting.filter(|setting| part.component.node().entry(setting).is_some());
        found.push(match written {
            Some(setting) => {
                let fault = Fault::new("delivery-impossible", setting, title);
                part.component.diagnose(&fault.label(format!("with this, {label}")).help(help))
            }
            None => Diagnostic::error("delivery-impossible", &file.document.file, part.span.clone(), title)
                .with_label(label)
                .with_help(help),
        });
    }
}

/// Each message once: inputs that hand out the same ranges again, and one output that recognises them.
fn exactly_once(file: &File<'_>, entry: &Entry, found: &mut Vec<Diagnostic>) {
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
    for Part { role, label, span, promise, .. } in &file.parts {
        if promise.replay == Some(Replay::Unacknowledged) {
            report(
                span.clone(),
                format!("input `{label}` cannot give `exactly_once`"),
                "it cannot hand out the same ranges again",
                "read from `kafka`, or write `delivery: at_least_once`",
            );
        }
        if *role == Role::Output && !promise.recognises {
            report(
                span.clone(),
                format!("output `{label}` cannot give `exactly_once`"),
                "it cannot tell that a message comes again",
                "write to `clickhouse`, or write `delivery: at_least_once`",
            );
        }
    }
}
