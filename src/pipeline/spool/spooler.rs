//! The spooler: watches how long confirmations take, and writes to the log while they take too long.
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Settings,
    block::BlockWriter,
    blocking,
    log::{Log, LogError},
    shared::Shared,
};
use crate::{
    ack::Ack,
    input::{Input, InputContext},
    message::{Batch, Source},
    metrics::{Health, HealthBoard, SpoolMetrics, SpoolState},
    pipeline::backoff::Backoff,
};

/// How often it looks whether outputs confirm in time.
const LOOK: Duration = Duration::from_millis(100);
/// How often at most it notes on disk what is confirmed.
const SAVE: Duration = Duration::from_secs(1);
/// A block is written when it has so many bytes, or when its first batch has waited this long.
const BLOCK_BYTES: usize = 1 << 20;
const GATHER: Duration = Duration::from_millis(5);
/// How long the input is left alone for the lane to read the last of the log.
const CATCH_UP: Duration = Duration::from_millis(250);
/// Pause after a write that the disk refused.
const REFUSED: Duration = Duration::from_secs(1);

type Held = VecDeque<(Batch, Ack)>;
type InputGuard = OwnedMutexGuard<Box<dyn Input>>;

pub struct Spooler {
    input: Arc<Mutex<Box<dyn Input>>>,
    shared: Arc<Shared>,
    /// Away only while a thread works with it.
    log: Option<Log>,
    settings: Settings,
    context: InputContext,
    metrics: SpoolMetrics,
    health: Health,
    board: HealthBoard,
    stop: CancellationToken,
    /// The input was connected, by the lane or here.
    connected: bool,
    saved: Instant,
    /// The board says how full it is.
    noted: bool,
}

/// Why messages stay where they are.
enum Refusal {
    Full,
    Disk(LogError),
}

impl Spooler {
    pub fn new(
        input: Arc<Mutex<Box<dyn Input>>>,
        shared: Arc<Shared>,
        log: Log,
        settings: Settings,
        context: InputContext,
        (metrics, health, board): (SpoolMetrics, Health, HealthBoard),
        stop: CancellationToken,
    ) -> Self {
        let connected = shared.is_direct();
        let (log, saved) = (Some(log), Instant::now());
        Self { input, shared, log, settings, context, metrics, health, board, stop, connected, saved, noted: false }
    }

    /// Works until it is stopped.
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if !self.shared.is_direct() {
            let messages = self.shared.unread();
            info!(
                pipeline = self.context.pipeline,
                input = self.context.label,
                messages,
                "the spool holds messages of an earlier run: they are delivered first"
            );
        }
        while !stop.is_cancelled() {
            if self.shared.is_direct() {
                tokio::select! {
                    _ = look.tick() => {}
                    () = stop.cancelled() => break,
                }
                self.look_after().await;
                if !self.settings.enabled || !self.is_stalled() {
                    continue;
                }
                warn!(
                    pipeline = self.context.pipeline,
                    input = self.context.label,
                    "the outputs confirm nothing: messages go to disk"
                );
                self.shared.begin();
            }
            let input = tokio::select! {
                input = self.input.clone().lock_owned() => input,
                () = stop.cancelled() => break,
            };
            self.spool(input, &mut look).await;
        }
        // What was confirmed while the pipeline stopped.
        self.save().await;
        self.board.note(&self.note_name(), None);
    }

    fn is_stalled(&self) -> bool {
        self.shared.oldest().is_some_and(|age| age > self.settings.after)
    }

    /// Reads the input in place of the lane, until the lane can have it back.
    async fn spool(&mut self, mut input: InputGuard, look: &mut Interval) {
        let stop = self.stop.clone();
        let mut held = self.shared.take_held();
        let mut held_bytes: usize = held.iter().map(|(batch, _)| batch.source().bytes().len()).sum();
        let mut gathered = (!held.is_empty()).then(Instant::now);
        let (mut refused, mut ended) = (None, false);
        let mut taken_over = !self.settings.enabled;
        let mut backoff = Backoff::default();
        let mut connect_at = Instant::now();
        loop {
            let may_write = refused.is_none_or(|since: Instant| since.elapsed() >= REFUSED);
            if !taken_over && may_write {
                taken_over = self.take_over().await;
                refused = (!taken_over).then(Instant::now);
            }
            let is_due = held_bytes >= BLOCK_BYTES || gathered.is_some_and(|since: Instant| since.elapsed() >= GATHER);
            if taken_over && may_write && is_due && !held.is_empty() {
                refused = (!self.write(&mut held).await).then(Instant::now);
                if refused.is_none() {
                    (held_bytes, gathered) = (0, None);
                    self.let_catch_up().await;
                }
            }
            if self.shared.unread() == 0 && !self.is_stalled() && (held.is_empty() || refused.is_some()) {
                info!(
                    pipeline = self.context.pipeline,
                    input = self.context.label,
                    "the outputs confirm in time again: messages no longer go to disk"
                );
                self.health.ok();
                return self.shared.end(held);
            }
            let is_reading =
                !ended && self.settings.enabled && taken_over && refused.is_none() && held_bytes < BLOCK_BYTES;
            if is_reading && !self.connected && connect_at <= Instant::now() {
                tokio::select! {
                    connected = input.connect(&self.context) => match connected {
                        Ok(()) => {
                            self.connected = true;
                            self.context.health.ok();
                        }
                        Err(error) => {
                            self.context.health.fault(error.to_string());
                            connect_at = Instant::now() + backoff.pause();
                        }
                    },
                    () = stop.cancelled() => return,
                }
            }
            let due = gathered.map(|since| since + GATHER).filter(|_| refused.is_none());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = look.tick() => self.look_after().await,
                () = self.shared.spooler.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                read = input.read(), if is_reading && self.connected => match read {
                    Ok(Some((batch, ack))) => {
                        backoff.reset();
                        held_bytes += batch.source().bytes().len();
                        gathered.get_or_insert_with(Instant::now);
                        held.push_back((batch, ack));
                    }
                    // The lane hears that again when it has read the log.
                    Ok(None) => ended = true,
                    Err(error) => {
                        self.context.health.fault(error.to_string());
                        self.context.metrics.reconnects.inc();
                        self.connected = false;
                        connect_at = Instant::now() + backoff.pause();
                    }
                },
            }
        }
    }

    /// Writes what is in flight to the log and acknowledges it. Answers false when the disk refuses.
    async fn take_over(&mut self) -> bool {
        let mut in_flight = self.shared.in_flight().into_iter().peekable();
        while in_flight.peek().is_some() {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while let Some((token, source)) = in_flight.next_if(|_| bytes < BLOCK_BYTES) {
                bytes += source.bytes().len();
                chunk.push((token, source));
            }
            let sources = chunk.iter().map(|(_, source)| source.clone()).collect();
            let Some(mut first) = self.append(sources, true).await else { return false };
            for (token, source) in chunk {
                if let Some(ack) = self.shared.logged(token, first) {
                    ack.delivered();
                }
                first += source.origins().len() as u64;
            }
        }
        true
    }

    /// Writes a block and acknowledges its messages. Answers false when the disk refuses.
    async fn write(&mut self, held: &mut Held) -> bool {
        let sources = held.iter().map(|(batch, _)| batch.source().clone()).collect();
        let written = self.append(sources, false).await.is_some();
        if written {
            held.drain(..).for_each(|(_, ack)| ack.delivered());
        }
        written
    }

    /// Appends a block to the log. Answers the number of its first message.
    async fn append(&mut self, sources: Vec<Arc<Source>>, in_flight: bool) -> Option<u64> {
        let bytes_max = self.settings.bytes_max;
        let first = self.shared.end_number();
        let written = self.with_log(move |log| {
            let Some(example) = sources.first() else { return Ok(()) };
            let now_ms = now_ms();
            let mut block = BlockWriter::new(example, now_ms);
            let messages = sources.iter().map(|source| block.push(source)).sum();
            if log.bytes() + block.len() as u64 > bytes_max {
                return Err(Refusal::Full);
            }
            log.append(&block.finish(first), messages, now_ms).map_err(Refusal::Disk)
        });
        match written.await {
            Ok(()) => {
                self.health.ok();
                let end = self.log.as_ref().expect("the log is back").end();
                self.shared.added(end, in_flight);
                Some(first)
            }
            Err(refusal) => {
                let reason = match refusal {
                    Refusal::Full => format!(
                        "the spool is full: `bytes_max` is {}. Nothing more is read or acknowledged until the outputs take messages again",
                        size(bytes_max)
                    ),
                    Refusal::Disk(error) => format!(
                        "{error}. Nothing more is read or acknowledged until the disk takes it, or the outputs do"
                    ),
                };
                self.health.fault(reason);
                None
            }
        }
    }

    /// When the lane is about to have read the log, it gets the time to: else new messages would keep it busy for ever.
    async fn let_catch_up(&self) {
        const CLOSE: u64 = 20_000;
        if self.is_stalled() || self.shared.unread() > CLOSE {
            return;
        }
        let read = async {
            while self.shared.unread() > 0 {
                self.shared.spooler.notified().await;
            }
        };
        // It may well take longer: then it is tried after the next block.
        let _ = timeout(CATCH_UP, read).await;
    }

    /// Notes what is confirmed, removes what is not needed any more, and tells how things are.
    async fn look_after(&mut self) {
        if self.saved.elapsed() >= SAVE {
            self.save().await;
        }
        let (confirmed, end) = (self.shared.confirmed(), self.shared.end_number());
        let log = self.log.as_ref().expect("the log is here");
        let state = match () {
            () if !self.shared.is_direct() && self.is_stalled() => SpoolState::Spooling,
            () if !self.shared.is_direct() || confirmed < end => SpoolState::Draining,
            () => SpoolState::Direct,
        };
        let age_s =
            log.oldest_ms().filter(|_| confirmed < end).map_or(0.0, |ms| (now_ms() - ms).max(0) as f64 / 1000.0);
        self.metrics.set(state, log.bytes(), end - confirmed, age_s);
        if state == SpoolState::Direct && !self.noted {
            return;
        }
        self.noted = state != SpoolState::Direct;
        let note = self.noted.then(|| {
            let (bytes, bytes_max) = (size(log.bytes()), size(self.settings.bytes_max));
            let waiting = end - confirmed;
            format!(
                "{}: {waiting} messages wait on disk, the oldest for {age_s:.0} s; {bytes} of {bytes_max} are used",
                state.word()
            )
        });
        self.board.note(&self.note_name(), note);
    }

    /// Notes on disk what is confirmed, and removes what is not needed any more.
    async fn save(&mut self) {
        self.saved = Instant::now();
        let (confirmed, end) = (self.shared.confirmed(), self.shared.end_number());
        let log = self.log.as_ref().expect("the log is here");
        let is_new = confirmed > log.delivered() || (confirmed == end && log.bytes() > 0);
        if is_new && let Err(error) = self.with_log(move |log| log.delivered_below(confirmed)).await {
            warn!(pipeline = self.context.pipeline, input = self.context.label, %error, "after a crash more messages would be delivered twice");
        }
    }

    fn note_name(&self) -> String {
        format!("{}/spool/{}", self.context.pipeline, self.context.label)
    }

    /// Works with the log on a thread that may wait for the disk.
    async fn with_log<T: Send + 'static, E: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Log) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let mut log = self.log.take().expect("the log is here");
        let done = blocking(move || {
            let result = work(&mut log);
            Ok((log, result))
        });
        let (log, result) = done.await.expect("the outer result is Ok");
        self.log = Some(log);
        result
    }
}

impl Drop for Spooler {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.into_iter();
    let mut unit = units.next().expect("there is a first");
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.1} {unit}")
}
