//! One output at work: gathers, writes, tries again, and answers the acks. The retry loop of all outputs is here, once.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use super::{
    PipelineError,
    backoff::Backoff,
    batcher::{Batcher, Job, Write},
};
use crate::{
    ack::Ack,
    metrics::Health,
    output::{Output, OutputContext, Parcel, Pending, Rejection, WriteError},
};

/// Where messages go that an output can never accept.
#[async_trait]
pub trait Refused: Send + Sync {
    /// Takes over the messages `rejected` of `write`, splitting the write's acks: they wait for these messages too.
    /// May answer with a job to write to the same output instead.
    ///
    /// # Errors
    /// There is nowhere to put them.
    async fn take(&self, write: &Write, rejected: &[Rejection]) -> Result<Option<Job>, PipelineError>;
}

/// An output and what its writer needs.
pub struct Writer {
    pub output: Box<dyn Output>,
    pub context: OutputContext,
    pub refused: Arc<dyn Refused>,
    /// Counts confirmed messages beside the output's own counter: the pipeline's dead letters.
    pub delivered: Option<Counter>,
    /// Every job is a write by itself: a range that its input has recorded.
    pub ranges: bool,
}

/// Jobs that may wait in front of a writer. The bytes are bounded by the budget; this bounds their number.
pub const JOBS_WAITING_MAX: usize = 64;

/// How long an output may leave its writes without an answer before it counts as not working.
const STALLED: Duration = Duration::from_secs(15);

type Answer = (Write, Instant, Result<(), WriteError>);

/// Writes that the output has not answered yet.
#[derive(Default)]
struct InFlight {
    writes: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// When one was last answered, or begun while there was no other.
    moved: Option<Instant>,
    /// True when the lack of answers was told of.
    told: bool,
}

impl InFlight {
    fn len(&self) -> usize {
        self.writes.len()
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    fn push(&mut self, delivery: BoxFuture<'static, Answer>) {
        if self.is_empty() {
            self.moved = Some(Instant::now());
        }
        self.writes.push(delivery);
    }

    /// The next answer; `None` when there is nothing to wait for. Says in `health` when none comes for long. Dropping it
    /// loses nothing.
    async fn next(&mut self, health: &Health) -> Option<Answer> {
        let moved = self.moved.unwrap_or_else(Instant::now);
        let answer = loop {
            tokio::select! {
                biased;
                answer = self.writes.next() => break answer?,
                () = sleep_until(moved + STALLED), if !self.told => {
                    self.told = true;
                    let (seconds, writes) = (STALLED.as_secs(), self.writes.len());
                    health.fault(format!(
                        "no answer for {seconds} s to {writes} write{}; what is not confirmed stays unacknowledged",
                        if writes == 1 { "" } else { "s" }
                    ));
                }
            }
        };
        self.moved = Some(Instant::now());
        self.told = false;
        Some(answer)
    }
}

impl Writer {
    /// Works until `jobs` is closed and everything taken from it is settled, then closes the output.
    ///
    /// # Errors
    /// A message was refused and there is nowhere to put it. Acks of open writes are dropped: not delivered.
    pub async fn run(mut self, mut jobs: mpsc::Receiver<Job>, close_within: Duration) -> Result<(), PipelineError> {
        let mut backoff = Backoff::default();
        let Some(first) = self.connect(&mut jobs, &mut backoff).await else { return Ok(()) };
        let mut limits = self.output.limits();
        if self.ranges {
            (limits.messages_max, limits.linger) = (1, Duration::ZERO);
        }
        let mut batcher = Batcher::new(limits);
        let mut in_flight = InFlight::default();
        let mut again = Vec::new();
        let mut instead = Vec::from_iter(first);
        let mut open = true;
        while open || !batcher.is_empty() || !in_flight.is_empty() || !instead.is_empty() {
            let now = Instant::now();
            instead.drain(..).for_each(|job| batcher.push(job, now));
            let due = batcher.due().filter(|_| in_flight.len() < limits.in_flight_max);
            if due.is_some_and(|due| due <= now || !open) {
                let write = batcher.take(now).expect("a due batcher is not empty");
                self.start(write, &mut in_flight).await;
                continue;
            }
            tokio::select! {
                biased;
                Some((write, started, result)) = in_flight.next(&self.context.health) => {
                    if let Some(write) = self.settle(write, started, result, &mut instead).await? {
                        again.push(write);
                        self.recover(&mut again, &mut in_flight, &mut backoff, &mut instead).await?;
                    } else {
                        backoff.reset();
                    }
                }
                job = jobs.recv(), if open && !batcher.is_full() => match job {
                    Some(job) => batcher.push(job, Instant::now()),
                    None => open = false,
                },
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            }
        }
        self.output.close(close_within).await;
        Ok(())
    }

    /// Connects, however long it takes, and answers the job that came meanwhile. `None` when there is nothing to connect
    /// for any more: `jobs` is closed and none has come.
    async fn connect(&mut self, jobs: &mut mpsc::Receiver<Job>, backoff: &mut Backoff) -> Option<Option<Job>> {
        let mut first = None;
        let connect = async {
            while let Err(error) = self.output.connect(&self.context).await {
                self.context.health.fault(error.to_string());
                sleep(backoff.pause()).await;
            }
            self.context.health.ok();
            backoff.reset();
        };
        let mut connect = std::pin::pin!(connect);
        loop {
            tokio::select! {
                biased;
                () = &mut connect => return Some(first),
                job = jobs.recv(), if first.is_none() => first = Some(job?),
            }
        }
    }

    /// Hands a write to the output.
    async fn start(&mut self, mut write: Write, in_flight: &mut InFlight) {
        write.attempts += 1;
        let started = Instant::now();
        let delivery = self.output.write(&write.parcel).await;
        self.context.metrics.write_messages.observe(write.parcel.len() as f64);
        in_flight.push(delivery.map(move |result| (write, started, result)).boxed());
    }

    /// Acts on the answer to a write: acks it when all of it is confirmed, else returns what is left to do.
    async fn settle(
        &mut self,
        write: Write,
        started: Instant,
        result: Result<(), WriteError>,
        instead: &mut Vec<Job>,
    ) -> Result<Option<Write>, PipelineError> {
        let WriteError { rejected, retry, divide } = result.err().unwrap_or_default();
        let metrics = &self.context.metrics;
        metrics.write_seconds.observe(started.elapsed().as_secs_f64());
        if !rejected.is_empty() {
            metrics.rejected.inc_by(rejected.len() as u64);
            instead.extend(self.refused.take(&write, &rejected).await?);
        }
        if let Some(reason) = divide {
            metrics.retries.inc();
            self.context.health.fault(reason);
            write.acks.into_iter().for_each(Ack::divide);
            return Ok(None);
        }
        let Some(retry) = retry else {
            self.count_delivered(write.parcel.len() - rejected.len());
            self.context.health.progress();
            debug!(output = self.context.label, messages = write.parcel.len(), attempts = write.attempts, "settled");
            write.acks.into_iter().for_each(|ack| ack.delivered());
            return Ok(None);
        };
        let parcel = match retry.messages {
            Pending::All if rejected.is_empty() => write.parcel.clone(),
            Pending::All => write.parcel.select(&others(&write.parcel, &rejected)),
            Pending::Only(indexes) => write.parcel.select(&indexes),
        };
        self.count_delivered(write.parcel.len() - rejected.len() - parcel.len());
        metrics.retries.inc();
        self.context.health.fault(retry.reason);
        Ok(Some(Write { parcel, ..write }))
    }

    fn count_delivered(&self, messages: usize) {
        self.context.metrics.delivered.inc_by(messages as u64);
        if let Some(total) = &self.delivered {
            total.inc_by(messages as u64);
        }
    }

    /// Brings the output back to work: lets open writes end, pauses, connects, and writes `again` what is left, in order.
    /// Nothing new is written meanwhile, so the inputs come to rest.
    async fn recover(
        &mut self,
        again: &mut Vec<Write>,
        in_flight: &mut InFlight,
        backoff: &mut Backoff,
        instead: &mut Vec<Job>,
    ) -> Result<(), PipelineError> {
        loop {
            while let Some((write, started, result)) = in_flight.next(&self.context.health).await {
                again.extend(self.settle(write, started, result, instead).await?);
            }
            if again.is_empty() {
                backoff.reset();
                return Ok(());
            }
            sleep(backoff.pause()).await;
            if let Err(error) = self.output.connect(&self.context).await {
                self.context.health.fault(error.to_string());
                continue;
            }
            again.sort_by_key(|write| write.number);
            for write in again.drain(..) {
                self.start(write, in_flight).await;
            }
        }
    }
}

/// Indexes of the messages that were not rejected.
fn others(parcel: &Parcel, rejected: &[Rejection]) -> Vec<u32> {
    let refused: std::collections::HashSet<u32> = rejected.iter().map(|r| r.index).collect();
    (0..parcel.len() as u32).filter(|i| !refused.contains(i)).collect()
}
