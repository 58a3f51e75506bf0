//! The command line: one file per command. The only room that prints, and the only one that knows exit codes: 0 all
//! is well, 1 faults in the user's files, 2 could not do what was asked.
//!
//! A new command is its file and two lines here: `mod x;` and `x::COMMAND,`.
mod caret;
mod colour;
mod completions;
mod dead_letter;
mod explain;
mod files;
mod fix;
mod graph;
mod lint;
mod list;
mod logging;
mod man;
mod map;
mod new;
mod progress;
mod replay;
mod run;
mod schema;
mod test;
mod verify;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args as _, FromArgMatches as _};

/// Every command, in the order that `--help` lists them.
const COMMANDS: &[Command] = &[
    run::COMMAND,
    lint::COMMAND,
    explain::COMMAND,
    test::COMMAND,
    map::COMMAND,
    new::COMMAND,
    replay::COMMAND,
    verify::COMMAND,
    dead_letter::COMMAND,
    list::COMMAND,
    graph::COMMAND,
    schema::COMMAND,
    completions::COMMAND,
    man::COMMAND,
];

/// One command of the table.
struct Command {
    name: &'static str,
    /// One sentence for `--help`.
    about: &'static str,
    /// Adds its arguments: `Args::augment_args` of its type.
    arguments: fn(clap::Command) -> clap::Command,
    /// Does it. An error is printed and becomes exit code 2.
    run: fn(&clap::ArgMatches) -> anyhow::Result<ExitCode>,
}

/// What options are listed under that every command has.
const EVERY: &str = "Options of every command";
const FAULTS: u8 = 1;
const COULD_NOT: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  streamer run pipelines/*.yaml    run pipelines until they end or are told to stop
  streamer lint pipelines/*.yaml   check pipelines without running them
  streamer explain my.yaml         every setting and its source, the guarantee
  streamer test pipelines/*.yaml   run the tests that stand in them
  streamer map my.yaml samples     try a pipeline's steps on samples
  streamer new mqtt/map/kafka      a pipeline to start from
  streamer replay archive/x --pipeline my.yaml   do the work again from an archive
  streamer verify my.yaml          compare the table with the topic it is filled from
  streamer list                    what inputs, steps and outputs there are
  streamer list mqtt               every setting of one of them";

/// Runs the command line.
pub fn main() -> ExitCode {
    let mut command = command_line();
    let matches = match command.try_get_matches_from_mut(std::env::args_os()) {
        Ok(matches) => matches,
        Err(error) => {
            // Also `--help` and `--version`, which clap words as errors.
            let _ = error.print();
            if error.kind() == clap::error::ErrorKind::InvalidSubcommand {
                eprint(&hint(&std::env::args().skip(1).collect::<Vec<_>>()));
            }
            return ExitCode::from(if error.use_stderr() { COULD_NOT } else { 0 });
        }
    };
    let Some((name, arguments)) = matches.subcommand() else {
        eprint(&format!("{}\n", command.render_help()));
        return ExitCode::from(COULD_NOT);
    };
    let run = || {
        colour::Colours::from_arg_matches(&matches)?.choose();
        logging::Options::from_arg_matches(&matches)?.start()?;
        let command = COMMANDS.iter().find(|command| command.name == name).expect("clap knows the names of this table");
        (command.run)(arguments)
    };
    run().unwrap_or_else(|error: anyhow::Error| {
        eprint(&format!("error: {error:#}\n"));
        ExitCode::from(COULD_NOT)
    })
}

/// The command line, as `--help`, completions and the manual describe it.
pub fn command_line() -> clap::Command {
    // The options first: they bring a description of their own.
    let command = colour::Colours::augment_args(logging::Options::augment_args(clap::Command::new("streamer")))
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs declarative pipelines: messages come in, are mapped, and go out; none is lost")
        .after_help(EXAMPLES)
        .subcommand_value_name("COMMAND")
        .disable_help_subcommand(true);
    COMMANDS.iter().fold(command, |command, entry| {
        // The arguments first, again.
        let own = (entry.arguments)(clap::Command::new(entry.name));
        command.subcommand(own.about(entry.about).long_about(None))
    })
}

/// What may have been meant by arguments without a command.
fn hint(arguments: &[String]) -> String {
    let is_file =
        |text: &&String| text.ends_with(".yaml") || text.ends_with(".yml") || std::path::Path::new(text).exists();
    match arguments.iter().find(is_file) {
        Some(file) => format!("to run it: streamer run {file}\nto check it: streamer lint {file}\n"),
        None => "`streamer --help` shows all commands\n".to_owned(),
    }
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes to standard error; when that is gone nobody is left to tell.
fn eprint(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_says_what_each_command_does() {
        for command in command_line().get_subcommands() {
            let entry = COMMANDS.iter().find(|entry| entry.name == command.get_name()).unwrap();
            // Without the line breaks of a narrow terminal.
            let help = command.clone().render_long_help().to_string().replace('\n', " ");
            assert!(help.starts_with(entry.about), "{}: {help}", entry.name);
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command_line().debug_assert();
    }
}
