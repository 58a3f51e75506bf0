//! `streamer test`: runs the `tests:` of pipeline files. Connects to nothing.
use std::{path::Path, process::ExitCode, time::Duration};

use clap::{Args as _, FromArgMatches as _};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Command, FAULTS, colour, eprint, files, print};
use crate::{
    diagnostic::{self, Diagnostic, Format, Severity, line_column},
    lint::lint,
    pipeline::{Pipeline, Trial, check_case},
};

pub(super) const COMMAND: Command = Command {
    name: "test",
    about: "Runs the tests of pipeline files; exit code 0 when all pass, 1 when not",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

const EXAMPLES: &str = "\
Examples:
  streamer test                               the tests of every file in the folder `pipelines`
  streamer test my.yaml --filter battery      some of them
  streamer test --format junit > report.xml   for CI";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    named: files::Named,
    /// Only tests whose name has this text in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How results are shown
    #[arg(long, value_enum, default_value = "text")]
    format: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// For people
    Text,
    /// One JSON object a test, one a line
    Json,
    /// JUnit XML
    Junit,
}

/// One test that was run.
struct Ran {
    file: String,
    name: String,
    /// Line and column of the test.
    place: (usize, usize),
    /// What is not as it should be.
    wrong: Vec<String>,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (registry, documents) = args.named.read_all()?;
    let found = lint(&documents, &registry);
    let faults: Vec<_> = found.into_iter().filter(|fault| fault.severity == Severity::Error).collect();
    if !faults.is_empty() {
        eprint(&diagnostic::render(&faults, Format::Full, colour::stderr()));
        eprint("no test was run: the files have faults\n");
        return Ok(ExitCode::from(FAULTS));
    }
    let mut all = Vec::new();
    for document in &documents {
        let Some(config) = document.pipeline(&registry) else { continue };
        for (case, span) in &config.tests {
            if args.filter.as_ref().is_some_and(|text| !case.name.contains(text.as_str())) {
                continue;
            }
            // Each test has a pipeline of its own: steps may keep state.
            let pipeline = match Pipeline::build(&config, &registry) {
                Ok(pipeline) => pipeline,
                Err(faults) => return refuse(&faults),
            };
            let folder = Path::new(&document.file.path).parent().unwrap_or(Path::new("."));
            all.push(Ran {
                file: document.file.path.clone(),
                name: case.name.clone(),
                place: line_column(&document.file.text, span.start),
                wrong: check_case(&mut Trial::new(pipeline, None), case, folder),
            });
        }
    }
    let failed = all.iter().filter(|ran| !ran.wrong.is_empty()).count();
    print(&match args.format {
        Shown::Text => text(&all, colour::stdout()),
        Shown::Json => json(&all),
        Shown::Junit => junit(&all)?,
    })?;
    eprint(&format!("{} passed, {failed} failed\n", all.len() - failed));
    if all.is_empty() {
        eprint("there was no test to run: write some under `tests:`, docs/testing.md shows how\n");
    }
    Ok(if failed > 0 { ExitCode::from(FAULTS) } else { ExitCode::SUCCESS })
}

fn refuse(faults: &[Diagnostic]) -> anyhow::Result<ExitCode> {
    eprint(&diagnostic::render(faults, Format::Full, colour::stderr()));
    Ok(ExitCode::from(FAULTS))
}

fn text(all: &[Ran], colour: bool) -> String {
    let paint = |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let mut out = String::new();
    let mut file = "";
    for ran in all {
        if ran.file != file {
            file = &ran.file;
            out += &format!("{file}\n");
        }
        if ran.wrong.is_empty() {
            out += &format!("  {}    {}\n", paint("32", "ok"), ran.name);
            continue;
        }
        let (line, column) = ran.place;
        out += &format!("  {}  {}  ({file}:{line}:{column})\n", paint("31;1", "FAIL"), ran.name);
        for line in ran.wrong.iter().flat_map(|wrong| wrong.lines()) {
            let line = match line.chars().next() {
                Some('-') => paint("31", line),
                Some('+') => paint("32", line),
                _ => line.to_owned(),
            };
            out += &format!("        {line}\n");
        }
    }
    out
}

fn json(all: &[Ran]) -> String {
    let line = |ran: &Ran| {
        let (line, column) = ran.place;
        let result = if ran.wrong.is_empty() { "ok" } else { "failed" };
        serde_json::json!({
            "file": ran.file, "line": line, "column": column, "name": ran.name, "result": result, "wrong": ran.wrong,
        })
    };
    all.iter().map(|ran| format!("{}\n", line(ran))).collect()
}

fn junit(all: &[Ran]) -> anyhow::Result<String> {
    let mut report = Report::new("streamer");
    for ran in all {
        let mut status = TestCaseStatus::success();
        if !ran.wrong.is_empty() {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let (line, column) = ran.place;
            status.set_message(format!("{}:{line}:{column}", ran.file));
            status.set_description(ran.wrong.join("\n"));
        }
        let mut case = TestCase::new(ran.name.as_str(), status);
        case.set_time(Duration::ZERO);
        match report.test_suites.iter_mut().find(|suite| suite.name.as_str() == ran.file) {
            Some(suite) => {
                suite.add_test_case(case);
            }
            None => {
                let mut suite = TestSuite::new(ran.file.as_str());
                suite.add_test_case(case);
                report.add_test_suite(suite);
            }
        }
    }
    Ok(report.to_string()? + "\n")
}
