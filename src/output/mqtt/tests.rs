//! The output against a broker that is played by the test, packet by packet.
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::{
    client::mqtt::packet::{Framed, Version, frame, publish},
    message::{Batch, Origin, Parts, SourceBuilder},
    metrics::{Health, Metrics},
    output::Pending,
};

const SOON: Duration = Duration::from_secs(5);

struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    /// Takes a connection and welcomes it with these CONNACK properties.
    async fn accept(listener: &TcpListener, properties: &[u8]) -> Self {
        let (stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        let mut peer = Self { stream, buffer: BytesMut::new() };
        assert_eq!(peer.packet().await.0, 0x10);
        let mut answer = vec![0x20, 3 + properties.len() as u8, 0, 0, properties.len() as u8];
        answer.extend_from_slice(properties);
        peer.send(&answer).await;
        peer
    }

    async fn next(&mut self) -> Option<(u8, BytesMut)> {
        loop {
            if let Framed::Whole(frame) = frame(&self.buffer, 0, usize::MAX).unwrap() {
                return Some((frame.header, self.buffer.split_to(frame.body.end)));
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn packet(&mut self) -> (u8, BytesMut) {
        timeout(SOON, self.next()).await.unwrap().unwrap()
    }

    /// The next message: topic, payload, packet identifier.
    async fn message(&mut self) -> (String, String, u16) {
        let (_, bytes) = self.packet().await;
        let Framed::Whole(frame) = frame(&bytes, 0, usize::MAX).unwrap() else { panic!() };
        let p = publish(&bytes, &frame, Version::V5, None).unwrap();
        let text = |span: Span| String::from_utf8(span.of(&bytes).to_vec()).unwrap();
        (text(p.topic), text(p.payload), p.id)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}

fn output(yaml: &str) -> MqttOutput {
    MqttOutput::new(&Section::from_yaml(yaml)).unwrap_or_else(|faults| panic!("{faults:?}"))
}

async fn connected(more: &str, properties: &[u8]) -> (MqttOutput, Peer, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut output = output(&format!("{{url: 'mqtt://127.0.0.1:{port}', topic: 'out/{{meta.topic}}'{more}}}"));
    let context = OutputContext {
        pipeline: "p".into(),
        label: "l".into(),
        metrics: Metrics::new().component("p", "output", "l"),
        once: Default::default(),
        health: Health::detached(),
    };
    let (result, peer) = tokio::join!(output.connect(&context), Peer::accept(&listener, properties));
    result.unwrap();
    (output, peer, listener)
}

fn parcel(messages: &[(&str, &str)]) -> Parcel {
    let mut source = SourceBuilder::new("test");
    for (topic, payload) in messages {
        source
            .push(payload.as_bytes(), |o, parts| {
                o.topic = parts.text(topic)?;
                Ok(())
            })
            .unwrap();
    }
    Parcel::of(Arc::new(Batch::new(source.finish())))
}

async fn answer(delivery: Delivery) -> Result<(), WriteError> {
    timeout(SOON, delivery).await.expect("an answer")
}

#[tokio::test]
async fn a_write_is_answered_when_every_message_is_confirmed() {
    let (mut output, mut peer, _listener) = connected("", &[]).await;
    let delivery = output.write(&parcel(&[("a", "1"), ("b", "2")])).await;
    assert_eq!(peer.message().await, ("out/a".into(), "1".into(), 1));
    assert_eq!(peer.message().await, ("out/b".into(), "2".into(), 2));
    // Out of order, and one with a reason that is no error.
    peer.send(&[0x40, 3, 0, 2, 0x10]).await;
    let mut delivery = delivery;
    assert!(timeout(Duration::from_millis(100), &mut delivery).await.is_err(), "one is not confirmed");
    peer.send(&[0x40, 2, 0, 1]).await;
    assert_eq!(answer(delivery).await, Ok(()));
}

#[tokio::test]
async fn headers_go_along_as_user_properties_and_those_that_cannot_are_rejected() {
    let (mut output, mut peer, _listener) = connected(", user_properties: true", &[]).await;
    let mut source = SourceBuilder::new("test");
    for headers in [&[("from", &b"kafka"[..]), ("trace", b"")][..], &[("trace", b"\xff")], &[]] {
        let push = |origin: &mut Origin, parts: &mut Parts| {
            origin.topic = parts.text("a")?;
            headers.iter().try_for_each(|(name, value)| parts.header(origin, name, value))
        };
        source.push(b"1", push).unwrap();
    }
    let batch = Parcel::of(Arc::new(Batch::new(source.finish())));
    let delivery = output.write(&batch).await;
    for (id, expected) in [(1, &[("from", "kafka"), ("trace", "")][..]), (2, &[])] {
        let (_, bytes) = peer.packet().await;
        let Framed::Whole(frame) = frame(&bytes, 0, usize::MAX).unwrap() else { panic!() };
        let mut found = Vec::new();
        publish(&bytes, &frame, Version::V5, Some(&mut found)).unwrap();
        let text = |span: Span| std::str::from_utf8(span.of(&bytes)).unwrap();
        let found: Vec<_> = found.iter().map(|header| (text(header.name), text(header.value))).collect();
        assert_eq!(found, expected);
        peer.send(&[0x40, 2, 0, id]).await;
    }
    let rejected = answer(delivery).await.unwrap_err().rejected;
    let reason = "its header `trace` is not UTF-8, so it cannot be a user property";
    assert_eq!(rejected, [Rejection { index: 1, code: "invalid-header".into(), reason: reason.into() }]);
    let fates: Vec<_> = batch.iter().map(|message| output.address(message).map(|to| to.headers.len())).collect();
    assert_eq!(fates, [Ok(2), Err(("invalid-header".into(), reason.into())), Ok(0)]);
}

#[test]
fn user_properties_need_mqtt_5() {
    let yaml = "{url: 'mqtt://h', topic: t, protocol: '3.1.1', user_properties: true}";
    let faults = MqttOutput::new(&Section::from_yaml(yaml)).err().unwrap();
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, ["`user_properties`: MQTT 3.1.1 knows no user properties"]);
}

#[tokio::test]
async fn quality_of_service_2_is_confirmed_by_pubcomp() {
    let (mut output, mut peer, _listener) = connected(", qos: 2", &[]).await;
    let delivery = output.write(&parcel(&[("a", "1")])).await;
    peer.message().await;
    peer.send(&[0x50, 2, 0, 1]).await;
    assert_eq!(&peer.packet().await.1[..], [0x62, 2, 0, 1]);
    peer.send(&[0x70, 2, 0, 1]).await;
    assert_eq!(answer(delivery).await, Ok(()));
}

#[tokio::test]
async fn quality_of_service_0_is_delivered_when_it_is_sent() {
    let (mut output, mut peer, _listener) = connected(", qos: 0, retain: true", &[]).await;
    let delivery = output.write(&parcel(&[("a", "1")])).await;
    assert_eq!(answer(delivery).await, Ok(()));
    assert_eq!(peer.packet().await.0, 0x31);
}

#[tokio::test]
async fn what_was_not_confirmed_when_the_connection_broke_is_to_be_sent_again() {
    let (mut output, mut peer, listener) = connected("", &[]).await;
    let delivery = output.write(&parcel(&[("a", "1"), ("b", "2"), ("c", "3")])).await;
    for _ in 0..3 {
        peer.message().await;
    }
    peer.send(&[0x40, 2, 0, 2]).await;
    drop(peer);
    let retry = answer(delivery).await.unwrap_err().retry.unwrap();
    assert_eq!(retry.messages, Pending::Only(vec![0, 2]));
    assert!(retry.reason.contains("broke"), "{}", retry.reason);
    // It connects again by itself.
    let mut peer = Peer::accept(&listener, &[]).await;
    let (delivery, message) = loop {
        let mut delivery = output.write(&parcel(&[("a", "1")])).await;
        tokio::select! {
            message = peer.message() => break (delivery, message),
            // It has not read yet that it is connected.
            refused = &mut delivery => assert!(refused.unwrap_err().retry.is_some()),
        }
    };
    assert_eq!(message, ("out/a".into(), "1".into(), 1));
    peer.send(&[0x40, 2, 0, 1]).await;
    assert_eq!(answer(delivery).await, Ok(()));
}

#[tokio::test]
async fn messages_that_can_never_be_taken_are_rejected_and_the_rest_goes_on() {
    // Maximum Packet Size 40.
    let (mut output, mut peer, _listener) = connected("", &[0x27, 0, 0, 0, 40]).await;
    let large = "x".repeat(40);
    let delivery = output.write(&parcel(&[("a", &large), ("+", "2"), ("c", "3"), ("d", "4"), ("e", "5")])).await;
    for (topic, id) in [("out/c", 1), ("out/d", 2), ("out/e", 3)] {
        let (seen, _, seen_id) = peer.message().await;
        // A message that was never sent uses up no identifier that is still in use; the number itself does not matter.
        assert_eq!((seen.as_str(), seen_id >= id), (topic, true));
        let code = match topic {
            "out/c" => 0x99,
            "out/d" => 0x97,
            _ => 0,
        };
        peer.send(&[0x40, 3, (seen_id >> 8) as u8, seen_id as u8, code]).await;
    }
    let error = answer(delivery).await.unwrap_err();
    let rejected: Vec<_> = error.rejected.iter().map(|r| (r.index, r.code.as_str())).collect();
    assert_eq!(rejected, [(0, "message-too-large"), (1, "invalid-topic"), (2, "mqtt-0x99")]);
    assert_eq!(error.retry.unwrap().messages, Pending::Only(vec![3]));
}

#[tokio::test]
async fn no_more_messages_are_in_flight_than_the_broker_takes() {
    // Receive Maximum 2.
    let (mut output, mut peer, _listener) = connected("", &[0x21, 0, 2]).await;
    let delivery = output.write(&parcel(&[("a", "1"), ("b", "2"), ("c", "3")])).await;
    peer.message().await;
    peer.message().await;
    assert!(timeout(Duration::from_millis(100), peer.next()).await.is_err());
    peer.send(&[0x40, 2, 0, 1, 0x40, 2, 0, 2]).await;
    assert_eq!(peer.message().await.0, "out/c");
    peer.send(&[0x40, 2, 0, 3]).await;
    assert_eq!(answer(delivery).await, Ok(()));
}

#[tokio::test]
async fn a_broker_that_offers_less_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut output = output(&format!("{{url: 'mqtt://127.0.0.1:{port}', topic: t}}"));
    let context = OutputContext {
        pipeline: "p".into(),
        label: "l".into(),
        metrics: Metrics::new().component("p", "output", "l"),
        once: Default::default(),
        health: Health::detached(),
    };
    // Maximum QoS 0.
    let (result, _peer) = tokio::join!(output.connect(&context), Peer::accept(&listener, &[0x24, 0]));
    assert!(result.unwrap_err().to_string().contains("qos 0 at most"));
}

#[test]
fn every_fault_is_found_at_its_field() {
    for (yaml, expected) in [
        (SPEC.example, vec![]),
        ("{url: mqtt://h, topic: a/#}", vec!["`topic`: `topic` contains a wildcard, `+` or `#`"]),
        (
            "{url: mqtt://h/x, topic: 'a/{nope}', qos: 3}",
            vec![
                "`url`: `mqtt://h/x` has more than a host and a port",
                "`topic`: `{nope}` is not a value a template knows",
                "`qos`: `qos` is 3, but must be 0, 1 or 2",
            ],
        ),
    ] {
        let seen: Vec<_> = match MqttOutput::new(&Section::from_yaml(yaml)) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(seen, expected, "{yaml}");
    }
}
