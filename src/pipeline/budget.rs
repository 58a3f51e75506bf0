//! The byte budget: how much a pipeline may hold between input and ack. A full budget stops reading, nothing else.
use std::{sync::Arc, time::Instant};

use prometheus_client::metrics::{gauge::Gauge, histogram::Histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    message::{Batch, Origin},
    metrics::PipelineMetrics,
};

/// The unit of the semaphore: 1 KiB, so that 32 bits count 4 TiB.
const UNIT: usize = 1024;

/// Bytes a pipeline may hold. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    all: u32,
    metrics: PipelineMetrics,
}

impl Budget {
    /// A budget of `bytes`, at least 1 KiB.
    pub fn new(bytes: usize, metrics: PipelineMetrics) -> Self {
        let all = u32::try_from((bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(all as usize)), all, metrics }
    }

    /// Waits until there is room for `batch` and ties the room to the batch's memory. A batch larger than the whole
    /// budget waits for all of it and then goes alone.
    pub async fn admit(&self, batch: &mut Batch) {
        // Steps write a second arena next to the source's; the descriptors count too.
        let bytes = batch.source().bytes().len() * 2 + batch.len() * (size_of::<Origin>() + 32);
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.all);
        let room = self.units.clone().acquire_many_owned(units).await.expect("the semaphore is never closed");
        let messages = batch.len() as i64;
        self.metrics.in_flight.inc_by(messages);
        batch.hold(Box::new(InFlight {
            _room: room,
            messages,
            gauge: self.metrics.in_flight.clone(),
            age: self.metrics.age_seconds.clone(),
            since: Instant::now(),
        }));
    }
}

/// Dropped when the last copy of a batch is gone.
struct InFlight {
    _room: OwnedSemaphorePermit,
    messages: i64,
    gauge: Gauge,
    age: Histogram,
    since: Instant,
}

impl Drop for InFlight {
    fn drop(&mut self) {
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

    #[test]
    fn a_full_budget_waits_until_a_batch_is_gone() {
        let metrics = Metrics::new().pipeline("p");
        let budget = Budget::new(10 * 1024, metrics.clone());
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
        let budget = Budget::new(1024, Metrics::new().pipeline("p"));
        let (mut large, mut small) = (batch(1 << 20), batch(1));
        budget.admit(&mut large).now_or_never().expect("nothing else is there");
        assert!(budget.admit(&mut small).now_or_never().is_none());
        drop(large);
        budget.admit(&mut small).now_or_never().expect("alone again");
    }
}
