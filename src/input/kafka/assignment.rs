//! Which partitions are ours, what of them was handed out, and up to where all of it is settled.
//!
//! Every assignment of a partition is an epoch with a tracker of its own. What was handed out under an epoch that is
//! over is ignored when it is settled: the partition may be someone else's, or read again from an earlier offset.
use std::collections::HashMap;

use crate::ack::{OffsetTracker, Outcome};

/// Messages of one partition in one batch: from the first offset to one past the last. Holes (transaction markers,
/// compacted messages) belong to the range around them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub topic: String,
    pub partition: i32,
    pub first: i64,
    pub end: i64,
}

/// A topic and a partition.
pub type Place = (String, i32);

#[derive(Debug, Default)]
struct Partition {
    epoch: u64,
    /// One past the last offset handed out.
    next: i64,
    tracker: OffsetTracker,
    /// Ranges handed out and not answered.
    open: usize,
    /// Position to commit, when it moved since `take_positions`.
    settled: Option<i64>,
}

#[derive(Debug)]
struct Handed {
    range: Range,
    epoch: u64,
}

/// The partitions assigned to this consumer.
#[derive(Debug, Default)]
pub struct Assignment {
    partitions: HashMap<String, HashMap<i32, Partition>>,
    batches: HashMap<u64, Vec<Handed>>,
    epochs: u64,
    tokens: u64,
}

impl Assignment {
    /// A partition is ours from now on.
    pub fn assign(&mut self, topic: &str, partition: i32) {
        let epoch = self.new_epoch();
        let partitions = self.partitions.entry(topic.to_owned()).or_default();
        partitions.insert(partition, Partition { epoch, ..Partition::default() });
    }

    /// A partition is no longer ours.
    pub fn revoke(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.partitions.get_mut(topic) {
            partitions.remove(&partition);
        }
    }

    /// Tracks a batch that is about to be handed out and names it. Ranges of partitions that are not ours are left out.
    pub fn hand_out(&mut self, ranges: Vec<Range>) -> u64 {
        self.tokens += 1;
        let mut handed = Vec::with_capacity(ranges.len());
        for range in ranges {
            let Self { partitions, epochs, .. } = self;
            let Some(held) = partitions.get_mut(&range.topic).and_then(|p| p.get_mut(&range.partition)) else {
                continue;
            };
            if range.first < held.next {
                // Offsets start again when a topic is deleted and made anew: nothing handed out before counts there.
                *epochs += 1;
                *held = Partition { epoch: *epochs, ..Partition::default() };
            }
            held.tracker.track(range.first, range.end);
            held.next = range.end;
            held.open += 1;
            handed.push(Handed { epoch: held.epoch, range });
        }
        self.batches.insert(self.tokens, handed);
        self.tokens
    }

    /// Takes back what `gone` names of a batch that nobody has seen yet.
    pub fn withdraw(&mut self, token: u64, gone: &[Place]) {
        let Some(handed) = self.batches.get_mut(&token) else { return };
        let is_gone = |r: &Range| gone.iter().any(|(t, p)| *t == r.topic && *p == r.partition);
        for handed in handed.extract_if(.., |h| is_gone(&h.range)) {
            if let Some(held) = current(&mut self.partitions, &handed) {
                held.open -= 1;
            }
        }
    }

    /// The answer for a batch. Ranges of epochs that are over are ignored.
    pub fn settle(&mut self, token: u64, outcome: Outcome) {
        for handed in self.batches.remove(&token).unwrap_or_default() {
            let Some(held) = current(&mut self.partitions, &handed) else { continue };
            held.open -= 1;
            if outcome == Outcome::Delivered
                && let Some(position) = held.tracker.settle(handed.range.first)
            {
                held.settled = Some(position);
            }
        }
    }

    /// True while something of these partitions was handed out and not answered.
    pub fn is_open(&self, places: &[Place]) -> bool {
        places.iter().any(|(topic, partition)| {
            self.partitions.get(topic).and_then(|p| p.get(partition)).is_some_and(|held| held.open > 0)
        })
    }

    /// Positions that moved since the last call: everything before each is settled.
    pub fn take_positions(&mut self) -> Vec<(&str, i32, i64)> {
        let mut moved = Vec::new();
        for (topic, partitions) in &mut self.partitions {
            for (partition, held) in partitions {
                if let Some(position) = held.settled.take() {
                    moved.push((topic.as_str(), *partition, position));
                }
            }
        }
        moved
    }

    fn new_epoch(&mut self) -> u64 {
        self.epochs += 1;
        self.epochs
    }
}

/// The partition a range was handed out from, if it is still the same assignment.
fn current<'a>(
    partitions: &'a mut HashMap<String, HashMap<i32, Partition>>,
    handed: &Handed,
) -> Option<&'a mut Partition> {
    let held = partitions.get_mut(&handed.range.topic)?.get_mut(&handed.range.partition)?;
    (held.epoch == handed.epoch).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::{Outcome::*, *};

    fn range(partition: i32, first: i64, end: i64) -> Range {
        Range { topic: "t".into(), partition, first, end }
    }

    fn held(partitions: &[i32]) -> Assignment {
        let mut all = Assignment::default();
        partitions.iter().for_each(|&p| all.assign("t", p));
        all
    }

    #[test]
    fn positions_stop_below_the_first_open_batch() {
        let mut all = held(&[0, 1]);
        let a = all.hand_out(vec![range(0, 10, 20), range(1, 5, 6)]);
        let b = all.hand_out(vec![range(0, 23, 30)]);
        all.settle(b, Delivered);
        assert_eq!(all.take_positions(), []);
        all.settle(a, Delivered);
        let mut moved = all.take_positions();
        moved.sort_unstable();
        assert_eq!(moved, [("t", 0, 30), ("t", 1, 6)]);
        assert_eq!(all.take_positions(), [], "told once");
    }

    #[test]
    fn an_undelivered_batch_holds_its_partitions() {
        let mut all = held(&[0]);
        let a = all.hand_out(vec![range(0, 0, 5)]);
        let b = all.hand_out(vec![range(0, 5, 9)]);
        all.settle(a, Undelivered);
        all.settle(b, Delivered);
        assert_eq!(all.take_positions(), []);
        assert!(!all.is_open(&[("t".into(), 0)]), "nothing to wait for");
    }

    #[test]
    fn what_comes_after_a_revoke_is_ignored() {
        let mut all = held(&[0, 1]);
        let a = all.hand_out(vec![range(0, 0, 5), range(1, 0, 5)]);
        all.revoke("t", 0);
        all.assign("t", 0);
        let b = all.hand_out(vec![range(0, 0, 5)]);
        all.settle(a, Delivered);
        assert_eq!(all.take_positions(), [("t", 1, 5)], "the old assignment of 0 does not count");
        assert!(all.is_open(&[("t".into(), 0)]));
        all.settle(b, Delivered);
        assert_eq!(all.take_positions(), [("t", 0, 5)]);
    }

    #[test]
    fn offsets_that_start_again_start_a_new_epoch() {
        let mut all = held(&[0]);
        let old = all.hand_out(vec![range(0, 100, 200)]);
        let new = all.hand_out(vec![range(0, 0, 10)]);
        all.settle(old, Delivered);
        assert_eq!(all.take_positions(), []);
        all.settle(new, Delivered);
        assert_eq!(all.take_positions(), [("t", 0, 10)]);
    }

    #[test]
    fn a_withdrawn_range_is_not_waited_for() {
        let mut all = held(&[0, 1]);
        let a = all.hand_out(vec![range(0, 0, 5), range(1, 0, 5)]);
        all.withdraw(a, &[("t".into(), 1)]);
        assert!(!all.is_open(&[("t".into(), 1)]));
        assert!(all.is_open(&[("t".into(), 0)]));
        all.settle(a, Delivered);
        assert_eq!(all.take_positions(), [("t", 0, 5)]);
    }

    #[test]
    fn a_partition_that_is_not_ours_is_not_tracked() {
        let mut all = held(&[0]);
        let a = all.hand_out(vec![range(3, 0, 5)]);
        all.settle(a, Delivered);
        assert_eq!(all.take_positions(), []);
    }
}
