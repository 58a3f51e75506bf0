//! A pipeline from start to stop. `Lane::run` is the way of one message, from top to bottom.
use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    PipelineError,
    backoff::Backoff,
    batcher::Job,
    budget::{Budget, Memory},
    dead_letter::{DeadLetters, ToDeadLetters, ToFiles},
    spool,
    work::{Failed, Route, Share, StepPart, Work, Worked},
    writer::{JOBS_WAITING_MAX, Writer},
};
use crate::{
    ack::Ack,
    dead_letter::Letter,
    input::{Cuts, Input, InputContext, Replay},
    message::Batch,
    metrics::{ComponentMetrics, Health, HealthBoard, Metrics, PipelineMetrics},
    output::{Once, Output, OutputContext, WriteLimits},
    script::Condition,
};

/// A pipeline whose parts are made and not yet connected.
pub struct Pipeline {
    pub name: Arc<str>,
    pub inputs: Vec<InputPart>,
    pub outputs: Vec<OutputPart>,
    pub dead_letter: Option<Box<dyn Output>>,
    /// Gets every message as it came, before any step.
    pub archive: Option<Box<dyn Output>>,
    pub limits: Limits,
    /// Whether its parts leave every message once, also after a crash.
    pub once: Once,
    /// Whether messages go to disk while outputs confirm nothing.
    pub spool: Option<spool::Settings>,
}

/// An input and the steps of its lane.
pub struct InputPart {
    pub label: String,
    pub input: Box<dyn Input>,
    pub steps: Vec<StepPart>,
}

/// An output and, for each lane, the condition under which it gets a message.
pub struct OutputPart {
    pub label: String,
    pub output: Box<dyn Output>,
    /// One a lane, in the order of the inputs; empty when the output gets every message.
    pub when: Vec<Condition>,
}

/// Bounds of one pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes between input and ack. A full pipeline stops reading.
    pub in_flight_bytes_max: usize,
    /// How long a stopping pipeline may take to deliver what it has read.
    pub shutdown_timeout: Duration,
}

/// So many recorded ranges fit into the budget: some are gathered, some under way.
const RANGES_IN_FLIGHT: usize = 8;

/// What pipelines share in one process.
#[derive(Clone)]
pub struct Environment {
    pub metrics: Metrics,
    pub health: HealthBoard,
    /// Folder for what must survive a restart.
    pub state: PathBuf,
    /// What they may hold together between input and ack.
    pub memory: Memory,
}

impl Environment {
    pub(super) fn component(&self, pipeline: &str, kind: &'static str, label: &str) -> (ComponentMetrics, Health) {
        let metrics = self.metrics.component(pipeline, kind, label);
        let health = self.health.add(format!("{pipeline}/{kind}/{label}"), metrics.up.clone());
        (metrics, health)
    }
}

impl Pipeline {
    /// What the pipeline promises, from what its inputs can repeat and its output recognises.
    pub fn guarantee(&self) -> &'static str {
        if self.once != Once::No {
            return "exactly_once";
        }
        match self.inputs.iter().map(|i| i.input.replay()).min() {
            Some(Replay::Never) => "best_effort",
            _ => "at_least_once",
        }
    }

    /// Runs until every input has ended or `stop` is cancelled, then delivers what was read and stops.
    ///
    /// # Errors
    /// The pipeline cannot go on. Nothing is lost: what was not acknowledged comes again.
    pub async fn run(self, environment: &Environment, stop: CancellationToken) -> Result<(), PipelineError> {
        let name = self.name.clone();
        info!(pipeline = %name, guarantee = self.guarantee(), "pipeline starts");
        let metrics = environment.metrics.pipeline(&name);
        let result = self.run_parts(environment, &metrics, stop).await;
        environment.health.remove(&format!("{name}/"));
        match &result {
            Ok(()) => info!(pipeline = %name, "pipeline stopped"),
            Err(error) => {
                // Stays on the board: a process with a dead pipeline is not ready.
                let up = environment.metrics.component(&name, "pipeline", &name).up;
                environment.health.add(format!("{name}/stopped"), up).failed(error.to_string());
            }
        }
        result
    }

    async fn run_parts(
        self,
        environment: &Environment,
        metrics: &PipelineMetrics,
        stop: CancellationToken,
    ) -> Result<(), PipelineError> {
        let Self { name, mut inputs, outputs, dead_letter, archive, limits, once, spool } = self;
        let budget = Budget::new(limits.in_flight_bytes_max, &environment.memory, metrics.clone());
        if once != Once::No
            && let Some(OutputPart { output, .. }) = outputs.first()
        {
            // Batches are cut where they are recorded, so the input makes them as large as the output wants them.
            let WriteLimits { messages_max, bytes_max, linger, .. } = output.limits();
            let bytes_max = bytes_max.min(budget.bytes() / RANGES_IN_FLIGHT);
            inputs.iter_mut().for_each(|part| part.input.record(Cuts { messages_max, bytes_max, linger }));
        }
        // A failed part ends the pipeline by cancelling this; a stop from outside cancels it too.
        let reading = stop.child_token();
        let close_within = Duration::from_secs(5);

        let mut dead_letter_writer = JoinSet::new();
        let dead_letter_jobs = dead_letter.map(|output| {
            let (component, health) = environment.component(&name, "dead_letter", "dead_letter");
            let refused = ToFiles { folder: environment.state.join("dead-letter"), health: health.clone() };
            let label = "dead_letter".into();
            let context =
                OutputContext { pipeline: name.to_string(), label, metrics: component, once: Once::No, health };
            let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
            let delivered = Some(metrics.dead_lettered.clone());
            let writer = Writer { output, context, refused: Arc::new(refused), delivered, ranges: false };
            dead_letter_writer.spawn(writer.run(waiting, close_within));
            jobs
        });
        let letters = DeadLetters::new(name.clone(), dead_letter_jobs);

        let all = outputs.iter().map(|part| &part.output).chain(&archive);
        let linger = all.map(|output| output.limits().linger).max().unwrap_or_default();
        let mut writers = JoinSet::new();
        let archive = archive.map(|output| {
            let (component, health) = environment.component(&name, "archive", "archive");
            let refused = ToDeadLetters { letters: letters.clone(), stage: "archive".into() };
            let label = "archive".into();
            let context =
                OutputContext { pipeline: name.to_string(), label, metrics: component, once: Once::No, health };
            let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
            let writer = Writer { output, context, refused: Arc::new(refused), delivered: None, ranges: false };
            writers.spawn(writer.run(waiting, close_within));
            jobs
        });
        let mut routes: Vec<Vec<(Route, mpsc::Sender<Job>)>> = inputs.iter().map(|_| Vec::new()).collect();
        for OutputPart { label, output, when } in outputs {
            let (component, health) = environment.component(&name, "output", &label);
            let stage = format!("outputs.{label}");
            let refused = ToDeadLetters { letters: letters.clone(), stage: stage.clone() };
            let context = OutputContext { pipeline: name.to_string(), label, metrics: component, once, health };
            let (jobs, waiting) = mpsc::channel(JOBS_WAITING_MAX);
            let ranges = once != Once::No;
            let writer = Writer { output, context, refused: Arc::new(refused), delivered: None, ranges };
            writers.spawn(writer.run(waiting, close_within));
            let mut when = when.into_iter();
            for lane in &mut routes {
                let script = |when| (when, environment.metrics.script(&name, &format!("{stage}.when")));
                lane.push((Route { stage: stage.clone(), when: when.next().map(script) }, jobs.clone()));
            }
        }

        let mut lanes = JoinSet::new();
        for (InputPart { label, input, steps }, routes) in inputs.into_iter().zip(routes) {
            let (component, health) = environment.component(&name, "input", &label);
            let context = InputContext { pipeline: name.to_string(), label, metrics: component, health };
            let input = spool::around(input, spool, linger, &context, environment);
            let (letters, budget, metrics, archive) =
                (letters.clone(), budget.clone(), metrics.clone(), archive.clone());
            let script = |part: StepPart| (environment.metrics.script(&name, &part.label), part);
            let (routes, jobs) = routes.into_iter().unzip();
            let work = Work { steps: steps.into_iter().map(script).collect(), routes };
            let mut lane = Lane { input, context, work, archive, jobs, letters, budget, metrics };
            let stop = reading.clone();
            lanes.spawn(async move { lane.run(stop).await.map(|()| lane.input) });
        }
        drop((letters, archive));

        // While it works: the first part that fails ends all. A writer without a fault ends only after its lanes.
        let mut ended = Vec::new();
        let mut failure = None;
        while failure.is_none() && !lanes.is_empty() {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(lane) = lanes.join_next() => ended.extend(note(&mut failure, "an input's lane", lane)),
                Some(writer) = writers.join_next() => drop(note(&mut failure, "an output's writer", writer)),
                Some(writer) = dead_letter_writer.join_next() => drop(note(&mut failure, "the dead-letter writer", writer)),
            }
        }

        // Stopping: lanes first, then the writers they fed, then the dead letters that those fed.
        reading.cancel();
        info!(pipeline = %name, in_flight = metrics.in_flight.get(), "draining");
        let drained = async {
            while let Some(lane) = lanes.join_next().await {
                ended.extend(note(&mut failure, "an input's lane", lane));
            }
            for writers in [&mut writers, &mut dead_letter_writer] {
                while let Some(writer) = writers.join_next().await {
                    note(&mut failure, "an output's writer", writer);
                }
            }
        };
        if tokio::time::timeout(limits.shutdown_timeout, drained).await.is_ok() {
            info!(pipeline = %name, "everything that was read is settled");
        } else {
            let left = metrics.in_flight.get();
            warn!(pipeline = %name, not_delivered = left, "stopping without delivering everything; what is left was not acknowledged and comes again");
        }
        // Whatever still runs is dropped together with its acks: not delivered.
        lanes.shutdown().await;
        writers.shutdown().await;
        dead_letter_writer.shutdown().await;
        for mut input in ended {
            input.close(close_within).await;
        }
        failure.map_or(Ok(()), Err)
    }
}

/// The answer of a task. An error, a panic among them, goes to `failure`, unless a cause is noted there already.
fn note<T>(
    failure: &mut Option<PipelineError>,
    part: &str,
    task: Result<Result<T, PipelineError>, tokio::task::JoinError>,
) -> Option<T> {
    let error = match task {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => error,
        Err(error) => {
            let message = match error.try_into_panic() {
                Ok(panic) => panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_else(|| "panic".to_owned()),
                Err(error) => error.to_string(),
            };
            PipelineError::Panicked { part: part.to_owned(), message }
        }
    };
    // `Stopped` is only the echo of another part's fault.
    if failure.as_ref().is_none_or(|noted| matches!(noted, PipelineError::Stopped)) {
        *failure = Some(error);
    }
    None
}

/// One ordered stream of messages, from its input to the writers.
struct Lane {
    input: Box<dyn Input>,
    context: InputContext,
    work: Work,
    archive: Option<mpsc::Sender<Job>>,
    /// Where messages go for each route of the work.
    jobs: Vec<mpsc::Sender<Job>>,
    letters: DeadLetters,
    budget: Budget,
    metrics: PipelineMetrics,
}

impl Lane {
    /// Reads until the input ends or `stop` is cancelled.
    async fn run(&mut self, stop: CancellationToken) -> Result<(), PipelineError> {
        let mut backoff = Backoff::default();
        'connect: loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                connected = self.input.connect(&self.context) => if let Err(error) = connected {
                    self.context.health.fault(error.to_string());
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = sleep(backoff.pause()) => continue 'connect,
                    }
                },
            }
            self.context.health.ok();
            loop {
                let read = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    read = self.input.read() => read,
                };
                match read {
                    Ok(Some((batch, ack))) => {
                        backoff.reset();
                        self.pass_on(batch, ack).await?;
                    }
                    Ok(None) => {
                        info!(pipeline = self.context.pipeline, input = self.context.label, "input has ended");
                        return Ok(());
                    }
                    Err(error) => {
                        self.context.health.fault(error.to_string());
                        self.context.metrics.reconnects.inc();
                        tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            () = sleep(backoff.pause()) => continue 'connect,
                        }
                    }
                }
            }
        }
    }

    /// The way of a batch: into the budget, to the archive, through the steps, to every output that wants it.
    async fn pass_on(&mut self, mut batch: Batch, ack: Ack) -> Result<(), PipelineError> {
        self.budget.admit(&mut batch).await;
        self.context.metrics.received.inc_by(batch.len() as u64);
        self.context.metrics.received_bytes.inc_by(batch.payload_bytes() as u64);
        debug!(input = self.context.label, messages = batch.len(), "read");

        if let Some(archive) = &self.archive {
            let job = Job { batch: Arc::new(batch.clone()), acks: vec![ack.split()] };
            archive.send(job).await.map_err(|_| PipelineError::Stopped)?;
        }
        let source = batch.source().clone();
        let Worked { batch, shares, failed, filtered } = off_the_runtime(|| self.work.run(batch));
        self.metrics.filtered.inc_by(filtered);
        if !failed.is_empty() {
            let letters = failed.iter().map(|Failed { stage, failure }| Letter {
                source: &source,
                origin: failure.origin,
                part: failure.part,
                stage,
                code: &failure.code,
                reason: &failure.reason,
                place: failure.place.as_deref(),
                attempts: 0,
            });
            let letters = letters.collect();
            self.letters.send(letters, vec![ack.split()]).await?;
        }
        drop(source);
        let batch = Arc::new(batch);
        for (jobs, share) in self.jobs.iter().zip(shares) {
            let batch = match share {
                Share::All => batch.clone(),
                Share::Some(indexes) => Arc::new(batch.select(&indexes)),
            };
            if !batch.is_empty() {
                let job = Job { batch, acks: vec![ack.split()] };
                jobs.send(job).await.map_err(|_| PipelineError::Stopped)?;
            }
        }
        ack.delivered();
        Ok(())
    }
}

/// Runs a computation that may take long without holding up the other tasks of this worker.
fn off_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
