//! `streamer list`: what inputs, steps, outputs, functions and modules there are, and all about one of them; for programs
//! also every code of lint.
use std::{fmt::Write as _, process::ExitCode};

use clap::{Args as _, FromArgMatches as _};

use super::{Command, eprint, files, print};
use crate::{
    config::Kind,
    diagnostic::{self, Format, RULES, Rule, nearest},
    registry::{Field, Found, Registry, fields, shape},
    script::{Function, Group, ModuleFunction, functions},
};

pub(super) const COMMAND: Command = Command {
    name: "list",
    about: "Lists inputs, steps, outputs and functions, or shows all about one of them",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
struct Args {
    /// Shows every setting of the components of this name, or the function, module or code of lint of this name
    component: Option<String>,
    #[command(flatten)]
    plugins: files::PluginFolder,
    /// How it is shown
    #[arg(long, value_enum, default_value = "text")]
    format: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// For people
    Text,
    /// One list of everything: components with their fields, functions, codes of lint
    Json,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let registry = args.plugins.registry(&[])?;
    eprint(&diagnostic::render(&registry.plugins().faults, Format::Full, false));
    let is_chosen = |name: &str| args.component.as_deref().is_none_or(|chosen| chosen == name);
    let all: Vec<Found> = Kind::ALL.into_iter().flat_map(|kind| registry.all(kind)).collect();
    let chosen: Vec<&Found> = all.iter().filter(|found| is_chosen(found.name())).collect();
    let chosen_functions: Vec<&Function> = functions().filter(|function| is_chosen(function.name)).collect();
    // `geo` shows a module, `geo::in_circle` one of its functions.
    let of_modules: Vec<&ModuleFunction> = registry
        .plugins()
        .functions
        .iter()
        .filter(|function| {
            let name = function.signature.split('(').next().unwrap_or_default();
            is_chosen(name) || is_chosen(name.split("::").next().unwrap_or_default())
        })
        .collect();
    let rules: Vec<&Rule> = RULES.iter().filter(|rule| is_chosen(rule.code)).collect();
    let is_nothing = chosen.is_empty() && chosen_functions.is_empty() && of_modules.is_empty() && rules.is_empty();
    if let (true, Some(name)) = (is_nothing, &args.component) {
        let names = all.iter().map(Found::name).chain(functions().map(|function| function.name));
        let names = names.chain(RULES.iter().map(|rule| rule.code));
        let hint = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`streamer list` shows them all".to_owned(),
        };
        anyhow::bail!("no input, step, output, function or code of lint is called `{name}`; {hint}");
    }
    let text = match (args.format, &args.component) {
        (Shown::Json, _) => json(&chosen, &chosen_functions, &of_modules, &rules)?,
        (Shown::Text, None) => overview(&registry),
        (Shown::Text, Some(_)) => {
            let functions = chosen_functions.iter().map(|function| of_function(function));
            let modules =
                of_modules.iter().map(|function| format!("{}\n    {}\n", function.signature, function.summary));
            let rules = rules.iter().map(|rule| of_rule(rule));
            let parts = chosen.iter().map(|found| details(found)).chain(functions).chain(modules).chain(rules);
            parts.collect::<Vec<_>>().join("\n")
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Everything as one list of objects; each says of what `kind` it is, its `name` and a `summary`.
fn json(
    chosen: &[&Found],
    functions: &[&Function],
    of_modules: &[&ModuleFunction],
    rules: &[&Rule],
) -> anyhow::Result<String> {
    let components = chosen.iter().map(|found| {
        let schema = found.schema();
        serde_json::json!({
            "kind": found.kind().word(),
            "name": found.name(),
            "summary": found.summary(),
            "example": found.example(),
            "archive": found.can_archive(),
            "plugin": matches!(found, Found::Plugin(_)),
            "value": shape(&schema),
            "fields": fields(&schema),
        })
    });
    let functions = functions.iter().map(|function| {
        serde_json::json!({
            "kind": "function",
            "name": function.name,
            "summary": function.summary,
            "group": function.group.title(),
            "signature": function.signature,
            "example": function.example,
            "gives": function.gives,
        })
    });
    let modules = of_modules.iter().map(|function| {
        let name = function.signature.split('(').next();
        serde_json::json!({
            "kind": "module function", "name": name, "summary": function.summary, "signature": function.signature,
        })
    });
    let rules = rules.iter().map(|rule| {
        serde_json::json!({
            "kind": "rule",
            "name": rule.code,
            "summary": rule.summary(),
            "level": rule.level.word(),
            "text": rule.text,
        })
    });
    let list: Vec<_> = components.chain(functions).chain(modules).chain(rules).collect();
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

fn of_rule(rule: &Rule) -> String {
    let summary = wrap(&rule.summary(), 96).join("\n    ");
    format!("{} {}\n    {summary}\n\n`streamer lint --explain {}` says more\n", rule.level.word(), rule.code, rule.code)
}

fn of_function(function: &Function) -> String {
    let Function { signature, summary, example, gives, .. } = function;
    let gives = if gives.is_empty() { String::new() } else { format!(" → {gives}") };
    let summary = wrap(summary, 96).join("\n    ");
    format!("function {signature}\n    {summary}\n\nexample\n    {example}{gives}\n")
}

fn overview(registry: &Registry) -> String {
    let mut out = String::new();
    for kind in Kind::ALL {
        let all = registry.all(kind);
        let _ = writeln!(out, "{}", kind.key());
        let width = all.iter().map(|found| found.name().len()).max().unwrap_or(0);
        for found in all {
            let note = if found.can_archive() { " Can be an `archive`." } else { "" };
            let _ = writeln!(out, "  {:<width$}  {}{note}", found.name(), found.summary());
        }
        out.push('\n');
    }
    out.push_str("functions\n");
    for group in Group::ALL {
        let names: Vec<_> = functions().filter(|function| function.group == group).map(|f| f.name).collect();
        let _ = writeln!(out, "  {}", group.title());
        for line in wrap(&names.join(", "), 96) {
            let _ = writeln!(out, "      {line}");
        }
    }
    if !registry.plugins().functions.is_empty() {
        out.push_str("\nmodules\n");
        for function in &registry.plugins().functions {
            let _ = writeln!(out, "  {}", function.signature);
        }
    }
    out.push_str("\n`streamer list NAME` shows all about one of them\n");
    out
}

fn details(found: &Found) -> String {
    let mut out = format!("{} {}\n{}\n", found.kind().word(), found.name(), found.summary());
    let (shape, all) = (shape(&found.schema()), fields(&found.schema()));
    if found.can_archive() {
        out.push_str("Can be the `archive` of a pipeline: then it keeps every message as it was received.\n");
    }
    if shape != "fields" {
        let _ = writeln!(out, "\n{}: {shape}", found.name());
    }
    if !all.is_empty() {
        out.push_str("\nsettings\n");
    }
    for Field { name, kind, default, required, description } in all {
        let note = match (default, required) {
            (Some(default), _) => format!("default {default}"),
            (None, true) => "required".to_owned(),
            (None, false) => "optional".to_owned(),
        };
        let _ = writeln!(out, "  {name}: {kind}; {note}");
        for line in wrap(&description, 96) {
            let _ = writeln!(out, "      {line}");
        }
    }
    let _ = writeln!(out, "\nexample\n{}", example(found));
    out
}

/// The example as it stands in a file.
fn example(found: &Found) -> String {
    let body = found.example().trim_matches('\n');
    let indented =
        |by: &str| body.lines().map(|line| format!("{by}{line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    // A script, a list or a single value stands right after the key when it fits on one line.
    let fields = serde_yaml::from_str::<serde_yaml::Value>(body).is_ok_and(|value| value.is_mapping());
    let name = found.name();
    let inline = !body.contains('\n') && (!fields || body.starts_with('{'));
    let block = body.starts_with(['|', '>']);
    match found.kind() {
        Kind::Step if block => format!("  steps:\n    - {name}: {}", indented("").replace('\n', "\n      ")),
        Kind::Step if inline => format!("  steps:\n    - {name}: {body}"),
        Kind::Step => format!("  steps:\n    - {name}:\n{}", indented("        ")),
        kind if inline => format!("  {}:\n    my-{name}:\n      {name}: {body}", kind.key()),
        kind => format!("  {}:\n    my-{name}:\n      {name}:\n{}", kind.key(), indented("        ")),
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("starts with one line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
