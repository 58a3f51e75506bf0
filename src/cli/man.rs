//! `streamer man`: the manual pages, made from the same declarations as `--help`.
use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};
use clap_mangen::Man;

use super::{Command, command_line, eprint, print};

pub(super) const COMMAND: Command = Command {
    name: "man",
    about: "Prints the manual page, or writes all of them into a folder",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  streamer man | man -l -
  streamer man lint | man -l -
  streamer man --folder ~/.local/share/man/man1")]
struct Args {
    /// The command that the page is about; `streamer` itself without it
    command: Option<String>,
    /// Writes a page for each command into this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    folder: Option<PathBuf>,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut top = command_line();
    // Gives the commands their full names.
    top.build();
    let commands: Vec<clap::Command> = top.get_subcommands().cloned().collect();
    if let Some(folder) = &args.folder {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        for command in std::iter::once(&top).chain(&commands) {
            let path = folder.join(format!("{}.1", title(command)));
            std::fs::write(&path, page(command)?).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        eprint(&format!("wrote {} pages to `{}`\n", commands.len() + 1, folder.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let command = match &args.command {
        None => &top,
        Some(name) => commands.iter().find(|command| command.get_name() == name).with_context(|| {
            let names: Vec<_> = commands.iter().map(|command| format!("`{}`", command.get_name())).collect();
            format!("there is no command `{name}`; there are {}", names.join(", "))
        })?,
    };
    print(&String::from_utf8(page(command)?)?)?;
    Ok(ExitCode::SUCCESS)
}

/// `streamer`, `streamer-lint`.
fn title(command: &clap::Command) -> String {
    match command.get_name() {
        "streamer" => "streamer".to_owned(),
        name => format!("streamer-{name}"),
    }
}

fn page(command: &clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    Man::new(command.clone()).title(title(command)).render(&mut out)?;
    Ok(out)
}
