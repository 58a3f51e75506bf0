//! Gathers what lanes hand over into writes of the size an output likes.
//!
//! This is the one place that decides where a write ends. A write is cut when it is full by messages or bytes, or when
//! its first message has waited long enough; batches are never reordered and a batch is never divided, so that a write
//! always covers whole ranges of its inputs. (Writes that must be repeatable after a crash will record their cuts here.)
use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

use crate::{
    ack::Ack,
    message::Batch,
    output::{Parcel, WriteLimits},
};

/// A batch on its way to one output, with the acks that wait for it.
#[derive(Debug)]
pub struct Job {
    pub batch: Arc<Batch>,
    pub acks: Vec<Ack>,
}

/// What is written at once, and the acks that wait for it.
#[derive(Debug)]
pub struct Write {
    pub parcel: Parcel,
    /// All of them are answered when the whole parcel is confirmed.
    pub acks: Vec<Ack>,
    /// How often it was tried, from 1.
    pub attempts: u32,
    /// Order of the writes of one output.
    pub number: u64,
}

/// Jobs waiting to become a write.
#[derive(Debug)]
pub struct Batcher {
    limits: WriteLimits,
    jobs: VecDeque<Job>,
    messages: usize,
    bytes: usize,
    oldest: Option<Instant>,
    number: u64,
}

impl Batcher {
    /// Gathers within `limits`.
    pub fn new(limits: WriteLimits) -> Self {
        Self { limits, jobs: VecDeque::new(), messages: 0, bytes: 0, oldest: None, number: 0 }
    }

    /// Adds a batch.
    pub fn push(&mut self, job: Job, now: Instant) {
        self.messages += job.batch.len();
        self.bytes += job.batch.payload_bytes();
        self.oldest.get_or_insert(now);
        self.jobs.push_back(job);
    }

    /// True when no more should be added before a write is taken.
    pub fn is_full(&self) -> bool {
        self.messages >= self.limits.messages_max || self.bytes >= self.limits.bytes_max
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// When the waiting jobs must be written at the latest; `None` when nothing waits.
    pub fn due(&self) -> Option<Instant> {
        self.oldest.map(|oldest| if self.is_full() { oldest } else { oldest + self.limits.linger })
    }

    /// Takes the next write off the front: as many whole batches as fit, at least one.
    pub fn take(&mut self, now: Instant) -> Option<Write> {
        let mut parcel = Parcel::default();
        let mut acks = Vec::new();
        while let Some(job) = self.jobs.front() {
            let fits = parcel.len() + job.batch.len() <= self.limits.messages_max
                && parcel.bytes() + job.batch.payload_bytes() <= self.limits.bytes_max;
            if !parcel.is_empty() && !fits {
                break;
            }
            let job = self.jobs.pop_front().expect("the front was there");
            parcel.push(job.batch);
            acks.extend(job.acks);
        }
        self.messages -= parcel.len();
        self.bytes -= parcel.bytes();
        // What is left came later than what was taken, at the latest just now.
        self.oldest = (!self.jobs.is_empty()).then_some(now);
        (!parcel.parts().is_empty()).then(|| {
            self.number += 1;
            Write { parcel, acks, attempts: 0, number: self.number }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ack::{Outcome, Settle},
        message::SourceBuilder,
    };

    struct Nobody;

    impl Settle for Nobody {
        fn settle(&self, _: u64, _: Outcome) {}
    }

    fn job(messages: usize) -> Job {
        let mut source = SourceBuilder::new("test");
        for _ in 0..messages {
            source.push(b"1234567890", |_, _| Ok(())).unwrap();
        }
        Job { batch: Arc::new(Batch::new(source.finish())), acks: vec![Ack::new(Arc::new(Nobody), 0)] }
    }

    fn batcher(messages_max: usize, bytes_max: usize) -> Batcher {
        let linger = Duration::from_secs(1);
        Batcher::new(WriteLimits { messages_max, bytes_max, linger, in_flight_max: 1 })
    }

    #[test]
    fn batches_are_gathered_whole_and_in_order() {
        let now = Instant::now();
        let mut b = batcher(10, 1 << 20);
        for n in [4, 4, 4] {
            b.push(job(n), now);
        }
        assert!(b.is_full());
        let first = b.take(now).unwrap();
        assert_eq!((first.parcel.len(), first.acks.len(), first.number), (8, 2, 1));
        let second = b.take(now).unwrap();
        assert_eq!((second.parcel.len(), second.number), (4, 2));
        assert!(b.take(now).is_none() && b.is_empty());
    }

    #[test]
    fn a_write_is_due_when_the_first_message_waited_or_at_once_when_full() {
        let now = Instant::now();
        let mut b = batcher(100, 100);
        assert_eq!(b.due(), None);
        b.push(job(1), now);
        b.push(job(1), now + Duration::from_millis(500));
        assert_eq!(b.due(), Some(now + Duration::from_secs(1)));
        b.push(job(8), now);
        assert_eq!(b.due(), Some(now));
    }

    #[test]
    fn a_batch_past_the_bounds_is_written_alone() {
        let now = Instant::now();
        let mut b = batcher(1000, 25);
        b.push(job(1), now);
        b.push(job(9), now);
        b.push(job(1), now);
        let sizes: Vec<_> = std::iter::from_fn(|| b.take(now)).map(|w| w.parcel.len()).collect();
        assert_eq!(sizes, [1, 9, 1]);
    }
}
