//! `meta.…`: the metadata of a message, by the same names in scripts and templates.
use std::io::Write as _;

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
    /// `meta.headers.name` or `meta.headers["name"]`: a header, when it is text.
    Header(String),
    /// `meta.name`: a topic level named by the input's filter (`devices/{device}/telemetry`).
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
        Some(match text {
            "topic" => Self::Topic,
            "key" => Self::Key,
            "partition" => Self::Partition,
            "offset" => Self::Offset,
            "timestamp_ms" => Self::TimestampMs,
            "received_at" => Self::ReceivedAt,
            "received_at_ms" => Self::ReceivedAtMs,
            "qos" => Self::Qos,
            "retain" => Self::Retain,
            name if plain(name) && name != "levels" && name != "headers" => Self::Capture(name.to_owned()),
            _ => return None,
        })
    }

    /// Appends the value as text. Answers false, and appends nothing, when the message does not have it.
    pub fn write(&self, message: MessageRef<'_>, out: &mut Vec<u8>) -> bool {
        let (source, origin) = (message.source(), message.origin());
        let number = |out: &mut Vec<u8>, value: Option<i64>| value.is_some_and(|v| write!(out, "{v}").is_ok());
        let text = |out: &mut Vec<u8>, value: Option<&[u8]>| match value {
            Some(v) => {
                out.extend_from_slice(v);
                true
            }
            None => false,
        };
        match self {
            Self::Topic => text(out, Some(message.topic().as_bytes()).filter(|t| !t.is_empty())),
            Self::Level(n) => text(out, message.topic().split('/').nth(*n).map(str::as_bytes)),
            Self::Key => text(out, message.key()),
            Self::Partition => number(out, (origin.partition >= 0).then_some(origin.partition.into())),
            Self::Offset => number(out, (origin.offset >= 0).then_some(origin.offset)),
            Self::TimestampMs => number(out, origin.timestamp_ms),
            Self::ReceivedAt => number(out, Some(origin.received_at_ms.div_euclid(1000))),
            Self::ReceivedAtMs => number(out, Some(origin.received_at_ms)),
            Self::Qos => number(out, Some(origin.qos.into())),
            Self::Retain => text(out, Some(if origin.retain { b"true" } else { b"false" })),
            Self::Header(name) => text(out, source.headers(origin).find(|(n, _)| n == name).map(|(_, v)| v)),
            Self::Capture(name) => text(out, source.capture(origin, name).map(str::as_bytes)),
        }
    }
}
