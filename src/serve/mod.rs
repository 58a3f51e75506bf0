//! What `streamer run` does: starts the pipelines of some files, and follows the files as they change.
//!
//! On a change, or SIGHUP, all files are read and checked anew. A pipeline whose content is another than what runs, its
//! scripts and plugins included, is built first; then the one that runs stops and the new one starts. One with faults is
//! refused, and what runs goes on.
mod content;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    config::Document,
    diagnostic::{self, Diagnostic, Format, Severity},
    lint::lint,
    metrics::{HealthBoard, Metrics},
    pipeline::{Environment, Pipeline, Supervisor},
    registry::Registry,
};
use content::Content;
use watch::Watch;

/// Reads all files anew: every component there is, and every pipeline file.
pub type Read = Box<dyn Fn() -> anyhow::Result<(Registry, Vec<Document>)> + Send + Sync>;

/// The pipelines of some files.
pub struct Serve {
    read: Read,
    /// What runs for each file, or was last started.
    known: BTreeMap<String, Known>,
    /// Files and folders that the next change may come from.
    watched: BTreeSet<PathBuf>,
    /// What is built and not started.
    built: Vec<(String, Content, Pipeline)>,
    supervisor: Supervisor,
    metrics: Metrics,
    health: HealthBoard,
}

/// A pipeline that was started.
struct Known {
    name: String,
    content: Content,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All is well.
    Done,
    /// A pipeline has failed.
    Failed,
    /// A second signal: not everything was delivered.
    Forced,
}

/// Why nothing was started.
pub enum NotStarted {
    /// The files have faults.
    Faults(Vec<Diagnostic>),
    /// The files cannot be read.
    Unread(anyhow::Error),
}

impl Serve {
    /// Reads and checks the files, and builds their pipelines. Nothing runs yet. Answers the warnings, too.
    ///
    /// # Errors
    /// There are faults, or files that cannot be read.
    pub fn prepare(read: Read, environment: Environment) -> Result<(Self, Vec<Diagnostic>), NotStarted> {
        let (registry, documents) = read().map_err(NotStarted::Unread)?;
        // Notes are for whoever writes pipelines: `streamer lint` shows them.
        let found: Vec<_> = lint(&documents, &registry).into_iter().filter(|f| f.severity != Severity::Note).collect();
        if found.iter().any(Diagnostic::is_error) {
            return Err(NotStarted::Faults(found));
        }
        let (metrics, health) = (environment.metrics.clone(), environment.health.clone());
        let mut serve = Self {
            read,
            known: BTreeMap::new(),
            watched: BTreeSet::new(),
            built: Vec::new(),
            supervisor: Supervisor::new(environment),
            metrics,
            health,
        };
        for document in &documents {
            let Some(config) = document.pipeline(&registry) else { continue };
            let pipeline = Pipeline::build(&config, &registry).map_err(NotStarted::Faults)?;
            serve.built.push((document.file.path.clone(), Content::of(document, &registry), pipeline));
        }
        serve.note_watched(&registry, &documents);
        Ok((serve, found))
    }

    /// Runs until every pipeline has ended, or a signal says so.
    ///
    /// # Errors
    /// Signals cannot be listened to.
    pub async fn run(mut self, watch: bool) -> std::io::Result<End> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        for (file, content, pipeline) in std::mem::take(&mut self.built) {
            self.start(file, content, pipeline);
        }
        let mut files = watch.then(|| Watch::new(&self.watched));
        loop {
            tokio::select! {
                more = self.supervisor.next() => if !more { break },
                () = any(&mut terminate, &mut interrupt) => {
                    info!("stopping: no more is read, what was read is delivered; a second signal leaves at once");
                    self.supervisor.stop();
                    // The rest of the time only ends and a second signal matter.
                    loop {
                        tokio::select! {
                            more = self.supervisor.next() => if !more { break },
                            () = any(&mut terminate, &mut interrupt) => {
                                warn!("second signal: leaving at once; what was not acknowledged comes again");
                                return Ok(End::Forced);
                            }
                        }
                    }
                    break;
                }
                _ = hangup.recv() => {
                    info!("SIGHUP: reading all files anew");
                    tokio::task::block_in_place(|| self.reload());
                }
                () = changed(&mut files) => tokio::task::block_in_place(|| self.reload()),
            }
            if let Some(files) = &mut files {
                files.follow(&self.watched);
            }
        }
        Ok(if self.supervisor.has_failed() { End::Failed } else { End::Done })
    }

    /// Reads and checks all files anew, and replaces what has changed.
    fn reload(&mut self) {
        let (registry, documents) = match (self.read)() {
            Ok(read) => read,
            Err(error) => {
                error!(error = format!("{error:#}"), "the files cannot be read; everything goes on as it was");
                return;
            }
        };
        self.note_watched(&registry, &documents);
        let found: Vec<_> = lint(&documents, &registry).into_iter().filter(Diagnostic::is_error).collect();
        let here: BTreeSet<&str> = documents.iter().map(|document| document.file.path.as_str()).collect();
        for fault in found.iter().filter(|fault| !here.contains(fault.file.path.as_str())) {
            error!("a plugin has faults\n{}", shown(std::slice::from_ref(fault)));
        }
        let gone: Vec<String> = self.known.keys().filter(|file| !here.contains(file.as_str())).cloned().collect();
        for file in gone {
            if let Some(known) = self.known.remove(&file) {
                self.settle(&known.name, None);
            }
            self.supervisor.remove(&file);
        }
        for document in &documents {
            let file = &document.file.path;
            let own: Vec<_> = found.iter().filter(|fault| fault.file.path == *file).cloned().collect();
            let content = Content::of(document, &registry);
            let name = self.known.get(file).map_or_else(|| document.name().to_owned(), |known| known.name.clone());
            if self.known.get(file).is_some_and(|known| known.content == content) {
                // As it runs: perhaps a fault was taken back.
                self.settle(&name, None);
                continue;
            }
            if !own.is_empty() {
                self.refuse(&name, file, &own);
                continue;
            }
            let Some(config) = document.pipeline(&registry) else { continue };
            match Pipeline::build(&config, &registry) {
                Ok(pipeline) => {
                    info!(pipeline = %pipeline.name, file, "reloading");
                    self.settle(&name, None);
                    self.metrics.reload(&pipeline.name, "ok");
                    self.start(file.clone(), content, pipeline);
                }
                Err(faults) => self.refuse(&name, file, &faults),
            }
        }
    }

    fn start(&mut self, file: String, content: Content, pipeline: Pipeline) {
        self.metrics.stale(&pipeline.name, false);
        self.known.insert(file.clone(), Known { name: pipeline.name.to_string(), content });
        self.supervisor.start(&file, pipeline);
    }

    /// A faulty edit: what runs goes on, and everybody is told.
    fn refuse(&self, name: &str, file: &str, faults: &[Diagnostic]) {
        let what = if self.known.contains_key(file) { "what ran before goes on" } else { "it is not started" };
        error!(pipeline = name, file, "refused: {what}\n{}", shown(faults));
        self.metrics.reload(name, "refused");
        let first = faults.first().map_or(String::new(), |fault| {
            let (line, column) = fault.line_column();
            format!("{}:{line}:{column}: {}", fault.file.path, fault.title)
        });
        self.settle(name, Some(format!("its file has faults, {what}: {first}")));
    }

    /// Says whether a pipeline runs as its file says.
    fn settle(&self, name: &str, note: Option<String>) {
        self.metrics.stale(name, note.is_some());
        self.health.note(name, note);
    }

    fn note_watched(&mut self, registry: &Registry, documents: &[Document]) {
        self.watched = registry.plugins().files.iter().cloned().collect();
        for document in documents {
            self.watched.insert(PathBuf::from(&document.file.path));
            self.watched.extend(content::files(document));
        }
    }
}

fn shown(faults: &[Diagnostic]) -> String {
    diagnostic::render(faults, Format::Full, false)
}

async fn any(first: &mut Signal, second: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

/// Waits for a change; for ever when nothing is watched.
async fn changed(files: &mut Option<Watch>) {
    match files {
        Some(files) => files.changed().await,
        None => std::future::pending().await,
    }
}
