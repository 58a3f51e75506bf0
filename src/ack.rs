//! The way back: how an input learns that what it handed out is safe.
//!
//! An input makes one `Ack` a batch. The pipeline splits it, one part for each output and for the dead letters of the
//! batch, and answers each part once its write is confirmed. When the last part is gone the input hears the worst
//! answer. Silence is a no: a part that is dropped, forgotten in a cancelled task or lost in a panic counts as *not
//! delivered*, so the broker sends the messages again.
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every message was delivered, dead-lettered or filtered, and that is confirmed.
    Delivered,
    /// Nothing of it was written, and it can only be written in smaller pieces. Only for a batch that the input has
    /// recorded: it comes again, divided.
    Divide,
    /// At least one message was not. The input must not acknowledge any of the batch.
    Undelivered,
}

/// Where an input hears about its batches. Called once a batch, from any thread; must not block.
pub trait Settle: Send + Sync {
    /// `token` is what the input gave to `Ack::new`.
    fn settle(&self, token: u64, outcome: Outcome);
}

struct Shared {
    to: Arc<dyn Settle>,
    token: u64,
    /// The worst answer so far, as a number.
    worst: AtomicU8,
}

const DELIVERED: u8 = 0;
const DIVIDE: u8 = 1;
const UNDELIVERED: u8 = 2;

impl Drop for Shared {
    fn drop(&mut self) {
        let outcome = match *self.worst.get_mut() {
            DELIVERED => Outcome::Delivered,
            DIVIDE => Outcome::Divide,
            _ => Outcome::Undelivered,
        };
        self.to.settle(self.token, outcome);
    }
}

/// One part of the answer that a batch is waiting for.
#[must_use = "a dropped ack means: not delivered"]
pub struct Ack {
    shared: Arc<Shared>,
    answered: bool,
}

impl Ack {
    /// The first part. `token` names the batch to the input that made it.
    pub fn new(to: Arc<dyn Settle>, token: u64) -> Self {
        Self { shared: Arc::new(Shared { to, token, worst: AtomicU8::new(DELIVERED) }), answered: false }
    }

    /// Another part that must be answered too.
    pub fn split(&self) -> Self {
        Self { shared: self.shared.clone(), answered: false }
    }

    /// This part of the work is confirmed.
    pub fn delivered(mut self) {
        self.answered = true;
    }

    /// Nothing of this part was written; the batch is to come again in smaller pieces.
    pub fn divide(mut self) {
        self.answered = true;
        self.shared.worst.fetch_max(DIVIDE, Ordering::Release);
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.answered {
            // The store happens before this `Arc` is released, so the last holder sees it.
            self.shared.worst.fetch_max(UNDELIVERED, Ordering::Release);
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack").field("token", &self.shared.token).field("answered", &self.answered).finish()
    }
}

/// Ranges of offsets handed out in rising order and settled in any order: tells up to where all are settled.
///
/// One tracker serves one ordered stream: a Kafka partition, or the receive order of an MQTT session.
#[derive(Debug, Default)]
pub struct OffsetTracker {
    open: VecDeque<Range>,
}

#[derive(Debug)]
struct Range {
    first: i64,
    end: i64,
    settled: bool,
}

impl OffsetTracker {
    /// Takes `first..end` into account. `first` is at or past the end of every range tracked before.
    pub fn track(&mut self, first: i64, end: i64) {
        debug_assert!(self.open.back().is_none_or(|last| last.end <= first), "offsets are tracked in rising order");
        self.open.push_back(Range { first, end, settled: false });
    }

    /// Marks the range that starts at `first` as settled. Answers the offset below which everything is settled, if that
    /// moved. A range that is not tracked (its partition was taken away meanwhile) is ignored.
    pub fn settle(&mut self, first: i64) -> Option<i64> {
        let at = self.open.binary_search_by_key(&first, |r| r.first).ok()?;
        self.open[at].settled = true;
        let mut below = None;
        while self.open.front().is_some_and(|r| r.settled) {
            below = self.open.pop_front().map(|r| r.end);
        }
        below
    }

    /// True when nothing is waiting to be settled.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(u64, Outcome)>>);

    impl Settle for Heard {
        fn settle(&self, token: u64, outcome: Outcome) {
            self.0.lock().push((token, outcome));
        }
    }

    fn check(answer: impl FnOnce(Ack)) -> Vec<(u64, Outcome)> {
        let heard = Arc::new(Heard::default());
        answer(Ack::new(heard.clone(), 7));
        Arc::try_unwrap(heard).ok().expect("every part is gone").0.into_inner()
    }

    #[test]
    fn an_answered_ack_is_delivered() {
        assert_eq!(check(Ack::delivered), [(7, Outcome::Delivered)]);
    }

    #[test]
    fn a_dropped_ack_is_not_delivered() {
        assert_eq!(check(drop), [(7, Outcome::Undelivered)]);
    }

    #[test]
    fn the_input_hears_nothing_before_the_last_part_answered() {
        let heard = Arc::new(Heard::default());
        let ack = Ack::new(heard.clone(), 1);
        let part = ack.split();
        ack.delivered();
        assert!(heard.0.lock().is_empty());
        part.delivered();
        assert_eq!(*heard.0.lock(), [(1, Outcome::Delivered)]);
    }

    #[test]
    fn one_dropped_part_outweighs_the_others() {
        let seen = check(|ack| {
            drop(ack.split());
            ack.split().delivered();
            ack.delivered();
        });
        assert_eq!(seen, [(7, Outcome::Undelivered)]);
    }

    #[test]
    fn a_batch_is_divided_unless_a_part_of_it_is_lost() {
        let divided = |lost| {
            check(move |ack| {
                ack.split().divide();
                if lost {
                    drop(ack.split());
                }
                ack.delivered();
            })
        };
        assert_eq!(divided(false), [(7, Outcome::Divide)]);
        assert_eq!(divided(true), [(7, Outcome::Undelivered)]);
    }

    #[test]
    fn a_part_lost_in_a_panic_is_not_delivered() {
        let seen = check(|ack| {
            let part = ack.split();
            let died = std::thread::spawn(move || {
                let _part = part;
                std::panic::resume_unwind(Box::new("step died"));
            });
            assert!(died.join().is_err());
            ack.delivered();
        });
        assert_eq!(seen, [(7, Outcome::Undelivered)]);
    }

    #[test]
    fn offsets_are_committed_only_below_the_first_open_one() {
        let mut tracker = OffsetTracker::default();
        for first in [10, 20, 30, 45] {
            tracker.track(first, first + 10);
        }
        assert_eq!(tracker.settle(30), None);
        assert_eq!(tracker.settle(10), Some(20));
        assert_eq!(tracker.settle(20), Some(40));
        assert_eq!(tracker.settle(99), None, "unknown ranges are ignored");
        assert!(!tracker.is_idle());
        assert_eq!(tracker.settle(45), Some(55));
        assert!(tracker.is_idle());
    }
}
