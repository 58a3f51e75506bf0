//! The reference pages in `docs/reference/` are the ones that the code makes: one page a component and a code of
//! lint, and one of functions.
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use streamer::{
    config::Kind,
    diagnostic::{RULES, Rule},
    registry::{Found, Registry, fields},
    script::{Group, functions},
};

#[path = "common/rules.rs"]
mod rules;

/// Every page by its path under `docs/reference/`.
fn pages() -> BTreeMap<String, String> {
    let registry = Registry::built_in();
    let mut pages = BTreeMap::new();
    let mut index =
        String::from("# Reference\n\nMade from the code by `make docs`. `streamer list NAME` shows the same.\n");
    for kind in Kind::ALL {
        writeln!(index, "\n## {}\n\n| Name | What it does |\n|---|---|", title(kind)).unwrap();
        for component in registry.all(kind) {
            let (name, file) = (component.name(), format!("{}/{}.md", kind.key(), component.name()));
            writeln!(index, "| [`{name}`]({file}) | {} |", component.summary()).unwrap();
            pages.insert(file, page(component));
        }
    }
    index.push_str("\n## Functions of scripts\n\n[Every function](functions.md), with an example. `streamer list NAME` shows one.\n");
    pages.insert("functions.md".into(), functions_page());
    index.push_str("\n## Codes of lint\n\n`streamer lint --explain CODE` shows the same.\n\n| Code | What is checked |\n|---|---|\n");
    for rule in RULES {
        let (code, file) = (rule.code, format!("rules/{}.md", rule.code));
        writeln!(index, "| [`{code}`]({file}) | {} |", rule.summary()).unwrap();
        pages.insert(file, rule_page(rule));
    }
    let mut top = streamer::cli::command_line().term_width(96).disable_help_flag(true).disable_version_flag(true);
    top.build();
    index.push_str(
        "\n## Commands\n\n`streamer COMMAND --help` shows the same.\n\n| Command | What it does |\n|---|---|\n",
    );
    for command in top.get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(index, "| [`streamer {name}`](commands/{name}.md) | {about} |").unwrap();
        pages.insert(format!("commands/{name}.md"), command_page(command));
    }
    pages.insert("README.md".into(), index);
    pages
}

/// A command's help, without the options that all commands have.
fn command_page(command: &mut clap::Command) -> String {
    let own =
        command.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg.hide_env_values(true) });
    let help = own.term_width(96).render_long_help().to_string();
    let lines = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    format!("# `streamer {}`\n\n```text\n{}\n```\n", command.get_name(), lines.trim_end())
}

/// A rule's text, with what lint says of its example.
fn rule_page(rule: &Rule) -> String {
    let said = rules::lint(rule, "Example").of(rule.code).join("\n\n");
    let (example, instead) = rule.text.split_once("\n## Write instead\n").expect("every text has both parts");
    // Blocks of that kind are not checked as examples of ours.
    let (head, example) = example.split_once("\n## Example\n").expect("every text has both parts");
    let example = example.replace("```yaml\n", "```yaml,faulty\n");
    format!("{head}\n## Example\n{example}\n```text\n{said}\n```\n\n## Write instead\n{instead}")
}

/// Every function of scripts, by group. Its examples are run by the tests of `src/script/functions/`.
fn functions_page() -> String {
    let mut out = String::from(
        "# Functions of scripts\n\nWhat streamer adds to [Rhai](https://rhai.rs/book). Made from the code by `make docs`; a test \
         runs every example.\nA function that gets a value it cannot work with makes the message a dead letter, unless its \
         text says otherwise.\n",
    );
    for group in Group::ALL {
        writeln!(out, "\n## {}\n", group.title()).unwrap();
        for function in functions().filter(|function| function.group == group) {
            writeln!(out, "### `{}`\n\n{}\n\n```rhai", function.signature, function.summary).unwrap();
            if function.gives.is_empty() {
                writeln!(out, "{}\n```\n", function.example).unwrap();
            } else {
                writeln!(out, "{}    // {}\n```\n", function.example, function.gives).unwrap();
            }
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "Inputs",
        Kind::Step => "Steps",
        Kind::Output => "Outputs",
    }
}

fn page(component: Found) -> String {
    let (kind, name) = (component.kind(), component.name());
    let schema = component.schema();
    let mut out = format!("# {} `{name}`\n\n{}\n", kind.word(), component.summary());
    // The doc comment of the settings says more after its first paragraph.
    if let Some((_, more)) = schema["description"].as_str().and_then(|text| text.split_once("\n\n")) {
        write!(out, "\n{more}\n").unwrap();
    }
    out.push_str("\n## Example\n\n```yaml\n");
    match kind {
        Kind::Step => writeln!(out, "steps:\n  - {name}:{}", under(component.example(), 6)).unwrap(),
        _ => writeln!(out, "{}:\n  example:\n    {name}:{}", kind.key(), under(component.example(), 6)).unwrap(),
    }
    out.push_str("```\n");
    let fields = fields(&schema);
    if fields.is_empty() {
        return out;
    }
    out.push_str("\n## Settings\n\n| Setting | Type | Default | |\n|---|---|---|---|\n");
    for field in fields {
        let default = match (field.required, &field.default) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("`{default}`"),
            (false, None) => String::new(),
        };
        let text = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        writeln!(out, "| `{}` | {} | {default} | {} |", field.name, text(&field.kind), text(&field.description))
            .unwrap();
    }
    out
}

/// An example as it stands under its key: beside it when it is one word, else on lines of its own.
fn under(example: &str, indent: usize) -> String {
    let example = example.trim_end();
    let lines: Vec<_> = example.lines().collect();
    if lines.len() == 1 && !example.contains(": ") || example.starts_with(['|', '{']) && lines.len() == 1 {
        return format!(" {example}");
    }
    let block = example.starts_with('|');
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        if number == 0 && block {
            write!(out, " {line}").unwrap();
        } else {
            write!(out, "\n{}{line}", " ".repeat(indent)).unwrap();
        }
    }
    out
}

/// `UPDATE=1 cargo test --test reference` writes them anew.
#[test]
fn the_reference_is_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    let mut stale = Vec::new();
    for (file, text) in pages() {
        let path = folder.join(&file);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            stale.push(file);
        }
    }
    assert!(stale.is_empty(), "stale in docs/reference: {stale:?}; run: make docs");
}

#[test]
fn no_page_is_left_of_a_component_that_is_gone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    let pages = pages();
    for part in Kind::ALL.iter().map(|kind| kind.key()).chain(["rules", "commands"]) {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let file = format!("{part}/{}", entry.unwrap().file_name().to_str().unwrap());
            assert!(pages.contains_key(&file), "docs/reference/{file} is about nothing any more; delete it");
        }
    }
}
