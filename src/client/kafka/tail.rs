//! The last messages of a topic, read without a group: nothing is committed, and nobody else's reading changes.
use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
};

use super::{Quiet, find_topic};

/// One message of a topic.
#[derive(Clone, Debug)]
pub struct Tailed {
    pub payload: Vec<u8>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
}

/// Longest wait for the brokers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the last `count` messages of `topic`, in the order of their times, from all partitions. Blocks.
///
/// # Errors
/// What was tried on which brokers, and what they said.
pub fn tail(brokers: &str, topic: &str, count: usize) -> Result<Vec<Tailed>, String> {
    let fail =
        |tried: &str, error: &dyn std::fmt::Display| format!("cannot {tried} topic `{topic}` at `{brokers}`: {error}");
    let consumer: BaseConsumer<Quiet> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Needed by the library; nothing is committed to it.
        .set("group.id", "streamer-map")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create_with_context(Quiet::default())
        .map_err(|error| fail("read", &error))?;
    let metadata = find_topic(&consumer, brokers, topic, PATIENCE)?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    if partitions.is_empty() {
        return Err(fail("find", &"there is no such topic"));
    }
    let mut assignment = TopicPartitionList::new();
    let mut ends = Vec::new();
    for partition in partitions {
        let (low, high) =
            consumer.fetch_watermarks(topic, partition.id(), PATIENCE).map_err(|error| fail("read", &error))?;
        let from = low.max(high - count as i64);
        if from < high {
            let offset = Offset::Offset(from);
            assignment.add_partition_offset(topic, partition.id(), offset).map_err(|error| fail("read", &error))?;
            ends.push((partition.id(), high));
        }
    }
    let mut found = Vec::new();
    if ends.is_empty() {
        return Ok(found);
    }
    consumer.assign(&assignment).map_err(|error| fail("read", &error))?;
    let started = Instant::now();
    while !ends.is_empty() && started.elapsed() < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                found.push(Tailed {
                    payload: message.payload().unwrap_or_default().to_vec(),
                    key: message.key().map(<[u8]>::to_vec),
                    headers: headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect(),
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp_ms: message.timestamp().to_millis(),
                });
                let at = (message.partition(), message.offset() + 1);
                ends.retain(|(partition, end)| *partition != at.0 || at.1 < *end);
            }
            // The end of a partition: what is left of it are a transaction's marks.
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                ends.retain(|(known, _)| *known != partition)
            }
            Some(Err(error)) => return Err(fail("read", &error)),
            None => {}
        }
    }
    found.sort_by_key(|message| (message.timestamp_ms, message.partition, message.offset));
    let surplus = found.len().saturating_sub(count);
    found.drain(..surplus);
    Ok(found)
}
