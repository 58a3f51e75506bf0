//! *What it checks*: every field without a default is there. Code `missing-field`.
//! *Why it matters*: streamer cannot guess a broker's address or a table's name.
//! *Example*: a `kafka` output without `topic`. *Write instead*: add `topic: telemetry`.
use super::schema::{Place, first_sentence};
use crate::diagnostic::Diagnostic;

/// The owner of a missing field, and its name.
pub(super) fn of(found: &Diagnostic) -> Option<(String, String)> {
    let (owner, name) = found.title.split_once(" needs the field `").filter(|_| found.code == "missing-field")?;
    Some((owner.to_owned(), name.strip_suffix('`')?.to_owned()))
}

pub(super) fn diagnose(place: &Place<'_>, name: &str, about: Option<&str>) -> Diagnostic {
    let start = place.key_span.clone();
    let diagnostic = place
        .error("missing-field", start, format!("{} needs the field `{name}`", place.what()))
        .with_label(format!("add `{name}:` here"));
    match about {
        Some(about) => diagnostic.with_help(format!("`{name}`: {}", first_sentence(about))),
        None => diagnostic,
    }
}
