//! `streamer completions`: what a shell needs to complete commands and options.
use std::process::ExitCode;

use clap::{Args as _, FromArgMatches as _};
use clap_complete::Shell;

use super::{Command, command_line, print};

pub(super) const COMMAND: Command = Command {
    name: "completions",
    about: "Prints completions for a shell: bash, zsh, fish, elvish or powershell",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  streamer completions bash > ~/.local/share/bash-completion/completions/streamer
  streamer completions zsh > ~/.zfunc/_streamer
  streamer completions fish > ~/.config/fish/completions/streamer.fish")]
struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "streamer", &mut out);
    print(&String::from_utf8(out)?)?;
    Ok(ExitCode::SUCCESS)
}
