//! *What it checks*: numbers, lengths of text and numbers of items lie within their bounds. Code `out-of-range`.
//! *Why it matters*: a bound is where a protocol, a server or memory ends.
//! *Example*: `qos: 3`. *Write instead*: `qos: 1`.
use serde_json::Value as Json;

use super::schema::Place;
use crate::{
    config::{Node, NodeValue, Typed},
    diagnostic::Diagnostic,
};

pub(super) fn diagnose(place: &Place<'_>, node: &Node, schema: &Json) -> Option<Diagnostic> {
    let (size, low, high, noun) = match &node.value {
        NodeValue::Scalar(scalar) => match scalar.typed() {
            Typed::Integer(value) => return number(place, node, schema, value as f64),
            Typed::Float(value) => return number(place, node, schema, value),
            Typed::Text(text) => (text.chars().count(), "minLength", "maxLength", "characters"),
            Typed::Null | Typed::Bool(_) => return None,
        },
        NodeValue::Sequence(items) => (items.len(), "minItems", "maxItems", "items"),
        NodeValue::Mapping(entries) => (entries.len(), "minProperties", "maxProperties", "keys"),
    };
    let (low, high) = (schema[low].as_u64(), schema[high].as_u64());
    let size = size as u64;
    if low.is_none_or(|low| size >= low) && high.is_none_or(|high| size <= high) {
        return None;
    }
    let title = match (low, high) {
        (Some(1), _) if size == 0 => format!("{} must not be empty", place.what()),
        (Some(low), None) => format!("{} must have at least {low} {noun}", place.what()),
        (None, Some(high)) => format!("{} must have at most {high} {noun}", place.what()),
        (Some(low), Some(high)) => format!("{} must have {low} to {high} {noun}", place.what()),
        (None, None) => return None,
    };
    let label = if size == 0 { "empty".to_owned() } else { format!("{size} {noun}") };
    Some(place.error("out-of-range", place.value_span(node), title).with_label(label))
}

fn number(place: &Place<'_>, node: &Node, schema: &Json, value: f64) -> Option<Diagnostic> {
    let (least, most) = format_bounds(schema["format"].as_str().unwrap_or_default());
    let fits_type = least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most);
    let wide = |bound: &f64| bound.abs() > f64::from(u32::MAX);
    // Nobody is helped by the digits of 2^64, unless it is the bound that was crossed.
    let low = schema["minimum"].as_f64().or(least.filter(|bound| !wide(bound) || !fits_type));
    let high = schema["maximum"].as_f64().or(most.filter(|bound| !wide(bound) || !fits_type));
    let (above, below) = (schema["exclusiveMinimum"].as_f64(), schema["exclusiveMaximum"].as_f64());
    let inside = low.is_none_or(|low| value >= low)
        && high.is_none_or(|high| value <= high)
        && above.is_none_or(|above| value > above)
        && below.is_none_or(|below| value < below);
    if inside {
        return None;
    }
    let bounds: Vec<String> = [(low, "at least"), (above, "more than"), (high, "at most"), (below, "less than")]
        .into_iter()
        .filter_map(|(bound, words)| bound.map(|bound| format!("{words} {bound}")))
        .collect();
    let title = match (low, high) {
        (Some(low), Some(high)) if above.is_none() && below.is_none() => {
            format!("{} must be from {low} to {high}", place.what())
        }
        _ => format!("{} must be {}", place.what(), bounds.join(" and ")),
    };
    let secret = node.scalar().is_some_and(|scalar| !scalar.secrets.is_empty());
    let label = if secret { "out of range".to_owned() } else { format!("{value} is out of range") };
    Some(place.error("out-of-range", place.value_span(node), title).with_label(label))
}

/// Bounds of integer types that the schema only names.
fn format_bounds(format: &str) -> (Option<f64>, Option<f64>) {
    match format {
        "int8" => (Some(f64::from(i8::MIN)), Some(f64::from(i8::MAX))),
        "int16" => (Some(f64::from(i16::MIN)), Some(f64::from(i16::MAX))),
        "int32" => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        "int64" | "int" => (Some(i64::MIN as f64), Some(i64::MAX as f64)),
        "uint8" => (Some(0.0), Some(f64::from(u8::MAX))),
        "uint16" => (Some(0.0), Some(f64::from(u16::MAX))),
        "uint32" => (Some(0.0), Some(f64::from(u32::MAX))),
        "uint64" | "uint" => (Some(0.0), Some(u64::MAX as f64)),
        _ => (None, None),
    }
}
