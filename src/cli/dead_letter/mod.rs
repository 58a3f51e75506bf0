//! `streamer dead-letter`: reads a pipeline's dead letters back, shows them, and sends them again.
mod export;
mod list;
mod redrive;
mod show;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};

use super::{Command, files};
use crate::{
    config::{self, Document, Environment},
    dead_letter::{Entry, Filter, Id, Kept, Store, Survey, moment, survey},
    registry::Registry,
};

pub(super) const COMMAND: Command = Command {
    name: "dead-letter",
    about: "Lists dead letters, shows them, sends them again after a repair, exports them",
    arguments: Arguments::augment_args,
    run: |matches| Arguments::from_arg_matches(matches)?.run(),
};

const EXAMPLES: &str = "\
Examples:
  streamer dead-letter list --pipeline pipelines/kafka-to-clickhouse.yaml
  streamer dead-letter show 0:42 --pipeline pipelines/kafka-to-clickhouse.yaml
  streamer dead-letter redrive --pipeline pipelines/kafka-to-clickhouse.yaml --reason column-range
  streamer dead-letter export --pipeline pipelines/kafka-to-clickhouse.yaml --since 2h > letters.jsonl";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Shows what failed, in groups: how many, since when, and an example
    List(list::List),
    /// Shows one letter whole: its reason at the line of the mapping, its headers, its original bytes
    Show(show::Show),
    /// Sends open letters again, after a repair
    Redrive(redrive::Redrive),
    /// Writes letters as JSON lines, and their payloads as files
    Export(export::Export),
}

impl Arguments {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::List(list) => list.run(),
            Action::Show(show) => show.run(),
            Action::Redrive(redrive) => redrive.run(),
            Action::Export(export) => export.run(),
        }
    }
}

/// Whose dead letters.
#[derive(Debug, clap::Args)]
struct Whose {
    /// The pipeline file; its `dead_letter:` says where the letters are
    #[arg(long, value_name = "FILE")]
    pipeline: PathBuf,
    /// Folder where `streamer run` has its state: payloads too large for the dead-letter topic lie there
    #[arg(long, env = "STATE_DIR", default_value = "state", value_name = "FOLDER")]
    state_dir: PathBuf,
    #[command(flatten)]
    plugins: files::PluginFolder,
}

/// A pipeline file, and where its dead letters are.
struct Opened {
    registry: Registry,
    documents: [Document; 1],
    config: config::Pipeline,
    store: Store,
    kept: Kept,
}

impl Whose {
    /// Reads the file. Faults of its steps do not matter here: dead letters can be looked at while they are mended.
    fn open(&self) -> anyhow::Result<Opened> {
        let registry = self.plugins.registry(std::slice::from_ref(&self.pipeline))?;
        let shown = self.pipeline.display();
        let document = Document::open(&self.pipeline, &Environment::of_process(), &registry)
            .with_context(|| format!("cannot read `{shown}`"))?;
        let config = document
            .pipeline(&registry)
            .with_context(|| format!("`{shown}` is no pipeline yet; `streamer lint {shown}` says what is missing"))?;
        let Some(component) = &config.dead_letter else {
            anyhow::bail!("`{shown}` has no `dead_letter:` that says where its dead letters are");
        };
        let store = Store::of(component)?;
        let kept = Kept::below(&self.state_dir);
        Ok(Opened { registry, documents: [document], config, store, kept })
    }
}

impl Opened {
    fn name(&self) -> &str {
        &self.config.name
    }

    /// Reads the store once.
    fn survey(&self, filter: &Filter, stretch: Option<i64>) -> anyhow::Result<Survey> {
        Ok(survey(&self.store, self.name(), filter, stretch, &mut || {})?)
    }
}

/// Which of them.
#[derive(Clone, Debug, Default, clap::Args)]
struct Which {
    /// Only with this code, or with these words in the reason
    #[arg(long, value_name = "CODE OR WORDS")]
    reason: Option<String>,
    /// Only of this stage: `steps[0]`, `outputs.table`, or `steps` for all of them
    #[arg(long, value_name = "STAGE")]
    step: Option<String>,
    /// Only from this time on: `2026-01-31T08:00:00Z`, `2026-01-31`, or `90m` for 90 minutes ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only messages with this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only messages that were received on this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
}

impl Which {
    fn filter(&self, ids: &[String]) -> anyhow::Result<Filter> {
        let time = |text: &Option<String>| text.as_deref().map(moment).transpose().map_err(anyhow::Error::msg);
        Ok(Filter {
            ids: ids.iter().map(|id| id.parse::<Id>()).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?,
            reason: self.reason.clone(),
            step: self.step.clone(),
            since: time(&self.since)?,
            until: time(&self.until)?,
            key: self.key.clone(),
            topic: self.topic.clone(),
        })
    }
}

/// Open letters, redriven ones, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    /// Not redriven yet
    Open,
    /// Redriven, and arrived
    Redriven,
    /// Both
    All,
}

impl State {
    fn takes(self, entry: &Entry) -> bool {
        match self {
            Self::Open => !entry.is_redriven,
            Self::Redriven => entry.is_redriven,
            Self::All => true,
        }
    }
}

/// `1 letter`, `2 letters`.
fn letters(count: u64) -> String {
    format!("{count} letter{}", if count == 1 { "" } else { "s" })
}
