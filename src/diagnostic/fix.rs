//! The corrections that findings bring along, put into the text.
use std::sync::Arc;

use super::{Diagnostic, Edit, SourceFile};

/// The text of `file` with the corrections of all findings in it. Nothing else is touched; where two corrections meet,
/// the first one counts. None when there is nothing to correct.
pub fn fixed(file: &Arc<SourceFile>, found: &[Diagnostic]) -> Option<String> {
    let is_here = |found: &&Diagnostic| found.file.path == file.path && found.file.text == file.text;
    let mut edits: Vec<&Edit> = found.iter().filter(is_here).flat_map(|found| &found.fix).collect();
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let (mut out, mut done) = (String::with_capacity(file.text.len()), 0);
    let mut changed = false;
    for edit in edits {
        if edit.span.start < done || file.text.get(edit.span.clone()).is_none_or(|old| old == edit.text) {
            continue;
        }
        out.push_str(&file.text[done..edit.span.start]);
        out.push_str(&edit.text);
        done = edit.span.end;
        changed = true;
    }
    out.push_str(&file.text[done..]);
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_is_changed() {
        let file = Arc::new(SourceFile { path: "p.yaml".into(), text: "°C:  1 # kyes\nkyes: kyes\n".into() });
        let at = |start: usize, end: usize, text: &str| Diagnostic::error("x", &file, start..end, "t").with_fix(text);
        let start = file.text.find("\nkyes").unwrap() + 1;
        let found = [at(start, start + 4, "keys"), at(start, start + 4, "keys"), at(start + 2, start + 6, "no")];
        assert_eq!(fixed(&file, &found).as_deref(), Some("°C:  1 # kyes\nkeys: kyes\n"));
        assert_eq!(fixed(&file, &[]), None);
        let other = Arc::new(SourceFile { path: "p.yaml".into(), text: "another text".into() });
        assert_eq!(fixed(&other, &found), None, "not for a text that has changed meanwhile");
    }
}
