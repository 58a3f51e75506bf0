//! `streamer lint`: every fault of pipeline files, with its place and what to write instead. Connects to nothing.
use std::process::ExitCode;

use clap::{Args as _, FromArgMatches as _};

use super::{Command, FAULTS, colour, eprint, files, print};
use crate::{
    diagnostic::{self, Diagnostic, Format, Severity},
    lint::lint,
};

pub(super) const COMMAND: Command = Command {
    name: "lint",
    about: "Checks pipeline files; exit code 0 when they are clean, 1 when not",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
struct Args {
    #[command(flatten)]
    named: files::Named,
    /// How faults are shown
    #[arg(long, value_enum, default_value = "full")]
    format: Shown,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shown {
    /// With the lines they are in
    Full,
    /// One line each: `file:line:column: error[code] title`
    Concise,
    /// One JSON object a line
    Json,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (registry, documents) = args.named.read()?;
    let found = lint(&documents, &registry);
    let format = match args.format {
        Shown::Full => Format::Full,
        Shown::Concise => Format::Concise,
        Shown::Json => Format::Json,
    };
    print(&diagnostic::render(&found, format, colour()))?;
    eprint(&summary(&found, documents.len()));
    Ok(if found.iter().any(Diagnostic::is_error) { ExitCode::from(FAULTS) } else { ExitCode::SUCCESS })
}

/// `2 errors, 1 warning in 3 files`
fn summary(found: &[Diagnostic], files: usize) -> String {
    let of = |severity| found.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let parts = [(of(Severity::Error), "error"), (of(Severity::Warning), "warning")];
    let faults: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| count(*n, noun)).collect();
    let mut parts = if faults.is_empty() { vec!["no faults".to_owned()] } else { faults };
    let notes = of(Severity::Note);
    if notes > 0 {
        parts.push(count(notes, "note"));
    }
    format!("{} in {}\n", parts.join(", "), count(files, "file"))
}
