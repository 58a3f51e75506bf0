//! Values of a compiled script. What comes from the payload stays the text it is for as long as nothing looks inside.
use std::fmt::Write as _;

use bumpalo::{Bump, collections::String as BumpString};

use super::run::Deopt;
use crate::{
    codec::json::{self, Kind, Reader, Text},
    message::{Slot, SlotKind},
    script::{syntax::Operator, value::Value},
};

/// One value; copying it copies no text and no list.
#[derive(Clone, Copy, Debug)]
pub(super) enum V<'a> {
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// The text of an integer of the payload, of any size.
    IntText(&'a str),
    /// The text of a float of the payload, of any size.
    FloatText(&'a str),
    /// A number that neither an `i64` nor an `f64` can hold.
    Big(&'a str),
    Text(&'a str),
    /// A text that JSON writes as it is, between quotes.
    Clean(&'a str),
    /// What stands between the quotes of a JSON string with escapes in it.
    Escaped(&'a str),
    /// An object or array of the payload.
    Json(&'a str),
    List(&'a [V<'a>]),
    /// Sorted by key, each key once.
    Map(&'a [(&'a str, V<'a>)]),
}

impl<'a> V<'a> {
    /// The value that a slot of `json` points to.
    #[inline]
    pub fn of_slot(json: &'a str, slot: Slot) -> Self {
        let text = || &json[slot.start as usize..slot.end as usize];
        match slot.kind {
            SlotKind::Missing | SlotKind::Null => Self::Unit,
            SlotKind::True => Self::Bool(true),
            SlotKind::False => Self::Bool(false),
            SlotKind::Int => Self::IntText(text()),
            SlotKind::Float => Self::FloatText(text()),
            SlotKind::Text => Self::Clean(text()),
            SlotKind::Escaped => Self::Escaped(text()),
            SlotKind::Object | SlotKind::Array => Self::Json(text()),
        }
    }

    /// The same value with its number read and its escapes decoded; lists and maps are left as they are.
    #[inline]
    pub fn plain(self, bump: &'a Bump) -> Self {
        match self {
            Self::IntText(text) => int(text),
            Self::FloatText(text) => float(text),
            Self::Clean(text) => Self::Text(text),
            Self::Escaped(raw) => Self::Text(decode(raw, bump)),
            other => other,
        }
    }

    /// The same value, with a list or map of the payload opened one level.
    pub fn opened(self, bump: &'a Bump) -> Self {
        match self {
            Self::Json(json) => open(json, bump),
            other => other.plain(bump),
        }
    }

    /// Its member, when it is a map; `()` where there is none.
    #[inline]
    pub fn member(self, name: &str) -> Result<Self, Deopt> {
        match self {
            Self::Json(json) if json.starts_with('{') => {
                Ok(Self::of_slot(json, json::member(json, name).ok_or(Deopt)?))
            }
            Self::Map(members) => {
                Ok(members.binary_search_by(|(member, _)| (*member).cmp(name)).map_or(Self::Unit, |at| members[at].1))
            }
            _ => Err(Deopt),
        }
    }

    /// As a function takes it.
    pub fn to_value(self, bump: &'a Bump) -> Value<'a> {
        match self.opened(bump) {
            Self::Unit => Value::Unit,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Big(text) => Value::Big(text),
            Self::Text(text) => Value::Text(text),
            Self::List(items) => Value::List(bump.alloc_slice_fill_iter(items.iter().map(|item| item.to_value(bump)))),
            Self::Map(members) => {
                let members = members.iter().map(|(key, value)| (*key, value.to_value(bump)));
                Value::Map(bump.alloc_slice_fill_iter(members))
            }
            Self::IntText(_) | Self::FloatText(_) | Self::Clean(_) | Self::Escaped(_) | Self::Json(_) => {
                unreachable!("opened values hold no text of the payload")
            }
        }
    }

    /// As a function gives it.
    pub fn of_value(value: Value<'a>, bump: &'a Bump) -> Result<Self, Deopt> {
        Ok(match value {
            Value::Unit => Self::Unit,
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
            Value::Big(text) => Self::Big(text),
            Value::Text(text) => Self::Text(text),
            Value::List(items) => {
                let mut out = bumpalo::collections::Vec::with_capacity_in(items.len(), bump);
                for item in items {
                    out.push(Self::of_value(*item, bump)?);
                }
                Self::List(out.into_bump_slice())
            }
            Value::Map(members) => {
                let mut out = bumpalo::collections::Vec::with_capacity_in(members.len(), bump);
                for (key, value) in members {
                    out.push((*key, Self::of_value(*value, bump)?));
                }
                Self::Map(out.into_bump_slice())
            }
            Value::Other(_) => return Err(Deopt),
        })
    }

    /// Appends it as Rhai shows it in a text.
    pub fn show(self, out: &mut BumpString<'a>, bump: &'a Bump) -> Result<(), Deopt> {
        match self.plain(bump) {
            Self::Text(text) => out.push_str(text),
            Self::Int(value) => out.push_str(itoa::Buffer::new().format(value)),
            Self::Float(value) => show_float(value, out)?,
            Self::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Self::Unit => {}
            _ => return Err(Deopt),
        }
        Ok(())
    }
}

/// The value of an integer's text.
#[inline]
fn int(text: &str) -> V<'_> {
    let bytes = text.as_bytes();
    // Up to 18 digits fit for sure.
    if bytes.len() <= 18 && bytes[0] != b'-' {
        return V::Int(bytes.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')));
    }
    match text.parse() {
        _ if text == "-0" => V::Float(-0.0),
        Ok(value) => V::Int(value),
        Err(_) => V::Big(text),
    }
}

#[inline]
fn float(text: &str) -> V<'_> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => V::Float(value),
        _ => V::Big(text),
    }
}

/// What stands between the quotes of a JSON string, decoded.
fn decode<'a>(raw: &str, bump: &'a Bump) -> &'a str {
    let mut text = BumpString::with_capacity_in(raw.len(), bump);
    Text::escaped(raw).pieces(|piece| text.push_str(piece));
    text.into_bump_str()
}

/// The items of an array or the members of an object.
fn open<'a>(json: &'a str, bump: &'a Bump) -> V<'a> {
    const CHECKED: &str = "the payload was read from end to end before";
    if json.starts_with('[') {
        let mut items = bumpalo::collections::Vec::new_in(bump);
        json::items(json, |slot| items.push(V::of_slot(json, slot))).expect(CHECKED);
        return V::List(items.into_bump_slice());
    }
    let mut reader = Reader::new(json);
    reader.value().expect(CHECKED);
    let mut members: bumpalo::collections::Vec<'_, (&str, V<'_>)> = bumpalo::collections::Vec::new_in(bump);
    let mut sorted = true;
    while let Some(key) = reader.next_key(members.is_empty()).expect(CHECKED) {
        let key = if key.is_escaped() { decode(key.raw(), bump) } else { key.raw() };
        sorted &= members.last().is_none_or(|(last, _)| *last < key);
        members.push((key, of_reader(&mut reader, json)));
    }
    if !sorted {
        // Stable, so that of members with the same name the last one stays last.
        members.sort_by(|a, b| a.0.cmp(b.0));
        members.reverse();
        members.dedup_by(|a, b| a.0 == b.0);
        members.reverse();
    }
    V::Map(members.into_bump_slice())
}

/// The next value of a reader.
fn of_reader<'a>(reader: &mut Reader<'a>, json: &'a str) -> V<'a> {
    const CHECKED: &str = "the payload was read from end to end before";
    match reader.value().expect(CHECKED) {
        Kind::Null => V::Unit,
        Kind::Bool(value) => V::Bool(value),
        Kind::Number(number) if number.integer => V::IntText(number.text),
        Kind::Number(number) => V::FloatText(number.text),
        Kind::String(text) if text.is_escaped() => V::Escaped(text.raw()),
        Kind::String(text) => V::Clean(text.raw()),
        kind @ (Kind::Array | Kind::Object) => {
            let start = reader.start();
            reader.skip_rest(kind).expect(CHECKED);
            V::Json(&json[start..reader.at()])
        }
    }
}

/// As Rhai shows a float: with a point where it is whole, with an exponent where it is very large or small.
fn show_float(value: f64, out: &mut BumpString<'_>) -> Result<(), Deopt> {
    let size = value.abs();
    if size == 0.0 {
        out.push_str("0.0");
    } else if size > f64::from(10_000_000_000_000_f32) || size < f64::from(0.000_000_000_000_1_f32) {
        // Infinity and NaN are shown here too, as Rust shows them.
        write!(out, "{value:e}").map_err(|_| Deopt)?;
    } else {
        write!(out, "{value}").map_err(|_| Deopt)?;
        if size.fract() == 0.0 {
            out.push_str(".0");
        }
    }
    Ok(())
}

/// `a operator b`, for all but ranges.
pub(super) fn binary<'a>(operator: Operator, a: V<'a>, b: V<'a>, bump: &'a Bump) -> Result<V<'a>, Deopt> {
    Ok(match (a.plain(bump), b.plain(bump)) {
        (V::Int(a), V::Int(b)) => return ints(operator, a, b),
        (V::Float(a), V::Float(b)) => return floats(operator, a, b),
        (V::Float(a), V::Int(b)) => return floats(operator, a, b as f64),
        (V::Int(a), V::Float(b)) => return floats(operator, a as f64, b),
        (V::Text(a), V::Text(b)) if operator != Operator::Add => V::Bool(ordered(operator, a.cmp(b))?),
        (V::Bool(a), V::Bool(b)) => V::Bool(ordered(operator, a.cmp(&b))?),
        (V::Unit, V::Unit) if comparison(operator) => V::Bool(operator == Operator::Equal),
        // A text takes anything at either side.
        (a @ V::Text(_), b) | (a, b @ V::Text(_)) if operator == Operator::Add => {
            let mut text = BumpString::new_in(bump);
            a.show(&mut text, bump)?;
            b.show(&mut text, bump)?;
            V::Text(text.into_bump_str())
        }
        // Values of different simple types are never equal, and in no order.
        (
            V::Unit | V::Bool(_) | V::Int(_) | V::Float(_) | V::Text(_),
            V::Unit | V::Bool(_) | V::Int(_) | V::Float(_) | V::Text(_),
        ) if comparison(operator) => V::Bool(operator == Operator::NotEqual),
        _ => return Err(Deopt),
    })
}

fn comparison(operator: Operator) -> bool {
    use Operator::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
    matches!(operator, Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual)
}

fn ordered(operator: Operator, order: std::cmp::Ordering) -> Result<bool, Deopt> {
    Ok(match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterEqual => order.is_ge(),
        _ => return Err(Deopt),
    })
}

#[inline]
pub(super) fn ints<'a>(operator: Operator, a: i64, b: i64) -> Result<V<'a>, Deopt> {
    let number = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide => a.checked_div(b),
        Operator::Modulo => a.checked_rem(b),
        _ => return Ok(V::Bool(ordered(operator, a.cmp(&b))?)),
    };
    number.map(V::Int).ok_or(Deopt)
}

#[inline]
pub(super) fn floats<'a>(operator: Operator, a: f64, b: f64) -> Result<V<'a>, Deopt> {
    Ok(V::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::Modulo => a % b,
        _ => return Ok(V::Bool(close(operator, a, b)?)),
    }))
}

/// Rhai compares floats within a relative distance; NaN is in no order.
fn close(operator: Operator, a: f64, b: f64) -> Result<bool, Deopt> {
    const NEAR: f64 = f64::EPSILON;
    let size = if a * b == 0.0 { 1.0 } else { a.abs().max(b.abs()) };
    Ok(match operator {
        Operator::Equal => (a - b).abs() / size <= NEAR,
        Operator::NotEqual => (a - b).abs() / size > NEAR,
        Operator::Greater => (a - b) / size > NEAR,
        Operator::GreaterEqual => (a - b) / size > -NEAR,
        Operator::Less => (b - a) / size > NEAR,
        Operator::LessEqual => (b - a) / size > -NEAR,
        _ => return Err(Deopt),
    })
}
