//! Messages that wait for their range to be full, one range a partition. A range is closed when it is as long as it was
//! recorded, or when it is full or has waited long enough; closed ranges are recorded, then handed out.
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use rdkafka::{Message as _, message::BorrowedMessage};

use super::{assignment::Place, draft, ledger::Start};
use crate::message::{ArenaFull, SourceBuilder};

/// When a range is closed that is not recorded yet.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub messages_max: usize,
    pub bytes_max: usize,
    /// Longest time the first message of a range waits for company.
    pub linger: Duration,
}

/// A range that is read as a whole.
pub struct Closed {
    pub place: Place,
    /// One past its last offset.
    pub end: i64,
    /// Its messages; none when all of them were compacted away since the range was recorded.
    pub source: SourceBuilder,
}

/// A range that is being read.
struct Open {
    /// The offset that comes next, or a later one where the partition has a hole; `None` before the first message.
    next: Option<i64>,
    /// Ends of recorded ranges, the first one of this range.
    ends: VecDeque<i64>,
    source: SourceBuilder,
    since: Option<Instant>,
}

/// A message does not follow the one before it.
#[derive(Debug)]
pub enum Odd {
    /// The first message of a partition without a position, or a partition whose offsets have started again: reading
    /// begins here.
    Begins(Place, i64),
    /// A partition that is not ours.
    NotOurs,
    /// A range grew past what an arena can hold.
    Full,
}

/// What was read and not yet handed out.
pub struct Shelf {
    bounds: Bounds,
    open: HashMap<String, HashMap<i32, Open>>,
    closed: VecDeque<Closed>,
    bytes: usize,
}

fn builder() -> SourceBuilder {
    SourceBuilder::new("kafka")
}

impl Shelf {
    /// Nothing read yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, open: HashMap::new(), closed: VecDeque::new(), bytes: 0 }
    }

    /// A partition is read from `start` on.
    pub fn begin(&mut self, place: &Place, start: Start) {
        self.forget(std::slice::from_ref(place));
        let open = Open { next: start.next, ends: start.ends.into(), source: builder(), since: None };
        self.open.entry(place.0.clone()).or_default().insert(place.1, open);
    }

    /// Forgets what was read of partitions.
    pub fn forget(&mut self, places: &[Place]) {
        for place in places {
            if let Some(open) = self.open.get_mut(&place.0).and_then(|all| all.remove(&place.1)) {
                self.bytes -= open.source.bytes();
            }
        }
        self.closed.retain(|closed| {
            let is_gone = places.contains(&closed.place);
            if is_gone {
                self.bytes -= closed.source.bytes();
            }
            !is_gone
        });
    }

    /// Bytes of all messages that wait here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies a message.
    ///
    /// # Errors
    /// It was not taken; `Odd` says what to do first.
    pub fn push(&mut self, message: &BorrowedMessage<'_>, received_at_ms: i64, now: Instant) -> Result<(), Odd> {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        self.add(topic, partition, offset, now, |source| draft::copy(source, message, received_at_ms))
    }

    fn add(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        now: Instant,
        copy: impl FnOnce(&mut SourceBuilder) -> Result<(), ArenaFull>,
    ) -> Result<(), Odd> {
        let Self { bounds, open, closed, bytes } = self;
        let range = open.get_mut(topic).and_then(|all| all.get_mut(&partition)).ok_or(Odd::NotOurs)?;
        let place = || (topic.to_owned(), partition);
        match range.next {
            Some(next) if next <= offset => {}
            _ => return Err(Odd::Begins(place(), offset)),
        }
        let mut close = |range: &mut Open, end| {
            let source = std::mem::replace(&mut range.source, builder());
            range.since = None;
            closed.push_back(Closed { place: place(), end, source });
        };
        // Recorded ranges whose last messages are no longer there.
        while let Some(end) = range.ends.front().copied().filter(|end| *end <= offset) {
            range.ends.pop_front();
            close(range, end);
        }
        let before = range.source.bytes();
        copy(&mut range.source).map_err(|_| Odd::Full)?;
        *bytes += range.source.bytes() - before;
        range.next = Some(offset + 1);
        range.since.get_or_insert(now);
        match range.ends.front() {
            Some(&end) if end == offset + 1 => {
                range.ends.pop_front();
                close(range, end);
            }
            Some(_) => {}
            None if range.source.len() >= bounds.messages_max || range.source.bytes() >= bounds.bytes_max => {
                close(range, offset + 1);
            }
            None => {}
        }
        Ok(())
    }

    /// Closes the ranges whose first message has waited long enough. Answers when the next one is due.
    pub fn close_due(&mut self, now: Instant) -> Option<Instant> {
        let mut due = None;
        for (topic, all) in &mut self.open {
            for (&partition, range) in all {
                let (Some(since), Some(next), true) = (range.since, range.next, range.ends.is_empty()) else {
                    continue;
                };
                let at = since + self.bounds.linger;
                if at <= now {
                    let source = std::mem::replace(&mut range.source, builder());
                    range.since = None;
                    self.closed.push_back(Closed { place: (topic.clone(), partition), end: next, source });
                } else {
                    due = Some(due.map_or(at, |due: Instant| due.min(at)));
                }
            }
        }
        due
    }

    /// Ranges that are closed, in order.
    pub fn closed(&self) -> impl Iterator<Item = &Closed> {
        self.closed.iter()
    }

    /// True when no closed range waits.
    pub fn is_clear(&self) -> bool {
        self.closed.is_empty()
    }

    /// Takes the first closed range.
    pub fn take(&mut self) -> Option<Closed> {
        let closed = self.closed.pop_front()?;
        self.bytes -= closed.source.bytes();
        Some(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_secs(3600);

    fn shelf(messages_max: usize, next: Option<i64>, ends: &[i64]) -> Shelf {
        let mut shelf = Shelf::new(Bounds { messages_max, bytes_max: 1 << 20, linger: FAR });
        shelf.begin(&("t".into(), 0), Start { next, ends: ends.to_vec() });
        shelf
    }

    fn read(shelf: &mut Shelf, offset: i64) -> Result<(), Odd> {
        shelf.add("t", 0, offset, Instant::now(), |source| source.push(b"x", |_, _| Ok(())))
    }

    fn taken(shelf: &mut Shelf) -> Vec<(i64, usize)> {
        std::iter::from_fn(|| shelf.take()).map(|closed| (closed.end, closed.source.len())).collect()
    }

    #[test]
    fn recorded_ranges_come_first_and_end_where_they_are_recorded() {
        let mut shelf = shelf(2, Some(10), &[13, 14, 20]);
        // 11 was compacted away, and so was all from 13 to 21.
        [10, 12, 21, 22, 23].into_iter().for_each(|offset| read(&mut shelf, offset).unwrap());
        assert_eq!(taken(&mut shelf), [(13, 2), (14, 0), (20, 0), (23, 2)]);
        assert_eq!(shelf.bytes(), 1, "23 waits for company");
    }

    #[test]
    fn a_recorded_range_does_not_end_before_its_time() {
        let mut shelf = shelf(1, Some(0), &[3]);
        read(&mut shelf, 0).unwrap();
        assert_eq!(shelf.close_due(Instant::now() + FAR * 2), None);
        assert!(shelf.is_clear());
        read(&mut shelf, 2).unwrap();
        assert_eq!(taken(&mut shelf), [(3, 2)]);
    }

    #[test]
    fn a_range_is_due_when_its_first_message_has_waited() {
        let mut shelf = shelf(100, Some(5), &[]);
        assert_eq!(shelf.close_due(Instant::now()), None, "nothing waits");
        read(&mut shelf, 7).unwrap();
        assert!(shelf.close_due(Instant::now()).is_some() && shelf.is_clear());
        assert_eq!(shelf.close_due(Instant::now() + FAR), None);
        assert_eq!(taken(&mut shelf), [(8, 1)]);
        assert_eq!(shelf.bytes(), 0);
    }

    #[test]
    fn odd_messages_are_not_taken() {
        let mut shelf = shelf(100, None, &[]);
        assert!(matches!(read(&mut shelf, 4), Err(Odd::Begins(_, 4))));
        shelf.begin(&("t".into(), 0), Start { next: Some(4), ends: vec![] });
        read(&mut shelf, 4).unwrap();
        assert!(matches!(read(&mut shelf, 0), Err(Odd::Begins(_, 0))), "the offsets have started again");
        shelf.forget(&[("t".into(), 0)]);
        assert_eq!(shelf.bytes(), 0);
        assert!(matches!(read(&mut shelf, 5), Err(Odd::NotOurs)));
    }
}
