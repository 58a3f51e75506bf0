//! Delivery reports: from one report a message to one answer a write, without a lock or an allocation for a message
//! that was delivered.
//!
//! Every open write has a slot, and a message's opaque number is its slot and its index in the write. A slot counts the
//! messages librdkafka still owes a report for; it owes exactly one for every message it took.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{Notify, oneshot};

const _: () = assert!(usize::BITS >= 64, "a slot and an index share one pointer-sized number");

/// A message that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index in the parcel.
    pub index: u32,
    pub code: RDKafkaErrorCode,
    /// Where it was meant to go.
    pub partition: i32,
}

/// All open writes of one producer.
pub struct Board {
    slots: Box<[Slot]>,
    free: Mutex<Vec<u32>>,
    in_flight: AtomicUsize,
    /// Woken whenever a write was answered.
    answered: Notify,
}

#[derive(Default)]
struct Slot {
    /// Reports still owed, and one more while the write is being started.
    open: AtomicUsize,
    write: Mutex<Write>,
}

#[derive(Default)]
struct Write {
    messages: usize,
    failures: Vec<Failure>,
    reply: Option<oneshot::Sender<Vec<Failure>>>,
}

impl Board {
    /// Room for `writes` at a time.
    pub fn new(writes: u32) -> Self {
        Self {
            slots: (0..writes).map(|_| Slot::default()).collect(),
            free: Mutex::new((0..writes).collect()),
            in_flight: AtomicUsize::new(0),
            answered: Notify::new(),
        }
    }

    /// Waits until there is a free slot, and room for `messages` beside those in flight: at most `max` together, but a
    /// single larger write is let through alone.
    pub async fn claim(self: &Arc<Self>, messages: usize, max: usize) -> (Ticket, oneshot::Receiver<Vec<Failure>>) {
        loop {
            // Made before the look, so that an answer between the look and the wait is not missed.
            let answered = self.answered.notified();
            let in_flight = self.in_flight.load(Ordering::Acquire);
            if in_flight == 0 || in_flight + messages <= max {
                let slot = self.free.lock().pop();
                if let Some(slot) = slot {
                    let (reply, answer) = oneshot::channel();
                    self.in_flight.fetch_add(messages, Ordering::AcqRel);
                    let here = &self.slots[slot as usize];
                    *here.write.lock() = Write { messages, failures: Vec::new(), reply: Some(reply) };
                    here.open.store(1, Ordering::Release);
                    return (Ticket { board: self.clone(), slot }, answer);
                }
            }
            answered.await;
        }
    }

    /// Waits for the next answer of any write.
    pub async fn next_answer(&self) {
        self.answered.notified().await;
    }

    /// Waits until no write is open.
    pub async fn idle(&self) {
        loop {
            let answered = self.answered.notified();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            answered.await;
        }
    }

    /// The message behind `opaque` was delivered.
    pub fn delivered(&self, opaque: usize) {
        self.close(opaque >> 32, 1);
    }

    /// The message behind `opaque` was not delivered.
    pub fn failed(&self, opaque: usize, code: RDKafkaErrorCode, partition: i32) {
        let failure = Failure { index: opaque as u32, code, partition };
        self.slots[opaque >> 32].write.lock().failures.push(failure);
        self.close(opaque >> 32, 1);
    }

    fn close(&self, slot: usize, count: usize) {
        // Release on the way down and acquire at the bottom: whoever closes the last one sees every failure pushed.
        if self.slots[slot].open.fetch_sub(count, Ordering::AcqRel) != count {
            return;
        }
        let Write { messages, failures, reply } = std::mem::take(&mut *self.slots[slot].write.lock());
        self.free.lock().push(slot as u32);
        self.in_flight.fetch_sub(messages, Ordering::AcqRel);
        if let Some(reply) = reply {
            // Nobody listens any more when the pipeline was stopped; there is nothing left to tell then.
            let _ = reply.send(failures);
        }
        self.answered.notify_waiters();
    }
}

/// A write that is being started. Its answer cannot come before this is dropped.
pub struct Ticket {
    board: Arc<Board>,
    slot: u32,
}

impl Ticket {
    /// The number to hand to librdkafka with the message at `index`.
    pub fn opaque(&self, index: u32) -> usize {
        ((self.slot as usize) << 32) | index as usize
    }

    /// About to hand over `count` messages: their reports may come before the call returns.
    pub fn expect(&self, count: usize) {
        self.board.slots[self.slot as usize].open.fetch_add(count, Ordering::AcqRel);
    }

    /// `count` of the expected messages were not taken, so no report will come.
    pub fn not_taken(&self, count: usize) {
        // Never the last: the ticket itself holds one.
        self.board.slots[self.slot as usize].open.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.board.close(self.slot as usize, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_is_answered_once_with_its_failures() {
        let board = Arc::new(Board::new(2));
        let (ticket, mut answer) = board.claim(3, 100).await;
        ticket.expect(3);
        let opaque: Vec<_> = (0..3).map(|i| ticket.opaque(i)).collect();
        board.delivered(opaque[2]);
        board.failed(opaque[1], RDKafkaErrorCode::MessageSizeTooLarge, 7);
        board.delivered(opaque[0]);
        assert!(answer.try_recv().is_err(), "not before the write is started");
        drop(ticket);
        let failure = Failure { index: 1, code: RDKafkaErrorCode::MessageSizeTooLarge, partition: 7 };
        assert_eq!(answer.await.unwrap(), [failure]);
        board.idle().await;
    }

    #[tokio::test]
    async fn messages_not_taken_are_not_waited_for() {
        let board = Arc::new(Board::new(1));
        let (ticket, answer) = board.claim(2, 100).await;
        ticket.expect(2);
        ticket.not_taken(1);
        board.delivered(ticket.opaque(0));
        drop(ticket);
        assert_eq!(answer.await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_bounds_messages_and_writes() {
        let board = Arc::new(Board::new(2));
        let (first, _) = board.claim(500, 100).await;
        let wait = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(wait, board.claim(1, 100)).await.is_err(), "the window is full");
        drop(first);
        let (_a, _) = board.claim(1, 100).await;
        let (b, _) = board.claim(1, 100).await;
        assert!(tokio::time::timeout(wait, board.claim(1, 100)).await.is_err(), "no free slot");
        let waiting = tokio::spawn({
            let board = board.clone();
            async move { board.claim(1, 100).await.0.opaque(0) }
        });
        tokio::task::yield_now().await;
        drop(b);
        assert_eq!(waiting.await.unwrap(), 0, "the freed slot is used again");
    }
}
