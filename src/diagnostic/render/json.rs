//! One JSON object for each, on a line of its own. Columns count characters; ends are behind the last one.
use serde_json::json;

use super::{Diagnostic, Region, severity};

pub(super) fn render(diagnostic: &Diagnostic) -> String {
    let text = &diagnostic.file.text;
    let Region { line, column, end_line, end_column } = Region::of(text, &diagnostic.span);
    let other = diagnostic.other.as_ref().map(|(span, label)| {
        let Region { line, column, end_line, end_column } = Region::of(text, span);
        json!({ "line": line, "column": column, "end_line": end_line, "end_column": end_column, "label": label })
    });
    let fix: Vec<_> = diagnostic
        .fix
        .iter()
        .map(|edit| {
            let Region { line, column, end_line, end_column } = Region::of(text, &edit.span);
            json!({ "line": line, "column": column, "end_line": end_line, "end_column": end_column, "text": edit.text })
        })
        .collect();
    json!({
        "severity": severity(diagnostic),
        "code": diagnostic.code,
        "title": diagnostic.title,
        "label": diagnostic.label,
        "help": diagnostic.help,
        "file": diagnostic.file.path,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "other": other,
        "fix": fix,
    })
    .to_string()
}
