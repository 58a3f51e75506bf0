//! Looking into a value that was read from end to end before: nothing of it is checked again, so this is quicker than
//! [`Reader`](super::Reader). What turns out to be no JSON all the same answers `None`.
use super::{Text, write::next_special};
use crate::message::{Slot, SlotKind};

/// Where member `name` of an object is; the last one where there are several, missing where there is none.
pub fn member(json: &str, name: &str) -> Option<Slot> {
    let mut looker = Looker::inside(json, b'{')?;
    let mut found = Slot::default();
    while !looker.ends(b'}')? {
        let key = looker.value()?;
        looker.pass(b':')?;
        let value = looker.value()?;
        let is_wanted = match key.kind {
            SlotKind::Text => key.of(json) == name,
            _ => Text::escaped(key.of(json)).is(name),
        };
        if is_wanted {
            found = value;
        }
    }
    Some(found)
}

/// Hands over where each item of an array is, in order.
pub fn items(json: &str, mut take: impl FnMut(Slot)) -> Option<()> {
    let mut looker = Looker::inside(json, b'[')?;
    while !looker.ends(b']')? {
        take(looker.value()?);
    }
    Some(())
}

struct Looker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Looker<'a> {
    /// Behind the opening bracket of a value that begins with it.
    fn inside(json: &'a str, open: u8) -> Option<Self> {
        let bytes = json.as_bytes();
        (bytes.first() == Some(&open)).then_some(Self { bytes, at: 1 })
    }

    #[inline]
    fn white(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// True at the closing bracket; a comma before the next value is passed.
    #[inline]
    fn ends(&mut self, close: u8) -> Option<bool> {
        let byte = self.white()?;
        if byte == b',' {
            self.at += 1;
        }
        Some(byte == close)
    }

    fn pass(&mut self, byte: u8) -> Option<()> {
        (self.white()? == byte).then(|| self.at += 1)
    }

    /// The next value, in the slot's manner; afterwards behind it.
    fn value(&mut self) -> Option<Slot> {
        let first = self.white()?;
        let start = self.at;
        let mut quote = 0;
        let kind = match first {
            b'"' => {
                quote = 1;
                if self.string()? { SlotKind::Escaped } else { SlotKind::Text }
            }
            b'{' | b'[' => {
                self.nested()?;
                if first == b'{' { SlotKind::Object } else { SlotKind::Array }
            }
            b't' | b'n' => {
                self.at += 4;
                if first == b't' { SlotKind::True } else { SlotKind::Null }
            }
            b'f' => {
                self.at += 5;
                SlotKind::False
            }
            _ => self.number()?,
        };
        let end = (self.at <= self.bytes.len()).then(|| self.at - quote)?;
        // Payloads are at most 4 GiB, as spans are.
        Some(Slot { kind, start: (start + quote) as u32, end: end as u32 })
    }

    /// Passes a string, from its opening quote on. Answers whether there are escapes.
    #[inline]
    fn string(&mut self) -> Option<bool> {
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at = next_special(self.bytes, self.at)?;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Some(escaped);
            }
            // Of `\u0022`, too, only the next byte could be taken for a quote.
            escaped = true;
            self.at += 2;
        }
    }

    /// Passes an object or array, from its opening bracket on.
    fn nested(&mut self) -> Option<()> {
        let mut open = 0_usize;
        loop {
            match *self.bytes.get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open = open.checked_sub(1)?,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Some(());
            }
        }
    }

    fn number(&mut self) -> Option<SlotKind> {
        let start = self.at;
        let mut kind = SlotKind::Int;
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b'0'..=b'9' | b'-' => {}
                b'.' | b'e' | b'E' | b'+' => kind = SlotKind::Float,
                _ => break,
            }
            self.at += 1;
        }
        (self.at > start).then_some(kind)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::json::{Kind, Reader};

    const NAMES: [&str; 4] = ["a", "b", "longer name", "\"q"];

    /// What the reader finds.
    fn slowly<'a>(json: &'a str, name: &str) -> Option<&'a str> {
        let mut reader = Reader::new(json);
        assert_eq!(reader.value(), Ok(Kind::Object));
        let (mut found, mut first) = (None, true);
        while let Some(key) = reader.next_key(first).unwrap() {
            first = false;
            let value = reader.raw().unwrap();
            if key.is(name) {
                found = Some(value);
            }
        }
        found
    }

    fn shown(json: &str, slot: Slot) -> Option<&str> {
        (slot.kind != SlotKind::Missing).then(|| slot.json(json))
    }

    fn agrees(json: &str) {
        for name in NAMES {
            assert_eq!(member(json, name).map(|slot| shown(json, slot)), Some(slowly(json, name)), "{name} in {json}");
        }
    }

    #[test]
    fn members_and_items_are_found() {
        let json = r#"{ "a" : 1 , "\u0062":[ "x\"]" , {} ] ,"a":-2.5e3, "longer name":null,"\"q":"\\"}"#;
        agrees(json);
        assert_eq!(shown(json, member(json, "a").unwrap()), Some("-2.5e3"));
        let kinds = |json: &str| {
            let mut all = Vec::new();
            items(json, |slot| all.push((slot.kind, slot.json(json).to_owned()))).map(|()| all)
        };
        use SlotKind::{Array, Escaped, False, Float, Int, Null, Object, Text, True};
        let expected = [
            (Int, "1"),
            (Float, "1.0"),
            (Text, "\"x\""),
            (Escaped, "\"\\\\\""),
            (True, "true"),
            (False, "false"),
            (Null, "null"),
            (Object, "{\"a\":[\"}\"]}"),
            (Array, "[[]]"),
        ];
        let json = format!("[ {} ]", expected.map(|(_, text)| text).join(" ,"));
        assert_eq!(kinds(&json), Some(expected.map(|(kind, text)| (kind, text.to_owned())).to_vec()));
        assert_eq!(kinds("[]"), Some(vec![]));
        for bad in ["", "{", "[", "[1", "[\"", "[tru", "[\"\\", "[{]", "[,", "{\"a\"", "{\"a\":", "{\"a\"1}", "[x]"] {
            assert!(kinds(bad).is_none() && member(bad, "a").is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_reader_finds(
            members in proptest::collection::vec((0..6_usize, 0..9_usize, " {0,2}"), 0..6),
        ) {
            let names = ["a", "b", "longer name", "\\\"q", "\\u0061", "c"];
            let values = ["1", "-2.5E+3", "\"x\"", "\"\\\\\"", "\"\\\"}\"", "null", "[1,{\"a\":2}]", "{\"b\":\"]\"}", "true"];
            let members: Vec<_> = members
                .iter()
                .map(|(name, value, space)| format!("{space}\"{}\"{space}:{space}{}{space}", names[*name], values[*value]))
                .collect();
            agrees(&format!("{{{}}}", members.join(",")));
        }

        #[test]
        fn what_is_no_json_does_no_harm(text in "[\\[{][\\[\\]{}:,\" 0-9eE.+\\-truefalsn\\\\ud8c°]{0,24}") {
            let _ = member(&text, "a");
            let _ = items(&text, |_| {});
        }
    }
}
