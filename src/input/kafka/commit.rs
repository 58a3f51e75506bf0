//! Commits that are waited for without going deaf. librdkafka's own waiting commit takes as long as it takes, and meanwhile
//! nobody polls: statistics are not seen, so nobody notices that the client has dropped all its brokers, without which the
//! commit is never answered.
use std::time::{Duration, Instant};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{IsError as _, KafkaError, KafkaResult},
};
use rdkafka_sys as native;

/// A queue of one answer.
struct Answers(*mut native::rd_kafka_queue_t);

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: it came from `rd_kafka_queue_new` and is given back once; librdkafka keeps what it still needs of it.
        unsafe { native::rd_kafka_queue_destroy(self.0) }
    }
}

/// Commits `positions`, or what is stored when there are none, and waits for the answer; `waiting` is told how long it
/// has taken already, about every `turn`.
///
/// # Errors
/// What Kafka answers, or why it was not asked.
pub fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    positions: Option<&TopicPartitionList>,
    turn: Duration,
    mut waiting: impl FnMut(Duration),
) -> KafkaResult<()> {
    let client = consumer.client().native_ptr();
    let positions = positions.map_or(std::ptr::null(), |positions| positions.ptr().cast_const());
    // SAFETY: the borrow of `consumer` keeps the client alive.
    let answers = Answers(unsafe { native::rd_kafka_queue_new(client) });
    // SAFETY: client, list and queue live through the call, which copies the list; without a callback the answer is an
    // event in the queue.
    let asked = unsafe { native::rd_kafka_commit_queue(client, positions, answers.0, None, std::ptr::null_mut()) };
    if asked.is_error() {
        return Err(KafkaError::ConsumerCommit(asked.into()));
    }
    let asked_at = Instant::now();
    loop {
        // SAFETY: the queue is alive; the event is given back below.
        let event = unsafe { native::rd_kafka_queue_poll(answers.0, turn.as_millis() as i32) };
        if event.is_null() {
            waiting(asked_at.elapsed());
            continue;
        }
        // SAFETY: the event is one of this queue, read before it is given back, once.
        let answer = unsafe {
            let answer = native::rd_kafka_event_error(event);
            native::rd_kafka_event_destroy(event);
            answer
        };
        return if answer.is_error() { Err(KafkaError::ConsumerCommit(answer.into())) } else { Ok(()) };
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{ClientConfig, Offset, types::RDKafkaErrorCode as Code};

    use super::*;

    #[test]
    fn whoever_waits_for_a_commit_is_told_so_until_it_is_answered() {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("group.id", "g")
            .set("enable.auto.commit", "false")
            // How long librdkafka keeps a commit for a coordinator that it does not find.
            .set("session.timeout.ms", "2000")
            .set("heartbeat.interval.ms", "500")
            .create()
            .expect("settings");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(1)).expect("an offset");
        let mut waits = Vec::new();
        let answer = commit(&consumer, Some(&list), Duration::from_millis(100), |waited| waits.push(waited));
        assert!(matches!(answer, Err(KafkaError::ConsumerCommit(_))), "{answer:?}");
        assert!(waits.len() > 2 && waits.is_sorted(), "{waits:?}");
        let nothing = commit(&consumer, None, Duration::from_millis(100), |_| {});
        assert_eq!(nothing, Err(KafkaError::ConsumerCommit(Code::NoOffset)));
    }
}
