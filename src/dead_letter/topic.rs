//! Dead letters in a Kafka topic, read without a group: nobody else's reading changes.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header as KafkaHeader, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use serde::Deserialize;

use super::{
    found::{Found, StoreError},
    mark::{Id, MARK_HEADER, Mark, REDRIVEN},
};
use crate::{
    client::kafka::{Connection, Quiet, find_topic, log, lower_first},
    script::Template,
    spec::Section,
};

/// Longest time without any progress.
const PATIENCE: Duration = Duration::from_secs(30);

/// A topic of dead letters.
#[derive(Clone, Debug)]
pub struct Topic {
    connection: Connection,
    folder: PathBuf,
    name: String,
}

/// Reads a topic up to the end that it had at the start.
pub struct TopicReader {
    consumer: BaseConsumer<Quiet>,
    shown: String,
    /// Partitions that are not read to their end yet, and where that is.
    ends: BTreeMap<i32, i64>,
    progress: Instant,
}

/// Writes marks.
pub struct TopicMarker {
    producer: BaseProducer<Confirmed>,
    topic: Topic,
    pipeline: String,
    to: String,
}

impl Topic {
    /// The topic of a `kafka` output.
    pub(super) fn of(section: &Section) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Settings {
            #[serde(flatten)]
            connection: Connection,
            topic: String,
        }
        let Settings { connection, topic } = serde_yaml::from_value(section.value.clone())
            .map_err(|error| format!("`dead_letter: kafka` cannot be read: {error}"))?;
        let template = Template::parse("topic", &topic).map_err(|fault| fault.to_string())?;
        let Some(name) = template.constant() else {
            return Err(format!(
                "the topic `{topic}` of `dead_letter:` differs by message; give all dead letters one topic to read them back"
            ));
        };
        Ok(Self { connection, folder: section.folder.clone(), name: name.to_owned() })
    }

    pub(super) fn shown(&self) -> String {
        format!("topic `{}` at `{}`", self.name, self.connection.brokers())
    }

    fn client(&self, folder: &Path) -> ClientConfig {
        let mut config = self.connection.client_config(folder);
        config.set("statistics.interval.ms", "0");
        config
    }

    fn failed(&self, tried: &str, error: &KafkaError) -> StoreError {
        StoreError(format!("cannot {tried} {}: {}", self.shown(), lower_first(&error.to_string())))
    }

    /// Opens it for reading.
    pub(super) fn open(&self) -> Result<TopicReader, StoreError> {
        let failed = |error: KafkaError| self.failed("read", &error);
        let consumer: BaseConsumer<Quiet> = self
            .client(&self.folder)
            // Needed by the library; nothing is committed to it.
            .set("group.id", "streamer-dead-letter")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create_with_context(Quiet::default())
            .map_err(failed)?;
        let metadata = find_topic(&consumer, &self.connection.brokers(), &self.name, PATIENCE).map_err(StoreError)?;
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        if partitions.is_empty() {
            return Err(StoreError(format!(
                "there is no {}; it is made with the first dead letter, or by whoever makes your topics",
                self.shown()
            )));
        }
        let (mut assignment, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
        for partition in partitions.iter().map(|partition| partition.id()) {
            let (low, high) = consumer.fetch_watermarks(&self.name, partition, PATIENCE).map_err(failed)?;
            if low < high {
                assignment.add_partition_offset(&self.name, partition, Offset::Offset(low)).map_err(failed)?;
                ends.insert(partition, high);
            }
        }
        consumer.assign(&assignment).map_err(failed)?;
        Ok(TopicReader { consumer, shown: self.shown(), ends, progress: Instant::now() })
    }

    /// Opens it for marks.
    pub(super) fn marker(&self, pipeline: &str, to: &str) -> Result<TopicMarker, StoreError> {
        let mut config = self.client(&self.folder);
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let producer =
            config.create_with_context(Confirmed::default()).map_err(|error| self.failed("write marks to", &error))?;
        Ok(TopicMarker { producer, topic: self.clone(), pipeline: pipeline.to_owned(), to: to.to_owned() })
    }
}

impl Iterator for TopicReader {
    type Item = Result<Found, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ends.is_empty() {
            let failed = |why: &str| Some(Err(StoreError(format!("cannot read {}: {why}", self.shown))));
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    self.progress = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(end) = self.ends.get(&partition).copied() else { continue };
                    if offset + 1 >= end {
                        self.ends.remove(&partition);
                    }
                    if offset >= end {
                        continue;
                    }
                    let id = Id { partition: Some(partition), offset, digest: 0 };
                    let value = message.payload().unwrap_or_default();
                    let is_mark = message.headers().is_some_and(|headers| headers.iter().any(|h| h.key == MARK_HEADER));
                    return Some(Ok(match serde_json::from_slice::<Mark>(value) {
                        Ok(mark) if is_mark => Found::Mark(mark.in_topic()),
                        _ => Found::of(id, value),
                    }));
                }
                // The end of a partition: what is left of it are a transaction's marks.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.progress = Instant::now();
                    self.ends.remove(&partition);
                }
                Some(Err(error)) => {
                    // Brokers that are away come back, or the patience ends.
                    let is_passing = matches!(
                        error.rdkafka_error_code(),
                        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
                    );
                    if !is_passing || self.progress.elapsed() > PATIENCE {
                        return failed(&lower_first(&error.to_string()));
                    }
                }
                None if self.progress.elapsed() > PATIENCE => {
                    return failed(&format!("nothing came for {} s", PATIENCE.as_secs()));
                }
                None => {}
            }
        }
        None
    }
}

impl TopicMarker {
    pub(super) fn mark(&mut self, letters: &[Id]) -> Result<(), StoreError> {
        let mut by_partition: BTreeMap<i32, Vec<Id>> = BTreeMap::new();
        for id in letters {
            by_partition.entry(id.partition.expect("a letter of a topic has a partition")).or_default().push(*id);
        }
        self.producer.context().failed.lock().take();
        for (partition, ids) in by_partition {
            let mark = Mark::new(&self.pipeline, &self.to, &ids).json();
            let headers = OwnedHeaders::new().insert(KafkaHeader { key: MARK_HEADER, value: Some(REDRIVEN) });
            // A key, since a compacted topic takes no message without.
            let key = format!("{MARK_HEADER} {}", ids[0]);
            let record = BaseRecord::to(&self.topic.name).partition(partition).payload(&mark);
            let sent = self.producer.send(record.key(&key).headers(headers));
            sent.map_err(|(error, _)| self.topic.failed("write marks to", &error))?;
        }
        let flushed = self.producer.flush(PATIENCE + Duration::from_secs(1));
        let failed = self.producer.context().failed.lock().take();
        match failed.map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.topic.failed("write marks to", &error)),
        }
    }
}

/// Remembers what went wrong with a mark.
#[derive(Default)]
struct Confirmed {
    quiet: Quiet,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Confirmed {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.hear(&error, reason);
    }
}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().get_or_insert_with(|| error.clone());
        }
    }
}
