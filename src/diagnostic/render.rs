//! Diagnostics as text for people and for machines.
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::{Diagnostic, Severity};

/// How diagnostics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Source lines with carets, like rustc.
    #[default]
    Full,
    /// `file:line:col: error[code] title`, one line each.
    Concise,
    /// One JSON object a line.
    Json,
}

/// The diagnostics in the order given, ready to print; empty when there are none.
pub fn render(diagnostics: &[Diagnostic], format: Format, colour: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        match format {
            Format::Full => {
                out.push_str(&full(diagnostic, colour));
                out.push('\n');
            }
            Format::Concise => out.push_str(&concise(diagnostic)),
            Format::Json => out.push_str(&json(diagnostic)),
        }
        out.push('\n');
    }
    out
}

fn severity(diagnostic: &Diagnostic) -> &'static str {
    match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn full(diagnostic: &Diagnostic, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let annotation = AnnotationKind::Primary.span(diagnostic.span.clone()).label(diagnostic.label.as_str());
    let other = diagnostic.other.as_ref();
    let other = other.map(|(span, label)| AnnotationKind::Context.span(span.clone()).label(label.as_str()));
    let snippet = Snippet::source(diagnostic.file.text.as_str())
        .path(diagnostic.file.path.as_str())
        .annotation(annotation)
        .annotations(other);
    let mut group = level.primary_title(diagnostic.title.as_str()).id(diagnostic.code).element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group]).to_string()
}

fn concise(diagnostic: &Diagnostic) -> String {
    let (line, column) = diagnostic.line_column();
    let (path, title) = (&diagnostic.file.path, &diagnostic.title);
    format!("{path}:{line}:{column}: {}[{}] {title}", severity(diagnostic), diagnostic.code)
}

fn json(diagnostic: &Diagnostic) -> String {
    let (line, column) = diagnostic.line_column();
    let other = diagnostic.other.as_ref().map(|(span, label)| {
        let (line, column) = super::line_column(&diagnostic.file.text, span.start);
        serde_json::json!({ "line": line, "column": column, "label": label })
    });
    serde_json::json!({
        "severity": severity(diagnostic),
        "code": diagnostic.code,
        "title": diagnostic.title,
        "label": diagnostic.label,
        "help": diagnostic.help,
        "file": diagnostic.file.path,
        "line": line,
        "column": column,
        "other": other,
    })
    .to_string()
}
