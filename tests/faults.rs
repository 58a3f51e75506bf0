//! Services that are absent, die, freeze or come late: nothing is lost at the far end, streamer lives on, and says what
//! is wrong without flooding its log. The tests bring up a stack of their own, since they break it, one after the other.
mod common;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use common::{
    Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Streamer, at_least, case, equal, full,
    kafka::{self, Producer},
    load::Load,
    note,
    stack::OwnStack,
    streamer::outage,
};

const MQTT_INPUT: &str = "mqtt-to-kafka/input/devices";
const KAFKA_OUTPUT: &str = "mqtt-to-kafka/output/telemetry";
const CLICKHOUSE_OUTPUT: &str = "kafka-to-clickhouse/output/table";

/// Most warnings of one outage. Several components use one service, and each may give a few reasons one after the
/// other (reset, refused, not ready yet); a line for each attempt would be hundreds.
const WARNINGS_MAX: usize = 15;

#[track_caller]
fn says_little(streamer: &Streamer) {
    let warnings = streamer.log_lines("WARN");
    note(format!("{} warnings: {warnings:#?}", warnings.len()));
    assert!(!warnings.is_empty(), "an outage is worth a warning");
    assert!(warnings.len() <= WARNINGS_MAX, "{} warnings: {warnings:#?}", warnings.len());
    assert_eq!(streamer.log_lines("ERROR"), [""; 0], "nothing was lost");
}

/// `service` is absent when streamer starts, and comes later.
fn absent_at_start(service: &str, component: &str) {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "absent");
    case.create_table();
    own.act("stop", service);
    let streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_fault(component);
    own.act("start", service);
    streamer.wait_ready();
    let messages: Vec<_> = (0..1000).map(|seq| case.telemetry(seq)).collect();
    case.publisher().publish(&messages);
    case.nothing_lost_in_table(&streamer, 1000);
    says_little(&streamer);
}

#[test]
fn mosquitto_may_come_after_streamer() {
    absent_at_start("mosquitto", MQTT_INPUT);
}

#[test]
fn kafka_may_come_after_streamer() {
    absent_at_start("kafka", KAFKA_OUTPUT);
}

#[test]
fn clickhouse_may_come_after_streamer() {
    absent_at_start("clickhouse", CLICKHOUSE_OUTPUT);
}

/// `service` goes away under load, by `verb`, and comes back. Answers how many messages were sent when all worked again.
fn away_under_load(own: &OwnStack, case: &Case, verb: &str, service: &str, component: &str) -> (Streamer, Load, u32) {
    case.create_table();
    let streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let load = Load::mqtt(case, 500);
    streamer.wait_deliveries(500);
    own.act(verb, service);
    streamer.wait_fault(component);
    own.act("start", service);
    streamer.wait_ready();
    let sent = load.sent();
    wait_until_sent(&load, sent + 500);
    (streamer, load, sent)
}

fn wait_until_sent(load: &Load, count: u32) {
    common::eventually("the load goes on", || at_least(load.sent(), count));
}

#[test]
fn kafka_killed_under_load_loses_nothing() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "kafka");
    let (streamer, load, _) = away_under_load(&own, &case, "kill", "kafka", KAFKA_OUTPUT);
    case.nothing_lost_in_table(&streamer, load.stop());
    says_little(&streamer);
}

#[test]
fn clickhouse_killed_under_load_loses_nothing() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "clickhouse");
    let (streamer, load, _) = away_under_load(&own, &case, "kill", "clickhouse", CLICKHOUSE_OUTPUT);
    case.nothing_lost_in_table(&streamer, load.stop());
    says_little(&streamer);
}

#[test]
fn mosquitto_stopped_under_load_loses_nothing() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "mosquitto");
    let (streamer, load, _) = away_under_load(&own, &case, "stop", "mosquitto", MQTT_INPUT);
    case.nothing_lost_in_table(&streamer, load.stop());
    says_little(&streamer);
}

/// Mosquitto saves what it keeps every second or two, not before it acknowledges: killed, it forgets what it took since,
/// whoever its client is. So this test counts what was sent after it came back.
#[test]
fn mosquitto_killed_under_load_is_found_again() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "mosquitto");
    let (streamer, load, since) = away_under_load(&own, &case, "kill", "mosquitto", MQTT_INPUT);
    let sent = load.stop();
    streamer.eventually("every message that was sent since has its row", || {
        let (_, seqs) = case.in_table()?;
        let missing: BTreeSet<_> = (since..sent).filter(|seq| !seqs.contains(seq)).collect();
        equal(missing, BTreeSet::new())
    });
    says_little(&streamer);
}

#[test]
fn a_table_that_is_missing_for_20_seconds_is_waited_for() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "table");
    let create = "      create: ../schemas/telemetry.sql      # run once when the table is missing\n";
    let pipeline = case.changed(KAFKA_TO_CLICKHOUSE, &[(create, "")]);
    let mut producer = Producer::new(&own.stack.kafka);
    for seq in 0..1000 {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), None, &key, Some(&value));
    }
    producer.flush();
    let streamer = Streamer::start(&case, &[pipeline]);
    let reason = streamer.wait_fault(CLICKHOUSE_OUTPUT);
    assert!(reason.contains(case.table()), "`{reason}` does not name {}", case.table());
    outage(20);
    case.create_table();
    streamer.wait_ready();
    assert_eq!(case.nothing_lost_in_table(&streamer, 1000), 0, "rows that came twice");
    assert_eq!(kafka::read_all(&own.stack.kafka, case.dead_letter_topic()).unwrap().len(), 0);
    says_little(&streamer);
}

#[test]
fn a_frozen_kafka_costs_neither_memory_nor_the_mqtt_session() {
    const RSS_BYTES_MAX: u64 = 400 << 20;
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "frozen");
    // Mosquitto cuts off a client that is silent for 1.5 times this.
    let pipeline = case.changed(MQTT_TO_KAFKA, &[("      qos: 1\n", "      qos: 1\n      keep_alive_s: 5\n")]);
    let mut streamer = Streamer::start(&case, &[pipeline]);
    streamer.wait_ready();
    let mut publisher = case.publisher();
    let id = case.id.clone();
    let load = Load::start(2000, move |numbers| {
        let padded = numbers.map(|seq| {
            let mut reading = case::reading(seq);
            reading["padding"] = "x".repeat(4000).into();
            (case::telemetry(&id, seq).0, reading.to_string().into_bytes())
        });
        publisher.publish(&padded.collect::<Vec<_>>());
    });
    streamer.wait_deliveries(500);
    own.act("pause", "kafka");
    let (frozen, sent, mut rss) = (Instant::now(), load.sent(), 0);
    while frozen.elapsed() < Duration::from_secs(15) {
        assert!(streamer.is_running());
        rss = rss.max(streamer.rss_bytes());
        std::thread::sleep(Duration::from_millis(100));
    }
    let meanwhile = load.sent() - sent;
    own.act("resume", "kafka");
    note(format!("{meanwhile} messages published while Kafka was frozen; at most {} MiB in use", rss >> 20));
    assert!(meanwhile > 0, "devices publish on");
    assert!(rss < RSS_BYTES_MAX, "{rss} bytes in use");
    case.nothing_lost_in_topic(&streamer, load.stop());
    let reconnects = streamer.metric("streamer_reconnects_total", &[r#"kind="input""#]).unwrap();
    assert_eq!(reconnects, 0.0);
    // Mosquitto holds back the last lines of its log until it stops.
    own.act("stop", "mosquitto");
    let log = own.log("mosquitto");
    let of_client: Vec<_> = log.lines().filter(|line| line.contains(&format!(" {} ", case.id))).collect();
    let connected = of_client.iter().filter(|line| line.contains("New client connected")).count();
    assert_eq!(connected, 1, "the session was lost: {of_client:#?}");
}

/// A lone broker that is frozen for longer than its own controller waits is fenced, and for a moment answers without any
/// broker. A client that believes it has nobody left to ask.
#[test]
fn a_kafka_that_is_frozen_again_and_again_is_found_again() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "thawed");
    case.create_table();
    // Asks so often that it also does in that moment.
    let brokers = "      brokers: ${KAFKA_BOOTSTRAP:-localhost:9092}\n";
    let asks = format!("{brokers}      options: {{topic.metadata.refresh.interval.ms: 20}}\n");
    let files = [
        case.changed(MQTT_TO_KAFKA, &[(brokers, &asks)]),
        case.changed(KAFKA_TO_CLICKHOUSE, &[(brokers, &asks), ("create: ../schemas/telemetry.sql ", "# ")]),
    ];
    let mut streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    streamer.wait_deliveries(500);
    for _ in 0..full(2, 20) {
        own.act("pause", "kafka");
        outage(15);
        assert!(streamer.is_running());
        own.act("resume", "kafka");
        let sent = load.sent();
        wait_until_sent(&load, sent + 500);
        streamer.wait_ready();
    }
    case.nothing_lost_in_table(&streamer, load.stop());
    let reminded = streamer.log_lines("WARN").iter().filter(|line| line.contains("dropped all its brokers")).count();
    note(format!("{reminded} clients had dropped all their brokers"));
}

#[test]
fn a_frozen_clickhouse_loses_nothing() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "frozen");
    case.create_table();
    let mut streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    streamer.wait_deliveries(500);
    own.act("pause", "clickhouse");
    outage(15);
    assert!(streamer.is_running());
    own.act("resume", "clickhouse");
    let sent = load.sent();
    wait_until_sent(&load, sent + 500);
    case.nothing_lost_in_table(&streamer, load.stop());
    let warnings = streamer.log_lines("WARN");
    assert!(warnings.len() <= WARNINGS_MAX, "{} warnings: {warnings:#?}", warnings.len());
}

/// How an open write ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Kill9,
    Sigterm,
}

/// The end comes when messages are read and cannot be written: whatever was acknowledged by then is lost for good.
fn ended_with_everything_in_flight(end: End) {
    const SENT: u32 = 2000;
    // Long enough for Kafka positions to be committed (every second) and MQTT messages to be acknowledged.
    const SECONDS: u64 = 3;
    let own = OwnStack::take();
    let mqtt = Case::new(&own.stack, "midwaym");
    let table = Case::new(&own.stack, "midwayk");
    table.create_table();
    let limits = [("\ndead_letter:\n", "\nlimits: { shutdown_timeout_ms: 2000 }\ndead_letter:\n")];
    let schema = common::root().join("schemas/telemetry.sql");
    let schema = [limits[0], ("../schemas/telemetry.sql", schema.to_str().expect("it is text"))];
    let mut to_kafka = Streamer::start(&mqtt, &[mqtt.changed(MQTT_TO_KAFKA, &limits)]);
    let mut to_table = Streamer::start(&table, &[table.changed(KAFKA_TO_CLICKHOUSE, &schema)]);
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
    let too_high = br#"{"payload":{"device_id":"bad","ts":1,"battery":300}}"#;
    producer.send(table.kafka_topic(), None, "bad", Some(too_high));
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
    messages.push((mqtt.mqtt_topic("bad"), b"\xff".to_vec()));
    mqtt.publisher().publish(&messages);
    all_read(&to_kafka);
    outage(SECONDS);
    for streamer in [&mut to_kafka, &mut to_table] {
        match end {
            End::Kill9 => streamer.kill9(),
            End::Sigterm => assert_eq!(streamer.terminate().code(), Some(0), "it was told to stop and did"),
        }
    }
    own.act("start", "kafka");
    own.act("start", "clickhouse");
    to_kafka.start_again();
    to_table.start_again();
    mqtt.nothing_lost_in_topic(&to_kafka, SENT);
    table.nothing_lost_in_table(&to_table, SENT);
    for (case, streamer) in [(&mqtt, &to_kafka), (&table, &to_table)] {
        streamer.eventually("the dead letter is there", || {
            at_least(kafka::read_all(&own.stack.kafka, case.dead_letter_topic())?.len(), 1)
        });
    }
}

#[test]
fn kill_9_with_everything_in_flight_loses_nothing() {
    ended_with_everything_in_flight(End::Kill9);
}

#[test]
fn sigterm_with_everything_in_flight_loses_nothing() {
    ended_with_everything_in_flight(End::Sigterm);
}
