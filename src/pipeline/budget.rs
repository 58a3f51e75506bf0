//! The byte budgets: how much a pipeline, and all of them together, may hold between input and ack. A full budget stops
//! reading, nothing else.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use prometheus_client::metrics::{gauge::Gauge, histogram::Histogram};
use tokio::sync::{Mutex, Notify, watch};

use crate::{
    message::{Batch, Origin},
    metrics::PipelineMetrics,
};

/// What the pipelines of a process may hold together. Each has an equal share, so that one whose output is down cannot
/// fill it and stop the others. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Memory {
    bytes: usize,
    pipelines: watch::Sender<usize>,
}

impl Memory {
    /// `bytes` for all pipelines together.
    pub fn new(bytes: usize) -> Self {
        Self { bytes, pipelines: watch::Sender::new(0) }
    }

    /// A pipeline's part of it, until the answer is dropped.
    fn share(&self) -> Share {
        self.pipelines.send_modify(|pipelines| *pipelines += 1);
        Share { memory: self.clone() }
    }
}

/// Counts one pipeline.
#[derive(Debug)]
struct Share {
    memory: Memory,
}

impl Share {
    fn bytes(&self) -> usize {
        self.memory.bytes / (*self.memory.pipelines.borrow()).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.pipelines.send_modify(|pipelines| *pipelines -= 1);
    }
}

/// Bytes a pipeline may hold. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
    metrics: PipelineMetrics,
}

#[derive(Debug)]
struct Shared {
    /// What the pipeline may hold by its own settings.
    own: usize,
    share: Share,
    held: Arc<Held>,
    /// Who holds it is the next to be let in: large batches are not overtaken for ever by small ones.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    /// Woken when a batch is gone.
    freed: Notify,
}

impl Budget {
    /// A budget of `bytes`, and of an equal share of `memory`.
    pub fn new(bytes: usize, memory: &Memory, metrics: PipelineMetrics) -> Self {
        let shared = Shared { own: bytes, share: memory.share(), held: Arc::default(), turn: Mutex::default() };
        Self { shared: Arc::new(shared), metrics }
    }

    /// What the pipeline may hold just now: pipelines come and go.
    pub fn bytes(&self) -> usize {
        self.shared.own.min(self.shared.share.bytes())
    }

    /// Waits until there is room for `batch` and ties the room to the batch's memory. A batch larger than the whole
    /// budget waits until nothing else is there and then goes alone.
    pub async fn admit(&self, batch: &mut Batch) {
        // Steps write a second arena next to the source's; the descriptors count too.
        let bytes = batch.source().bytes().len() * 2 + batch.len() * (size_of::<Origin>() + 32);
        let Shared { share, held, turn, .. } = &*self.shared;
        let turn = turn.lock().await;
        let mut pipelines = share.memory.pipelines.subscribe();
        loop {
            let freed = held.freed.notified();
            // Only whoever has the turn adds, so what is read here can only have become less.
            let others = held.bytes.load(Ordering::Acquire);
            if others == 0 || others + bytes <= self.bytes() {
                break;
            }
            tokio::select! {
                () = freed => {}
                // The sender lives as long as the share.
                _ = pipelines.changed() => {}
            }
        }
        held.bytes.fetch_add(bytes, Ordering::AcqRel);
        drop(turn);
        let messages = batch.len() as i64;
        self.metrics.in_flight.inc_by(messages);
        batch.hold(Box::new(InFlight {
            held: held.clone(),
            bytes,
            messages,
            gauge: self.metrics.in_flight.clone(),
            age: self.metrics.age_seconds.clone(),
            since: Instant::now(),
        }));
    }
}

/// Dropped when the last copy of a batch is gone.
struct InFlight {
    held: Arc<Held>,
    bytes: usize,
    messages: i64,
    gauge: Gauge,
    age: Histogram,
    since: Instant,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        // One waits at most: the others wait for its turn to be over.
        self.held.freed.notify_one();
        self.gauge.dec_by(self.messages);
        self.age.observe(self.since.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{message::SourceBuilder, metrics::Metrics};

    fn batch(bytes: usize) -> Batch {
        let mut source = SourceBuilder::new("test");
        source.push(&vec![b'x'; bytes], |_, _| Ok(())).unwrap();
        Batch::new(source.finish())
    }

    fn budget(bytes: usize, memory: &Memory) -> Budget {
        Budget::new(bytes, memory, Metrics::new().pipeline("p"))
    }

    #[test]
    fn a_full_budget_waits_until_a_batch_is_gone() {
        let metrics = Metrics::new().pipeline("p");
        let budget = Budget::new(10_000, &Memory::new(1 << 20), metrics.clone());
        let (mut first, mut second) = (batch(4000), batch(1000));
        budget.admit(&mut first).now_or_never().expect("there is room");
        assert!(budget.admit(&mut second).now_or_never().is_none());
        let copy = first.clone();
        drop(first);
        assert!(budget.admit(&mut second).now_or_never().is_none(), "a copy still holds the bytes");
        assert_eq!(metrics.in_flight.get(), 1);
        drop(copy);
        budget.admit(&mut second).now_or_never().expect("there is room again");
    }

    #[test]
    fn a_batch_larger_than_the_budget_goes_alone() {
        let budget = budget(1024, &Memory::new(1 << 20));
        let (mut large, mut small) = (batch(1 << 20), batch(1));
        budget.admit(&mut large).now_or_never().expect("nothing else is there");
        assert!(budget.admit(&mut small).now_or_never().is_none());
        drop(large);
        budget.admit(&mut small).now_or_never().expect("alone again");
    }

    #[tokio::test]
    async fn a_large_batch_is_not_overtaken() {
        let budget = budget(10 * 1024, &Memory::new(1 << 20));
        let (mut first, mut large, mut small) = (batch(3000), batch(4000), batch(1));
        budget.admit(&mut first).await;
        let mut waits = Box::pin(budget.admit(&mut large));
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(budget.admit(&mut small).now_or_never().is_none(), "it would fit, and came later");
        drop(first);
        waits.await;
        budget.admit(&mut small).await;
    }

    #[tokio::test]
    async fn all_pipelines_together_stay_within_the_memory_of_the_process() {
        let memory = Memory::new(20 * 1024);
        let alone = budget(1 << 20, &memory);
        assert_eq!(alone.bytes(), 20 * 1024);
        let other = budget(5 * 1024, &memory);
        assert_eq!((alone.bytes(), other.bytes()), (10 * 1024, 5 * 1024), "an equal share, or less if it wants less");
        let (mut first, mut second) = (batch(4000), batch(4000));
        alone.admit(&mut first).await;
        let mut waits = Box::pin(alone.admit(&mut second));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(other);
        waits.await;
    }
}
