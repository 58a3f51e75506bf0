//! Paths that name one place in a payload.
use crate::message::{Layout, NodeId};

/// One level of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A member of an object.
    Key(String),
    /// An item of an array, from 0.
    Index(usize),
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

/// Adds the place at the end of a path to a layout.
pub(super) fn add(layout: &mut Layout, path: &[Segment]) -> NodeId {
    path.iter().fold(NodeId::ROOT, |parent, segment| match segment {
        Segment::Key(name) => layout.key(parent, name),
        Segment::Index(index) => layout.item(parent, *index),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_added_to_a_layout() {
        let mut layout = Layout::new();
        for (text, segments) in [("a.b", 2), ("a[\"c d\"][1].e", 4), ("a[\"c d\"][0]", 3), ("f-g_1", 1)] {
            let path = parse(text).unwrap();
            assert_eq!(path.len(), segments, "{text}");
            assert_eq!(add(&mut layout, &path), add(&mut layout, &path), "{text}");
        }
        // The root, `a` and what is below it, and `f-g_1`.
        assert_eq!(layout.len(), 8);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a b", "a[0]b", "a[\"x\"]b"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
