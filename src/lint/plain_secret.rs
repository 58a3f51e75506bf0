//! Rule `plain-secret`: passwords and tokens come from the environment or a file.
use super::File;
use crate::{
    config::{Entry, Node},
    diagnostic::Diagnostic,
};

const NAMES: [&str; 6] = ["password", "passwd", "secret", "token", "api_key", "secret_key"];

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    for slot in &file.slots {
        each(slot.node, &mut |entry| {
            let Some(scalar) = entry.value.scalar() else { return };
            if !NAMES.contains(&entry.key.as_str()) || scalar.has_variables || scalar.text.is_empty() {
                return;
            }
            let (key, upper) = (&entry.key, entry.key.to_ascii_uppercase());
            let title = format!("`{key}` stands in the file as it is");
            found.push(
                Diagnostic::error("plain-secret", &file.document.file, entry.value.span.clone(), title)
                    .with_label("everybody who can read the file knows it")
                    .with_help(format!("write `${{{upper}}}` and set the variable, or `${{file:/run/secrets/{key}}}`"))
                    .into_warning(),
            );
        });
    }
}

fn each(node: &Node, visit: &mut dyn FnMut(&Entry)) {
    for entry in node.entries() {
        visit(entry);
        each(&entry.value, visit);
    }
    node.items().iter().for_each(|item| each(item, visit));
}
