//! Rule `clean-start`: an input that asks its broker for acknowledged delivery does not forget its session.
use super::{File, delivery::demanded};
use crate::diagnostic::Diagnostic;

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    // Demanding a guarantee makes it an error; giving it up makes it meant so.
    if demanded(file).is_some() {
        return;
    }
    for (part, contact) in file.inputs() {
        let Some(setting @ ("clean_start" | "session_expiry_s")) = contact.forgets else { continue };
        if contact.window.is_none() || part.component.node().entry(setting).is_none() {
            continue;
        }
        let title = format!("input `{}` forgets its session at each start", part.label);
        found.push(
            part.warn("clean-start", setting, title)
                .with_label("what is not acknowledged then is lost")
                .with_help("remove it, or write `delivery: best_effort` at the top if that is meant so"),
        );
    }
}
