//! Messages that nobody should send: each ends where it must, its good neighbours are delivered, streamer lives on.
mod common;

use std::collections::BTreeMap;

use common::{
    Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Stack, Streamer, case, equal,
    kafka::{self, Producer, Record},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where a message must end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// In Kafka, with this as the text of its payload.
    Kafka(&'static str),
    /// In the table, with this battery.
    Row(u64),
    /// As a dead letter of this stage, with this code and a reason with this in it.
    Letter(&'static str, &'static str, &'static str),
}

use End::{Kafka, Letter, Row};

const MAP: &str = "steps[0]";

/// Checks what every dead letter has: the same facts in envelope and headers.
#[track_caller]
fn check_letter(letter: &Record, pipeline: &str, end: End) {
    let Letter(stage, code, words) = end else { panic!("a dead letter instead of {end:?}: {}", letter.text()) };
    let envelope = letter.json();
    assert_eq!(envelope["version"], 1);
    for (name, wanted) in [("pipeline", pipeline), ("stage", stage), ("code", code)] {
        assert_eq!(envelope[name], wanted, "{}", envelope["reason"]);
        assert_eq!(letter.header(&format!("streamer_{name}")), Some(wanted));
    }
    let reason = envelope["reason"].as_str().expect("a reason is text");
    assert!(reason.contains(words), "`{reason}` does not name `{words}`");
    assert!(letter.header("streamer_reason").is_some_and(|header| reason.starts_with(header)));
    assert_eq!(letter.header("streamer_topic"), envelope["source"]["topic"].as_str());
    assert_eq!(letter.header("streamer_input"), envelope["source"]["input"].as_str());
    assert!(envelope["source"]["received_at_ms"].as_u64().is_some_and(|time| time > 1_700_000_000_000));
    assert!(envelope["time"].as_str().is_some_and(|time| time.starts_with("20")));
}

#[test]
fn bad_mqtt_payloads_reach_kafka_as_text_or_become_dead_letters_and_neighbours_pass() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let payloads: &[(&str, &[u8], End)] = &[
        ("not-json", b"hello \"you\"", Kafka(r#"{"raw":"hello \"you\""}"#)),
        ("half-json", br#"{"device_id":"#, Kafka(r#"{"raw":"{\"device_id\":"}"#)),
        ("empty", b"", Kafka(r#"{"raw":""}"#)),
        ("null", b"null", Kafka("null")),
        ("duplicate-keys", br#"{"b":1,"a":"x","b":2}"#, Kafka(r#"{"b":1,"a":"x","b":2}"#)),
        (
            "exact-integers",
            br#"{"n":123456789012345678,"m":-999999999999999999}"#,
            Kafka(r#"{"n":123456789012345678,"m":-999999999999999999}"#),
        ),
        (
            "exact-decimals",
            br#"{"n":1.10,"m":0.1000000000000000055511151231257827}"#,
            Kafka(r#"{"n":1.10,"m":0.1000000000000000055511151231257827}"#),
        ),
        ("not-utf8", b"{\"a\":\"\xff\xfe\"}", Letter(MAP, "not-utf8", "UTF-8")),
        ("deep", deep.as_bytes(), Letter(MAP, "nested-too-deep", "nested deeper")),
    ];
    let case = Case::new(&Stack::running(), "badmqtt");
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    // Each between two good ones, all published at once.
    let mut messages = Vec::new();
    for ((name, payload, _), seq) in payloads.iter().zip(0..) {
        messages.push(case.telemetry(seq));
        messages.push((case.mqtt_topic(name), payload.to_vec()));
    }
    messages.push(case.telemetry(payloads.len() as u32));
    case.publisher().publish(&messages);

    let good = payloads.len() + 1;
    let wanted = payloads.iter().filter(|(_, _, end)| matches!(end, Kafka(_))).count();
    let records = streamer.eventually("the rest is in Kafka", || {
        let records = kafka::read_all(&case.stack.kafka, case.kafka_topic())?;
        equal(records.len(), good + wanted).map(|()| records)
    });
    let by_key: BTreeMap<_, _> = records.iter().map(|record| (record.key.clone().unwrap(), record)).collect();
    let letters = case.dead_letters(&streamer, payloads.len() - wanted);
    for (name, payload, end) in payloads {
        if let Kafka(text) = end {
            let value = by_key[*name].text();
            assert!(value.starts_with(&format!(r#"{{"payload":{text},"received_at":"#)), "{name}: {value}");
            continue;
        }
        let topic = case.mqtt_topic(name);
        let letter = letters.iter().find(|letter| letter.header("streamer_topic") == Some(&topic)).expect(name);
        check_letter(letter, MQTT_TO_KAFKA, *end);
        let envelope = letter.json();
        let original = match &envelope["payload"] {
            Value::String(text) => text.clone().into_bytes(),
            _ => from_base64(envelope["payload_base64"].as_str().unwrap()),
        };
        assert!(original == *payload, "{name} has lost its original bytes");
        assert_eq!(envelope["attempts"], 0);
    }
    for seq in 0..good as u32 {
        let value = by_key[&case::device(seq)].json();
        assert_eq!(value["payload"], case::reading(seq));
    }
    lives_on(&case, &streamer);
}

#[test]
fn a_payload_too_large_for_every_topic_is_kept_in_a_file() {
    let case = Case::new(&Stack::running(), "large");
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let large = format!(r#"{{"device_id":"large","text":"{}"}}"#, "0123456789".repeat(500_000)).into_bytes();
    let messages = [case.telemetry(0), (case.mqtt_topic("large"), large.clone()), case.telemetry(1)];
    case.publisher().publish(&messages);

    case.nothing_lost_in_topic(&streamer, 2);
    let letter = &case.dead_letters(&streamer, 1)[0];
    check_letter(letter, MQTT_TO_KAFKA, Letter("outputs.telemetry", "message-too-large", "message_bytes_max"));
    let envelope = letter.json();
    assert_eq!(envelope["source"]["topic"], case.mqtt_topic("large"));
    assert_eq!(envelope["payload_bytes"], large.len());
    let digest: String = Sha256::digest(&large).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(envelope["payload_sha256"], digest);
    assert!(envelope.get("payload").is_none() && envelope.get("payload_base64").is_none());
    let file = std::path::PathBuf::from(envelope["payload_file"].as_str().unwrap());
    assert!(file.starts_with(case.state().join("dead-letter")), "{}", file.display());
    assert!(std::fs::read(&file).unwrap() == large, "{} is not what was published", file.display());
    lives_on(&case, &streamer);
}

#[test]
fn bad_kafka_messages_become_dead_letters_and_their_neighbours_rows() {
    const TABLE: &str = "outputs.table";
    let range = |words| Letter(TABLE, "column-range", words);
    let kind = |words| Letter(TABLE, "column-type", words);
    // Each one's value under a field of the payload; `ts` of the others is its number in the list.
    let values: &[(&str, Value, End)] = &[
        ("battery", json!("abc"), kind("battery")),
        ("battery", json!(300), range("battery")),
        ("battery", json!(-1), range("battery")),
        ("battery", json!(84.5), kind("battery")),
        ("battery", json!([84]), kind("battery")),
        ("battery", Value::Null, Row(0)),
        ("battery", json!("84"), Row(84)),
        ("battery", json!(84.0), Row(84)),
        ("ts", json!(4_294_967_296_u64), range("ts")),
        ("lat", json!("north"), kind("lat")),
        ("accel", json!({ "x": [1, 2], "y": [1], "z": [1] }), kind("accel.y")),
        // Only the server knows of this one: the table has a constraint.
        ("battery", json!(77), Letter(TABLE, "clickhouse-469", "battery_is_not_77")),
        ("battery", json!(77), Letter(TABLE, "clickhouse-469", "battery_is_not_77")),
    ];
    let case = Case::new(&Stack::running(), "badkafka");
    case.create_table();
    let constraint = format!("ALTER TABLE {} ADD CONSTRAINT battery_is_not_77 CHECK battery != 77", case.table());
    case.stack.clickhouse.query(&constraint).unwrap();

    // All in one partition before streamer starts, so that they come as one batch.
    let mut producer = Producer::new(&case.stack.kafka);
    let mut send = |key: &str, value: Option<&[u8]>| producer.send(case.kafka_topic(), Some(0), key, value);
    for ((field, value, _), n) in values.iter().zip(0..) {
        let mut payload = json!({ "device_id": format!("bad-{n}"), "ts": 1000 + n, "battery": 1 });
        payload[field] = value.clone();
        let bad = json!({ "topic": "t", "payload": payload, "received_at": 1_700_000_000 }).to_string();
        let (key, good) = case.wrapped(n);
        send(&key, Some(&good));
        send(&format!("bad-{n}"), Some(bad.as_bytes()));
    }
    send("not-json", Some(b"not json"));
    send("tombstone", None);
    let (key, last) = case.wrapped(values.len() as u32);
    send(&key, Some(&last));
    producer.flush();
    let streamer = case.start(&[KAFKA_TO_CLICKHOUSE]);

    let refused = values.iter().filter(|(_, _, end)| matches!(end, Letter(..))).count() + 2;
    let letters = case.dead_letters(&streamer, refused);
    let rows = streamer.eventually("the rest are rows", || {
        let rows = case.rows()?;
        equal(rows.len(), 2 * values.len() + 3 - refused).map(|()| rows)
    });
    let letters: BTreeMap<_, _> = letters.iter().map(|letter| (letter.key.clone().unwrap(), letter)).collect();
    let sent = kafka::read_all(&case.stack.kafka, case.kafka_topic()).unwrap();
    let check = |key: &str, end: End| {
        let (letter, origin) = (letters[key], sent.iter().find(|record| record.key.as_deref() == Some(key)).unwrap());
        check_letter(letter, KAFKA_TO_CLICKHOUSE, end);
        let envelope = letter.json();
        assert_eq!(envelope["payload"], origin.text(), "{key} has lost its original bytes");
        assert_eq!(envelope["source"]["topic"], case.kafka_topic());
        assert_eq!(envelope["source"]["key"], key);
        assert_eq!(envelope["source"]["partition"], 0);
        assert_eq!(envelope["source"]["offset"], origin.offset);
        assert_eq!(letter.header("streamer_offset"), Some(origin.offset.to_string().as_str()));
    };
    for ((field, value, end), n) in values.iter().zip(0..) {
        let row = rows.iter().find(|row| row["ts"] == 1000 + n);
        match end {
            Row(battery) => assert_eq!(row.unwrap()["battery"], *battery, "{field} {value}"),
            end => check(&format!("bad-{n}"), *end),
        }
    }
    check("not-json", Letter(MAP, "script-error", "not JSON"));
    check("tombstone", Letter(MAP, "script-error", "not JSON"));
    for seq in 0..=values.len() as u32 {
        let row = rows.iter().find(|row| row["ts"] == seq).expect("a good neighbour has its row");
        assert_eq!(row["battery"], case::reading(seq)["battery"]);
    }
}

/// One more message passes.
fn lives_on(case: &Case, streamer: &Streamer) {
    case.publisher().publish(&[(case.mqtt_topic("last"), b"{}".to_vec())]);
    streamer.eventually("a message after the bad ones passes", || {
        let records = kafka::read_all(&case.stack.kafka, case.kafka_topic())?;
        equal(records.iter().any(|record| record.key.as_deref() == Some("last")), true)
    });
    assert_eq!(streamer.log_lines("ERROR"), [""; 0]);
}

fn from_base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}
