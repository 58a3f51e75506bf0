//! What lies in the topics of a `kafka` input, read beside its group: nobody joins it, nothing is committed, and nobody's
//! reading changes. Messages become the same batches that the input makes of them.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{Config, assignment::Place, draft};
use crate::{
    client::kafka::{Quiet, find_topic, lower_first},
    message::{Batch, SourceBuilder},
    spec::{Section, decode},
};

/// Longest wait for an answer, and longest time without any progress.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long brokers have to answer at first.
const CONNECT_TIME: Duration = Duration::from_secs(8);
const BATCH_MESSAGES_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// One partition, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub topic: String,
    pub partition: i32,
    /// Offset of the oldest message that is still there.
    pub low: i64,
    /// Where the next message will come.
    pub end: i64,
}

/// The messages of a `kafka` input's topics.
pub struct Past {
    consumer: BaseConsumer<Quiet>,
    brokers: String,
    group: String,
    topics: Vec<String>,
    /// What is still to be read, topic by topic: the end of a partition is reported without its topic.
    ahead: Vec<Stretch>,
    /// Partitions being read, and where their reading ends.
    open: BTreeMap<i32, i64>,
    topic: String,
    progress: Instant,
}

impl Past {
    /// Makes a client from the settings of a `kafka` input. Nothing is connected yet.
    ///
    /// # Errors
    /// The settings cannot be read, or name topics by a pattern.
    pub fn of(section: &Section) -> Result<Self, String> {
        let config: Config =
            decode(section).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let topics: Vec<String> = config.topics.iter().map(str::to_owned).collect();
        if let Some(pattern) = topics.iter().find(|topic| topic.starts_with('^')) {
            return Err(format!("the topics `{pattern}` are a pattern; only topics that are named can be compared"));
        }
        let brokers = config.connection.brokers();
        let mut client = config.client(section);
        for of_members in ["debug", "group.instance.id", "group.protocol", "session.timeout.ms"] {
            client.remove(of_members);
        }
        client
            .set_log_level(RDKafkaLogLevel::Info)
            .set("statistics.interval.ms", "0")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest");
        let consumer = client
            .create_with_context(Quiet::default())
            .map_err(|error| format!("cannot make a Kafka consumer for `{brokers}`: {error}"))?;
        Ok(Self {
            consumer,
            brokers,
            group: config.group,
            topics,
            ahead: Vec::new(),
            open: BTreeMap::new(),
            topic: String::new(),
            progress: Instant::now(),
        })
    }

    /// As it is named in texts.
    pub fn shown(&self) -> String {
        let (topics, plural) = (self.topics.join("`, `"), if self.topics.len() == 1 { "" } else { "s" });
        format!("topic{plural} `{topics}` at `{}`", self.brokers)
    }

    /// The group whose positions count.
    pub fn group(&self) -> &str {
        &self.group
    }

    fn failed(&self, tried: &str, error: &KafkaError) -> String {
        format!("cannot {tried} {}: {}", self.shown(), lower_first(&error.to_string()))
    }

    /// The group's positions: every message below them has been delivered, dead-lettered or filtered. Partitions without
    /// one are left out. Blocks.
    ///
    /// # Errors
    /// What was tried on which brokers, and what they said.
    pub fn positions(&self) -> Result<BTreeMap<Place, i64>, String> {
        let mut wanted = TopicPartitionList::new();
        for topic in &self.topics {
            for partition in self.partitions(topic)? {
                wanted.add_partition(topic, partition);
            }
        }
        let found = self
            .consumer
            .committed_offsets(wanted, PATIENCE)
            .map_err(|error| self.failed(&format!("ask the positions of group `{}` in", self.group), &error))?;
        let known = found.elements();
        let known = known.iter().filter_map(|element| match element.offset() {
            Offset::Offset(at) => Some(((element.topic().to_owned(), element.partition()), at)),
            _ => None,
        });
        Ok(known.collect())
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>, String> {
        let metadata = find_topic(&self.consumer, &self.brokers, topic, CONNECT_TIME)?;
        let found: Vec<i32> =
            metadata.topics().first().map_or(&[][..], |topic| topic.partitions()).iter().map(|p| p.id()).collect();
        if found.is_empty() {
            return Err(format!("there is no topic `{topic}` at `{}`; check `topics` and `brokers`", self.brokers));
        }
        Ok(found)
    }

    /// Looks where the partitions begin and end now; `next` reads up to there. Blocks.
    ///
    /// # Errors
    /// What was tried on which brokers, and what they said.
    pub fn begin(&mut self) -> Result<Vec<Stretch>, String> {
        let mut all = Vec::new();
        for topic in &self.topics {
            for partition in self.partitions(topic)? {
                let (low, end) = self
                    .consumer
                    .fetch_watermarks(topic, partition, PATIENCE)
                    .map_err(|error| self.failed("read", &error))?;
                all.push(Stretch { topic: topic.clone(), partition, low, end });
            }
        }
        self.ahead = all.iter().filter(|stretch| stretch.low < stretch.end).cloned().collect();
        self.open.clear();
        Ok(all)
    }

    /// The next messages; `None` when all were read. Blocks.
    ///
    /// # Errors
    /// The brokers do not give them, and why.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, String> {
        let mut source = SourceBuilder::new("kafka");
        loop {
            if self.open.is_empty() {
                let Some(first) = self.ahead.first() else { break };
                let topic = first.topic.clone();
                let (these, others) = std::mem::take(&mut self.ahead).into_iter().partition(|s| s.topic == topic);
                self.ahead = others;
                self.assign(these)?;
            }
            if source.len() >= BATCH_MESSAGES_MAX || source.bytes() >= BATCH_BYTES_MAX {
                break;
            }
            self.poll(&mut source)?;
        }
        Ok((!source.is_empty()).then(|| Batch::new(source.finish())))
    }

    /// One message, alone in its batch; `None` when it is gone. Blocks.
    ///
    /// # Errors
    /// The brokers do not give it, and why.
    pub fn one(&mut self, place: &Place, offset: i64) -> Result<Option<Batch>, String> {
        let (topic, partition) = place.clone();
        self.assign(vec![Stretch { topic, partition, low: offset, end: offset + 1 }])?;
        let mut source = SourceBuilder::new("kafka");
        while !self.open.is_empty() {
            self.poll(&mut source)?;
        }
        Ok((!source.is_empty()).then(|| Batch::new(source.finish())))
    }

    fn assign(&mut self, stretches: Vec<Stretch>) -> Result<(), String> {
        let mut assignment = TopicPartitionList::new();
        self.open.clear();
        for Stretch { topic, partition, low, end } in stretches {
            let added = assignment.add_partition_offset(&topic, partition, Offset::Offset(low));
            added.map_err(|error| self.failed("read", &error))?;
            self.open.insert(partition, end);
            self.topic = topic;
        }
        self.progress = Instant::now();
        self.consumer.assign(&assignment).map_err(|error| self.failed("read", &error))
    }

    fn poll(&mut self, source: &mut SourceBuilder) -> Result<(), String> {
        match self.consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let Some(end) = self.open.get(&partition).copied().filter(|_| message.topic() == self.topic) else {
                    return Ok(());
                };
                if offset < end {
                    let now = jiff::Timestamp::now().as_millisecond();
                    draft::copy(source, &message, now).map_err(|error| error.to_string())?;
                }
                if offset + 1 >= end {
                    self.open.remove(&partition);
                }
                self.progress = Instant::now();
            }
            // The end of a partition: what is left of it are a transaction's marks, or one that is still open.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.open.remove(&partition);
                self.progress = Instant::now();
            }
            Some(Err(error)) => {
                // Brokers that are away come back, or the patience ends.
                let is_passing = matches!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
                );
                if !is_passing || self.progress.elapsed() > PATIENCE {
                    return Err(self.failed("read", &error));
                }
            }
            None if self.progress.elapsed() > PATIENCE => {
                return Err(format!("cannot read {}: nothing came for {} s", self.shown(), PATIENCE.as_secs()));
            }
            None => {}
        }
        Ok(())
    }
}
