//! One test: names that no other test has, its state folder, and the shipped pipelines set up with them.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Publisher, Stack, Streamer, eventually, kafka, mqtt, note, root};

/// The shipped pipelines.
pub const MQTT_TO_KAFKA: &str = "mqtt-to-kafka";
pub const KAFKA_TO_CLICKHOUSE: &str = "kafka-to-clickhouse";

/// Devices that messages are spread over.
pub const DEVICES: u32 = 20;

pub struct Case {
    pub stack: Stack,
    /// Unlike that of every other test and run, in letters that all services take.
    pub id: String,
    /// What streamer gets to know; a test may change it before it starts streamer.
    pub environment: BTreeMap<&'static str, String>,
    folder: TempDir,
}

impl Case {
    /// Names for one test and a table like the shipped one. `name` is a short word for logs.
    pub fn new(stack: &Stack, name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_millis();
        let id = format!("{name}{:x}x{}", time, COUNT.fetch_add(1, Ordering::Relaxed));
        let (host, port) = stack.mqtt.split_once(':').expect("host:port");
        let environment = BTreeMap::from([
            ("MQTT_BROKER", host.to_owned()),
            ("MQTT_PORT", port.to_owned()),
            ("MQTT_TOPIC", format!("{id}/+/telemetry")),
            ("MQTT_CLIENT_ID", id.clone()),
            ("KAFKA_BOOTSTRAP", stack.kafka.clone()),
            ("KAFKA_TOPIC", id.clone()),
            ("KAFKA_GROUP", id.clone()),
            // The shortest that brokers allow: a killed member's partitions are free after this.
            ("KAFKA_SESSION_TIMEOUT_MS", "6000".to_owned()),
            ("DEAD_LETTER_TOPIC", format!("{id}.dead")),
            ("CLICKHOUSE_URL", stack.clickhouse.url.clone()),
            ("CLICKHOUSE_USER", stack.clickhouse.user.clone()),
            ("CLICKHOUSE_PASSWORD", stack.clickhouse.password.clone()),
            ("CLICKHOUSE_TABLE", format!("iot.{id}")),
            ("NO_COLOR", "1".to_owned()),
        ]);
        let folder = TempDir::with_prefix(format!("streamer-{name}-")).expect("the folder for temporary files works");
        let environment = BTreeMap::from_iter(
            environment.into_iter().chain([("ARCHIVE_DIR", folder.path().join("archive").display().to_string())]),
        );
        Self { stack: stack.clone(), id, environment, folder }
    }

    /// The folder of this test; gone after it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where streamer keeps what must survive a restart.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    pub fn kafka_topic(&self) -> &str {
        &self.environment["KAFKA_TOPIC"]
    }

    pub fn dead_letter_topic(&self) -> &str {
        &self.environment["DEAD_LETTER_TOPIC"]
    }

    pub fn table(&self) -> &str {
        &self.environment["CLICKHOUSE_TABLE"]
    }

    /// Makes the shipped table under this test's name.
    pub fn create_table(&self) {
        let schema = std::fs::read_to_string(root().join("schemas/telemetry.sql")).expect("the schema is shipped");
        let schema: String =
            schema.lines().map(|line| line.split("--").next().unwrap_or(line).to_owned() + "\n").collect();
        for statement in schema.replace("iot.telemetry", self.table()).split(';').filter(|s| !s.trim().is_empty()) {
            eventually("ClickHouse makes a table", || self.stack.clickhouse.query(statement));
        }
    }

    /// Starts streamer on shipped pipelines.
    pub fn start(&self, pipelines: &[&str]) -> Streamer {
        Streamer::start(self, &shipped(pipelines))
    }

    /// Starts another instance beside the first.
    pub fn start_beside(&self, pipelines: &[&str]) -> Streamer {
        Streamer::start_beside(self, &shipped(pipelines))
    }

    /// A shipped pipeline with something else in place of `old`, which must be there.
    #[track_caller]
    pub fn changed(&self, pipeline: &str, changes: &[(&str, &str)]) -> PathBuf {
        let text = std::fs::read_to_string(root().join(format!("pipelines/{pipeline}.yaml"))).expect("it is shipped");
        let text = changes.iter().fold(text, |text, (old, new)| {
            assert!(text.contains(old), "{pipeline}.yaml no longer has `{old}`");
            text.replace(old, new)
        });
        self.write(&format!("{pipeline}.yaml"), &text)
    }

    /// A file in this test's folder.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder().join(name);
        std::fs::write(&file, text).expect("the folder for temporary files works");
        file
    }

    /// A publisher that no other publisher shares its client id with.
    pub fn publisher(&self) -> Publisher {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Publisher::new(&self.stack.mqtt, &format!("{}p{}", self.id, COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The MQTT topic of a device.
    pub fn mqtt_topic(&self, device: &str) -> String {
        format!("{}/{device}/telemetry", self.id)
    }

    /// Message number `seq` as its device publishes it: topic and payload.
    pub fn telemetry(&self, seq: u32) -> (String, Vec<u8>) {
        telemetry(&self.id, seq)
    }

    /// Message number `seq` as mqtt-to-kafka would write it: key and value.
    pub fn wrapped(&self, seq: u32) -> (String, Vec<u8>) {
        wrapped(&self.id, seq)
    }

    /// Rows of the table in order of `ts`, which holds the message's number.
    pub fn rows(&self) -> Result<Vec<Value>, String> {
        self.stack.clickhouse.query(&format!("SELECT * FROM {} ORDER BY ts", self.table()))
    }

    /// How many rows there are, and the message numbers among them.
    pub fn in_table(&self) -> Result<(usize, BTreeSet<u32>), String> {
        let rows = self.stack.clickhouse.query(&format!("SELECT ts FROM {}", self.table()))?;
        Ok((rows.len(), rows.iter().map(|row| row["ts"].as_u64().expect("a number") as u32).collect()))
    }

    /// How many messages the Kafka topic has, and the message numbers among them.
    pub fn in_topic(&self) -> Result<(usize, BTreeSet<u32>), String> {
        let records = kafka::read_all(&self.stack.kafka, self.kafka_topic())?;
        let seqs = records.iter().filter_map(|record| record.json()["payload"]["ts"].as_u64()).map(|seq| seq as u32);
        Ok((records.len(), seqs.collect()))
    }

    /// Waits until messages `0..sent` are all in the table; duplicates are allowed and told.
    #[track_caller]
    pub fn nothing_lost_in_table(&self, streamer: &Streamer, sent: u32) -> usize {
        let rows = streamer.eventually("every message has its row", || {
            let (rows, seqs) = self.in_table()?;
            super::complete(&seqs, sent).map(|()| rows)
        });
        self.note_duplicates("rows", rows, sent)
    }

    /// Waits until messages `0..sent` are all in the Kafka topic; duplicates are allowed and told.
    #[track_caller]
    pub fn nothing_lost_in_topic(&self, streamer: &Streamer, sent: u32) -> usize {
        let records = streamer.eventually("every message is in Kafka", || {
            let (records, seqs) = self.in_topic()?;
            super::complete(&seqs, sent).map(|()| records)
        });
        self.note_duplicates("Kafka messages", records, sent)
    }

    fn note_duplicates(&self, what: &str, found: usize, sent: u32) -> usize {
        let duplicates = found - sent as usize;
        note(format!("{}: {sent} sent, none lost, {found} {what}, {duplicates} of them duplicates", self.id));
        duplicates
    }

    /// The dead letters, once there are `count`.
    #[track_caller]
    pub fn dead_letters(&self, streamer: &Streamer, count: usize) -> Vec<kafka::Record> {
        streamer.eventually("the dead letters are there", || {
            let letters = kafka::read_all(&self.stack.kafka, self.dead_letter_topic())?;
            let reasons: Vec<_> = letters.iter().map(|letter| letter.json()["reason"].to_string()).collect();
            super::equal(letters.len(), count).map_err(|wrong| format!("{wrong}: {reasons:?}"))?;
            Ok(letters)
        })
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // Or the broker would keep messages for this client on and on.
        let _ = mqtt::forget(&self.stack.mqtt, &self.environment["MQTT_CLIENT_ID"]);
    }
}

fn shipped(pipelines: &[&str]) -> Vec<PathBuf> {
    pipelines.iter().map(|name| root().join(format!("pipelines/{name}.yaml"))).collect()
}

/// The device that sends message number `seq`.
pub fn device(seq: u32) -> String {
    format!("phone-{}", seq % DEVICES)
}

/// What a device sends; `ts` holds the number, all other values follow from it.
pub fn reading(seq: u32) -> Value {
    let n = f64::from(seq);
    json!({
        "device_id": device(seq), "ts": seq, "lat": 52.0 + n / 1000.0, "lon": 13.0 - n / 7.0, "battery": seq % 101,
        "accel": { "x": n / 3.0, "y": -n / 9.0, "z": 9.81 },
    })
}

/// Message number `seq` as its device publishes it in the case called `id`: topic and payload.
pub fn telemetry(id: &str, seq: u32) -> (String, Vec<u8>) {
    (format!("{id}/{}/telemetry", device(seq)), reading(seq).to_string().into_bytes())
}

/// Message number `seq` as mqtt-to-kafka would write it: key and value.
pub fn wrapped(id: &str, seq: u32) -> (String, Vec<u8>) {
    let topic = format!("{id}/{}/telemetry", device(seq));
    let value = json!({ "topic": topic, "payload": reading(seq), "received_at": 1_700_000_000 });
    (device(seq), value.to_string().into_bytes())
}
