//! Every code that lint can report has a text, and its examples show what they say.
use std::{collections::BTreeSet, fs, path::Path};

use streamer::diagnostic::RULES;

#[path = "common/rules.rs"]
mod rules;

/// Codes that only `--connect` finds.
const ASKS: &[&str] = &[
    "absent-table",
    "absent-topic",
    "broker-limit",
    "compacted-topic",
    "foreign-member",
    "idle-member",
    "message-limit",
    "missing-right",
    "no-deduplication",
    "not-checked",
    "one-partition",
    "refused-sign-in",
    "refused-subscription",
    "topic-unavailable",
    "unfit-table",
    "unreachable-server",
];

/// Codes that are errors only when a server has confirmed them; without one they are warnings.
const SURER_WITH_A_SERVER: &[&str] = &["unfit-value", "unknown-column"];

#[test]
fn codes_that_need_a_server_say_so() {
    let said: Vec<_> =
        RULES.iter().filter(|rule| rule.text.contains("Found by `streamer lint --connect` alone")).collect();
    assert_eq!(said.iter().map(|rule| rule.code).collect::<Vec<_>>(), ASKS);
}

#[test]
fn every_example_has_its_fault_and_every_correction_is_clean() {
    let mut wrong = Vec::new();
    for rule in RULES {
        let bad = rules::lint(rule, "Example");
        let level = if SURER_WITH_A_SERVER.contains(&rule.code) { "warning" } else { rule.level.word() };
        // What servers answer is shown in tests/connect.rs; without them the example is nothing to find fault with.
        if ASKS.contains(&rule.code) {
            if bad.output.contains("error[") {
                wrong.push(format!("the example of `{}` has another fault:\n{}", rule.code, bad.output));
            }
        } else if bad.of(rule.code).is_empty() {
            wrong.push(format!("the example of `{}` does not show it:\n{}", rule.code, bad.output));
        } else if !bad.output.contains(&format!("{level}[{}]", rule.code)) {
            wrong.push(format!("`{}` is not of level {level}:\n{}", rule.code, bad.output));
        }
        let good = rules::lint(rule, "Write instead");
        if !good.of(rule.code).is_empty() || good.output.contains("error[") || good.output.contains("warning[") {
            wrong.push(format!("the correction of `{}` is not clean:\n{}", rule.code, good.output));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(folder: &Path, out: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            // The table itself says nothing, and tests make faults up.
            && !path.ends_with("diagnostic/rules.rs")
            && !path.ends_with("tests.rs")
        {
            let text = fs::read_to_string(&path).unwrap();
            out.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
        }
    }
}

#[test]
fn every_code_is_explained() {
    let codes: Vec<&str> = RULES.iter().map(|rule| rule.code).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "sort them, once each: {codes:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: BTreeSet<String> = fs::read_dir(root.join("diagnostic/rules"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().replace(".md", ""))
        .collect();
    assert_eq!(files.iter().map(String::as_str).collect::<Vec<_>>(), codes, "a text is not in the table");
    for rule in RULES {
        assert!(rule.text.starts_with(&format!("# `{}`\n", rule.code)), "{}: the title", rule.code);
        assert!(!rule.summary().is_empty() && rule.text.contains("\n## Why it matters\n"), "{}", rule.code);
    }
    let mut source = String::new();
    sources(&root, &mut source);
    for code in &codes {
        assert!(source.contains(&format!("\"{code}\"")), "nothing reports `{code}` any more; delete its text");
    }
    let mut unexplained = BTreeSet::new();
    for call in ["Fault::new(", "Diagnostic::error(", "self.fault(", ".fault("] {
        for (at, _) in source.match_indices(call) {
            let rest = source[at + call.len()..].trim_start();
            let code = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let is_code = code.contains('-') || call.contains("::");
            if is_code && !code.is_empty() && !codes.contains(&code) {
                unexplained.insert(code.to_owned());
            }
        }
    }
    // What `streamer map` shows of a message is no fault of a file.
    unexplained.remove("dead-letter");
    assert!(unexplained.is_empty(), "no text in src/diagnostic/rules for {unexplained:?}");
}
