//! `streamer lint`: every fault of pipeline files, with its place and what to write instead. Connects to nothing, unless
//! `--connect` asks for it.
use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use clap::{Args as _, FromArgMatches as _};

use super::{Command, FAULTS, colour, eprint, files, fix, print};
use crate::{
    diagnostic::{self, Diagnostic, Format, RULES, Severity, nearest, rule},
    lint::{lint, lint_connected},
};

pub(super) const COMMAND: Command = Command {
    name: "lint",
    about: "Checks pipeline files; exit code 0 when they are clean, 1 when not",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

const EXAMPLES: &str = "\
Examples:
  streamer lint                              every file in the folder `pipelines`
  streamer lint my.yaml plugins/geo.rhai     a pipeline, and a module of functions
  streamer lint --fix pipelines              corrects what has one right way
  streamer lint --connect pipelines          asks the brokers and servers, too
  streamer lint --explain unknown-field      what a code means";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    named: files::Named,
    /// How faults are shown
    #[arg(long, value_enum, default_value = "full")]
    format: Shown,
    /// Writes corrections into the files where there is one right way, and shows them; nothing else is touched
    #[arg(long)]
    fix: bool,
    /// Shows what `--fix` would change, and writes nothing
    #[arg(long, visible_alias = "dry-run")]
    diff: bool,
    /// Also asks the brokers and servers that the files name, and writes nothing there
    #[arg(long, conflicts_with_all = ["fix", "diff", "explain"])]
    connect: bool,
    /// Longest time for the answers of all of them, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", requires = "connect", value_parser = clap::value_parser!(u64).range(1..=600))]
    connect_timeout: u64,
    /// Says what a code means, with an example and what to write instead
    #[arg(long, value_name = "CODE", conflicts_with = "files")]
    explain: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// With the lines they are in
    Full,
    /// One line each: `file:line:column: error[code] title`
    Concise,
    /// One JSON object a line
    Json,
    /// One SARIF 2.1.0 log, for code hosts
    Sarif,
    /// Annotations of GitHub Actions
    Github,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(code) = &args.explain {
        print(explain(code)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.diff {
        let (left, _) = fix::run(&args.named, false)?;
        return Ok(if left.iter().any(Diagnostic::is_error) { ExitCode::from(FAULTS) } else { ExitCode::SUCCESS });
    }
    let (found, files) = if args.fix {
        fix::run(&args.named, true)?
    } else {
        let read = args.named.read_changed(&BTreeMap::new())?;
        let (documents, registry) = (&read.documents, &read.registry);
        let found = if args.connect {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let limit = Duration::from_secs(args.connect_timeout);
            let found = runtime.block_on(lint_connected(documents, registry, limit));
            runtime.shutdown_background();
            found
        } else {
            lint(documents, registry)
        };
        (read.own(found), read.files())
    };
    let format = match args.format {
        Shown::Full => Format::Full,
        Shown::Concise => Format::Concise,
        Shown::Json => Format::Json,
        Shown::Sarif => Format::Sarif,
        Shown::Github => Format::Github,
    };
    print(&diagnostic::render(&found, format, colour::stdout()))?;
    eprint(&summary(&found, files));
    if let (Shown::Full, Some(first)) = (args.format, found.iter().min_by_key(|found| found.severity)) {
        eprint(&format!("`streamer lint --explain {}` says more; so for every code\n", first.code));
    }
    Ok(if found.iter().any(Diagnostic::is_error) { ExitCode::from(FAULTS) } else { ExitCode::SUCCESS })
}

/// What a code means.
fn explain(code: &str) -> anyhow::Result<&'static str> {
    // As it is shown: `error[unknown-field]`.
    let bare = code.rsplit('[').next().unwrap_or_default().trim_end_matches(']');
    if let Some(rule) = rule(bare) {
        return Ok(rule.text);
    }
    let codes = || RULES.iter().map(|rule| rule.code);
    match nearest(bare, codes()) {
        Some(near) => anyhow::bail!("no code is called `{code}`; did you mean `{near}`?"),
        None => anyhow::bail!("no code is called `{code}`; there are: {}", codes().collect::<Vec<_>>().join(", ")),
    }
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
