//! What the consumer's thread does with messages between the poll and the pipeline, in two ways: `Free` gathers whatever
//! comes into one batch, for delivery at least once; `Ranged` keeps to ranges that are recorded before they are handed
//! out, for delivery exactly once.
use std::time::{Duration, Instant};

use rdkafka::{consumer::BaseConsumer, message::BorrowedMessage};
use tracing::debug;

use super::{
    assignment::Place,
    draft::Draft,
    group::{Books, Bounds, Group, new_epoch},
    ledger::Start,
    shelf::{self, Odd, Shelf},
};
use crate::{ack::Outcome, message::Batch};

/// How long a failed commit rests.
const REST: Duration = Duration::from_millis(100);
/// How long a poll waits when nothing else is due.
const PATIENCE: Duration = Duration::from_millis(100);

/// Messages on their way to the pipeline.
pub trait Reading {
    /// Hands out what can be handed out now.
    fn offer(&mut self, group: &Group, consumer: &BaseConsumer<Group>);

    /// True when no more may be taken before something is handed out.
    fn is_full(&self) -> bool;

    /// True when the pipeline's room is what is waited for.
    fn wants_room(&self) -> bool;

    /// True when something can be handed out, so that no more should be read before.
    fn is_ready(&self) -> bool;

    /// How long a poll may wait for the next message.
    fn patience(&self) -> Duration;

    /// Takes a message.
    ///
    /// # Errors
    /// The input cannot go on, and why.
    fn push(&mut self, group: &Group, message: &BorrowedMessage<'_>, received_at_ms: i64) -> Result<(), String>;

    /// Forgets what was read of partitions that were taken away.
    fn forget(&mut self, gone: Vec<Place>);
}

const TOO_LARGE: &str = "a batch would hold more than 4 GiB; lower the size of batches";

/// One batch of whatever comes.
pub struct Free {
    draft: Draft,
    bounds: Bounds,
}

impl Free {
    pub fn new(bounds: Bounds) -> Self {
        Self { draft: Draft::new(), bounds }
    }
}

impl Reading for Free {
    fn offer(&mut self, group: &Group, _: &BaseConsumer<Group>) {
        if self.draft.is_empty() || !group.mailbox.has_room() {
            return;
        }
        let (batch, ranges) = std::mem::replace(&mut self.draft, Draft::new()).finish();
        if !batch.is_empty()
            && let Books::Positions(assignment) = &mut *group.books()
        {
            group.mailbox.offer(assignment.hand_out(ranges), batch);
        }
    }

    fn is_full(&self) -> bool {
        self.draft.len() >= self.bounds.messages_max || self.draft.bytes() >= self.bounds.bytes_max
    }

    fn wants_room(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        self.is_full()
    }

    fn patience(&self) -> Duration {
        if self.draft.is_empty() { PATIENCE } else { Duration::from_millis(5) }
    }

    fn push(&mut self, _: &Group, message: &BorrowedMessage<'_>, received_at_ms: i64) -> Result<(), String> {
        self.draft.push(message, received_at_ms).map_err(|_| TOO_LARGE.into())
    }

    fn forget(&mut self, gone: Vec<Place>) {
        self.draft.forget(gone);
    }
}

/// One range a partition, recorded before it is handed out.
pub struct Ranged {
    shelf: Shelf,
    /// Most bytes that wait on the shelf and in the mailbox.
    bytes_max: usize,
    /// Bytes in the mailbox when it was looked at last.
    waiting: usize,
    /// When the next open range has waited long enough.
    due: Option<Instant>,
    /// How often positions are committed when no range is recorded along with them.
    commit_interval: Duration,
    committed: Instant,
    /// A commit has failed: not again before this.
    rests_until: Option<Instant>,
}

impl Ranged {
    pub fn new(bounds: shelf::Bounds, commit_interval: Duration) -> Self {
        Self {
            shelf: Shelf::new(bounds),
            bytes_max: bounds.bytes_max.saturating_mul(2),
            waiting: 0,
            due: None,
            commit_interval,
            committed: Instant::now(),
            rests_until: None,
        }
    }

    fn record(&mut self, group: &Group, consumer: &BaseConsumer<Group>, cuts: &[(Place, i64)]) -> bool {
        let now = Instant::now();
        if self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        let done = group.record(consumer, cuts);
        self.rests_until = (!done).then(|| now + REST);
        if done {
            self.committed = now;
        }
        done
    }
}

impl Reading for Ranged {
    fn offer(&mut self, group: &Group, consumer: &BaseConsumer<Group>) {
        self.due = self.shelf.close_due(Instant::now());
        if self.shelf.is_clear() {
            if self.committed.elapsed() >= self.commit_interval {
                self.record(group, consumer, &[]);
            }
        } else if group.mailbox.has_room() {
            let cuts: Vec<_> = self.shelf.closed().map(|closed| (closed.place.clone(), closed.end)).collect();
            if self.record(group, consumer, &cuts) {
                self.hand_out(group);
            }
        }
        self.waiting = group.mailbox.bytes();
    }

    fn is_full(&self) -> bool {
        self.shelf.bytes() + self.waiting >= self.bytes_max
    }

    fn wants_room(&self) -> bool {
        self.rests_until.is_none()
    }

    fn is_ready(&self) -> bool {
        self.is_full() || (!self.shelf.is_clear() && self.rests_until.is_none())
    }

    fn patience(&self) -> Duration {
        let due = self.due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
        due.min(PATIENCE)
    }

    fn push(&mut self, group: &Group, message: &BorrowedMessage<'_>, received_at_ms: i64) -> Result<(), String> {
        use rdkafka::Message as _;
        let now = Instant::now();
        // Twice at most: a partition is put on the shelf, and its reading begins.
        for _ in 0..3 {
            match self.shelf.push(message, received_at_ms, now) {
                Ok(()) => return Ok(()),
                Err(Odd::Full) => return Err(TOO_LARGE.into()),
                Err(Odd::NotOurs) => {
                    let place = (message.topic().to_owned(), message.partition());
                    let Books::Plans(ledger) = &*group.books() else { return Ok(()) };
                    match ledger.start(&place) {
                        Some(start) => self.shelf.begin(&place, start),
                        // It was fetched before the partition was taken away.
                        None => return Ok(()),
                    }
                }
                Err(Odd::Begins(place, offset)) => {
                    let Books::Plans(ledger) = &mut *group.books() else { return Ok(()) };
                    debug!(topic = place.0, partition = place.1, offset, "reading begins");
                    ledger.begin(&place, offset, new_epoch());
                    self.shelf.begin(&place, Start { next: Some(offset), ends: Vec::new() });
                }
            }
        }
        unreachable!("a partition that has just begun takes the message it begins with")
    }

    fn forget(&mut self, gone: Vec<Place>) {
        self.shelf.forget(&gone);
    }
}

impl Ranged {
    /// Hands out the closed ranges that are recorded, as long as there is room.
    fn hand_out(&mut self, group: &Group) {
        while group.mailbox.has_room() {
            let mut books = group.books();
            let Books::Plans(ledger) = &mut *books else { return };
            let Some((token, recorded)) =
                self.shelf.closed().next().and_then(|closed| ledger.hand_out(&closed.place, closed.end))
            else {
                return;
            };
            let source = self.shelf.take().expect("it was looked at above").source;
            if source.is_empty() {
                ledger.settle(token, Outcome::Delivered);
                continue;
            }
            drop(books);
            group.mailbox.offer(token, Batch::new(source.finish().with_recorded(recorded)));
        }
    }
}
