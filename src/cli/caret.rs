//! A dead letter as lint would show a fault.
use std::sync::Arc;

use super::colour;
use crate::diagnostic::{self, Diagnostic, Format, SourceFile, byte_offset};

/// With its line as the file is now, and a caret, when its place is known and the file is there. `given` is the path and
/// the text of what is no file.
pub(super) fn caret(stage: &str, code: &str, reason: &str, place: Option<&str>, given: Option<(&str, &str)>) -> String {
    let plain = || {
        let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
        format!("dead letter  {stage}: {code}{place}: {reason}\n")
    };
    let Some((path, line, column)) = place.and_then(parts) else { return plain() };
    let text = match given {
        Some((given, text)) if given == path => text.to_owned(),
        _ => match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(_) => return plain(),
        },
    };
    let start = byte_offset(&text, line, column);
    let end = start + text[start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    let file = Arc::new(SourceFile { path: path.to_owned(), text });
    let mut shown = Diagnostic::error("dead-letter", &file, start..end, reason.to_owned());
    shown.label = format!("{code} in {stage}");
    diagnostic::render(&[shown], Format::Full, colour::stdout())
}

/// `file:line:column` in its parts.
pub(super) fn parts(place: &str) -> Option<(&str, usize, usize)> {
    let mut parts = place.rsplitn(3, ':');
    let (column, line) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((parts.next()?, line, column))
}
