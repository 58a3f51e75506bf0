//! The audit of a table against its topic: what is missing, doubled and from elsewhere is found, and nothing else.
mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Case, KAFKA_TO_CLICKHOUSE, Stack, equal, kafka::Producer, streamer::output};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde_json::Value;

/// Fills the case's table by running the shipped pipeline on `count` messages and one that is no JSON.
fn filled(case: &Case, count: u32) {
    case.create_table();
    let mut streamer = case.start(&[KAFKA_TO_CLICKHOUSE]);
    send(case, 0..count);
    let mut producer = Producer::new(&case.stack.kafka);
    producer.send(case.kafka_topic(), None, "odd", Some(b"no JSON"));
    producer.flush();
    streamer.eventually("every message has its row", || {
        equal(case.stack.clickhouse.count(case.table())?, u64::from(count))
    });
    case.dead_letters(&streamer, 1);
    assert_eq!(streamer.terminate().code(), Some(0));
}

fn send(case: &Case, seqs: std::ops::Range<u32>) {
    let mut producer = Producer::new(&case.stack.kafka);
    for seq in seqs {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), None, &key, Some(&value));
    }
    producer.flush();
}

/// Runs `streamer verify` on the shipped pipeline: its exit code, what it prints, and what it says on the side.
fn verify(case: &Case, more: &[&str]) -> (i32, String, String) {
    let pipeline = common::root().join(format!("pipelines/{KAFKA_TO_CLICKHOUSE}.yaml")).display().to_string();
    let done = output(case, &[&["verify", pipeline.as_str()], more].concat());
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code().expect("it ended by itself"), text(&done.stdout), text(&done.stderr))
}

fn report(case: &Case, by: &str) -> (i32, Value) {
    let (code, out, err) = verify(case, &["--by", by, "--format", "json"]);
    assert_eq!(err, "", "nothing is said on the side");
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
}

fn numbers(report: &Value, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))).collect()
}

const DIFFERENCES: [&str; 4] = ["missing", "doubled", "foreign", "unaccounted"];

#[test]
fn rows_that_are_missing_doubled_and_from_elsewhere_are_found_and_placed() {
    let case = Case::new(&Stack::running(), "verify");
    filled(&case, 2_000);
    // A number and two texts, one of LowCardinality; the order of the columns is the user's.
    for by in ["device_id,ts", "ts, device_id, topic"] {
        let (code, clean) = report(&case, by);
        let counts = ["messages", "rows_due", "dead_letters", "filtered", "rows_ahead", "rows"];
        assert_eq!(numbers(&clean, &counts), [2_001, 2_000, 1, 0, 0, 2_000], "{clean}");
        assert_eq!((code, &clean["clean"], &clean["examples"]), (0, &true.into(), &Vec::<Value>::new().into()));
    }
    let (code, out, err) = verify(&case, &[]);
    assert!(
        code == 0 && err.is_empty() && out.ends_with("clean: as many rows as messages make; --by compares which\n"),
        "{out}{err}"
    );

    // What the pipeline has not come to is neither missing nor foreign, whether its row is there or not.
    send(&case, 2_000..2_010);
    let table = case.table();
    let sql = |sql: String| case.stack.clickhouse.query(&sql).expect("ClickHouse does it");
    sql(format!(
        "INSERT INTO {table} SELECT * REPLACE (2000 AS ts, 'phone-0' AS device_id) FROM (SELECT * FROM {table} WHERE ts = 20)"
    ));
    let (code, ahead) = report(&case, "device_id,ts");
    assert_eq!(numbers(&ahead, &["messages", "rows_ahead", "rows"]), [2_001, 10, 2_001], "{ahead}");
    assert_eq!((code, numbers(&ahead, &DIFFERENCES)), (0, vec![0; 4]), "{ahead}");

    sql(format!("ALTER TABLE {table} DELETE WHERE ts IN (7, 1007) SETTINGS mutations_sync = 2"));
    sql(format!("INSERT INTO {table} SELECT * FROM {table} WHERE ts = 11"));
    sql(format!("INSERT INTO {table} SELECT * REPLACE (9999 AS ts) FROM (SELECT * FROM {table} WHERE ts = 12)"));
    let (code, found) = report(&case, "device_id,ts");
    assert_eq!((code, numbers(&found, &DIFFERENCES)), (1, vec![2, 1, 1, 0]), "{found}");
    let examples = found["examples"].as_array().expect("a list");
    let told: BTreeSet<String> = examples
        .iter()
        .map(|e| {
            format!(
                "{} {} {} due {} rows {}",
                e["difference"], e["key"]["device_id"], e["key"]["ts"], e["due"], e["rows"]
            )
        })
        .collect();
    let expected = [
        "\"missing\" \"phone-7\" 7 due 1 rows 0",
        "\"missing\" \"phone-7\" 1007 due 1 rows 0",
        "\"doubled\" \"phone-11\" 11 due 1 rows 2",
        "\"foreign\" \"phone-12\" \"9999\" due 0 rows 1",
    ];
    assert_eq!(told, expected.iter().map(ToString::to_string).collect());
    // Each place is the one where the message lies.
    let records = common::kafka::read_all(&case.stack.kafka, case.kafka_topic()).expect("records");
    for example in examples.iter().filter(|example| example["offset"].is_number()) {
        let at = |r: &&common::kafka::Record| example["partition"] == r.partition && example["offset"] == r.offset;
        let record = records.iter().find(at).expect("a message lies there");
        assert_eq!(record.json()["payload"]["ts"], example["key"]["ts"], "{example}");
    }
    let (code, out, err) = verify(&case, &["--by", "device_id,ts", "--limit", "1"]);
    assert!(code == 1 && err.is_empty() && out.contains("2 missing: rows that should be in the table\n"), "{out}{err}");
    assert_eq!(out.lines().filter(|line| line.contains("rows: ")).count(), 3, "one of each kind:\n{out}");
    assert!(out.contains("device_id=\"phone-7\" ts=7  ") && out.contains(" offset "), "{out}");
}

#[test]
fn a_stretch_of_time_is_compared_by_itself() {
    let case = Case::new(&Stack::running(), "verifytime");
    // Old messages are not removed while this looks at them.
    common::kafka::create(&case.stack.kafka, case.kafka_topic(), 3, &[("retention.ms", "-1")]);
    case.create_table();
    let mut streamer = case.start(&[KAFKA_TO_CLICKHOUSE]);
    // A message each minute, from long ago on.
    let start = 1_700_000_000_000_i64;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &case.stack.kafka).set("broker.address.family", "v4");
    let producer: BaseProducer = config.create().expect("the settings are right");
    for seq in 0..300 {
        let (key, value) = case.wrapped(seq);
        let record =
            BaseRecord::to(case.kafka_topic()).key(&key).payload(&value).timestamp(start + i64::from(seq) * 60_000);
        producer.send(record).expect("there is room");
    }
    producer.flush(Duration::from_secs(60)).expect("the broker takes them");
    streamer.eventually("every message has its row", || equal(case.stack.clickhouse.count(case.table())?, 300));
    assert_eq!(streamer.terminate().code(), Some(0));
    let table = case.table();
    let delete = format!("ALTER TABLE {table} DELETE WHERE ts IN (50, 150, 250) SETTINGS mutations_sync = 2");
    case.stack.clickhouse.query(&delete).expect("rows are deleted");
    let double = format!("INSERT INTO {table} SELECT * FROM {table} WHERE ts IN (99, 199)");
    case.stack.clickhouse.query(&double).expect("rows are doubled");

    let at = |minute: i64| jiff::Timestamp::from_millisecond(start + minute * 60_000).expect("a time").to_string();
    let between = |more: &[&str]| {
        let (code, out, err) = verify(&case, &[&["--by", "device_id,ts", "--format", "json"], more].concat());
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
        (code, numbers(&found, &["messages", "rows_due", "rows"]), numbers(&found, &DIFFERENCES), found)
    };
    let (from, to) = (at(100), at(200));
    let (code, counts, differences, found) = between(&["--since", &from, "--until", &to]);
    assert_eq!((code, counts, differences), (1, vec![100, 100, 299], vec![1, 1, 0, 199]), "{found}");
    let told: Vec<_> =
        found["examples"].as_array().unwrap().iter().map(|e| (&e["difference"], &e["key"]["ts"])).collect();
    assert_eq!(told, [(&"missing".into(), &150.into()), (&"doubled".into(), &199.into())], "{found}");
    assert_eq!((&found["since"], &found["until"]), (&from.as_str().into(), &to.as_str().into()));
    let (code, counts, differences, found) = between(&["--until", &at(40)]);
    assert_eq!((code, counts, differences), (0, vec![40, 40, 299], vec![0, 0, 0, 259]), "{found}");
    let (code, counts, differences, found) = between(&["--since", &at(251)]);
    assert_eq!((code, counts, differences), (0, vec![49, 49, 299], vec![0, 0, 0, 250]), "{found}");
    let (code, counts, _, found) = between(&["--since", "1h"]);
    assert_eq!((code, counts), (0, vec![0, 0, 299]), "nothing is so young: {found}");
    let (code, out, err) = verify(&case, &["--by", "device_id,ts", "--since", &from, "--until", &to]);
    assert!(code == 1 && out.contains(&format!("\nmessages from {from} on and before {to}\n")), "{out}{err}");

    for (arguments, says) in [
        (&["--since", "1h"][..], "--by"),
        (&["--by", "ts", "--since", "soon"], "`soon` is no time"),
        (&["--by", "ts", "--since", "2026-02-01", "--until", "2026-01-31"], "--since is the earlier of the two"),
    ] {
        let (code, _, err) = verify(&case, arguments);
        assert!(code == 2 && err.contains(says), "{err}");
    }
}

#[test]
fn rows_whose_messages_retention_has_removed_are_told_apart() {
    let case = Case::new(&Stack::running(), "verifyold");
    common::kafka::create(&case.stack.kafka, case.kafka_topic(), 1, &[]);
    filled(&case, 500);
    common::kafka::trim(&case.stack.kafka, case.kafka_topic(), 0, 100);
    let table = case.table();
    let delete = format!("ALTER TABLE {table} DELETE WHERE ts IN (3, 300) SETTINGS mutations_sync = 2");
    case.stack.clickhouse.query(&delete).expect("rows are deleted");
    let (code, found) = report(&case, "device_id,ts");
    assert_eq!((code, numbers(&found, &DIFFERENCES)), (1, vec![1, 0, 0, 99]), "{found}");
    assert_eq!(numbers(&found, &["messages", "rows_due", "rows"]), [401, 400, 498]);
    assert_eq!((&found["partitions"][0]["first"], &found["examples"][0]["key"]["ts"]), (&100.into(), &300.into()));
    let back = format!("INSERT INTO {table} SELECT * REPLACE (300 AS ts) FROM (SELECT * FROM {table} WHERE ts = 320)");
    case.stack.clickhouse.query(&back).expect("a row comes back");
    let (code, out, _) = verify(&case, &["--by", "device_id,ts"]);
    assert!(code == 0 && out.contains("99 unaccounted: ") && out.contains("\nclean: "), "{out}");
}

#[test]
fn aborted_messages_and_marks_of_transactions_make_no_rows_and_the_group_stays_as_it_is() {
    let case = Case::new(&Stack::running(), "verifytx");
    common::kafka::create(&case.stack.kafka, case.kafka_topic(), 1, &[]);
    filled(&case, 100);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &case.stack.kafka).set("broker.address.family", "v4");
    config.set("transactional.id", &case.id);
    let producer: BaseProducer = config.create().expect("the settings are right");
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).expect("the broker knows transactions");
    for (first, commits) in [(100, true), (200, false), (300, true)] {
        producer.begin_transaction().expect("none is open");
        for seq in first..first + 20 {
            let (key, value) = case.wrapped(seq);
            producer.send(BaseRecord::to(case.kafka_topic()).key(&key).payload(&value)).expect("there is room");
        }
        producer.flush(wait).expect("the broker takes them");
        let end = if commits { producer.commit_transaction(wait) } else { producer.abort_transaction(wait) };
        end.expect("the transaction ends");
    }
    // 20 aborted messages, and the mark at the end of each transaction.
    let empty = |report: &Value| report["partitions"][0]["empty"].clone();
    let (code, before) = report(&case, "ts");
    assert_eq!((code, numbers(&before, &["messages", "rows_ahead", "rows"])), (0, vec![101, 40, 100]), "{before}");
    assert_eq!(empty(&before), 23, "{before}");
    // Had the audit joined the group or committed for it, messages would not come or be passed over.
    let mut streamer = case.start(&[KAFKA_TO_CLICKHOUSE]);
    streamer.eventually("what was committed has rows", || equal(case.stack.clickhouse.count(case.table())?, 140));
    let (code, during) = report(&case, "ts");
    assert_eq!((code, numbers(&during, &DIFFERENCES), empty(&during)), (0, vec![0; 4], 23.into()), "{during}");
    assert_eq!(streamer.terminate().code(), Some(0));
    let (code, after) = report(&case, "ts");
    assert_eq!((code, numbers(&after, &["messages", "rows_ahead", "rows"])), (0, vec![141, 0, 140]), "{after}");
}

#[test]
fn what_cannot_be_compared_is_said_with_what_to_do() {
    let mut case = Case::new(&Stack::running(), "verifynot");
    filled(&case, 20_000);
    let says = |case: &Case, more: &[&str], words: &[&str]| {
        let (code, out, err) = verify(case, more);
        assert!(code == 2 && out.is_empty(), "{code} {out}{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{words:?} in {err}");
        assert_eq!(err.lines().count(), 1, "librdkafka's own lines are not mixed in: {err}");
    };
    says(&case, &["--by", "devise"], &["has no column `devise` that is written; it has `device_id`"]);
    says(&case, &["--by", "accel.x"], &["which cannot be part of a key"]);
    says(
        &case,
        &["--by", "ts", "--memory-bytes-max", "1048576"],
        &["do not fit into 1048576 bytes", "raise --memory-bytes-max"],
    );
    let address = case.environment.insert("CLICKHOUSE_URL", "http://127.0.0.1:1".to_owned());
    says(&case, &[], &["cannot ask `http://127.0.0.1:1` as user"]);
    case.environment.insert("CLICKHOUSE_URL", address.expect("it was set"));
    let table = case.environment.insert("CLICKHOUSE_TABLE", "iot.absent".to_owned());
    says(&case, &[], &["there is no table `iot.absent`"]);
    case.environment.insert("CLICKHOUSE_TABLE", table.expect("it was set"));
    case.environment.insert("KAFKA_BOOTSTRAP", "127.0.0.1:1".to_owned());
    says(&case, &[], &["no Kafka broker of `127.0.0.1:1` answers", "check that Kafka runs"]);
    let file = case.write(
        "lines.yaml",
        "name: lines\ninputs:\n  in: { stdin: {} }\noutputs:\n  out: { stdout: {} }\ndead_letter:\n  drop: {}\n",
    );
    let done = output(&case, &["verify", file.to_str().expect("UTF-8")]);
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(2) && err.contains("reads from `stdin`; only what comes from `kafka`"), "{err}");
}
