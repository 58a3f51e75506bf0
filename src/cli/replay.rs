//! `streamer replay`: feeds messages from an archive to a pipeline's steps and outputs.
use std::{
    collections::HashSet,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{COULD_NOT, Command, FAULTS, eprint, files, print, progress::Shown};
use crate::{
    archive::{Parts, Place},
    config::{Document, Environment as Variables},
    diagnostic::{self, Format, Severity},
    input::parquet::{Archive, Plan, Position, Progress, Selection},
    lint::lint,
    metrics::{HealthBoard, Metrics},
    output::Once,
    pipeline::{Environment, Memory, Pipeline},
};

pub(super) const COMMAND: Command = Command {
    name: "replay",
    about: "Feeds messages from an archive to a pipeline's steps and outputs, as they were received",
    arguments: Replay::augment_args,
    run: |matches| Replay::from_arg_matches(matches)?.run(),
};

const NOTES: &str = "\
Mappings see the metadata of then, `meta.received_at` too. Nothing is archived again. A replay that is interrupted goes on
where it has stopped when the same command is given again; --restart begins anew.

Into ClickHouse, from a pipeline with one output, each message of a selection has one row however often the same selection
is replayed: an insert is named after the file, its rows and what was selected, and the table drops one that it has had.

Examples:
  streamer replay archive/mqtt-to-kafka --pipeline pipelines/mqtt-to-kafka.yaml --from 2026-11-24 --to 2026-11-25
  streamer replay archive/mqtt-to-kafka --pipeline new.yaml --topic 'devices/phone-7/#' --dry-run
  streamer replay s3://archive/mqtt-to-kafka --option aws_region=eu-central-1 --pipeline new.yaml --from 2026-11-24";

#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
struct Replay {
    /// The archive's folder, a folder in it, or one of its files; or their URL in an object store, `s3://bucket/folder`
    source: String,
    /// A setting of the object store, such as `aws_endpoint=https://s3.example.org`; may be given several times. Secrets are
    /// better given as variables, such as AWS_SECRET_ACCESS_KEY
    #[arg(long, value_name = "NAME=VALUE")]
    option: Vec<String>,
    /// The pipeline whose steps and outputs get the messages
    #[arg(long, value_name = "FILE")]
    pipeline: PathBuf,
    /// Which input's place the messages take; the first one's when it is not named
    #[arg(long, value_name = "LABEL")]
    input: Option<String>,
    /// Only messages received at this time or later: `2026-11-24` or `2026-11-24T08:00:00Z`
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only messages received before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only messages of topics that match; may be given several times
    #[arg(long, value_name = "FILTER")]
    topic: Vec<String>,
    /// Only messages with this key; may be given several times
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Only so many messages
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// At most so many messages a second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Counts what would be replayed, and connects to nothing
    #[arg(long)]
    dry_run: bool,
    /// Begins anew, also where the same replay was interrupted before
    #[arg(long)]
    restart: bool,
    /// Leaves out files that cannot be read, instead of stopping before anything is replayed
    #[arg(long)]
    skip_unreadable: bool,
    /// Folder for what must survive a restart
    #[arg(long, env = "STATE_DIR", default_value = "state", value_name = "FOLDER")]
    state_dir: PathBuf,
    #[command(flatten)]
    plugins: files::PluginFolder,
}

/// What is kept of a replay that may go on, or that had to divide what it wrote.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// For people: what it belongs to.
    about: String,
    position: Option<Position>,
    messages: u64,
    divided: HashSet<String>,
}

/// How often that is saved.
const SAVE_EVERY: Duration = Duration::from_secs(1);

impl Replay {
    fn run(self) -> anyhow::Result<ExitCode> {
        let selection = self.selection()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let parts = match &selection.place {
            Place::Folder(folder) => {
                Parts::finish(folder).with_context(|| format!("cannot finish the archive `{}`", folder.display()))?
            }
            Place::Store(_) => Parts::default(),
        };
        if parts.open > 0 {
            eprint(&format!(
                "note: a pipeline archives here just now; {} bytes of its last messages are in no file yet and are left out\n",
                parts.open_bytes
            ));
        }
        // Looking into a store waits for it here.
        let inside = runtime.enter();
        let (plan, unreadable) = Plan::make(&selection).map_err(|error| anyhow::anyhow!("{error}"))?;
        for file in &unreadable {
            eprint(&format!("{}: {file}\n", if self.skip_unreadable { "left out" } else { "error" }));
        }
        if !unreadable.is_empty() && !self.skip_unreadable {
            eprint("nothing was replayed; remove these files, or leave them out with --skip-unreadable\n");
            return Ok(ExitCode::from(COULD_NOT));
        }
        if self.dry_run {
            let (messages, bytes) = plan.count(&selection).map_err(|unreadable| anyhow::anyhow!("{unreadable}"))?;
            print(&format!("{messages} messages, {bytes} bytes of payload, in {} files\n", plan.files()))?;
            return Ok(ExitCode::SUCCESS);
        }
        drop(inside);
        let registry = self.plugins.registry(std::slice::from_ref(&self.pipeline))?;
        let document = Document::open(&self.pipeline, &Variables::of_process(), &registry)
            .with_context(|| format!("cannot read `{}`", self.pipeline.display()))?;
        let documents = [document];
        let found = lint(&documents, &registry);
        let faults: Vec<_> = found.into_iter().filter(|fault| fault.severity == Severity::Error).collect();
        let show = |faults: &[_]| eprint(&diagnostic::render(faults, Format::Full, std::io::stderr().is_terminal()));
        if !faults.is_empty() {
            show(&faults);
            return Ok(ExitCode::from(FAULTS));
        }
        let config = documents[0].pipeline(&registry).context("the file has no input or no output")?;
        let pipeline = match Pipeline::build(&config, &registry) {
            Ok(pipeline) => pipeline,
            Err(faults) => {
                show(&faults);
                return Ok(ExitCode::from(FAULTS));
            }
        };
        let file = self.state_file(&selection, &pipeline.name);
        let saved = if self.restart { Saved { position: None, messages: 0, ..load(&file) } } else { load(&file) };
        if saved.position.is_some() {
            eprint(&format!("going on behind the {} messages that were replayed before\n", saved.messages));
        }
        let mut selection = selection;
        selection.limit = selection.limit.map(|limit| limit.saturating_sub(saved.messages));
        let progress = Arc::new(Progress::resume(saved.position, saved.divided));
        let own = progress.clone();
        let pipeline = pipeline
            .fed_by(self.input.as_deref(), config.delivery, |names| {
                Box::new(Archive::new(selection, self.rate, own).with_plan(plan).with_names(names))
            })
            .map_err(anyhow::Error::msg)?;
        if pipeline.once == Once::No {
            eprint("note: outputs of this pipeline write messages again that they have had before\n");
        }
        let about = format!("{} into {}", self.source, pipeline.name);
        let keep = Keep { file, about, before: saved.messages };
        let code = runtime.block_on(self.feed(pipeline, &progress, &keep));
        runtime.shutdown_background();
        code
    }

    fn selection(&self) -> anyhow::Result<Selection> {
        let option = |text: &String| {
            let (name, value) = text.split_once('=').context("--option: write NAME=VALUE")?;
            Ok((name.to_owned(), value.to_owned()))
        };
        let options = self.option.iter().map(option).collect::<anyhow::Result<_>>()?;
        let mut selection = Selection::all(Place::of(&self.source, &options).map_err(anyhow::Error::msg)?);
        let check =
            |option: &str, done: Result<(), String>| done.map_err(|reason| anyhow::anyhow!("{option}: {reason}"));
        check("--from", self.from.as_ref().map_or(Ok(()), |text| selection.from(text)))?;
        check("--to", self.to.as_ref().map_or(Ok(()), |text| selection.to(text)))?;
        for topic in &self.topic {
            check("--topic", selection.topic(topic))?;
        }
        selection.keys = self.key.iter().map(|key| key.clone().into_bytes()).collect();
        selection.limit = self.limit;
        anyhow::ensure!(self.rate.is_none_or(|rate| (0.001..=1e9).contains(&rate)), "--rate is between 0.001 and 1e9");
        Ok(selection)
    }

    /// The same for the same replay.
    fn state_file(&self, selection: &Selection, pipeline: &str) -> PathBuf {
        let source = match &selection.place {
            Place::Folder(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            Place::Store(store) => store.url().into(),
        };
        let limit = self.limit.map_or(String::new(), |limit| format!("-{limit}"));
        let place = xxhash_rust::xxh3::xxh3_64(source.as_os_str().as_encoded_bytes());
        self.state_dir.join("replay").join(format!("{pipeline}-{}-{place:016x}{limit}.json", selection.id()))
    }

    async fn feed(&self, pipeline: Pipeline, progress: &Arc<Progress>, keep: &Keep) -> anyhow::Result<ExitCode> {
        let metrics = Metrics::new();
        let name = pipeline.name.clone();
        let environment = Environment {
            metrics: metrics.clone(),
            health: HealthBoard::default(),
            state: self.state_dir.clone(),
            memory: Memory::new(usize::MAX),
        };
        let stop = CancellationToken::new();
        let signals = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                signals.cancel();
            }
        });
        let mut running = std::pin::pin!(pipeline.run(&environment, stop.clone()));
        let mut shown = Shown::new("messages");
        let mut saved = tokio::time::Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                _ = tick.tick() => {
                    let (done, total, _) = progress.counts();
                    shown.set(done, total);
                    if progress.fault().is_some() {
                        stop.cancel();
                    }
                    if saved.elapsed() >= SAVE_EVERY {
                        keep.save(progress)?;
                        saved = tokio::time::Instant::now();
                    }
                }
            }
        };
        shown.end();
        let (done, total, messages) = progress.counts();
        let letters = metrics.pipeline(&name).dead_lettered.get();
        let told = match letters {
            0 => format!("{messages} messages replayed"),
            letters => format!("{messages} messages replayed, {letters} of them are dead letters"),
        };
        ended?;
        if let Some(fault) = progress.fault() {
            keep.save(progress)?;
            anyhow::bail!("{fault}; {told}");
        }
        if stop.is_cancelled() {
            keep.save(progress)?;
            eprint(&format!("stopped at {done} of {total}: {told}; the same command goes on there\n"));
            return Ok(ExitCode::from(COULD_NOT));
        }
        keep.done(progress)?;
        print(&format!("{told}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where it is kept how far a replay is.
struct Keep {
    file: PathBuf,
    about: String,
    /// Messages that were replayed before this start.
    before: u64,
}

impl Keep {
    fn save(&self, progress: &Progress) -> anyhow::Result<()> {
        let Some(position) = progress.position() else { return Ok(()) };
        self.write(&Saved {
            about: self.about.clone(),
            position: Some(position),
            messages: self.before + progress.counts().2,
            divided: progress.divided(),
        })
    }

    /// Nothing is left to go on with; what had to be divided stays known.
    fn done(&self, progress: &Progress) -> anyhow::Result<()> {
        let divided = progress.divided();
        if divided.is_empty() {
            return match std::fs::remove_file(&self.file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            };
        }
        self.write(&Saved { about: self.about.clone(), divided, ..Saved::default() })
    }

    fn write(&self, saved: &Saved) -> anyhow::Result<()> {
        let write = || {
            std::fs::create_dir_all(self.file.parent().unwrap_or(Path::new(".")))?;
            let part = self.file.with_extension("part");
            std::fs::write(&part, serde_json::to_vec_pretty(saved)?)?;
            std::fs::File::open(&part)?.sync_all()?;
            std::fs::rename(part, &self.file)
        };
        write().with_context(|| format!("cannot save how far the replay is in `{}`", self.file.display()))
    }
}

/// What was saved; nothing when there is no such file, or one that cannot be read.
fn load(file: &Path) -> Saved {
    std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}
