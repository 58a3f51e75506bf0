//! What the broker sends: cut into packets, messages turned into a batch in place.
use std::{hash::BuildHasher, hash::Hasher, sync::Arc};

use bytes::{Buf, BytesMut};
use foldhash::fast::FixedState;

use super::{
    Plan, Retained,
    outage::Count,
    queue::{NOTHING_TO_ACK, Queue},
    window::{Arrival, Window},
};
use crate::{
    client::mqtt::{
        LinkError,
        packet::{self, Frame, Framed, Publish, Version, kind},
        reason,
    },
    message::{Batch, Header, Origin, Source},
    metrics::ComponentMetrics,
};

/// Packet identifier of our one SUBSCRIBE.
pub const SUBSCRIBE_ID: u16 = 1;

/// Most descriptors that are set aside before a read is cut up.
const MESSAGES_EXPECTED_MAX: usize = 4096;

/// Mosquitto tells here how many messages it has dropped.
pub const DROPPED_TOPIC: &str = "$SYS/broker/publish/messages/dropped";

pub struct Receiver {
    plan: Arc<Plan>,
    queue: Arc<Queue>,
    metrics: ComponentMetrics,
    input: Arc<str>,
    pub window: Window,
    version: Version,
    /// The broker has confirmed the subscription.
    confirmed: bool,
    /// What the broker said last of messages it has dropped, until it is asked for.
    dropped: Option<i64>,
    /// All that has come and that the broker would have kept for us, had we been away.
    pub(super) keepable: Count,
    /// Messages of the last read, as a guess for the next.
    expected: usize,
    hasher: FixedState,
}

impl Receiver {
    pub(super) fn new(plan: Arc<Plan>, queue: Arc<Queue>, metrics: ComponentMetrics) -> Self {
        Self {
            plan,
            queue,
            metrics,
            input: "mqtt".into(),
            window: Window::default(),
            version: Version::V5,
            confirmed: false,
            dropped: None,
            keepable: Count::default(),
            expected: 0,
            hasher: FixedState::with_seed(0),
        }
    }

    /// A new connection begins.
    pub fn connected(&mut self, version: Version, session_present: bool) {
        self.version = version;
        self.confirmed = false;
        self.window.connected(session_present);
    }

    /// True once, after the broker has confirmed the subscription.
    pub fn confirmed(&mut self) -> bool {
        std::mem::take(&mut self.confirmed)
    }

    /// What the broker says of messages it has dropped, once.
    pub fn dropped(&mut self) -> Option<i64> {
        self.dropped.take()
    }

    /// Takes every whole packet out of `buffer`: messages go to the queue, answers to `out`. Answers how many bytes the
    /// packet takes that is there only in part.
    ///
    /// # Errors
    /// The connection cannot go on. Messages that came before the error are in the queue all the same: the window
    /// counts them as handed out.
    pub fn take_in(&mut self, buffer: &mut BytesMut, out: &mut BytesMut, now_ms: i64) -> Result<usize, LinkError> {
        let first = self.window.next();
        let mut read = Read { origins: Vec::with_capacity(self.expected), headers: Vec::new(), now_ms };
        let mut at = 0;
        let result = loop {
            match packet::frame(buffer, at, self.plan.packet_bytes_max) {
                Ok(Framed::Partial(need)) => break Ok(need),
                Ok(Framed::Whole(frame)) => {
                    if let Err(error) = self.packet(buffer, &frame, &mut read, out) {
                        break Err(error);
                    }
                    at = frame.body.end;
                }
                Err(malformed) => break Err(self.plan.dial.malformed(malformed)),
            }
        };
        self.expected = read.origins.len().clamp(4, MESSAGES_EXPECTED_MAX);
        if read.origins.is_empty() {
            buffer.advance(at);
        } else {
            let arena = buffer.split_to(at).freeze();
            let mut source = Source::new(self.input.clone(), arena, read.origins, read.headers);
            if let Some(captures) = &self.plan.captures {
                source = source.with_captures(captures.clone());
            }
            let token = self.window.batch(first).unwrap_or(NOTHING_TO_ACK);
            self.queue.push(Batch::new(source), token);
        }
        self.window.put_acks(out);
        result
    }

    fn packet(&mut self, buffer: &[u8], frame: &Frame, read: &mut Read, out: &mut BytesMut) -> Result<(), LinkError> {
        let malformed = |error| self.plan.dial.malformed(error);
        let body = &buffer[frame.body.clone()];
        match frame.kind() {
            kind::PUBLISH => {
                let headers = self.plan.user_properties.then_some(&mut read.headers);
                let before = headers.as_ref().map_or(0, |h| h.len());
                let publish = packet::publish(buffer, frame, self.version, headers).map_err(malformed)?;
                self.message(buffer, &publish, before, read)
            }
            kind::PUBREL => {
                let (id, _) = packet::id_and_reason(body).map_err(malformed)?;
                self.window.release(id, out);
                Ok(())
            }
            kind::SUBACK => self.subscribed(body),
            kind::PINGRESP => Ok(()),
            kind::DISCONNECT => Err(self.plan.dial.disconnected(body)),
            other => Err(malformed(packet::protocol_error(format!("a packet of type {other} that nobody asked for")))),
        }
    }

    fn message(&mut self, buffer: &[u8], p: &Publish, headers: usize, read: &mut Read) -> Result<(), LinkError> {
        let wanted = match self.plan.retained {
            Retained::Include => true,
            Retained::Skip => !p.retain,
            Retained::Only => p.retain,
        } && !self.is_broker_report(buffer, p);
        let mut hand_out = wanted;
        if p.qos > 0 {
            // What comes again was counted before; what is retained is kept anyway.
            if !p.dup && !p.retain {
                self.keepable.messages += 1;
                self.keepable.bytes += p.payload.of(buffer).len() as u64;
            }
            let arrival = Arrival { id: p.id, qos: p.qos, dup: p.dup, hash: self.hash(buffer, p) };
            if wanted {
                hand_out = self.window.receive(arrival);
            } else {
                self.window.skip(arrival);
            }
        }
        if !hand_out {
            read.headers.truncate(headers);
            return Ok(());
        }
        let count = read.headers.len() - headers;
        let too_many = || self.plan.dial.malformed(packet::malformed("more than 65535 user properties in a message"));
        read.origins.push(Origin {
            payload: p.payload,
            topic: p.topic,
            headers: (headers as u32, u16::try_from(count).map_err(|_| too_many())?),
            filter: self.filter_of(buffer, p),
            received_at_ms: read.now_ms,
            qos: p.qos,
            retain: p.retain,
            ..Origin::default()
        });
        Ok(())
    }

    /// Only for messages that may come again: what recognises them then.
    fn hash(&self, buffer: &[u8], p: &Publish) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(p.topic.of(buffer));
        hasher.write(p.payload.of(buffer));
        hasher.finish()
    }

    /// The first topic filter with names that a message matches.
    fn filter_of(&self, buffer: &[u8], p: &Publish) -> u16 {
        if self.plan.captures.is_none() {
            return u16::MAX;
        }
        // The packet reader has checked it.
        let topic = simdutf8::basic::from_utf8(p.topic.of(buffer)).unwrap_or_default();
        let mut filters = self.plan.topics.iter();
        filters.position(|t| !t.filter.captures.is_empty() && t.filter.matches(topic)).map_or(u16::MAX, |i| i as u16)
    }

    /// Takes note when the message is the broker's count of dropped messages and no message for the pipeline.
    fn is_broker_report(&mut self, buffer: &[u8], p: &Publish) -> bool {
        let topic = p.topic.of(buffer);
        if topic.first() != Some(&b'$') || !self.plan.watch_dropped || topic != DROPPED_TOPIC.as_bytes() {
            return false;
        }
        let count = std::str::from_utf8(p.payload.of(buffer)).ok().and_then(|text| text.trim().parse::<i64>().ok());
        if let Some(count) = count {
            self.metrics.broker_dropped.set(count);
            self.dropped = Some(count);
        }
        true
    }

    fn subscribed(&mut self, body: &[u8]) -> Result<(), LinkError> {
        let malformed = |error| self.plan.dial.malformed(error);
        let (id, _) = packet::id_and_reason(body).map_err(malformed)?;
        let reasons = packet::suback_reasons(body, self.version).map_err(malformed)?;
        let asked = self.plan.topics.len() + usize::from(self.plan.watch_dropped);
        if id != SUBSCRIBE_ID || reasons.len() != asked {
            return Err(malformed(packet::protocol_error("a SUBACK that answers another SUBSCRIBE")));
        }
        // The broker's own count comes last and may be refused: it is only for watching.
        let bad: Vec<_> = self
            .plan
            .topics
            .iter()
            .zip(reasons)
            .filter_map(|(topic, &code)| match code {
                0..=2 if code >= topic.qos => None,
                0..=2 => Some(format!(
                    "granted `{}` only with qos {code}: set `qos: {code}` or allow {} in the broker",
                    topic.filter.wire, topic.qos
                )),
                code => Some(format!("refused to subscribe to `{}`: {}", topic.filter.wire, reason::words(code))),
            })
            .collect();
        if !bad.is_empty() {
            return Err(self.plan.dial.unfit(bad.join("; ")));
        }
        self.confirmed = true;
        Ok(())
    }
}

/// What one read of the socket brought.
struct Read {
    origins: Vec<Origin>,
    headers: Vec<Header>,
    now_ms: i64,
}
