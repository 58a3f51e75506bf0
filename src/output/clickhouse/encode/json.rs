//! Walks through JSON text that is known to be well-formed, without building anything. Values are slices of the text.
use std::borrow::Cow;

/// A value by its kind. What it holds is still text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    /// As written.
    Number(&'a str),
    Text(Text<'a>),
    Array(Elements<'a>),
    Object(Members<'a>),
}

impl<'a> Value<'a> {
    /// Looks at the first character. `text` is one value without white space around it.
    pub fn of(text: &'a str) -> Self {
        let inside = || &text[1..text.len() - 1];
        match text.as_bytes()[0] {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'"' => Self::Text(Text(text)),
            b'[' => Self::Array(Elements(inside())),
            b'{' => Self::Object(Members(inside())),
            _ => Self::Number(text),
        }
    }
}

/// A string with its quotes and escapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The characters it stands for. Copied only when something is escaped. `None` when an escape is half a surrogate
    /// pair, which no text can hold.
    pub fn decode(self) -> Option<Cow<'a, str>> {
        if memchr::memchr(b'\\', self.0.as_bytes()).is_none() {
            return Some(Cow::Borrowed(&self.0[1..self.0.len() - 1]));
        }
        serde_json::from_str(self.0).ok().map(Cow::Owned)
    }
}

/// The values between the brackets of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elements<'a>(&'a str);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = skip_separators(self.0);
        if rest.is_empty() {
            return None;
        }
        let (value, rest) = rest.split_at(value_len(rest));
        self.0 = rest;
        Some(value)
    }
}

/// The names and values between the braces of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Members<'a>(&'a str);

impl<'a> Iterator for Members<'a> {
    type Item = (Text<'a>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = skip_separators(self.0);
        if rest.is_empty() {
            return None;
        }
        let (name, rest) = rest.split_at(value_len(rest));
        let rest = skip_separators(rest);
        let (value, rest) = rest.split_at(value_len(rest));
        self.0 = rest;
        Some((Text(name), value))
    }
}

fn skip_separators(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', ',', ':'])
}

/// Bytes of the value that `text` starts with.
fn value_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes[0] {
        b'"' => string_len(bytes),
        b'[' | b'{' => {
            let (mut at, mut depth) = (0, 0_usize);
            while at < bytes.len() {
                match bytes[at] {
                    b'"' => {
                        at += string_len(&bytes[at..]);
                        continue;
                    }
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at
        }
        _ => bytes
            .iter()
            .position(|b| matches!(b, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
            .unwrap_or(bytes.len()),
    }
}

/// Bytes of the string that `bytes` starts with, quotes included.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_slices_of_the_text() {
        let text = r#"[ 1 ,-2.5e3,"a,]\"" , [1,[2]] ,{"k":"}"}, null,true ]"#;
        let Value::Array(elements) = Value::of(text) else { panic!("an array") };
        assert_eq!(
            elements.collect::<Vec<_>>(),
            ["1", "-2.5e3", r#""a,]\"""#, "[1,[2]]", r#"{"k":"}"}"#, "null", "true"]
        );
        assert_eq!(Value::of("[ ]"), Value::Array(Elements(" ")));
        assert_eq!(Elements(" ").next(), None);
    }

    #[test]
    fn members_are_names_and_values() {
        let Value::Object(members) = Value::of("{ \"a\" : 1,\n\"b:\\\\\" :[1, 2] , \"\\u0063\":{} }") else {
            panic!("an object")
        };
        let members: Vec<_> = members.map(|(name, value)| (name.decode().unwrap(), value)).collect();
        assert_eq!(members, [("a".into(), "1"), ("b:\\".into(), "[1, 2]"), ("c".into(), "{}")]);
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text() {
        assert_eq!(Text(r#""\ud83d\ude00""#).decode().unwrap(), "😀");
        assert_eq!(Text(r#""\ud83d""#).decode(), None);
        assert!(matches!(Text(r#""plain °C""#).decode(), Some(Cow::Borrowed("plain °C"))));
    }
}
