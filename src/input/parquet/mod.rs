//! Reads an archive back: the same bytes and metadata as when the messages were archived.
//!
//! Guarantee: at least once, by starting over; what was selected is the same at every start. For delivery exactly once
//! (`record`) batches are ranges of one file each, cut by number and bytes alone and named after file, rows and selection.
//! The same selection of the same files therefore makes the same ranges again, whoever reads them and whenever, and an
//! output that remembers their names writes each once. Nothing needs to be recorded anywhere for that.
mod ledger;
mod walk;

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

pub use ledger::{Position, Progress};
pub use walk::{Plan, Selection, Unreadable};

use super::{Cuts, Input, InputContext, InputError, Replay, TopicNames};
use crate::{
    ack::Ack,
    archive::Place,
    client::Secret,
    diagnostic::Fault,
    message::{Batch, Recorded},
    spec::{Section, Spec, decode, schema_of},
};
use ledger::Ledger;
use walk::{PIECES, Piece, Walk};

pub(super) static SPEC: Spec<dyn Input> = Spec {
    name: "parquet",
    summary: "Reads messages back from an archive, as they were received, and ends after the last one.",
    example: "path: archive/readings\nfrom: 2026-11-24\nto: 2026-11-25\ntopics: devices/+/telemetry\n",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `parquet`.
///
/// Reads what an archive (the output `parquet`) has written. Messages come by the hour and, within a file, by the time
/// they were received; `meta.received_at` and all other metadata are those of then. `streamer replay` does the same for a
/// pipeline as it is, and can be interrupted.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The archive's folder, a folder in it, or one file. A relative path starts at the folder of the pipeline file.
    #[serde(default)]
    path: Option<PathBuf>,
    /// Instead of a path, the archive in an object store, a folder in it, or one object: `s3://bucket/folder`,
    /// `gs://bucket/folder`, `az://container/folder`.
    #[serde(default)]
    url: Option<String>,
    /// Settings of the object store, as the archive has them, for example `aws_endpoint`, `aws_region`, `aws_access_key_id`,
    /// `aws_secret_access_key`. What is not given is taken from the variables of that name (`AWS_ENDPOINT`).
    #[serde(default)]
    options: BTreeMap<String, Secret>,
    /// Only messages received at this time or later: a day, `2026-11-24`, or a time, `2026-11-24T08:00:00Z`. A day starts at
    /// midnight UTC.
    #[serde(default)]
    from: Option<String>,
    /// Only messages received before this time.
    #[serde(default)]
    to: Option<String>,
    /// Only messages of these topics: one, or a list. `+` stands for one level and `#` for all further ones.
    #[serde(default)]
    topics: Texts,
    /// Only messages with one of these keys: one, or a list.
    #[serde(default)]
    keys: Texts,
    /// Only so many messages, the first ones.
    #[serde(default)]
    limit: Option<u64>,
    /// At most so many messages a second. As fast as they are taken when it is left out.
    #[serde(default)]
    #[schemars(range(min = 0.001, max = 1e9))]
    rate_per_s: Option<f64>,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Texts {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Texts {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

fn build(section: &Section) -> Result<Box<dyn Input>, Vec<Fault>> {
    let config: Config = decode(section)?;
    let options = config.options.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let place = match (config.path, config.url) {
        (Some(path), None) if !config.options.is_empty() => {
            let title = format!("`options` are those of a store, and `{}` is a path", path.display());
            Err(Fault::new("conflicting-fields", "options", title).help("they go with `url`"))
        }
        (Some(path), None) => Ok(Place::Folder(section.folder.join(path))),
        (None, Some(url)) => Place::of_url(&url, &options).map_err(|reason| Fault::new("invalid-url", "url", reason)),
        (Some(_), Some(_)) => {
            Err(Fault::new("conflicting-fields", "url", "`url` does not go together with `path`").label("take one out"))
        }
        (None, None) => Err(Fault::new("no-path", "", "`parquet` without a path").help("give `path`, or `url`")),
    };
    let mut selection = Selection::all(place.map_err(|fault| vec![fault])?);
    let mut faults = Vec::new();
    let mut check = |field: &str, done: Result<(), String>| {
        faults.extend(done.err().map(|reason| Fault::new("invalid-value", field, format!("`{field}` {reason}"))));
    };
    check("from", config.from.map_or(Ok(()), |text| selection.from(&text)));
    check("to", config.to.map_or(Ok(()), |text| selection.to(&text)));
    for topic in config.topics.list() {
        check("topics", selection.topic(&topic));
    }
    selection.keys = config.keys.list().into_iter().map(String::into_bytes).collect();
    selection.limit = config.limit;
    if config.rate_per_s.is_some_and(|rate| !(0.001..=1e9).contains(&rate)) {
        check("rate_per_s", Err("is between 0.001 and 1e9".to_owned()));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Box::new(Archive::new(selection, config.rate_per_s, Arc::default())))
}

/// The input.
pub struct Archive {
    selection: Arc<Selection>,
    rate_per_s: Option<f64>,
    progress: Arc<Progress>,
    names: Option<TopicNames>,
    cuts: Option<Cuts>,
    /// Which files there are, when that was found out before.
    plan: Option<Plan>,
    running: Option<Running>,
    started: std::time::Instant,
}

struct Running {
    plan: Arc<Plan>,
    pieces: mpsc::Receiver<Result<Piece, InputError>>,
    ledger: Arc<Ledger>,
    /// Nothing more comes from the files.
    ended: bool,
    /// To be handed out next, with their tokens.
    ready: VecDeque<(u64, Piece)>,
    /// A range that is read once more, in pieces: its token.
    dividing: Option<(u64, Reading)>,
    /// When the next message may go.
    next_at: Instant,
}

type Reading = JoinHandle<Result<Vec<Piece>, InputError>>;

/// Pieces that are read ahead. Each is at most as large as a batch.
const AHEAD: usize = 2;

impl Archive {
    /// Reads `selection`, starting behind what `progress` says is done.
    pub fn new(selection: Selection, rate_per_s: Option<f64>, progress: Arc<Progress>) -> Self {
        let selection = Arc::new(selection);
        let started = std::time::Instant::now();
        Self { selection, rate_per_s, progress, names: None, cuts: None, plan: None, running: None, started }
    }

    /// The same, when it is known already which files there are.
    pub fn with_plan(self, plan: Plan) -> Self {
        Self { plan: Some(plan), ..self }
    }

    /// The same with names for topic levels, as the input has them that the messages came from.
    pub fn with_names(self, names: Option<TopicNames>) -> Self {
        Self { names, ..self }
    }

    async fn start(&mut self) -> Result<(), InputError> {
        let plan = match self.plan.take() {
            Some(plan) => plan,
            None => {
                let selection = self.selection.clone();
                let made =
                    spawn_blocking(move || Plan::make(&selection)).await.expect("looking for files does not panic");
                let (plan, unreadable) = made?;
                if let Some(first) = unreadable.first() {
                    return Err(InputError::message(first.to_string()));
                }
                plan
            }
        };
        let plan = Arc::new(plan);
        self.progress.plan(&plan);
        let (sender, pieces) = mpsc::channel(AHEAD);
        let walk = Walk {
            selection: self.selection.clone(),
            plan: plan.clone(),
            names: self.names.clone(),
            cuts: self.cuts,
            slow: self.rate_per_s.map(|rate| (rate / 10.0) as usize),
            from: self.progress.position(),
            divided: self.progress.divided(),
        };
        spawn_blocking(move || {
            let walked = catch_unwind(AssertUnwindSafe(|| walk.run(&sender)));
            // Hanging up without a word would be the end of the archive.
            if walked.is_err() {
                let error = InputError::message("reading the archive met an internal error; please report it");
                let _ = sender.blocking_send(Err(error));
            }
        });
        let ledger = Arc::new(Ledger::new(plan.clone(), self.progress.clone(), self.selection.clone()));
        self.running = Some(Running {
            plan,
            pieces,
            ledger,
            ended: false,
            ready: VecDeque::new(),
            dividing: None,
            next_at: Instant::now(),
        });
        Ok(())
    }
}

#[async_trait]
impl Input for Archive {
    fn replay(&self) -> Replay {
        Replay::ByOffset
    }

    fn record(&mut self, cuts: Cuts) {
        self.cuts = Some(cuts);
    }

    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        self.start().await
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        let Some(running) = &mut self.running else { return Err(InputError::message("the archive is not open")) };
        loop {
            if let Some((_, piece)) = running.ready.front() {
                sleep_until(running.next_at).await;
                if let Some(rate) = self.rate_per_s {
                    let pause = Duration::from_secs_f64(piece.messages as f64 / rate);
                    running.next_at = running.next_at.max(Instant::now()) + pause;
                }
                let (token, piece) = running.ready.pop_front().expect("it is in front");
                let ack = Ack::new(running.ledger.clone(), token);
                let Some(mut source) = piece.source else {
                    // Nothing in it was wanted, and that is done.
                    ack.delivered();
                    continue;
                };
                if self.cuts.is_some() {
                    let name = running.plan.name(&self.selection, piece.part, piece.first, piece.end);
                    // Somebody may have replayed it until just now.
                    source = source.with_recorded(Recorded { name, inherited: Some(self.started) });
                }
                return Ok(Some((Batch::new(source), ack)));
            }
            if let Some((parent, reading)) = &mut running.dividing {
                let (parent, pieces) = (*parent, reading.await.expect("reading an archive does not panic"));
                running.dividing = None;
                running.ready.extend(running.ledger.divide(parent, pieces?));
                continue;
            }
            if let Some((token, piece)) = running.ledger.again() {
                let (plan, selection, names) = (running.plan.clone(), self.selection.clone(), self.names.clone());
                let read = move || walk::pieces(&plan, &selection, names.as_ref(), piece, PIECES);
                running.dividing = Some((token, spawn_blocking(read)));
                continue;
            }
            if running.ended && (self.cuts.is_none() || running.ledger.is_idle()) {
                return Ok(None);
            }
            tokio::select! {
                piece = running.pieces.recv(), if !running.ended => match piece {
                    Some(Ok(piece)) => {
                        let token = running.ledger.track(&piece);
                        running.ready.push_back((token, piece));
                    }
                    Some(Err(error)) => {
                        self.progress.fail(error.to_string());
                        return Err(error);
                    }
                    None => running.ended = true,
                },
                () = running.ledger.changed() => {}
            }
        }
    }

    async fn close(&mut self, _: Duration) {
        self.running = None;
    }
}

#[cfg(test)]
mod tests;
