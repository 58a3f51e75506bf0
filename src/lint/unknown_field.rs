//! *What it checks*: every key is a field of its component, or of the pipeline. Code `unknown-field`.
//! *Why it matters*: a misspelt setting would silently keep its default.
//! *Example*: `topic: sensors/#` in an `mqtt` input. *Write instead*: `topics: [sensors/#]`.
use super::schema::Place;
use crate::{
    config::Entry,
    diagnostic::{Diagnostic, nearest},
};

/// What other tools call some fields.
const ELSEWHERE: &[(&str, &[&str])] = &[
    ("sources", &["inputs"]),
    ("source", &["inputs", "topics", "topic"]),
    ("sinks", &["outputs"]),
    ("sink", &["outputs"]),
    ("processors", &["steps"]),
    ("transforms", &["steps"]),
    ("pipeline", &["steps"]),
    ("bootstrap.servers", &["brokers"]),
    ("bootstrap_servers", &["brokers"]),
    ("servers", &["brokers", "url"]),
    ("host", &["url", "brokers"]),
    ("address", &["url", "brokers"]),
    ("endpoint", &["url"]),
    ("broker", &["url", "brokers"]),
    ("group.id", &["group"]),
    ("consumer_group", &["group"]),
    ("filters", &["topics"]),
    ("subscribe", &["topics"]),
    ("ssl", &["tls"]),
];

/// What the field is called here, when it is known under this name elsewhere.
fn elsewhere<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let (_, here) = ELSEWHERE.iter().find(|(name, _)| *name == key)?;
    here.iter().find_map(|name| known.iter().find(|known| *known == name).copied())
}

/// The owner of an unknown field, and the field that was most likely meant.
pub(super) fn meant(found: &Diagnostic) -> Option<(String, String)> {
    let owner = found.title.split(" has no field ").next().filter(|_| found.code == "unknown-field")?;
    let name = found.label.strip_prefix("did you mean `")?.strip_suffix("`?")?;
    Some((owner.to_owned(), name.to_owned()))
}

pub(super) fn diagnose(place: &Place<'_>, entry: &Entry, known: &[&str], siblings: &[Entry]) -> Diagnostic {
    let key = &entry.key;
    let near = nearest(key, known.iter().copied());
    let label = match near.or_else(|| elsewhere(key, known)) {
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
