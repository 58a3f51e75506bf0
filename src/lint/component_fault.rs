//! A component's section, first by its schema, then, when that found nothing, by the component's own `build`: what a type
//! cannot say (an address, a template, a script). The codes are those of the schema rules, and whatever the component
//! names.
use super::{File, Part, schema};
use crate::{
    config::{Role, Slot},
    diagnostic::Diagnostic,
};

/// The component and what it promises, when its section is correct.
pub(super) fn check(file: &File<'_>, slot: &Slot<'_>, found: &mut Vec<Diagnostic>) -> Option<Part> {
    let component = file.document.component(slot, file.registry)?;
    let spec = file.registry.find(slot.role.kind(), &component.name)?;
    let name = &component.name;
    let subject = schema::Subject::named(format!("{} `{name}`", spec.kind().word()), format!("`{name}`"));
    let key_span = component.key_span();
    let by_schema = schema::walk(&file.document.file, &subject, component.node(), &spec.schema(), key_span.clone());
    // A value that could not be read (an unset variable) would only be reported twice.
    let section = key_span.start..component.node().span.end.max(key_span.end);
    let unread = file.document.faults.iter().any(|fault| section.contains(&fault.span.start));
    if !by_schema.is_empty() || unread {
        found.extend(by_schema);
        return None;
    }
    match spec.check(slot.role, &component.section) {
        Ok(promise) => {
            found.extend(promise.notes.iter().map(|note| component.diagnose(note)));
            let (role, label, span) = (slot.role, slot.label.clone(), slot.span.clone());
            let has_condition = role == Role::Output && slot.node.entry("when").is_some();
            Some(Part { role, label, span, component, promise, has_condition })
        }
        Err(faults) => {
            found.extend(faults.iter().map(|fault| component.diagnose(fault)));
            None
        }
    }
}
