//! `streamer schema`: the JSON Schema of a pipeline file, for editors (`# yaml-language-server: $schema=…`).
use std::process::ExitCode;

use clap::{Args as _, FromArgMatches as _};

use super::{Command, files, print};
use crate::registry::pipeline_schema;

pub(super) const COMMAND: Command = Command {
    name: "schema",
    about: "Prints the JSON Schema of a pipeline file, for editors",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
struct Args {
    #[command(flatten)]
    plugins: files::PluginFolder,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    print(&(serde_json::to_string_pretty(&pipeline_schema(&args.plugins.registry(&[])?))? + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
