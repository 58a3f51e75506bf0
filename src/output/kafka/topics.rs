//! The topics written to: their partitions, looked up when first needed and again when they may have changed.
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    producer::{BaseProducer, Producer as _},
    types::RDKafkaErrorCode,
};

use super::{
    errors, native,
    partitioner::{self, Sticky},
    producer::Reports,
};
use crate::client::kafka::lower_first;

/// Partitions may be added to a topic at any time; keys then move, as with every Kafka client.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A topic that is not there is asked for again after this time.
const MISSING_AGAIN: Duration = Duration::from_secs(1);
/// How long brokers have to say what partitions a topic has.
const LOOK_UP_TIME: Duration = Duration::from_secs(5);
/// Topics remembered. A template can make any number of names; past this bound all are forgotten and looked up again.
const TOPICS_MAX: usize = 4096;

/// What the brokers say about a topic.
#[derive(Debug)]
pub enum LookUp {
    /// It has this many partitions, and these have a leader.
    Ready { count: i32, available: Vec<i32> },
    /// It cannot be written to, and why.
    Unfit(String),
    /// No broker answered in time.
    Silent,
}

/// Asks the brokers about a topic, which creates it when they are set so. Blocks for up to `timeout`.
pub fn look_up(producer: &BaseProducer<Reports>, topic: &str, brokers: &str, timeout: Duration) -> LookUp {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(50);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let Ok(metadata) = producer.client().fetch_metadata(Some(topic), left) else { return LookUp::Silent };
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return LookUp::Silent };
        let Some(error) = found.error() else {
            let partitions = found.partitions();
            return LookUp::Ready {
                count: partitions.len() as i32,
                available: partitions.iter().filter(|p| p.leader() >= 0).map(|p| p.id()).collect(),
            };
        };
        let code = RDKafkaErrorCode::from(error);
        // A topic that is being created just now has no leader for a moment, or is not known to every broker.
        let passing = matches!(code, RDKafkaErrorCode::LeaderNotAvailable | RDKafkaErrorCode::UnknownTopicOrPartition);
        if !passing || pause > Duration::from_millis(800) || Instant::now() + pause > deadline {
            return LookUp::Unfit(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition => errors::missing_topic(topic, brokers),
                _ => errors::retry_reason(code, topic, brokers),
            });
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
}

/// A topic that was asked for.
pub struct Known {
    pub name: Arc<str>,
    pub handle: native::Topic,
    count: i32,
    available: Vec<i32>,
    sticky: Sticky,
    /// Partitions that have confirmed a message of this producer, so that their brokers know it.
    met: HashSet<i32>,
    /// Why nothing can be written to it.
    pub unfit: Option<String>,
    looked_up: Option<Instant>,
    /// `Reports::topics_changed` at that time.
    changes: u32,
}

impl Known {
    /// The partition for a message, once the topic is looked up.
    pub fn partition(&mut self, key: Option<&[u8]>, bytes: usize) -> Option<i32> {
        match key {
            _ if self.count <= 0 => None,
            Some(key) => Some(partitioner::of_key(key, self.count)),
            // With no leader anywhere any partition is as good: librdkafka keeps the messages.
            None => Some(self.sticky.next(&self.available, bytes).unwrap_or(0)),
        }
    }

    /// True once `meet` was called for the partition.
    pub fn has_met(&self, partition: i32) -> bool {
        self.met.contains(&partition)
    }

    /// Notes that the partition's broker knows this producer.
    pub fn meet(&mut self, partition: i32) {
        self.met.insert(partition);
    }

    /// How many partitions.
    pub fn count(&self) -> i32 {
        self.count
    }

    fn is_due(&self, changes: u32, now: Instant) -> bool {
        let Some(at) = self.looked_up else { return true };
        let age = now.saturating_duration_since(at);
        let patience = if self.unfit.is_some() || self.changes != changes { MISSING_AGAIN } else { LOOK_AGAIN };
        age >= patience
    }
}

/// The topics of one producer.
pub struct Topics {
    producer: Arc<BaseProducer<Reports>>,
    brokers: String,
    known: Vec<Known>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Topics {
    /// No topics yet.
    pub fn new(producer: Arc<BaseProducer<Reports>>, brokers: String) -> Self {
        Self { producer, brokers, known: Vec::new(), by_name: HashMap::new() }
    }

    /// Forgets all topics when there are too many. Numbers handed out before are void then.
    pub fn trim(&mut self) {
        if self.known.len() > TOPICS_MAX {
            self.known.clear();
            self.by_name.clear();
        }
    }

    /// The number of a topic. `Err` says why there can be no topic of that name.
    pub fn number(&mut self, name: &[u8]) -> Result<usize, &'static str> {
        if let Some(last) = std::str::from_utf8(name).ok().and_then(|name| self.by_name.get(name)) {
            return Ok(*last);
        }
        if let Some(fault) = errors::topic_fault(name) {
            return Err(fault);
        }
        let name = std::str::from_utf8(name).map_err(|_| "it is not UTF-8")?;
        let handle = native::Topic::new(&self.producer, name).ok_or("librdkafka refuses the name")?;
        let name: Arc<str> = name.into();
        let number = self.known.len();
        self.known.push(Known {
            name: name.clone(),
            handle,
            count: 0,
            available: Vec::new(),
            sticky: Sticky::default(),
            met: HashSet::new(),
            unfit: None,
            looked_up: None,
            changes: 0,
        });
        self.by_name.insert(name, number);
        Ok(number)
    }

    /// A topic by its number.
    pub fn get(&mut self, number: usize) -> &mut Known {
        &mut self.known[number]
    }

    /// Remembers what `connect` has found out already.
    pub fn learn(&mut self, number: usize, found: LookUp) {
        let changes = self.producer.context().topics_changed.load(Ordering::Acquire);
        let topic = &mut self.known[number];
        match found {
            LookUp::Ready { count, available } => {
                topic.count = count;
                topic.available = available;
                topic.unfit = None;
            }
            LookUp::Unfit(reason) => {
                topic.count = 0;
                topic.unfit = Some(reason);
                // When it comes back it may be another one.
                topic.met.clear();
            }
            // What was known stays in use: librdkafka keeps the messages until a broker is back.
            LookUp::Silent if topic.count > 0 => {}
            LookUp::Silent => {
                let last = self.producer.context().reason("no answer in time");
                topic.unfit = Some(format!(
                    "Kafka at `{}` does not say what partitions topic `{}` has: {}; check the brokers",
                    self.brokers,
                    topic.name,
                    lower_first(&last)
                ));
            }
        }
        topic.looked_up = Some(Instant::now());
        topic.changes = changes;
    }

    /// Looks up those of `numbers` that are new, gone or due. Stops at the first silence: the others would only wait
    /// as long.
    pub async fn refresh(&mut self, numbers: impl Iterator<Item = usize>) {
        let changes = self.producer.context().topics_changed.load(Ordering::Acquire);
        let now = Instant::now();
        let due: Vec<usize> = numbers.filter(|&n| self.known[n].is_due(changes, now)).collect();
        let mut silent = false;
        for number in due {
            let found = if silent {
                LookUp::Silent
            } else {
                let (producer, brokers) = (self.producer.clone(), self.brokers.clone());
                let name = self.known[number].name.clone();
                tokio::task::spawn_blocking(move || look_up(&producer, &name, &brokers, LOOK_UP_TIME))
                    .await
                    .unwrap_or(LookUp::Silent)
            };
            silent = matches!(found, LookUp::Silent);
            self.learn(number, found);
        }
    }
}
