//! `meta.…`: the metadata of a message, by the same names in scripts and templates.
use crate::message::MessageRef;

/// One field of a message's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaField {
    /// `meta.topic`: the topic it was received on.
    Topic,
    /// `meta.levels[n]`: one level of that topic, from 0.
    Level(usize),
    /// `meta.key`: the Kafka key, when it is text.
    Key,
    /// `meta.partition`: the Kafka partition.
    Partition,
    /// `meta.offset`: the Kafka offset, or the line of a file.
    Offset,
    /// `meta.timestamp_ms`: Unix milliseconds by the sender or the broker.
    TimestampMs,
    /// `meta.received_at`: Unix seconds when streamer read it.
    ReceivedAt,
    /// `meta.received_at_ms`: the same in milliseconds.
    ReceivedAtMs,
    /// `meta.qos`: MQTT quality of service.
    Qos,
    /// `meta.retain`: MQTT retain flag.
    Retain,
    /// `meta.part`: which part of a message that was split, from 0.
    Part,
    /// `meta.headers.name` or `meta.headers["name"]`: a header, when it is text.
    Header(String),
    /// `meta.name`: what a `set` step has set, or a topic level named by the input's filter (`devices/{device}/telemetry`).
    Capture(String),
}

impl MetaField {
    /// Reads what follows `meta.`. Any other plain name is a capture.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if let Some(index) = text.strip_prefix("levels[") {
            return index.strip_suffix(']')?.trim().parse().ok().map(Self::Level);
        }
        if let Some(name) = text.strip_prefix("headers[\"") {
            return Some(Self::Header(name.strip_suffix("\"]")?.to_owned()));
        }
        if let Some(name) = text.strip_prefix("headers.") {
            return plain(name).then(|| Self::Header(name.to_owned()));
        }
        (plain(text) && text != "levels" && text != "headers").then(|| Self::named(text))
    }

    /// The field of that name; any that is not known is a capture.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "topic" => Self::Topic,
            "key" => Self::Key,
            "partition" => Self::Partition,
            "offset" => Self::Offset,
            "timestamp_ms" => Self::TimestampMs,
            "received_at" => Self::ReceivedAt,
            "received_at_ms" => Self::ReceivedAtMs,
            "qos" => Self::Qos,
            "retain" => Self::Retain,
            "part" => Self::Part,
            name => Self::Capture(name.to_owned()),
        }
    }

    /// The value; none when the message does not have it.
    pub(super) fn value<'a>(&self, message: MessageRef<'a>) -> Option<MetaValue<'a>> {
        let origin = message.origin();
        match self {
            Self::Topic => Some(message.topic()).filter(|topic| !topic.is_empty()).map(MetaValue::Text),
            Self::Level(n) => {
                let topic = Some(message.topic()).filter(|topic| !topic.is_empty());
                topic.and_then(|topic| topic.split('/').nth(*n)).map(MetaValue::Text)
            }
            Self::Key => message.key().map(MetaValue::of_bytes),
            Self::Partition => (origin.partition >= 0).then(|| MetaValue::Int(origin.partition.into())),
            Self::Offset => (origin.offset >= 0).then_some(MetaValue::Int(origin.offset)),
            Self::TimestampMs => origin.timestamp_ms.map(MetaValue::Int),
            Self::ReceivedAt => Some(MetaValue::Int(origin.received_at_ms.div_euclid(1000))),
            Self::ReceivedAtMs => Some(MetaValue::Int(origin.received_at_ms)),
            Self::Qos => Some(MetaValue::Int(origin.qos.into())),
            Self::Retain => Some(MetaValue::Bool(origin.retain)),
            Self::Part => message.part().map(|part| MetaValue::Int(part.into())),
            Self::Header(name) => {
                message.headers().find(|(n, _)| n == name).map(|(_, value)| MetaValue::of_bytes(value))
            }
            Self::Capture(name) => message.named(name).map(MetaValue::of_bytes),
        }
    }

    /// Appends the value as text. Answers false, and appends nothing, when the message does not have it.
    pub fn write(&self, message: MessageRef<'_>, out: &mut Vec<u8>) -> bool {
        match self.value(message) {
            None => return false,
            Some(MetaValue::Text(text)) => out.extend_from_slice(text.as_bytes()),
            Some(MetaValue::Bytes(bytes)) => out.extend_from_slice(bytes),
            Some(MetaValue::Int(value)) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            Some(MetaValue::Bool(value)) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        }
        true
    }
}

/// What a field of the metadata holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaValue<'a> {
    Text(&'a str),
    /// Not UTF-8: scripts take it for missing.
    Bytes(&'a [u8]),
    Int(i64),
    Bool(bool),
}

impl<'a> MetaValue<'a> {
    fn of_bytes(bytes: &'a [u8]) -> Self {
        simdutf8::basic::from_utf8(bytes).map_or(Self::Bytes(bytes), Self::Text)
    }
}
