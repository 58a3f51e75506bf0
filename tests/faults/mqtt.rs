//! MQTT's own faults: sessions that are lost or taken over, messages that come again, consumers that are too slow, and
//! every quality of service.
use std::time::Duration;

use rand::Rng as _;

use crate::{
    common::{
        self, Case, MQTT_TO_KAFKA, Stack, Streamer, at_least, case, dice, equal, full, load::Load, mqtt, note,
        streamer::outage,
    },
    kills::kill_again_and_again,
    proxy::{Fate, Half, Proxy},
    report::Scenario,
    wait_sent,
};

const QOS: &str = "      qos: 1\n";

/// Messages numbered from 0, published with this quality of service until it is stopped.
fn load(case: &Case, qos: u8, per_second: u32) -> Load {
    let mut publisher = case.publisher();
    publisher.qos = qos;
    let id = case.id.clone();
    Load::start(per_second, move |numbers| {
        publisher.publish(&numbers.map(|seq| case::telemetry(&id, seq)).collect::<Vec<_>>());
    })
}

/// Waits until the connection to the broker was lost so often and works again.
fn wait_reconnects(streamer: &Streamer, count: u32) {
    streamer.eventually("the connection is lost", || {
        at_least(streamer.metric("streamer_reconnects_total", &[r#"kind="input""#])?, f64::from(count))
    });
    streamer.wait_ready();
}

/// The broker has forgotten the session: its messages are gone, and so is the subscription. What is published once
/// streamer is back arrives.
#[test]
fn a_lost_session_is_made_again() {
    let mut scenario = Scenario::new("mqtt::session_lost");
    let case = Case::new(&Stack::running(), "lost");
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let mut publisher = case.publisher();
    let rounds = full(3, 20);
    for round in 0..=rounds {
        if round > 0 {
            mqtt::forget(&case.stack.mqtt, &case.id).expect("the broker takes the other client");
            scenario.fault();
            wait_reconnects(&streamer, round);
        }
        publisher.publish(&(round * 500..(round + 1) * 500).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    }
    scenario.topic_has(&case, &streamer, (rounds + 1) * 500);
}

/// Another client takes the session over, gets messages and acknowledges none. They come back with the session.
#[test]
fn a_second_client_with_the_same_id_takes_nothing_away() {
    let mut scenario = Scenario::new("mqtt::same_client_id");
    let case = Case::new(&Stack::running(), "twin");
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let load = load(&case, 1, 500);
    let mut dice = dice();
    for round in 1..=full(3, 20) {
        let twin = mqtt::take_over(&case.stack.mqtt, &case.id).expect("the broker takes the other client");
        scenario.fault();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..1000)));
        drop(twin);
        wait_reconnects(&streamer, round);
        wait_sent(&load, load.sent() + 200);
    }
    let (_, health) = streamer.get("/health/ready").expect("streamer answers");
    // Mosquitto 2.0.11 closes the connection and does not say why.
    let says = ["does another client use the `client_id`", "another client took over this session"];
    assert!(says.iter().any(|text| health.contains(text)), "{health}");
    scenario.topic_has(&case, &streamer, load.stop());
}

/// Kafka answers nothing, then the connection to the broker breaks: all that is on its way comes again with DUP set.
/// It still is on its way, so it is not written twice.
#[test]
fn messages_that_come_again_while_they_are_on_their_way_are_written_once() {
    let mut scenario = Scenario::new("mqtt::redelivered_with_dup");
    let mut case = Case::new(&Stack::running(), "dup");
    let (broker, brokers) = (Proxy::new(&case.stack.mqtt), Proxy::kafka(&case.stack.kafka));
    let (host, port) = broker.address.split_once(':').expect("host:port");
    case.environment.insert("MQTT_BROKER", host.to_owned());
    case.environment.insert("MQTT_PORT", port.to_owned());
    case.environment.insert("KAFKA_BOOTSTRAP", brokers.address.clone());
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let load = load(&case, 1, 500);
    streamer.wait_deliveries(200);
    for round in 1..=full(2, 20) {
        brokers.set(|| Fate::Hang(Half::Answers, 0));
        wait_sent(&load, load.sent() + 1000);
        broker.cut();
        scenario.fault();
        streamer.eventually("the connection is lost", || {
            at_least(streamer.metric("streamer_reconnects_total", &[r#"kind="input""#])?, f64::from(round))
        });
        wait_sent(&load, load.sent() + 500);
        brokers.set(|| Fate::Pass);
        streamer.wait_ready();
        wait_sent(&load, load.sent() + 500);
    }
    let tally = scenario.topic_has(&case, &streamer, load.stop());
    assert_eq!(tally.duplicated, 0, "a broken connection alone doubles nothing");
}

/// The line to Kafka is far slower than the devices. The broker keeps what streamer cannot take.
#[test]
fn a_slow_line_to_kafka_loses_nothing() {
    let mut scenario = Scenario::new("mqtt::slow_consumer");
    let mut case = Case::new(&Stack::running(), "slow");
    let brokers = Proxy::kafka(&case.stack.kafka);
    case.environment.insert("KAFKA_BOOTSTRAP", brokers.address.clone());
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let mut publisher = case.publisher();
    let id = case.id.clone();
    let load = Load::start(3000, move |numbers| {
        let mut dice = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(numbers.start.into());
        let padded = numbers.map(|seq| {
            let mut reading = case::reading(seq);
            let noise: String = (0..500).map(|_| char::from(dice.random_range(b'0'..=b'z'))).collect();
            reading["padding"] = noise.into();
            (case::telemetry(&id, seq).0, reading.to_string().into_bytes())
        });
        publisher.publish(&padded.collect::<Vec<_>>());
    });
    for _ in 0..full(1, 5) {
        brokers.set(|| Fate::Rate(Half::Requests, 50_000));
        scenario.fault();
        outage(full(10, 60));
        brokers.set(|| Fate::Pass);
        outage(3);
    }
    scenario.topic_has(&case, &streamer, load.stop());
}

/// Kills streamer under a load of this quality of service, published and subscribed to.
fn killed(scenario: &mut Scenario, qos: u8) -> (Case, Streamer, u32) {
    let case = Case::new(&Stack::running(), "qos");
    let file = case.changed(MQTT_TO_KAFKA, &[(QOS, &format!("      qos: {qos}\n"))]);
    let mut streamer = Streamer::start(&case, &[file]);
    streamer.wait_ready();
    let load = load(&case, qos, 500);
    kill_again_and_again(scenario, &mut streamer, &mut dice(), full(3, 20));
    let sent = load.stop();
    (case, streamer, sent)
}

#[test]
fn quality_2_loses_nothing() {
    let mut scenario = Scenario::new("mqtt::quality_2");
    let (case, streamer, sent) = killed(&mut scenario, 2);
    scenario.topic_has(&case, &streamer, sent);
}

/// The broker keeps nothing of quality 0 for a client that is away. Were the other scenarios unable to see a loss, they
/// would not see this one.
#[test]
fn quality_0_loses_messages_when_it_dies_so_the_count_sees_them() {
    let (case, streamer, sent) = killed(&mut Scenario::new("mqtt::quality_0"), 0);
    let mut last = 0;
    let arrived = streamer.eventually("no more arrives", || {
        std::thread::sleep(Duration::from_secs(2));
        let before = std::mem::replace(&mut last, case.in_topic()?.1.len());
        equal(last, before).map(|()| last)
    });
    note(format!("{sent} sent, {arrived} arrived"));
    assert!(common::complete(&case.in_topic().expect("Kafka answers").1, sent).is_err(), "the kills lost nothing");
}

/// Quality 0 promises nothing, and yet nothing is lost as long as nobody fails.
#[test]
fn quality_0_loses_nothing_while_all_is_well() {
    let mut scenario = Scenario::new("mqtt::quality_0_in_peace");
    let case = Case::new(&Stack::running(), "peace");
    let streamer = Streamer::start(&case, &[case.changed(MQTT_TO_KAFKA, &[(QOS, "      qos: 0\n")])]);
    streamer.wait_ready();
    let load = load(&case, 0, 500);
    wait_sent(&load, full(2000, 20_000));
    let tally = scenario.topic_has(&case, &streamer, load.stop());
    assert_eq!((tally.duplicated, tally.out_of_order), (0, Some(0)));
}

/// What brokers retain was there before streamer came. It arrives, whatever happens meanwhile.
#[test]
fn retained_messages_arrive() {
    let mut scenario = Scenario::new("mqtt::retained");
    let case = Case::new(&Stack::running(), "retain");
    let mut publisher = case.publisher();
    publisher.retain = true;
    publisher.publish(&(0..case::DEVICES).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    let mut streamer = case.start(&[MQTT_TO_KAFKA]);
    publisher.retain = false;
    let mut sent = case::DEVICES;
    for _ in 0..full(3, 20) {
        streamer.wait_ready();
        publisher.publish(&(sent..sent + 200).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
        sent += 200;
        streamer.kill9();
        scenario.fault();
        streamer.start_again();
    }
    scenario.topic_has(&case, &streamer, sent);
    // An empty one takes the retained one away.
    publisher.retain = true;
    let empty = (0..case::DEVICES).map(|seq| (case.telemetry(seq).0, Vec::new()));
    publisher.publish(&empty.collect::<Vec<_>>());
}
