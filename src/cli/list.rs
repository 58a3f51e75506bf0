//! `streamer list`: what inputs, steps and outputs there are, and every setting of one of them.
use std::{fmt::Write as _, process::ExitCode};

use clap::{Args as _, FromArgMatches as _};

use super::{Command, print};
use crate::{
    config::Kind,
    diagnostic::nearest,
    registry::{Field, Found, Registry, fields, shape},
};

pub(super) const COMMAND: Command = Command {
    name: "list",
    about: "Lists inputs, steps and outputs, or every setting of one of them",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
struct Args {
    /// Shows every setting of the components of this name
    component: Option<String>,
    /// How it is shown
    #[arg(long, value_enum, default_value = "text")]
    format: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    Text,
    Json,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let registry = Registry::built_in();
    let all: Vec<Found> = Kind::ALL.into_iter().flat_map(|kind| registry.all(kind)).collect();
    let chosen: Vec<Found> = match &args.component {
        Some(name) => all.iter().filter(|found| found.name() == name).copied().collect(),
        None => all.clone(),
    };
    if let (true, Some(name)) = (chosen.is_empty(), &args.component) {
        let hint = match nearest(name, all.iter().map(Found::name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`streamer list` shows them all".to_owned(),
        };
        anyhow::bail!("no input, step or output is called `{name}`; {hint}");
    }
    let text = match (args.format, &args.component) {
        (Shown::Json, _) => json(&chosen)?,
        (Shown::Text, None) => overview(&registry),
        (Shown::Text, Some(_)) => chosen.iter().map(details).collect::<Vec<_>>().join("\n"),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn json(chosen: &[Found]) -> anyhow::Result<String> {
    let list: Vec<_> = chosen
        .iter()
        .map(|found| {
            serde_json::json!({
                "kind": found.kind().word(),
                "name": found.name(),
                "summary": found.summary(),
                "example": found.example(),
                "fields": fields(&found.schema()),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

fn overview(registry: &Registry) -> String {
    let mut out = String::new();
    for kind in Kind::ALL {
        let all = registry.all(kind);
        let _ = writeln!(out, "{}", kind.key());
        let width = all.iter().map(|found| found.name().len()).max().unwrap_or(0);
        for found in all {
            let _ = writeln!(out, "  {:<width$}  {}", found.name(), found.summary());
        }
        out.push('\n');
    }
    out.push_str("`streamer list NAME` shows every setting of one of them\n");
    out
}

fn details(found: &Found) -> String {
    let mut out = format!("{} {}\n{}\n", found.kind().word(), found.name(), found.summary());
    let (shape, all) = (shape(&found.schema()), fields(&found.schema()));
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
