//! Several pipelines in one process: each runs by itself, and can be replaced while it runs.
//!
//! A pipeline that is replaced stops as it would at the end of the process: it reads no more, delivers and acknowledges
//! what it has read, and closes its inputs. Only then its successor starts, so no two run on one MQTT session, Kafka group
//! or table, and nothing is read twice. Knows nothing of files: a pipeline has a key.
use std::collections::HashMap;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Environment, Pipeline, PipelineError};

/// The pipelines of a process.
pub struct Supervisor {
    environment: Environment,
    entries: HashMap<String, Entry>,
    running: JoinSet<(String, Result<(), PipelineError>)>,
    /// Which key a task runs for: a task that panics does not say.
    tasks: HashMap<tokio::task::Id, String>,
    stopping: bool,
    failed: bool,
}

/// One pipeline.
struct Entry {
    name: String,
    stop: CancellationToken,
    is_running: bool,
    /// What starts when it has stopped.
    next: Option<Pipeline>,
}

impl Supervisor {
    /// Runs nothing yet.
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            entries: HashMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            stopping: false,
            failed: false,
        }
    }

    /// Starts a pipeline. One that runs by the same key stops first; of several that wait for that, only the last one
    /// starts.
    pub fn start(&mut self, key: &str, pipeline: Pipeline) {
        if self.stopping {
            return;
        }
        match self.entries.get_mut(key).filter(|entry| entry.is_running) {
            Some(entry) => {
                info!(pipeline = entry.name, "stopping, to start it anew");
                entry.next = Some(pipeline);
                entry.stop.cancel();
            }
            None => self.spawn(key, pipeline),
        }
    }

    /// Stops a pipeline for good.
    pub fn remove(&mut self, key: &str) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        info!(pipeline = entry.name, "stopping: its file is gone");
        entry.next = None;
        entry.stop.cancel();
        if !entry.is_running {
            self.forget(key);
        }
    }

    /// Stops all, for good.
    pub fn stop(&mut self) {
        self.stopping = true;
        for entry in self.entries.values_mut() {
            entry.next = None;
            entry.stop.cancel();
        }
    }

    /// True when one of them has failed, even if another was started in its place.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Waits until a pipeline has ended, and starts what waits for that. Answers false when none is left.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is cancelled: the end is reported by the next call.
    pub async fn next(&mut self) -> bool {
        let Some(ended) = self.running.join_next_with_id().await else { return false };
        let (key, result) = match ended {
            Ok((id, (key, result))) => {
                self.tasks.remove(&id);
                (Some(key), result.map_err(|error| error.to_string()))
            }
            Err(error) => (self.tasks.remove(&error.id()), Err(panic_text(error))),
        };
        if let Err(error) = result {
            self.failed = true;
            error!(error, "a pipeline has failed; the others go on");
        }
        let Some(key) = key else { return true };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.is_running = false;
            let next = entry.next.take();
            let is_removed = entry.stop.is_cancelled() && next.is_none();
            match next {
                Some(next) => self.spawn(&key, next),
                None if is_removed && !self.stopping => self.forget(&key),
                None => {}
            }
        }
        true
    }

    fn forget(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.environment.health.remove(&format!("{}/", entry.name));
        }
    }

    fn spawn(&mut self, key: &str, pipeline: Pipeline) {
        // A failed predecessor, perhaps of another name, stands on the board until now.
        self.forget(key);
        let name = pipeline.name.to_string();
        let stop = CancellationToken::new();
        let (environment, token, own) = (self.environment.clone(), stop.clone(), key.to_owned());
        let task = self.running.spawn(async move { (own, pipeline.run(&environment, token).await) });
        self.tasks.insert(task.id(), key.to_owned());
        self.entries.insert(key.to_owned(), Entry { name, stop, is_running: true, next: None });
    }
}

fn panic_text(error: JoinError) -> String {
    format!("it has ended unexpectedly: {error}")
}
