//! The pull reader.
use std::{borrow::Cow, fmt};

use super::DEPTH_MAX;

/// Reads one document, value by value. After `value` has answered `Object` or `Array` the caller asks for its members
/// with `next_key` or `next_item`, until there are none; each member's value is read or skipped before the next is asked
/// for.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Where the value read last starts.
    start: usize,
    depth: usize,
}

/// A value, or the start of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    String(Text<'a>),
    Array,
    Object,
}

/// The text of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a> {
    /// As it was written.
    pub text: &'a str,
    /// False when it has a fraction or an exponent.
    pub integer: bool,
}

/// A string or key: what stands between the quotes, and whether escapes are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

/// Why a text is not a JSON document that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// Byte at which it stops being one.
    pub at: usize,
    /// What was expected there.
    pub expected: &'static str,
    /// True when it is nested too deep; then nothing else is known to be wrong.
    pub too_deep: bool,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.too_deep {
            write!(f, "nested deeper than {DEPTH_MAX} levels")
        } else {
            write!(f, "expected {} at byte {}", self.expected, self.at)
        }
    }
}

impl std::error::Error for NotJson {}

impl<'a> Text<'a> {
    /// What the string says.
    pub fn decode(self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut out = String::with_capacity(self.raw.len());
        self.pieces(|piece| out.push_str(piece));
        Cow::Owned(out)
    }

    /// A string with escapes, from what stands between the quotes. It was read before.
    pub fn escaped(raw: &'a str) -> Self {
        Self { raw, escaped: true }
    }

    /// True when there are escapes in it.
    pub fn is_escaped(self) -> bool {
        self.escaped
    }

    /// Hands over what the string says, piece by piece.
    pub fn pieces(self, mut take: impl FnMut(&str)) {
        let mut rest = self.raw;
        while let Some(slash) = rest.find('\\').filter(|_| self.escaped) {
            take(&rest[..slash]);
            let (char, length) =
                unescape(&rest.as_bytes()[slash..]).expect("escapes were checked when the string was read");
            take(char.encode_utf8(&mut [0; 4]));
            rest = &rest[slash + length..];
        }
        take(rest);
    }

    /// What stands between the quotes.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// True when the string says `text`.
    pub fn is(self, text: &str) -> bool {
        if self.escaped { self.decode() == text } else { self.raw == text }
    }
}

/// The character an escape at the start of `bytes` stands for, and the escape's length.
fn unescape(bytes: &[u8]) -> Option<(char, usize)> {
    let plain = match bytes.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let high = hex(bytes.get(2..6)?)?;
            if !(0xd800..0xe000).contains(&high) {
                return Some((char::from_u32(high)?, 6));
            }
            let low = bytes.get(6..8).filter(|u| u == b"\\u").and_then(|_| hex(bytes.get(8..12)?))?;
            if high >= 0xdc00 || !(0xdc00..0xe000).contains(&low) {
                return None;
            }
            return Some((char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?, 12));
        }
        _ => return None,
    };
    Some((plain, 2))
}

/// The length of the escape that `bytes` starts with, when it is one.
pub(super) fn escape_len(bytes: &[u8]) -> Option<usize> {
    unescape(bytes).map(|(_, length)| length)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, &d| Some(sum * 16 + (d as char).to_digit(16)?))
}

impl<'a> Reader<'a> {
    /// A reader at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, start: 0, depth: 0 }
    }

    /// The byte it has read up to.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The byte at which the value starts that `value` answered last.
    pub fn start(&self) -> usize {
        self.start
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, NotJson> {
        Err(NotJson { at: self.at, expected, too_deep: false })
    }

    /// The next byte that is not white space, without passing it; 0 at the end.
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// The next value; for an array or object only its start.
    ///
    /// # Errors
    /// What stands here is no value, or nested too deep.
    pub fn value(&mut self) -> Result<Kind<'a>, NotJson> {
        let first = self.peek();
        self.start = self.at;
        match first {
            b'"' => self.string().map(Kind::String),
            b'-' | b'0'..=b'9' => self.number().map(Kind::Number),
            b'{' => self.enter().map(|()| Kind::Object),
            b'[' => self.enter().map(|()| Kind::Array),
            b't' => self.word("true", Kind::Bool(true)),
            b'f' => self.word("false", Kind::Bool(false)),
            b'n' => self.word("null", Kind::Null),
            _ => self.expected("a value"),
        }
    }

    fn enter(&mut self) -> Result<(), NotJson> {
        if self.depth == DEPTH_MAX {
            return Err(NotJson { at: self.at, expected: "", too_deep: true });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    fn word(&mut self, word: &str, kind: Kind<'a>) -> Result<Kind<'a>, NotJson> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.expected("a value");
        }
        self.at += word.len();
        Ok(kind)
    }

    /// The next member's key; `None` at the end of the object. `first` is true for the first call after its start.
    ///
    /// # Errors
    /// The object is not well formed here.
    pub fn next_key(&mut self, first: bool) -> Result<Option<Text<'a>>, NotJson> {
        match self.peek() {
            b'}' => {
                self.leave();
                return Ok(None);
            }
            b',' if !first => {
                self.at += 1;
                self.peek();
            }
            _ if !first => return self.expected("`,` or `}`"),
            _ => {}
        }
        if self.peek() != b'"' {
            return self.expected("a key in quotes");
        }
        let key = self.string()?;
        if self.peek() != b':' {
            return self.expected("`:`");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// True when there is another item to read; false at the end of the array. `first` as for `next_key`.
    ///
    /// # Errors
    /// The array is not well formed here.
    pub fn next_item(&mut self, first: bool) -> Result<bool, NotJson> {
        match self.peek() {
            b']' => {
                self.leave();
                Ok(false)
            }
            b',' if !first => {
                self.at += 1;
                Ok(true)
            }
            _ if first => Ok(true),
            _ => self.expected("`,` or `]`"),
        }
    }

    /// Passes over the next value and checks it.
    ///
    /// # Errors
    /// It is not well formed, or nested too deep.
    pub fn skip(&mut self) -> Result<(), NotJson> {
        let kind = self.value()?;
        self.skip_rest(kind)
    }

    /// Passes over the rest of a value that `value` has just answered.
    ///
    /// # Errors
    /// It is not well formed, or nested too deep.
    pub fn skip_rest(&mut self, kind: Kind<'a>) -> Result<(), NotJson> {
        let mut first = true;
        match kind {
            Kind::Object => {
                while self.next_key(first)?.is_some() {
                    self.skip()?;
                    first = false;
                }
            }
            Kind::Array => {
                while self.next_item(first)? {
                    self.skip()?;
                    first = false;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Passes over the next value, checks it, and answers its text.
    ///
    /// # Errors
    /// It is not well formed, or nested too deep.
    pub fn raw(&mut self) -> Result<&'a str, NotJson> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(&self.text[start..self.at])
    }

    /// Checks that nothing but white space follows.
    ///
    /// # Errors
    /// Something does.
    pub fn end(&mut self) -> Result<(), NotJson> {
        self.peek();
        if self.at == self.text.len() { Ok(()) } else { self.expected("the end") }
    }

    /// A string whose opening quote is the next byte.
    fn string(&mut self) -> Result<Text<'a>, NotJson> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = super::write::next_special(bytes, at).unwrap_or(bytes.len());
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Text { raw: &self.text[start..at], escaped });
                }
                Some(b'\\') => match unescape(&bytes[at..]) {
                    Some((_, length)) => {
                        escaped = true;
                        at += length;
                    }
                    None => {
                        self.at = at;
                        return self.expected("a known escape");
                    }
                },
                Some(_) => {
                    self.at = at;
                    return self.expected("no control character in a string");
                }
                None => {
                    self.at = at;
                    return self.expected("a closing quote");
                }
            }
        }
    }

    fn number(&mut self) -> Result<Number<'a>, NotJson> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut at = start + usize::from(bytes[start] == b'-');
        let mut end = digits(at);
        let leading_zero = end > at + 1 && bytes[at] == b'0';
        let mut complete = end > at;
        let mut integer = true;
        if complete && bytes.get(end) == Some(&b'.') {
            integer = false;
            at = end + 1;
            end = digits(at);
            complete = end > at;
        }
        if complete && matches!(bytes.get(end), Some(b'e' | b'E')) {
            integer = false;
            at = end + 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            end = digits(at);
            complete = end > at;
        }
        if leading_zero {
            return self.expected("a number without leading zeros");
        }
        self.at = end;
        if complete { Ok(Number { text: &self.text[start..end], integer }) } else { self.expected("a digit") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_decoded() {
        for (json, expected) in [
            (r#""plain""#, "plain"),
            (r#""a\"b\\c\/d\n\u00e9""#, "a\"b\\c/d\né"),
            (r#""\ud83d\ude00!""#, "😀!"),
            (r#""°C""#, "°C"),
        ] {
            let Kind::String(text) = Reader::new(json).value().unwrap() else { panic!("{json} is a string") };
            assert_eq!(text.decode(), expected);
            assert!(text.is(expected));
        }
    }

    #[test]
    fn members_are_read_one_by_one() {
        let mut reader = Reader::new(r#" { "a" : [ 1 , 2.50 ] , "b" : {"c":null} } "#);
        assert_eq!(reader.value().unwrap(), Kind::Object);
        assert!(reader.next_key(true).unwrap().unwrap().is("a"));
        assert_eq!(reader.raw().unwrap(), "[ 1 , 2.50 ]");
        assert!(reader.next_key(false).unwrap().unwrap().is("b"));
        reader.skip().unwrap();
        assert_eq!(reader.next_key(false).unwrap(), None);
        reader.end().unwrap();
    }
}
