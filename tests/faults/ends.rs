//! How a process ends or is replaced: in order or not, at work or stuck. Nothing that was read is lost.
use std::time::Duration;

use rand::Rng as _;

use crate::{
    common::{
        Case, MQTT_TO_KAFKA, Stack, Streamer, at_least, dice, full, kafka::Producer, load::Load, root, stack::OwnStack,
        streamer::outage,
    },
    into_table,
    report::Scenario,
    static_member, stop, wait_sent,
};

/// How an open write ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Kill9,
    Sigterm,
}

/// The end comes when messages are read and cannot be written: whatever was acknowledged by then is lost for good.
fn ended_with_everything_in_flight(name: &'static str, end: End) {
    let mut scenario = Scenario::new(name);
    const SENT: u32 = 2000;
    // Long enough for Kafka positions to be committed (every second) and MQTT messages to be acknowledged.
    const SECONDS: u64 = 3;
    let own = OwnStack::take();
    let mqtt = Case::new(&own.stack, "midwaym");
    let table = Case::new(&own.stack, "midwayk");
    table.create_table();
    let limits = [("\ndead_letter:\n", "\nlimits: { shutdown_timeout_ms: 2000 }\ndead_letter:\n")];
    let mut to_kafka = Streamer::start(&mqtt, &[mqtt.changed(MQTT_TO_KAFKA, &limits)]);
    let mut to_table = Streamer::start(&table, &[into_table(&table, &limits)]);
    let mut producer = Producer::new(&own.stack.kafka);
    let (key, value) = table.wrapped(0);
    producer.send(table.kafka_topic(), None, &key, Some(&value));
    to_kafka.wait_ready();
    mqtt.publisher().publish(&[mqtt.telemetry(0)]);
    // Both have written once, so all that is missing from now on is the answer to a write.
    to_kafka.wait_deliveries(1);
    to_table.wait_deliveries(1);

    // Killed, not frozen: a frozen service has the first writes in its sockets and carries them out when it thaws.
    own.act("kill", "clickhouse");
    for seq in 1..SENT {
        let (key, value) = table.wrapped(seq);
        producer.send(table.kafka_topic(), None, &key, Some(&value));
    }
    // One message of each will be a dead letter, and must not be acknowledged before that is written either.
    let too_high = format!(r#"{{"payload":{{"device_id":"bad","ts":{SENT},"battery":300}}}}"#);
    producer.send(table.kafka_topic(), None, "bad", Some(too_high.as_bytes()));
    producer.flush();
    let all_read = |streamer: &Streamer| {
        streamer.eventually("all is read", || {
            at_least(streamer.metric("streamer_received_messages_total", &[])?, f64::from(SENT + 1))
        });
    };
    all_read(&to_table);
    outage(SECONDS);
    own.act("kill", "kafka");
    let mut messages: Vec<_> = (1..SENT).map(|seq| mqtt.telemetry(seq)).collect();
    messages.push((mqtt.mqtt_topic("bad"), [format!(r#"{{"ts":{SENT}}}"#).as_bytes(), b"\xff"].concat()));
    mqtt.publisher().publish(&messages);
    all_read(&to_kafka);
    outage(SECONDS);
    for streamer in [&mut to_kafka, &mut to_table] {
        scenario.fault();
        match end {
            End::Kill9 => streamer.kill9(),
            End::Sigterm => assert_eq!(streamer.terminate().code(), Some(0), "it was told to stop and did"),
        }
    }
    own.act("start", "kafka");
    own.act("start", "clickhouse");
    to_kafka.start_again();
    to_table.start_again();
    scenario.topic_has_all_but(&mqtt, &to_kafka, 0..=SENT, |seq| seq == SENT);
    scenario.table_has_all_but(&table, &to_table, 0..SENT + 1, |seq| seq == SENT);
}

#[test]
fn kill_9_with_everything_in_flight_loses_nothing() {
    ended_with_everything_in_flight("ends::kill_9_with_all_in_flight", End::Kill9);
}

#[test]
fn sigterm_with_everything_in_flight_loses_nothing() {
    ended_with_everything_in_flight("ends::sigterm_with_all_in_flight", End::Sigterm);
}

/// Told to stop under load again and again, it stops in order, and so repeats nothing.
#[test]
fn sigterm_under_load_loses_nothing_and_repeats_nothing() {
    let mut scenario = Scenario::new("ends::sigterm_under_load");
    let case = Case::new(&Stack::running(), "sigterm");
    case.create_table();
    let files = [root().join(format!("pipelines/{MQTT_TO_KAFKA}.yaml")), static_member(&case)];
    let mut streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    let mut dice = dice();
    for _ in 0..full(4, 50) {
        if dice.random_ratio(3, 4) {
            streamer.wait_deliveries(200);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..1000)));
        stop(&mut streamer);
        scenario.fault();
        streamer.start_again();
    }
    let tally = scenario.topic_has(&case, &streamer, load.stop());
    assert_eq!(tally.duplicated, 0, "whoever stops in order acknowledges what it wrote");
    scenario.table_has_topic(&case, &streamer);
}

/// Told to stop while an output is down: it does not wait for ever, and what it has read comes again.
#[test]
fn sigterm_while_outputs_are_down_loses_nothing() {
    let mut scenario = Scenario::new("ends::sigterm_while_outputs_are_down");
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "down");
    case.create_table();
    let limits = [("\ndead_letter:\n", "\nlimits: { shutdown_timeout_ms: 2000 }\ndead_letter:\n")];
    let files = [case.changed(MQTT_TO_KAFKA, &limits), into_table(&case, &limits)];
    let mut streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    for service in ["clickhouse", "kafka"].into_iter().cycle().take(full(2, 10)) {
        streamer.wait_deliveries(500);
        own.act("kill", service);
        wait_sent(&load, load.sent() + 1000);
        assert_eq!(streamer.terminate().code(), Some(0), "it was told to stop and did");
        scenario.fault();
        own.act("start", service);
        streamer.start_again();
    }
    scenario.topic_has(&case, &streamer, load.stop());
    scenario.table_has_topic(&case, &streamer);
}

/// Both pipelines are edited under load; an edit replaces a pipeline in order, and so repeats nothing.
#[test]
fn reloads_under_load_lose_nothing_and_repeat_nothing() {
    let mut scenario = Scenario::new("ends::reloads_under_load");
    let case = Case::new(&Stack::running(), "reload");
    case.create_table();
    let files = [case.changed(MQTT_TO_KAFKA, &[]), static_member(&case)];
    let streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    let mut dice = dice();
    for edit in 1..=full(5, 50_u32) {
        let file = &files[dice.random_range(0..files.len())];
        let text = std::fs::read_to_string(file).expect("it was just written");
        let new = file.with_extension("new");
        let rest: Vec<_> = text.lines().filter(|line| !line.starts_with("description:")).collect();
        let text = format!("description: edit {edit}\n{}\n", rest.join("\n"));
        std::fs::write(&new, text).expect("it can be written");
        std::fs::rename(&new, file).expect("it can be put in place");
        scenario.fault();
        streamer.eventually("the change is noticed", || {
            at_least(streamer.metric("streamer_reloads_total", &[r#"result="ok""#])?, f64::from(edit))
        });
        std::thread::sleep(Duration::from_millis(dice.random_range(0..1000)));
    }
    let tally = scenario.topic_has(&case, &streamer, load.stop());
    assert_eq!(tally.duplicated, 0, "a reload repeats nothing that was acknowledged");
    scenario.table_has_topic(&case, &streamer);
}
