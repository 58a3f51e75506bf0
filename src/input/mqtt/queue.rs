//! Between the session, which must never wait, and the pipeline, which may.
use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    ack::{Outcome, Settle},
    message::{Batch, Origin},
};

/// The token of a batch that nothing needs to be acknowledged for.
pub const NOTHING_TO_ACK: u64 = u64::MAX;

/// Batches read and not yet handed out, bounded in bytes. The bound is looked at before a read, so it can be passed by
/// what one read brings.
pub struct Queue {
    inner: Mutex<Inner>,
    bytes_max: usize,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct Inner {
    batches: VecDeque<(Batch, u64)>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        let inner = Mutex::new(Inner::default());
        Arc::new(Self { inner, bytes_max, filled: Notify::new(), drained: Notify::new() })
    }

    /// True while more may be read.
    pub fn has_room(&self) -> bool {
        self.inner.lock().bytes < self.bytes_max
    }

    /// Waits until there may be room again.
    pub async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Adds a batch; `token` is for its ack.
    pub fn push(&self, batch: Batch, token: u64) {
        let mut inner = self.inner.lock();
        inner.bytes += cost(&batch);
        inner.batches.push_back((batch, token));
        drop(inner);
        self.filled.notify_one();
    }

    /// The next batch. `None` once the session has ended.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing out.
    pub async fn pop(&self) -> Option<(Batch, u64)> {
        loop {
            {
                let mut inner = self.inner.lock();
                if inner.closed {
                    return None;
                }
                if let Some((batch, token)) = inner.batches.pop_front() {
                    let was_full = inner.bytes >= self.bytes_max;
                    inner.bytes -= cost(&batch);
                    if was_full && inner.bytes < self.bytes_max {
                        self.drained.notify_one();
                    }
                    return Some((batch, token));
                }
            }
            self.filled.notified().await;
        }
    }

    fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.batches.clear();
        drop(inner);
        self.filled.notify_one();
    }
}

fn cost(batch: &Batch) -> usize {
    batch.memory_bytes() + batch.len() * size_of::<Origin>()
}

/// Closes the queue when the session ends, in whichever way.
pub struct CloseOnDrop(pub Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What became of batches, on the way from the pipeline to the session. Holds at most one entry a batch in flight.
#[derive(Default)]
pub struct Settled {
    answers: Mutex<Vec<(u64, Outcome)>>,
    changed: Notify,
}

impl Settled {
    /// Waits until there may be answers.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes all answers.
    pub fn take(&self) -> Vec<(u64, Outcome)> {
        std::mem::take(&mut *self.answers.lock())
    }
}

impl Settle for Settled {
    fn settle(&self, token: u64, outcome: Outcome) {
        if token != NOTHING_TO_ACK {
            self.answers.lock().push((token, outcome));
            self.changed.notify_one();
        }
    }
}
