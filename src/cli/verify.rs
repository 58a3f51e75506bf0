//! `streamer verify`: compares a pipeline's ClickHouse table with the Kafka topics it is filled from.
use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};

use super::{COULD_NOT, Command, FAULTS, colour, eprint, files, print, progress::Shown as Progress};
use crate::{
    config::{Document, Environment},
    dead_letter::moment,
    diagnostic::{self, Format, Severity},
    lint::lint,
    pipeline::Pipeline,
    verify::{Difference, Example, Options, Report, verify},
};

pub(super) const COMMAND: Command = Command {
    name: "verify",
    about: "Compares a pipeline's ClickHouse table with its Kafka topics: what is missing, doubled or from elsewhere",
    arguments: Args::augment_args,
    run: |matches| Args::from_arg_matches(matches)?.run(),
};

const EXAMPLES: &str = "\
It only reads, joins no group and commits nothing; the pipeline may run meanwhile.
Exit code 0 when the table has what it should have, 1 when not, 2 when that is not known.

Examples:
  streamer verify pipelines/kafka-to-clickhouse.yaml
  streamer verify pipelines/kafka-to-clickhouse.yaml --by device_id,ts
  streamer verify pipelines/kafka-to-clickhouse.yaml --by device_id,ts --since 24h
  streamer verify pipelines/kafka-to-clickhouse.yaml --by device_id,ts --format json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Args {
    /// The pipeline file: one `kafka` input, one `clickhouse` output
    #[arg(value_name = "PIPELINE")]
    pipeline: PathBuf,
    /// Columns that tell rows apart, so that missing and doubled rows are found and not only counted
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    by: Vec<String>,
    /// Only messages from this time on: `2026-01-31T08:00:00Z`, `2026-01-31`, or `90m` for 90 minutes ago
    #[arg(long, value_name = "TIME", requires = "by")]
    since: Option<String>,
    /// Only messages before this time
    #[arg(long, value_name = "TIME", requires = "by")]
    until: Option<String>,
    /// Most examples of each kind of difference, up to 1000: each message is read once more
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    limit: u16,
    /// Most memory for the keys of --by, in bytes; a key takes up to 141
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..))]
    memory_bytes_max: u64,
    /// How it is shown
    #[arg(long, value_enum, default_value = "text")]
    format: Shown,
    #[command(flatten)]
    plugins: files::PluginFolder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// For people
    Text,
    /// One JSON object
    Json,
}

impl Args {
    fn run(self) -> anyhow::Result<ExitCode> {
        let time = |text: &Option<String>| text.as_deref().map(moment).transpose().map_err(anyhow::Error::msg);
        let (since, until) = (time(&self.since)?, time(&self.until)?);
        if let (Some(since), Some(until)) = (since, until) {
            anyhow::ensure!(
                since < until,
                "nothing is from {since} on and before {until}; --since is the earlier of the two"
            );
        }
        let registry = self.plugins.registry(std::slice::from_ref(&self.pipeline))?;
        let shown = self.pipeline.display();
        let document = Document::open(&self.pipeline, &Environment::of_process(), &registry)
            .with_context(|| format!("cannot read `{shown}`"))?;
        let documents = [document];
        let found = lint(&documents, &registry);
        let faults: Vec<_> = found.into_iter().filter(|fault| fault.severity == Severity::Error).collect();
        let built = match documents[0].pipeline(&registry) {
            Some(config) if faults.is_empty() => Pipeline::build(&config, &registry).map(|built| (config, built)),
            None if faults.is_empty() => anyhow::bail!("`{shown}` has no input or no output"),
            _ => Err(faults),
        };
        let (config, pipeline) = match built {
            Ok(built) => built,
            Err(faults) => {
                eprint(&diagnostic::render(&faults, Format::Full, colour::stderr()));
                return Ok(ExitCode::from(COULD_NOT));
            }
        };
        let options = Options {
            by: self.by.iter().map(|column| column.trim().to_owned()).collect(),
            examples_max: self.limit.into(),
            memory_bytes_max: usize::try_from(self.memory_bytes_max).unwrap_or(usize::MAX),
            since,
            until,
        };
        // Its own thread keeps connections alive while this one reads topics.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut progress = Progress::new("messages");
        let done = runtime.block_on(verify(&config, pipeline, &options, &mut |read, all| progress.set(read, all)));
        progress.end();
        runtime.shutdown_background();
        let report = done?;
        print(&match self.format {
            Shown::Text => text(&report),
            Shown::Json => json(&report)?,
        })?;
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(FAULTS) })
    }
}

fn json(report: &Report) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(report)?;
    value["clean"] = report.is_clean().into();
    Ok(format!("{value}\n"))
}

fn text(report: &Report) -> String {
    let mut out = format!("{}\n{}, group `{}`\n", report.table, report.topics, report.group);
    match (&report.since, &report.until) {
        (None, None) => {}
        (Some(since), None) => out += &format!("messages from {since} on\n"),
        (None, Some(until)) => out += &format!("messages before {until}\n"),
        (Some(since), Some(until)) => out += &format!("messages from {since} on and before {until}\n"),
    }
    out.push('\n');
    let name = report.partitions.iter().map(|partition| partition.topic.len()).max().unwrap_or(0).max(5);
    let mut line = |cells: [&str; 8]| {
        let [topic, partition, first, position, end, done, ahead, empty] = cells;
        let _ = writeln!(
            out,
            "{topic:name$}  {partition:>9}  {first:>10}  {position:>10}  {end:>10}  {done:>10}  {ahead:>10}  {empty:>10}"
        );
    };
    line(["topic", "partition", "first", "position", "end", "done", "ahead", "empty"]);
    for p in &report.partitions {
        let position = p.position.map_or_else(|| "none".to_owned(), |at| at.to_string());
        let numbers = [i64::from(p.partition), p.first, p.end].map(|number| number.to_string());
        let counts = [p.done, p.ahead, p.empty].map(|number| number.to_string());
        let [partition, first, end] = &numbers;
        let [done, ahead, empty] = &counts;
        line([&p.topic, partition, first, &position, end, done, ahead, empty]);
    }
    let Report { messages, rows_due, filtered, dead_letters, rows_ahead, rows, .. } = report;
    let _ = writeln!(
        out,
        "\n{messages} messages below the group's positions: {rows_due} rows, {filtered} filtered, {dead_letters} dead letters"
    );
    if *rows_ahead > 0 {
        let _ = writeln!(out, "{rows_ahead} rows of messages from there on may be in the table or not");
    }
    let _ = writeln!(out, "{rows} rows in the table\n");
    for (count, difference, what) in [
        (report.missing, Difference::Missing, "missing: rows that should be in the table"),
        (report.doubled, Difference::Doubled, "doubled: rows more than messages with their key"),
        (report.foreign, Difference::Foreign, "foreign: rows that no message of the topics makes"),
        (
            report.unaccounted,
            Difference::Unaccounted,
            if report.has_bounds() {
                "unaccounted: rows of messages of other times, or of none; no difference"
            } else {
                "unaccounted: rows without a message in the topics, which no longer have their first messages; no difference"
            },
        ),
    ] {
        if count > 0 {
            let _ = writeln!(out, "{count} {what}");
            report.examples.iter().filter(|example| example.difference == difference).for_each(|e| out += &shown(e));
        }
    }
    if report.is_clean() {
        out += if report.by.is_empty() {
            "clean: as many rows as messages make; --by compares which\n"
        } else {
            "clean: each message has its row, once\n"
        };
    }
    out
}

fn shown(example: &Example) -> String {
    let key: Vec<_> = example.key.iter().map(|(column, value)| format!("{column}={value}")).collect();
    let place = match (&example.topic, example.partition, example.offset) {
        (Some(topic), Some(partition), Some(offset)) => format!("  {topic} partition {partition} offset {offset}"),
        _ => String::new(),
    };
    format!("  {}{place}  rows: {}, due: {}\n", key.join(" "), example.rows, example.due)
}
