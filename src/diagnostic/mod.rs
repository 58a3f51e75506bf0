//! Faults in what the user wrote: as data, at a place. Renderers turn them into text; only `cli` prints them.
mod render;

use std::{fmt, sync::Arc};

pub use render::{Format, render};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// A text that diagnostics point into.
#[derive(Debug)]
pub struct SourceFile {
    /// The path as the user gave it.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// One fault, at one place.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Kebab-case name of the fault, for example `unknown-field`.
    pub code: &'static str,
    /// Makes sense without the source lines around it.
    pub title: String,
    /// What is wrong at this very place.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The file it is in.
    pub file: Arc<SourceFile>,
    /// Byte range in the file's text.
    pub span: std::ops::Range<usize>,
}

impl Diagnostic {
    /// Line and column where the fault starts, both from 1, columns in characters.
    pub fn line_column(&self) -> (usize, usize) {
        line_column(&self.file.text, self.span.start)
    }
}

/// Line and column of a byte offset, both from 1, columns in characters.
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The key or index of one level on the way to a YAML node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathSegment {
    Key(String),
    Index(usize),
}

impl fmt::Display for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

/// A fault a component finds in its own settings. It knows the field, not the file; `config` turns it into a
/// `Diagnostic` at the right place.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Field, from the component's section down; empty for the section itself.
    pub path: Vec<PathSegment>,
    /// Line and column inside a script, both from 1, when the field holds one.
    pub at: Option<(usize, usize)>,
    /// Kebab-case name of the fault.
    pub code: &'static str,
    pub title: String,
    pub label: String,
    pub help: Option<String>,
}

impl Fault {
    /// A fault in `field`; dots separate levels (`tls.ca`), empty names the section itself.
    pub fn new(code: &'static str, field: &str, title: impl Into<String>) -> Self {
        let path = field.split('.').filter(|s| !s.is_empty()).map(|s| match s.parse() {
            Ok(index) => PathSegment::Index(index),
            Err(_) => PathSegment::Key(s.to_owned()),
        });
        Self { path: path.collect(), at: None, code, title: title.into(), label: String::new(), help: None }
    }

    /// The same fault, seen from the section that has `field`.
    pub fn within(mut self, field: &str) -> Self {
        self.path.insert(0, PathSegment::Key(field.to_owned()));
        self
    }

    /// Says what is wrong at the place itself.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to write.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points to a line and column inside the field's text, both from 1.
    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.at = Some((line, column));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            let path: Vec<_> = self.path.iter().map(ToString::to_string).collect();
            write!(f, "`{}`: ", path.join("."))?;
        }
        f.write_str(&self.title)
    }
}

/// Where a script stands in a file, so that positions inside it can be named while the pipeline runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptPlace {
    pub file: Arc<str>,
    /// Line of the script's first character, from 1.
    pub line: usize,
    /// Column of the script's first character, from 1, in characters.
    pub column: usize,
    /// True for a literal block (`|`) or a file: every script line is a file line, indented by `column - 1`. False for
    /// a quoted or folded scalar, whose inner positions cannot be told.
    pub exact: bool,
}

impl ScriptPlace {
    /// `file:line:column` of a position inside the script, both from 1.
    pub fn locate(&self, line: usize, column: usize) -> String {
        if self.exact {
            format!("{}:{}:{}", self.file, self.line + line - 1, self.column + column - 1)
        } else {
            format!("{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        assert_eq!(line_column("a: 1\n\"°C\": x", 5), (2, 1));
        assert_eq!(line_column("a: 1\n\"°C\": x", 12), (2, 7));
    }

    #[test]
    fn a_position_in_a_block_is_a_position_in_the_file() {
        let place = ScriptPlace { file: "p.yaml".into(), line: 12, column: 7, exact: true };
        assert_eq!(place.locate(3, 2), "p.yaml:14:8");
        assert_eq!(ScriptPlace { exact: false, ..place }.locate(3, 2), "p.yaml:12:7");
    }

    #[test]
    fn a_fault_names_its_field() {
        let fault = Fault::new("bad-value", "tls.ca", "cannot read `x`");
        assert_eq!(fault.to_string(), "`tls.ca`: cannot read `x`");
    }
}
