//! Inputs: where messages enter. One file or folder each; `INPUTS` lists them.
mod file;
mod generate;
mod kafka;
mod lines;
mod mqtt;
pub mod parquet;
mod stdin;

pub use kafka::{Past, Stretch};

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    ack::Ack,
    client::{Contact, Probe, mqtt::topic::Filter},
    message::{Batch, Captures},
    metrics::{ComponentMetrics, Health},
    spec::Spec,
};

/// Every input, sorted by name.
pub static INPUTS: &[&Spec<dyn Input>] =
    &[&file::SPEC, &generate::SPEC, &kafka::SPEC, &mqtt::SPEC, &parquet::SPEC, &stdin::SPEC];

/// What an input is given to work with.
#[derive(Clone, Debug)]
pub struct InputContext {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The user's label.
    pub label: String,
    /// Counters. The pipeline counts `received` itself; the input counts the rest (`reconnects`, `lag`, …).
    pub metrics: ComponentMetrics,
    /// The input reports here whenever its connection is made or lost after `connect`.
    pub health: Health,
    /// A folder of its own, in which it may keep what it wants to know after a restart. Made by whoever writes there.
    pub state: PathBuf,
}

/// What a source promises about messages that were handed out and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replay {
    /// They are gone when streamer dies (QoS 0, stdin).
    Never,
    /// They come again.
    Unacknowledged,
    /// They come again from recorded offsets in the same order (Kafka), so an output may recognise them.
    ByOffset,
}

/// Where an input that records its batches ends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Most messages of a batch.
    pub messages_max: usize,
    /// Most bytes of a batch; the message that passes the limit is its last.
    pub bytes_max: usize,
    /// Longest time the first message of a batch waits for company.
    pub linger: Duration,
}

/// Names for topic levels, by topic filter.
#[derive(Clone, Debug)]
pub struct TopicNames {
    pub captures: Arc<Captures>,
    pub filters: Vec<Filter>,
}

impl TopicNames {
    /// Number of the first filter with names that `topic` matches, as in `Origin::filter`.
    pub fn filter(&self, topic: &str) -> u16 {
        let mut filters = self.filters.iter();
        filters.position(|filter| !filter.captures.is_empty() && filter.matches(topic)).map_or(u16::MAX, |i| i as u16)
    }
}

/// One ordered stream of messages.
///
/// Calls come in this order: `connect` until it succeeds, `read` again and again, `close` once. After `Err` from `read`
/// the pipeline waits with back-off and calls `connect` again. `read` never happens while the pipeline is full: an input
/// with a connection to keep (pings, heartbeats) does so on a task or thread of its own, and holds a bounded number of
/// bytes meanwhile.
///
/// Acks: the input makes one `Ack` a batch with `Ack::new` and hears through `Settle` what became of it. It acknowledges
/// to the broker in the order of receipt, only below the first batch that is still open, and never for a batch that came
/// back `Undelivered`.
#[async_trait]
pub trait Input: Send {
    /// What happens to messages that are never acknowledged.
    fn replay(&self) -> Replay;

    /// True when its source keeps few messages that are not acknowledged, or none, so that the pipeline may keep them on
    /// disk and answer their acks early (`spool:`).
    fn can_spool(&self) -> bool {
        false
    }

    /// What its settings tell of the outside world.
    fn contact(&self) -> Option<Contact> {
        None
    }

    /// Asks its server what settings alone cannot tell (`lint --connect`): reads only, and opens nothing that others
    /// would notice. `limit` is the time for all of it. `None`: there is nothing to ask.
    fn probe(&self, _limit: Duration) -> Option<Probe> {
        None
    }

    /// From now on batches are recorded before they are handed out, each as a `Recorded`, so that an output can tell when
    /// one comes again. Called before `connect`, and only when `replay` is `ByOffset`.
    fn record(&mut self, _cuts: Cuts) {}

    /// The names it gives to topic levels, for messages that it has received at another time.
    fn topic_names(&self) -> Option<TopicNames> {
        None
    }

    /// Opens connections. May be called again after an error.
    ///
    /// # Errors
    /// The outside world does not answer as hoped; the pipeline tries again with back-off.
    async fn connect(&mut self, context: &InputContext) -> Result<(), InputError>;

    /// The next messages, at least one. `None` when there will never be more (end of a file).
    ///
    /// # Errors
    /// The connection is lost for good and must be made again by `connect`.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError>;

    /// Stops. Called when every batch handed out was settled, or the time for that is over: sends the last
    /// acknowledgements or commits, then leaves. Takes at most `deadline`.
    async fn close(&mut self, deadline: Duration);
}

/// Why an input cannot read just now: what was tried, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl InputError {
    /// `message` names what was tried and on what; the cause is added to it.
    pub fn new(message: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self { message: format!("{}: {source}", message.into()), source: Some(source) }
    }

    /// An error without a deeper cause.
    pub fn message(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::{HealthBoard, Metrics},
        spec::Section,
    };

    pub(super) fn context() -> InputContext {
        let metrics = Metrics::new().component("test", "input", "test");
        let health = HealthBoard::default().add("test/input/test", metrics.up.clone());
        InputContext { pipeline: "test".to_owned(), label: "test".to_owned(), metrics, health, state: PathBuf::new() }
    }

    /// Offsets and payloads of all messages up to the end.
    pub(super) async fn read_all(input: &mut dyn Input) -> Result<Vec<(i64, String)>, InputError> {
        let mut seen = Vec::new();
        while let Some((batch, ack)) = input.read().await? {
            assert!(!batch.is_empty());
            seen.extend(batch.iter().map(|m| (m.origin().offset, String::from_utf8(m.payload().to_vec()).unwrap())));
            ack.delivered();
        }
        Ok(seen)
    }

    #[test]
    fn names_are_sorted_and_examples_build() {
        assert!(INPUTS.is_sorted_by_key(|spec| spec.name));
        for spec in INPUTS {
            assert!((spec.build)(&Section::from_yaml(spec.example)).is_ok(), "{}", spec.name);
        }
    }
}
