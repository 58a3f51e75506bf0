//! What `lint --connect` asks Kafka brokers. The client belongs to no group and asks as a consumer does, so that brokers
//! make no topic because it was asked for.
use std::{
    collections::BTreeSet,
    net::{TcpStream, ToSocketAddrs as _},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    metadata::{Metadata, MetadataTopic},
    types::RDKafkaErrorCode as Code,
};

use super::lower_first;
use crate::{
    client::{Probe, probe},
    diagnostic::Fault,
};

/// First wait for an answer. Each further one is twice as long: between them it is seen whether all brokers are down.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Shortest time that is left for a question, so that a late one still fails by its own words.
const LEAST: Duration = Duration::from_millis(100);

/// Brokers that can be asked.
pub struct Brokers {
    consumer: BaseConsumer<Heard>,
    config: ClientConfig,
    shown: String,
    deadline: Instant,
}

/// What a topic is used for.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    Read,
    /// Messages of up to this size. `keyed` when their keys are chosen on purpose.
    Write {
        bytes_max: u32,
        keyed: bool,
        /// Each of them is to stay, also when another one of its key comes.
        keeps: bool,
    },
}

/// What librdkafka says on the side.
#[derive(Default)]
struct Heard {
    last: Mutex<Option<String>>,
    refused: Mutex<Option<String>>,
    all_down: AtomicBool,
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let plain = || lower_first(reason.split(" (after ").next().unwrap_or(reason));
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => self.all_down.store(true, Ordering::Release),
            Some(Code::Authentication) => *self.refused.lock() = Some(plain()),
            _ => *self.last.lock() = Some(plain()),
        }
    }
}

impl ConsumerContext for Heard {}

/// Asks the brokers that `connection` names, on a thread of its own.
pub fn ask(
    connection: &ClientConfig,
    shown: &str,
    limit: Duration,
    questions: impl FnOnce(&Brokers) -> Result<Vec<Fault>, Fault> + Send + 'static,
) -> Probe {
    let mut config = connection.clone();
    config.remove("group.id").remove("debug").set("statistics.interval.ms", "0");
    config.set("allow.auto.create.topics", "false").set_log_level(RDKafkaLogLevel::Emerg);
    let shown = shown.to_owned();
    Box::pin(async move {
        let deadline = Instant::now() + limit;
        let work = move || {
            let consumer = config.create_with_context(Heard::default()).map_err(|error| {
                probe::unreachable("brokers", &format!("Kafka at `{shown}`"), &lower_first(&error.to_string()))
            })?;
            questions(&Brokers { consumer, config, shown, deadline })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer.unwrap_or_else(|fault| vec![fault]),
            Err(error) => vec![probe::not_checked("brokers", "Kafka", &error.to_string())],
        }
    })
}

impl Brokers {
    /// Whether the addresses that the brokers give out can be reached from here, too: clients go on to those.
    ///
    /// # Errors
    /// No broker answers at all.
    pub fn advertised(&self) -> Result<Vec<Fault>, Fault> {
        let metadata = self.metadata(None)?;
        let mut faults = Vec::new();
        for broker in metadata.brokers() {
            let address = format!("{}:{}", broker.host(), broker.port());
            if let Err(reason) = knock(&address, self.left()) {
                let title = format!(
                    "Kafka at `{}` answers, but sends clients on to broker {} at `{address}`, which cannot be reached: {reason}",
                    self.shown,
                    broker.id()
                );
                faults.push(
                    Fault::new("unreachable-server", "brokers", title)
                        .label("answers, and gives out an address that does not")
                        .help("set the broker's `advertised.listeners` to an address that this machine can reach"),
                );
            }
        }
        Ok(faults)
    }

    /// What speaks against using `topic`, which stands in `field`.
    ///
    /// # Errors
    /// No broker answers.
    pub fn topic(&self, field: &str, topic: &str, used: Use) -> Result<Vec<Fault>, Fault> {
        let metadata = self.metadata(Some(topic))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.and_then(MetadataTopic::error).map(Code::from) {
            None | Some(Code::LeaderNotAvailable) => {}
            Some(Code::UnknownTopicOrPartition) => {
                return Ok(self.absent(field, topic, used, metadata.orig_broker_id()));
            }
            Some(Code::TopicAuthorizationFailed) => {
                let title = format!("topic `{topic}` may not be seen by this user of Kafka at `{}`", self.shown);
                let needed = if matches!(used, Use::Read) { "READ" } else { "WRITE" };
                let fault = Fault::new("missing-right", field, title).label("no right to it");
                return Ok(vec![fault.help(format!("grant this user {needed} and DESCRIBE on the topic"))]);
            }
            Some(other) => {
                return Ok(vec![probe::not_checked(field, &format!("topic `{topic}`"), &other.to_string())]);
            }
        }
        let Some(found) = found else { return Ok(Vec::new()) };
        // Not every user may read settings: what is not known is no fault.
        let settings = self.settings(ResourceSpecifier::Topic(topic));
        let mut faults: Vec<Fault> = self.unavailable(field, found, used, settings.as_ref()).into_iter().collect();
        if let Use::Write { bytes_max, keyed, keeps } = used {
            let limit = number(settings.as_ref(), "max.message.bytes");
            faults.extend(too_large(topic, bytes_max, limit));
            if keyed && found.partitions().len() == 1 {
                let title = format!("topic `{topic}` has one partition, so its keys do not spread the work");
                let fault = Fault::new("one-partition", "key", title).label("all keys go to one partition");
                let help = "one member of a group reads it at a time; for more, create it with more partitions: adding them later \
                            moves keys to others";
                faults.push(fault.help(help).into_note());
            }
            let policy = settings.as_ref().and_then(|found| found.get("cleanup.policy")?.value.as_deref());
            if keeps && policy.is_some_and(|policy| policy.contains("compact")) {
                let title =
                    format!("topic `{topic}` is compacted: of messages with the same key only the last one stays");
                let fault = Fault::new("compacted-topic", field, title).label("is to keep every message");
                faults.push(fault.help("set `cleanup.policy=delete` on the topic, or write to another one"));
            }
        }
        Ok(faults)
    }

    /// Who is in `group` at present, which stands in `field` and reads `topics`. `client_id` is the name that members of
    /// ours go by.
    ///
    /// # Errors
    /// No broker answers.
    pub fn group(&self, field: &str, group: &str, client_id: &str, topics: &[String]) -> Result<Vec<Fault>, Fault> {
        // Not every user may see groups: what is not known is no fault.
        let Ok(found) = self.consumer.fetch_group_list(Some(group), self.left()) else { return Ok(Vec::new()) };
        let Some(found) = found.groups().iter().find(|found| found.name() == group) else { return Ok(Vec::new()) };
        let members = found.members();
        let others: BTreeSet<String> = members
            .iter()
            .filter(|member| member.client_id() != client_id)
            .map(|member| format!("`{}` at {}", member.client_id(), member.client_host().trim_start_matches('/')))
            .collect();
        let mut faults = Vec::new();
        if !others.is_empty() {
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            let title = format!("group `{group}` has members that are not of this input: {others}");
            let fault = Fault::new("foreign-member", field, title).label("shared with others at present");
            let help = "each member gets only a part of the messages; give the input a group of its own, or a `client_id` like theirs if they are its instances";
            faults.push(fault.help(help).into_warning());
        }
        let mut partitions = 0;
        for topic in topics {
            let metadata = self.metadata(Some(topic))?;
            partitions += metadata.topics().iter().map(|topic| topic.partitions().len()).sum::<usize>();
        }
        if partitions > 0 && members.len() > partitions {
            let title = format!(
                "group `{group}` has {} members for {partitions} partition(s), so that some have nothing to read",
                members.len()
            );
            let fault = Fault::new("idle-member", field, title).label("more members than partitions at present");
            let help = "they stand by until others leave; for more to work at once, give the topics more partitions";
            faults.push(fault.help(help).into_note());
        }
        Ok(faults)
    }

    /// The topic is not there.
    fn absent(&self, field: &str, topic: &str, used: Use, broker: i32) -> Vec<Fault> {
        let settings = self.settings(ResourceSpecifier::Broker(broker));
        let setting =
            |name: &str| settings.as_ref().and_then(|found| found.get(name)).and_then(|found| found.value.clone());
        let first = self.shown.split(',').next().unwrap_or(&self.shown);
        let create = format!("`kafka-topics.sh --bootstrap-server {first} --create --topic {topic}`");
        let fault = |title: String| Fault::new("absent-topic", field, title).label("no such topic");
        let missing = format!("topic `{topic}` does not exist on Kafka at `{}`", self.shown);
        let mut faults = Vec::new();
        if let (Some("true"), Use::Write { bytes_max, .. }) = (setting("auto.create.topics.enable").as_deref(), used) {
            faults.extend(too_large(topic, bytes_max, number(settings.as_ref(), "message.max.bytes")));
        }
        faults.push(match (setting("auto.create.topics.enable").as_deref(), used) {
            (Some("true"), Use::Write { .. }) => {
                let count = setting("num.partitions").map(|count| format!(", with {count} partition(s)"));
                fault(format!("{missing}; the first message creates it{}", count.unwrap_or_default()))
                    .help(format!("for another number of partitions create it beforehand: {create}"))
                    .into_note()
            }
            (Some("true"), Use::Read) => fault(missing)
                .help(format!("there is nothing to read until somebody writes to it; or create it: {create}"))
                .into_warning(),
            (Some(_), _) => fault(format!("{missing}, and the brokers do not create topics by themselves"))
                .help(format!("create it: {create}")),
            (None, _) => fault(missing).help(format!("create it: {create}")),
        });
        faults
    }

    /// Partitions that cannot be used at present.
    fn unavailable(
        &self,
        field: &str,
        topic: &MetadataTopic,
        used: Use,
        settings: Option<&ConfigResource>,
    ) -> Option<Fault> {
        let partitions = topic.partitions();
        let count = partitions.len();
        let leaderless = partitions.iter().filter(|partition| partition.leader() < 0).count();
        if leaderless > 0 {
            let title = format!("{leaderless} of {count} partition(s) of topic `{}` have no leader", topic.name());
            let fault = Fault::new("topic-unavailable", field, title).label("not complete at present");
            return Some(fault.help("start the brokers that hold these partitions").into_warning());
        }
        let needed = number(settings, "min.insync.replicas").filter(|_| matches!(used, Use::Write { .. }))?;
        let thin = partitions.iter().filter(|partition| (partition.isr().len() as u64) < needed).count();
        (thin > 0).then(|| {
            let title = format!(
                "{thin} of {count} partition(s) of topic `{}` have fewer than {needed} replicas in sync, so that nothing can be written there",
                topic.name()
            );
            Fault::new("topic-unavailable", field, title)
                .label("takes no messages at present")
                .help("start the missing brokers, or lower `min.insync.replicas` of the topic")
        })
    }

    /// The settings of a topic or broker; none when this user may not see them.
    fn settings(&self, of: ResourceSpecifier<'_>) -> Option<ConfigResource> {
        let admin: AdminClient<Heard> = self.config.create_with_context(Heard::default()).ok()?;
        let options = AdminOptions::new().request_timeout(Some(self.left()));
        let asked = admin.describe_configs([&of], &options);
        tokio::runtime::Handle::current().block_on(asked).ok()?.into_iter().next()?.ok()
    }

    /// What the brokers say of one topic, or of all of them.
    fn metadata(&self, topic: Option<&str>) -> Result<Metadata, Fault> {
        let mut wait = FIRST_WAIT;
        loop {
            let asked = self.consumer.fetch_metadata(topic, wait.min(self.left()));
            if let Ok(metadata) = asked {
                return Ok(metadata);
            }
            // What librdkafka has heard meanwhile waits in its queue.
            while self.consumer.poll(Duration::from_millis(1)).is_some() {}
            let heard = self.consumer.context();
            let what = format!("Kafka at `{}`", self.shown);
            if let Some(reason) = heard.refused.lock().as_deref() {
                let fault = probe::refused_sign_in("sasl.password", &what, reason);
                return Err(fault.help("check `mechanism`, `username` and `password` under `sasl`"));
            }
            if heard.all_down.load(Ordering::Acquire) || self.left() <= LEAST {
                let reason = heard.last.lock().clone();
                let reason = reason.unwrap_or_else(|| "no answer in time".to_owned());
                return Err(probe::unreachable("brokers", &what, &reason));
            }
            wait *= 2;
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(LEAST)
    }
}

/// Messages that an output writes and a topic does not take.
fn too_large(topic: &str, bytes_max: u32, limit: Option<u64>) -> Option<Fault> {
    let limit = limit.filter(|limit| u64::from(bytes_max) > *limit)?;
    let title = format!("topic `{topic}` takes messages of up to {limit} bytes, this output writes up to {bytes_max}");
    let help = format!(
        "what is larger becomes a dead letter; write `message_bytes_max: {limit}`, or raise `max.message.bytes` of the topic"
    );
    let fault = Fault::new("message-limit", "message_bytes_max", title).label("more than the topic takes");
    Some(fault.help(help).into_warning())
}

fn number(settings: Option<&ConfigResource>, name: &str) -> Option<u64> {
    settings?.get(name)?.value.as_deref()?.parse().ok()
}

/// Opens a connection and closes it.
fn knock(address: &str, limit: Duration) -> Result<(), String> {
    let mut reason = "the name stands for no address".to_owned();
    for found in address.to_socket_addrs().map_err(|error| error.to_string())? {
        match TcpStream::connect_timeout(&found, limit) {
            Ok(_) => return Ok(()),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}
