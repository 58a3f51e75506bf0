//! Faults in what the user wrote: as data, at a place. Renderers turn them into text; only `cli` prints them.
mod fix;
mod nearest;
mod render;
mod rules;

use std::{fmt, ops::Range, sync::Arc};

pub use fix::fixed;
pub use nearest::nearest;
pub use render::{Format, render};
pub use rules::{RULES, Rule, rule};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
    /// No fault: something worth to know.
    Note,
}

impl Severity {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
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
    pub span: Range<usize>,
    /// Another place in the same file that matters, and why.
    pub other: Option<(Range<usize>, String)>,
    /// Changes of the file that mend it, when there is only one right way to; empty when not.
    pub fix: Vec<Edit>,
}

/// A part of a file's text and what belongs there instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Byte range in the file's text.
    pub span: Range<usize>,
    pub text: String,
}

impl Diagnostic {
    /// An error at `span` of `file`, without a label or help yet.
    pub fn error(code: &'static str, file: &Arc<SourceFile>, span: Range<usize>, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            title: title.into(),
            label: String::new(),
            help: None,
            file: Arc::clone(file),
            span,
            other: None,
            fix: Vec::new(),
        }
    }

    /// Says what is wrong at the place itself.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to write.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points to another place in the same file that matters, and says why.
    pub fn with_other(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.other = Some((span, label.into()));
        self
    }

    /// Says what mends it: `text` in place of the bytes it points to.
    pub fn with_fix(mut self, text: impl Into<String>) -> Self {
        self.fix = vec![Edit { span: self.span.clone(), text: text.into() }];
        self
    }

    /// The same when the bytes it points to are `old`, in quotes or not; else nothing is known to mend it.
    pub fn with_word_fix(self, old: &str, new: &str) -> Self {
        let quoted = |text: &str| text.len() >= 2 && text.starts_with(['"', '\'']) && text[1..].ends_with(&text[..1]);
        let inner = match self.file.text.get(self.span.clone()) {
            Some(text) if text == old => self.span.clone(),
            Some(text) if quoted(text) && &text[1..text.len() - 1] == old => self.span.start + 1..self.span.end - 1,
            _ => return self,
        };
        Self { fix: vec![Edit { span: inner, text: new.to_owned() }], ..self }
    }

    /// Makes it a warning: shown, but no reason to refuse the file.
    pub fn into_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Makes it a note: no fault, but worth to know.
    pub fn into_note(mut self) -> Self {
        self.severity = Severity::Note;
        self
    }

    /// True when the file cannot be run with it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

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

/// Byte offset of a line and column, both from 1, columns in characters; clamped to the line's end and the text's end.
pub fn byte_offset(text: &str, line: usize, column: usize) -> usize {
    let start = match line {
        0 | 1 => 0,
        _ => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(at, _)| at + 1),
    };
    let rest = text[start..].split('\n').next().unwrap_or_default();
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
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
    /// It is a fault of the payloads that an output gets: the field is one of the step that makes them.
    pub of_payload: bool,
    /// Kebab-case name of the fault.
    pub code: &'static str,
    /// A word at the place, and what to write instead, where that is certain enough to be done without asking.
    pub replace: Option<(String, String)>,
    /// An error, unless it says otherwise.
    pub severity: Severity,
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
        let (severity, title) = (Severity::Error, title.into());
        Self {
            path: path.collect(),
            at: None,
            of_payload: false,
            code,
            severity,
            title,
            label: String::new(),
            help: None,
            replace: None,
        }
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

    /// Says what word to put in place of another one.
    pub fn replace(mut self, word: impl Into<String>, by: impl Into<String>) -> Self {
        self.replace = Some((word.into(), by.into()));
        self
    }

    /// Makes it a warning.
    pub fn into_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Makes it a note: no fault, but worth to know.
    pub fn into_note(mut self) -> Self {
        self.severity = Severity::Note;
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
    fn a_line_and_column_have_one_offset() {
        let text = "a: 1\n\"°C\": x\n";
        for offset in text.char_indices().map(|(at, _)| at) {
            let (line, column) = line_column(text, offset);
            assert_eq!(byte_offset(text, line, column), offset);
        }
        assert_eq!(byte_offset(text, 1, 99), 4);
        assert_eq!(byte_offset(text, 9, 9), text.len());
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
