//! Publishes each message to an MQTT broker, 5 or 3.1.1.
//!
//! Guarantee: at least once for quality of service 1 and 2: a message is delivered when the broker has confirmed it. What
//! was on its way when a connection broke is sent again. With quality of service 0 a message counts as delivered when it
//! is handed to the socket; what a breaking connection loses then is lost. Messages are sent in order.
mod publisher;
#[cfg(test)]
mod tests;

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::publisher::{Job, Publisher, UNFIT_HEADER, put_headers};
use super::{
    Addressed, Delivery, Once, Output, OutputContext, OutputError, Parcel, Rejection, WriteError, WriteLimits,
};
use crate::{
    client::{
        self, Contact, Probe,
        mqtt::{self, Connection, Dial, Granted, Hello, Protocol, topic::check_topic},
    },
    diagnostic::Fault,
    message::{MessageRef, Span},
    script::Template,
    spec::{Section, Spec, decode, schema_of},
};

/// See the head of this file.
pub static SPEC: Spec<dyn Output> = Spec {
    name: "mqtt",
    summary: "Publishes each message to a topic of an MQTT broker, version 5 or 3.1.1.",
    example: "\
url: mqtt://localhost:1883
topic: \"alerts/{meta.levels[1]}\"
",
    scripts: &[],
    schema: schema_of::<Config>,
    build: |section| Ok(Box::new(MqttOutput::new(section)?)),
};

/// Settings of the `mqtt` output.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(flatten)]
    connection: Connection,
    /// Topic to publish to; `{meta.…}` puts values of the message in. A message that lacks one of the values, or whose
    /// topic would be illegal, is rejected.
    topic: String,
    /// Quality of service: 0 is not confirmed, 1 at least once, 2 with two more packets a message.
    #[serde(default = "qos")]
    #[schemars(range(min = 0, max = 2))]
    qos: u8,
    /// Have the broker keep the last message of each topic for new subscribers.
    #[serde(default)]
    retain: bool,
    /// Send the headers of messages along, as user properties. Needs MQTT 5. A message with a header that is not text is
    /// rejected as `invalid-header`.
    #[serde(default)]
    user_properties: bool,
    /// Most messages sent and not yet confirmed. The broker may ask for fewer, which is then done.
    #[serde(default = "in_flight_max")]
    in_flight_max: NonZeroU16,
}

fn qos() -> u8 {
    1
}

fn in_flight_max() -> NonZeroU16 {
    NonZeroU16::new(1000).expect("1000 is not zero")
}

/// Nothing of the session is kept: what was not confirmed is written again by the pipeline.
const HELLO: Hello = Hello { clean_start: true, session_expiry_s: 0, receive_maximum: 1, packet_bytes_max: 1 << 20 };

/// The checked settings.
struct Plan {
    dial: Dial,
    topic: Template,
    qos: u8,
    retain: bool,
    user_properties: bool,
    in_flight_max: usize,
}

/// The `mqtt` output.
struct MqttOutput {
    plan: Arc<Plan>,
    running: Option<Running>,
}

/// A publisher that runs. Dropping it stops the publisher.
struct Running {
    jobs: mpsc::Sender<Job>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _stop_on_drop: DropGuard,
}

impl MqttOutput {
    fn new(section: &Section) -> Result<Self, Vec<Fault>> {
        let config: Config = decode(section)?;
        let mut faults = Vec::new();
        let dial = config.connection.dial(&section.folder).map_err(|found| faults.extend(found)).ok();
        let topic = Template::parse("topic", &config.topic).map_err(|fault| faults.push(fault)).ok();
        if let Some(constant) = topic.as_ref().and_then(Template::constant)
            && let Err(why) = check_topic(constant.as_bytes())
        {
            faults.push(
                Fault::new("invalid-topic", "topic", format!("`topic` {why}"))
                    .label("cannot be published to")
                    .help("a topic has at least one character, and no `+` or `#`"),
            );
        }
        if config.qos > 2 {
            faults.push(
                Fault::new("invalid-value", "qos", format!("`qos` is {}, but must be 0, 1 or 2", config.qos))
                    .label("0, 1 or 2"),
            );
        }
        if config.user_properties && dial.as_ref().is_some_and(|dial| dial.protocol == Protocol::V4) {
            faults.push(
                Fault::new("conflicting-fields", "user_properties", "MQTT 3.1.1 knows no user properties")
                    .label("cannot be sent with `protocol: 3.1.1`")
                    .help("leave out `protocol`, or write `user_properties: false`"),
            );
        }
        let (Some(dial), Some(topic), true) = (dial, topic, faults.is_empty()) else { return Err(faults) };
        let in_flight_max = config.in_flight_max.get().into();
        let Config { qos, retain, user_properties, .. } = config;
        let plan = Plan { dial, topic, qos, retain, user_properties, in_flight_max };
        Ok(Self { plan: Arc::new(plan), running: None })
    }
}

#[async_trait]
impl Output for MqttOutput {
    fn limits(&self) -> WriteLimits {
        WriteLimits::IMMEDIATE
    }

    fn contact(&self) -> Option<Contact> {
        Some(Contact {
            server: self.plan.dial.url.clone(),
            topics: vec![("topic".to_owned(), client::Topic::of(&self.plan.topic))],
            client_id: Some(self.plan.dial.client_id.clone()).filter(|id| !id.is_empty()),
            ..Contact::default()
        })
    }

    fn probe(&self, _once: Once, limit: Duration) -> Option<Probe> {
        let plan = self.plan.clone();
        let check = move |granted: &Granted| {
            let mut faults = Vec::new();
            let url = &plan.dial.url;
            if granted.qos_max < plan.qos {
                let title = format!("the broker at {url} takes messages with qos {} at most", granted.qos_max);
                let fault = Fault::new("broker-limit", "qos", title).label("more than the broker takes");
                faults.push(fault.help(format!("write `qos: {}`", granted.qos_max)));
            }
            if plan.retain && !granted.retain_available {
                let title = format!("the broker at {url} keeps no retained messages");
                let fault = Fault::new("broker-limit", "retain", title).label("not offered by the broker");
                faults.push(fault.help("write `retain: false`"));
            }
            faults
        };
        Some(mqtt::ask(self.plan.dial.clone(), limit, Vec::new(), check).boxed())
    }

    async fn connect(&mut self, context: &OutputContext) -> Result<(), OutputError> {
        self.running = None;
        let (first, answer) = oneshot::channel();
        // One write waits here while the publisher works on those it took.
        let (jobs, received) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let publisher = Publisher::new(self.plan.clone(), context.clone(), received, stop.clone(), first);
        let task = tokio::spawn(publisher.run());
        // From here on a cancelled `connect` stops the publisher too.
        let running = Running { jobs, _stop_on_drop: stop.clone().drop_guard(), stop, task };
        match answer.await {
            Ok(Ok(())) => {
                self.running = Some(running);
                Ok(())
            }
            Ok(Err(error)) => Err(OutputError(error.to_string())),
            Err(_) => Err(OutputError("the mqtt publisher ended while it was connecting".to_owned())),
        }
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        let ended = || WriteError::retry("the mqtt output is not connected");
        let Some(running) = &self.running else { return std::future::ready(Err(ended())).boxed() };
        let (answer, answered) = oneshot::channel();
        if running.jobs.send(job(&self.plan.topic, parcel, answer)).await.is_err() {
            return std::future::ready(Err(ended())).boxed();
        }
        async move { answered.await.unwrap_or_else(|_| Err(ended())) }.boxed()
    }

    fn address(&self, message: MessageRef<'_>) -> Result<Addressed, (String, String)> {
        let mut addressed = Addressed::default();
        if self.plan.user_properties {
            put_headers(&mut Vec::new(), message).map_err(|reason| (UNFIT_HEADER.to_owned(), reason))?;
            addressed.headers = Addressed::of(message).headers;
        }
        addressed.to(&self.plan.topic, message)
    }

    async fn close(&mut self, deadline: Duration) {
        let Some(mut running) = self.running.take() else { return };
        running.stop.cancel();
        if tokio::time::timeout(deadline, &mut running.task).await.is_err() {
            running.task.abort();
        }
    }
}

/// Writes the topics of all messages and rejects those that have none.
fn job(template: &Template, parcel: &Parcel, answer: oneshot::Sender<Result<(), WriteError>>) -> Job {
    let mut topic_bytes = Vec::new();
    let mut rejected = Vec::new();
    let mut topics = Vec::with_capacity(parcel.len());
    for (index, message) in parcel.iter().enumerate() {
        let start = topic_bytes.len();
        let written = template.write(message, &mut topic_bytes);
        let fault = if written {
            let topic = &topic_bytes[start..];
            check_topic(topic).err().map(|why| {
                let shown = String::from_utf8_lossy(&topic[..topic.len().min(200)]).into_owned();
                ("invalid-topic", format!("its topic `{shown}` {why}"))
            })
        } else {
            Some(("missing-topic", "the message lacks a value that `topic` needs".to_owned()))
        };
        let span = Span::new(start, topic_bytes.len() - start);
        match (fault, span) {
            (None, Ok(span)) => topics.push(Some(span)),
            (fault, _) => {
                let (code, reason) = fault.unwrap_or(("invalid-topic", "topics of 4 GiB in one write".to_owned()));
                topic_bytes.truncate(start);
                rejected.push(Rejection { index: index as u32, code: code.to_owned(), reason });
                topics.push(None);
            }
        }
    }
    Job { parcel: parcel.clone(), topic_bytes, topics, rejected, answer }
}
