//! Writes messages to Kafka topics.
//!
//! Delivery: at least once, in order per key. A message counts as delivered when every in-sync replica has it
//! (`acks=all`); the producer is idempotent, so its own retries neither repeat nor reorder messages; nothing is given up
//! because of time (`message.timeout.ms=0`), so an outage is waited out inside librdkafka.
//!
//! How a write goes: `plan` finds topic, key and partition of each message and groups them by partition; `native` puts
//! each group into librdkafka's queue with one call (messages with headers go one by one through the crate's producer);
//! the producer's thread takes the delivery reports, and `reports` turns them into one answer a write. A broker refuses
//! a whole set of messages when one of them is too large or not valid; `alone` sends each of such a set again by itself,
//! and only those refused by themselves are rejected. `meet` sends the first message to a partition ahead of the rest.
//!
//! Messages of a key may change order in two cases: when one was refused along with its set, and when a broker that has
//! forgotten this producer refuses a set for a moment and takes the next; `Reports::delivery` finds that out.
mod alone;
mod errors;
mod meet;
mod native;
mod partitioner;
mod plan;
mod producer;
mod received;
mod reports;
mod settle;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use rdkafka::{ClientConfig, producer::Producer as _, types::RDKafkaErrorCode};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    alone::{Alone, Shape},
    plan::{Address, Group, Plan},
    producer::Producer,
    reports::Ticket,
    settle::Settlement,
    topics::{LookUp, Topics},
};
use super::{Addressed, Delivery, Once, Output, OutputContext, OutputError, Parcel, WriteError, WriteLimits};
use crate::{
    client::{
        self, Contact, Probe,
        kafka::{self, Connection, Refused, Watch},
    },
    diagnostic::Fault,
    message::MessageRef,
    output::Rejection,
    script::Template,
    shape,
    spec::{Section, Spec, decode, schema_of},
};

pub static SPEC: Spec<dyn Output> = Spec {
    name: "kafka",
    summary: "Writes messages to Kafka topics, waiting until every in-sync replica has them.",
    example: "brokers: localhost:9092\ntopic: telemetry\nkey: \"{meta.levels[1]}\"\n",
    scripts: &[],
    schema: schema_of::<Config>,
    build: |section| Ok(Box::new(KafkaOutput::build(section)?)),
};

/// Settings of the `kafka` output.
///
/// Under `archive:` each message is written as it was received: the same payload, key and headers, and before those its
/// metadata as headers: `streamer.archive` (the version, `1`), `streamer.pipeline`, `streamer.topic`,
/// `streamer.partition`, `streamer.offset`, `streamer.timestamp`, `streamer.received_at`, `streamer.qos`,
/// `streamer.retain`, `streamer.input`. Times are Unix milliseconds; what a message does not have is left out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(flatten)]
    connection: Connection,
    /// Topic to write to. May hold values of the message: `telemetry.{meta.levels[0]}`. A message that lacks one of
    /// them is rejected as `missing-topic`.
    topic: String,
    /// Key of the messages: decides the partition, and so which messages keep their order. May hold values of the
    /// message; one that lacks any of them is written without a key. Default: the key the message was received with.
    #[serde(default)]
    key: Option<String>,
    /// Writes the message's headers along with it.
    #[serde(default = "headers")]
    headers: bool,
    /// Timestamp of the written messages.
    #[serde(default)]
    timestamp: Timestamp,
    /// How batches are compressed.
    #[serde(default)]
    compression: Compression,
    /// Longest wait of a message for others to travel with, in milliseconds.
    #[serde(default = "linger_ms")]
    #[schemars(range(max = 60_000))]
    linger_ms: u32,
    /// Largest message, in bytes with key and headers. A larger one is rejected as `message-too-large`. The topic's
    /// own limit, `max.message.bytes`, is 1048588 unless someone changed it.
    #[serde(default = "message_bytes_max")]
    #[schemars(range(min = 1000, max = 1_000_000_000))]
    message_bytes_max: u32,
    /// Most messages handed to the brokers and not yet confirmed. At the limit the next write waits.
    #[serde(default = "in_flight_messages_max")]
    in_flight_messages_max: NonZeroU32,
}

fn headers() -> bool {
    true
}

fn linger_ms() -> u32 {
    5
}

fn message_bytes_max() -> u32 {
    1_000_000
}

fn in_flight_messages_max() -> NonZeroU32 {
    NonZeroU32::new(100_000).expect("not zero")
}

/// Timestamp of a written message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Timestamp {
    /// The time of writing.
    #[default]
    Now,
    /// The timestamp the message was received with; the time of writing where it had none.
    Message,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    /// Not at all.
    None,
    /// Cheap, and halves most JSON.
    #[default]
    Lz4,
    /// Smaller, for a little more work: for slow or paid networks.
    Zstd,
    /// Much like `lz4`.
    Snappy,
    /// Costs about five times the work of the others.
    Gzip,
}

/// Properties this output depends on.
const REFUSED: &[Refused] = &[
    ("acks", "a message counts as delivered only when all in-sync replicas have it"),
    ("request.required.acks", "a message counts as delivered only when all in-sync replicas have it"),
    ("enable.idempotence", "without it retries repeat and reorder messages"),
    ("enable.gapless.guarantee", "rejected messages would stop the producer"),
    ("message.timeout.ms", "messages must not be given up because of time"),
    ("delivery.timeout.ms", "messages must not be given up because of time"),
    ("message.send.max.retries", "messages must not be given up because of failures"),
    ("retries", "messages must not be given up because of failures"),
    ("max.in.flight", "idempotence sets it"),
    ("max.in.flight.requests.per.connection", "idempotence sets it"),
    ("transactional.id", "this output does not write in transactions"),
    ("queuing.strategy", "messages of a key must keep their order"),
    ("queue.buffering.max.messages", "write it as `in_flight_messages_max`"),
    ("queue.buffering.max.kbytes", "`in_flight_messages_max` bounds the queue"),
    ("queue.buffering.max.ms", "write it as `linger_ms`"),
    ("linger.ms", "write it as `linger_ms`"),
    ("compression.codec", "write it as `compression`"),
    ("compression.type", "write it as `compression`"),
    ("message.max.bytes", "write it as `message_bytes_max`"),
    ("partitioner", "keys are placed as the Java client places them"),
    ("delivery.report.only.error", "every message must be confirmed"),
];

/// Writes that may be open at once.
const WRITES_MAX: u32 = 64;
/// Wait for room in librdkafka's queue.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(50);
/// How long brokers have to answer in `connect`.
const CONNECT_TIME: Duration = Duration::from_secs(8);

struct KafkaOutput {
    client: ClientConfig,
    /// How to reach the brokers, without what only a producer needs.
    connection: ClientConfig,
    brokers: String,
    server: String,
    linger: Duration,
    address: Arc<Address>,
    shape: Shape,
    message_bytes_max: u32,
    in_flight_messages_max: usize,
    context: Option<OutputContext>,
    live: Option<Live>,
}

/// What exists between `connect` and `close`.
struct Live {
    /// Before `producer`: its handles must go first.
    topics: Topics,
    producer: Producer,
    alone: Arc<Alone>,
    watch: Arc<Watch>,
}

impl KafkaOutput {
    fn build(section: &Section) -> Result<Self, Vec<Fault>> {
        let config: Config = decode(section)?;
        let mut faults = config.connection.check(&section.folder, REFUSED);
        let topic = Template::parse("topic", &config.topic).map_err(|fault| faults.push(fault)).ok();
        let key = config.key.as_ref().map(|key| Template::parse("key", key).map_err(|fault| faults.push(fault)).ok());
        if let Some(name) = topic.as_ref().and_then(Template::constant)
            && let Some(fault) = errors::topic_fault(name.as_bytes())
        {
            faults.push(
                Fault::new("bad-topic", "topic", format!("`{name}` cannot be the name of a Kafka topic"))
                    .label(fault)
                    .help("names have up to 249 letters, digits, `.`, `_` and `-`"),
            );
        }
        if !(1000..=1_000_000_000).contains(&config.message_bytes_max) {
            let title = format!("`message_bytes_max` is {}", config.message_bytes_max);
            faults.push(
                Fault::new("out-of-range", "message_bytes_max", title)
                    .label("out of range")
                    .help("write a number from 1000 to 1000000000"),
            );
        }
        if config.linger_ms > 60_000 {
            faults.push(
                Fault::new("out-of-range", "linger_ms", format!("`linger_ms` is {}", config.linger_ms))
                    .label("out of range")
                    .help("write a number from 0 to 60000"),
            );
        }
        let (true, Some(topic)) = (faults.is_empty(), topic) else { return Err(faults) };
        Ok(Self {
            client: config.client(section),
            connection: config.connection.client_config(&section.folder),
            brokers: config.connection.brokers(),
            server: config.connection.server(),
            linger: Duration::from_millis(config.linger_ms.into()),
            address: Arc::new(Address { topic, key: key.flatten() }),
            shape: Shape { headers: config.headers, timestamps: config.timestamp == Timestamp::Message, archive: None },
            message_bytes_max: config.message_bytes_max,
            in_flight_messages_max: config.in_flight_messages_max.get() as usize,
            context: None,
            live: None,
        })
    }

    /// Starts a producer and learns what `connect` must know: that brokers answer, and that a constant topic is there.
    async fn open(&self, context: &OutputContext) -> Result<Live, OutputError> {
        let watch = Arc::new(Watch::new(self.brokers.clone(), context.health.clone()));
        let (client, brokers) = (self.client.clone(), self.brokers.clone());
        let topic = self.address.topic.constant().map(str::to_owned);
        let opened = tokio::task::spawn_blocking({
            let watch = watch.clone();
            move || {
                let producer = Producer::start(&client, watch.clone(), WRITES_MAX)
                    .map_err(|error| format!("cannot make a Kafka producer for `{brokers}`: {error}"))?;
                let base = producer.base();
                let found = match &topic {
                    Some(topic) => Some(topics::look_up(base, topic, &brokers, CONNECT_TIME)),
                    None => base.client().fetch_cluster_id(CONNECT_TIME).is_none().then_some(LookUp::Silent),
                };
                match found {
                    Some(LookUp::Silent) => {
                        let seconds = CONNECT_TIME.as_secs();
                        let reason = watch.reason(&format!("no answer within {seconds} s"));
                        producer.stop();
                        Err(format!(
                            "no Kafka broker of `{brokers}` answers: {reason}; check that Kafka runs and `brokers` is right"
                        ))
                    }
                    Some(LookUp::Unfit(reason)) => {
                        producer.stop();
                        Err(reason)
                    }
                    found => Ok((producer, topic.zip(found))),
                }
            }
        });
        let (producer, found) = opened
            .await
            .map_err(|error| OutputError(format!("connecting to Kafka at `{}` failed: {error}", self.brokers)))?
            .map_err(OutputError)?;
        let mut topics = Topics::new(producer.base().clone(), self.brokers.clone());
        if let Some((name, found)) = found
            && let Ok(number) = topics.number(name.as_bytes())
        {
            topics.learn(number, found);
        }
        watch.arm();
        let alone = Arc::new(Alone::new(&self.client, watch.clone(), self.address.clone(), self.shape.clone()));
        Ok(Live { topics, producer, alone, watch })
    }

    /// Starts a write. `Err` is a reason to try all of it again.
    async fn start(&mut self, parcel: &Parcel) -> Result<Delivery, String> {
        if let Some(reason) = self.live.as_ref().and_then(|live| live.producer.fatal()) {
            // An idempotent producer that lost track of its numbers is of no more use. What it held goes back as Retry.
            tracing::warn!(brokers = self.brokers, reason, "the Kafka producer failed for good, making a new one");
            self.retire();
            let context = self.context.clone().ok_or("the output is not connected")?;
            context.metrics.reconnects.inc();
            self.live = Some(self.open(&context).await.map_err(|error| error.0)?);
        }
        if self.live.is_none() {
            let context = self.context.clone().ok_or("the output is not connected")?;
            self.live = Some(self.open(&context).await.map_err(|error| error.0)?);
        }
        let Some(live) = &mut self.live else { return Err("the output is not connected".into()) };
        let mut plan = Plan::address(parcel, &self.address, &mut live.topics);
        live.topics.refresh(plan.topics()).await;
        plan.place(parcel, &mut live.topics);
        let one_by_one = self.shape.is_more(parcel).then_some(&self.shape);
        let mut met = meet::meet(live, &mut plan, parcel, one_by_one, self.in_flight_messages_max).await;
        let board = live.producer.reports().board.clone();
        let (ticket, answer) = board.claim(plan.len(), self.in_flight_messages_max).await;
        met.answers.push(answer);
        let mut settlement = Settlement {
            parcel: parcel.clone(),
            rejected: std::mem::take(&mut plan.rejected),
            retry: std::mem::take(&mut plan.postponed),
            reason: plan.reason.take(),
            failures: met.failures,
            answers: met.answers,
            alone: live.alone.clone(),
            address: self.address.clone(),
            brokers: self.brokers.clone(),
        };
        let mut at = Progress { refused: met.refused, ..Progress::default() };
        while !hand_over(live, &plan, parcel, &ticket, &mut at, one_by_one) {
            // Only when messages are so large that the queue fills up before the window does.
            let _ = tokio::time::timeout(QUEUE_FULL_PAUSE, board.next_answer()).await;
        }
        for (index, code) in at.refused {
            if code == RDKafkaErrorCode::MessageSizeTooLarge {
                let reason = format!(
                    "the message of {} bytes is larger than `message_bytes_max`, {}",
                    parcel.get(index as usize).payload().len(),
                    self.message_bytes_max
                );
                settlement.rejected.push(Rejection { index, code: "message-too-large".into(), reason });
            } else {
                settlement.postpone(index, code);
            }
        }
        Ok(settlement.settle().boxed())
    }

    /// Gives up on the producer, without waiting.
    fn retire(&mut self) {
        if let Some(Live { topics, producer, alone, watch }) = self.live.take() {
            watch.disarm();
            tokio::task::spawn_blocking(move || {
                drop(topics);
                producer.stop();
                alone.stop();
            });
        }
    }
}

/// How far a write has been handed over.
#[derive(Default)]
struct Progress {
    group: usize,
    /// Next entry of the plan.
    entry: usize,
    /// Messages that librdkafka did not take, by index in the parcel.
    refused: Vec<(u32, RDKafkaErrorCode)>,
}

/// Puts the rest of the plan into librdkafka's queue, group by group. Answers false when the queue is full.
fn hand_over(
    live: &mut Live,
    plan: &Plan,
    parcel: &Parcel,
    ticket: &Ticket,
    at: &mut Progress,
    one_by_one: Option<&Shape>,
) -> bool {
    while let Some(&group) = plan.groups().get(at.group) {
        at.entry = at.entry.max(group.start);
        for (i, code) in put(live, plan, parcel, Group { start: at.entry, ..group }, ticket, one_by_one) {
            if code == RDKafkaErrorCode::QueueFull {
                at.entry += i;
                return false;
            }
            at.refused.push((plan.index(at.entry + i), code));
        }
        at.group += 1;
    }
    true
}

/// Puts the messages of a group into librdkafka's queue. Answers those not taken, by position, with the reason. After the
/// first `QueueFull` none is taken.
fn put(
    live: &mut Live,
    plan: &Plan,
    parcel: &Parcel,
    group: Group,
    ticket: &Ticket,
    one_by_one: Option<&Shape>,
) -> Vec<(usize, RDKafkaErrorCode)> {
    let topic = live.topics.get(group.topic);
    let messages = plan.messages(parcel, group.start, group.end);
    let failed = match one_by_one {
        _ if group.start == group.end => Vec::new(),
        None => {
            ticket.expect(group.end - group.start);
            let failed = topic.handle.produce(
                group.partition,
                messages.map(|(index, key, message)| native::Outgoing {
                    key,
                    payload: message.payload(),
                    opaque: ticket.opaque(index),
                }),
            );
            ticket.not_taken(failed.len());
            failed
        }
        Some(shape) => {
            let base = live.producer.base();
            let mut failed = Vec::new();
            for (i, (index, key, message)) in messages.enumerate() {
                ticket.expect(1);
                let sent = shape.send(base, &topic.name, group.partition, key, message, ticket.opaque(index));
                if let Err(code) = sent {
                    ticket.not_taken(1);
                    failed.push((i, code));
                    if code == RDKafkaErrorCode::QueueFull {
                        break;
                    }
                }
            }
            failed
        }
    };
    if failed.iter().any(|(_, code)| errors::is_about_topics(*code)) {
        live.producer.reports().topics_changed.fetch_add(1, Ordering::AcqRel);
    }
    failed
}

impl Config {
    fn client(&self, section: &Section) -> ClientConfig {
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
            Compression::Gzip => "gzip",
        };
        let mut config = ClientConfig::new();
        config
            .set("batch.num.messages", "10000")
            .set("batch.size", self.message_bytes_max.min(1_000_000).to_string())
            .set("topic.metadata.refresh.interval.ms", "60000");
        for (name, value) in self.connection.client_config(&section.folder).config_map() {
            config.set(name, value);
        }
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("message.send.max.retries", i32::MAX.to_string())
            .set("linger.ms", self.linger_ms.to_string())
            .set("compression.type", compression)
            .set("message.max.bytes", self.message_bytes_max.to_string())
            // `in_flight_messages_max` is the bound on messages, the pipeline's memory budget the one on bytes.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", (1 << 20).to_string());
        config
    }
}

#[async_trait]
impl Output for KafkaOutput {
    fn limits(&self) -> WriteLimits {
        // librdkafka gathers batches itself, so what comes is handed over at once.
        WriteLimits { bytes_max: 4 << 20, in_flight_max: WRITES_MAX as usize, ..WriteLimits::IMMEDIATE }
    }

    fn archive(&mut self, pipeline: &str) -> Option<Vec<Fault>> {
        self.shape.archive = Some(pipeline.into());
        let of_outputs = [
            ("key", self.address.key.is_some(), "an archive keeps the key that a message was received with"),
            ("headers", !self.shape.headers, "an archive keeps the headers of each message"),
            (
                "timestamp",
                self.shape.timestamps,
                "an archive keeps it in a header: by its time of writing a message is retained",
            ),
        ];
        let faults = of_outputs.into_iter().filter(|(_, is_set, _)| *is_set).map(|(field, _, label)| {
            Fault::new("conflicting-fields", field, format!("`{field}` does not go together with `archive`"))
                .label(label)
                .help("remove it")
        });
        Some(faults.collect())
    }

    fn address(&self, message: MessageRef<'_>) -> Result<Addressed, (String, String)> {
        let mut addressed = Addressed::of(message).to(&self.address.topic, message)?;
        if let Some(template) = &self.address.key {
            let mut key = Vec::new();
            addressed.key = template.write(message, &mut key).then_some(key);
        }
        if !self.shape.headers {
            addressed.headers.clear();
        }
        Ok(addressed)
    }

    fn contact(&self) -> Option<Contact> {
        Some(Contact {
            server: self.server.clone(),
            topics: vec![("topic".to_owned(), client::Topic::of(&self.address.topic))],
            linger: self.linger,
            ..Contact::default()
        })
    }

    fn probe(&self, _once: Once, _payload: &shape::Shape, limit: Duration) -> Option<Probe> {
        let topic = self.address.topic.constant().map(str::to_owned);
        let (keyed, keeps) = (self.address.key.is_some(), self.shape.archive.is_some());
        let used = kafka::Use::Write { bytes_max: self.message_bytes_max, keyed, keeps };
        let probe = kafka::ask(&self.connection, &self.brokers, limit, move |brokers| {
            let mut faults = brokers.advertised()?;
            if let Some(topic) = topic {
                faults.extend(brokers.topic("topic", &topic, used)?);
            }
            Ok(faults)
        });
        Some(probe)
    }

    async fn connect(&mut self, context: &OutputContext) -> Result<(), OutputError> {
        self.retire();
        self.context = Some(context.clone());
        self.live = Some(self.open(context).await?);
        Ok(())
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        match self.start(parcel).await {
            Ok(delivery) => delivery,
            Err(reason) => std::future::ready(Err(WriteError::retry(reason))).boxed(),
        }
    }

    async fn close(&mut self, deadline: Duration) {
        let Some(Live { topics, producer, alone, watch }) = self.live.take() else { return };
        watch.disarm();
        // Dropping a producer throws its queue away, so wait for the reports first.
        let board = producer.reports().board.clone();
        let flush = async {
            board.idle().await;
            alone.idle().await;
        };
        if tokio::time::timeout(deadline.saturating_sub(Duration::from_millis(700)), flush).await.is_err() {
            tracing::warn!(brokers = self.brokers, "closing the Kafka producer with messages that are not confirmed");
        }
        let stopped = tokio::task::spawn_blocking(move || {
            drop(topics);
            producer.stop();
            alone.stop();
        });
        let _ = tokio::time::timeout(Duration::from_secs(1).min(deadline), stopped).await;
    }
}
