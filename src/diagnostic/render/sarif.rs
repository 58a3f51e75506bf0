//! SARIF 2.1.0, which code hosts read. <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>
use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Component, Path},
};

use serde_json::{Value as Json, json};

use super::{Diagnostic, Region, severity};
use crate::diagnostic::rule;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

pub(super) fn render(diagnostics: &[Diagnostic]) -> String {
    let codes: BTreeSet<&str> = diagnostics.iter().map(|found| found.code).collect();
    let rules: Vec<Json> = codes.iter().map(|code| descriptor(code)).collect();
    let index = |code: &str| codes.iter().position(|known| *known == code);
    let results: Vec<Json> = diagnostics.iter().map(|found| result(found, index(found.code))).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "streamer", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&log).expect("a JSON value can be written")
}

/// What a rule says of itself.
fn descriptor(code: &str) -> Json {
    let mut descriptor = json!({ "id": code });
    if let Some(rule) = rule(code) {
        descriptor["shortDescription"] = json!({ "text": rule.summary() });
        descriptor["help"] = json!({ "text": rule.text, "markdown": rule.text });
    }
    descriptor
}

fn result(found: &Diagnostic, index: Option<usize>) -> Json {
    let mut text = found.title.clone();
    for more in [Some(&found.label), found.help.as_ref()].into_iter().flatten().filter(|more| !more.is_empty()) {
        text.push_str(&format!("\n{more}"));
    }
    let mut result = json!({
        "ruleId": found.code,
        "ruleIndex": index,
        "level": severity(found),
        "message": { "text": text },
        "locations": [{ "physicalLocation": place(found, &found.span) }],
    });
    if let Some((span, label)) = &found.other {
        let place = place(found, span);
        result["relatedLocations"] = json!([{ "physicalLocation": place, "message": { "text": label } }]);
    }
    if !found.fix.is_empty() {
        let replacement = |edit: &super::super::Edit| json!({ "deletedRegion": region(&found.file.text, &edit.span), "insertedContent": { "text": edit.text } });
        let replacements: Vec<Json> = found.fix.iter().map(replacement).collect();
        result["fixes"] = json!([{
            "description": { "text": found.label },
            "artifactChanges": [{ "artifactLocation": { "uri": uri(&found.file.path) }, "replacements": replacements }],
        }]);
    }
    result
}

fn place(found: &Diagnostic, span: &Range<usize>) -> Json {
    json!({ "artifactLocation": { "uri": uri(&found.file.path) }, "region": region(&found.file.text, span) })
}

fn region(text: &str, span: &Range<usize>) -> Json {
    let Region { line, column, end_line, end_column } = Region::of(text, span);
    json!({ "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column })
}

/// A path as a URI: relative ones stay so, which code hosts take as relative to the repository.
fn uri(path: &str) -> String {
    let mut out = String::new();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::Prefix(_) => out.push_str("file://"),
            Component::CurDir => continue,
            Component::ParentDir => out.push_str(".."),
            Component::Normal(name) => {
                for byte in name.to_string_lossy().bytes() {
                    match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
                        _ => out.push_str(&format!("%{byte:02X}")),
                    }
                }
            }
        }
        out.push('/');
    }
    out.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("./pipelines/a b.yaml"), "pipelines/a%20b.yaml");
        assert_eq!(uri("../a.yaml"), "../a.yaml");
        assert_eq!(uri("/srv/a#1.yaml"), "file:///srv/a%231.yaml");
        assert_eq!(uri("<stdin>"), "%3Cstdin%3E");
    }
}
