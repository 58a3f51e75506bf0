//! JSON (RFC 8259): what a payload is, a strict pull reader over it, and the pieces of a writer.
//!
//! The reader is our own because numbers must come out as they went in: it hands out their text, where `serde_json`
//! would already have rounded an integer past 64 bits to a float. It accepts and refuses exactly what `serde_json` does,
//! but for two things: numbers too large for a float (`1e400`) are numbers here, and nesting is an error of its own. It
//! never recurses deeper than `DEPTH_MAX`.
mod checked;
mod read;
mod scan;
mod write;

pub use checked::{items, member};
pub use read::{Kind, NotJson, Number, Reader, Text};
pub use scan::scan;
pub use write::{NotFinite, compact, float, integer, string};

/// Deepest nesting of arrays and objects that is read. Deeper payloads are refused, whoever sends them.
pub const DEPTH_MAX: usize = 128;

/// What the bytes of a payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// One JSON document, with nothing but white space around it.
    Json(&'a str),
    /// Text that is not JSON, and why: empty, with something after the document, with a byte order mark, …
    Text(&'a str, NotJson),
    /// Not UTF-8.
    NotUtf8,
    /// JSON, as far as it was read, nested deeper than `DEPTH_MAX`.
    TooDeep(&'a str),
}

/// Reads a payload once, from end to end, and says what it is.
pub fn classify(bytes: &[u8]) -> Content<'_> {
    let Ok(text) = simdutf8::basic::from_utf8(bytes) else {
        return Content::NotUtf8;
    };
    let mut reader = Reader::new(text);
    match reader.skip().and_then(|()| reader.end()) {
        Ok(()) => Content::Json(text),
        Err(error) if error.too_deep => Content::TooDeep(text),
        Err(error) => Content::Text(text, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_told_apart() {
        for json in ["null", " 1 ", "\"a\"", "[]", "{\"a\":[1,2,{}]}", "-0.5e+3", "1e400", "\"\\ud83d\\ude00\""] {
            assert_eq!(classify(json.as_bytes()), Content::Json(json));
        }
        for text in
            ["", " ", "{} x", "\u{feff}{}", "{a:1}", "01", "[1,]", "nul", "\"\\ud800\"", "\"\t\"", "+1", "1.", "tru"]
        {
            assert!(matches!(classify(text.as_bytes()), Content::Text(..)), "{text}");
        }
        assert_eq!(classify(b"\"\xff\""), Content::NotUtf8);
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(matches!(classify(nested(DEPTH_MAX).as_bytes()), Content::Json(_)));
        assert!(matches!(classify(nested(DEPTH_MAX + 1).as_bytes()), Content::TooDeep(_)));
        assert!(matches!(classify(nested(10_000).as_bytes()), Content::TooDeep(_)));
        assert!(matches!(classify("{\"a\":".repeat(1_000_000).as_bytes()), Content::TooDeep(_)));
    }

    #[test]
    fn a_payload_that_is_not_json_says_why() {
        let Content::Text(_, error) = classify(b"{\"a\" 1}") else { panic!("not JSON") };
        assert_eq!(error.to_string(), "expected `:` at byte 5");
    }

    proptest::proptest! {
        #[test]
        fn serde_json_accepts_and_refuses_the_same(text in "[\\[\\]{}:,\" 0-9eE.+\\-truefalsn\\\\ud8c]{0,24}") {
            let ours = matches!(classify(text.as_bytes()), Content::Json(_));
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            let agrees = match &theirs {
                Ok(_) => ours,
                Err(error) => !ours || error.to_string().starts_with("number out of range"),
            };
            proptest::prop_assert!(agrees, "{text:?}: ours {ours}, theirs {theirs:?}");
        }
    }
}
