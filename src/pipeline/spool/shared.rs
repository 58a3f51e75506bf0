//! What lane and spooler share: who has the input, what was handed out and is not confirmed, and how far the log is read.
use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::log::{Block, Position};
use crate::{
    ack::{Ack, Outcome, Settle},
    message::{Batch, Source},
};

pub struct Shared {
    state: Mutex<State>,
    /// Wakes the lane: the input changes hands, or the log has more to read.
    pub lane: Notify,
    /// Wakes the spooler: the lane has read all of the log.
    pub spooler: Notify,
}

struct State {
    /// The lane has the input.
    direct: bool,
    /// The spooler is gone.
    closed: bool,
    /// Handed out and not confirmed, in order. The token of a batch is its place, counted from the very first.
    batches: VecDeque<InFlight>,
    /// Token of the first of them.
    first: u64,
    /// Next to be read from the log.
    read: Position,
    /// Where the log ends.
    end: Position,
    /// Read from the input by the spooler when the disk refused it.
    held: VecDeque<(Batch, Ack)>,
}

struct InFlight {
    since: Instant,
    way: Way,
}

/// How the batch came, and what must happen when it is confirmed.
enum Way {
    /// From the input, which waits for its ack.
    Direct { source: Arc<Source>, ack: Ack },
    /// It stands in the log; the input has its ack.
    Logged { first: u64 },
    /// It is confirmed, or given back to the input.
    Done,
}

/// Where the lane gets its next batch from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Input,
    Held,
    Block(Position),
    /// The log is read; more will come.
    Wait,
    /// The spooler is gone.
    Nothing,
}

impl Shared {
    /// Nothing is handed out yet. The log is read from `read` to `end`, then the lane gets the input.
    pub fn new(read: Position, end: Position) -> Self {
        let state = State {
            direct: read.number == end.number,
            closed: false,
            batches: VecDeque::new(),
            first: 0,
            read,
            end,
            held: VecDeque::new(),
        };
        Self { state: Mutex::new(state), lane: Notify::new(), spooler: Notify::new() }
    }

    pub fn next(&self) -> Next {
        let state = self.state.lock();
        match () {
            () if state.closed => Next::Nothing,
            () if !state.direct && state.read.number < state.end.number => Next::Block(state.read),
            () if !state.direct => Next::Wait,
            () if state.held.is_empty() => Next::Input,
            () => Next::Held,
        }
    }

    pub fn is_direct(&self) -> bool {
        self.state.lock().direct
    }

    /// Remembers a batch from the input, and gives it an ack of ours.
    pub fn hand_out(self: &Arc<Self>, batch: Batch, ack: Ack) -> (Batch, Ack) {
        let way = Way::Direct { source: batch.source().clone(), ack };
        let token = self.state.lock().push(way);
        (batch, Ack::new(self.clone(), token))
    }

    /// The same for a block of the log, which is read with that.
    pub fn hand_out_block(self: &Arc<Self>, block: Block) -> (Batch, Ack) {
        let mut state = self.state.lock();
        state.read = block.next;
        let token = state.push(Way::Logged { first: block.first });
        drop(state);
        (Batch::new(block.source), Ack::new(self.clone(), token))
    }

    /// The same for the next batch that the spooler has read; `None` when the spooler has it again.
    pub fn hand_out_held(self: &Arc<Self>) -> Option<(Batch, Ack)> {
        let mut state = self.state.lock();
        let (batch, ack) = if state.direct { state.held.pop_front() } else { None }?;
        let token = state.push(Way::Direct { source: batch.source().clone(), ack });
        drop(state);
        Some((batch, Ack::new(self.clone(), token)))
    }

    /// What the lane was to get first and has not: the spooler takes it back.
    pub fn take_held(&self) -> VecDeque<(Batch, Ack)> {
        std::mem::take(&mut self.state.lock().held)
    }

    /// The lane leaves the input to the spooler.
    pub fn begin(&self) {
        self.state.lock().direct = false;
        self.lane.notify_one();
    }

    /// The lane gets the input back, and before that what the spooler has read and not written.
    pub fn end(&self, held: VecDeque<(Batch, Ack)>) {
        let mut state = self.state.lock();
        debug_assert_eq!(state.read.number, state.end.number, "the log is read");
        state.held.extend(held);
        state.direct = true;
        drop(state);
        self.lane.notify_one();
    }

    /// The log now ends at `end`. What was added is in flight already, or else the lane is to read it.
    pub fn added(&self, end: Position, in_flight: bool) {
        let mut state = self.state.lock();
        if in_flight {
            debug_assert_eq!(state.read.number, state.end.number, "the log is read");
            state.read = end;
        }
        state.end = end;
        drop(state);
        self.lane.notify_one();
    }

    /// How long the oldest batch waits for its confirmation.
    pub fn oldest(&self) -> Option<Duration> {
        self.state.lock().batches.front().map(|batch| batch.since.elapsed())
    }

    /// Messages of the log that the lane has not read.
    pub fn unread(&self) -> u64 {
        let state = self.state.lock();
        state.end.number - state.read.number
    }

    /// Messages of the log below this number are confirmed.
    pub fn confirmed(&self) -> u64 {
        let state = self.state.lock();
        let open = state.batches.iter().find_map(|batch| match batch.way {
            Way::Logged { first } => Some(first),
            _ => None,
        });
        open.unwrap_or(state.read.number)
    }

    /// Number of the next message that is added to the log.
    pub fn end_number(&self) -> u64 {
        self.state.lock().end.number
    }

    /// What is in flight and stands in no log, in order.
    pub fn in_flight(&self) -> Vec<(u64, Arc<Source>)> {
        let state = self.state.lock();
        let direct = (state.first..).zip(&state.batches).filter_map(|(token, batch)| match &batch.way {
            Way::Direct { source, .. } => Some((token, source.clone())),
            _ => None,
        });
        direct.collect()
    }

    /// The batch now stands in the log, from message `first` on: its ack is free, unless it was confirmed meanwhile.
    pub fn logged(&self, token: u64, first: u64) -> Option<Ack> {
        let mut state = self.state.lock();
        let batch = state.get(token)?;
        match std::mem::replace(&mut batch.way, Way::Done) {
            Way::Direct { ack, .. } => {
                batch.way = Way::Logged { first };
                Some(ack)
            }
            other => {
                batch.way = other;
                None
            }
        }
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.lane.notify_one();
    }
}

impl State {
    fn push(&mut self, way: Way) -> u64 {
        self.batches.push_back(InFlight { since: Instant::now(), way });
        self.first + self.batches.len() as u64 - 1
    }

    fn get(&mut self, token: u64) -> Option<&mut InFlight> {
        self.batches.get_mut(usize::try_from(token.checked_sub(self.first)?).ok()?)
    }
}

impl Settle for Shared {
    fn settle(&self, token: u64, outcome: Outcome) {
        let mut state = self.state.lock();
        let Some(batch) = state.get(token) else { return };
        // What the log has and was not delivered stays open, so that it is read again after a restart.
        if matches!(batch.way, Way::Logged { .. }) && outcome != Outcome::Delivered {
            return;
        }
        let way = std::mem::replace(&mut batch.way, Way::Done);
        while state.batches.front().is_some_and(|batch| matches!(batch.way, Way::Done)) {
            state.batches.pop_front();
            state.first += 1;
        }
        drop(state);
        // Outside of the lock: it may run an input's code.
        if let Way::Direct { ack, .. } = way {
            match outcome {
                Outcome::Delivered => ack.delivered(),
                Outcome::Divide => ack.divide(),
                Outcome::Undelivered => drop(ack),
            }
        }
    }
}
