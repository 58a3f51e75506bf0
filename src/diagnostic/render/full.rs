//! The lines that are wrong, with carets below them, as rustc shows them.
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::Diagnostic;
use crate::diagnostic::Severity;

pub(super) fn render(diagnostic: &Diagnostic, colour: bool) -> String {
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
