//! Reads messages from Kafka topics as a member of a consumer group.
//!
//! Delivery: at least once, in order per partition. A position is committed only when every message before it was
//! delivered, dead-lettered or filtered; after a crash reading goes on from there.
//!
//! A thread of its own owns the consumer (`consumer`), so heartbeats, rebalances and commits never wait for the
//! pipeline. It copies messages into batches (`draft`), offers them over a small `mailbox`, and pauses the partitions
//! when nobody takes them. `assignment` tracks what was handed out of each partition. When partitions move to another
//! member, their open batches are waited for briefly, then the last positions are committed.
//!
//! Positions are stored by us and committed by librdkafka (`enable.auto.commit` with `enable.auto.offset.store=false`):
//! commits made by hand during a cooperative rebalance fail in several ways that librdkafka's own do not, see
//! <https://github.com/confluentinc/librdkafka/issues/4059>.
//!
//! For delivery exactly once (`record`), batches are ranges of one partition each. Where a range ends is recorded with the
//! group's position (`plan`, `ledger`) before it is handed out, and whoever reads the partition next hands out the same
//! ranges. `reading` has both ways of reading.
//!
//! A message without payload (a tombstone) is read as an empty payload.
mod assignment;
mod commit;
mod consumer;
mod draft;
mod group;
mod ledger;
mod mailbox;
mod past;
mod plan;
mod reading;
mod renewed;
mod shelf;
mod trouble;

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _},
};
use schemars::JsonSchema;
use serde::Deserialize;

pub use past::{Past, Stretch};

use self::{
    assignment::Assignment,
    group::{Books, Bounds, Group},
    ledger::Ledger,
    mailbox::Mailbox,
    reading::{Free, Ranged, Reading},
};
use super::{Cuts, Input, InputContext, InputError, Replay};
use crate::{
    ack::Ack,
    client::{
        self, Contact, Probe,
        kafka::{self, Connection, OneOrMany, Refused, Watch},
    },
    diagnostic::Fault,
    message::Batch,
    spec::{Section, Spec, decode, schema_of},
};

pub static SPEC: Spec<dyn Input> = Spec {
    name: "kafka",
    summary: "Reads messages from Kafka topics as a member of a consumer group.",
    example: "brokers: localhost:9092\ntopics: telemetry\ngroup: streamer\n",
    scripts: &[],
    schema: schema_of::<Config>,
    build: |section| Ok(Box::new(KafkaInput::build(section)?)),
};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(flatten)]
    connection: Connection,
    /// Topics to read: a list, or one text with commas. A name that starts with `^` is a regular expression.
    topics: OneOrMany,
    /// Consumer group. Instances with the same group share the partitions; the group's positions live in Kafka.
    group: String,
    /// Name of this instance within the group, different for each. With it a quick restart keeps the partitions and
    /// moves none; without it every start and stop is a rebalance.
    #[serde(default)]
    group_instance_id: Option<String>,
    /// How long the group waits for a sign of life of this instance before its partitions go to others, in
    /// milliseconds. Default: 45000. With `protocol: consumer` the broker decides it.
    #[serde(default)]
    #[schemars(range(min = 1000, max = 3_600_000))]
    session_timeout_ms: Option<u32>,
    /// Where to start in a partition for which the group has no position, or one that is no longer there.
    #[serde(default)]
    start: Start,
    /// How the group agrees on who reads what.
    #[serde(default)]
    protocol: Protocol,
    /// Most messages of one batch. With exactly-once delivery the limits of the output decide instead.
    #[serde(default = "batch_messages_max")]
    batch_messages_max: NonZeroU32,
    /// Most bytes of one batch, keys and headers included. The message that passes the limit is the last of its batch.
    /// With exactly-once delivery the limits of the output decide instead.
    #[serde(default = "batch_bytes_max")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    batch_bytes_max: u32,
    /// How often positions are committed, in milliseconds. After a crash at most the messages of this time, and those
    /// in flight, come again.
    #[serde(default = "commit_interval_ms")]
    commit_interval_ms: NonZeroU32,
    /// Most bytes fetched ahead of the pipeline. At the limit fetching stops until there is room.
    #[serde(default = "prefetch_bytes_max")]
    #[schemars(range(min = 1024, max = 2_000_000_000))]
    prefetch_bytes_max: u32,
    /// Which messages of transactions are read.
    #[serde(default)]
    isolation: Isolation,
}

fn batch_messages_max() -> NonZeroU32 {
    NonZeroU32::new(10_000).expect("not zero")
}

fn batch_bytes_max() -> u32 {
    1 << 20
}

fn commit_interval_ms() -> NonZeroU32 {
    NonZeroU32::new(1000).expect("not zero")
}

fn prefetch_bytes_max() -> u32 {
    64 << 20
}

/// Where to start without a position.
#[derive(Debug, Clone, Copy, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Start {
    /// At the oldest message.
    #[default]
    Earliest,
    /// After the newest message.
    Latest,
}

/// How a group agrees on who reads what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    /// The members agree among themselves. Works with every broker.
    #[default]
    Classic,
    /// The broker decides (KIP-848). Needs Apache Kafka 4.0; Redpanda does not have it.
    Consumer,
}

/// Which messages of transactions are read.
#[derive(Debug, Clone, Copy, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Isolation {
    /// Those of committed transactions.
    #[default]
    ReadCommitted,
    /// All, also of aborted and open ones.
    ReadUncommitted,
}

/// Properties this input depends on.
const REFUSED: &[Refused] = &[
    ("enable.auto.commit", "positions are committed only behind delivered messages"),
    ("enable.auto.offset.store", "positions are stored only behind delivered messages"),
    ("auto.commit.interval.ms", "write it as `commit_interval_ms`"),
    ("auto.offset.reset", "write it as `start`"),
    ("group.id", "write it as `group`"),
    ("group.instance.id", "write it as `group_instance_id`"),
    ("group.protocol", "write it as `protocol`"),
    ("session.timeout.ms", "write it as `session_timeout_ms`"),
    ("isolation.level", "write it as `isolation`"),
    ("queued.max.messages.kbytes", "write it as `prefetch_bytes_max`"),
    ("enable.partition.eof", "the end of a partition is not an error"),
];

/// Batches that wait for the pipeline at most.
const BATCHES_MAX: usize = 2;
/// As many, when they are ranges of single partitions; their bytes are bounded, too.
const RANGES_MAX: usize = 64;
/// How long brokers have to answer in `connect`.
const CONNECT_TIME: Duration = Duration::from_secs(8);

struct KafkaInput {
    client: ClientConfig,
    /// How to reach the brokers, without what only a member of the group needs.
    connection: ClientConfig,
    brokers: String,
    server: String,
    group: String,
    topics: Vec<String>,
    bounds: Bounds,
    commit_interval: Duration,
    /// Batches are ranges that are recorded before they are handed out.
    cuts: Option<Cuts>,
    live: Option<Live>,
}

/// A running consumer. Dropping it lets the thread end by itself.
struct Live {
    mailbox: Arc<Mailbox>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.mailbox.stop(Instant::now());
    }
}

/// Tells the pipeline that the thread is gone, also when it died of a panic.
struct Ended(Arc<Mailbox>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl KafkaInput {
    fn build(section: &Section) -> Result<Self, Vec<Fault>> {
        let config: Config = decode(section)?;
        let mut faults = config.connection.check(&section.folder, REFUSED);
        let topics: Vec<String> = config.topics.iter().map(str::to_owned).collect();
        if topics.is_empty() || topics.iter().any(String::is_empty) {
            faults.push(
                Fault::new("missing-topic", "topics", "`topics` names no topic, or an empty one")
                    .label("an empty name")
                    .help("write `topics: name` or `topics: [a, b]`"),
            );
        }
        if config.group.trim().is_empty() {
            faults.push(
                Fault::new("missing-group", "group", "`group` is empty")
                    .label("an empty name")
                    .help("the group's name is what Kafka keeps the positions under; one for each pipeline"),
            );
        }
        if config.protocol == Protocol::Consumer && config.session_timeout_ms.is_some() {
            faults.push(
                Fault::new(
                    "conflicting-fields",
                    "session_timeout_ms",
                    "`session_timeout_ms` has no effect with `protocol: consumer`",
                )
                .label("the broker decides it (`group.consumer.session.timeout.ms`)")
                .help("remove it"),
            );
        }
        let ranges = [
            ("session_timeout_ms", config.session_timeout_ms.unwrap_or(45_000), 1000, 3_600_000),
            ("batch_bytes_max", config.batch_bytes_max, 1, 1 << 30),
            ("prefetch_bytes_max", config.prefetch_bytes_max, 1024, 2_000_000_000),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                faults.push(
                    Fault::new("out-of-range", field, format!("`{field}` is {value}"))
                        .label("out of range")
                        .help(format!("write a number from {least} to {most}")),
                );
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            client: config.client(section),
            connection: config.connection.client_config(&section.folder),
            brokers: config.connection.brokers(),
            server: config.connection.server(),
            group: config.group.clone(),
            topics,
            bounds: Bounds {
                messages_max: config.batch_messages_max.get() as usize,
                bytes_max: config.batch_bytes_max as usize,
            },
            commit_interval: Duration::from_millis(u64::from(config.commit_interval_ms.get())),
            cuts: None,
            live: None,
        })
    }

    /// Makes a consumer, checks that brokers answer, joins the group, and starts the thread. Blocks.
    fn open(
        client: &ClientConfig,
        brokers: &str,
        topics: Vec<String>,
        mut reading: Box<dyn Reading + Send>,
        group: Group,
    ) -> Result<(), InputError> {
        let (watch, mailbox, label) = (group.watch.clone(), group.mailbox.clone(), group.label.clone());
        let consumer: BaseConsumer<Group> = client
            .create_with_context(group)
            .map_err(|error| InputError::new(format!("cannot make a Kafka consumer for `{brokers}`"), error))?;
        let missing = trouble::missing_topics(&consumer, &topics, CONNECT_TIME);
        // What librdkafka said meanwhile waits in its queue. Nothing is read before the consumer has subscribed.
        for _ in 0..20 {
            let _ = consumer.poll(Duration::from_millis(1));
        }
        let missing = missing.map_err(|error| {
            let reason = watch.reason(&error.to_string());
            InputError::message(format!(
                "no Kafka broker of `{brokers}` answers: {reason}; check that Kafka runs and `brokers` is right"
            ))
        })?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&names)
            .map_err(|error| InputError::new(format!("cannot subscribe to `{}`", names.join("`, `")), error))?;
        watch.fault("topics", (!missing.is_empty()).then(|| missing.join("; ")));
        watch.arm();
        std::thread::Builder::new()
            .name(format!("kafka-input-{label}"))
            .spawn(move || {
                let _ended = Ended(mailbox);
                consumer::run(consumer, &topics, &mut *reading, !missing.is_empty());
            })
            .map_err(|error| InputError::new("cannot start the consumer's thread", error))?;
        Ok(())
    }
}

impl Config {
    fn client(&self, section: &Section) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            // A topic that is created later is found this soon.
            .set("topic.metadata.refresh.interval.ms", "10000")
            // Once the prefetch buffer was full the default waits a second before it fetches again.
            .set("fetch.queue.backoff.ms", "50");
        if self.protocol == Protocol::Classic {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        for (name, value) in self.connection.client_config(&section.folder).config_map() {
            config.set(name, value);
        }
        // For `renewed`: that a topic was deleted and made again stands in the log alone.
        let debug = config.get("debug").map_or("topic".to_owned(), |own| format!("{own},topic"));
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "true")
            .set("enable.auto.offset.store", "false")
            .set("auto.commit.interval.ms", self.commit_interval_ms.to_string())
            .set("queued.max.messages.kbytes", (self.prefetch_bytes_max / 1024).to_string());
        config.set(
            "auto.offset.reset",
            match self.start {
                Start::Earliest => "earliest",
                Start::Latest => "latest",
            },
        );
        config.set(
            "isolation.level",
            match self.isolation {
                Isolation::ReadCommitted => "read_committed",
                Isolation::ReadUncommitted => "read_uncommitted",
            },
        );
        match self.protocol {
            Protocol::Classic => {
                let timeout = self.session_timeout_ms.unwrap_or(45_000);
                config.set("group.protocol", "classic").set("session.timeout.ms", timeout.to_string());
            }
            Protocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        if let Some(instance) = &self.group_instance_id {
            config.set("group.instance.id", instance);
        }
        config
    }
}

#[async_trait]
impl Input for KafkaInput {
    fn replay(&self) -> Replay {
        Replay::ByOffset
    }

    fn record(&mut self, cuts: Cuts) {
        // Librdkafka would commit positions without the record beside them, and so wipe it out.
        self.client.set("enable.auto.commit", "false");
        self.cuts = Some(cuts);
    }

    fn contact(&self) -> Option<Contact> {
        let topic = |name: &String| match name.starts_with('^') {
            true => client::Topic::Pattern(name.clone()),
            false => client::Topic::Name(name.clone()),
        };
        let topics = self.topics.iter().enumerate().map(|(at, name)| (format!("topics.{at}"), topic(name)));
        Some(Contact {
            server: self.server.clone(),
            topics: topics.collect(),
            group: Some(self.group.clone()),
            ..Contact::default()
        })
    }

    fn probe(&self, limit: Duration) -> Option<Probe> {
        let (topics, group) = (self.topics.clone(), self.group.clone());
        let client_id = self.client.get("client.id").unwrap_or_default().to_owned();
        let probe = kafka::ask(&self.connection, &self.brokers, limit, move |brokers| {
            let mut faults = brokers.advertised()?;
            // A pattern may match nothing for as long as it likes.
            let mut named = Vec::new();
            for (at, topic) in topics.iter().enumerate().filter(|(_, topic)| !topic.starts_with('^')) {
                let found = brokers.topic(&format!("topics.{at}"), topic, kafka::Use::Read)?;
                if !found.iter().any(|fault| fault.code == "absent-topic") {
                    named.push(topic.clone());
                }
                faults.extend(found);
            }
            // How many partitions a pattern stands for is not asked.
            let counted = if named.len() == topics.len() { named } else { Vec::new() };
            faults.extend(brokers.group("group", &group, &client_id, &counted)?);
            Ok(faults)
        });
        Some(probe)
    }

    async fn connect(&mut self, context: &InputContext) -> Result<(), InputError> {
        if self.live.is_some() {
            // Two members of one process would wait for each other's partitions.
            context.metrics.reconnects.inc();
            self.close(Duration::from_secs(10)).await;
        }
        let (books, reading, batches_max): (_, Box<dyn Reading + Send>, _) = match self.cuts {
            None => (Books::Positions(Assignment::default()), Box::new(Free::new(self.bounds)), BATCHES_MAX),
            Some(Cuts { messages_max, bytes_max, linger }) => {
                let bounds = shelf::Bounds { messages_max, bytes_max, linger };
                let reading = Ranged::new(bounds, self.commit_interval);
                (Books::Plans(Ledger::default()), Box::new(reading), RANGES_MAX)
            }
        };
        let mailbox = Arc::new(Mailbox::new(batches_max));
        let watch = Arc::new(Watch::new(self.brokers.clone(), context.health.clone()));
        let group = Group::new(watch, mailbox.clone(), context.metrics.clone(), context.label.clone(), books);
        let (client, brokers, topics) = (self.client.clone(), self.brokers.clone(), self.topics.clone());
        tokio::task::spawn_blocking(move || Self::open(&client, &brokers, topics, reading, group))
            .await
            .map_err(|error| InputError::new(format!("connecting to Kafka at `{}`", self.brokers), error))??;
        self.live = Some(Live { mailbox });
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        let Some(live) = &self.live else { return Err(InputError::message("the input is not connected")) };
        match live.mailbox.next().await {
            Ok((token, batch)) => Ok(Some((batch, Ack::new(live.mailbox.clone(), token)))),
            Err(reason) => Err(InputError::message(format!("reading from Kafka at `{}`: {reason}", self.brokers))),
        }
    }

    async fn close(&mut self, deadline: Duration) {
        let Some(live) = self.live.take() else { return };
        live.mailbox.stop(Instant::now() + deadline);
        if tokio::time::timeout(deadline, live.mailbox.ended()).await.is_err() {
            tracing::warn!(
                brokers = self.brokers,
                "kafka did not confirm the last positions in time, some messages will come again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        let built = KafkaInput::build(&Section::from_yaml(yaml));
        built.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_builds() {
        assert_eq!(faults(SPEC.example), <[String; 0]>::default());
    }

    #[test]
    fn every_fault_is_found() {
        let all = faults(
            "{brokers: 'a:1', topics: '', group: ' ', protocol: consumer, session_timeout_ms: 7, batch_bytes_max: 0, \
             options: {enable.auto.commit: false}}",
        );
        let expected = [
            "`options.enable.auto.commit`:",
            "`topics`:",
            "`group`:",
            "`session_timeout_ms`: `session_timeout_ms` has no effect",
            "`session_timeout_ms`: `session_timeout_ms` is 7",
            "`batch_bytes_max`:",
        ];
        assert_eq!(all.len(), expected.len(), "{all:#?}");
        for (fault, expected) in all.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault}");
        }
    }

    #[test]
    fn an_unknown_field_is_a_fault() {
        let all = faults("{brokers: 'a:1', topics: t, group: g, topic: x}");
        assert!(all[0].contains("topic"), "{all:?}");
    }

    #[test]
    fn librdkafka_takes_the_settings_of_both_protocols() {
        for protocol in ["classic", "consumer"] {
            let yaml = format!("{{brokers: 'a:1', topics: [t], group: g, protocol: {protocol}, group_instance_id: i}}");
            let built = KafkaInput::build(&Section::from_yaml(&yaml)).expect("builds");
            let made: Result<BaseConsumer, _> = built.client.create();
            assert!(made.is_ok(), "{protocol}: {:?}", made.err());
        }
    }
}
