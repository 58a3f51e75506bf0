//! The session against a broker that is played by the test, packet by packet.
use std::time::Duration;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::{
    client::mqtt::packet::{Framed, Outgoing, Version, frame},
    metrics::{Health, Metrics},
};

const SOON: Duration = Duration::from_secs(5);
/// Long enough to see that something does not come.
const A_WHILE: Duration = Duration::from_millis(150);

const CONNECT: u8 = 0x10;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBCOMP: u8 = 0x70;
const SUBSCRIBE: u8 = 0x82;
const PINGREQ: u8 = 0xc0;
const DISCONNECT: u8 = 0xe0;

struct Broker {
    listener: TcpListener,
}

/// One connection, seen from the broker.
struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
    version: Version,
    /// It asked for a clean start.
    clean: bool,
}

impl Broker {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn input(&self, more: &str) -> MqttInput {
        let port = self.listener.local_addr().unwrap().port();
        let yaml =
            format!("{{url: 'mqtt://127.0.0.1:{port}', client_id: c, topics: ['d/{{dev}}/t'], linger_ms: 0{more}}}");
        MqttInput::new(&Section::from_yaml(&yaml)).unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    /// Takes a connection up to its CONNECT.
    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(SOON, self.listener.accept()).await.expect("a connection").unwrap();
        let mut peer = Peer { stream, buffer: BytesMut::new(), version: Version::V5, clean: false };
        let (header, body) = peer.packet().await;
        assert_eq!(header, CONNECT);
        peer.clean = body[7] & 2 != 0;
        peer.version = if body[6] == 5 { Version::V5 } else { Version::V4 };
        peer
    }

    /// Takes a connection and welcomes it; confirms the SUBSCRIBE that must follow unless there is a session.
    async fn welcome(&self, session_present: bool, subscribes: bool) -> Peer {
        let mut peer = self.accept().await;
        peer.connack(session_present).await;
        if subscribes {
            peer.suback(&[1]).await;
        }
        peer
    }
}

impl Peer {
    async fn packet(&mut self) -> (u8, Vec<u8>) {
        timeout(SOON, self.next()).await.expect("a packet").expect("an open connection")
    }

    /// The next packet; `None` at the end of the connection.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Framed::Whole(frame) = frame(&self.buffer, 0, usize::MAX).unwrap() {
                let packet = self.buffer.split_to(frame.body.end);
                return Some((frame.header, packet[frame.body].to_vec()));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn silent(&mut self) {
        let packet = timeout(A_WHILE, self.next()).await;
        assert!(packet.is_err(), "nothing was due, but here is {packet:?}");
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn connack(&mut self, session_present: bool) {
        let flags = u8::from(session_present);
        match self.version {
            Version::V5 => self.send(&[0x20, 3, flags, 0, 0]).await,
            Version::V4 => self.send(&[0x20, 2, flags, 0]).await,
        }
    }

    async fn suback(&mut self, codes: &[u8]) {
        assert_eq!(self.packet().await.0, SUBSCRIBE);
        let properties = usize::from(self.version == Version::V5);
        let mut packet = vec![0x90, (2 + properties + codes.len()) as u8, 0, 1];
        packet.resize(4 + properties, 0);
        packet.extend_from_slice(codes);
        self.send(&packet).await;
    }

    fn encode(&self, out: &mut BytesMut, id: u16, qos: u8, dup: bool, payload: &str) {
        let at = out.len();
        Outgoing { topic: "d/one/t", payload: payload.as_bytes(), id, qos, retain: false, user_properties: b"" }
            .put(out, self.version);
        out[at] |= u8::from(dup) << 3;
    }

    async fn publish(&mut self, id: u16, qos: u8, dup: bool, payload: &str) {
        let mut out = BytesMut::new();
        self.encode(&mut out, id, qos, dup, payload);
        self.send(&out).await;
    }

    async fn expect(&mut self, header: u8, id: u16) {
        let (got, body) = self.packet().await;
        assert_eq!((got, u16::from_be_bytes([body[0], body[1]])), (header, id));
    }
}

fn context() -> InputContext {
    InputContext {
        pipeline: "p".into(),
        label: "l".into(),
        metrics: Metrics::new().component("p", "input", "l"),
        health: Health::detached(),
    }
}

/// Connects `input` while the test plays the broker.
async fn connected(broker: &Broker, input: &mut MqttInput) -> Peer {
    let context = context();
    let (result, peer) = tokio::join!(input.connect(&context), broker.welcome(false, true));
    result.unwrap();
    peer
}

async fn read(input: &mut MqttInput) -> (Vec<String>, Ack) {
    let (batch, ack) = timeout(SOON, input.read()).await.expect("a batch").unwrap().unwrap();
    let texts = batch.iter().map(|m| String::from_utf8(m.payload().to_vec()).unwrap());
    (texts.collect(), ack)
}

async fn nothing_to_read(input: &mut MqttInput) {
    assert!(timeout(A_WHILE, input.read()).await.is_err(), "nothing was due");
}

#[tokio::test]
async fn a_message_is_acked_after_delivery_and_not_before() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    peer.publish(7, 1, false, "a").await;
    let (batch, ack) = timeout(SOON, input.read()).await.unwrap().unwrap().unwrap();
    let message = batch.get(0);
    assert_eq!((message.topic(), message.payload(), message.origin().qos), ("d/one/t", &b"a"[..], 1));
    assert_eq!(message.source().capture(message.origin(), "dev"), Some("one"));
    assert!(message.origin().received_at_ms > 1_600_000_000_000);
    peer.silent().await;
    ack.delivered();
    peer.expect(PUBACK, 7).await;
}

#[tokio::test]
async fn an_undelivered_message_is_never_acked() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    peer.publish(1, 1, false, "a").await;
    drop(read(&mut input).await);
    peer.publish(2, 1, false, "b").await;
    read(&mut input).await.1.delivered();
    peer.silent().await;
}

#[tokio::test]
async fn packets_split_anywhere_and_many_at_once_are_read_in_order() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    let mut bytes = BytesMut::new();
    let payloads: Vec<_> = (1..=40u16).map(|i| format!("{i}").repeat(usize::from(i) * 7)).collect();
    for (i, payload) in payloads.iter().enumerate() {
        peer.encode(&mut bytes, i as u16 + 1, (i % 2) as u8, false, payload);
    }
    for piece in bytes.chunks(97) {
        peer.send(piece).await;
        tokio::task::yield_now().await;
    }
    let mut seen = Vec::new();
    while seen.len() < payloads.len() {
        let (texts, ack) = read(&mut input).await;
        seen.extend(texts);
        ack.delivered();
    }
    assert_eq!(seen, payloads);
    for id in (2..=40).step_by(2) {
        peer.expect(PUBACK, id).await;
    }
}

#[tokio::test]
async fn a_message_larger_than_any_buffer_arrives_whole() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    let large = "x".repeat(3 << 20);
    let (_, (texts, _ack)) = tokio::join!(peer.publish(1, 1, false, &large), read(&mut input));
    assert_eq!(texts, [large]);
}

#[tokio::test]
async fn an_old_broker_is_spoken_to_in_its_own_version() {
    for refusal in [&[0x20, 2, 0, 1][..], &[0x20, 3, 0, 0x84, 0], &[]] {
        let broker = Broker::start().await;
        let mut input = broker.input("");
        let script = async {
            let mut first = broker.accept().await;
            assert_eq!(first.version, Version::V5);
            first.send(refusal).await;
            drop(first);
            let mut second = broker.welcome(false, true).await;
            assert_eq!(second.version, Version::V4);
            second.publish(1, 1, false, "a").await;
            second
        };
        let context = context();
        let (result, _peer) = tokio::join!(input.connect(&context), script);
        result.unwrap();
        assert_eq!(read(&mut input).await.0, ["a"]);
    }
}

#[tokio::test]
async fn a_clean_start_that_is_remembered_takes_two_connections() {
    for protocol in ["3.1.1", "5"] {
        let broker = Broker::start().await;
        let mut input = broker.input(&format!(", protocol: '{protocol}', clean_start: true"));
        let script = async {
            let mut first = broker.accept().await;
            assert!(first.clean);
            first.connack(false).await;
            assert_eq!(first.packet().await.0, DISCONNECT);
            drop(first);
            let second = broker.welcome(false, true).await;
            assert!(!second.clean);
            second
        };
        let context = context();
        let (result, _peer) = tokio::join!(input.connect(&context), script);
        result.unwrap();
    }
}

#[tokio::test]
async fn refusals_are_told_in_words() {
    for (answer, expected) in [
        (&[0x20, 3, 0, 0x86, 0][..], "refused the connection: wrong user name or password"),
        (&[0x20, 3, 0, 0x87, 0], "not authorized; give this user"),
        (&[0xd0, 0], "broke the protocol: its first packet was no CONNACK"),
    ] {
        let broker = Broker::start().await;
        let mut input = broker.input("");
        let context = context();
        let script = async { broker.accept().await.send(answer).await };
        let (result, ()) = tokio::join!(input.connect(&context), script);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_refused_or_weaker_subscription_is_an_error_that_names_the_filter() {
    for (code, expected) in [
        (0x87, "refused to subscribe to `d/+/t`: not authorized"),
        (0, "granted `d/+/t` only with qos 0: set `qos: 0` or allow 1 in the broker"),
    ] {
        let broker = Broker::start().await;
        let mut input = broker.input("");
        let context = context();
        let script = async {
            let mut peer = broker.welcome(false, false).await;
            peer.suback(&[code]).await;
            peer
        };
        let (result, _peer) = tokio::join!(input.connect(&context), script);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn after_a_reconnect_a_redelivery_is_not_handed_out_again_and_is_acked_there() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    peer.publish(1, 1, false, "a").await;
    let (_, a) = read(&mut input).await;
    peer.publish(2, 1, false, "b").await;
    let (_, b) = read(&mut input).await;
    drop(peer);
    // The session is kept, so no SUBSCRIBE; both come again.
    let mut peer = broker.welcome(true, false).await;
    b.delivered();
    peer.silent().await;
    peer.publish(1, 1, true, "a").await;
    peer.publish(2, 1, true, "b").await;
    peer.publish(3, 1, false, "c").await;
    let (texts, c) = read(&mut input).await;
    assert_eq!(texts, ["c"], "only what is new");
    c.delivered();
    peer.silent().await;
    a.delivered();
    for id in [1, 2, 3] {
        peer.expect(PUBACK, id).await;
    }
}

#[tokio::test]
async fn a_lost_session_is_subscribed_again_and_old_acks_are_not_sent() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    peer.publish(1, 1, false, "a").await;
    let (_, ack) = read(&mut input).await;
    drop(peer);
    let mut peer = broker.welcome(false, true).await;
    ack.delivered();
    peer.silent().await;
    peer.publish(1, 1, false, "a").await;
    let (texts, ack) = read(&mut input).await;
    assert_eq!(texts, ["a"], "another message under the same identifier");
    ack.delivered();
    peer.expect(PUBACK, 1).await;
}

#[tokio::test]
async fn pings_go_on_while_the_pipeline_takes_nothing() {
    let broker = Broker::start().await;
    let mut input = broker.input(", keep_alive_s: 1, buffer_bytes_max: 1");
    let mut peer = connected(&broker, &mut input).await;
    peer.publish(1, 1, false, "a").await;
    // Not read any more: full with one message. This one stays in the socket.
    tokio::time::sleep(A_WHILE).await;
    peer.publish(2, 1, false, "b").await;
    for _ in 0..4 {
        assert_eq!(timeout(SOON, peer.packet()).await.unwrap().0, PINGREQ);
    }
    for (text, id) in [("a", 1), ("b", 2)] {
        let (texts, ack) = read(&mut input).await;
        assert_eq!(texts, [text]);
        ack.delivered();
        while peer.packet().await != (PUBACK, vec![0, id]) {}
    }
}

#[tokio::test]
async fn a_broker_that_answers_no_ping_is_left() {
    let broker = Broker::start().await;
    let mut input = broker.input(", keep_alive_s: 1");
    let mut peer = connected(&broker, &mut input).await;
    assert_eq!(peer.packet().await.0, PINGREQ);
    let (_, _peer) = tokio::join!(
        async {
            while let Some((header, _)) = peer.next().await {
                assert_eq!(header, PINGREQ)
            }
        },
        broker.welcome(true, false),
    );
}

#[tokio::test]
async fn quality_of_service_2_goes_through_all_four_packets() {
    let broker = Broker::start().await;
    let mut input = broker.input(", qos: 2");
    let context = context();
    let script = async {
        let mut peer = broker.welcome(false, false).await;
        peer.suback(&[2]).await;
        peer
    };
    let (result, mut peer) = tokio::join!(input.connect(&context), script);
    result.unwrap();
    peer.publish(1, 2, false, "a").await;
    let (_, ack) = read(&mut input).await;
    peer.silent().await;
    ack.delivered();
    peer.expect(PUBREC, 1).await;
    peer.publish(1, 2, true, "a").await;
    peer.expect(PUBREC, 1).await;
    nothing_to_read(&mut input).await;
    for id in [1, 1] {
        peer.send(&[0x62, 2, 0, id]).await;
        peer.expect(PUBCOMP, id.into()).await;
    }
}

#[tokio::test]
async fn what_came_before_a_broken_packet_is_handed_out_and_the_broker_hears_why() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    let mut bytes = BytesMut::new();
    peer.encode(&mut bytes, 1, 1, false, "a");
    bytes.extend_from_slice(&[0x30, 5, 0, 1, 0xff, 0, 1]);
    peer.send(&bytes).await;
    assert_eq!(peer.packet().await, (DISCONNECT, vec![0x90]));
    assert_eq!(peer.next().await, None);
    assert_eq!(read(&mut input).await.0, ["a"]);
    let mut peer = broker.welcome(true, false).await;
    peer.publish(1, 1, true, "a").await;
    nothing_to_read(&mut input).await;
}

#[tokio::test]
async fn closing_sends_the_acks_and_says_goodbye() {
    let broker = Broker::start().await;
    let mut input = broker.input("");
    let mut peer = connected(&broker, &mut input).await;
    peer.publish(1, 1, false, "a").await;
    let (_, ack) = read(&mut input).await;
    ack.delivered();
    input.close(SOON).await;
    peer.expect(PUBACK, 1).await;
    assert_eq!(peer.packet().await, (DISCONNECT, vec![]));
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn unwanted_retained_messages_are_acked_and_left_out() {
    let broker = Broker::start().await;
    let mut input = broker.input(", retained: skip");
    let mut peer = connected(&broker, &mut input).await;
    let mut bytes = BytesMut::new();
    peer.encode(&mut bytes, 1, 1, false, "old");
    bytes[0] |= 1;
    peer.encode(&mut bytes, 2, 1, false, "new");
    peer.send(&bytes).await;
    let (texts, ack) = read(&mut input).await;
    assert_eq!(texts, ["new"]);
    peer.expect(PUBACK, 1).await;
    ack.delivered();
    peer.expect(PUBACK, 2).await;
}

#[tokio::test]
async fn what_the_broker_dropped_is_counted_and_not_a_message() {
    let broker = Broker::start().await;
    let mut input = broker.input(", watch_dropped: true");
    let context = context();
    let script = async {
        let mut peer = broker.welcome(false, false).await;
        peer.suback(&[1, 0x87]).await;
        let mut bytes = BytesMut::new();
        let report = Outgoing {
            topic: receive::DROPPED_TOPIC,
            payload: b"17",
            id: 0,
            qos: 0,
            retain: true,
            user_properties: b"",
        };
        report.put(&mut bytes, Version::V5);
        peer.encode(&mut bytes, 1, 1, false, "a");
        peer.send(&bytes).await;
        peer
    };
    let (result, _peer) = tokio::join!(input.connect(&context), script);
    result.unwrap();
    assert_eq!(read(&mut input).await.0, ["a"]);
    assert_eq!(context.metrics.broker_dropped.get(), 17);
}

#[tokio::test]
async fn a_backlog_before_the_suback_does_not_lock_up_connect() {
    let broker = Broker::start().await;
    let mut input = broker.input(", buffer_bytes_max: 1");
    let context = context();
    let script = async {
        let mut peer = broker.welcome(true, false).await;
        peer.publish(1, 1, false, "a").await;
        tokio::time::sleep(A_WHILE).await;
        peer.suback(&[1]).await;
        peer
    };
    let (result, _peer) = tokio::join!(input.connect(&context), script);
    result.unwrap();
    assert_eq!(read(&mut input).await.0, ["a"]);
}
