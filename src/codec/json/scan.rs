//! The scanner: reads a document once from end to end, checks all of it, and notes where the wanted values are.
//!
//! It accepts and refuses exactly what [`Reader`] does, and is several times quicker: it builds nothing, compares keys
//! eight bytes at a time and looks first for the one that followed the last time. Allocates nothing.
use super::{DEPTH_MAX, NotJson, Reader};
use crate::message::{Key, Layout, NodeId, Slot, SlotKind};

/// Puts into `slots`, which has `layout.len()` of them, where the values of `layout` are in `json`, and answers how deep
/// it is nested. Of members with the same name the last one counts, with all that is in it.
///
/// # Errors
/// `json` is not JSON, or nested too deep. The slots are then all missing.
pub fn scan(layout: &Layout, json: &str, slots: &mut [Slot]) -> Result<usize, NotJson> {
    slots.fill(Slot::default());
    let mut scanner = Scanner { layout, bytes: json.as_bytes(), at: 0, slots, depth: 0, deepest: 0 };
    let read = scanner.value(Some(NodeId::ROOT)).and_then(|_| {
        scanner.white();
        if scanner.at == scanner.bytes.len() { Ok(()) } else { Err(Bad) }
    });
    let deepest = scanner.deepest;
    if read.is_ok() {
        return Ok(deepest);
    }
    slots.fill(Slot::default());
    // What is wrong, and where, is told by the reader: that is seldom wanted.
    let mut reader = Reader::new(json);
    match reader.skip().and_then(|()| reader.end()) {
        Err(error) => Err(error),
        Ok(()) => {
            debug_assert!(false, "the scanner refused what the reader accepts: {json}");
            Err(NotJson { at: 0, expected: "a document", too_deep: false })
        }
    }
}

/// Not JSON, or nested too deep.
struct Bad;

struct Scanner<'a> {
    layout: &'a Layout,
    bytes: &'a [u8],
    at: usize,
    slots: &'a mut [Slot],
    depth: usize,
    deepest: usize,
}

impl Scanner<'_> {
    /// The byte at hand; 0 at the end.
    #[inline(always)]
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn white(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\t' | b'\r') {
            self.at += 1;
        }
    }

    /// Reads the next value, which is at `node`, if it is wanted.
    fn value(&mut self, node: Option<NodeId>) -> Result<(), Bad> {
        self.white();
        let start = self.at;
        let mut quote = 0;
        let kind = match self.peek() {
            b'"' => {
                quote = 1;
                self.at += 1;
                if self.string()? { SlotKind::Escaped } else { SlotKind::Text }
            }
            b'{' => {
                self.object(node)?;
                SlotKind::Object
            }
            b'[' => {
                self.array(node)?;
                SlotKind::Array
            }
            b't' => self.word(b"true", SlotKind::True)?,
            b'f' => self.word(b"false", SlotKind::False)?,
            b'n' => self.word(b"null", SlotKind::Null)?,
            _ => self.number()?,
        };
        if let Some(node) = node {
            // Payloads are at most 4 GiB, as spans are.
            self.slots[node.index()] = Slot { kind, start: (start + quote) as u32, end: (self.at - quote) as u32 };
        }
        Ok(())
    }

    fn word(&mut self, word: &[u8], kind: SlotKind) -> Result<SlotKind, Bad> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Bad);
        }
        self.at += word.len();
        Ok(kind)
    }

    /// At the byte after the opening quote; afterwards behind the closing one. Answers whether there are escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, Bad> {
        let mut escaped = false;
        loop {
            self.at = super::write::next_special(self.bytes, self.at).ok_or(Bad)?;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.at += super::read::escape_len(&self.bytes[self.at..]).ok_or(Bad)?;
                }
                _ => return Err(Bad),
            }
        }
    }

    #[inline]
    fn digits(&mut self) -> Result<usize, Bad> {
        let start = self.at;
        self.at = super::write::next_no_digit(self.bytes, start);
        if self.at == start { Err(Bad) } else { Ok(self.at - start) }
    }

    #[inline]
    fn number(&mut self) -> Result<SlotKind, Bad> {
        let mut kind = SlotKind::Int;
        if self.peek() == b'-' {
            self.at += 1;
        }
        let zero = self.peek() == b'0';
        if self.digits()? > 1 && zero {
            return Err(Bad);
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
            kind = SlotKind::Float;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
            kind = SlotKind::Float;
        }
        Ok(kind)
    }

    fn enter(&mut self) -> Result<(), Bad> {
        if self.depth == DEPTH_MAX {
            return Err(Bad);
        }
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        self.at += 1;
        self.white();
        Ok(())
    }

    fn object(&mut self, node: Option<NodeId>) -> Result<(), Bad> {
        self.enter()?;
        let layout = self.layout;
        let wanted: &[Key] = node.map_or(&[], |node| &layout.node(node).keys);
        // Senders keep the order of their members: the next one is most likely the one after the last.
        let mut next = 0;
        if self.peek() != b'}' {
            loop {
                if self.peek() != b'"' {
                    return Err(Bad);
                }
                self.at += 1;
                let start = self.at;
                let escaped = self.string()?;
                let name = &self.bytes[start..self.at - 1];
                self.white();
                if self.peek() != b':' {
                    return Err(Bad);
                }
                self.at += 1;
                let found = if wanted.is_empty() { None } else { self.find(wanted, next, start, name.len(), escaped) };
                match found {
                    Some(found) => {
                        next = found + 1;
                        let node = wanted[found].node;
                        if self.slots[node.index()].kind != SlotKind::Missing {
                            self.clear(node);
                        }
                        self.value(Some(node))?;
                    }
                    None => self.value(None)?,
                }
                self.white();
                match self.peek() {
                    b',' => {
                        self.at += 1;
                        self.white();
                    }
                    b'}' => break,
                    _ => return Err(Bad),
                }
            }
        }
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    /// Which of the wanted keys the name at `start` is.
    #[inline]
    fn find(&self, wanted: &[Key], next: usize, start: usize, len: usize, escaped: bool) -> Option<usize> {
        let name = &self.bytes[start..start + len];
        if escaped {
            let name = std::str::from_utf8(name).ok()?;
            let name = super::Text::escaped(name).decode();
            return wanted.iter().position(|key| *key.name == *name);
        }
        let head = match self.bytes.get(start..start + 8) {
            Some(eight) => {
                let word = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
                if len >= 8 { word } else { word & ((1 << (len * 8)) - 1) }
            }
            None => Key::head(name),
        };
        let is = |key: &Key| key.head == head && key.name.len() == len && (len <= 8 || key.name.as_bytes() == name);
        if wanted.get(next).is_some_and(is) {
            return Some(next);
        }
        wanted.iter().position(is)
    }

    fn array(&mut self, node: Option<NodeId>) -> Result<(), Bad> {
        self.enter()?;
        let layout = self.layout;
        let wanted: &[(usize, NodeId)] = node.map_or(&[], |node| &layout.node(node).items);
        let mut index = 0;
        if self.peek() != b']' {
            loop {
                let node = wanted.iter().find(|(wanted, _)| *wanted == index).map(|(_, node)| *node);
                self.value(node)?;
                index += 1;
                self.white();
                match self.peek() {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return Err(Bad),
                }
            }
        }
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    /// Forgets what an earlier member of the same name held.
    #[cold]
    fn clear(&mut self, node: NodeId) {
        self.slots[node.index()] = Slot::default();
        let layout = self.layout;
        let wanted = layout.node(node);
        let below = wanted.keys.iter().map(|key| key.node).chain(wanted.items.iter().map(|(_, node)| *node));
        below.for_each(|node| self.clear(node));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The layout of some paths, `a.b` and `a.0`, and the paths' nodes.
    fn layout(paths: &[&str]) -> (Layout, Vec<NodeId>) {
        let mut layout = Layout::new();
        let mut nodes = Vec::new();
        for path in paths {
            nodes.push(path.split('.').fold(NodeId::ROOT, |parent, part| match part.parse() {
                Ok(index) => layout.item(parent, index),
                Err(_) => layout.key(parent, part),
            }));
        }
        (layout, nodes)
    }

    fn check(json: &str, paths: &[&str], expected: &[Option<&str>]) {
        let (layout, nodes) = layout(paths);
        let mut slots = vec![Slot::default(); layout.len()];
        scan(&layout, json, &mut slots).unwrap();
        let found: Vec<_> = nodes
            .iter()
            .map(|node| slots[node.index()])
            .map(|slot| (slot.kind != SlotKind::Missing).then(|| slot.json(json)))
            .collect();
        assert_eq!(found, expected, "{paths:?} in {json}");
    }

    #[test]
    fn wanted_values_are_found_in_one_pass() {
        let json = r#" { "a" : { "b" : 1.10 , "c d":[ "x" , {"e":null} ] }, "\u0066" : true, "a long name":-7 } "#;
        check(
            json,
            &["a.b", "a.c d.1.e", "a.c d.0", "f", "a.x", "a.b.c", "a.c d", "a.0", "a long name", "a long nam"],
            &[
                Some("1.10"),
                Some("null"),
                Some("\"x\""),
                Some("true"),
                None,
                None,
                Some(r#"[ "x" , {"e":null} ]"#),
                None,
                Some("-7"),
                None,
            ],
        );
    }

    #[test]
    fn the_last_of_two_members_counts() {
        check(r#"{"a":{"b":1},"a":{"c":2}}"#, &["a.b", "a.c"], &[None, Some("2")]);
        check(r#"{"a":{"b":1},"a":3}"#, &["a.b", "a"], &[None, Some("3")]);
        check(r#"{"a":[1,2],"a":[3]}"#, &["a.0", "a.1"], &[Some("3"), None]);
    }

    #[test]
    fn the_depth_is_told_and_bounded() {
        let layout = Layout::new();
        let mut slots = [Slot::default()];
        assert_eq!(scan(&layout, "1", &mut slots).unwrap(), 0);
        assert_eq!(scan(&layout, "[{}]", &mut slots).unwrap(), 2);
        assert_eq!(slots[0], Slot { kind: SlotKind::Array, start: 0, end: 4 });
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(&layout, &nested(DEPTH_MAX), &mut slots).unwrap(), DEPTH_MAX);
        assert!(scan(&layout, &nested(DEPTH_MAX + 1), &mut slots).unwrap_err().too_deep);
        assert_eq!(slots[0], Slot::default());
    }

    /// What is at a path, by the reader.
    fn slowly<'a>(json: &'a str, path: &[&str]) -> Option<&'a str> {
        let Some((first, rest)) = path.split_first() else { return Some(json.trim_matches([' ', '\t', '\n', '\r'])) };
        let mut reader = Reader::new(json);
        let (mut found, mut index) = (None, 0);
        match reader.value().unwrap() {
            super::super::Kind::Object => {
                while let Some(key) = reader.next_key(index == 0).unwrap() {
                    index += 1;
                    let value = reader.raw().unwrap();
                    if key.is(first) {
                        found = Some(value);
                    }
                }
            }
            super::super::Kind::Array => {
                while reader.next_item(index == 0).unwrap() {
                    let value = reader.raw().unwrap();
                    if first.parse() == Ok(index) {
                        found = Some(value);
                    }
                    index += 1;
                }
            }
            _ => {}
        }
        slowly(found?, rest)
    }

    const PATHS: [&str; 7] = ["a", "b.c", "b.0", "b.c.d", "longer name", "b.longer n", "\"q"];

    fn agrees(json: &str) {
        let (layout, nodes) = layout(&PATHS);
        let mut slots = vec![Slot::default(); layout.len()];
        let scanned = scan(&layout, json, &mut slots);
        let mut reader = Reader::new(json);
        let read = reader.skip().and_then(|()| reader.end());
        assert_eq!(scanned.map(|_| ()), read, "{json}");
        if read.is_ok() {
            for (path, node) in PATHS.iter().zip(nodes) {
                let slot = slots[node.index()];
                let found = (slot.kind != SlotKind::Missing).then(|| slot.json(json));
                assert_eq!(found, slowly(json, &path.split('.').collect::<Vec<_>>()), "{path} in {json}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_accepts_and_refuses_what_the_reader_does(text in "[\\[\\]{}:,\" 0-9eE.+\\-truefalsn\\\\ud8c]{0,24}") {
            agrees(&text);
        }

        #[test]
        fn it_finds_what_the_reader_finds(
            document in "(\\{(\"(a|b|c|longer name|\\\\u0061|\\\\\"q)\": ?(1|2\\.5e3|\"x\\\\n\"|null|\\[(1|\\{\"c\":2\\})?\\]|\\{\"(c|longer n)\":(\\{\"d\":7\\}|true)\\}),?){0,5}\\})",
            cut in 0..200_usize,
            from in "[\\[\\]{}:,\"\\\\0e°]{0,2}",
        ) {
            agrees(&document);
            let mut place = cut.min(document.len());
            while !document.is_char_boundary(place) {
                place -= 1;
            }
            agrees(&format!("{}{}{}", &document[..place], from, &document[place..]));
        }
    }
}
