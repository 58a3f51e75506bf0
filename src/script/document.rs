//! JSON to the values of scripts and back. Integers that `i64` holds, floats and everything else a script can calculate
//! with become Rhai's own values; any other number keeps its text.
use rhai::{Array, Dynamic, ImmutableString, Map};

use super::engine::BigNumber;
use crate::codec::json::{self, Kind, NotJson, Number, Reader};

/// Stands for the payload of the message at hand in a script that only passes it on: it is never decoded, and written
/// from its original bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Untouched;

/// Decodes a document. Of members with the same name the last one counts.
///
/// # Errors
/// `text` is not JSON, or nested too deep.
pub(super) fn parse(text: &str) -> Result<Dynamic, NotJson> {
    let mut reader = Reader::new(text);
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn read(reader: &mut Reader<'_>) -> Result<Dynamic, NotJson> {
    Ok(match reader.value()? {
        Kind::Null => Dynamic::UNIT,
        Kind::Bool(value) => Dynamic::from_bool(value),
        Kind::Number(value) => number(value),
        Kind::String(value) => ImmutableString::from(&*value.decode()).into(),
        Kind::Array => {
            let mut items = Array::new();
            while reader.next_item(items.is_empty())? {
                items.push(read(reader)?);
            }
            Dynamic::from_array(items)
        }
        Kind::Object => {
            let mut members = Map::new();
            while let Some(key) = reader.next_key(members.is_empty())? {
                let value = read(reader)?;
                members.insert((&*key.decode()).into(), value);
            }
            Dynamic::from_map(members)
        }
    })
}

/// The value of a number.
pub(super) fn number(number: Number<'_>) -> Dynamic {
    let text = number.text;
    if number.integer && text != "-0" {
        return match text.parse::<i64>() {
            Ok(value) => value.into(),
            Err(_) => Dynamic::from(BigNumber(text.into())),
        };
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Dynamic::from_float(value),
        _ => Dynamic::from(BigNumber(text.into())),
    }
}

/// A value that JSON cannot hold.
#[derive(Debug)]
pub(super) struct Unwritable {
    /// Members on the way to it, the innermost first.
    path: Vec<String>,
    pub kind: UnwritableKind,
}

#[derive(Debug)]
pub(super) enum UnwritableKind {
    /// Infinity or NaN.
    NotFinite(f64),
    /// The name of a type that has no JSON.
    Type(&'static str),
    /// Nested deeper than payloads may be.
    TooDeep,
}

impl Unwritable {
    /// What cannot be written, where, for a person.
    pub fn reason(&self) -> String {
        let place = if self.path.is_empty() {
            "the result".to_owned()
        } else {
            let path: Vec<_> = self.path.iter().rev().map(String::as_str).collect();
            format!("`{}` of the result", path.join("."))
        };
        match &self.kind {
            UnwritableKind::NotFinite(value) => format!("{place} is `{value}`, which is not a number in JSON"),
            UnwritableKind::Type(name) => format!("{place} is of type `{name}`, which JSON cannot hold"),
            UnwritableKind::TooDeep => format!("the result is nested deeper than {} levels", json::DEPTH_MAX),
        }
    }
}

/// Appends `value` as JSON; the keys of maps come out sorted. `payload` is what `Untouched` stands for.
///
/// # Errors
/// `value` or a part of it has no JSON; something may have been appended.
pub(super) fn write(value: &Dynamic, payload: Option<&str>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    write_at(value, payload, out, 0)
}

fn write_at(value: &Dynamic, payload: Option<&str>, out: &mut Vec<u8>, depth: usize) -> Result<(), Unwritable> {
    let fail = |kind| Err(Unwritable { path: Vec::new(), kind });
    // In the order of how often they are met.
    if let Some(text) = value.read_lock::<ImmutableString>() {
        json::string(&text, out);
    } else if let Ok(number) = value.as_float() {
        return json::float(number, out).or_else(|error| fail(UnwritableKind::NotFinite(error.0)));
    } else if let Ok(number) = value.as_int() {
        json::integer(number, out);
    } else if let Ok(members) = value.as_map_ref() {
        if depth == json::DEPTH_MAX {
            return fail(UnwritableKind::TooDeep);
        }
        out.push(b'{');
        for (index, (key, member)) in members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::string(key, out);
            out.push(b':');
            write_at(member, payload, out, depth + 1).map_err(|error| error.within(key))?;
        }
        out.push(b'}');
    } else if value.is_unit() {
        out.extend_from_slice(b"null");
    } else if let Ok(boolean) = value.as_bool() {
        out.extend_from_slice(if boolean { b"true" } else { b"false" });
    } else if let Ok(items) = value.as_array_ref() {
        if depth == json::DEPTH_MAX {
            return fail(UnwritableKind::TooDeep);
        }
        out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_at(item, payload, out, depth + 1).map_err(|error| error.within(&index.to_string()))?;
        }
        out.push(b']');
    } else if let (Some(payload), true) = (payload, value.is::<Untouched>()) {
        out.extend_from_slice(payload.trim_ascii().as_bytes());
    } else if let Some(number) = value.read_lock::<BigNumber>() {
        out.extend_from_slice(number.0.as_bytes());
    } else if let Ok(char) = value.as_char() {
        json::string(char.encode_utf8(&mut [0; 4]), out);
    } else {
        return fail(UnwritableKind::Type(value.type_name()));
    }
    Ok(())
}

impl Unwritable {
    #[cold]
    fn within(mut self, member: &str) -> Self {
        self.path.push(member.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let mut out = Vec::new();
        write(&parse(json).unwrap(), None, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn numbers_come_out_as_they_went_in() {
        for number in [
            "0",
            "-1",
            "123456789012345678",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551616",
            "123456789012345678901234567890",
            "1e400",
            "-0.0",
            "84.0",
            "0.1",
        ] {
            check(number, number);
        }
        check("-0", "-0.0");
        check("1.10", "1.1");
    }

    #[test]
    fn keys_are_sorted_and_the_last_duplicate_counts() {
        check(r#"{"b":1,"a":[null,true,"x\n"],"b":{"z":"\u00e9"}}"#, r#"{"a":[null,true,"x\n"],"b":{"z":"é"}}"#);
    }

    #[test]
    fn a_value_without_json_is_named_by_its_path() {
        let mut inner = Map::new();
        inner.insert("x".into(), Dynamic::from_float(f64::NAN));
        let mut map = Map::new();
        map.insert("list".into(), Dynamic::from_array(vec![Dynamic::UNIT, Dynamic::from_map(inner)]));
        let error = write(&Dynamic::from_map(map), None, &mut Vec::new()).unwrap_err();
        assert_eq!(error.reason(), "`list.1.x` of the result is `NaN`, which is not a number in JSON");
    }
}
