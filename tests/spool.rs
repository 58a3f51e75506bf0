//! The spool on real services: Kafka away for longer than the MQTT session can wait, streamer killed meanwhile, a spool that
//! is full. Counted in Kafka; the services are a stack of our own, since it is broken.
mod common;

use std::collections::BTreeMap;

use common::{Case, MQTT_TO_KAFKA, Streamer, at_least, case, equal, kafka, note, stack::OwnStack};

/// More than the broker sends without an acknowledgement: 65,535.
const MORE_THAN_THE_WINDOW: u32 = 70_000;

/// Publishes messages `range` to MQTT, in order.
fn publish(case: &Case, range: std::ops::Range<u32>) {
    case.publisher().publish(&range.map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
}

/// Waits until everything sent is in Kafka, and checks that each device's messages came in order: a message that was
/// seen before may come again, together with what followed it then. Answers how many came twice.
#[track_caller]
fn in_order(case: &Case, streamer: &Streamer, sent: u32) -> usize {
    let duplicates = case.nothing_lost_in_topic(streamer, sent);
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for record in kafka::read_all(&case.stack.kafka, case.kafka_topic()).expect("kafka answers") {
        let seq = record.json()["payload"]["ts"].as_u64().expect("a number");
        let device = record.key.expect("every message has a key");
        let step = u64::from(case::DEVICES);
        let expected = next.entry(device.clone()).or_insert(seq % step);
        assert!(seq <= *expected, "{device}: {seq} came before {expected}");
        *expected = (*expected).max(seq + step);
    }
    duplicates
}

#[track_caller]
fn wait_state(streamer: &Streamer, what: &str, wanted: f64) {
    streamer.eventually(what, || equal(streamer.metric("streamer_spool_state", &[])?, wanted));
}

#[track_caller]
fn wait_spooled(streamer: &Streamer, messages: u32) {
    streamer.eventually("messages go to disk", || {
        at_least(streamer.metric("streamer_spool_messages", &[])?, f64::from(messages))
    });
}

#[track_caller]
fn wait_empty(streamer: &Streamer) {
    wait_state(streamer, "it is direct again", 0.0);
    streamer.eventually("nothing is on disk", || equal(streamer.metric("streamer_spool_bytes", &[])?, 0.0));
}

#[test]
fn kafka_frozen_while_more_comes_than_the_session_holds_loses_nothing_and_repeats_nothing() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "spool");
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    publish(&case, 0..1000);
    streamer.wait_deliveries(1000);
    assert_eq!(streamer.metric("streamer_spool_bytes", &[]).unwrap(), 0.0, "nothing is on disk");
    own.act("pause", "kafka");
    publish(&case, 1000..MORE_THAN_THE_WINDOW);
    wait_spooled(&streamer, MORE_THAN_THE_WINDOW - 1000);
    wait_state(&streamer, "it says so", 1.0);
    let (_, health) = streamer.get("/health/ready").unwrap();
    assert!(health.contains("spooling: ") && health.contains("messages wait on disk"), "{health}");
    note(health);
    own.act("resume", "kafka");
    assert_eq!(in_order(&case, &streamer, MORE_THAN_THE_WINDOW), 0, "an outage alone repeats nothing");
    wait_empty(&streamer);
    publish(&case, MORE_THAN_THE_WINDOW..MORE_THAN_THE_WINDOW + 100);
    assert_eq!(in_order(&case, &streamer, MORE_THAN_THE_WINDOW + 100), 0);
}

/// Killed with messages on disk that nobody else has: the broker has its acknowledgements.
#[test]
fn kill_9_while_spooling_and_while_draining_loses_nothing() {
    const SENT: u32 = 20_000;
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "spoolkill");
    let mut streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    publish(&case, 0..1000);
    streamer.wait_deliveries(1000);
    own.act("kill", "kafka");
    publish(&case, 1000..SENT);
    wait_spooled(&streamer, SENT - 1000);
    streamer.kill9();
    // Once more with Kafka away: the spool is found, and goes on.
    streamer.start_again();
    wait_spooled(&streamer, SENT - 1000);
    publish(&case, SENT..2 * SENT);
    wait_spooled(&streamer, 2 * SENT - 1000);
    streamer.kill9();
    own.act("start", "kafka");
    streamer.start_again();
    for _ in 0..3 {
        streamer.wait_deliveries(2000);
        streamer.kill9();
        streamer.start_again();
    }
    let duplicates = in_order(&case, &streamer, 2 * SENT);
    note(format!("{duplicates} came twice"));
    wait_empty(&streamer);
}

#[test]
fn a_full_spool_stops_acknowledging_says_so_and_loses_nothing() {
    const SENT: u32 = 60_000;
    let own = OwnStack::take();
    let mut case = Case::new(&own.stack, "spoolfull");
    case.environment.insert("SPOOL_BYTES_MAX", (4 << 20).to_string());
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    own.act("kill", "kafka");
    publish(&case, 0..SENT);
    let reason = streamer.wait_fault("mqtt-to-kafka/spool/devices");
    assert!(reason.contains("the spool is full: `bytes_max` is 4.0 MiB"), "{reason}");
    let bytes = streamer.metric("streamer_spool_bytes", &[]).unwrap();
    assert!((1.0..=f64::from(4 << 20)).contains(&bytes), "{bytes} bytes on disk");
    own.act("start", "kafka");
    assert_eq!(in_order(&case, &streamer, SENT), 0);
    streamer.wait_ready();
    wait_empty(&streamer);
}
