//! *What it checks*: every key is a field of its component, or of the pipeline. Code `unknown-field`.
//! *Why it matters*: a misspelt setting would silently keep its default.
//! *Example*: `topic: sensors/#` in an `mqtt` input. *Write instead*: `topics: [sensors/#]`.
use super::schema::Place;
use crate::{
    config::Entry,
    diagnostic::{Diagnostic, nearest},
};

pub(super) fn diagnose(place: &Place<'_>, entry: &Entry, known: &[&str], siblings: &[Entry]) -> Diagnostic {
    let key = &entry.key;
    let near = nearest(key, known.iter().copied());
    let label = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "unknown field".to_owned(),
    };
    let fields: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    let help = if fields.is_empty() {
        format!("{} has no fields", place.short())
    } else {
        format!("fields of {}: {}", place.short(), fields.join(", "))
    };
    let diagnostic = place
        .error("unknown-field", entry.key_span.clone(), format!("{} has no field `{key}`", place.what()))
        .with_label(label)
        .with_help(help);
    match near.filter(|near| !siblings.iter().any(|other| other.key == *near)) {
        Some(near) => diagnostic.with_word_fix(key, near),
        None => diagnostic,
    }
}
