//! `streamer dead-letter redrive`.
use std::{
    collections::HashSet,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Opened, Which, Whose, letters, list::aside};
use crate::{
    cli::{COULD_NOT, FAULTS, colour, eprint, progress::Shown},
    config::{self, Delivery},
    dead_letter::{Entry, Group, Id, Letters, Progress, Survey, Way},
    diagnostic::{self, Diagnostic, Format},
    lint::lint,
    metrics::{HealthBoard, Metrics},
    output::Output,
    pipeline::{Environment, Memory, Pipeline},
    registry::Registry,
    spec::Section,
};

const HOW: &str = "\
A letter that arrives is marked, so it is not redriven again. One that fails again comes back as a new letter, which tells
of both failures. A run that is killed loses nothing: what it has not marked is sent again by the next one.

Examples:
  streamer dead-letter redrive --pipeline pipelines/kafka-to-clickhouse.yaml --dry-run
  streamer dead-letter redrive --pipeline pipelines/kafka-to-clickhouse.yaml --reason column-range --rate 500
  streamer dead-letter redrive 0:42 --pipeline pipelines/kafka-to-clickhouse.yaml --to source";

/// Sends open letters again.
#[derive(Debug, clap::Args)]
#[command(after_help = HOW)]
pub(super) struct Redrive {
    /// Only these letters, as `list` calls them
    ids: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    which: Which,
    /// Where they go
    #[arg(long, value_enum, default_value = "steps")]
    to: To,
    /// With `--to source`: the input whose broker they go back to, when the file has several of a kind
    #[arg(long, value_name = "LABEL")]
    input: Option<String>,
    /// To every output of the pipeline; without it, what one output had refused goes to that one only
    #[arg(long)]
    all_outputs: bool,
    /// Most letters a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Most letters of this run
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Leaves out letters that were redriven so often and have failed each time
    #[arg(long, alias = "redrives-max", default_value_t = 5, value_name = "N")]
    attempts_max: u32,
    /// Also letters that were redriven and have arrived
    #[arg(long)]
    again: bool,
    /// Says what would be sent, and sends nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// Through the pipeline's own steps, to its outputs
    Steps,
    /// Back to the topic they were received on, for whoever reads that
    Source,
}

/// What a run has come to.
struct Done {
    progress: Arc<Progress>,
    failed_again: u64,
    ended: Result<(), String>,
}

/// Most bytes between the letters and what confirms them.
const MEMORY_BYTES_MAX: usize = 512 << 20;

/// The output that `--to source` writes to; no label of a file has brackets.
const SOURCE: &str = "(source)";

impl Redrive {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut opened = self.whose.open()?;
        // A file that its pipeline empties at each start: this is no start, and the letters may lie in it.
        let outputs = opened.config.outputs.iter_mut().map(|output| &mut output.component);
        for component in outputs.chain(&mut opened.config.dead_letter).filter(|component| component.name == "file") {
            component.section.value["append"] = true.into();
        }
        let faults: Vec<_> =
            lint(&opened.documents, &opened.registry).into_iter().filter(Diagnostic::is_error).collect();
        if !faults.is_empty() {
            eprint(&diagnostic::render(&faults, Format::Full, colour::stderr()));
            eprint("nothing was sent\n");
            return Ok(ExitCode::from(FAULTS));
        }
        let survey = opened.survey(&self.which.filter(&self.ids)?, None)?;
        if self.to == To::Steps && !self.all_outputs {
            check_outputs(&survey, &opened.config)?;
        }
        let chosen = self.choose(&survey);
        aside(&survey);
        if self.dry_run || chosen.is_empty() {
            let would = if self.dry_run { " would be" } else { "" };
            eprint(&format!("{}{would} redriven from {}\n", letters(chosen.len() as u64), opened.store.name()));
            return Ok(ExitCode::SUCCESS);
        }
        let pipeline = self.build(&opened)?;
        let count = chosen.len() as u64;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let done = runtime.block_on(self.drive(&opened, pipeline, chosen));
        runtime.shutdown_background();
        report(&done?, count)
    }

    /// The letters of this run, and a word on those that are left out.
    fn choose(&self, survey: &Survey) -> HashSet<Id> {
        let wanted = survey.letters.iter().filter(|entry| self.again || !entry.is_redriven);
        let (tired, fresh): (Vec<&Entry>, Vec<&Entry>) = wanted.partition(|entry| entry.redrives >= self.attempts_max);
        if !tired.is_empty() {
            eprint(&format!(
                "{} left out: redriven {} times or more, and failed each time; --attempts-max takes them in\n",
                letters(tired.len() as u64),
                self.attempts_max
            ));
        }
        // They went on to the outputs: only the archive misses them.
        let of_archive = |entry: &&Entry| survey.stage(entry) == "archive" && self.to == To::Steps && !self.all_outputs;
        let (archive, fresh): (Vec<&Entry>, Vec<&Entry>) = fresh.into_iter().partition(of_archive);
        if !archive.is_empty() {
            eprint(&format!(
                "{} left out: the archive had refused them, and the outputs have them; `export` takes them out\n",
                letters(archive.len() as u64)
            ));
        }
        fresh.into_iter().take(self.limit.unwrap_or(usize::MAX)).map(|entry| entry.id).collect()
    }

    fn way(&self) -> Way {
        match self.to {
            To::Steps => Way::Steps { everywhere: self.all_outputs },
            To::Source => Way::Source,
        }
    }

    /// The pipeline, still with its own inputs.
    fn build(&self, opened: &Opened) -> anyhow::Result<Pipeline> {
        let faults = |faults: Vec<Diagnostic>| anyhow::anyhow!("{}", diagnostic::render(&faults, Format::Full, false));
        let pipeline = Pipeline::build(&opened.config, &opened.registry).map_err(faults)?;
        match self.to {
            To::Steps => Ok(pipeline),
            To::Source => {
                let output = source_output(&opened.config, &opened.registry, self.input.as_deref())?;
                Ok(pipeline.straight_to(SOURCE, output))
            }
        }
    }

    async fn drive(&self, opened: &Opened, pipeline: Pipeline, chosen: HashSet<Id>) -> anyhow::Result<Done> {
        let progress = Arc::new(Progress::default());
        let marker = {
            let (store, name, to) = (opened.store.clone(), opened.name().to_owned(), self.way().name());
            tokio::task::spawn_blocking(move || store.marker(&name, to)).await??
        };
        let (total, name) = (chosen.len() as u64, opened.name().to_owned());
        let (store, kept, rate) = (opened.store.clone(), opened.kept.clone(), self.rate.map(f64::from));
        let input = Letters::new(store, kept, chosen, self.way(), rate, marker, progress.clone());
        let pipeline =
            pipeline.fed_by(None, Some(Delivery::AtLeastOnce), |_| Box::new(input)).map_err(anyhow::Error::msg)?;
        let metrics = Metrics::new();
        let environment = Environment {
            metrics: metrics.clone(),
            health: HealthBoard::default(),
            state: self.whose.state_dir.clone(),
            memory: Memory::new(MEMORY_BYTES_MAX),
        };
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let watching = tokio::spawn({
            let (stop, over, progress) = (stop.clone(), over.clone(), progress.clone());
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            async move {
                let mut shown = Shown::new("letters");
                loop {
                    tokio::select! {
                        () = over.cancelled() => break,
                        _ = terminate.recv() => stop.cancel(),
                        _ = interrupt.recv() => stop.cancel(),
                        () = tokio::time::sleep(Duration::from_millis(100)) => {}
                    }
                    shown.set(progress.marked.load(Ordering::Relaxed), total);
                }
                shown.end();
            }
        });
        let ended = pipeline.run(&environment, stop).await.map_err(|error| error.to_string());
        over.cancel();
        watching.await?;
        Ok(Done { progress, failed_again: metrics.pipeline(&name).dead_lettered.get(), ended })
    }
}

fn report(done: &Done, count: u64) -> anyhow::Result<ExitCode> {
    let Done { progress, failed_again, ended } = done;
    let (sent, marked) = (progress.sent.load(Ordering::Relaxed), progress.marked.load(Ordering::Relaxed));
    progress.faults.lock().iter().for_each(|fault| eprint(&format!("error: {fault}\n")));
    eprint(&format!("{} redriven, {failed_again} of them failed again\n", letters(marked)));
    if marked < count {
        let left = count - marked;
        eprint(&format!(
            "{} still open: {} not sent, {} sent and not confirmed\n",
            letters(left),
            count - sent,
            sent - marked
        ));
    }
    if let Err(error) = ended {
        anyhow::bail!("{error}");
    }
    Ok(match (marked < count, *failed_again > 0) {
        (true, _) => ExitCode::from(COULD_NOT),
        (false, true) => ExitCode::from(FAULTS),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Letters go back to the output that had refused them, so it must be there.
fn check_outputs(survey: &Survey, config: &config::Pipeline) -> anyhow::Result<()> {
    let gone = |group: &&Group| {
        group.open > 0
            && group.stage.strip_prefix("outputs.").is_some_and(|label| {
                label != SOURCE
                    && !label.ends_with(".when")
                    && !config.outputs.iter().any(|output| *output.label == *label)
            })
    };
    if let Some(group) = survey.groups.iter().find(gone) {
        anyhow::bail!(
            "letters such as {} were refused by `{}`, which the pipeline no longer has; choose others, or send them to every \
             output with --all-outputs",
            group.example,
            group.stage
        );
    }
    Ok(())
}

/// An output to the broker that an input reads from.
fn source_output(
    config: &config::Pipeline,
    registry: &Registry,
    label: Option<&str>,
) -> anyhow::Result<Box<dyn Output>> {
    let can = |input: &&config::Labelled| matches!(input.component.name.as_str(), "kafka" | "mqtt");
    let found: Vec<_> =
        config.inputs.iter().filter(can).filter(|i| label.is_none_or(|label| *i.label == *label)).collect();
    let input = match (found.as_slice(), label) {
        ([one], _) => one,
        ([], Some(label)) => anyhow::bail!("the pipeline has no input `{label}` that reads from `kafka` or `mqtt`"),
        ([], None) => {
            anyhow::bail!("no input of the pipeline reads from `kafka` or `mqtt`, so there is no topic to go back to")
        }
        (several, _) => {
            let labels: Vec<_> = several.iter().map(|input| format!("`{}`", input.label)).collect();
            anyhow::bail!("the pipeline has several inputs, {}; say with --input which one is meant", labels.join(", "))
        }
    };
    let name = input.component.name.as_str();
    let given = input.component.section.value.as_mapping().context("an input's settings are a mapping")?;
    // An output to MQTT gets another client id: the pipeline may run, and would be thrown out.
    let kept: &[&str] = match name {
        "kafka" => &["brokers", "tls", "sasl", "client_id"],
        _ => {
            &["url", "username", "password", "tls", "keep_alive_s", "connect_timeout_ms", "protocol", "user_properties"]
        }
    };
    let mut value: serde_yaml::Mapping = given
        .iter()
        .filter(|(key, _)| key.as_str().is_some_and(|key| kept.contains(&key)))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    value.insert("topic".into(), "{meta.topic}".into());
    if name == "kafka" {
        // What the topic takes is for the broker to say.
        value.insert("message_bytes_max".into(), 1_000_000_000.into());
        let options = given.get("options").and_then(|options| options.as_mapping()).into_iter().flatten();
        let ours = |name: &str| {
            ["ssl.", "sasl.", "enable.ssl.", "socket.", "broker."].iter().any(|start| name.starts_with(start))
        };
        let options: serde_yaml::Mapping =
            options.filter(|(key, _)| key.as_str().is_some_and(ours)).map(|(k, v)| (k.clone(), v.clone())).collect();
        value.insert("options".into(), options.into());
    }
    let section = Section { label: SOURCE.into(), value: value.into(), ..input.component.section.clone() };
    let spec = registry.output(name).context("every input's system has an output")?;
    (spec.build)(&section).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("cannot write back to where input `{}` reads from: {}", input.label, faults.join("; "))
    })
}
