//! Workflow commands: GitHub Actions turns each line into an annotation of the file in a pull request.
//! <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>
use super::{Diagnostic, Region};
use crate::diagnostic::Severity;

pub(super) fn render(diagnostic: &Diagnostic) -> String {
    let command = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let Region { line, column, end_line, end_column } = Region::of(&diagnostic.file.text, &diagnostic.span);
    let file = property(&diagnostic.file.path);
    let mut place = format!("file={file},line={line},endLine={end_line}");
    // GitHub refuses columns of a range over several lines.
    if line == end_line {
        place.push_str(&format!(",col={column},endColumn={end_column}"));
    }
    let mut message = diagnostic.title.clone();
    if !diagnostic.label.is_empty() {
        message.push_str(&format!(" ({})", diagnostic.label));
    }
    if let Some(help) = &diagnostic.help {
        message.push_str(&format!("\n{help}"));
    }
    format!("::{command} {place},title={}::{}", property(diagnostic.code), data(&message))
}

/// What would end the command is escaped, as the runner's own tools do.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
