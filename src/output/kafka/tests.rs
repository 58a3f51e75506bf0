//! Against librdkafka's own mock cluster: what needs a broker, but not a real one.
use std::sync::Arc;

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
    types::RDKafkaApiKey,
};
use rdkafka_sys as sys;

use super::*;
use crate::{
    message::{Batch, SourceBuilder},
    metrics::{Health, Metrics},
    output::Pending,
};

fn context() -> OutputContext {
    OutputContext {
        pipeline: "p".into(),
        label: "l".into(),
        metrics: Metrics::new().component("p", "output", "l"),
        once: Default::default(),
        health: Health::detached(),
    }
}

fn output(yaml: &str) -> KafkaOutput {
    KafkaOutput::build(&Section::from_yaml(yaml)).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn parcel(messages: &[(&str, &str)], header: bool) -> Parcel {
    let mut source = SourceBuilder::new("test");
    for (key, payload) in messages {
        source
            .push(payload.as_bytes(), |o, parts| {
                o.topic = parts.text("a/b")?;
                o.key = Some(parts.bytes(key.as_bytes())?);
                if header { parts.header(o, "trace", b"1") } else { Ok(()) }
            })
            .unwrap();
    }
    Parcel::of(Arc::new(Batch::new(source.finish())))
}

/// Everything in a topic of 4 partitions, sorted: partition, key, payload.
fn written(brokers: &str, count: usize) -> Vec<(i32, String, String)> {
    let mut seen = unsorted(brokers, count);
    seen.sort();
    seen
}

/// The same in the order of each partition.
fn unsorted(brokers: &str, count: usize) -> Vec<(i32, String, String)> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "g").create().unwrap();
    let mut all = TopicPartitionList::new();
    (0..4).for_each(|p| all.add_partition_offset("t", p, Offset::Beginning).unwrap());
    consumer.assign(&all).unwrap();
    let mut seen = Vec::new();
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
    while seen.len() < count {
        let message = consumer.poll(Duration::from_secs(10)).expect("a message in time").unwrap();
        seen.push((message.partition(), text(message.key()), text(message.payload())));
    }
    seen
}

#[test]
fn the_example_builds_and_every_fault_is_found() {
    assert!(KafkaOutput::build(&Section::from_yaml(SPEC.example)).is_ok());
    let faults = KafkaOutput::build(&Section::from_yaml(
        "{brokers: 'a:1', topic: a/b, key: '{meta.nope', message_bytes_max: 5, linger_ms: 70000, options: {acks: 1}}",
    ));
    let faults: Vec<_> = faults.err().unwrap_or_default().iter().map(ToString::to_string).collect();
    let fields = ["`options.acks`:", "`key`:", "`topic`:", "`message_bytes_max`:", "`linger_ms`:"];
    assert_eq!(faults.len(), fields.len(), "{faults:#?}");
    faults.iter().zip(fields).for_each(|(fault, field)| assert!(fault.starts_with(field), "{fault}"));
}

#[tokio::test]
async fn both_ways_to_send_place_keys_alike() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 4, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut output = output(&format!("{{brokers: '{brokers}', topic: t}}"));
    output.connect(&context()).await.unwrap();
    let messages: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().map(|k| (k, k)).collect();
    for header in [false, true] {
        output.write(&parcel(&messages, header)).await.await.unwrap();
    }
    output.close(Duration::from_secs(5)).await;
    let expected: Vec<_> = messages
        .iter()
        .flat_map(|(k, v)| vec![(partitioner::of_key(k.as_bytes(), 4), k.to_string(), v.to_string()); 2])
        .collect();
    let mut expected = expected;
    expected.sort();
    assert_eq!(written(&brokers, 12), expected);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_rejected_and_the_others_are_written() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 4, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut output = output(&format!("{{brokers: '{brokers}', topic: t, message_bytes_max: 2000}}"));
    output.connect(&context()).await.unwrap();
    let large = "x".repeat(3000);
    let messages = [("k", "one"), ("k", large.as_str()), ("k", "two"), ("m", "three")];
    for header in [false, true] {
        let error = output.write(&parcel(&messages, header)).await.await.unwrap_err();
        assert!(error.retry.is_none(), "{error:?}");
        let rejected: Vec<_> = error.rejected.iter().map(|r| (r.index, r.code.as_str())).collect();
        assert_eq!(rejected, [(1, "message-too-large")]);
    }
    output.close(Duration::from_secs(5)).await;
    assert_eq!(written(&brokers, 6).len(), 6);
}

#[tokio::test]
async fn a_producer_that_failed_for_good_is_replaced() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 4, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut output = output(&format!("{{brokers: '{brokers}', topic: t}}"));
    let context = context();
    output.connect(&context).await.unwrap();
    let client = output.live.as_ref().unwrap().producer.base().client().native_ptr();
    // SAFETY: the client is alive, held by `output`; the reason is a C string. Made by librdkafka for such tests.
    unsafe {
        let code = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        sys::rd_kafka_test_fatal_error(client, code, c"made up".as_ptr());
    }
    output.write(&parcel(&[("a", "after")], false)).await.await.unwrap();
    assert_eq!(context.metrics.reconnects.get(), 1);
    output.close(Duration::from_secs(5)).await;
    assert_eq!(written(&brokers, 1)[0].2, "after");
}

/// An output that has written "hello" with `key`. The broker answers late, and refuses the next batch for a moment.
async fn greeted(
    cluster: &MockCluster<'_, rdkafka::producer::DefaultProducerContext>,
    key: &str,
    more: &str,
) -> KafkaOutput {
    cluster.create_topic("t", 4, 1).unwrap();
    let mut output = output(&format!("{{brokers: '{}', topic: t, linger_ms: 0{more}}}", cluster.bootstrap_servers()));
    output.connect(&context()).await.unwrap();
    output.write(&parcel(&[(key, "hello")], false)).await.await.unwrap();
    cluster.broker_round_trip_time(1, Duration::from_millis(300)).unwrap();
    let not_leader = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    cluster.request_errors(RDKafkaApiKey::Produce, &[not_leader]);
    output
}

#[tokio::test]
async fn messages_that_only_a_later_batch_vouches_for_are_written_again() {
    let cluster = MockCluster::new(1).unwrap();
    let mut output = greeted(&cluster, "k", ", options: {batch.num.messages: 1}").await;
    // Refuses the first batch and, not knowing the producer, takes the second: Kafka 4.4 does the same.
    let first = output.write(&parcel(&[("k", "first")], false)).await;
    let second = output.write(&parcel(&[("k", "second")], false)).await;
    let error = first.await.unwrap_err();
    assert!(error.rejected.is_empty(), "{error:?}");
    let retry = error.retry.unwrap();
    assert!(matches!(retry.messages, Pending::All), "{retry:?}");
    assert!(retry.reason.contains("refused messages for topic `t` for a moment"), "{}", retry.reason);
    second.await.unwrap();
    output.write(&parcel(&[("k", "first")], false)).await.await.unwrap();
    output.close(Duration::from_secs(5)).await;
    let payloads: Vec<_> =
        written(&cluster.bootstrap_servers(), 3).into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(payloads, ["first", "hello", "second"]);
}

#[tokio::test]
async fn a_first_message_that_is_refused_for_a_moment_keeps_its_place() {
    let cluster = MockCluster::new(1).unwrap();
    let elsewhere = ["a", "b", "c", "d", "e"]
        .into_iter()
        .find(|key| partitioner::of_key(key.as_bytes(), 4) != partitioner::of_key(b"k", 4))
        .expect("not all keys go to one partition");
    let mut output = greeted(&cluster, elsewhere, "").await;
    let started = tokio::time::Instant::now();
    let first = output.write(&parcel(&[("k", "first"), ("k", "second")], false)).await;
    let second = output.write(&parcel(&[("k", "third")], true)).await;
    first.await.unwrap();
    second.await.unwrap();
    assert!(started.elapsed() > Duration::from_millis(600), "it was refused, and sent again");
    output.close(Duration::from_secs(5)).await;
    let mut seen = unsorted(&cluster.bootstrap_servers(), 4);
    seen.retain(|(_, key, _)| key == "k");
    let payloads: Vec<_> = seen.into_iter().map(|(_, _, payload)| payload).collect();
    assert_eq!(payloads, ["first", "second", "third"]);
}

#[tokio::test]
async fn a_first_message_that_is_refused_for_good_does_not_hold_up_the_rest() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 4, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut output = output(&format!("{{brokers: '{brokers}', topic: t, message_bytes_max: 2000}}"));
    output.connect(&context()).await.unwrap();
    // The first is refused here; the second by the broker, until it comes alone.
    let too_large = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    let large = "x".repeat(3000);
    let messages = [("k", large.as_str()), ("k", "one"), ("k", "two"), ("k", "three")];
    let error = output.write(&parcel(&messages, false)).await.await.unwrap_err();
    assert!(error.retry.is_none(), "{error:?}");
    let rejected: Vec<_> = error.rejected.iter().map(|r| (r.index, r.code.as_str())).collect();
    assert_eq!(rejected, [(0, "message-too-large")]);
    output.close(Duration::from_secs(5)).await;
    assert_eq!(written(&brokers, 3).len(), 3);
}
