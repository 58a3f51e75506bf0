//! One line for each: `file:line:column: error[code] title`.
use super::{Diagnostic, severity};

pub(super) fn render(diagnostic: &Diagnostic) -> String {
    let (line, column) = diagnostic.line_column();
    let (path, title) = (&diagnostic.file.path, &diagnostic.title);
    format!("{path}:{line}:{column}: {}[{}] {title}", severity(diagnostic), diagnostic.code)
}
