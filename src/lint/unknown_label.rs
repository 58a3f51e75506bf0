//! Rule `unknown-label`: tests name inputs and outputs of their pipeline.
use super::File;
use crate::{
    config::{Node, Role},
    diagnostic::{Diagnostic, nearest},
};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let labels = |role: Role| -> Vec<&str> {
        file.slots.iter().filter(|slot| slot.role == role).map(|slot| &*slot.label).collect()
    };
    let (inputs, outputs) = (labels(Role::Input), labels(Role::Output));
    let mut report = |span: std::ops::Range<usize>, name: &str, kind: &str, known: &[&str]| {
        // Without any, it is reported that they are missing.
        if known.contains(&name) || known.is_empty() {
            return;
        }
        let title = format!("the pipeline has no {kind} `{name}`");
        let diagnostic = Diagnostic::error("unknown-label", &file.document.file, span, title);
        let list = known.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let diagnostic = diagnostic.with_help(format!("{kind}s: {list}"));
        found.push(match nearest(name, known.iter().copied()) {
            Some(near) => diagnostic.with_label(format!("did you mean `{near}`?")).with_word_fix(name, near),
            None => diagnostic.with_label(format!("no such {kind}")),
        });
    };
    let under = |node: &'_ Node, key: &str| node.entry(key).map(|entry| entry.value.clone());
    for case in file.root.entry("tests").map_or(&[][..], |tests| tests.value.items()) {
        for entry in under(case, "outputs").iter().flat_map(Node::entries) {
            report(entry.key_span.clone(), &entry.key, "output", &outputs);
        }
        let several = under(case, "inputs");
        for message in under(case, "input").iter().chain(several.iter().flat_map(Node::items)) {
            if let Some((entry, name)) = message.entry("input").and_then(|entry| Some((entry, entry.value.text()?))) {
                report(entry.value.span.clone(), name, "input", &inputs);
            }
        }
    }
}
