//! Diagnostics as text for people and for machines, one file for each format.
mod concise;
mod full;
mod github;
mod json;
mod sarif;

use super::{Diagnostic, line_column};

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
    /// One SARIF 2.1.0 log, also when there are none.
    Sarif,
    /// Workflow commands of GitHub Actions, one line each.
    Github,
}

/// The diagnostics in the order given, ready to print. Empty when there are none, but for SARIF.
pub fn render(diagnostics: &[Diagnostic], format: Format, colour: bool) -> String {
    let each = |one: fn(&Diagnostic) -> String| diagnostics.iter().map(|found| one(found) + "\n").collect();
    match format {
        Format::Full => diagnostics.iter().map(|found| full::render(found, colour) + "\n\n").collect(),
        Format::Concise => each(concise::render),
        Format::Json => each(json::render),
        Format::Sarif => sarif::render(diagnostics) + "\n",
        Format::Github => each(github::render),
    }
}

/// `error`, `warning` or `note`.
fn severity(diagnostic: &Diagnostic) -> &'static str {
    diagnostic.severity.word()
}

/// First and last line and column of a range of bytes, from 1 and in characters; the last one is behind the range.
struct Region {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

impl Region {
    fn of(text: &str, span: &std::ops::Range<usize>) -> Self {
        let (line, column) = line_column(text, span.start);
        let (end_line, end_column) = line_column(text, span.end.max(span.start));
        Self { line, column, end_line, end_column }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{Edit, SourceFile};

    /// An error behind two characters that are three bytes, a warning with another place, and a note of two lines.
    fn three() -> Vec<Diagnostic> {
        let text = "\"°C\": 1\nkyes: [a]\nlist:\n  - b\n".to_owned();
        let file = Arc::new(SourceFile { path: "my files/ä.yaml".into(), text });
        let at = |what: &str| {
            let start = file.text.find(what).unwrap();
            start..start + what.len()
        };
        let mut error = Diagnostic::error("unknown-field", &file, at("1"), "100% wrong, is: `1`").with_label("here");
        error.fix = vec![Edit { span: at("1"), text: "2".into() }];
        let warning = Diagnostic::error("duplicate-key", &file, at("kyes"), "twice")
            .with_other(at("\"°C\""), "first here")
            .with_help("line one\nline two")
            .into_warning();
        vec![error, warning, Diagnostic::error("interpreted", &file, at("list:\n  - b"), "slow").into_note()]
    }

    #[test]
    fn concise_is_one_line_each() {
        assert_eq!(
            render(&three(), Format::Concise, false),
            "my files/ä.yaml:1:7: error[unknown-field] 100% wrong, is: `1`\n\
             my files/ä.yaml:2:1: warning[duplicate-key] twice\n\
             my files/ä.yaml:3:1: note[interpreted] slow\n"
        );
    }

    #[test]
    fn json_has_both_ends_and_the_fix() {
        let text = render(&three(), Format::Json, false);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0],
            serde_json::json!({
                "severity": "error", "code": "unknown-field", "title": "100% wrong, is: `1`", "label": "here",
                "help": null, "file": "my files/ä.yaml", "line": 1, "column": 7, "end_line": 1, "end_column": 8,
                "other": null, "fix": [{ "line": 1, "column": 7, "end_line": 1, "end_column": 8, "text": "2" }],
            })
        );
        assert_eq!(lines[1]["other"]["column"], 1);
        assert_eq!((&lines[2]["end_line"], &lines[2]["end_column"]), (&4.into(), &6.into()));
    }

    #[test]
    fn workflow_commands_escape_what_would_end_them() {
        assert_eq!(
            render(&three(), Format::Github, false),
            "::error file=my files/ä.yaml,line=1,endLine=1,col=7,endColumn=8,title=unknown-field::100%25 wrong, is: `1` (here)\n\
             ::warning file=my files/ä.yaml,line=2,endLine=2,col=1,endColumn=5,title=duplicate-key::twice%0Aline one%0Aline two\n\
             ::notice file=my files/ä.yaml,line=3,endLine=4,title=interpreted::slow\n"
        );
        let file = Arc::new(SourceFile { path: "a,b:c%d.yaml".into(), text: "x".into() });
        let found = Diagnostic::error("bad-label", &file, 0..1, "t\r\nu");
        assert_eq!(
            render(&[found], Format::Github, false),
            "::error file=a%2Cb%3Ac%25d.yaml,line=1,endLine=1,col=1,endColumn=2,title=bad-label::t%0D%0Au\n"
        );
    }

    #[test]
    fn sarif_names_rules_regions_and_fixes() {
        let log: serde_json::Value = serde_json::from_str(&render(&three(), Format::Sarif, false)).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        assert_eq!(run["columnKind"], "unicodeCodePoints", "columns count characters");
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        let ids: Vec<_> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["duplicate-key", "interpreted", "unknown-field"]);
        assert!(
            rules.iter().all(|rule| rule["shortDescription"]["text"].as_str().is_some_and(|text| !text.is_empty()))
        );
        let results = run["results"].as_array().unwrap();
        for result in results {
            let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"]);
        }
        let levels: Vec<_> = results.iter().map(|result| result["level"].as_str().unwrap()).collect();
        assert_eq!(levels, ["error", "warning", "note"]);
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "my%20files/%C3%A4.yaml");
        let region = serde_json::json!({ "startLine": 1, "startColumn": 7, "endLine": 1, "endColumn": 8 });
        assert_eq!(place["region"], region);
        let change = &results[0]["fixes"][0]["artifactChanges"][0];
        assert_eq!(change["artifactLocation"]["uri"], "my%20files/%C3%A4.yaml");
        assert_eq!(change["replacements"][0]["deletedRegion"], region);
        assert_eq!(change["replacements"][0]["insertedContent"]["text"], "2");
        assert_eq!(results[1]["relatedLocations"][0]["message"]["text"], "first here");
        assert!(results[1].get("fixes").is_none());
        let clean: serde_json::Value = serde_json::from_str(&render(&[], Format::Sarif, false)).unwrap();
        assert_eq!(clean["runs"][0]["results"], serde_json::json!([]), "a clean run closes alerts");
    }

    #[test]
    fn other_formats_say_nothing_of_nothing() {
        for format in [Format::Full, Format::Concise, Format::Json, Format::Github] {
            assert_eq!(render(&[], format, false), "");
        }
    }
}
