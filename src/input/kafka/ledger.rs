//! The plans of all partitions that are ours, what of them is recorded in Kafka, and what is handed out. No network: the
//! consumer's thread carries records to Kafka and answers back.
//!
//! The rules; the simulation in `ledger/tests.rs` shows that taking any of them away but the fourth doubles or loses
//! messages. That one guards against positions moved by somebody who does not keep to the rules.
//!
//! 1. A range is handed out only after Kafka has confirmed its record.
//! 2. Recorded ranges are handed out exactly as they are recorded.
//! 3. A record carries the assignment it was made under, and is dropped when the partition was taken away since: Kafka
//!    checks the member, not the partition.
//! 4. After a commit that failed, nothing is recorded before Kafka was asked what it has. What neither we nor our
//!    failed commit wrote is somebody else's, and then we start over.
//! 5. The position moves only below ranges that are settled.
//! 6. A range is divided only when nobody can have written it.
use std::{collections::HashMap, time::Instant};

use super::{
    assignment::Place,
    plan::{Plan, Record, base36},
};
use crate::{ack::Outcome, message::Recorded};

/// Into so many pieces a range is divided.
const PIECES: i64 = 16;

/// A record on its way to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    /// The assignment it was made under.
    assignment: u64,
    plan: Plan,
}

impl Entry {
    /// What to commit.
    pub fn record(&self) -> Record {
        self.plan.record()
    }
}

/// One partition that is ours.
#[derive(Debug)]
struct Held {
    assignment: u64,
    /// Since when it is ours: whoever wrote its ranges before, started to before that.
    since: Instant,
    /// `None` until the first message shows where a partition without a position starts.
    plan: Option<Plan>,
    /// Ranges up to here were recorded before the partition was ours.
    inherited: i64,
    /// What Kafka has, as far as we know.
    recorded: Option<Record>,
    /// A commit whose outcome is not known.
    doubt: Option<Plan>,
    /// Ranges handed out and not answered.
    open: usize,
}

#[derive(Debug)]
struct Handed {
    place: Place,
    assignment: u64,
    end: i64,
}

/// Where reading of a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The next offset; `None` when only the first message will tell.
    pub next: Option<i64>,
    /// Ends of the ranges that must be handed out first.
    pub ends: Vec<i64>,
}

/// Kafka has a record that we did not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub place: Place,
    pub found: Option<Record>,
}

/// The plans of the partitions that are ours.
#[derive(Debug, Default)]
pub struct Ledger {
    partitions: HashMap<String, HashMap<i32, Held>>,
    handed: HashMap<u64, Handed>,
    assignments: u64,
    tokens: u64,
}

impl Ledger {
    /// A partition is ours from now on, and `recorded` is what Kafka has of it. `epoch` is used if there is no plan yet.
    pub fn assign(&mut self, place: &Place, recorded: Option<Record>, epoch: u64) {
        self.assignments += 1;
        let plan =
            recorded.as_ref().map(|record| Plan::read(record).unwrap_or_else(|| Plan::new(epoch, record.offset)));
        let held = Held {
            assignment: self.assignments,
            since: Instant::now(),
            inherited: plan.as_ref().map_or(0, Plan::end),
            plan,
            recorded,
            doubt: None,
            open: 0,
        };
        self.partitions.entry(place.0.clone()).or_default().insert(place.1, held);
    }

    /// A partition is no longer ours.
    pub fn revoke(&mut self, place: &Place) {
        if let Some(partitions) = self.partitions.get_mut(&place.0) {
            partitions.remove(&place.1);
        }
    }

    /// Where reading goes on, right after `assign`; `None` for a partition that is not ours.
    pub fn start(&self, place: &Place) -> Option<Start> {
        let held = self.held(place)?;
        let plan = held.plan.as_ref();
        Some(Start {
            next: plan.map(|plan| plan.offset),
            ends: plan.map(|plan| plan.ends().collect()).unwrap_or_default(),
        })
    }

    /// Reading of a partition starts at `offset`: there was no position, or the offsets have started again because the
    /// topic was made anew. What was handed out before does not count any more.
    pub fn begin(&mut self, place: &Place, offset: i64, epoch: u64) {
        self.assignments += 1;
        let assignment = self.assignments;
        if let Some(held) = self.held_mut(place) {
            (held.assignment, held.plan, held.open) = (assignment, Some(Plan::new(epoch, offset)), 0);
        }
    }

    /// Records to commit so that the ranges that end at `cuts` may be handed out, and those of positions that moved.
    /// Cuts that have to wait are left out: ask `is_recorded` after the commit.
    pub fn propose(&self, cuts: &[(Place, i64)]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (topic, partitions) in &self.partitions {
            for (&partition, held) in partitions {
                let Some(plan) = held.plan.as_ref().filter(|_| held.doubt.is_none()) else { continue };
                let mut plan = plan.clone();
                let ours = cuts.iter().filter(|((t, p), _)| t == topic && *p == partition);
                for (_, end) in ours {
                    if *end > plan.end() && plan.has_room() {
                        plan.cut(*end);
                    }
                }
                if held.recorded.as_ref() != Some(&plan.record()) {
                    let place = (topic.clone(), partition);
                    entries.push(Entry { place, assignment: held.assignment, plan });
                }
            }
        }
        entries
    }

    /// Drops the records of partitions that are not ours any more. The last thing to do before a commit.
    pub fn still_ours(&self, entries: &mut Vec<Entry>) {
        entries.retain(|entry| self.held(&entry.place).is_some_and(|held| held.assignment == entry.assignment));
    }

    /// Kafka has confirmed these records.
    pub fn confirm(&mut self, entries: Vec<Entry>) {
        for Entry { place, assignment, plan } in entries {
            if let Some(held) = self.held_mut(&place).filter(|held| held.assignment == assignment) {
                held.recorded = Some(plan.record());
                held.plan = Some(plan);
            }
        }
    }

    /// The commit of these records has failed, as far as we know.
    pub fn doubt(&mut self, entries: Vec<Entry>) {
        for Entry { place, assignment, plan } in entries {
            if let Some(held) = self.held_mut(&place).filter(|held| held.assignment == assignment) {
                held.doubt = Some(plan);
            }
        }
    }

    /// Partitions of which Kafka must be asked what it has.
    pub fn doubted(&self) -> Vec<Place> {
        let all = self.partitions.iter().flat_map(|(topic, all)| all.iter().map(move |(p, held)| (topic, *p, held)));
        all.filter(|(_, _, held)| held.doubt.is_some()).map(|(topic, p, _)| (topic.clone(), p)).collect()
    }

    /// Kafka has `found` for a partition in doubt.
    ///
    /// # Errors
    /// Neither what was there before nor what we tried to write.
    pub fn read_back(&mut self, place: &Place, found: Option<Record>) -> Result<(), Foreign> {
        let Some(held) = self.held_mut(place) else { return Ok(()) };
        let Some(tried) = held.doubt.take() else { return Ok(()) };
        if found.as_ref() == Some(&tried.record()) {
            held.recorded = found;
            if held.plan.as_ref().is_some_and(|plan| plan.epoch != tried.epoch) {
                // The offsets have started again meanwhile.
                return Ok(());
            }
            // Ranges may have been settled while the commit was in doubt.
            let mut plan = tried;
            let settled: Vec<i64> = held.plan.iter().flat_map(Plan::settled).collect();
            let position = held.plan.as_ref().map_or(0, |plan| plan.offset);
            let passed: Vec<i64> = plan.ends().filter(|&end| end <= position).collect();
            settled.into_iter().chain(passed).for_each(|end| _ = plan.settle(end));
            held.plan = Some(plan);
            return Ok(());
        }
        if found == held.recorded {
            return Ok(());
        }
        Err(Foreign { place: place.clone(), found })
    }

    /// True when the range that ends at `end` may be handed out: Kafka has it.
    pub fn is_recorded(&self, place: &Place, end: i64) -> bool {
        self.held(place).is_some_and(|held| {
            held.doubt.is_none()
                && held.recorded.as_ref().and_then(Plan::read).is_some_and(|plan| plan.first(end).is_some())
        })
    }

    /// Hands out the range that ends at `end`: its token, and its name for outputs. `None` when it is not recorded.
    pub fn hand_out(&mut self, place: &Place, end: i64) -> Option<(u64, Recorded)> {
        if !self.is_recorded(place, end) {
            return None;
        }
        self.tokens += 1;
        let token = self.tokens;
        let held = self.held_mut(place)?;
        let plan = held.plan.as_ref()?;
        let name = format!("{}/{}/{}/{}-{end}", base36(plan.epoch), place.0, place.1, plan.first(end)?);
        let recorded = Recorded { name, inherited: (end <= held.inherited).then_some(held.since) };
        held.open += 1;
        let handed = Handed { place: place.clone(), assignment: held.assignment, end };
        self.handed.insert(token, handed);
        Some((token, recorded))
    }

    /// Takes back a batch that nobody has seen yet, if it is of one of these partitions.
    pub fn withdraw(&mut self, token: u64, gone: &[Place]) {
        if self.handed.get(&token).is_some_and(|handed| gone.contains(&handed.place)) {
            let handed = self.handed.remove(&token).expect("it was there");
            if let Some(held) = self.current(&handed) {
                held.open -= 1;
            }
        }
    }

    /// The answer for a batch. For one that must be divided, the record that divides it.
    pub fn settle(&mut self, token: u64, outcome: Outcome) -> Option<Entry> {
        let handed = self.handed.remove(&token)?;
        let held = self.current(&handed)?;
        held.open -= 1;
        let plan = held.plan.as_mut()?;
        match outcome {
            Outcome::Delivered => {
                plan.settle(handed.end);
                None
            }
            Outcome::Undelivered => None,
            Outcome::Divide => {
                let mut plan = plan.clone();
                let divided = held.doubt.is_none() && plan.divide(handed.end, PIECES);
                divided.then_some(Entry { place: handed.place, assignment: handed.assignment, plan })
            }
        }
    }

    /// True while something of these partitions was handed out and not answered.
    pub fn is_open(&self, places: &[Place]) -> bool {
        places.iter().any(|place| self.held(place).is_some_and(|held| held.open > 0))
    }

    fn held(&self, (topic, partition): &Place) -> Option<&Held> {
        self.partitions.get(topic)?.get(partition)
    }

    fn held_mut(&mut self, (topic, partition): &Place) -> Option<&mut Held> {
        self.partitions.get_mut(topic)?.get_mut(partition)
    }

    /// The partition a range was handed out from, if it is still the same assignment.
    fn current(&mut self, handed: &Handed) -> Option<&mut Held> {
        self.held_mut(&handed.place).filter(|held| held.assignment == handed.assignment)
    }
}

#[cfg(test)]
mod tests;
