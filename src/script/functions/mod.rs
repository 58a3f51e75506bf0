//! The functions that scripts have besides Rhai's own: one table, one implementation for interpreted scripts and plans.
//!
//! A function takes values and gives one; it never changes what it is given. What it makes lies in the arena it is
//! handed. A native call is not interrupted by a script's time limit, so each function does work that is linear in the
//! size of what it is given, and the size of what it makes is bounded by `TEXT_BYTES_MAX`.
mod adapter;
mod encoding;
mod geo;
mod lists;
mod numbers;
#[cfg(test)]
mod tests;
mod text;
mod time;

use std::ops::RangeInclusive;

use bumpalo::Bump;

pub(super) use adapter::register;
pub(super) use numbers::number;

use super::value::Value;

/// Largest text that a function makes, in bytes: as large as scripts may have.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// One function.
pub struct Function {
    pub name: &'static str,
    pub group: Group,
    /// As users read it: `format_ts(ms, format?, zone?)`.
    pub signature: &'static str,
    /// What it gives, in which unit, and what happens with values that do not fit.
    pub summary: &'static str,
    /// A script.
    pub example: &'static str,
    /// The example's value as JSON; empty when it is another one each time.
    pub gives: &'static str,
    /// How many arguments it takes.
    pub(super) arguments: RangeInclusive<usize>,
    /// False when it reads the clock or chance: its value is never worked out ahead of time.
    pub(super) pure: bool,
    /// Works it out; an error is the reason, for a person.
    pub(super) run: for<'a> fn(&[Value<'a>], &'a Bump) -> Result<Value<'a>, String>,
}

/// What a function is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Numbers,
    Text,
    Patterns,
    Lists,
    Time,
    Encoding,
    Hashes,
    Places,
}

impl Group {
    /// Every group, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Numbers,
        Self::Text,
        Self::Patterns,
        Self::Lists,
        Self::Time,
        Self::Encoding,
        Self::Hashes,
        Self::Places,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Numbers => "Numbers and defaults",
            Self::Text => "Text",
            Self::Patterns => "Regular expressions",
            Self::Lists => "Lists and maps",
            Self::Time => "Time",
            Self::Encoding => "Encodings",
            Self::Hashes => "Hashes and ids",
            Self::Places => "Places",
        }
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every function, by group.
pub fn functions() -> impl Iterator<Item = &'static Function> {
    [numbers::ALL, text::ALL, lists::ALL, time::ALL, encoding::ALL, geo::ALL].into_iter().flatten()
}

/// The function of that name that takes so many arguments.
pub(super) fn find(name: &str, arguments: usize) -> Option<&'static Function> {
    functions().find(|function| function.name == name && function.arguments.contains(&arguments))
}

/// The name that one of our functions has where others call it `name`.
pub(super) fn known_elsewhere(name: &str) -> Option<&'static str> {
    Some(match name {
        "format_timestamp" | "strftime" | "ts_format" | "format_time" | "format_date" => "format_ts",
        "parse_timestamp" | "strptime" | "ts_parse" | "ts_strptime" | "parse_time" | "parse_date" | "to_timestamp" => {
            "parse_ts"
        }
        "timestamp_unix" | "ts_unix" | "unix" | "timestamp" | "now_s" => "now",
        "timestamp_unix_milli" | "unix_ms" | "now_millis" => "now_ms",
        "uppercase" | "upcase" | "upper" => "to_upper",
        "lowercase" | "downcase" | "lower" => "to_lower",
        "uuid_v4" | "uuid4" => "uuid",
        "encode_base64" | "base64_encode" | "base64" => "to_base64",
        "decode_base64" | "base64_decode" => "from_base64",
        "encode_hex" | "hex" => "to_hex",
        "decode_hex" | "unhex" => "from_hex",
        "encode_json" | "json_encode" | "stringify" => "to_json",
        "decode_json" | "json_decode" | "from_json" => "parse_json",
        "re_match" | "regex_match" | "regexp" | "match_re" => "matches",
        "re_replace" | "regex_replace" | "re_replace_all" => "replace_matches",
        "re_find_all" | "regex_find_all" => "find_all",
        "regex_captures" | "parse_regex" | "re_find_object" => "captures",
        "length" | "size" | "count" => "len",
        "number" | "to_number" => "num",
        "string" | "format" => "str",
        "avg" | "average" | "mean" => "mean_of",
        "sum" => "sum_of",
        "haversine" | "distance" => "distance_m",
        "deleted" => "drop",
        _ => return None,
    })
}

/// What a value is, for a reason.
fn kind(value: Value<'_>) -> &'static str {
    match value {
        Value::Unit => "`()`",
        Value::Bool(_) => "true or false",
        Value::Int(_) | Value::Float(_) => "a number",
        Value::Big(_) => "a number beyond 64 bits",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Other(_) => "a value of this type",
    }
}

/// The arguments of a call, by place.
#[derive(Clone, Copy)]
struct Arguments<'v, 'a> {
    name: &'static str,
    values: &'v [Value<'a>],
}

impl<'a> Arguments<'_, 'a> {
    fn refuse<T>(self, at: usize, wanted: &str) -> Result<T, String> {
        let value = self.values[at];
        let which = if self.values.len() == 1 { String::new() } else { format!(", as argument {}", at + 1) };
        Err(format!("`{}` takes {wanted}{which}, not {}", self.name, kind(value)))
    }

    fn text(self, at: usize) -> Result<&'a str, String> {
        match self.values[at] {
            Value::Text(text) => Ok(text),
            _ => self.refuse(at, "a text"),
        }
    }

    fn int(self, at: usize) -> Result<i64, String> {
        match self.values[at] {
            Value::Int(value) => Ok(value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Ok(value as i64),
            _ => self.refuse(at, "a whole number"),
        }
    }

    /// A whole number within bounds.
    fn count(self, at: usize, bounds: RangeInclusive<i64>) -> Result<usize, String> {
        let value = self.int(at)?;
        if bounds.contains(&value) {
            return Ok(value as usize);
        }
        Err(format!("`{}` takes {} to {} as argument {}, not {value}", self.name, bounds.start(), bounds.end(), at + 1))
    }

    fn float(self, at: usize) -> Result<f64, String> {
        match self.values[at] {
            Value::Int(value) => Ok(value as f64),
            Value::Float(value) => Ok(value),
            _ => self.refuse(at, "a number"),
        }
    }

    fn list(self, at: usize) -> Result<&'a [Value<'a>], String> {
        match self.values[at] {
            Value::List(items) => Ok(items),
            _ => self.refuse(at, "a list"),
        }
    }

    fn map(self, at: usize) -> Result<&'a [(&'a str, Value<'a>)], String> {
        match self.values[at] {
            Value::Map(members) => Ok(members),
            _ => self.refuse(at, "a map"),
        }
    }

    /// The text of an argument that may be left out.
    fn text_or(self, at: usize, default: &'a str) -> Result<&'a str, String> {
        match self.values.get(at) {
            None | Some(Value::Unit) => Ok(default),
            Some(_) => self.text(at),
        }
    }
}

/// Gives a float, if JSON can hold it.
fn finite<'a>(name: &str, value: f64) -> Result<Value<'a>, String> {
    if value.is_finite() {
        Ok(Value::Float(value))
    } else {
        Err(format!("`{name}` would give `{value}`, which is not a number in JSON"))
    }
}

/// Gives a text, if it is not too large.
fn text_of<'a>(name: &str, text: &str, bump: &'a Bump) -> Result<Value<'a>, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("`{name}` would make a text of more than {TEXT_BYTES_MAX} bytes"));
    }
    Ok(Value::Text(bump.alloc_str(text)))
}
