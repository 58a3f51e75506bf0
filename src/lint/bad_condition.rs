//! *What it checks*: `when:` beside an output is a condition in Rhai. Code `wrong-type`, and those of scripts.
//! *Why it matters*: a condition that fails at run time makes a dead letter of every message.
//! *Example*: `when: [payload.x > 1]`. *Write instead*: `when: payload.x > 1`.
use super::{File, schema};
use crate::{
    config::{Role, Slot},
    diagnostic::Diagnostic,
};

pub(super) fn check(file: &File<'_>, slot: &Slot<'_>, found: &mut Vec<Diagnostic>) {
    let (Role::Output, Some(entry)) = (slot.role, slot.node.entry("when")) else { return };
    let schema = serde_json::json!({ "type": ["string", "boolean"] });
    let subject = schema::Subject::named(format!("`when` of output `{}`", slot.label), "`when`");
    found.extend(schema::walk(&file.document.file, &subject, &entry.value, &schema, entry.key_span.clone()));
}
