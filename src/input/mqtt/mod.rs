//! Reads messages from an MQTT broker, 5 or 3.1.1.
//!
//! Guarantee: at least once for quality of service 1 and 2. A message is acknowledged to the broker after everything it
//! led to is confirmed, in the order of receipt, and only on the connection it came on; the broker keeps what is not
//! acknowledged in the session of our `client_id` and sends it again. A broken connection alone makes no duplicates of
//! messages that are still on their way; a crash of ours does. Quality of service 0 is best effort.
mod doctor;
mod outage;
mod queue;
mod receive;
mod session;
#[cfg(test)]
mod session_tests;
mod window;

use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use self::{
    queue::{CloseOnDrop, Queue, Settled},
    session::Session,
};
use super::{Input, InputContext, InputError, Replay, TopicNames};
use crate::{
    ack::Ack,
    client::{
        self, Contact, Probe,
        mqtt::{self, Connection, Dial, Hello, Protocol, packet::REMAINING_MAX, topic::Filter},
    },
    diagnostic::Fault,
    message::{Batch, Captures},
    spec::{Section, Spec, decode, schema_of},
};

/// See the head of this file.
pub static SPEC: Spec<dyn Input> = Spec {
    name: "mqtt",
    summary: "Reads messages from an MQTT broker, version 5 or 3.1.1, and acknowledges them after delivery.",
    example: "\
url: mqtt://localhost:1883
client_id: streamer-telemetry
topics: [\"devices/{device}/telemetry\"]
qos: 1
",
    scripts: &[],
    schema: schema_of::<Config>,
    build: |section| Ok(Box::new(MqttInput::new(section)?)),
};

/// Settings of the `mqtt` input.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(flatten)]
    connection: Connection,
    /// Topic filters to subscribe to: one, or a list. `+` stands for one level and `#` for all further ones; a level
    /// `{name}` is a `+` whose value becomes `meta.name`. A filter that was subscribed to under this `client_id` before
    /// and is no longer listed stays subscribed until the session ends: set `clean_start` once to forget it.
    topics: Topics,
    /// Quality of service of filters that set none: 0 may lose messages, 1 delivers at least once, 2 takes two more
    /// packets a message and spares duplicates on the way to us. A broker that grants less is an error.
    #[serde(default = "qos")]
    #[schemars(range(min = 0, max = 2))]
    qos: u8,
    /// How long the broker keeps our session and its messages while we are away, in seconds. After that they are lost.
    /// 0: it keeps nothing. MQTT 3.1.1 only knows 0 and for ever.
    #[serde(default = "session_expiry_s")]
    session_expiry_s: u32,
    /// Forget at the start what the broker has kept for us: messages and old subscriptions. Messages that were not
    /// acknowledged before are lost.
    #[serde(default)]
    clean_start: bool,
    /// Most messages that the broker sends without an acknowledgement (MQTT 5). When they are on their way, it waits.
    #[serde(default = "receive_maximum")]
    receive_maximum: NonZeroU16,
    /// Longest packet accepted, in bytes: topic, properties and payload. MQTT 5 brokers leave out longer messages without
    /// a word; with 3.1.1 the connection is closed, again and again.
    #[serde(default = "packet_bytes_max")]
    #[schemars(range(min = 1024, max = 268_435_455))]
    packet_bytes_max: u32,
    /// Messages that the broker keeps for new subscribers.
    #[serde(default)]
    retained: Retained,
    /// Pause after a small read, in milliseconds, so that more messages come together: it spares much CPU on both sides
    /// and delays no message that comes alone. 0 turns it off.
    #[serde(default = "linger_ms")]
    #[schemars(range(max = 1000))]
    linger_ms: u64,
    /// Most bytes that wait for the pipeline to take them. When reached, nothing is read until it does; pings go on.
    #[serde(default = "buffer_bytes_max")]
    buffer_bytes_max: NonZeroUsize,
    /// Turn the user properties of MQTT 5 into headers. Outputs take longer for messages with headers.
    #[serde(default)]
    user_properties: bool,
    /// Also watch how many messages a Mosquitto broker drops, under `$SYS/broker/publish/messages/dropped`. Off by
    /// default because some brokers hang up on clients that subscribe to what they may not read.
    #[serde(default)]
    watch_dropped: bool,
    /// How long streamer may be away without a loss, in seconds: a restart, a new version, a machine that moves. The
    /// broker must keep meanwhile what comes. It is measured what that takes, and when the broker keeps less, the log
    /// and `/health/ready` say so, with the line to write in the broker's configuration.
    survive_outage_s: Option<NonZeroU32>,
    /// For `survive_outage_s`: most messages that the broker keeps for a client that is away, as its configuration says
    /// (Mosquitto: `max_queued_messages`); brokers do not tell. 0: no limit. By default what Mosquitto keeps when its
    /// configuration says nothing: 1000.
    broker_queued_messages_max: Option<u64>,
    /// For `survive_outage_s`: most bytes of payload that the broker keeps for a client that is away (Mosquitto:
    /// `max_queued_bytes`). 0, or none: no limit.
    broker_queued_bytes_max: Option<u64>,
}

fn qos() -> u8 {
    1
}

fn session_expiry_s() -> u32 {
    7 * 24 * 3600
}

fn receive_maximum() -> NonZeroU16 {
    NonZeroU16::MAX
}

fn packet_bytes_max() -> u32 {
    64 << 20
}

fn linger_ms() -> u64 {
    1
}

fn buffer_bytes_max() -> NonZeroUsize {
    NonZeroUsize::new(64 << 20).expect("64 MiB is not zero")
}

/// One topic filter or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Topics {
    One(String),
    Many(Vec<TopicConfig>),
}

/// A topic filter, with a quality of service of its own if need be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum TopicConfig {
    Plain(String),
    Full(FullTopic),
}

/// A topic filter with a quality of service of its own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FullTopic {
    /// The filter, as in `topics: [filter]`.
    filter: String,
    /// Quality of service of this filter.
    #[schemars(range(min = 0, max = 2))]
    qos: u8,
}

/// Messages that the broker keeps for new subscribers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Retained {
    /// Like any other message, once when the subscription is new.
    #[default]
    Include,
    /// Not wanted: acknowledged and left out.
    Skip,
    /// Only these, at each start. All others are acknowledged and left out.
    Only,
}

/// A topic filter to subscribe to.
#[derive(Debug, Clone)]
struct Topic {
    filter: Filter,
    qos: u8,
    /// The setting that names it.
    field: String,
}

/// The checked settings, as the session needs them.
struct Plan {
    dial: Dial,
    hello: Hello,
    topics: Vec<Topic>,
    /// Names of levels, when any filter has some.
    captures: Option<Arc<Captures>>,
    retained: Retained,
    linger: Duration,
    packet_bytes_max: usize,
    buffer_bytes_max: usize,
    user_properties: bool,
    watch_dropped: bool,
    survive: Option<outage::Wanted>,
}

/// The `mqtt` input.
struct MqttInput {
    plan: Arc<Plan>,
    running: Option<Running>,
}

/// A session that runs. Dropping it stops the session.
struct Running {
    queue: Arc<Queue>,
    settled: Arc<Settled>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _stop_on_drop: DropGuard,
}

impl MqttInput {
    fn new(section: &Section) -> Result<Self, Vec<Fault>> {
        let config: Config = decode(section)?;
        let mut faults = Vec::new();
        let topics = topics(&config, &mut faults);
        let dial = config.connection.dial(&section.folder).map_err(|found| faults.extend(found)).ok();
        if config.session_expiry_s > 0 && config.connection.client_id.is_empty() {
            faults.push(
                Fault::new("missing-field", "client_id", "`client_id` is missing")
                    .label("the broker keeps the session under this name")
                    .help("write a name that is the same at every start and used by nobody else, or `session_expiry_s: 0`"),
            );
        }
        if !(1024..=REMAINING_MAX).contains(&(config.packet_bytes_max as usize)) {
            faults.push(range_fault("packet_bytes_max", config.packet_bytes_max, "from 1024 to 268435455"));
        }
        if config.linger_ms > 1000 {
            faults.push(range_fault("linger_ms", config.linger_ms, "at most 1000"));
        }
        let survive = survive(&config, &topics, &mut faults);
        let Some(dial) = dial.filter(|_| faults.is_empty()) else { return Err(faults) };
        let names: Vec<_> = topics.iter().map(|t| t.filter.captures.clone()).collect();
        let named = names.iter().any(|names| !names.is_empty());
        let plan = Plan {
            dial,
            hello: Hello {
                clean_start: config.clean_start || config.session_expiry_s == 0,
                session_expiry_s: config.session_expiry_s,
                receive_maximum: config.receive_maximum.get(),
                packet_bytes_max: config.packet_bytes_max,
            },
            topics,
            captures: named.then(|| Arc::new(Captures { filters: names })),
            retained: config.retained,
            linger: Duration::from_millis(config.linger_ms),
            packet_bytes_max: config.packet_bytes_max as usize,
            buffer_bytes_max: config.buffer_bytes_max.get(),
            user_properties: config.user_properties,
            watch_dropped: config.watch_dropped,
            survive,
        };
        Ok(Self { plan: Arc::new(plan), running: None })
    }
}

fn range_fault(field: &str, value: impl std::fmt::Display, range: &str) -> Fault {
    Fault::new("invalid-value", field, format!("`{field}` is {value}, but must be {range}")).label(range.to_owned())
}

/// What the user wants to survive, when no other setting makes that impossible.
fn survive(config: &Config, topics: &[Topic], faults: &mut Vec<Fault>) -> Option<outage::Wanted> {
    let Some(seconds) = config.survive_outage_s else {
        let limits = [
            ("broker_queued_messages_max", config.broker_queued_messages_max),
            ("broker_queued_bytes_max", config.broker_queued_bytes_max),
        ];
        for (field, _) in limits.iter().filter(|(_, limit)| limit.is_some()) {
            faults.push(
                Fault::new("contradiction", field, format!("`{field}` without `survive_outage_s`"))
                    .label("compared with nothing")
                    .help("say with `survive_outage_s` how long streamer may be away, or leave this out"),
            );
        }
        return None;
    };
    let mut contradicts = |field: &str, title: String, label: &str, help: String| {
        faults.push(Fault::new("contradiction", field, title).label(label).help(help));
    };
    if config.session_expiry_s < seconds.get() {
        contradicts(
            "session_expiry_s",
            format!("the session ends after {} s, and `survive_outage_s` is {seconds}", config.session_expiry_s),
            "what came meanwhile is lost then",
            format!("write at least {seconds}, or leave it out for 7 days"),
        );
    } else if config.clean_start {
        contradicts(
            "clean_start",
            "`clean_start` forgets what `survive_outage_s` is to save".to_owned(),
            "what came while streamer was away is thrown away at each start",
            "leave `clean_start` out, or `survive_outage_s`".to_owned(),
        );
    }
    if let Some(topic) = topics.iter().find(|topic| topic.qos == 0) {
        contradicts(
            "survive_outage_s",
            format!(
                "`{}` is subscribed to with quality of service 0, and `survive_outage_s` is {seconds}",
                topic.filter.wire
            ),
            "the broker keeps no such messages for a client that is away",
            "write `qos: 1`, or leave `survive_outage_s` out".to_owned(),
        );
    }
    Some(outage::Wanted {
        outage: Duration::from_secs(seconds.get().into()),
        messages_max: config.broker_queued_messages_max.unwrap_or(outage::MOSQUITTO_QUEUED_MESSAGES),
        bytes_max: config.broker_queued_bytes_max.unwrap_or(0),
    })
}

fn topics(config: &Config, faults: &mut Vec<Fault>) -> Vec<Topic> {
    let listed: Vec<(String, &str, u8, String)> = match &config.topics {
        Topics::One(text) => vec![("topics".to_owned(), text.as_str(), config.qos, "qos".to_owned())],
        Topics::Many(list) => list
            .iter()
            .enumerate()
            .map(|(i, topic)| match topic {
                TopicConfig::Plain(text) => (format!("topics.{i}"), text.as_str(), config.qos, "qos".to_owned()),
                TopicConfig::Full(t) => {
                    (format!("topics.{i}.filter"), t.filter.as_str(), t.qos, format!("topics.{i}.qos"))
                }
            })
            .collect(),
    };
    if listed.is_empty() || listed.len() >= usize::from(u16::MAX) {
        faults.push(
            Fault::new("invalid-value", "topics", format!("`topics` lists {} filters", listed.len()))
                .label("between 1 and 65534")
                .help("write at least one topic filter, for example `devices/+/telemetry`"),
        );
    }
    if config.qos > 2 {
        faults.push(range_fault("qos", config.qos, "0, 1 or 2"));
    }
    let mut topics: Vec<Topic> = Vec::with_capacity(listed.len());
    for (field, text, qos, qos_field) in listed {
        if qos > 2 && qos_field != "qos" {
            faults.push(range_fault(&qos_field, qos, "0, 1 or 2"));
        }
        match Filter::parse(text) {
            Err(reason) => faults.push(
                Fault::new("invalid-topic-filter", &field, format!("`{text}` is no topic filter: {reason}"))
                    .label("here")
                    .help("`+` stands for one level, `#` for all further ones, `{name}` for a level with a name"),
            ),
            Ok(filter) if topics.iter().any(|t| t.filter.wire == filter.wire) => faults.push(
                Fault::new("duplicate", &field, format!("`{}` is subscribed to twice", filter.wire))
                    .label("the broker would keep only one of them"),
            ),
            Ok(filter) => topics.push(Topic { filter, qos, field }),
        }
    }
    topics
}

#[async_trait]
impl Input for MqttInput {
    fn topic_names(&self) -> Option<TopicNames> {
        let filters = self.plan.topics.iter().map(|topic| topic.filter.clone()).collect();
        Some(TopicNames { captures: self.plan.captures.clone()?, filters })
    }

    fn replay(&self) -> Replay {
        // A session that is forgotten at the next start keeps nothing for us.
        let kept = self.plan.hello.session_expiry_s > 0 && !self.plan.hello.clean_start;
        let acknowledged = self.plan.topics.iter().all(|topic| topic.qos > 0);
        if kept && acknowledged { Replay::Unacknowledged } else { Replay::Never }
    }

    fn can_spool(&self) -> bool {
        true
    }

    fn contact(&self) -> Option<Contact> {
        let plan = &self.plan;
        // A broker that is not told how many may wait keeps few in flight: Mosquitto 20.
        let window = match plan.dial.protocol {
            _ if plan.topics.iter().all(|topic| topic.qos == 0) => None,
            Protocol::V4 => Some((20, "protocol")),
            Protocol::Auto | Protocol::V5 => Some((plan.hello.receive_maximum.into(), "receive_maximum")),
        };
        let topics = plan.topics.iter().enumerate();
        Some(Contact {
            server: plan.dial.url.clone(),
            topics: topics.map(|(at, t)| (format!("topics.{at}"), client::Topic::Filter(t.filter.clone()))).collect(),
            client_id: Some(plan.dial.client_id.clone()).filter(|id| !id.is_empty()),
            window,
            forgets: match plan.hello {
                Hello { session_expiry_s: 0, .. } => Some("session_expiry_s"),
                Hello { clean_start: true, .. } => Some("clean_start"),
                _ => plan.topics.iter().any(|topic| topic.qos == 0).then_some("qos"),
            },
            ..Contact::default()
        })
    }

    fn probe(&self, limit: Duration) -> Option<Probe> {
        // Who asks for a shared subscription gets messages of the others.
        let topics = self.plan.topics.iter().filter(|topic| !topic.filter.wire.starts_with("$share/"));
        let wanted = topics.map(|topic| mqtt::Wanted {
            filter: topic.filter.wire.clone(),
            qos: topic.qos,
            field: topic.field.clone(),
        });
        Some(mqtt::ask(self.plan.dial.clone(), limit, wanted.collect(), |_| Vec::new()).boxed())
    }

    async fn connect(&mut self, context: &InputContext) -> Result<(), InputError> {
        self.running = None;
        let (first, answer) = oneshot::channel();
        let stop = CancellationToken::new();
        let (queue, settled) = (Queue::new(self.plan.buffer_bytes_max), Arc::new(Settled::default()));
        let shared = (queue.clone(), settled.clone());
        let session = Session::new(self.plan.clone(), context.clone(), shared, stop.clone(), first);
        let close = CloseOnDrop(queue.clone());
        let task = tokio::spawn(async move {
            let _close = close;
            session.run().await;
        });
        // From here on a cancelled `connect` stops the session too.
        let running = Running { queue, settled, _stop_on_drop: stop.clone().drop_guard(), stop, task };
        match answer.await {
            Ok(Ok(())) => {
                self.running = Some(running);
                Ok(())
            }
            Ok(Err(error)) => Err(InputError::message(error.to_string())),
            Err(_) => Err(InputError::message("the mqtt session ended while it was connecting")),
        }
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        let Some(running) = &self.running else { return Err(InputError::message("the mqtt input is not connected")) };
        match running.queue.pop().await {
            Some((batch, token)) => Ok(Some((batch, Ack::new(running.settled.clone(), token)))),
            None => Err(InputError::message("the mqtt session has ended; it is made again")),
        }
    }

    async fn close(&mut self, deadline: Duration) {
        let Some(mut running) = self.running.take() else { return };
        running.stop.cancel();
        if tokio::time::timeout(deadline, &mut running.task).await.is_err() {
            running.task.abort();
            let url = &self.plan.dial.url;
            warn!(url, "the broker did not take the last acknowledgements in time; their messages will come again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        match MqttInput::new(&Section::from_yaml(yaml)) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_example_builds() {
        assert!(faults(SPEC.example).is_empty());
    }

    #[test]
    fn every_fault_is_found_at_its_field() {
        for (yaml, expected) in [
            ("{url: mqtt://h, topics: a}", vec!["`client_id`: `client_id` is missing"]),
            ("{url: mqtt://h, topics: a, session_expiry_s: 0}", vec![]),
            ("{url: mqtt://h, client_id: c, topics: []}", vec!["`topics`: `topics` lists 0 filters"]),
            (
                "{url: mqtt://h, client_id: c, topics: [a/+, {filter: 'b/#/c', qos: 3}, 'a/{x}'], qos: 7, linger_ms: 5000}",
                vec![
                    "`qos`: `qos` is 7, but must be 0, 1 or 2",
                    "`topics.1.qos`: `topics.1.qos` is 3, but must be 0, 1 or 2",
                    "`topics.1.filter`: `b/#/c` is no topic filter: `#` stands for all further levels, so it must be the last one",
                    "`topics.2`: `a/+` is subscribed to twice",
                    "`linger_ms`: `linger_ms` is 5000, but must be at most 1000",
                ],
            ),
            (
                "{url: 'ftp://h', client_id: c, topics: a, packet_bytes_max: 5}",
                vec![
                    "`url`: `ftp://` is no way to an MQTT broker that is known here",
                    "`packet_bytes_max`: `packet_bytes_max` is 5, but must be from 1024 to 268435455",
                ],
            ),
        ] {
            assert_eq!(faults(yaml), expected, "{yaml}");
        }
        let survive = |more: &str| faults(&format!("{{url: mqtt://h, client_id: c, topics: a, {more}}}"));
        assert!(survive("survive_outage_s: 600, broker_queued_messages_max: 100000").is_empty());
        for (more, expected) in [
            (
                "survive_outage_s: 600, session_expiry_s: 300",
                "`session_expiry_s`: the session ends after 300 s, and `survive_outage_s` is 600",
            ),
            (
                "survive_outage_s: 600, clean_start: true",
                "`clean_start`: `clean_start` forgets what `survive_outage_s` is to save",
            ),
            (
                "survive_outage_s: 600, qos: 0",
                "`survive_outage_s`: `a` is subscribed to with quality of service 0, and `survive_outage_s` is 600",
            ),
            (
                "broker_queued_bytes_max: 1",
                "`broker_queued_bytes_max`: `broker_queued_bytes_max` without `survive_outage_s`",
            ),
        ] {
            assert_eq!(survive(more), [expected], "{more}");
        }
        let unknown = faults("{url: mqtt://h, client_id: c, topics: a, topic: b}");
        assert!(unknown[0].contains("unknown field `topic`"), "{unknown:?}");
    }

    #[test]
    fn what_comes_again_after_a_crash_is_inferred() {
        for (more, expected) in [
            ("", Replay::Unacknowledged),
            (", qos: 2", Replay::Unacknowledged),
            (", qos: 0", Replay::Never),
            (", clean_start: true", Replay::Never),
            (", session_expiry_s: 0", Replay::Never),
        ] {
            let yaml = format!("{{url: mqtt://h, client_id: c, topics: a{more}}}");
            assert_eq!(MqttInput::new(&Section::from_yaml(&yaml)).ok().unwrap().replay(), expected, "{more}");
        }
        let mixed = "{url: mqtt://h, client_id: c, topics: [a, {filter: b, qos: 0}]}";
        assert_eq!(MqttInput::new(&Section::from_yaml(mixed)).ok().unwrap().replay(), Replay::Never);
    }
}
