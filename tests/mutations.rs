//! Every node of every shipped pipeline is renamed, left out, given another type and indented wrongly, one at a time: lint
//! reports each such mistake near its place, or there is a reason why the file is still right.
use std::{fs, ops::Range, path::Path, sync::Arc};

use streamer::{
    config::{Document, Environment, Node, NodeValue, parse_plain},
    diagnostic::{Severity, SourceFile, line_column},
    lint::lint,
    registry::Registry,
};

/// One key of a file.
struct Target {
    /// Keys from the top down; items of lists have their number.
    path: Vec<String>,
    key: Range<usize>,
    value: Range<usize>,
    /// Line of the key above it.
    parent_line: usize,
    is_sequence: bool,
}

fn targets(node: &Node, path: &[String], parent_line: usize, text: &str, out: &mut Vec<Target>) {
    match &node.value {
        NodeValue::Mapping(entries) => {
            for entry in entries {
                let path = [path, std::slice::from_ref(&entry.key)].concat();
                let line = line_column(text, entry.key_span.start).0;
                out.push(Target {
                    path: path.clone(),
                    key: entry.key_span.clone(),
                    value: entry.value.span.clone(),
                    // What the file itself lacks is reported at its first key.
                    parent_line: parent_line.max(1),
                    is_sequence: matches!(entry.value.value, NodeValue::Sequence(_)),
                });
                targets(&entry.value, &path, line, text, out);
            }
        }
        NodeValue::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                targets(item, &[path, &[index.to_string()]].concat(), parent_line, text, out);
            }
        }
        NodeValue::Scalar(_) => {}
    }
}

/// Severity, line and code of every finding but notes.
fn findings(path: &str, text: &str, registry: &Registry) -> Vec<(usize, &'static str)> {
    let file = SourceFile { path: path.to_owned(), text: text.to_owned() };
    let document = Document::read(file, &Environment::default(), registry);
    let found = lint(&[document], registry);
    found
        .iter()
        .filter(|found| found.severity != Severity::Note)
        .map(|found| (found.line_column().0, found.code))
        .collect()
}

/// Why a file is still right with this change.
fn reason(kind: &str, target: &Target) -> Option<&'static str> {
    let path: Vec<&str> = target.path.iter().map(String::as_str).collect();
    Some(match (kind, path.as_slice()) {
        (_, ["tests", _, "input" | "outputs" | "inputs", ..]) => "what a test feeds and expects is free",
        (_, ["tests", ..]) if kind == "drop" => "a test may leave it out",
        ("rename", ["inputs" | "outputs", _] | ["steps", _, "set", "headers", _]) => "a name of the user's own",
        ("retype", ["steps", _, "map"] | ["inputs", _, "generate", "script"]) => "inside a block any text is a script",
        ("drop", ["name" | "description" | "steps" | "tests"] | ["dead_letter" | "archive" | "spool", ..]) => {
            "has a default, or may be left out"
        }
        ("drop", ["inputs", _, "generate", "topic"] | ["steps", _, "set", _]) => "has a default, or may be left out",
        ("drop", ["inputs" | "outputs", .., field]) if !REQUIRED.contains(field) => "has a default",
        ("rename" | "retype", ["steps", _, "geofence", "zones", ..]) => {
            "a plugin says no more of it than that it is a list"
        }
        ("drop", ["steps", _, "geofence", ..]) => "has a default, or a plugin says no more of it",
        _ => return None,
    })
}

/// Settings of the shipped pipelines that have no default.
const REQUIRED: [&str; 9] = ["url", "brokers", "topics", "topic", "group", "table", "mqtt", "kafka", "clickhouse"];

#[test]
fn every_mistake_in_a_shipped_pipeline_is_reported_near_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let registry = Registry::built_in().with_plugins(&[root.join("plugins")]).unwrap();
    let files =
        ["pipelines/mqtt-to-kafka.yaml", "pipelines/kafka-to-clickhouse.yaml", "pipelines/examples/geofence.yaml"];
    let (mut reported, mut still_right, mut wrong) = (0, 0, Vec::new());
    for name in files {
        let path = root.join(name);
        let shown = path.to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(findings(shown, &text, &registry), [], "{name} is clean as it is");
        let file = Arc::new(SourceFile { path: shown.into(), text: text.clone() });
        let (tree, faults) = parse_plain(&file);
        assert!(faults.is_empty());
        let mut all = Vec::new();
        targets(&tree.unwrap(), &[], 0, &text, &mut all);
        assert!(all.len() > 30, "only {} nodes in {name}", all.len());
        for target in &all {
            let line_start = text[..target.key.start].rfind('\n').map_or(0, |at| at + 1);
            let is_first = text[line_start..target.key.start].trim().is_empty();
            let line = line_column(&text, target.key.start).0;
            let last = line_column(&text, target.value.end).0;
            let edited = |range: Range<usize>, by: &str| format!("{}{by}{}", &text[..range.start], &text[range.end..]);
            let mut mutants = vec![
                ("rename", edited(target.key.end..target.key.end, "_x")),
                ("retype", edited(target.value.clone(), if target.is_sequence { " 7.5" } else { " [[7.5]]" })),
            ];
            if is_first {
                let end = text[target.value.end..].find('\n').map_or(text.len(), |at| target.value.end + at + 1);
                mutants.push(("drop", edited(line_start..end, "")));
                mutants.push(("indent", edited(line_start..line_start, " ")));
            }
            for (kind, mutant) in mutants {
                let found = findings(shown, &mutant, &registry);
                // What is missing is reported where it belongs; a wrong indent where the structure breaks.
                let near = match kind {
                    "indent" => 1..usize::MAX,
                    _ => target.parent_line.min(line)..last + 2,
                };
                let is_near = found.iter().any(|(line, _)| near.contains(line));
                match reason(kind, target) {
                    _ if is_near => reported += 1,
                    Some(_) => still_right += 1,
                    // A comment or a list item may be indented as one likes.
                    None if kind == "indent" && found.is_empty() && serde_yaml_equal(&text, &mutant) => {
                        still_right += 1
                    }
                    None => wrong.push(format!("{name}:{line}: {kind} {}: {found:?}", target.path.join("."))),
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{reported} reported, {still_right} still right, silent or elsewhere:\n{}",
        wrong.join("\n")
    );
    assert!(reported >= 350 && reported > still_right, "{reported} reported, {still_right} still right");
}

/// True when the two texts say the same.
fn serde_yaml_equal(one: &str, two: &str) -> bool {
    let read = |text: &str| serde_yaml::from_str::<serde_yaml::Value>(text).ok();
    read(one).is_some() && read(one) == read(two)
}
