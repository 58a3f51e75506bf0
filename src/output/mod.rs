//! Outputs: where messages leave. One file or folder each; `OUTPUTS` lists them.
pub mod clickhouse;
mod drop;
mod file;
mod kafka;
mod lines;
mod mqtt;
mod parcel;
mod parquet;
mod stdout;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

pub use parcel::Parcel;

use crate::{
    client::{Contact, Probe},
    diagnostic::Fault,
    message::MessageRef,
    metrics::{ComponentMetrics, Health},
    script::Template,
    shape::Shape,
    spec::{Section, Spec},
};

/// Every output, sorted by name.
pub static OUTPUTS: &[&Spec<dyn Output>] =
    &[&clickhouse::SPEC, &drop::SPEC, &file::SPEC, &kafka::SPEC, &mqtt::SPEC, &parquet::SPEC, &stdout::SPEC];

/// Makes an output that is a pipeline's archive.
///
/// # Errors
/// What is wrong with its settings, or that it cannot be one.
pub fn build_archive(spec: &Spec<dyn Output>, section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    let mut output = (spec.build)(section)?;
    let faults = output.archive(&section.pipeline).unwrap_or_else(|| {
        let title = format!("`{}` keeps no metadata, so it cannot be an archive", spec.name);
        let all = OUTPUTS.iter().filter(|spec| can_archive(spec));
        let names: Vec<_> = all.map(|spec| format!("`{}`", spec.name)).collect();
        let help = format!("archives are {}; or write to it as one of the `outputs`", names.join(", "));
        vec![Fault::new("no-archive", "", title).label("no archive").help(help)]
    });
    if faults.is_empty() { Ok(output) } else { Err(faults) }
}

/// True for an output that can be a pipeline's archive.
pub fn can_archive(spec: &Spec<dyn Output>) -> bool {
    let example = (spec.build)(&Section::from_yaml(spec.example));
    example.is_ok_and(|mut output| output.archive("").is_some())
}

/// What an output is given to work with.
#[derive(Clone, Debug)]
pub struct OutputContext {
    /// Name of the pipeline.
    pub pipeline: String,
    /// The user's label.
    pub label: String,
    /// Counters. The pipeline counts deliveries and retries itself.
    pub metrics: ComponentMetrics,
    /// What is asked of it about messages that come again after a crash.
    pub once: Once,
    /// The output may report trouble here that no write has met yet, and its end. The pipeline reports what `connect`
    /// and writes answer.
    pub health: Health,
}

/// What is asked of an output about messages that come again after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Once {
    /// They may be written twice.
    #[default]
    No,
    /// Parcels are ranges that were recorded (`Parcel::recorded`): one that comes again leaves its rows once if the
    /// outside world allows it. The output says in the log whether it does.
    IfPossible,
    /// The same, and without that it does not connect.
    Demanded,
}

impl Once {
    /// What follows from `delivery:` and from the parts. `demanded` is true when it asks for exactly once, false when for
    /// less, and none when it is left out; `possible` when all inputs hand out the same ranges again and there is one
    /// output, which recognises what comes again. With several outputs a batch that has to be divided for one of them
    /// would come to the others under other names.
    pub fn of(demanded: Option<bool>, possible: bool) -> Self {
        match demanded {
            Some(true) if possible => Self::Demanded,
            None if possible => Self::IfPossible,
            _ => Self::No,
        }
    }
}

/// How the pipeline gathers messages into one write. A write starts when any bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// Most messages of one write.
    pub messages_max: usize,
    /// Most payload bytes of one write. A single larger message is written alone.
    pub bytes_max: usize,
    /// Longest time the first message waits for company. Zero: what the input brought is written as it comes.
    pub linger: Duration,
    /// Writes that may be waiting for their answer at once.
    pub in_flight_max: usize,
}

impl WriteLimits {
    /// For outputs that batch by themselves or need no batches.
    pub const IMMEDIATE: Self =
        Self { messages_max: 10_000, bytes_max: 16 << 20, linger: Duration::ZERO, in_flight_max: 16 };
}

/// The answer to one write, once it is there. Several may be open at a time.
pub type Delivery = BoxFuture<'static, Result<(), WriteError>>;

/// A place to write messages to.
///
/// Calls come in this order: `connect` until it succeeds, `write` again and again, `close` once. The retry loop, dead
/// letters and acks are the pipeline's; an output only says what became of each message.
#[async_trait]
pub trait Output: Send {
    /// How much to hand over at a time.
    fn limits(&self) -> WriteLimits;

    /// Whether it can tell that a recorded range comes again, and leave its messages once.
    fn recognises(&self) -> bool {
        false
    }

    /// What its settings tell of the outside world.
    fn contact(&self) -> Option<Contact> {
        None
    }

    /// The columns of what it writes to, in their order; none where files do not tell them.
    fn columns(&self) -> Vec<Column> {
        Vec::new()
    }

    /// What of payloads like these it can never write, as far as that is known without asking anybody. Each fault says
    /// that it is one of the payload.
    fn review(&self, _payload: &Shape) -> Vec<Fault> {
        Vec::new()
    }

    /// Asks its server what settings alone cannot tell (`lint --connect`): reads only, and opens nothing that others
    /// would notice. `once` is what is asked of it about messages that come again, `payload` what it is given to write,
    /// `limit` the time for all of it. `None`: there is nothing to ask.
    fn probe(&self, _once: Once, _payload: &Shape, _limit: Duration) -> Option<Probe> {
        None
    }

    /// Opens connections, learns schemas. May be called again after an error.
    ///
    /// # Errors
    /// The outside world does not answer as hoped, or the configuration does not fit it; tried again with back-off.
    async fn connect(&mut self, context: &OutputContext) -> Result<(), OutputError>;

    /// Starts to write `parcel` and returns as soon as the next one may be started. Writes are started in order; the
    /// answers may come in any order. An output that keeps order has the messages of one write before those of the next.
    async fn write(&mut self, parcel: &Parcel) -> Delivery;

    /// Becomes the archive of the pipeline of that name: it writes each message as it was received, with all its metadata.
    /// Called before everything else, at most once. Answers what is wrong with its settings then; `None` when it cannot
    /// keep metadata and so cannot be an archive.
    fn archive(&mut self, _pipeline: &str) -> Option<Vec<Fault>> {
        None
    }

    /// How it would send `message`; for tests and trials, without a connection.
    ///
    /// # Errors
    /// Why it could not: the code and reason of a rejection.
    fn address(&self, message: MessageRef<'_>) -> Result<Addressed, (String, String)> {
        Ok(Addressed::of(message))
    }

    /// Stops. No write is open any more, or the time for that is over. Takes at most `deadline`.
    async fn close(&mut self, deadline: Duration);
}

/// What goes along with a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addressed {
    /// Empty where the output has no topics.
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Addressed {
    /// The message's own key and headers.
    pub fn of(message: MessageRef<'_>) -> Self {
        let headers = message.headers().map(|(name, value)| (name.to_owned(), value.to_vec()));
        Self { topic: String::new(), key: message.key().map(<[u8]>::to_vec), headers: headers.collect() }
    }

    /// The same with the topic that a template gives.
    ///
    /// # Errors
    /// The message lacks a value of the template.
    pub fn to(self, topic: &Template, message: MessageRef<'_>) -> Result<Self, (String, String)> {
        let mut name = Vec::new();
        if !topic.write(message, &mut name) {
            let reason = "the message lacks a value that the output's `topic` needs".to_owned();
            return Err(("missing-topic".to_owned(), reason));
        }
        Ok(Self { topic: String::from_utf8_lossy(&name).into_owned(), ..self })
    }
}

/// A column that rows have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As the table's system writes it: `Nullable(Float32)`.
    pub kind: String,
    /// What it has where a row gives nothing, as its system calls it: `DEFAULT`, `MATERIALIZED`. Empty: what its type
    /// begins with.
    pub default_kind: String,
}

/// Why an output cannot work just now: what was tried, on what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutputError(pub String);

/// What a write did not deliver. Every message of the parcel that is named in neither list is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteError {
    /// Messages that can never be accepted. They become dead letters.
    pub rejected: Vec<Rejection>,
    /// Messages to write again, unchanged, after a pause.
    pub retry: Option<Retry>,
    /// Nothing of a recorded range was written, and it can only be written in smaller pieces: why. What else stands here
    /// besides rejections does not count then.
    pub divide: Option<String>,
}

/// One message that an output can never accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Index in the parcel.
    pub index: u32,
    /// Kebab-case name or the server's code, for example `message-too-large` or `clickhouse-469`.
    pub code: String,
    /// What is wrong with it, for a person; names the column or limit.
    pub reason: String,
}

/// Messages that were not written because of the outside world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// What was tried, on what, and what to do.
    pub reason: String,
    /// Which messages, by index in the parcel, in order.
    pub messages: Pending,
}

/// Which messages of a parcel are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// All that are not rejected.
    All,
    /// These.
    Only(Vec<u32>),
}

impl WriteError {
    /// Nothing is known to be written; try all of it again.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self {
            rejected: Vec::new(),
            retry: Some(Retry { reason: reason.into(), messages: Pending::All }),
            divide: None,
        }
    }

    /// All others are confirmed; these can never be accepted.
    pub fn rejected(rejected: Vec<Rejection>) -> Self {
        Self { rejected, retry: None, divide: None }
    }

    /// `Ok` when nothing is left to do.
    pub fn into_result(self) -> Result<(), Self> {
        if self == Self::default() { Ok(()) } else { Err(self) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        message::{Batch, SourceBuilder},
        metrics::{HealthBoard, Metrics},
    };

    pub(super) fn context() -> OutputContext {
        let metrics = Metrics::new().component("test", "output", "test");
        let health = HealthBoard::default().add("test/output/test", metrics.up.clone());
        OutputContext { pipeline: "test".to_owned(), label: "test".to_owned(), metrics, once: Once::No, health }
    }

    pub(super) fn parcel(payloads: &[&str]) -> Parcel {
        let mut source = SourceBuilder::new("test");
        for payload in payloads {
            source.push(payload.as_bytes(), |_, _| Ok(())).unwrap();
        }
        Parcel::of(Arc::new(Batch::new(source.finish())))
    }

    #[test]
    fn names_are_sorted_and_examples_build() {
        assert!(OUTPUTS.is_sorted_by_key(|spec| spec.name));
        for spec in OUTPUTS {
            assert!((spec.build)(&Section::from_yaml(spec.example)).is_ok(), "{}", spec.name);
        }
    }

    #[test]
    fn an_output_that_keeps_no_metadata_is_no_archive() {
        let built = |name| {
            let spec = OUTPUTS.iter().find(|spec| spec.name == name).unwrap();
            build_archive(spec, &Section::from_yaml(spec.example)).map(drop)
        };
        let faults = built("drop").unwrap_err();
        assert_eq!(faults[0].title, "`drop` keeps no metadata, so it cannot be an archive");
        let help = "archives are `clickhouse`, `kafka`, `parquet`; or write to it as one of the `outputs`";
        assert_eq!(faults[0].help.as_deref(), Some(help));
        assert!(built("parquet").is_ok());
        let faults = built("kafka").unwrap_err();
        assert_eq!(faults[0].title, "`key` does not go together with `archive`", "of its example");
    }
}
