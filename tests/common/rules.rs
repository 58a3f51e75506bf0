//! The examples in the texts of the rules (`src/diagnostic/rules/`), linted.
use std::{fs, path::Path, process::Command};

use streamer::diagnostic::Rule;

/// What lint says of one part of a rule's text.
pub struct Linted {
    /// Everything that was printed, each finding apart from the next by an empty line.
    pub output: String,
}

impl Linted {
    /// The findings with this code, as they were printed.
    pub fn of(&self, code: &str) -> Vec<&str> {
        let is_of = |finding: &&str| finding.lines().next().is_some_and(|line| line.contains(&format!("[{code}]")));
        self.output.trim_end().split("\n\n").filter(is_of).collect()
    }
}

/// Lints the part of a rule's text under `## heading`: each block of `yaml` is a file of one run, and a block after the
/// line "Save as `…`" is a file beside them. What a pipeline needs and the block does not show is added below it.
pub fn lint(rule: &Rule, heading: &str) -> Linted {
    let title = format!("\n## {heading}\n");
    let part = rule.text.split(&title).nth(1).unwrap_or_else(|| panic!("{} has no part `{heading}`", rule.code));
    let part = part.split("\n## ").next().unwrap_or_default();
    let folder = tempfile::tempdir().unwrap();
    let (mut pipelines, mut save_as, mut open) = (Vec::new(), None::<String>, None::<String>);
    for line in part.lines() {
        match (&mut open, line.starts_with("```")) {
            (None, true) => open = Some(String::new()),
            (None, false) => {
                let named = line.strip_prefix("Save as `").and_then(|rest| rest.split('`').next());
                save_as = named.map(str::to_owned).or(save_as);
            }
            (Some(block), false) => *block += &format!("{line}\n"),
            (Some(_), true) => {
                let block = open.take().unwrap();
                match save_as.take() {
                    Some(name) => save(folder.path(), &name, &block),
                    None => pipelines.push(complete(rule.code, block)),
                }
            }
        }
    }
    assert!(open.is_none(), "{}: a block is not closed", rule.code);
    if pipelines.is_empty() {
        pipelines.push(complete(rule.code, String::new()));
    }
    let mut files = Vec::new();
    for (index, text) in pipelines.iter().enumerate() {
        let name =
            if pipelines.len() == 1 { "pipeline.yaml".to_owned() } else { format!("{}.yaml", ["a", "b", "c"][index]) };
        save(folder.path(), &name, text);
        files.push(name);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamer"));
    let output = command.arg("lint").args(files).current_dir(folder.path()).env_clear().output().unwrap();
    assert_ne!(output.status.code(), Some(2), "{}: {}", rule.code, String::from_utf8_lossy(&output.stderr));
    Linted { output: String::from_utf8(output.stdout).unwrap() }
}

fn save(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn complete(code: &str, mut text: String) -> String {
    let needed = [
        ("inputs", "inputs:\n  in: { generate: { count: 1 } }\n"),
        ("outputs", "outputs:\n  out: { drop: {} }\n"),
        ("dead_letter", "dead_letter:\n  drop: {}\n"),
    ];
    for (key, lines) in needed {
        let is_there = text.lines().any(|line| line.starts_with(&format!("{key}:")));
        let is_about = key == "dead_letter" && code == "missing-dead-letter";
        if !is_there && !is_about {
            text.push_str(lines);
        }
    }
    text
}
