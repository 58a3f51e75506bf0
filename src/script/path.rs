//! Fixed paths into JSON: any number of them is looked up in one pass over the payload, with nothing decoded and nothing
//! allocated but the answers.
use crate::codec::json::{Kind, NotJson, Reader};

/// One level of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A member of an object.
    Key(String),
    /// An item of an array, from 0.
    Index(usize),
}

/// Paths that are looked up together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSet {
    paths: Vec<Vec<Segment>>,
}

/// Reads `a.b[2]["c d"]`: what follows `payload.` in a template. `None` when it is no such path.
pub fn parse(text: &str) -> Option<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix("[\"") {
            let (key, after) = inner.split_once("\"]")?;
            segments.push(Segment::Key(key.to_owned()));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = inner.split_once(']')?;
            segments.push(Segment::Index(index.trim().parse().ok()?));
            rest = after;
        } else {
            let name = match (segments.is_empty(), rest.strip_prefix('.')) {
                (true, None) => rest,
                (false, Some(name)) => name,
                _ => return None,
            };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
                return None;
            }
            segments.push(Segment::Key(name.to_owned()));
            rest = after;
        }
    }
    (!segments.is_empty()).then_some(segments)
}

impl PathSet {
    /// Adds a path and answers its place in the answers of `find`.
    pub fn add(&mut self, path: Vec<Segment>) -> usize {
        self.paths.push(path);
        self.paths.len() - 1
    }

    /// True when there is no path to look up.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Looks every path up in `json` and puts the text of its value into `found`, `None` where there is none. Of members
    /// with the same name the last one counts.
    ///
    /// # Errors
    /// `json` is not JSON.
    pub fn find<'a>(&self, json: &'a str, found: &mut Vec<Option<&'a str>>) -> Result<(), NotJson> {
        found.clear();
        found.resize(self.paths.len(), None);
        let mut reader = Reader::new(json);
        self.search(&mut reader, json, &|_| true, 0, found)?;
        reader.end()
    }

    /// Searches the next value for those paths that lead through it: `through` tells which, by their place.
    fn search<'a>(
        &self,
        reader: &mut Reader<'a>,
        json: &'a str,
        through: &dyn Fn(usize) -> bool,
        depth: usize,
        found: &mut [Option<&'a str>],
    ) -> Result<(), NotJson> {
        let kind = reader.value()?;
        let start = reader.start();
        let mut count = 0;
        match kind {
            Kind::Object => {
                while let Some(key) = reader.next_key(count == 0)? {
                    count += 1;
                    let below = |path: usize| match &self.paths[path].get(depth) {
                        Some(Segment::Key(name)) => through(path) && key.is(name),
                        _ => false,
                    };
                    self.search_member(reader, json, &below, depth, found)?;
                }
            }
            Kind::Array => {
                while reader.next_item(count == 0)? {
                    let index = count;
                    count += 1;
                    let below =
                        |path: usize| self.paths[path].get(depth) == Some(&Segment::Index(index)) && through(path);
                    self.search_member(reader, json, &below, depth, found)?;
                }
            }
            _ => {}
        }
        for (path, slot) in found.iter_mut().enumerate() {
            if self.paths[path].len() == depth && through(path) {
                *slot = Some(&json[start..reader.at()]);
            }
        }
        Ok(())
    }

    fn search_member<'a>(
        &self,
        reader: &mut Reader<'a>,
        json: &'a str,
        below: &dyn Fn(usize) -> bool,
        depth: usize,
        found: &mut [Option<&'a str>],
    ) -> Result<(), NotJson> {
        let mut wanted = false;
        for (path, slot) in found.iter_mut().enumerate() {
            if below(path) {
                // What an earlier member of this name held is void.
                *slot = None;
                wanted = true;
            }
        }
        if wanted { self.search(reader, json, below, depth + 1, found) } else { reader.skip() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, paths: &[&str], expected: &[Option<&str>]) {
        let mut set = PathSet::default();
        for path in paths {
            set.add(parse(path).unwrap());
        }
        let mut found = Vec::new();
        set.find(json, &mut found).unwrap();
        assert_eq!(found, expected, "{paths:?} in {json}");
    }

    #[test]
    fn values_are_found_in_one_pass() {
        let json = r#" { "a" : { "b" : 1.10 , "c d":[ "x" , {"e":null} ] }, "\u0066" : true } "#;
        check(
            json,
            &["a.b", "a[\"c d\"][1].e", "a[\"c d\"][0]", "f", "a.x", "a.b.c", "a[\"c d\"]", "a[0]"],
            &[
                Some("1.10"),
                Some("null"),
                Some("\"x\""),
                Some("true"),
                None,
                None,
                Some(r#"[ "x" , {"e":null} ]"#),
                None,
            ],
        );
    }

    #[test]
    fn the_last_of_two_members_counts() {
        check(r#"{"a":{"b":1},"a":{"c":2}}"#, &["a.b", "a.c"], &[None, Some("2")]);
        check(r#"{"a":{"b":1},"a":3}"#, &["a.b", "a"], &[None, Some("3")]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a b", "a[0]b", "a[\"x\"]b"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
