//! Between the consumer's thread and the pipeline: batches one way, answers the other. Both ways are bounded: few
//! batches wait here, and there is at most one answer for each batch handed out.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::{
    ack::{Outcome, Settle},
    message::{Batch, MessageRef},
};

/// The shared state.
pub struct Mailbox {
    /// Batches that wait for the pipeline at most.
    batches_max: usize,
    state: Mutex<State>,
    /// Wakes the consumer's thread: room, answers, the wish to stop.
    changed: Condvar,
    /// Wakes the pipeline: a batch, an error, the end.
    ready: Notify,
}

#[derive(Default)]
struct State {
    batches: VecDeque<(u64, Batch)>,
    answers: Vec<(u64, Outcome)>,
    failure: Option<String>,
    stop: Option<Instant>,
    ended: bool,
}

impl Settle for Mailbox {
    fn settle(&self, token: u64, outcome: Outcome) {
        self.state.lock().answers.push((token, outcome));
        self.changed.notify_one();
    }
}

/// The pipeline's side.
impl Mailbox {
    /// Room for `batches_max` batches.
    pub fn new(batches_max: usize) -> Self {
        Self { batches_max, state: Mutex::default(), changed: Condvar::new(), ready: Notify::new() }
    }

    /// The next batch and its token. `Err` once the consumer cannot go on.
    ///
    /// Dropping the future loses no batch.
    pub async fn next(&self) -> Result<(u64, Batch), String> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if let Some(next) = state.batches.pop_front() {
                    self.changed.notify_one();
                    return Ok(next);
                }
                if state.ended {
                    return Err("the consumer's thread has ended".into());
                }
            }
            self.ready.notified().await;
        }
    }

    /// Asks the thread to commit, leave the group and end by `deadline`.
    pub fn stop(&self, deadline: Instant) {
        self.state.lock().stop = Some(deadline);
        self.changed.notify_one();
    }

    /// Waits until the thread has ended.
    pub async fn ended(&self) {
        loop {
            if self.state.lock().ended {
                return;
            }
            self.ready.notified().await;
        }
    }
}

/// The consumer's side.
impl Mailbox {
    /// True when another batch may be offered.
    pub fn has_room(&self) -> bool {
        self.state.lock().batches.len() < self.batches_max
    }

    /// Offers a batch. The caller has looked for room.
    pub fn offer(&self, token: u64, batch: Batch) {
        self.state.lock().batches.push_back((token, batch));
        self.ready.notify_one();
    }

    /// Bytes of the batches that wait for the pipeline.
    pub fn bytes(&self) -> usize {
        self.state.lock().batches.iter().map(|(_, batch)| batch.source().bytes().len()).sum()
    }

    /// The answers since the last call.
    pub fn answers(&self) -> Vec<(u64, Outcome)> {
        std::mem::take(&mut self.state.lock().answers)
    }

    /// By when to stop, if that is asked for.
    pub fn stop_by(&self) -> Option<Instant> {
        self.state.lock().stop
    }

    /// Sleeps until there is an answer, the wish to stop or, unless only answers matter, room for a batch; at most
    /// `longest`.
    pub fn wait(&self, longest: Duration, for_room: bool) {
        let deadline = Instant::now() + longest;
        let mut state = self.state.lock();
        while state.answers.is_empty()
            && state.stop.is_none()
            && !(for_room && state.batches.len() < self.batches_max)
            && !self.changed.wait_until(&mut state, deadline).timed_out()
        {}
    }

    /// Takes messages back that the pipeline has not seen: those for which `keep` answers false. Names the batches
    /// that were waiting.
    pub fn withdraw(&self, keep: impl Fn(MessageRef<'_>) -> bool) -> Vec<u64> {
        let mut state = self.state.lock();
        let tokens = state.batches.iter().map(|(token, _)| *token).collect();
        for (_, batch) in &mut state.batches {
            batch.retain(&keep);
        }
        state.batches.retain(|(_, batch)| !batch.is_empty());
        tokens
    }

    /// The consumer cannot go on.
    pub fn fail(&self, reason: String) {
        self.state.lock().failure.get_or_insert(reason);
        self.ready.notify_one();
    }

    /// True after `fail`.
    pub fn has_failed(&self) -> bool {
        self.state.lock().failure.is_some()
    }

    /// The thread has ended.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::SourceBuilder;

    fn batch(partitions: &[i32]) -> Batch {
        let mut source = SourceBuilder::new("kafka");
        for &partition in partitions {
            source
                .push(b"x", |o, _| {
                    o.partition = partition;
                    Ok(())
                })
                .unwrap();
        }
        Batch::new(source.finish())
    }

    #[tokio::test]
    async fn a_batch_survives_a_dropped_read() {
        let mailbox = Mailbox::new(2);
        assert!(tokio::time::timeout(Duration::from_millis(5), mailbox.next()).await.is_err());
        mailbox.offer(1, batch(&[0]));
        let read = mailbox.next();
        drop(read);
        assert_eq!(mailbox.next().await.unwrap().0, 1);
    }

    #[tokio::test]
    async fn messages_are_withdrawn_before_anyone_saw_them() {
        let mailbox = Mailbox::new(2);
        mailbox.offer(1, batch(&[0, 1, 0]));
        mailbox.offer(2, batch(&[1]));
        assert!(!mailbox.has_room());
        assert_eq!(mailbox.withdraw(|m| m.origin().partition == 0), [1, 2]);
        assert!(mailbox.has_room());
        let (token, left) = mailbox.next().await.unwrap();
        assert_eq!((token, left.len()), (1, 2));
        mailbox.fail("gone".into());
        assert_eq!(mailbox.next().await.unwrap_err(), "gone");
    }

    #[test]
    fn waiting_ends_with_an_answer() {
        let mailbox = std::sync::Arc::new(Mailbox::new(2));
        let other = mailbox.clone();
        let answering = std::thread::spawn(move || other.settle(3, Outcome::Delivered));
        mailbox.wait(Duration::from_secs(60), false);
        assert_eq!(mailbox.answers(), [(3, Outcome::Delivered)]);
        answering.join().unwrap();
    }
}
