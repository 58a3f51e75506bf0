//! Packets on the wire, MQTT 5 and 3.1.1. Message packets are cut and written here, in place and without allocation;
//! for the rare ones (CONNECT, SUBSCRIBE, …) see `link`, which uses the codec of `rumqttc`.
use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::message::{Header, Span};

/// Longest packet that the protocol can express, in bytes after the fixed header.
pub const REMAINING_MAX: usize = 268_435_455;

/// Which edition of the protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

impl Version {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// Packet types: the upper half of the first byte.
pub mod kind {
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBACK: u8 = 9;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
}

/// What the other side did against the protocol. `reason` is the MQTT 5 code to disconnect with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Malformed {
    pub reason: u8,
    pub text: String,
}

/// A packet that does not follow the protocol (MQTT 5, 4.13).
pub fn malformed(text: impl Into<String>) -> Malformed {
    Malformed { reason: 0x81, text: text.into() }
}

/// A packet that should not have been sent.
pub fn protocol_error(text: impl Into<String>) -> Malformed {
    Malformed { reason: 0x82, text: text.into() }
}

/// One packet in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Packet type and flags.
    pub header: u8,
    /// All after the fixed header. Its end is the end of the packet.
    pub body: Range<usize>,
}

impl Frame {
    /// One of `kind`.
    pub fn kind(&self) -> u8 {
        self.header >> 4
    }
}

/// What stands at a place of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framed {
    Whole(Frame),
    /// The packet is not all there: it takes this many bytes, as far as that is known.
    Partial(usize),
}

/// Cuts the packet that starts at `at`. Packets longer than `packet_bytes_max` are refused as soon as their length is
/// known, before they are all there.
///
/// # Errors
/// The length is malformed or too large.
pub fn frame(buffer: &[u8], at: usize, packet_bytes_max: usize) -> Result<Framed, Malformed> {
    let rest = &buffer[at..];
    if rest.len() < 2 {
        return Ok(Framed::Partial(2));
    }
    let Some((len, len_bytes)) = varint(&rest[1..])? else { return Ok(Framed::Partial(rest.len() + 1)) };
    let total = 1 + len_bytes + len;
    if total > packet_bytes_max {
        let text = format!("the broker sent a packet of {total} bytes, `packet_bytes_max` is {packet_bytes_max}");
        return Err(Malformed { reason: 0x95, text });
    }
    if rest.len() < total {
        return Ok(Framed::Partial(total));
    }
    Ok(Framed::Whole(Frame { header: rest[0], body: at + 1 + len_bytes..at + total }))
}

/// A variable byte integer and its own length. `None` when more bytes are needed.
fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(malformed("a length of more than four bytes")) }
}

/// A PUBLISH packet: where its parts lie in the buffer it was cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: Span,
    pub payload: Span,
    /// Packet identifier; 0 for quality of service 0.
    pub id: u16,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
}

/// Reads a PUBLISH packet. The user properties of MQTT 5 are appended to `headers` when it is given.
///
/// # Errors
/// The packet breaks the protocol; nothing after it can be trusted.
pub fn publish(
    buffer: &[u8],
    frame: &Frame,
    version: Version,
    headers: Option<&mut Vec<Header>>,
) -> Result<Publish, Malformed> {
    let mut parts = Parts { buffer, at: frame.body.start, end: frame.body.end };
    let qos = (frame.header >> 1) & 3;
    if qos == 3 {
        return Err(malformed("a message with quality of service 3"));
    }
    let topic = parts.text()?;
    // No alias was ever offered, so an empty topic means nothing in either version.
    super::topic::check_topic(topic.of(buffer))
        .map_err(|why| Malformed { reason: 0x90, text: format!("a message whose topic {why}") })?;
    let id = if qos > 0 { parts.u16()? } else { 0 };
    if qos > 0 && id == 0 {
        return Err(protocol_error("a message with packet identifier 0"));
    }
    if version == Version::V5 {
        parts.properties(headers)?;
    }
    let payload = span(parts.at, parts.end - parts.at)?;
    Ok(Publish { topic, payload, id, qos, dup: frame.header & 8 != 0, retain: frame.header & 1 != 0 })
}

fn span(start: usize, len: usize) -> Result<Span, Malformed> {
    Span::new(start, len).map_err(|full| malformed(full.to_string()))
}

/// Reads fields one after the other, never past the end of the packet.
struct Parts<'a> {
    buffer: &'a [u8],
    at: usize,
    end: usize,
}

impl Parts<'_> {
    fn take(&mut self, len: usize) -> Result<usize, Malformed> {
        if len > self.end - self.at {
            return Err(malformed("a field that reaches past the end of its packet"));
        }
        let start = self.at;
        self.at += len;
        Ok(start)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.buffer[self.take(1)?])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let at = self.take(2)?;
        Ok(u16::from_be_bytes([self.buffer[at], self.buffer[at + 1]]))
    }

    fn text(&mut self) -> Result<Span, Malformed> {
        let len = usize::from(self.u16()?);
        span(self.take(len)?, len)
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let (value, len) = varint(&self.buffer[self.at..self.end])?.ok_or_else(|| malformed("a length cut short"))?;
        self.at += len;
        Ok(value)
    }

    /// Steps over the properties of a PUBLISH (MQTT 5, 3.3.2.3).
    fn properties(&mut self, mut headers: Option<&mut Vec<Header>>) -> Result<(), Malformed> {
        let len = self.varint()?;
        let mut p = Parts { buffer: self.buffer, at: self.at, end: self.at };
        self.take(len)?;
        p.end = self.at;
        while p.at < p.end {
            match p.u8()? {
                0x01 => p.take(1).map(drop)?,
                0x02 => p.take(4).map(drop)?,
                0x03 | 0x08 | 0x09 => p.text().map(drop)?,
                0x0b => p.varint().map(drop)?,
                0x23 => {
                    let text = "a topic alias, although none was offered";
                    return Err(Malformed { reason: 0x94, text: text.to_owned() });
                }
                0x26 => {
                    let (name, value) = (p.text()?, p.text()?);
                    if let Some(headers) = headers.as_deref_mut() {
                        simdutf8::basic::from_utf8(name.of(p.buffer))
                            .map_err(|_| malformed("a user property whose name is not UTF-8"))?;
                        headers.push(Header { name, value });
                    }
                }
                other => return Err(malformed(format!("property {other:#04x} in a message"))),
            }
        }
        Ok(())
    }
}

/// The packet identifier of PUBACK, PUBREC, PUBREL, PUBCOMP or SUBACK, and the reason code of the first four (0 when
/// the packet has none).
///
/// # Errors
/// The packet is too short.
pub fn id_and_reason(body: &[u8]) -> Result<(u16, u8), Malformed> {
    match body {
        [high, low, rest @ ..] => Ok((u16::from_be_bytes([*high, *low]), rest.first().copied().unwrap_or(0))),
        _ => Err(malformed("a packet too short for its identifier")),
    }
}

/// The reason codes of a SUBACK, one for each filter.
///
/// # Errors
/// The packet is malformed.
pub fn suback_reasons(body: &[u8], version: Version) -> Result<&[u8], Malformed> {
    let mut parts = Parts { buffer: body, at: 0, end: body.len() };
    parts.take(2)?;
    if version == Version::V5 {
        let len = parts.varint()?;
        parts.take(len)?;
    }
    Ok(&body[parts.at..])
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP with reason "success", which both versions write alike.
pub fn put_ack(out: &mut BytesMut, kind: u8, id: u16) {
    // PUBREL alone has a fixed flag (MQTT 5, 3.6.1).
    let flags = if kind == kind::PUBREL { 2 } else { 0 };
    out.put_slice(&[kind << 4 | flags, 2, (id >> 8) as u8, id as u8]);
}

/// Appends a PINGREQ.
pub fn put_ping(out: &mut BytesMut) {
    out.put_slice(&[0xc0, 0]);
}

/// Appends a DISCONNECT. 3.1.1 knows no reasons.
pub fn put_disconnect(out: &mut BytesMut, version: Version, reason: u8) {
    match (version, reason) {
        (Version::V4, _) | (Version::V5, 0) => out.put_slice(&[0xe0, 0]),
        (Version::V5, reason) => out.put_slice(&[0xe0, 1, reason]),
    }
}

/// A message to publish.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// Packet identifier; not used for quality of service 0.
    pub id: u16,
    pub qos: u8,
    pub retain: bool,
    /// As `put_user_property` writes them; not sent with 3.1.1, which has none.
    pub user_properties: &'a [u8],
}

/// Bytes of `number` as a variable byte integer (MQTT 5, 1.5.5).
fn varint_bytes(number: usize) -> usize {
    match number {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn put_varint(out: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// Appends a user property.
///
/// # Errors
/// What makes the name or the value no text of MQTT: it is longer than 65,535 bytes, not UTF-8, or has a NUL in it.
pub fn put_user_property(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), &'static str> {
    let parts = [name.as_bytes(), value];
    if parts.iter().any(|part| part.len() > usize::from(u16::MAX)) {
        return Err("is longer than 65,535 bytes");
    }
    if simdutf8::basic::from_utf8(value).is_err() {
        return Err("is not UTF-8");
    }
    if parts.iter().any(|part| part.contains(&0)) {
        return Err("has a NUL character in it");
    }
    out.push(0x26);
    for part in parts {
        out.put_u16(part.len() as u16);
        out.put_slice(part);
    }
    Ok(())
}

impl Outgoing<'_> {
    fn remaining(&self, version: Version) -> usize {
        let id = if self.qos > 0 { 2 } else { 0 };
        let properties = match version {
            Version::V5 => varint_bytes(self.user_properties.len()) + self.user_properties.len(),
            Version::V4 => 0,
        };
        2 + self.topic.len() + id + properties + self.payload.len()
    }

    /// Length of the whole packet. `None` when the protocol cannot express it.
    pub fn packet_bytes(&self, version: Version) -> Option<usize> {
        let remaining = self.remaining(version);
        (remaining <= REMAINING_MAX).then(|| 1 + varint_bytes(remaining) + remaining)
    }

    /// Appends the packet. `packet_bytes` was asked before and answered a length.
    pub fn put(&self, out: &mut BytesMut, version: Version) {
        let remaining = self.remaining(version);
        debug_assert!(remaining <= REMAINING_MAX && self.topic.len() <= usize::from(u16::MAX));
        out.reserve(remaining + 5);
        out.put_u8(kind::PUBLISH << 4 | self.qos << 1 | u8::from(self.retain));
        put_varint(out, remaining);
        out.put_u16(self.topic.len() as u16);
        out.put_slice(self.topic.as_bytes());
        if self.qos > 0 {
            out.put_u16(self.id);
        }
        if version == Version::V5 {
            put_varint(out, self.user_properties.len());
            out.put_slice(self.user_properties);
        }
        out.put_slice(self.payload);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rumqttc::{mqttbytes::v4, v5::mqttbytes::v5};

    use super::*;

    fn whole(buffer: &[u8], at: usize) -> Frame {
        match frame(buffer, at, usize::MAX).unwrap() {
            Framed::Whole(frame) => frame,
            Framed::Partial(need) => panic!("partial, needs {need} of {}", buffer.len()),
        }
    }

    type Seen = (String, Vec<u8>, u16, u8, bool, bool);

    fn read_all(buffer: &[u8], version: Version) -> Vec<Seen> {
        let (mut at, mut seen) = (0, Vec::new());
        while at < buffer.len() {
            let frame = whole(buffer, at);
            at = frame.body.end;
            let p = publish(buffer, &frame, version, None).unwrap();
            let topic = String::from_utf8(p.topic.of(buffer).to_vec()).unwrap();
            seen.push((topic, p.payload.of(buffer).to_vec(), p.id, p.qos, p.dup, p.retain));
        }
        seen
    }

    fn encode_v5(m: &Seen, user: &[(String, String)], out: &mut BytesMut) {
        let properties = (!user.is_empty()).then(|| v5::PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(60),
            response_topic: Some("answer/here".to_owned()),
            correlation_data: Some(Bytes::from_static(b"\xff\x00")),
            user_properties: user.to_vec(),
            subscription_identifiers: vec![1, 300],
            content_type: Some("text/plain".to_owned()),
            ..Default::default()
        });
        let mut p = v5::Publish::new(m.0.as_str(), qos5(m.3), m.1.clone(), properties);
        (p.pkid, p.dup, p.retain) = (m.2, m.4, m.5);
        p.write(out).unwrap();
    }

    fn qos5(qos: u8) -> rumqttc::v5::mqttbytes::QoS {
        rumqttc::v5::mqttbytes::qos(qos).unwrap()
    }

    fn encode_v4(m: &Seen, out: &mut BytesMut) {
        let mut p = v4::Publish::new(m.0.as_str(), rumqttc::qos(m.3).unwrap(), m.1.clone());
        (p.pkid, p.dup, p.retain) = (m.2, m.4, m.5);
        p.write(out).unwrap();
    }

    prop_compose! {
        fn message()(
            topic in "[a-z°/]{1,200}",
            payload in prop::collection::vec(any::<u8>(), 0..300),
            id in 1u16..,
            qos in 0u8..3,
            dup: bool,
            retain: bool,
        ) -> Seen {
            (topic, payload, if qos == 0 { 0 } else { id }, qos, dup, retain)
        }
    }

    fn user_properties() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec(("[a-z°]{0,9}", "[ -~°]{0,300}"), 0..5)
    }

    proptest! {
        #[test]
        fn packets_of_another_encoder_are_read(
            messages in prop::collection::vec(message(), 1..8),
            user in prop::collection::vec(("[a-z]{0,9}", "[a-z]{0,200}"), 0..3),
        ) {
            let (mut four, mut five) = (BytesMut::new(), BytesMut::new());
            for m in &messages {
                encode_v4(m, &mut four);
                encode_v5(m, &user, &mut five);
            }
            prop_assert_eq!(&read_all(&four, Version::V4), &messages);
            prop_assert_eq!(&read_all(&five, Version::V5), &messages);
        }

        #[test]
        fn packets_we_write_are_read_by_another_decoder(m in message(), user in user_properties()) {
            let mut user_properties = Vec::new();
            for (name, value) in &user {
                prop_assert_eq!(put_user_property(&mut user_properties, name, value.as_bytes()), Ok(()));
            }
            let user_properties = &user_properties[..];
            let outgoing =
                Outgoing { topic: &m.0, payload: &m.1, id: m.2, qos: m.3, retain: m.5, user_properties };
            let (mut four, mut five) = (BytesMut::new(), BytesMut::new());
            outgoing.put(&mut four, Version::V4);
            outgoing.put(&mut five, Version::V5);
            prop_assert_eq!(Some(four.len()), outgoing.packet_bytes(Version::V4));
            prop_assert_eq!(Some(five.len()), outgoing.packet_bytes(Version::V5));
            let v4::Packet::Publish(four) = v4::Packet::read(&mut four, usize::MAX).unwrap() else { panic!() };
            prop_assert_eq!((four.topic.as_str(), &four.payload[..], four.pkid), (m.0.as_str(), &m.1[..], m.2));
            let v5::Packet::Publish(five) = v5::Packet::read(&mut five, None).unwrap() else { panic!() };
            prop_assert_eq!((&five.topic[..], &five.payload[..], five.pkid), (m.0.as_bytes(), &m.1[..], m.2));
            prop_assert_eq!(five.properties.map(|found| found.user_properties).unwrap_or_default(), user);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), v5: bool) {
            let version = if v5 { Version::V5 } else { Version::V4 };
            if let Ok(Framed::Whole(frame)) = frame(&bytes, 0, 1000) {
                let _ = publish(&bytes, &frame, version, Some(&mut Vec::new()));
                let _ = suback_reasons(&bytes[frame.body.clone()], version);
            }
        }
    }

    #[test]
    fn what_is_no_text_of_mqtt_is_no_user_property() {
        let mut out = Vec::new();
        let long = "x".repeat(65_536);
        let cases: [(&str, &[u8], _); 5] = [
            ("name", long.as_bytes(), "is longer than 65,535 bytes"),
            (&long, b"value", "is longer than 65,535 bytes"),
            ("name", b"\xff", "is not UTF-8"),
            ("name", b"a\0", "has a NUL character in it"),
            ("a\0", b"value", "has a NUL character in it"),
        ];
        for (name, value, why) in cases {
            assert_eq!(put_user_property(&mut out, name, value), Err(why));
        }
        assert!(out.is_empty());
    }

    #[test]
    fn a_packet_split_anywhere_is_partial_and_its_need_is_told() {
        let mut buffer = BytesMut::new();
        encode_v5(&("a/b".into(), vec![7; 300], 9, 1, false, false), &[("k".into(), "v".into())], &mut buffer);
        for cut in 0..buffer.len() {
            let Framed::Partial(need) = frame(&buffer[..cut], 0, usize::MAX).unwrap() else { panic!("at {cut}") };
            assert!(need > cut && (cut < 3 || need == buffer.len()), "at {cut}: {need}");
        }
        assert_eq!(whole(&buffer, 0).body.end, buffer.len());
    }

    #[test]
    fn a_packet_too_large_is_refused_before_it_is_read() {
        let error = frame(&[0x30, 0xff, 0xff, 0x7f], 0, 1 << 20).unwrap_err();
        assert_eq!(error.reason, 0x95);
        assert!(error.text.contains("2097155 bytes, `packet_bytes_max` is 1048576"), "{error}");
    }

    #[test]
    fn broken_packets_are_refused() {
        for (version, bytes, reason, text) in [
            (Version::V4, &[0x30, 0xff, 0xff, 0xff, 0xff][..], 0x81, "a length of more than four bytes"),
            (Version::V4, &[0x36, 5, 0, 1, b'a', 0, 1], 0x81, "a message with quality of service 3"),
            (Version::V4, &[0x32, 5, 0, 1, b'a', 0, 0], 0x82, "a message with packet identifier 0"),
            (Version::V4, &[0x30, 3, 0, 9, b'a'], 0x81, "a field that reaches past the end of its packet"),
            (Version::V4, &[0x32, 4, 0, 1, b'a', 0], 0x81, "a field that reaches past the end of its packet"),
            (Version::V4, &[0x30, 0], 0x81, "a field that reaches past the end of its packet"),
            (Version::V4, &[0x30, 3, 0, 1, 0xff], 0x90, "a message whose topic is not UTF-8"),
            (Version::V4, &[0x30, 3, 0, 1, b'#'], 0x90, "a message whose topic contains a wildcard, `+` or `#`"),
            (Version::V5, &[0x30, 3, 0, 0, 0], 0x90, "a message whose topic is empty"),
            (Version::V5, &[0x30, 3, 0, 1, b'a'], 0x81, "a length cut short"),
            (Version::V5, &[0x30, 5, 0, 1, b'a', 2, 1], 0x81, "a field that reaches past the end of its packet"),
            (Version::V5, &[0x30, 5, 0, 1, b'a', 1, 1], 0x81, "a field that reaches past the end of its packet"),
            (Version::V5, &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 1], 0x94, "a topic alias, although none was offered"),
            (Version::V5, &[0x30, 6, 0, 1, b'a', 2, 0x24, 0], 0x81, "property 0x24 in a message"),
        ] {
            let seen = frame(bytes, 0, usize::MAX).and_then(|framed| match framed {
                Framed::Whole(frame) => publish(bytes, &frame, version, None),
                Framed::Partial(_) => panic!("partial: {bytes:?}"),
            });
            assert_eq!(seen, Err(Malformed { reason, text: text.to_owned() }), "{bytes:?}");
        }
    }

    #[test]
    fn user_properties_become_headers_in_place() {
        let mut buffer = BytesMut::new();
        encode_v5(&("t".into(), b"p".to_vec(), 0, 0, false, false), &[("k".into(), "v".into())], &mut buffer);
        let mut headers = Vec::new();
        publish(&buffer, &whole(&buffer, 0), Version::V5, Some(&mut headers)).unwrap();
        let seen: Vec<_> = headers.iter().map(|h| (h.name.of(&buffer), h.value.of(&buffer))).collect();
        assert_eq!(seen, [(&b"k"[..], &b"v"[..])]);
    }

    #[test]
    fn acks_are_written_as_both_versions_read_them() {
        let mut out = BytesMut::new();
        put_ack(&mut out, kind::PUBACK, 0x1234);
        put_ack(&mut out, kind::PUBREL, 1);
        assert_eq!(&out[..], [0x40, 2, 0x12, 0x34, 0x62, 2, 0, 1]);
        assert!(matches!(v5::Packet::read(&mut out, None), Ok(v5::Packet::PubAck(ack)) if ack.pkid == 0x1234));
        assert_eq!(suback_reasons(&[0, 1, 0, 1, 0x80], Version::V5).unwrap(), [1, 0x80]);
        assert_eq!(suback_reasons(&[0, 1, 1, 0x80], Version::V4).unwrap(), [1, 0x80]);
    }
}
