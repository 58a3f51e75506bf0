//! `streamer explain`: what pipeline files amount to. Connects to nothing.
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};

use super::{Command, FAULTS, eprint, files, print};
use crate::{
    diagnostic::{self, Diagnostic, Format},
    explain::explain,
    lint::lint,
};

pub(super) const COMMAND: Command = Command {
    name: "explain",
    about: "Shows what pipeline files amount to: settings and their sources, the guarantee, which scripts are compiled",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

const EXAMPLES: &str = "\
Examples:
  streamer explain pipelines/mqtt-to-kafka.yaml
  MQTT_BROKER=prod streamer explain --format json my.yaml    with the variables of a run";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    named: files::Named,
    /// How it is shown
    #[arg(long, value_enum, default_value = "text")]
    format: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// For people
    Text,
    /// One JSON object a file
    Json,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (registry, documents) = args.named.read()?;
    let faults: Vec<_> = lint(&documents, &registry).into_iter().filter(Diagnostic::is_error).collect();
    if !faults.is_empty() {
        eprint(&diagnostic::render(&faults, Format::Full, false));
        return Ok(ExitCode::from(FAULTS));
    }
    for (number, document) in documents.iter().enumerate() {
        let explanation = explain(document, &registry)
            .with_context(|| format!("`{}` has no input or no output", document.file.path))?;
        let between = if number > 0 { "\n" } else { "" };
        print(&match args.format {
            Shown::Text => format!("{between}{}", explanation.text()),
            Shown::Json => serde_json::to_string(&explanation)? + "\n",
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
