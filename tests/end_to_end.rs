//! The shipped pipelines against real services, from a device's message to its row.
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use common::{
    Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Stack, Streamer, case, equal, kafka, load::Load, note, streamer,
};

const RECEIVED: &str = "streamer_received_messages_total";
const DELIVERED: &str = "streamer_delivered_messages_total";
const DEAD_LETTERED: &str = "streamer_dead_lettered_messages_total";

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is right").as_secs()
}

#[test]
fn every_message_becomes_one_row_with_all_its_values_and_devices_keep_their_order() {
    const SENT: u32 = 2000;
    let case = Case::new(&Stack::running(), "rows");
    case.create_table();
    let streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let began = now();
    case.publisher().publish(&(0..SENT).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());

    let duplicates = case.nothing_lost_in_table(&streamer, SENT);
    assert_eq!(duplicates, 0, "rows that came twice although nothing failed");
    for (seq, row) in (0..SENT).zip(case.rows().unwrap()) {
        let sent = case::reading(seq);
        for name in ["device_id", "ts", "battery"] {
            assert_eq!(row[name], sent[name], "{name} of {seq}");
        }
        for name in ["lat", "lon"] {
            assert_eq!(row[name].as_str().unwrap().parse().ok(), sent[name].as_f64(), "{name} of {seq}");
        }
        for name in ["x", "y", "z"] {
            let column = row[format!("accel.{name}")].as_array().unwrap();
            let values: Vec<_> = column.iter().map(|value| value.as_f64().unwrap() as f32).collect();
            assert_eq!(values, [sent["accel"][name].as_f64().unwrap() as f32], "accel.{name} of {seq}");
        }
        assert_eq!(row["topic"], case.mqtt_topic(&case::device(seq)));
        let received_at = row["received_at"].as_u64().unwrap();
        assert!((began - 1..=now() + 1).contains(&received_at), "received_at {received_at}, published at {began}");
    }

    let records = kafka::read_all(&case.stack.kafka, case.kafka_topic()).unwrap();
    assert_eq!(records.len(), SENT as usize);
    let mut devices: BTreeMap<String, (BTreeSet<i32>, Vec<u64>)> = BTreeMap::new();
    for record in records {
        let value = record.json();
        let key = record.key.clone().expect("every message has a key");
        assert_eq!(value["payload"]["device_id"], key.as_str());
        let (partitions, seqs) = devices.entry(key).or_default();
        partitions.insert(record.partition);
        seqs.push(value["payload"]["ts"].as_u64().unwrap());
    }
    assert_eq!(devices.len(), case::DEVICES as usize);
    for (device, (partitions, seqs)) in devices {
        assert_eq!(partitions.len(), 1, "{device} is on partitions {partitions:?}");
        assert!(seqs.is_sorted(), "{device} is out of order: {seqs:?}");
    }
}

#[test]
fn plain_wildcards_of_any_shape_keep_the_device_as_key() {
    let stack = Stack::running();
    for shape in ["devices/#", "+/+/telemetry", "devices/+/+", "+/#"] {
        let mut case = Case::new(&stack, "shapes");
        case.environment.insert("MQTT_TOPIC", shape.to_owned());
        let streamer = case.start(&[MQTT_TO_KAFKA]);
        streamer.wait_ready();
        // Other tests' messages fit these filters too; ours are known by their devices.
        let device = |n: u32| format!("{}-{n}", case.id);
        let messages: Vec<_> = (0..50).map(|n| (format!("devices/{}/telemetry", device(n)), b"{}".to_vec())).collect();
        case.publisher().publish(&messages);
        let wanted: BTreeMap<_, _> =
            messages.iter().zip(0..).map(|((topic, _), n)| (topic.clone(), device(n))).collect();
        streamer.eventually(&format!("all arrive through {shape}, keyed by device"), || {
            let records = kafka::read_all(&case.stack.kafka, case.kafka_topic())?;
            let got = records.into_iter().filter_map(|record| {
                let topic = record.json()["topic"].as_str().filter(|topic| topic.contains(&case.id))?.to_owned();
                Some((topic, record.key.unwrap_or_default()))
            });
            equal(got.collect::<BTreeMap<_, _>>(), wanted.clone())
        });
    }
}

#[test]
fn sigterm_under_load_exits_with_0_and_loses_nothing() {
    let case = Case::new(&Stack::running(), "term");
    case.create_table();
    let mut streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    for _ in 0..2 {
        streamer.wait_deliveries(500);
        assert_eq!(streamer.terminate().code(), Some(0));
        streamer.start_again();
    }
    streamer.wait_deliveries(500);
    case.nothing_lost_in_table(&streamer, load.stop());
}

#[test]
fn kill_9_of_mqtt_to_kafka_loses_nothing() {
    let case = Case::new(&Stack::running(), "killmqtt");
    let mut streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 3000);
    kill_at_work(&mut streamer, 8);
    case.nothing_lost_in_topic(&streamer, load.stop());
}

#[test]
fn kill_9_of_kafka_to_clickhouse_loses_nothing() {
    let case = Case::new(&Stack::running(), "killkafka");
    case.create_table();
    let load = Load::kafka(&case, 1000);
    let mut streamer = case.start(&[KAFKA_TO_CLICKHOUSE]);
    kill_at_work(&mut streamer, 3);
    case.nothing_lost_in_table(&streamer, load.stop());
}

#[test]
fn kill_9_of_both_in_one_process_loses_nothing() {
    let case = Case::new(&Stack::running(), "killboth");
    case.create_table();
    let mut streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    kill_at_work(&mut streamer, 3);
    case.nothing_lost_in_table(&streamer, load.stop());
}

/// Kills streamer again and again while it is at work, each time at another point of its rounds of writes and commits,
/// which take up to a second. Kills at the worst point, between acknowledgement and delivery, are in `faults`.
fn kill_at_work(streamer: &mut Streamer, times: u32) {
    for round in 0..times {
        streamer.wait_deliveries(500);
        std::thread::sleep(Duration::from_millis(u64::from(round * 370 % 1000)));
        streamer.kill9();
        streamer.start_again();
    }
    streamer.wait_deliveries(500);
}

#[test]
fn a_pipeline_that_fails_does_not_stop_the_other() {
    let case = Case::new(&Stack::running(), "apart");
    case.create_table();
    let dead_letter = "dead_letter:
  kafka:
    brokers: ${KAFKA_BOOTSTRAP:-localhost:9092}
    topic: ${DEAD_LETTER_TOPIC:-telemetry.dead-letter}
";
    let schema = common::root().join("schemas/telemetry.sql");
    let strict =
        case.changed(KAFKA_TO_CLICKHOUSE, &[(dead_letter, ""), ("../schemas/telemetry.sql", schema.to_str().unwrap())]);
    let shipped = common::root().join("pipelines/mqtt-to-kafka.yaml");
    let mut streamer = Streamer::start(&case, &[shipped, strict]);
    streamer.wait_ready();

    let topic = case.mqtt_topic("phone-1");
    let bad = br#"{"device_id":"phone-1","ts":1,"battery":300}"#.to_vec();
    let mut publisher = case.publisher();
    publisher.publish(&[(topic.clone(), bad)]);
    streamer.wait_unready("battery");
    let (_, body) = streamer.get("/health/ready").unwrap();
    let bad = &kafka::read_all(&case.stack.kafka, case.kafka_topic()).unwrap()[0];
    let position = format!("topic `{}`, partition {}, offset {}", case.kafka_topic(), bad.partition, bad.offset);
    assert!(body.contains("kafka-to-clickhouse") && body.contains(&position), "{body} does not name {position}");
    let errors = streamer.log_lines("ERROR");
    assert!(errors.len() == 1 && errors[0].contains(&position), "one ERROR that names {position}: {errors:#?}");

    publisher.publish(&(0..500).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    streamer.eventually("the other pipeline goes on", || {
        equal(kafka::read_all(&case.stack.kafka, case.kafka_topic())?.len(), 501)
    });
    assert!(streamer.is_running());
    assert_eq!(case.stack.clickhouse.count(case.table()).unwrap(), 0);
    assert_eq!(streamer.terminate().code(), Some(1), "a pipeline had failed");
}

#[test]
fn metrics_count_what_arrived_and_health_says_that_all_works() {
    let case = Case::new(&Stack::running(), "metrics");
    case.create_table();
    let streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let not_text = (case.mqtt_topic("phone-1"), b"\xff\xfe".to_vec());
    let too_high = (case.mqtt_topic("phone-2"), br#"{"device_id":"phone-2","ts":1,"battery":300}"#.to_vec());
    let good = (0..1000).map(|seq| case.telemetry(seq));
    let messages: Vec<_> =
        good.chain((0..3).map(|_| not_text.clone())).chain((0..7).map(|_| too_high.clone())).collect();
    case.publisher().publish(&messages);

    case.nothing_lost_in_table(&streamer, 1000);
    case.dead_letters(&streamer, 10);
    let (mqtt, kafka) = (r#"pipeline="mqtt-to-kafka""#, r#"pipeline="kafka-to-clickhouse""#);
    let (input, output) = (r#"kind="input""#, r#"kind="output""#);
    for (name, labels, count) in [
        (RECEIVED, &[mqtt, input][..], 1010),
        (DELIVERED, &[mqtt, output], 1007),
        (DEAD_LETTERED, &[mqtt], 3),
        (RECEIVED, &[kafka, input], 1007),
        (DELIVERED, &[kafka, output], 1000),
        (DEAD_LETTERED, &[kafka], 7),
        ("streamer_in_flight_messages", &[], 0),
    ] {
        streamer.eventually(&format!("{name} {labels:?} is right"), || {
            equal(streamer.metric(name, labels)?, f64::from(count))
        });
    }
    assert_eq!(streamer.get("/health/live").unwrap().0, 200);
    assert_eq!(streamer.get("/health/ready").unwrap().0, 200);
    let (status, text) = streamer.get("/metrics").unwrap();
    assert!(status == 200 && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(streamer.log_lines("ERROR"), [""; 0]);
}

#[test]
fn map_tries_a_script_on_the_last_messages_of_a_topic() {
    let case = Case::new(&Stack::running(), "tail");
    let brokers = case.stack.kafka.clone();
    let mut producer = kafka::Producer::new(&brokers);
    for n in 0..20 {
        producer.send(case.kafka_topic(), Some(n % 2), &format!("k{n}"), Some(format!("{{\"n\":{n}}}").as_bytes()));
    }
    producer.flush();
    let script = "#{ n: payload.n * 2, key: meta.key, at: `${meta.partition}/${meta.offset}` }";
    let map = |topic: &str| {
        let arguments = ["map", "--script", script, "--brokers", &brokers, "--from-topic", topic, "--count", "6"];
        let done = streamer::output(&case, &[&arguments[..], &["--format", "json"]].concat());
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap(), done.status.code())
    };
    let (out, err, code) = map(case.kafka_topic());
    assert_eq!(code, Some(0), "{err}");
    let tried: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(tried.len(), 6, "{out}");
    for sample in tried {
        let n = sample["input"]["n"].as_i64().unwrap();
        // Messages of one millisecond have no order between partitions.
        assert!(n >= 8, "the last ones of each partition: {out}");
        let expected = serde_json::json!({ "n": n * 2, "key": format!("k{n}"), "at": format!("{}/{}", n % 2, n / 2) });
        assert_eq!(sample["outputs"][0]["payload"], expected);
    }
    let (_, err, code) = map("there-is-no-such-topic");
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("there-is-no-such-topic"), "{err}");
}

#[test]
fn run_starts_nothing_when_a_file_has_faults_or_is_not_there() {
    let case = Case::new(&Stack::running(), "refuse");
    let faulty = case.changed(MQTT_TO_KAFKA, &[("    kafka:\n      brokers", "    kafak:\n      brokers")]);
    let good = common::root().join("pipelines/kafka-to-clickhouse.yaml");
    for (files, code, words) in [
        ([good.as_path(), &faulty], 1, "kafak"),
        ([good.as_path(), &case.folder().join("nowhere.yaml")], 2, "nowhere.yaml"),
    ] {
        let files = files.map(|file| file.to_str().unwrap());
        let done = streamer::output(&case, &["run", files[0], files[1]]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{said}");
        assert!(said.contains(words) && !said.contains("pipeline starts"), "{said}");
    }
}

#[test]
fn lint_reports_every_fault_at_its_line_and_column() {
    // No service is needed: lint connects to nothing.
    const FAULTY: &str = r#"name: five-faults
description: ° before a fault must not shift its column
inputs:
  devices:
    mqtt:
      url: mqtt://localhost:1883
      client_id: five-faults
      topics: ["devices/+/telemetry"]
      keep_alive: 5
      qos: many
steps:
  - map: |
      #{ topic: meta.topic, payload: payload }
  - mpa: payload
outputs:
  telemetry: { kafka: { brokers: "°", topic: telemetry, linger: 5 } }
dead_letter:
  kafka: { brokers: localhost:9092, topic: dead }
limits:
  in_flight_bytes_max: none
"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("five-faults.yaml");
    std::fs::write(&file, FAULTY).unwrap();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(["lint", "--format", "concise", file.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    note(&said);
    assert_eq!(done.status.code(), Some(1), "{said}");
    let prefix = format!("{}:", file.display());
    let places: Vec<_> = said.lines().filter_map(|line| line.strip_prefix(&prefix)?.split(": error").next()).collect();
    assert_eq!(places, ["9:7", "10:12", "14:5", "16:57", "20:24"], "{said}");
}
