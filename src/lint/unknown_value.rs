//! *What it checks*: a value that is chosen from a list is on that list. Code `unknown-value`.
//! *Why it matters*: there is nothing sensible to do with any other.
//! *Example*: `compression: lzo`. *Write instead*: `compression: lz4`.
use super::schema::Place;
use crate::{
    config::Node,
    diagnostic::{Diagnostic, nearest},
};

pub(super) fn diagnose(place: &Place<'_>, node: &Node, values: &[String]) -> Diagnostic {
    let shown = node.scalar().filter(|scalar| scalar.secrets.is_empty()).map(|scalar| scalar.text.as_str());
    let title = match shown {
        Some(text) => format!("{} cannot be `{text}`", place.what()),
        None => format!("{} cannot be this", place.what()),
    };
    let near = shown.and_then(|text| nearest(text, values.iter().map(String::as_str)));
    let label = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "not one of its values".to_owned(),
    };
    let list = values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    let diagnostic = place
        .error("unknown-value", place.value_span(node), title)
        .with_label(label)
        .with_help(format!("values of {}: {list}", place.short()));
    match (shown, near) {
        (Some(old), Some(near)) => diagnostic.with_word_fix(old, near),
        _ => diagnostic,
    }
}
