//! Kafka: writing messages and waiting for their confirmation, reading a topic from its beginning to its end.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Headers as _, OwnedHeaders},
    producer::{BaseRecord, ProducerContext, ThreadedProducer},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{equal, eventually};

/// A message as it lies in a topic.
#[derive(Clone, Debug)]
pub struct Record {
    pub key: Option<String>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    /// The key as it is, text or not.
    pub key_bytes: Option<Vec<u8>>,
    /// The headers' values as they are.
    pub header_bytes: Vec<(String, Vec<u8>)>,
    pub partition: i32,
    pub offset: i64,
}

impl Record {
    /// The value as JSON; null when it is none.
    pub fn json(&self) -> Value {
        self.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
    }

    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// The header called `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

fn reader(brokers: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "reads-all-and-commits-nothing");
    config.set("enable.auto.commit", "false").set("broker.address.family", "v4");
    // A broker that is away is no news to a test that sent it away.
    config.set("log_level", "0").set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config.create().expect("the settings are right")
}

/// Ok when a broker answers.
pub fn answers(brokers: &str) -> Result<(), KafkaError> {
    reader(brokers).fetch_metadata(None, TIMEOUT).map(drop)
}

/// The brokers of each partition of a topic, by their ids: the leader, and all whose copy is whole.
pub fn replicas(brokers: &str, topic: &str) -> Result<Vec<(i32, Vec<i32>)>, String> {
    let metadata = reader(brokers).fetch_metadata(Some(topic), TIMEOUT).map_err(|error| error.to_string())?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    Ok(partitions.iter().map(|partition| (partition.leader(), partition.isr().to_vec())).collect())
}

/// Every message of a topic, in order within each partition; none when there is no such topic.
pub fn read_all(brokers: &str, topic: &str) -> Result<Vec<Record>, String> {
    let fail = |error: KafkaError| format!("cannot read topic `{topic}`: {error}");
    let consumer = reader(brokers);
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).map_err(fail)?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT).map_err(fail)?;
        if low < high {
            assignment.add_partition_offset(topic, partition.id(), Offset::Offset(low)).map_err(fail)?;
            left += high - low;
        }
    }
    consumer.assign(&assignment).map_err(fail)?;
    let (mut records, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(60));
    // Messages that came meanwhile do not harm: whoever counts sees more than at the start.
    while left > 0 {
        if Instant::now() > deadline {
            return Err(format!("topic `{topic}` gave {} messages and not the {left} others", records.len()));
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.map_err(fail)?;
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let header_bytes: Vec<(String, Vec<u8>)> =
            headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        records.push(Record {
            key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
            value: message.payload().map(<[u8]>::to_vec),
            headers: header_bytes.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            key_bytes: message.key().map(<[u8]>::to_vec),
            header_bytes,
            partition: message.partition(),
            offset: message.offset(),
        });
        left -= 1;
    }
    Ok(records)
}

/// Makes a topic and waits until clients see it with all its leaders; one of that name that is being deleted is waited
/// for.
pub fn create(brokers: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    new.config = settings.to_vec();
    let (admin, runtime) = admin(brokers);
    eventually("Kafka makes a topic", || done(runtime.block_on(admin.create_topics([&new], &AdminOptions::new()))));
    let reader = reader(brokers);
    eventually("clients see the new topic", || {
        let metadata = reader.fetch_metadata(Some(topic), TIMEOUT).map_err(|error| error.to_string())?;
        let led = metadata.topics().iter().flat_map(|found| found.partitions()).filter(|p| p.leader() >= 0);
        equal(led.count(), partitions as usize)
    });
}

/// Deletes a topic with all that is in it, and waits until clients see that it is gone. Nobody may make it again
/// meanwhile.
pub fn delete(brokers: &str, topic: &str) {
    let (admin, runtime) = admin(brokers);
    eventually("Kafka deletes a topic", || done(runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new()))));
    let reader = reader(brokers);
    eventually("clients see that the topic is gone", || {
        let metadata = reader.fetch_metadata(Some(topic), TIMEOUT).map_err(|error| error.to_string())?;
        equal(metadata.topics().iter().map(|found| found.partitions().len()).sum(), 0)
    });
}

/// Removes the messages of a partition before an offset, as retention does.
pub fn trim(brokers: &str, topic: &str, partition: i32, before: i64) {
    let (admin, runtime) = admin(brokers);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
    eventually("Kafka removes messages", || {
        let removed = runtime.block_on(admin.delete_records(&offsets, &AdminOptions::new()));
        removed
            .map_err(|error| error.to_string())?
            .elements()
            .iter()
            .try_for_each(|e| e.error())
            .map_err(|e| e.to_string())
    });
}

fn admin(brokers: &str) -> (AdminClient<DefaultClientContext>, Runtime) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("broker.address.family", "v4");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    (config.create().expect("the settings are right"), runtime)
}

fn done(results: Result<Vec<TopicResult>, KafkaError>) -> Result<(), String> {
    for result in results.map_err(|error| error.to_string())? {
        result.map_err(|(topic, error)| format!("{topic}: {error}"))?;
    }
    Ok(())
}

/// Writes messages, however long the broker is away.
pub struct Producer {
    inner: ThreadedProducer<Confirmed>,
    sent: usize,
    confirmed: Arc<AtomicUsize>,
}

struct Confirmed(Arc<AtomicUsize>);

impl ClientContext for Confirmed {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Producer {
    pub fn new(brokers: &str) -> Self {
        let confirmed = Arc::new(AtomicUsize::new(0));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("broker.address.family", "v4");
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0").set("linger.ms", "5");
        // What a topic takes is for the broker to say.
        config.set("message.max.bytes", "100000000");
        let inner = config.create_with_context(Confirmed(confirmed.clone())).expect("the settings are right");
        Self { inner, sent: 0, confirmed }
    }

    /// Hands over a message of any bytes.
    pub fn send_bytes(&mut self, topic: &str, key: &[u8], value: &[u8], headers: &[(&str, &[u8])]) {
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(rdkafka::message::Header { key, value: Some(*value) })
        });
        let record = BaseRecord::to(topic).key(key).payload(value).headers(headers);
        self.inner.send(record).map_err(|(error, _)| error).expect("there is room in the queue");
        self.sent += 1;
    }

    /// Hands a message over; `None` as the value makes a tombstone. A fixed partition makes neighbours of messages.
    pub fn send(&mut self, topic: &str, partition: Option<i32>, key: &str, value: Option<&[u8]>) {
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic).key(key);
        (record.payload, record.partition) = (value, partition);
        let mut waiting = Some(record);
        eventually("the producer has room", || match self.inner.send(waiting.take().expect("it came back")) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                waiting = Some(record);
                Err("its queue is full".to_owned())
            }
            Err((error, _)) => panic!("cannot write to `{topic}`: {error}"),
        });
        self.sent += 1;
    }

    /// Waits until every message is confirmed.
    pub fn flush(&self) {
        eventually("Kafka confirms what was written", || {
            super::equal(self.confirmed.load(Ordering::Relaxed), self.sent)
        });
    }
}
