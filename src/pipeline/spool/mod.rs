//! The spool: while outputs confirm nothing, messages go to disk and are acknowledged from there.
//!
//! ```text
//! direct    input ──────────────────────────▶ lane ─▶ outputs      nothing on disk; the acks are remembered, once a batch
//! spooling  input ─▶ spooler ─▶ log ┄┄┄┄┄┄┄▶ lane ─▶ outputs      what is in flight is logged first, then all that comes
//! ```
//! It stands between an input and its lane, and is an input itself: the lane knows nothing of it. In direct mode the
//! lane reads the input by itself. When the oldest batch that was handed out is older than `after`, the spooler takes
//! the input away: it writes to the log what is in flight, acknowledges that, and goes on with what arrives. The lane
//! reads the log meanwhile, in order, as fast as the outputs take it. When it has read all of it and the outputs
//! confirm in time again, the input goes back to the lane. So a device's messages stay in order, and what is in flight is
//! written once: the log's copy is for a restart only.
//!
//! When the log is full or the disk refuses, no more is read from the input and nothing more is acknowledged. A restart
//! begins with the log, at the last cursor that was saved; what was delivered since comes twice, nothing is lost.
mod block;
mod log;
mod shared;
mod spooler;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use self::{
    log::{Log, LogError},
    shared::{Next, Shared},
    spooler::Spooler,
};
use super::Environment;
use crate::{
    ack::Ack,
    input::{Input, InputContext, InputError, Replay},
    message::Batch,
    metrics::{Health, HealthBoard, SpoolMetrics},
};

/// How a pipeline uses its spools.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// When false, a spool that holds messages is emptied and nothing more goes to disk.
    pub enabled: bool,
    /// Most bytes on disk for each input.
    pub bytes_max: u64,
    /// How long a batch may wait for its confirmation before messages go to disk.
    pub after: Duration,
}

/// The input, with a spool if it gains from one. `linger` is how long outputs gather messages on purpose.
pub fn around(
    input: Box<dyn Input>,
    settings: Option<Settings>,
    linger: Duration,
    context: &InputContext,
    environment: &Environment,
) -> Box<dyn Input> {
    let folder = environment.folder("spool", &context.pipeline, &context.label);
    let off = Settings { enabled: false, bytes_max: 0, after: Duration::from_secs(1) };
    let settings = settings.unwrap_or(off);
    let is_needed = settings.enabled || log::holds_messages(&folder);
    if !input.can_spool() || !is_needed {
        return input;
    }
    let metrics = environment.metrics.spool(&context.pipeline, &context.label);
    let (_, health) = environment.component(&context.pipeline, "spool", &context.label);
    Box::new(Spooled {
        replay: input.replay(),
        input: Arc::new(Mutex::new(input)),
        settings: Settings { after: settings.after + linger, ..settings },
        folder,
        metrics,
        health,
        board: environment.health.clone(),
        running: None,
    })
}

/// An input with a spool behind it.
struct Spooled {
    replay: Replay,
    /// The lane has it in direct mode, the spooler else.
    input: Arc<Mutex<Box<dyn Input>>>,
    settings: Settings,
    folder: PathBuf,
    metrics: SpoolMetrics,
    health: Health,
    board: HealthBoard,
    running: Option<Running>,
}

/// An open spool. Dropping it stops the spooler.
struct Running {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Spooled {
    /// Opens the log and starts the spooler, unless that is done.
    async fn open(&mut self, context: &InputContext) -> Result<Arc<Shared>, InputError> {
        if let Some(running) = self.running.as_ref().filter(|running| !running.task.is_finished()) {
            return Ok(running.shared.clone());
        }
        self.running = None;
        let (folder, segment) = (self.folder.clone(), (self.settings.bytes_max / 16).clamp(1 << 20, 64 << 20));
        let opened = blocking(move || {
            let log = Log::open(&folder, segment)?;
            let start = log.start()?;
            Ok((log, start))
        });
        let (log, start) = opened.await.map_err(|error| InputError::message(error.to_string()))?;
        let shared = Arc::new(Shared::new(start, log.end()));
        let stop = CancellationToken::new();
        self.health.ok();
        let spooler = Spooler::new(
            self.input.clone(),
            shared.clone(),
            log,
            self.settings,
            context.clone(),
            (self.metrics.clone(), self.health.clone(), self.board.clone()),
            stop.clone(),
        );
        let task = tokio::spawn(spooler.run());
        let _stop_on_drop = stop.clone().drop_guard();
        self.running = Some(Running { shared: shared.clone(), task, stop, _stop_on_drop });
        Ok(shared)
    }
}

#[async_trait]
impl Input for Spooled {
    fn replay(&self) -> Replay {
        self.replay
    }

    async fn connect(&mut self, context: &InputContext) -> Result<(), InputError> {
        let shared = self.open(context).await?;
        match shared.next() {
            // The spooler has the input, and connects it.
            Next::Wait => Ok(()),
            Next::Block(at) => {
                let folder = self.folder.clone();
                let read = blocking(move || log::read(&folder, at).map(drop));
                read.await.map_err(|error| InputError::message(error.to_string()))
            }
            Next::Held | Next::Input | Next::Nothing => tokio::select! {
                biased;
                () = shared.lane.notified() => Ok(()),
                mut input = self.input.lock() => input.connect(context).await,
            },
        }
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        let Some(Running { shared, .. }) = &self.running else {
            return Err(InputError::message("the spool is not open"));
        };
        loop {
            match shared.next() {
                Next::Input => {
                    // Remembered before the spooler can have the input: what it logs comes later.
                    let read = async {
                        let mut input = self.input.lock().await;
                        Ok(input.read().await?.map(|(batch, ack)| shared.hand_out(batch, ack)))
                    };
                    tokio::select! {
                        biased;
                        () = shared.lane.notified() => {}
                        read = read => return read,
                    }
                }
                Next::Held => {
                    if let Some(held) = shared.hand_out_held() {
                        return Ok(Some(held));
                    }
                }
                Next::Block(at) => {
                    let folder = self.folder.clone();
                    let block = blocking(move || log::read(&folder, at)).await;
                    let block = block.map_err(|error| InputError::message(error.to_string()))?;
                    return Ok(Some(shared.hand_out_block(block)));
                }
                Next::Wait => {
                    shared.spooler.notify_one();
                    shared.lane.notified().await;
                }
                Next::Nothing => return Err(InputError::message("the spool has stopped; it is opened again")),
            }
        }
    }

    async fn close(&mut self, deadline: Duration) {
        if let Some(mut running) = self.running.take() {
            running.stop.cancel();
            if tokio::time::timeout(deadline, &mut running.task).await.is_err() {
                warn!(folder = %self.folder.display(), "the disk did not take the spool's last write in time; some messages may be delivered again");
                running.task.abort();
            }
        }
        if let Ok(mut input) = tokio::time::timeout(deadline, self.input.lock()).await {
            input.close(deadline).await;
        }
    }
}

/// Works with files where that may take long.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.expect("work with the spool's files does not panic")
}
