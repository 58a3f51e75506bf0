//! The context of clients that read for a command and end with it.
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    metadata::Metadata,
    types::RDKafkaErrorCode,
};
use tracing::debug;

use super::{log, lower_first};

/// Keeps librdkafka's own lines out of the output, and the last of its troubles for errors that only say "timed out".
///
/// Without a context, rdkafka logs every lost connection as an error, also those that are made again in the next moment.
#[derive(Debug, Default)]
pub struct Quiet {
    said: Mutex<Option<String>>,
}

impl Quiet {
    /// Takes in what librdkafka reports on the side.
    pub fn hear(&self, error: &KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka reports trouble");
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.said.lock() = Some(lower_first(reason.split(" (after ").next().unwrap_or(reason)));
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.hear(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// Asks what partitions `topic` has. The first question of every such client: who cannot be reached is found out here.
///
/// # Errors
/// No broker answers: which were asked, why, and what to check.
pub fn find_topic(
    consumer: &BaseConsumer<Quiet>,
    brokers: &str,
    topic: &str,
    patience: Duration,
) -> Result<Metadata, String> {
    let metadata = consumer.fetch_metadata(Some(topic), patience);
    // What librdkafka said meanwhile waits in its queue.
    for _ in 0..20 {
        let _ = consumer.poll(Duration::from_millis(1));
    }
    metadata.map_err(|error| {
        let said = consumer.context().said.lock().clone();
        let reason = said.unwrap_or_else(|| lower_first(&error.to_string()));
        format!("no Kafka broker of `{brokers}` answers: {reason}; check that Kafka runs and `brokers` is right")
    })
}
