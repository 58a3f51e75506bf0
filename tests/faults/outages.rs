//! Services that are absent, die, freeze or come late: nothing is lost at the far end, streamer lives on, and says what
//! is wrong without flooding its log. The tests bring up a stack of their own, since they break it, one after the other.
use std::{
    ops::Range,
    time::{Duration, Instant},
};

use rand::Rng as _;

use crate::{
    common::{
        Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Streamer, at_least, case, dice, full, kafka::Producer, load::Load,
        note, stack::OwnStack, streamer::outage,
    },
    into_table,
    report::Scenario,
    wait_sent,
};

const MQTT_INPUT: &str = "mqtt-to-kafka/input/devices";
const KAFKA_OUTPUT: &str = "mqtt-to-kafka/output/telemetry";
const CLICKHOUSE_OUTPUT: &str = "kafka-to-clickhouse/output/table";

/// Most warnings of one outage. Several components use one service, and each may give a few reasons one after the
/// other (reset, refused, not ready yet); a line for each attempt would be hundreds.
const WARNINGS_MAX: usize = 15;

#[track_caller]
fn says_little(streamer: &Streamer, outages: usize) {
    let warnings = streamer.log_lines("WARN");
    note(format!("{} warnings: {warnings:#?}", warnings.len()));
    assert!(!warnings.is_empty(), "an outage is worth a warning");
    assert!(warnings.len() <= WARNINGS_MAX * outages, "{} warnings: {warnings:#?}", warnings.len());
    assert_eq!(streamer.log_lines("ERROR"), [""; 0], "nothing was lost");
}

/// `service` is absent when streamer starts, and comes later.
fn absent_at_start(name: &'static str, service: &str, component: &str) {
    let mut scenario = Scenario::new(name);
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "absent");
    case.create_table();
    own.act("stop", service);
    scenario.fault();
    let streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_fault(component);
    own.act("start", service);
    streamer.wait_ready();
    let messages: Vec<_> = (0..1000).map(|seq| case.telemetry(seq)).collect();
    case.publisher().publish(&messages);
    scenario.topic_has(&case, &streamer, 1000);
    scenario.table_has_topic(&case, &streamer);
    says_little(&streamer, 1);
}

#[test]
fn mosquitto_may_come_after_streamer() {
    absent_at_start("outages::mosquitto_comes_later", "mosquitto", MQTT_INPUT);
}

#[test]
fn kafka_may_come_after_streamer() {
    absent_at_start("outages::kafka_comes_later", "kafka", KAFKA_OUTPUT);
}

#[test]
fn clickhouse_may_come_after_streamer() {
    absent_at_start("outages::clickhouse_comes_later", "clickhouse", CLICKHOUSE_OUTPUT);
}

/// `service` goes away under load, by `verb`, and comes back, once or several times. Answers with each outage the
/// messages that were sent from a moment before it until all worked again.
fn away_under_load(
    scenario: &mut Scenario,
    own: &OwnStack,
    case: &Case,
    (verb, service, component): (&str, &str, &str),
) -> (Streamer, u32, Vec<Range<u32>>) {
    case.create_table();
    let streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let load = Load::mqtt(case, 500);
    streamer.wait_deliveries(500);
    let rounds = full(1, 5);
    let outages = (0..rounds).map(|_| {
        let before = load.sent();
        wait_sent(&load, before + 1000);
        own.act(verb, service);
        scenario.fault();
        streamer.wait_fault(component);
        own.act("start", service);
        streamer.wait_ready();
        before..load.sent()
    });
    let outages: Vec<_> = outages.collect();
    wait_sent(&load, load.sent() + 500);
    (streamer, load.stop(), outages)
}

/// A service goes away under load, and nothing is lost.
fn lost_under_load(name: &'static str, verb: &str, service: &str, component: &str) {
    let mut scenario = Scenario::new(name);
    let own = OwnStack::take();
    let case = Case::new(&own.stack, service);
    let (streamer, sent, outages) = away_under_load(&mut scenario, &own, &case, (verb, service, component));
    scenario.topic_has(&case, &streamer, sent);
    scenario.table_has_topic(&case, &streamer);
    says_little(&streamer, outages.len());
}

#[test]
fn kafka_killed_under_load_loses_nothing() {
    lost_under_load("outages::kafka_killed", "kill", "kafka", KAFKA_OUTPUT);
}

#[test]
fn clickhouse_killed_under_load_loses_nothing() {
    lost_under_load("outages::clickhouse_killed", "kill", "clickhouse", CLICKHOUSE_OUTPUT);
}

#[test]
fn mosquitto_stopped_under_load_loses_nothing() {
    lost_under_load("outages::mosquitto_stopped", "stop", "mosquitto", MQTT_INPUT);
}

/// Mosquitto saves what it keeps every second or two, not before it acknowledges: killed, it forgets what it took since,
/// whoever its client is. So this test leaves out what was sent from a moment before it died until it was back.
#[test]
fn mosquitto_killed_under_load_is_found_again() {
    let mut scenario = Scenario::new("outages::mosquitto_killed");
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "mosquitto");
    let what = ("kill", "mosquitto", MQTT_INPUT);
    let (streamer, sent, outages) = away_under_load(&mut scenario, &own, &case, what);
    let counted = (0..sent).filter(|seq| !outages.iter().any(|outage| outage.contains(seq)));
    scenario.topic_has_all_but(&case, &streamer, counted, |_| false);
    scenario.table_has_topic(&case, &streamer);
    says_little(&streamer, outages.len());
}

/// A service is frozen under load, and nothing is lost. Its clients are not told: their connections stay.
fn frozen_under_load(name: &'static str, service: &str) {
    let mut scenario = Scenario::new(name);
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "frozen");
    case.create_table();
    let mut streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    streamer.wait_deliveries(500);
    let mut dice = dice();
    let rounds = full(1, 5);
    for _ in 0..rounds {
        own.act("pause", service);
        scenario.fault();
        outage(full(15, dice.random_range(20..=60)));
        assert!(streamer.is_running());
        own.act("resume", service);
        wait_sent(&load, load.sent() + 500);
        streamer.wait_ready();
    }
    scenario.topic_has(&case, &streamer, load.stop());
    scenario.table_has_topic(&case, &streamer);
    let warnings = streamer.log_lines("WARN");
    assert!(warnings.len() <= WARNINGS_MAX * rounds, "{} warnings: {warnings:#?}", warnings.len());
}

#[test]
fn a_frozen_clickhouse_loses_nothing() {
    frozen_under_load("outages::clickhouse_frozen", "clickhouse");
}

#[test]
fn a_frozen_mosquitto_loses_nothing() {
    frozen_under_load("outages::mosquitto_frozen", "mosquitto");
}

#[test]
#[ignore = "takes minutes; the short form is a_kafka_that_is_frozen_again_and_again_is_found_again"]
fn a_kafka_that_is_frozen_for_long_loses_nothing() {
    frozen_under_load("outages::kafka_frozen", "kafka");
}

#[test]
fn a_table_that_is_missing_for_20_seconds_is_waited_for() {
    let mut scenario = Scenario::new("outages::a_table_is_missing");
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
    scenario.fault();
    outage(20);
    case.create_table();
    streamer.wait_ready();
    assert_eq!(scenario.table_has(&case, &streamer, 1000).dead_lettered, 0);
    says_little(&streamer, 1);
}

#[test]
fn a_frozen_kafka_costs_neither_memory_nor_the_mqtt_session() {
    const RSS_BYTES_MAX: u64 = 400 << 20;
    let mut scenario = Scenario::new("outages::kafka_frozen_memory");
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
    scenario.fault();
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
    scenario.topic_has(&case, &streamer, load.stop());
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
    let mut scenario = Scenario::new("outages::kafka_frozen_again_and_again");
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "thawed");
    case.create_table();
    // Asks so often that it also does in that moment.
    let brokers = "      brokers: ${KAFKA_BOOTSTRAP:-localhost:9092}\n";
    let asks = format!("{brokers}      options: {{topic.metadata.refresh.interval.ms: 20}}\n");
    let files = [case.changed(MQTT_TO_KAFKA, &[(brokers, &asks)]), into_table(&case, &[(brokers, &asks)])];
    let mut streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    streamer.wait_deliveries(500);
    for _ in 0..full(2, 20) {
        own.act("pause", "kafka");
        scenario.fault();
        outage(15);
        assert!(streamer.is_running());
        own.act("resume", "kafka");
        wait_sent(&load, load.sent() + 500);
        streamer.wait_ready();
        // Ready is what it says; rows are what it does.
        let rows = || streamer.metric("streamer_delivered_messages_total", &["kafka-to-clickhouse", "kind=\"output\""]);
        let before = rows().unwrap();
        streamer.eventually("more rows are written", || at_least(rows()?, before + 500.0));
    }
    scenario.topic_has(&case, &streamer, load.stop());
    scenario.table_has_topic(&case, &streamer);
    let reminded = streamer.log_lines("WARN").iter().filter(|line| line.contains("dropped all its brokers")).count();
    note(format!("{reminded} clients had dropped all their brokers"));
}

/// Kafka is away for as long as devices take to send what ten minutes bring, published as fast as it goes to disk. What is
/// in memory stays within bounds; when Kafka is back, every message comes once, each device's in order.
#[test]
fn kafka_away_for_ten_minutes_of_messages_loses_and_repeats_nothing() {
    const RSS_BYTES_MAX: u64 = 512 << 20;
    const STEP: u32 = 10_000;
    let mut scenario = Scenario::new("outages::kafka_away_for_long");
    let own = OwnStack::take();
    let mut case = Case::new(&own.stack, "long");
    case.environment.insert("STREAMER_MEMORY_BYTES_MAX", (64 << 20).to_string());
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let mut publisher = case.publisher();
    // In full half a GB, which is more than all may take, and far more than the pipeline may hold.
    let padding = "x".repeat(full(200, 1500));
    let mut publish = |range: Range<u32>| {
        let padded = range.map(|seq| {
            let mut reading = case::reading(seq);
            reading["padding"] = padding.clone().into();
            (case.telemetry(seq).0, reading.to_string().into_bytes())
        });
        publisher.publish(&padded.collect::<Vec<_>>());
    };
    publish(0..STEP);
    streamer.wait_deliveries(STEP);
    own.act("kill", "kafka");
    scenario.fault();
    let (sent, mut rss) = (full(30_000, 300_000), 0);
    for first in (STEP..sent).step_by(STEP as usize) {
        publish(first..first + STEP);
        // Faster than that, the broker's own queue would run over.
        streamer.eventually("messages go to disk", || {
            rss = rss.max(streamer.rss_bytes());
            at_least(streamer.metric("streamer_spool_messages", &[])?, f64::from(first))
        });
    }
    own.act("start", "kafka");
    streamer.eventually("Kafka gets what is on disk", || {
        rss = rss.max(streamer.rss_bytes());
        let delivered = streamer.metric("streamer_delivered_messages_total", &[r#"label="telemetry""#])?;
        at_least(delivered, f64::from(sent))
    });
    let tally = scenario.topic_has(&case, &streamer, sent);
    note(format!("at most {} MiB in use", rss >> 20));
    assert!(rss < RSS_BYTES_MAX, "{rss} bytes in use");
    assert_eq!((tally.duplicated, tally.out_of_order), (0, Some(0)), "an outage alone repeats nothing");
    streamer.wait_ready();
}
