//! A scenario: counts its faults, judges what arrived, and leaves a line for the report.
//!
//! With `FAULTS_REPORT` the lines are appended to that file, one JSON object each.
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use crate::{
    common::{self, Case, Streamer, kafka, note},
    tally::Tally,
};

/// Which way messages went, and with it what is promised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// At least once: nothing is lost.
    IntoTopic,
    /// Exactly once: nothing is lost and nothing is there twice.
    IntoTable,
}

pub struct Scenario {
    name: &'static str,
    faults: u32,
    began: Instant,
    judged: bool,
}

impl Scenario {
    /// `name` is that of the test, with its module.
    pub fn new(name: &'static str) -> Self {
        Self { name, faults: 0, began: Instant::now(), judged: false }
    }

    /// Something is broken once more.
    pub fn fault(&mut self) {
        self.faults(1);
    }

    /// So many things were broken.
    pub fn faults(&mut self, count: u32) {
        self.faults += count;
    }

    /// Waits until the messages `0..sent` are in the Kafka topic, and judges what is there.
    #[track_caller]
    pub fn topic_has(&mut self, case: &Case, streamer: &Streamer, sent: u32) -> Tally {
        self.topic_has_all_but(case, streamer, 0..sent, |_| false)
    }

    /// The same of messages `expected`, of which those that `refused` names become dead letters.
    #[track_caller]
    pub fn topic_has_all_but(
        &mut self,
        case: &Case,
        streamer: &Streamer,
        expected: impl Iterator<Item = u32> + Clone,
        refused: impl Fn(u32) -> bool,
    ) -> Tally {
        self.topics_have(case, streamer, &[case.kafka_topic().to_owned()], expected, refused)
    }

    /// The same of messages that are spread over several topics, all of a device in one.
    #[track_caller]
    pub fn topics_have(
        &mut self,
        case: &Case,
        streamer: &Streamer,
        topics: &[String],
        expected: impl Iterator<Item = u32> + Clone,
        refused: impl Fn(u32) -> bool,
    ) -> Tally {
        let refused: BTreeSet<u32> = expected.clone().filter(|seq| refused(*seq)).collect();
        self.judge(Way::IntoTopic, streamer, || {
            let mut records = Vec::new();
            for topic in topics {
                records.extend(kafka::read_all(&case.stack.kafka, topic)?);
            }
            let arrivals = records.iter().filter_map(|record| {
                Some((record.key.clone().unwrap_or_default(), record.json()["payload"]["ts"].as_u64()? as u32))
            });
            Ok(Tally::of_arrivals(expected.clone(), &refused, &dead_letters(case)?, arrivals))
        })
    }

    /// Waits until the table has a row for every message of the topic, and judges that there are no others.
    #[track_caller]
    pub fn table_has_topic(&mut self, case: &Case, streamer: &Streamer) -> Tally {
        self.judge(Way::IntoTable, streamer, || {
            let mut wanted = BTreeMap::new();
            for record in kafka::read_all(&case.stack.kafka, case.kafka_topic())? {
                let seq = record.json()["payload"]["ts"].as_u64().ok_or("a message without number")?;
                *wanted.entry(seq as u32).or_insert(0) += 1;
            }
            let rows =
                case.stack.clickhouse.query(&format!("SELECT ts, count() AS n FROM {} GROUP BY ts", case.table()))?;
            let number = |row: &Value, name: &str| row[name].as_u64().expect("a number");
            let found = rows.iter().map(|row| (number(row, "ts") as u32, number(row, "n"))).collect();
            Ok(Tally::of_counts(&wanted, &found))
        })
    }

    /// Waits until the table has a row for each of the messages `0..sent`, and judges that it has one of each.
    #[track_caller]
    pub fn table_has(&mut self, case: &Case, streamer: &Streamer, sent: u32) -> Tally {
        self.table_has_all_but(case, streamer, 0..sent, |_| false)
    }

    /// The same of messages `expected`, of which those that `refused` names become dead letters.
    #[track_caller]
    pub fn table_has_all_but(
        &mut self,
        case: &Case,
        streamer: &Streamer,
        expected: std::ops::Range<u32>,
        refused: impl Fn(u32) -> bool,
    ) -> Tally {
        let refused: BTreeSet<u32> = expected.clone().filter(|seq| refused(*seq)).collect();
        let (first, last) = (expected.start, expected.end - 1);
        // Counted by the server: a long scenario has millions of rows.
        let sql = format!(
            "SELECT count() AS n, uniqExact(ts) AS seqs FROM {} WHERE ts BETWEEN {first} AND {last}",
            case.table()
        );
        self.judge(Way::IntoTable, streamer, || {
            let row = case.stack.clickhouse.query(&sql)?.remove(0);
            let number = |name: &str| row[name].as_u64().expect("a number");
            let dead = dead_letters(case)?;
            let wanted = (expected.len() - refused.len()) as u64;
            Ok(Tally {
                sent: expected.len() as u64,
                lost: wanted.saturating_sub(number("seqs")) + refused.difference(&dead).count() as u64,
                duplicated: number("n") - number("seqs"),
                out_of_order: None,
                dead_lettered: dead.len() as u64,
            })
        })
    }

    /// Counts until nothing is missing, and once more a little later; writes the line, then holds it to the promise.
    #[track_caller]
    fn judge(&mut self, way: Way, streamer: &Streamer, mut count: impl FnMut() -> Result<Tally, String>) -> Tally {
        self.judged = true;
        let mut found = None;
        let complete = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut wait = || {
                streamer.eventually("every message arrives", || {
                    let tally = count()?;
                    found = Some(tally.clone());
                    common::equal(tally.lost, 0)
                });
            };
            wait();
            // What is on its way may still arrive: an insert that was sent again must not.
            std::thread::sleep(Duration::from_secs(2));
            wait();
        }));
        let doubled = found.as_ref().is_some_and(|tally| way == Way::IntoTable && tally.duplicated > 0);
        self.line(way, found.as_ref(), complete.is_ok() && !doubled);
        if let Err(panic) = complete {
            std::panic::resume_unwind(panic);
        }
        let tally = found.expect("it was counted");
        assert!(!doubled, "{}: {} rows are there twice", self.name, tally.duplicated);
        tally
    }

    fn line(&self, way: Way, tally: Option<&Tally>, kept: bool) {
        let line = json!({
            "scenario": self.name,
            "way": match way {
                Way::IntoTopic => "MQTT to Kafka",
                Way::IntoTable => "Kafka to ClickHouse",
            },
            "faults": self.faults,
            "sent": tally.map(|tally| tally.sent),
            "lost": tally.map(|tally| tally.lost),
            "duplicated": tally.map(|tally| tally.duplicated),
            "out_of_order": tally.and_then(|tally| tally.out_of_order),
            "dead_lettered": tally.map(|tally| tally.dead_lettered),
            "seed": common::seed(),
            "kept": kept,
            "seconds": self.began.elapsed().as_secs(),
        });
        note(&line);
        if let Ok(path) = std::env::var("FAULTS_REPORT") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| writeln!(file, "{line}"));
            written.unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        }
    }
}

impl Drop for Scenario {
    /// A scenario that fails before it is judged has its line, too.
    fn drop(&mut self) {
        if std::thread::panicking() && !self.judged {
            self.line(Way::IntoTopic, None, false);
        }
    }
}

/// The numbers of the messages that are dead letters.
pub fn dead_letters(case: &Case) -> Result<BTreeSet<u32>, String> {
    let letters = kafka::read_all(&case.stack.kafka, case.dead_letter_topic())?;
    let numbers = letters.iter().map(|letter| {
        let envelope = letter.json();
        // One that the dead-letter topic would not take is in a file.
        let file = envelope["payload_file"].as_str();
        let file = file.map(|file| std::fs::read(file).map_err(|error| format!("{file}: {error}"))).transpose()?;
        let text = file.or(envelope["payload"].as_str().map(|text| text.as_bytes().to_vec()));
        let bytes = || BASE64.decode(envelope["payload_base64"].as_str().unwrap_or_default()).unwrap_or_default();
        // What stands behind the number may be no JSON: that is what some are refused for.
        let payload = text.unwrap_or_else(bytes);
        let payload = serde_json::Deserializer::from_slice(&payload).into_iter::<Value>().next();
        let payload = payload.and_then(Result::ok).unwrap_or_default();
        let number = payload["payload"]["ts"].as_u64().or(payload["ts"].as_u64());
        number.map(|seq| seq as u32).ok_or_else(|| format!("a dead letter without number: {envelope}"))
    });
    numbers.collect()
}
