//! The pieces of a writer: each appends one value to a buffer.
use super::{NotJson, Reader};

/// JSON has no infinity and no NaN.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("`{0}` is not a number that JSON can hold")]
pub struct NotFinite(pub f64);

/// Appends a string in quotes. Answers true when something in it had to be escaped.
pub fn string(text: &str, out: &mut Vec<u8>) -> bool {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut written = 0;
    while let Some(at) = next_special(bytes, written) {
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match bytes[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.extend([byte >> 4, byte & 15].map(|nibble| b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
    written > 0
}

/// Each byte of a word, and the highest bit of each.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = ONES << 7;

/// Which byte of a word the lowest marked one is.
fn first(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

/// The first byte from `start` on that is no digit, or the end.
#[inline]
pub(super) fn next_no_digit(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes")) ^ (ONES * 0x30);
        // What is above 9 now was no digit. A carry may give false alarms, but only behind a true one.
        let found = (word.wrapping_add(ONES * (0x80 - 10)) | word) & HIGH;
        if found != 0 {
            return at + first(found);
        }
        at += 8;
    }
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The first byte from `start` on that cannot stand in a JSON string as it is: a quote, a backslash, a control character.
pub(super) fn next_special(bytes: &[u8], start: usize) -> Option<usize> {
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = start;
    // Eight bytes at a time. A borrow may give false alarms, but only behind a true one: the first is always true.
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = control | has_zero(word ^ (ONES * 0x22)) | has_zero(word ^ (ONES * 0x5c));
        if found != 0 {
            return Some(at + first(found));
        }
        at += 8;
    }
    bytes.get(at..)?.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').map(|offset| at + offset)
}

/// Appends an integer.
pub fn integer(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the shortest text that reads back as the same float; it always has a fraction or an exponent.
///
/// # Errors
/// `NotFinite`; nothing is appended.
pub fn float(value: f64, out: &mut Vec<u8>) -> Result<(), NotFinite> {
    if !value.is_finite() {
        return Err(NotFinite(value));
    }
    out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    Ok(())
}

/// Appends a document without the white space between its values. Numbers, strings and the order of keys stay as they
/// are.
///
/// # Errors
/// `json` is not JSON; part of it may have been appended.
pub fn compact(json: &str, out: &mut Vec<u8>) -> Result<(), NotJson> {
    let mut reader = Reader::new(json);
    reader.skip()?;
    reader.end()?;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in json.as_bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_read_back_as_they_were() {
        for text in ["", "plain", "a\"b\\c\n\r\t\u{1}\u{1f}", "°C 😀", "\u{7f}"] {
            let mut out = Vec::new();
            string(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn the_first_special_byte_and_the_first_that_is_no_digit_are_found_wherever_they_stand() {
        // Every byte at every place, among others that could raise a false alarm.
        for filler in [b"0123456789".as_slice(), b"/:9 !#[]\x7f\x80\xff", b"\x1f\"\\0"] {
            for byte in 0..=255_u8 {
                for place in 0..20 {
                    let mut bytes: Vec<u8> = b"12345678".iter().chain(filler).chain(filler).copied().collect();
                    bytes.resize(20, b'7');
                    bytes[place] = byte;
                    for start in 0..20 {
                        let rest = || bytes[start..].iter();
                        let special = rest().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
                        assert_eq!(next_special(&bytes, start), special.map(|at| start + at), "{bytes:?} {start}");
                        let end = rest().position(|b| !b.is_ascii_digit()).map_or(20, |at| start + at);
                        assert_eq!(next_no_digit(&bytes, start), end, "{bytes:?} {start}");
                    }
                }
            }
        }
    }

    #[test]
    fn floats_are_short_and_finite() {
        for (value, expected) in
            [(84.0, "84.0"), (0.1, "0.1"), (-0.0, "-0.0"), (1e300, "1e300"), (1.0 / 3.0, "0.3333333333333333")]
        {
            let mut out = Vec::new();
            float(value, &mut out).unwrap();
            assert_eq!(out, expected.as_bytes());
        }
        let mut out = Vec::new();
        assert!(float(f64::NAN, &mut out).is_err() && float(f64::INFINITY, &mut out).is_err() && out.is_empty());
    }

    #[test]
    fn compact_json_keeps_every_value() {
        for (json, expected) in [
            ("{ \"a b\" : [ 1.10 , \"x\\\" y\\\\\" ] ,\n \"c\": null }", "{\"a b\":[1.10,\"x\\\" y\\\\\"],\"c\":null}"),
            ("  7 ", "7"),
        ] {
            let mut out = Vec::new();
            compact(json, &mut out).unwrap();
            assert_eq!(out, expected.as_bytes());
        }
        assert!(compact("a\nb", &mut Vec::new()).is_err());
    }
}
