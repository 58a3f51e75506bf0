//! A message as it was received, in an archive's topic: payload, key and headers are its own, and before its headers stand
//! others with all that Kafka has no place for. The first is the version, the last the kind of input; what follows is the
//! message's own, whatever its name.
//!
//! The topic's own timestamps say when a message was archived: brokers remove messages by them, and refuse those far from
//! their clock.
use std::io::Write as _;

use rdkafka::message::{Header, OwnedHeaders};

use crate::message::MessageRef;

/// Version of these headers, as in the archive's files.
const VERSION: &[u8] = b"1";

/// The headers that say how `message` was received by `pipeline`, with room for `more` of its own.
pub fn headers(pipeline: &str, message: MessageRef<'_>, more: usize) -> OwnedHeaders {
    let origin = message.origin();
    let text = |all: OwnedHeaders, key, value: &[u8]| all.insert(Header { key, value: Some(value) });
    let number = |all, key, value: Option<i64>| match value {
        Some(value) => text(all, key, Digits::of(value).as_bytes()),
        None => all,
    };
    let at_least_0 = |number: i64| (number >= 0).then_some(number);
    let all = OwnedHeaders::new_with_capacity(10 + more);
    let all = text(all, "streamer.archive", VERSION);
    let all = text(all, "streamer.pipeline", pipeline.as_bytes());
    let all = text(all, "streamer.topic", message.topic().as_bytes());
    let all = number(all, "streamer.partition", at_least_0(origin.partition.into()));
    let all = number(all, "streamer.offset", at_least_0(origin.offset));
    let all = number(all, "streamer.timestamp", origin.timestamp_ms);
    let all = number(all, "streamer.received_at", Some(origin.received_at_ms));
    let all = number(all, "streamer.qos", Some(origin.qos.into()));
    let all = number(all, "streamer.retain", Some(origin.retain.into()));
    text(all, "streamer.input", message.source().input().as_bytes())
}

/// A number in decimal, without an allocation.
struct Digits {
    bytes: [u8; 20],
    len: usize,
}

impl Digits {
    fn of(number: i64) -> Self {
        let mut bytes = [0; 20];
        let mut rest = &mut bytes[..];
        write!(rest, "{number}").expect("20 bytes hold every i64");
        let len = 20 - rest.len();
        Self { bytes, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::message::{Batch, SourceBuilder};

    #[test]
    fn metadata_stands_before_the_messages_own_headers_and_what_is_missing_is_left_out() {
        let mut source = SourceBuilder::new("kafka");
        source
            .push(b"", |origin, parts| {
                origin.topic = parts.text("a/°")?;
                (origin.partition, origin.offset) = (0, i64::MAX);
                (origin.timestamp_ms, origin.received_at_ms) = (Some(i64::MIN), 5);
                (origin.qos, origin.retain) = (2, true);
                Ok(())
            })
            .unwrap();
        source.push(b"", |_, _| Ok(())).unwrap();
        let batch = Batch::new(source.finish());
        let shown = |index| {
            let headers = headers("p", batch.get(index), 0);
            let text = |header: Header<'_, &[u8]>| {
                format!("{}={}", header.key, String::from_utf8_lossy(header.value.unwrap()))
            };
            headers.iter().map(text).collect::<Vec<_>>().join(" ").replace("streamer.", "")
        };
        assert_eq!(
            shown(0),
            "archive=1 pipeline=p topic=a/° partition=0 offset=9223372036854775807 timestamp=-9223372036854775808 \
             received_at=5 qos=2 retain=1 input=kafka"
        );
        assert_eq!(shown(1), "archive=1 pipeline=p topic= received_at=0 qos=0 retain=0 input=kafka");
    }
}
