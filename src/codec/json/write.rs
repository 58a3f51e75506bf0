//! The pieces of a writer: each appends one value to a buffer.
use super::{NotJson, Reader};

/// JSON has no infinity and no NaN.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("`{0}` is not a number that JSON can hold")]
pub struct NotFinite(pub f64);

/// Appends a string in quotes.
pub fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend([byte >> 4, byte & 15].map(|nibble| b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
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
