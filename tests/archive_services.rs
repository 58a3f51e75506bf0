//! Archives in ClickHouse and Kafka: every message as it came, whatever dies, and a server that is away holds the pipeline
//! up until it is back.
//!
//! `FAULTS=full` kills 50 times instead of a few; `FAULTS_SEED` repeats the moments of a run.
mod common;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{
    Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Stack, Streamer, at_least, complete, equal, full,
    kafka::{self, Producer},
    load::Load,
    note,
    stack::OwnStack,
    streamer,
};
use rand::Rng as _;
use serde_json::Value;

/// A message as an archive has kept it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    pipeline: String,
    input: String,
    topic: String,
    key: Option<Vec<u8>>,
    partition: Option<i64>,
    offset: Option<i64>,
    timestamp: Option<i64>,
    received_at: i64,
    headers: Vec<(String, Vec<u8>)>,
    qos: i64,
    retain: bool,
    payload: Vec<u8>,
}

impl Kept {
    /// Number of the device message that it is.
    fn number(&self) -> Option<u32> {
        serde_json::from_slice::<Value>(&self.payload).ok()?["ts"].as_u64().map(|number| number as u32)
    }
}

fn numbers(kept: &[Kept]) -> BTreeSet<u32> {
    kept.iter().filter_map(Kept::number).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// The table that this test archives to.
fn table(case: &Case) -> String {
    format!("iot.{}_archive", case.id)
}

/// The topic that this test archives to.
fn topic(case: &Case) -> String {
    format!("{}.archive", case.id)
}

fn create_table(case: &Case) {
    let shipped =
        std::fs::read_to_string(common::root().join("schemas/raw_archive.sql")).expect("the schema is shipped");
    let plain: String = shipped.lines().map(|line| line.split("--").next().unwrap_or(line).to_owned() + "\n").collect();
    for statement in plain.replace("iot.raw_archive", &table(case)).split(';').filter(|s| !s.trim().is_empty()) {
        case.stack.clickhouse.query(statement).expect("the shipped statements run");
    }
}

fn in_clickhouse(case: &Case, table: &str) -> Result<Vec<Kept>, String> {
    let rows = case.stack.clickhouse.query(&format!(
        "SELECT pipeline, input, topic, hex(key) AS key, partition, offset, toUnixTimestamp64Milli(timestamp) AS timestamp, \
         toUnixTimestamp64Milli(received_at) AS received_at, arrayMap(header -> [header.1, hex(header.2)], headers) AS \
         headers, qos, retain, hex(payload) AS payload FROM {table} ORDER BY received_at, partition, offset"
    ))?;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    Ok(rows
        .iter()
        .map(|row| Kept {
            pipeline: text(&row["pipeline"]),
            input: text(&row["input"]),
            topic: text(&row["topic"]),
            key: row["key"].as_str().map(unhex),
            partition: row["partition"].as_i64(),
            offset: row["offset"].as_i64(),
            timestamp: row["timestamp"].as_i64(),
            received_at: row["received_at"].as_i64().expect("a number"),
            headers: row["headers"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|header| (text(&header[0]), unhex(header[1].as_str().expect("hex"))))
                .collect(),
            qos: row["qos"].as_i64().expect("a number"),
            retain: row["retain"].as_bool().expect("true or false"),
            payload: unhex(row["payload"].as_str().expect("hex")),
        })
        .collect())
}

fn in_kafka(case: &Case, topic: &str) -> Result<Vec<Kept>, String> {
    let kept = |record: kafka::Record| {
        let last = record.headers.iter().position(|(name, _)| name == "streamer.input").expect("metadata has an end");
        let (metadata, own) = record.header_bytes.split_at(last + 1);
        assert_eq!(metadata[0], ("streamer.archive".to_owned(), b"1".to_vec()));
        let text = |name: &str| {
            let found = metadata.iter().find(|(header, _)| header.strip_prefix("streamer.") == Some(name));
            found.map(|(_, value)| String::from_utf8(value.clone()).expect("text"))
        };
        let number = |name| text(name).map(|text| text.parse::<i64>().expect("a number"));
        Kept {
            pipeline: text("pipeline").expect("a pipeline"),
            input: text("input").expect("an input"),
            topic: text("topic").expect("a topic"),
            key: record.key_bytes.clone(),
            partition: number("partition"),
            offset: number("offset"),
            timestamp: number("timestamp"),
            received_at: number("received_at").expect("a time"),
            headers: own.to_vec(),
            qos: number("qos").expect("a quality of service"),
            retain: number("retain").expect("a flag") == 1,
            payload: record.value.clone().expect("no tombstone is written"),
        }
    };
    Ok(kafka::read_all(&case.stack.kafka, topic)?.into_iter().map(kept).collect())
}

/// A pipeline of that name that only archives.
fn only_archives(case: &Case, name: &str, input: &str, archive: &str) -> PathBuf {
    let dead = case.folder().join(format!("{name}.dead"));
    case.write(
        &format!("{name}.yaml"),
        &format!(
            "name: {name}\ninputs:\n  in:\n    {input}\narchive:\n  {archive}\noutputs:\n  nowhere: {{ drop: {{}} }}\n\
             dead_letter:\n  file: {{ path: {} }}\n",
            dead.display()
        ),
    )
}

fn from_kafka(case: &Case, group: &str) -> String {
    format!(
        "kafka: {{ brokers: '{}', topics: [{}], group: {}.{group} }}",
        case.stack.kafka,
        case.kafka_topic(),
        case.id
    )
}

fn from_mqtt(case: &Case, client: &str) -> String {
    let Case { stack, id, .. } = case;
    format!("mqtt: {{ url: 'mqtt://{}', client_id: {id}{client}, topics: ['{id}/#'] }}", stack.mqtt)
}

fn to_clickhouse(case: &Case) -> String {
    let clickhouse = &case.stack.clickhouse;
    format!(
        "clickhouse: {{ url: '{}', user: '{}', password: '{}', table: {}, linger_ms: 100 }}",
        clickhouse.url,
        clickhouse.user,
        clickhouse.password,
        table(case)
    )
}

fn to_kafka(case: &Case, more: &str) -> String {
    format!("kafka: {{ brokers: '{}', topic: {}{more} }}", case.stack.kafka, topic(case))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_millis() as i64
}

const LARGE: usize = 10_000_000;

#[test]
fn both_keep_every_byte_and_all_metadata() {
    let case = Case::new(&Stack::running(), "archall");
    let large = [("max.message.bytes", "20000000")];
    kafka::create(&case.stack.kafka, case.kafka_topic(), 2, &large);
    kafka::create(&case.stack.kafka, &topic(&case), 2, &large);
    create_table(&case);
    let start = now_ms();
    let mut producer = Producer::new(&case.stack.kafka);
    let headers: [(&str, &[u8]); 4] = [("h °", b"1"), ("h °", b"\xff\0"), ("empty", b""), ("streamer.topic", b"mine")];
    producer.send_bytes(case.kafka_topic(), b"\xff\xfe no text \0", b"\0\xff no JSON", &headers);
    producer.send_bytes(case.kafka_topic(), b"", b"", &[]);
    producer.send(case.kafka_topic(), Some(1), "a tombstone", None);
    producer.send_bytes(case.kafka_topic(), "key °C".as_bytes(), &vec![b'x'; LARGE], &[]);
    (0..200).for_each(|seq: u32| producer.send(case.kafka_topic(), None, &seq.to_string(), Some(b"{}")));
    producer.flush();
    let mut publisher = case.publisher();
    publisher.retain = true;
    publisher.publish(&[(case.mqtt_topic("°"), b"\xff retained".to_vec())]);

    let large = ", message_bytes_max: 20000000";
    let files = [
        only_archives(&case, "kafka-table", &from_kafka(&case, "table"), &to_clickhouse(&case)),
        only_archives(&case, "kafka-topic", &from_kafka(&case, "topic"), &to_kafka(&case, large)),
        only_archives(&case, "mqtt-table", &from_mqtt(&case, "table"), &to_clickhouse(&case)),
        only_archives(&case, "mqtt-topic", &from_mqtt(&case, "topic"), &to_kafka(&case, large)),
    ];
    let mut streamer = Streamer::start(&case, &files);
    let (table, topic) = (table(&case), topic(&case));
    let count = 204 + 1;
    let (in_table, in_topic) = streamer.eventually("everything is archived", || {
        let (rows, messages) = (in_clickhouse(&case, &table)?, in_kafka(&case, &topic)?);
        equal((rows.len(), messages.len()), (count, count)).map(|()| (rows, messages))
    });
    let end = now_ms();
    assert_eq!(streamer.terminate().code(), Some(0));

    let source = kafka::read_all(&case.stack.kafka, case.kafka_topic()).expect("the topic is there");
    assert_eq!(source.len(), 204);
    for (kept, ending) in [(&in_table, "table"), (&in_topic, "topic")] {
        for record in &source {
            let is_it =
                |kept: &&Kept| (kept.partition, kept.offset) == (Some(record.partition.into()), Some(record.offset));
            let found = kept.iter().find(is_it).expect("it is archived");
            assert!((start..=end).contains(&found.received_at), "{ending} {} {start} {end}", found.received_at);
            assert!(found.timestamp.is_some_and(|made| (start..=end).contains(&made)), "{:?}", found.timestamp);
            let expected = Kept {
                pipeline: format!("kafka-{ending}"),
                input: "kafka".to_owned(),
                topic: case.kafka_topic().to_owned(),
                key: record.key_bytes.clone(),
                headers: record.header_bytes.clone(),
                qos: 0,
                retain: false,
                payload: record.value.clone().unwrap_or_default(),
                ..found.clone()
            };
            assert!(*found == expected, "{ending}: partition {} offset {}", record.partition, record.offset);
        }
        let found = kept.iter().find(|kept| kept.input == "mqtt").expect("it is archived");
        let expected = Kept {
            pipeline: format!("mqtt-{ending}"),
            input: "mqtt".to_owned(),
            topic: case.mqtt_topic("°"),
            key: None,
            partition: None,
            offset: None,
            timestamp: None,
            received_at: found.received_at,
            headers: Vec::new(),
            qos: 1,
            retain: true,
            payload: b"\xff retained".to_vec(),
        };
        assert_eq!(*found, expected);
        assert!((start..=end).contains(&found.received_at));
    }
    // Both read the same messages, so the broker's timestamps are the same, too.
    let made = |kept: &[Kept]| -> BTreeSet<_> {
        kept.iter().map(|kept| (kept.partition, kept.offset, kept.timestamp)).collect()
    };
    assert_eq!(made(&in_table), made(&in_topic));
}

/// The shipped pipeline from MQTT with another archive.
fn shipped(case: &Case, archive: &str) -> PathBuf {
    let old = "  parquet:\n    path: ${ARCHIVE_DIR:-../archive}/mqtt-to-kafka\n";
    case.changed(MQTT_TO_KAFKA, &[(old, &format!("  {archive}\n"))])
}

/// Kills streamer under load again and again; every message that it acknowledged is in the archive then.
#[track_caller]
fn kill_9(case: &Case, archive: &str, kept: impl Fn() -> Result<Vec<Kept>, String>) {
    let (mut dice, kills) = (common::dice(), full(5, 50));
    let mut streamer = Streamer::start(case, &[shipped(case, archive)]);
    streamer.wait_ready();
    // Slow enough that the broker's queue has room for what comes between kills: it drops what it has no room for.
    let load = Load::mqtt(case, 500);
    for _ in 0..kills {
        if dice.random_ratio(3, 4) {
            streamer.wait_deliveries(500);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..2000)));
        streamer.kill9();
        streamer.start_again();
    }
    let sent = load.stop();
    case.nothing_lost_in_topic(&streamer, sent);
    assert_eq!(streamer.terminate().code(), Some(0));
    let kept = kept().expect("the archive can be read");
    complete(&numbers(&kept), sent).expect("every acknowledged message is archived");
    note(format!("{kills} kills: {sent} sent, {} archived, {} of them again", kept.len(), kept.len() - sent as usize));
}

#[test]
fn kill_9_while_archiving_to_clickhouse_loses_no_acknowledged_message() {
    let case = Case::new(&Stack::running(), "archckill");
    create_table(&case);
    kill_9(&case, &to_clickhouse(&case), || in_clickhouse(&case, &table(&case)));
}

#[test]
fn kill_9_while_archiving_to_kafka_loses_no_acknowledged_message() {
    let case = Case::new(&Stack::running(), "archkkill");
    kill_9(&case, &to_kafka(&case, ""), || in_kafka(&case, &topic(&case)));
}

/// The shipped pipeline leaves each row once, whatever crashes, and the archive beside it has at least all.
#[test]
fn an_archive_beside_rows_that_are_written_once_has_them_all() {
    let case = Case::new(&Stack::running(), "archonce");
    case.create_table();
    create_table(&case);
    // The archive's table remembers inserts, too: it must not take one for another.
    let remember = format!("ALTER TABLE {} MODIFY SETTING non_replicated_deduplication_window = 10000", table(&case));
    case.stack.clickhouse.query(&remember).expect("the setting can be changed");
    let old = "  parquet:\n    path: ${ARCHIVE_DIR:-../archive}/kafka-to-clickhouse\n";
    let schema = common::root().join("schemas/telemetry.sql").display().to_string();
    let changes = [(old, format!("  {}\n", to_clickhouse(&case))), ("../schemas/telemetry.sql", schema)];
    let changes = changes.each_ref().map(|(old, new)| (*old, new.as_str()));
    let mut dice = common::dice();
    let mut streamer = Streamer::start(&case, &[case.changed(KAFKA_TO_CLICKHOUSE, &changes)]);
    let load = Load::kafka(&case, 2000);
    for _ in 0..full(3, 30) {
        std::thread::sleep(Duration::from_millis(dice.random_range(0..4000)));
        streamer.kill9();
        streamer.start_again();
    }
    let sent = load.stop();
    let doubled = case.nothing_lost_in_table(&streamer, sent);
    assert_eq!(doubled, 0, "rows are there twice");
    let kept = streamer.eventually("the archive has every message", || {
        let rows = in_clickhouse(&case, &table(&case))?;
        at_least(rows.iter().map(|kept| (kept.partition, kept.offset)).collect::<BTreeSet<_>>().len(), sent as usize)?;
        Ok(rows.len())
    });
    note(format!("{sent} sent, {kept} archived"));
    assert_eq!(streamer.terminate().code(), Some(0));
}

#[test]
fn a_clickhouse_that_is_away_holds_the_pipeline_up_and_loses_nothing() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "archcdown");
    create_table(&case);
    let mut streamer =
        Streamer::start(&case, &[only_archives(&case, "p", &from_mqtt(&case, ""), &to_clickhouse(&case))]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 200);
    streamer.wait_deliveries(100);
    own.act("kill", "clickhouse");
    let reason = streamer.wait_fault("p/archive/archive");
    assert!(reason.contains(&format!("`{}`", case.stack.clickhouse.url)), "{reason}");
    streamer.wait_unready("p/archive/archive");
    own.act("start", "clickhouse");
    streamer.wait_ready();
    let sent = load.stop();
    let kept = streamer.eventually("every message is archived", || {
        let kept = in_clickhouse(&case, &table(&case))?;
        complete(&numbers(&kept), sent).map(|()| kept.len())
    });
    note(format!("{sent} sent, {kept} archived"));
    assert_eq!(streamer.terminate().code(), Some(0));
}

#[test]
fn a_kafka_that_is_away_holds_the_pipeline_up_and_loses_nothing() {
    let own = OwnStack::take();
    let case = Case::new(&own.stack, "archkdown");
    let mut streamer =
        Streamer::start(&case, &[only_archives(&case, "p", &from_mqtt(&case, ""), &to_kafka(&case, ""))]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 200);
    streamer.wait_deliveries(100);
    own.act("kill", "kafka");
    streamer.wait_unready("p/archive/archive");
    own.act("start", "kafka");
    streamer.wait_ready();
    let sent = load.stop();
    let kept = streamer.eventually("every message is archived", || {
        let kept = in_kafka(&case, &topic(&case))?;
        complete(&numbers(&kept), sent).map(|()| kept.len())
    });
    note(format!("{sent} sent, {kept} archived"));
    assert_eq!(streamer.terminate().code(), Some(0));
}

/// `create it: `STATEMENT`;`
fn statement(text: &str) -> &str {
    let start = text.find("create it: `").unwrap_or_else(|| panic!("no statement in: {text}")) + "create it: `".len();
    text[start..].split('`').next().expect("a statement")
}

#[test]
fn a_missing_table_is_told_with_the_statement_that_creates_it() {
    let case = Case::new(&Stack::running(), "archtable");
    let file = only_archives(&case, "p", &from_mqtt(&case, ""), &to_clickhouse(&case));
    let file_name = file.display().to_string();
    let lint = || {
        let output = streamer::output(&case, &["lint", "--connect", "--connect-timeout", "60", &file_name]);
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, found) = lint();
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("absent-table"), "{found}");
    let mut streamer = Streamer::start(&case, &[file]);
    let reason = streamer.wait_fault("p/archive/archive");
    assert_eq!(statement(&reason), statement(&found));
    case.stack.clickhouse.query(statement(&reason)).expect("the statement runs");
    streamer.wait_ready();
    let sent: Vec<_> = (0..10).map(|seq| case.telemetry(seq)).collect();
    case.publisher().publish(&sent);
    streamer.eventually("every message is archived", || equal(in_clickhouse(&case, &table(&case))?.len(), 10));
    assert_eq!(lint(), (Some(0), lint().1));

    case.stack.clickhouse.query(&format!("ALTER TABLE {} DROP COLUMN retain", table(&case))).expect("it is no key");
    case.publisher().publish(&sent[..1]);
    let reason = streamer.wait_fault("p/archive/archive");
    assert!(reason.contains("it has no column `retain`, which an archive writes as `Bool`"), "{reason}");
    case.stack.clickhouse.query(&format!("ALTER TABLE {} ADD COLUMN retain Bool", table(&case))).expect("it is new");
    streamer.wait_ready();
    streamer.eventually("every message is archived", || equal(in_clickhouse(&case, &table(&case))?.len(), 11));
    assert_eq!(streamer.terminate().code(), Some(0));
}

/// The dead letters of `only_archives`; one that is being written does not count yet.
fn dead_letters(case: &Case, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(case.folder().join(format!("{name}.dead"))).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_the_topic_is_too_small_for_becomes_a_dead_letter_and_the_rest_goes_on() {
    let case = Case::new(&Stack::running(), "archlarge");
    kafka::create(&case.stack.kafka, case.kafka_topic(), 1, &[("max.message.bytes", "20000000")]);
    let mut producer = Producer::new(&case.stack.kafka);
    producer.send(case.kafka_topic(), Some(0), "before", Some(b"{}"));
    // Digits without an order: what can be compressed to less than the limit is not too large.
    let mut large = vec![0; LARGE];
    common::dice().fill(large.as_mut_slice());
    large.iter_mut().for_each(|byte| *byte = b'0' + *byte % 10);
    producer.send(case.kafka_topic(), Some(0), "large", Some(&large));
    producer.send(case.kafka_topic(), Some(0), "after", Some(b"{}"));
    producer.flush();
    // Refused by the output's own limit, and by the topic's.
    let files = [
        only_archives(&case, "own", &from_kafka(&case, "own"), &to_kafka(&case, "")),
        only_archives(&case, "topic", &from_kafka(&case, "topic"), &to_kafka(&case, ", message_bytes_max: 20000000")),
    ];
    let mut streamer = Streamer::start(&case, &files);
    for (name, word) in [("own", "`message_bytes_max`"), ("topic", "`max.message.bytes`")] {
        let letters = streamer.eventually("the large message is a dead letter", || {
            let letters = dead_letters(&case, name);
            equal(letters.len(), 1).map(|()| letters)
        });
        assert_eq!((&letters[0]["stage"], &letters[0]["code"]), (&"archive".into(), &"message-too-large".into()));
        assert!(letters[0]["reason"].as_str().is_some_and(|reason| reason.contains(word)), "{}", letters[0]["reason"]);
        assert!(letters[0]["payload"].as_str().is_some_and(|payload| payload.as_bytes() == large));
    }
    let kept = streamer.eventually("the others are archived", || {
        let kept = in_kafka(&case, &topic(&case))?;
        equal(kept.len(), 4).map(|()| kept)
    });
    assert!(kept.iter().all(|kept| kept.payload == b"{}"));
    streamer.wait_ready();
    assert_eq!(streamer.terminate().code(), Some(0));
}

#[test]
fn a_topic_that_would_forget_messages_is_found_when_asked() {
    let case = Case::new(&Stack::running(), "archcompact");
    kafka::create(&case.stack.kafka, &topic(&case), 1, &[("cleanup.policy", "compact")]);
    let file = only_archives(&case, "p", &from_mqtt(&case, ""), &to_kafka(&case, ""));
    let asked = ["lint", "--connect", "--connect-timeout", "60", "--format", "concise"];
    let arguments: Vec<&str> = asked.into_iter().chain([path(&file)]).collect();
    let output = streamer::output(&case, &arguments);
    let found = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert!(found.contains("compacted-topic") && found.contains(&topic(&case)), "{found}");
}

#[test]
fn what_clickhouse_writes_to_parquet_is_replayed_with_all_metadata() {
    let case = Case::new(&Stack::running(), "archreplay");
    create_table(&case);
    let mut producer = Producer::new(&case.stack.kafka);
    producer.send_bytes(case.kafka_topic(), b"\xff\xfe", b"\0\xff no JSON", &[("h", b"\xfd"), ("h", b"2")]);
    (0..500).for_each(|seq: u32| producer.send(case.kafka_topic(), None, &seq.to_string(), Some(b"{}")));
    producer.flush();
    let mut streamer =
        Streamer::start(&case, &[only_archives(&case, "first", &from_kafka(&case, "g"), &to_clickhouse(&case))]);
    let before = streamer.eventually("everything is archived", || {
        let kept = in_clickhouse(&case, &table(&case))?;
        equal(kept.len(), 501).map(|()| kept)
    });
    assert_eq!(streamer.terminate().code(), Some(0));
    let sql = format!("SELECT * FROM {} ORDER BY received_at FORMAT Parquet", table(&case));
    let clickhouse = &case.stack.clickhouse;
    let file = case.folder().join("all.parquet");
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--fail", "-u", &format!("{}:{}", clickhouse.user, clickhouse.password), &clickhouse.url])
        .args(["--data-binary", &sql, "-o", path(&file)])
        .status();
    assert!(curl.expect("curl can be started").success());

    // What comes back is written as a second archive would see it: the input `parquet` under an archive of its own.
    let again = format!("parquet: {{ path: '{}' }}", file.display());
    let mut streamer = Streamer::start(&case, &[only_archives(&case, "again", &again, &to_kafka(&case, ""))]);
    assert_eq!(streamer.wait().code(), Some(0), "its input has an end");
    let after = in_kafka(&case, &topic(&case)).expect("the topic can be read");
    let sorted = |mut kept: Vec<Kept>| {
        kept.sort_by_key(|kept| (kept.partition, kept.offset));
        kept.iter_mut().for_each(|kept| (kept.pipeline, kept.input) = (String::new(), String::new()));
        kept
    };
    assert_eq!(sorted(after), sorted(before));
}

fn path(file: &Path) -> &str {
    file.to_str().expect("UTF-8")
}
