//! One JSON value as the bytes of one ClickHouse type, in the format family RowBinary.
//!
//! Nothing is wrapped, cut or guessed: a value that a column cannot hold is a `Misfit`. What is taken beyond the obvious:
//! numbers written as text, `true` and `false` for integers, a whole number with a point (`84.0`) for integers, any
//! value as its JSON text for `String`, an object or an array for a tuple.
//!
//! Source: <https://clickhouse.com/docs/interfaces/formats/RowBinary>, <https://clickhouse.com/docs/sql-reference/data-types/data-types-binary-encoding>
pub mod json;
mod number;
mod time;

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use json::{Elements, Value};
use number::NumberError;
use time::TimeError;

use crate::client::clickhouse::{Type, shorten};

/// Why a value does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Kebab-case name.
    pub code: &'static str,
    /// What is wrong with which value.
    pub what: String,
}

impl Misfit {
    /// The type cannot hold this kind of value.
    pub fn kind(value: &str, wanted: impl std::fmt::Display) -> Self {
        Self { code: "column-type", what: format!("`{}` is not {wanted}", show(value)) }
    }

    /// The value is of the right kind, but too large, too small or too fine.
    pub fn range(value: &str, why: impl std::fmt::Display) -> Self {
        Self { code: "column-range", what: format!("`{}` {why}", show(value)) }
    }
}

/// Longest part of a user's value in an error, in bytes.
const SHOWN_BYTES_MAX: usize = 80;

fn show(value: &str) -> String {
    shorten(value, SHOWN_BYTES_MAX)
}

/// What to do with members of an object that a tuple has no element for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surplus {
    Reject,
    Drop,
}

/// Appends `text`, one JSON value without white space around it, as a value of type `ty`. On a `Misfit` the buffer may
/// hold a part of it.
///
/// # Errors
/// The value does not fit.
pub fn encode(ty: &Type, text: &str, surplus: Surplus, out: &mut Vec<u8>) -> Result<(), Misfit> {
    encode_value(ty, Value::of(text), text, surplus, out)
}

fn encode_value(ty: &Type, value: Value<'_>, text: &str, surplus: Surplus, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match (ty, value) {
        (Type::Nullable(_), Value::Null) => out.push(1),
        (Type::Nullable(inner), _) => {
            out.push(0);
            encode_value(inner, value, text, surplus, out)?;
        }
        // On the wire it is what is inside; a dictionary is made by the server.
        (Type::LowCardinality(inner), _) => encode_value(inner, value, text, surplus, out)?,
        (_, Value::Null) => return Err(Misfit::kind(text, "allowed: the column is not Nullable")),

        (Type::UInt(bytes), _) => encode_integer(value, text, (*bytes).into(), false, out)?,
        (Type::Int(bytes), _) => encode_integer(value, text, (*bytes).into(), true, out)?,
        (Type::Float64, _) => {
            let float: f64 = parse_float(value, text)?;
            if float.is_infinite() {
                return Err(Misfit::range(text, "is out of range for Float64"));
            }
            out.extend_from_slice(&float.to_le_bytes());
        }
        (Type::Float32, _) => out.extend_from_slice(&float32(value, text)?.to_le_bytes()),
        (Type::BFloat16, _) => {
            let bits = float32(value, text)?.to_bits();
            // To the nearest; a tie goes to the even one.
            let rounded = ((u64::from(bits) + 0x7fff + u64::from(bits >> 16 & 1)) >> 16) as u16;
            if rounded & 0x7f80 == 0x7f80 {
                return Err(Misfit::range(text, "is out of range for BFloat16"));
            }
            out.extend_from_slice(&rounded.to_le_bytes());
        }
        (Type::Decimal(precision, scale), _) => {
            let digits = digits_of(value, text)?;
            match number::decimal(&digits, (*precision, *scale), Type::decimal_bytes(*precision), out) {
                None => return Err(Misfit::kind(text, "a number")),
                Some(Err(NumberError::Fraction)) => {
                    return Err(Misfit::range(text, format_args!("has more than {scale} digits after the point")));
                }
                Some(Err(NumberError::Range)) => {
                    let whole = precision - scale;
                    return Err(Misfit::range(text, format_args!("has more than {whole} digits before the point")));
                }
                Some(Ok(())) => {}
            }
        }
        (Type::Bool, Value::Bool(yes)) => out.push(yes.into()),
        (Type::Bool, Value::Number("1")) => out.push(1),
        (Type::Bool, Value::Number("0")) => out.push(0),
        (Type::Bool, Value::Text(_)) if matches!(text, "\"true\"" | "\"1\"") => out.push(1),
        (Type::Bool, Value::Text(_)) if matches!(text, "\"false\"" | "\"0\"") => out.push(0),
        (Type::Bool, _) => return Err(Misfit::kind(text, "true, false, 1 or 0")),

        (Type::String, Value::Text(string)) => {
            let string = string.decode().ok_or_else(|| Misfit::kind(text, "text: half a surrogate pair"))?;
            put_bytes(string.as_bytes(), out);
        }
        (Type::String, _) => put_bytes(text.as_bytes(), out),
        (Type::FixedString(bytes), _) => {
            let string = match value {
                Value::Text(_) => text_of(value, text, "text")?,
                _ => Cow::Borrowed(text),
            };
            if string.len() > *bytes {
                return Err(Misfit::range(text, format_args!("has {} bytes, more than {bytes}", string.len())));
            }
            let end = out.len() + bytes;
            out.extend_from_slice(string.as_bytes());
            out.resize(end, 0);
        }

        (Type::Date, _) => {
            let days =
                time::date(&digits_of(value, text)?).map_err(|e| time_misfit(e, text, "1970-01-01 to 2149-06-06"))?;
            out.extend_from_slice(&days.to_le_bytes());
        }
        (Type::Date32, _) => {
            let days =
                time::date32(&digits_of(value, text)?).map_err(|e| time_misfit(e, text, "1900-01-01 to 2299-12-31"))?;
            out.extend_from_slice(&days.to_le_bytes());
        }
        (Type::DateTime(zone), _) => {
            let seconds = time::date_time(&digits_of(value, text)?, zone.as_deref())
                .map_err(|e| time_misfit(e, text, "1970-01-01 to 2106-02-07, in seconds"))?;
            out.extend_from_slice(&seconds.to_le_bytes());
        }
        (Type::DateTime64(digits, zone), _) => {
            let ticks = time::date_time64(&digits_of(value, text)?, *digits, zone.as_deref())
                .map_err(|e| time_misfit(e, text, if *digits == 9 { "1900 to 2262" } else { "1900 to 2299" }))?;
            out.extend_from_slice(&ticks.to_le_bytes());
        }
        (Type::Time, _) => {
            let seconds = time::time_of_day(&digits_of(value, text)?, 0)
                .map_err(|e| time_misfit(e, text, "-999:59:59 to 999:59:59"))?;
            out.extend_from_slice(&(seconds as i32).to_le_bytes());
        }
        (Type::Time64(digits), _) => {
            let ticks = time::time_of_day(&digits_of(value, text)?, *digits)
                .map_err(|e| time_misfit(e, text, "-999:59:59 to 999:59:59"))?;
            out.extend_from_slice(&ticks.to_le_bytes());
        }

        (Type::Uuid, _) => {
            let string = text_of(value, text, "a UUID")?;
            let uuid = parse_uuid(&string).ok_or_else(|| Misfit::kind(text, "a UUID"))?;
            // Two 64-bit halves, each with its low byte first.
            out.extend_from_slice(&((uuid >> 64) as u64).to_le_bytes());
            out.extend_from_slice(&(uuid as u64).to_le_bytes());
        }
        (Type::Ipv4, Value::Number(_)) => encode_integer(value, text, 4, false, out)?,
        (Type::Ipv4, _) => {
            let string = text_of(value, text, "an IPv4 address")?;
            let address: Ipv4Addr = string.parse().map_err(|_| Misfit::kind(text, "an IPv4 address"))?;
            out.extend_from_slice(&address.to_bits().to_le_bytes());
        }
        (Type::Ipv6, _) => {
            let string = text_of(value, text, "an IPv6 address")?;
            let address = string
                .parse::<Ipv6Addr>()
                .or_else(|_| string.parse::<Ipv4Addr>().map(|v4| v4.to_ipv6_mapped()))
                .map_err(|_| Misfit::kind(text, "an IPv6 address"))?;
            out.extend_from_slice(&address.octets());
        }
        (Type::Enum(bytes, names), _) => {
            let number = match value {
                Value::Text(_) => {
                    let name = text_of(value, text, "text")?;
                    names.iter().find(|(n, _)| *n == name).map(|&(_, number)| number)
                }
                Value::Number(digits) => {
                    let number: Option<i16> = digits.parse().ok();
                    number.filter(|number| names.iter().any(|(_, n)| n == number))
                }
                _ => None,
            };
            let number = number.ok_or_else(|| Misfit::range(text, "is none of the enum's values"))?;
            out.extend_from_slice(&number.to_le_bytes()[..usize::from(*bytes)]);
        }

        (Type::Array(inner), Value::Array(elements)) => {
            put_counted(out, |out| {
                let mut count = 0;
                for element in elements {
                    encode(inner, element, surplus, out)?;
                    count += 1;
                }
                Ok(count)
            })?;
        }
        (Type::Array(_), _) => return Err(Misfit::kind(text, "an array")),
        (Type::Tuple(elements), Value::Array(values)) => encode_tuple(elements, values, text, surplus, out)?,
        (Type::Tuple(elements), Value::Object(_)) if elements.iter().all(|(name, _)| name.is_some()) => {
            encode_named_tuple(elements, text, surplus, out)?;
        }
        (Type::Tuple(elements), _) => {
            let named = elements.iter().all(|(name, _)| name.is_some());
            return Err(Misfit::kind(text, if named { "an object or an array" } else { "an array" }));
        }
        (Type::Map(key_type, value_type), Value::Object(members)) => {
            put_counted(out, |out| {
                let mut count = 0;
                for (key, value) in members {
                    let key = key.decode().ok_or_else(|| Misfit::kind(text, "text: half a surrogate pair"))?;
                    encode_key(key_type, &key, surplus, out)?;
                    encode(value_type, value, surplus, out)?;
                    count += 1;
                }
                Ok(count)
            })?;
        }
        (Type::Map(..), _) => return Err(Misfit::kind(text, "an object")),
        (Type::Json, Value::Object(_)) => put_bytes(text.as_bytes(), out),
        (Type::Json, _) => return Err(Misfit::kind(text, "an object")),
        (Type::Other(name), _) => {
            return Err(Misfit { code: "unsupported-type", what: format!("type {name} cannot be written") });
        }
    }
    Ok(())
}

/// Appends the value a column of this type has where nothing is given: the server's own default.
pub fn put_zero(ty: &Type, out: &mut Vec<u8>) {
    let zeros = match ty {
        Type::UInt(bytes) | Type::Int(bytes) => usize::from(*bytes),
        Type::Bool | Type::String | Type::Array(_) | Type::Map(..) => 1,
        Type::BFloat16 | Type::Date => 2,
        Type::Float32 | Type::DateTime(_) | Type::Time | Type::Ipv4 => 4,
        Type::Float64 | Type::DateTime64(..) | Type::Time64(_) => 8,
        Type::Uuid | Type::Ipv6 => 16,
        Type::FixedString(bytes) => *bytes,
        Type::Decimal(precision, _) => Type::decimal_bytes(*precision),
        // The earliest day it holds, 1900-01-01.
        Type::Date32 => return out.extend_from_slice(&(-25_567_i32).to_le_bytes()),
        Type::Enum(bytes, names) => {
            let lowest = names.iter().map(|(_, number)| *number).min().unwrap_or(0);
            return out.extend_from_slice(&lowest.to_le_bytes()[..usize::from(*bytes)]);
        }
        Type::Nullable(_) => return out.push(1),
        Type::LowCardinality(inner) => return put_zero(inner, out),
        Type::Tuple(elements) => return elements.iter().for_each(|(_, ty)| put_zero(ty, out)),
        Type::Json => return put_bytes(b"{}", out),
        Type::Other(_) => 0,
    };
    out.resize(out.len() + zeros, 0);
}

/// Appends a length or a count.
pub fn put_len(mut len: usize, out: &mut Vec<u8>) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Appends bytes after their length.
pub fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_len(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends what `write` appends, after the count it answers.
fn put_counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<usize, Misfit>) -> Result<(), Misfit> {
    // One byte is enough for the count of nearly every array; when not, the elements move over once.
    let start = out.len();
    out.push(0);
    let count = write(out)?;
    if count < 0x80 {
        out[start] = count as u8;
    } else {
        let mut len = Vec::with_capacity(5);
        put_len(count, &mut len);
        out.splice(start..=start, len);
    }
    Ok(())
}

fn encode_integer(value: Value<'_>, text: &str, bytes: usize, signed: bool, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let digits = match value {
        Value::Number(digits) => Cow::Borrowed(digits),
        Value::Bool(yes) => Cow::Borrowed(if yes { "1" } else { "0" }),
        _ => text_of(value, text, "a whole number")?,
    };
    match number::integer(&digits, bytes, signed, out) {
        Some(Ok(())) => Ok(()),
        None => Err(Misfit::kind(text, "a whole number")),
        Some(Err(NumberError::Fraction)) => Err(Misfit::kind(text, "a whole number")),
        Some(Err(NumberError::Range)) => {
            let bits = bytes * 8;
            Err(match (bytes, signed) {
                (1 | 2 | 4 | 8, false) => {
                    Misfit::range(text, format_args!("is out of range, 0 to {}", u64::MAX >> (64 - bits)))
                }
                (1 | 2 | 4 | 8, true) => {
                    let max = i64::MAX >> (64 - bits);
                    Misfit::range(text, format_args!("is out of range, {} to {max}", -max - 1))
                }
                _ => {
                    Misfit::range(text, format_args!("is out of range for {}Int{bits}", if signed { "" } else { "U" }))
                }
            })
        }
    }
}

fn parse_float<F: std::str::FromStr>(value: Value<'_>, text: &str) -> Result<F, Misfit> {
    let digits = digits_of(value, text)?;
    // Rust also reads `inf`, `nan` and `+1`: only a JSON number is safe to hand over unchecked.
    if !matches!(value, Value::Number(_)) && number::Number::parse(&digits).is_none() {
        return Err(Misfit::kind(text, "a number"));
    }
    digits.parse().map_err(|_| Misfit::kind(text, "a number"))
}

fn float32(value: Value<'_>, text: &str) -> Result<f32, Misfit> {
    let float: f32 = parse_float(value, text)?;
    if float.is_finite() { Ok(float) } else { Err(Misfit::range(text, "is out of range for Float32")) }
}

/// A number or the text in quotes.
fn digits_of<'a>(value: Value<'a>, text: &str) -> Result<Cow<'a, str>, Misfit> {
    match value {
        Value::Number(digits) => Ok(Cow::Borrowed(digits)),
        _ => text_of(value, text, "a number or text"),
    }
}

fn text_of<'a>(value: Value<'a>, text: &str, wanted: &str) -> Result<Cow<'a, str>, Misfit> {
    let Value::Text(string) = value else { return Err(Misfit::kind(text, wanted)) };
    string.decode().ok_or_else(|| Misfit::kind(text, "text: half a surrogate pair"))
}

fn time_misfit(error: TimeError, text: &str, range: &str) -> Misfit {
    match error {
        TimeError::Form => Misfit::kind(text, "a date or time: write `2024-05-01T10:00:00Z` or a Unix number"),
        TimeError::Range => Misfit::range(text, format_args!("is out of range, {range}")),
        TimeError::NoOffset => Misfit::kind(
            text,
            "clear: the column's time zone is not UTC, so write an offset (`Z`, `+02:00`) or a Unix number",
        ),
    }
}

fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    let dashed = bytes.len() == 36 && [8, 13, 18, 23].iter().all(|&at| bytes[at] == b'-');
    if !dashed && bytes.len() != 32 {
        return None;
    }
    let dashes = if dashed { &[8, 13, 18, 23][..] } else { &[] };
    bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !dashes.contains(at))
        .try_fold(0, |uuid: u128, (_, &byte)| Some(uuid << 4 | u128::from(char::from(byte).to_digit(16)?)))
}

fn encode_tuple(
    elements: &[(Option<String>, Type)],
    mut values: Elements<'_>,
    text: &str,
    surplus: Surplus,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    for (_, ty) in elements {
        let value = values.next().ok_or_else(|| Misfit::kind(text, format_args!("an array of {}", elements.len())))?;
        encode(ty, value, surplus, out)?;
    }
    if values.next().is_some() {
        return Err(Misfit::kind(text, format_args!("an array of {}", elements.len())));
    }
    Ok(())
}

/// Elements that the object lacks take their type's default.
fn encode_named_tuple(
    elements: &[(Option<String>, Type)],
    text: &str,
    surplus: Surplus,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    let Value::Object(members) = Value::of(text) else { unreachable!("the caller has looked") };
    let mut given: Vec<Option<&str>> = vec![None; elements.len()];
    for (name, value) in members {
        let name = name.decode().ok_or_else(|| Misfit::kind(text, "text: half a surrogate pair"))?;
        match elements.iter().position(|(n, _)| n.as_deref() == Some(&*name)) {
            Some(at) => given[at] = Some(value),
            None if surplus == Surplus::Reject => {
                let what = format!("the tuple has no element `{}`", show(&name));
                return Err(Misfit { code: "unknown-field", what });
            }
            None => {}
        }
    }
    for ((_, ty), value) in elements.iter().zip(given) {
        match value {
            Some(value) => encode(ty, value, surplus, out)?,
            None => put_zero(ty, out),
        }
    }
    Ok(())
}

/// A key of an object is text, whatever the map's key type.
fn encode_key(ty: &Type, key: &str, surplus: Surplus, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match ty {
        Type::String => put_bytes(key.as_bytes(), out),
        Type::LowCardinality(inner) => encode_key(inner, key, surplus, out)?,
        _ => {
            let quoted = serde_json::to_string(key).expect("text always has a JSON form");
            encode(ty, &quoted, surplus, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
