//! *What it checks*: a value is of the kind its field wants: text, a number, a list, fields. Code `wrong-type`.
//! *Why it matters*: YAML types by looks (`1.10` is a number, `"5"` is text), so a value may not be what it seems.
//! *Example*: `qos: "1"`. *Write instead*: `qos: 1`.
use super::schema::Place;
use crate::{
    config::{Node, NodeValue, Typed},
    diagnostic::Diagnostic,
};

pub(super) fn diagnose(place: &Place<'_>, node: &Node, expected: &[&str]) -> Diagnostic {
    let wanted = if expected.is_empty() { "another value".to_owned() } else { join(expected) };
    let (kind, found) = found(node);
    let diagnostic = place
        .error("wrong-type", place.value_span(node), format!("{} must be {wanted}", place.what()))
        .with_label(format!("expected {wanted}, found {found}"));
    let shown = node.scalar().filter(|scalar| scalar.secrets.is_empty()).map_or("", |scalar| scalar.text.as_str());
    let number = shown.parse::<f64>().is_ok();
    match (kind, expected) {
        ("null", _) if is_comment(&place.file.text[diagnostic.span.end..]) => {
            diagnostic.with_help("after a blank `#` begins a comment in YAML: put the value in quotes, or below a `|`")
        }
        ("null", _) => diagnostic.with_help("give it a value, or leave the key out"),
        ("object", ["array"]) => {
            let about = diagnostic.help.clone().map(|help| help + " ").unwrap_or_default();
            diagnostic.with_help(format!("{about}Each item begins with `-`."))
        }
        ("string", ["integer" | "number"]) if number => {
            let is_whole = shown.parse::<i64>().is_ok();
            let diagnostic = diagnostic.with_help(format!("write it without quotes: {shown}"));
            let quoted = [format!("\"{shown}\""), format!("'{shown}'")];
            let stands = |text: &str| quoted.iter().any(|quoted| quoted == text);
            match place.file.text.get(diagnostic.span.clone()) {
                Some(text) if is_whole && stands(text) => diagnostic.with_fix(shown),
                _ => diagnostic,
            }
        }
        ("integer" | "number" | "boolean", ["string"]) if !shown.is_empty() => {
            let diagnostic = diagnostic.with_help(format!("put it in quotes: \"{shown}\""));
            match place.file.text.get(diagnostic.span.clone()) {
                Some(text) if text == shown => diagnostic.with_fix(format!("\"{shown}\"")),
                _ => diagnostic,
            }
        }
        ("array", ["array"]) | ("object", ["string"]) => diagnostic,
        (_, ["array"]) if !shown.is_empty() => diagnostic.with_help(format!("a list is written [{shown}]")),
        _ => diagnostic,
    }
}

/// True when only a comment stands behind a key.
fn is_comment(rest: &str) -> bool {
    rest.lines().next().unwrap_or_default().trim_start_matches([':', ' ', '\t']).starts_with('#')
}

fn found(node: &Node) -> (&'static str, &'static str) {
    match &node.value {
        NodeValue::Mapping(_) => ("object", "fields"),
        NodeValue::Sequence(_) => ("array", "a list"),
        NodeValue::Scalar(scalar) => match scalar.typed() {
            Typed::Null => ("null", "nothing"),
            Typed::Bool(true) => ("boolean", "`true`"),
            Typed::Bool(false) => ("boolean", "`false`"),
            Typed::Integer(_) => ("integer", "an integer"),
            Typed::Float(_) => ("number", "a number"),
            Typed::Text(_) => ("string", "text"),
        },
    }
}

fn join(kinds: &[&str]) -> String {
    let words = kinds.iter().map(|kind| match *kind {
        "object" => "fields (`key: value`)",
        "array" => "a list",
        "string" => "text",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        other => other,
    });
    words.collect::<Vec<_>>().join(" or ")
}
