//! Functions that plans know: Rhai's own, and those of ours that are worth a shorter way. Each does what the interpreter's does, for the kinds of value it names; for any other the
//! message is left to the interpreter.
use bumpalo::{Bump, collections::Vec as BumpVec};

use super::{
    run::Deopt,
    value::{V, binary},
};
use crate::script::{functions::number, syntax::Operator, value::Value};

/// One of these functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builtin {
    Abs,
    Ceiling,
    Contains,
    EndsWith,
    Floor,
    IndexOf,
    IsEmpty,
    Keys,
    Len,
    Max,
    Min,
    Num,
    Numeric,
    ParseFloat,
    ParseInt,
    Round,
    Sign,
    Split,
    StartsWith,
    SubString,
    SubStringTo,
    ToFloat,
    ToInt,
    ToLower,
    ToString,
    ToUpper,
    Values,
}

/// Every one of them: name, number of arguments.
pub(super) const BUILTINS: &[(&str, usize, Builtin)] = &[
    ("abs", 1, Builtin::Abs),
    ("ceiling", 1, Builtin::Ceiling),
    ("contains", 2, Builtin::Contains),
    ("ends_with", 2, Builtin::EndsWith),
    ("floor", 1, Builtin::Floor),
    ("index_of", 2, Builtin::IndexOf),
    ("is_empty", 1, Builtin::IsEmpty),
    ("keys", 1, Builtin::Keys),
    ("len", 1, Builtin::Len),
    ("max", 2, Builtin::Max),
    ("min", 2, Builtin::Min),
    ("num", 2, Builtin::Num),
    ("numeric", 1, Builtin::Numeric),
    ("parse_float", 1, Builtin::ParseFloat),
    ("parse_int", 1, Builtin::ParseInt),
    ("round", 1, Builtin::Round),
    ("sign", 1, Builtin::Sign),
    ("split", 2, Builtin::Split),
    ("starts_with", 2, Builtin::StartsWith),
    ("sub_string", 2, Builtin::SubString),
    ("sub_string", 3, Builtin::SubStringTo),
    ("to_float", 1, Builtin::ToFloat),
    ("to_int", 1, Builtin::ToInt),
    ("to_lower", 1, Builtin::ToLower),
    ("to_string", 1, Builtin::ToString),
    ("to_upper", 1, Builtin::ToUpper),
    ("values", 1, Builtin::Values),
];

/// The built-in function of that name that takes so many arguments.
pub(super) fn find(name: &str, arguments: usize) -> Option<Builtin> {
    BUILTINS.iter().find(|(n, count, _)| *n == name && *count == arguments).map(|(_, _, builtin)| *builtin)
}

/// True for the name of a built-in function.
pub(in crate::script) fn is_builtin(name: &str) -> bool {
    BUILTINS.iter().any(|(known, ..)| *known == name)
}

impl Builtin {
    /// Works it out. There are as many arguments as the table says.
    pub fn call<'a>(self, arguments: &[V<'a>], bump: &'a Bump) -> Result<V<'a>, Deopt> {
        let plain = |at: usize| arguments[at].plain(bump);
        let text = |at: usize| match plain(at) {
            V::Text(text) => Ok(text),
            _ => Err(Deopt),
        };
        let whole = |at: usize| match plain(at) {
            V::Int(value) => Ok(value),
            _ => Err(Deopt),
        };
        Ok(match self {
            Self::Abs => match plain(0) {
                V::Int(value) => V::Int(value.checked_abs().ok_or(Deopt)?),
                V::Float(value) => V::Float(value.abs()),
                _ => return Err(Deopt),
            },
            Self::Sign => match plain(0) {
                V::Int(value) => V::Int(value.signum()),
                _ => return Err(Deopt),
            },
            Self::Ceiling | Self::Floor | Self::Round => match plain(0) {
                V::Float(value) if self == Self::Ceiling => V::Float(value.ceil()),
                V::Float(value) if self == Self::Floor => V::Float(value.floor()),
                V::Float(value) => V::Float(value.round()),
                _ => return Err(Deopt),
            },
            // Ours, and in nearly every mapping: what is a number already stays the text it is.
            Self::Num | Self::Numeric => match arguments[0] {
                value @ (V::IntText(_) | V::FloatText(_) | V::Int(_) | V::Float(_) | V::Big(_)) => value,
                V::Text(_) | V::Clean(_) | V::Escaped(_) => {
                    let text = text(0)?;
                    match number(Value::Text(text)) {
                        Some(number) => V::of_value(number, bump)?,
                        None if self == Self::Num => arguments[1],
                        None => arguments[0],
                    }
                }
                _ if self == Self::Num => arguments[1],
                value => value,
            },
            Self::Min | Self::Max => return least(self == Self::Min, plain(0), plain(1)),
            Self::ToFloat => match plain(0) {
                V::Int(value) => V::Float(value as f64),
                V::Float(value) => V::Float(value),
                _ => return Err(Deopt),
            },
            Self::ToInt => match plain(0) {
                V::Int(value) => V::Int(value),
                V::Float(value) if value.abs() < 9e18 => V::Int(value as i64),
                _ => return Err(Deopt),
            },
            Self::ParseInt => V::Int(text(0)?.trim().parse().map_err(|_| Deopt)?),
            Self::ParseFloat => match text(0)?.trim().parse::<f64>() {
                Ok(value) => V::Float(value),
                Err(_) => return Err(Deopt),
            },
            Self::ToString => {
                let mut out = bumpalo::collections::String::new_in(bump);
                match plain(0) {
                    V::Unit => return Err(Deopt),
                    value => value.show(&mut out, bump)?,
                }
                V::Text(out.into_bump_str())
            }
            Self::Len => V::Int(match arguments[0].opened(bump) {
                V::Text(text) => text.chars().count() as i64,
                V::List(items) => items.len() as i64,
                V::Map(members) => members.len() as i64,
                _ => return Err(Deopt),
            }),
            Self::IsEmpty => V::Bool(match arguments[0].opened(bump) {
                V::Text(text) => text.is_empty(),
                V::List(items) => items.is_empty(),
                V::Map(members) => members.is_empty(),
                _ => return Err(Deopt),
            }),
            Self::Keys => match arguments[0].opened(bump) {
                V::Map(members) => V::List(bump.alloc_slice_fill_iter(members.iter().map(|(key, _)| V::Text(key)))),
                _ => return Err(Deopt),
            },
            Self::Values => match arguments[0].opened(bump) {
                V::Map(members) => V::List(bump.alloc_slice_fill_iter(members.iter().map(|(_, value)| *value))),
                _ => return Err(Deopt),
            },
            Self::Contains => V::Bool(match (arguments[0].opened(bump), plain(1)) {
                (V::Text(text), V::Text(part)) => text.contains(part),
                (V::Map(members), V::Text(key)) => members.binary_search_by(|(name, _)| (*name).cmp(key)).is_ok(),
                (V::List(items), wanted) => {
                    let mut found = false;
                    for item in items {
                        found = found || matches!(binary(Operator::Equal, *item, wanted, bump)?, V::Bool(true));
                    }
                    found
                }
                _ => return Err(Deopt),
            }),
            Self::StartsWith => V::Bool(text(0)?.starts_with(text(1)?)),
            Self::EndsWith => V::Bool(text(0)?.ends_with(text(1)?)),
            Self::IndexOf => {
                let (text, part) = (text(0)?, text(1)?);
                // In an empty text Rhai finds nothing, not even an empty one.
                let found = text.find(part).filter(|_| !text.is_empty());
                V::Int(found.map_or(-1, |at| text[..at].chars().count() as i64))
            }
            Self::Split => {
                let (text, separator) = (text(0)?, text(1)?);
                if text.is_empty() || separator.is_empty() {
                    return Err(Deopt);
                }
                let mut parts = BumpVec::new_in(bump);
                parts.extend(text.split(separator).map(V::Text));
                V::List(parts.into_bump_slice())
            }
            Self::SubString => V::Text(part_of(text(0)?, whole(1)?, i64::MAX)?),
            Self::SubStringTo => V::Text(part_of(text(0)?, whole(1)?, whole(2)?)?),
            Self::ToUpper | Self::ToLower => {
                let text = text(0)?;
                let upper = self == Self::ToUpper;
                V::Text(if text.is_ascii() {
                    let out = bump.alloc_str(text);
                    if upper {
                        out.make_ascii_uppercase()
                    } else {
                        out.make_ascii_lowercase()
                    }
                    out
                } else if upper {
                    bump.alloc_str(&text.to_uppercase())
                } else {
                    bump.alloc_str(&text.to_lowercase())
                })
            }
        })
    }
}

/// The smaller or larger of two.
fn least<'a>(smaller: bool, a: V<'a>, b: V<'a>) -> Result<V<'a>, Deopt> {
    Ok(match (a, b) {
        (V::Int(a), V::Int(b)) => V::Int(if smaller { a.min(b) } else { a.max(b) }),
        (V::Float(a), V::Float(b)) => V::Float(if smaller { a.min(b) } else { a.max(b) }),
        (V::Int(a), V::Float(b)) => V::Float(if smaller { (a as f64).min(b) } else { (a as f64).max(b) }),
        (V::Float(a), V::Int(b)) => V::Float(if smaller { a.min(b as f64) } else { a.max(b as f64) }),
        _ => return Err(Deopt),
    })
}

/// `count` characters from `start`; a negative start counts from the end.
fn part_of(text: &str, start: i64, count: i64) -> Result<&str, Deopt> {
    if start < 0 || count < 0 {
        return Err(Deopt);
    }
    let (start, count) = (usize::try_from(start).map_err(|_| Deopt)?, usize::try_from(count).map_err(|_| Deopt)?);
    let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let Some(from) = places.nth(start) else { return Ok("") };
    if count == 0 {
        return Ok("");
    }
    let to = places.nth(count - 1).unwrap_or(text.len());
    Ok(&text[from..to])
}
