//! The archive keeps every message as it came, whatever dies, in files that other tools read.
//!
//! `FAULTS=full` kills 50 times instead of a few; `FAULTS_SEED` repeats the moments of a run.
mod common;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::{
    Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Stack, Streamer, complete, equal, full,
    kafka::Producer,
    load::Load,
    note,
    store::{ObjectStore, packages},
};
use rand::Rng as _;
use serde_json::Value;

/// Every message of an archive, read with pyarrow.
#[track_caller]
fn read(folder: &Path) -> Vec<Value> {
    let script = common::root().join("tests/read_archive.py");
    let mut command = Command::new("python3");
    let output = command.arg(script).arg(folder).env("PYTHONPATH", packages()).output();
    let output = output.expect("python3 can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn hex(text: &[u8]) -> String {
    text.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a row holds under `name`, out of hex.
fn bytes(row: &Value, name: &str) -> Vec<u8> {
    let text = row[name].as_str().expect("hex");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// Numbers of the device messages among archived ones.
fn numbers(rows: &[Value]) -> BTreeSet<u32> {
    let number = |row: &Value| serde_json::from_slice::<Value>(&bytes(row, "payload")).ok()?["ts"].as_u64();
    rows.iter().filter_map(|row| Some(number(row)? as u32)).collect()
}

fn archive(case: &Case, pipeline: &str) -> PathBuf {
    PathBuf::from(&case.environment["ARCHIVE_DIR"]).join(pipeline)
}

/// Files that are no finished Parquet.
fn unfinished(folder: &Path) -> usize {
    std::fs::read_dir(folder.join(".segments")).expect("the archive is there").count()
}

#[test]
fn both_shipped_pipelines_archive_every_message_as_it_came() {
    let case = Case::new(&Stack::running(), "archive");
    case.create_table();
    let mut streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let mut sent: Vec<_> = (0..500).map(|seq| case.telemetry(seq)).collect();
    let odd: [&[u8]; 4] = [b"", b"\xff\x00 no text", b"null", &[b'x'; 300_000]];
    sent.extend(odd.map(|payload| (case.mqtt_topic("odd"), payload.to_vec())));
    case.publisher().publish(&sent);
    let mut producer = Producer::new(&case.stack.kafka);
    producer.send(case.kafka_topic(), Some(0), "key °C", Some(b"\xff is no JSON"));
    producer.flush();
    streamer.eventually("rows for what makes one", || {
        let (rows, _) = case.in_table()?;
        equal(rows, 503)
    });
    assert_eq!(streamer.terminate().code(), Some(0));

    let mqtt = archive(&case, MQTT_TO_KAFKA);
    let rows = read(&mqtt);
    let found: Vec<_> =
        rows.iter().map(|row| (row["topic"].as_str().expect("a topic"), bytes(row, "payload"))).collect();
    for (topic, payload) in &sent {
        assert!(found.contains(&(topic, payload.clone())), "not archived: {topic} {} bytes", payload.len());
    }
    assert_eq!(rows.len(), sent.len());
    for row in &rows {
        assert_eq!((&row["pipeline"], &row["input"], &row["qos"]), (&MQTT_TO_KAFKA.into(), &"mqtt".into(), &1.into()));
        assert!(row["key"].is_null() && row["offset"].is_null() && row["headers"] == Value::Array(vec![]), "{row}");
    }
    let kafka = archive(&case, KAFKA_TO_CLICKHOUSE);
    let rows = read(&kafka);
    let offsets: BTreeSet<_> = rows.iter().map(|row| (row["partition"].as_i64(), row["offset"].as_i64())).collect();
    // One of the messages from MQTT is no text: it never came to Kafka, but was archived above.
    assert_eq!((rows.len(), offsets.len()), (504, 504));
    assert!(offsets.iter().all(|(partition, offset)| partition.is_some() && offset.is_some()));
    let foreign = rows.iter().find(|row| row["key"] == hex("key °C".as_bytes())).expect("the other producer's message");
    assert_eq!((bytes(foreign, "payload"), foreign["partition"].as_i64()), (b"\xff is no JSON".to_vec(), Some(0)));
    assert!(foreign["timestamp"].is_i64() && foreign["topic"] == case.kafka_topic());
    assert_eq!((unfinished(&mqtt), unfinished(&kafka)), (0, 0));
    in_clickhouse(&case, &mqtt, &sent);
}

/// ClickHouse reads the same files: with `file()`, or, where it runs in a container that cannot see them, as an insert.
#[track_caller]
fn in_clickhouse(case: &Case, folder: &Path, sent: &[(String, Vec<u8>)]) {
    let clickhouse = &case.stack.clickhouse;
    let columns =
        "topic, key, partition, offset, timestamp, received_at, headers, qos, retain, pipeline, input, payload";
    let audit = |from: &str| {
        clickhouse.query(&format!(
            "SELECT count() AS n, uniqExact(topic, payload) AS messages, sum(length(payload)) AS bytes, sum(qos) AS qos, \
             any(pipeline) AS pipeline, min(received_at) > now() - 3600 AS recent FROM (SELECT {columns} FROM {from})"
        ))
    };
    let glob = format!("{}/date=*/hour=*/*.parquet", folder.display());
    let rows = audit(&format!("file('{glob}', Parquet)")).unwrap_or_else(|error| {
        note(format!("file() of a server elsewhere: {error}"));
        let table = format!("iot.{}_audit", case.id);
        let copy = format!("{table} ({columns})");
        clickhouse.query(&format!(
            "CREATE TABLE {table} (topic String, key Nullable(String), partition Nullable(Int32), offset \
             Nullable(Int64), timestamp Nullable(DateTime64(3)), received_at DateTime64(3), headers Array(Tuple(name \
             String, value String)), qos UInt8, retain Bool, pipeline String, input String, payload String) ENGINE = Memory"
        )).expect("ClickHouse makes a table");
        for day in std::fs::read_dir(folder).expect("a folder").flatten() {
            for hour in std::fs::read_dir(day.path()).into_iter().flatten().flatten() {
                for file in std::fs::read_dir(hour.path()).into_iter().flatten().flatten() {
                    let file = std::fs::read(file.path()).expect("a file");
                    let sql = format!("INSERT INTO {copy} FORMAT Parquet\n");
                    clickhouse.send(&[sql.as_bytes(), &file].concat()).expect("ClickHouse reads Parquet");
                }
            }
        }
        audit(&table).expect("the rows are there")
    });
    let bytes: usize = sent.iter().map(|(_, payload)| payload.len()).sum();
    let expected = serde_json::json!({
        "n": sent.len(), "messages": sent.len(), "bytes": bytes, "qos": sent.len(), "pipeline": MQTT_TO_KAFKA, "recent": 1,
    });
    assert_eq!(rows, [expected]);
}

/// The shipped pipeline from MQTT, whose segments become Parquet so often that kills meet it at that too.
fn restless(case: &Case) -> PathBuf {
    let old = "    path: ${ARCHIVE_DIR:-../archive}/mqtt-to-kafka\n";
    case.changed(MQTT_TO_KAFKA, &[(old, &format!("{old}    roll_bytes: 1048576\n    roll_s: 1\n"))])
}

#[test]
fn kill_9_loses_no_acknowledged_message_and_breaks_no_file() {
    let case = Case::new(&Stack::running(), "archkill");
    let (mut dice, kills) = (common::dice(), full(5, 50));
    let mut streamer = Streamer::start(&case, &[restless(&case)]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 2000);
    for kill in 0..kills {
        if dice.random_ratio(3, 4) {
            streamer.wait_deliveries(500);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..2000)));
        streamer.kill9();
        streamer.start_again();
        if kill % 10 == 9 {
            note(format!("{} kills, {} sent", kill + 1, load.sent()));
        }
    }
    let sent = load.stop();
    case.nothing_lost_in_topic(&streamer, sent);
    assert_eq!(streamer.terminate().code(), Some(0));
    let folder = archive(&case, MQTT_TO_KAFKA);
    let rows = read(&folder);
    complete(&numbers(&rows), sent).expect("every acknowledged message is archived");
    assert_eq!(unfinished(&folder), 0);
    note(format!("{kills} kills: {sent} sent, {} archived, {} of them again", rows.len(), rows.len() - sent as usize));
}

#[test]
fn kill_9_while_archiving_to_an_object_store_loses_no_message_and_breaks_no_file() {
    let case = Case::new(&Stack::running(), "archs3");
    let store = ObjectStore::start(&case);
    let (mut dice, kills) = (common::dice(), full(5, 50));
    let mut streamer = Streamer::start(&case, &[store.pipeline(&case)]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 2000);
    for kill in 0..kills {
        if dice.random_ratio(3, 4) {
            streamer.wait_deliveries(500);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..2000)));
        // Some die while the store does not answer.
        let is_down = dice.random_ratio(1, 4);
        if is_down {
            store.signal("STOP");
            std::thread::sleep(Duration::from_millis(500));
        }
        streamer.kill9();
        store.signal("CONT");
        streamer.start_again();
        if kill % 10 == 9 {
            note(format!("{} kills, {} sent", kill + 1, load.sent()));
        }
    }
    let sent = load.stop();
    case.nothing_lost_in_topic(&streamer, sent);
    // Goes up in parts; it is no text, so it is a dead letter besides.
    let mut large = vec![0; 10_000_000];
    dice.fill(large.as_mut_slice());
    case.publisher().publish(&[(case.mqtt_topic("large"), large.clone())]);
    case.dead_letters(&streamer, 1);
    all_gone_up(&case, &streamer);
    assert_eq!(streamer.terminate().code(), Some(0));
    assert!(!streamer.log().contains("hunter2"), "a secret is in the log");
    let copy = case.folder().join("copy");
    store.fetch(&copy);
    let rows = read(&copy.join("some/where"));
    complete(&numbers(&rows), sent).expect("every acknowledged message is archived");
    assert!(rows.iter().any(|row| bytes(row, "payload") == large), "the large message is not archived as it came");
    let again = rows.len() - sent as usize - 1;
    note(format!("{kills} kills: {sent} sent, {} archived, {again} of them again", rows.len()));
}

#[track_caller]
fn all_gone_up(case: &Case, streamer: &Streamer) {
    let folder = archive(case, MQTT_TO_KAFKA);
    streamer.eventually("every segment has gone up", || {
        let left = std::fs::read_dir(folder.join(".segments")).map_err(|error| error.to_string())?;
        let left = left.flatten().filter(|entry| entry.path().extension().is_some_and(|ending| ending == "segment"));
        equal(left.count(), 0)
    });
}

#[test]
fn a_store_that_is_down_is_told_and_gets_everything_when_it_is_back() {
    const FILES: &str = "mqtt-to-kafka/archive/archive/files";
    let case = Case::new(&Stack::running(), "archdown");
    let mut store = ObjectStore::start(&case);
    let mut streamer = Streamer::start(&case, &[store.pipeline(&case)]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    streamer.wait_deliveries(2000);
    let waiting = || streamer.metric("streamer_archive_waiting_bytes", &["pipeline=\"mqtt-to-kafka\""]);
    let up = || streamer.metric("streamer_up", &["label=\"archive/files\""]);
    // It goes away with all it has, so that is copied first, while nothing more comes.
    streamer.signal("STOP");
    let copy = case.folder().join("copy");
    store.fetch(&copy);
    store.kill();
    streamer.signal("CONT");
    let reason = streamer.wait_fault(FILES);
    assert!(reason.contains("to `s3://archive/some/where`: Connection refused"), "{reason}");
    assert!(reason.contains(" (for ") && reason.contains("is tried again"), "{reason}");
    assert_eq!(up(), Ok(0.0));
    // Messages go on being taken and delivered meanwhile.
    let delivered = streamer.metric("streamer_delivered_messages_total", &["kind=\"output\""]).expect("a metric");
    streamer.wait_deliveries(delivered as u32 + 2000);
    streamer.eventually("segments wait", || common::at_least(waiting()? as u64, 1 << 20));
    store.start_again();
    streamer.eventually("it says that there is no bucket", || {
        let reason = streamer.wait_fault(FILES);
        if reason.contains("404 Not Found: NoSuchBucket: ") { Ok(()) } else { Err(reason) }
    });
    store.make_bucket();
    streamer.wait_ready();
    assert_eq!(up(), Ok(1.0));
    let sent = load.stop();
    case.nothing_lost_in_topic(&streamer, sent);
    all_gone_up(&case, &streamer);
    streamer.eventually("nothing waits", || equal(waiting()?, 0.0));
    assert_eq!(streamer.log_lines("WARN").iter().filter(|line| line.contains("Connection refused")).count(), 1);
    assert_eq!(streamer.terminate().code(), Some(0));
    store.fetch(&copy);
    let rows = read(&copy.join("some/where"));
    complete(&numbers(&rows), sent).expect("every message is archived");
    assert!(!streamer.log().contains("hunter2"), "a secret is in the log");
}

#[test]
fn an_archive_that_cannot_be_written_holds_the_pipeline_up_and_loses_nothing() {
    let case = Case::new(&Stack::running(), "archfull");
    let mut streamer = Streamer::start(&case, &[restless(&case)]);
    streamer.wait_ready();
    let folder = archive(&case, MQTT_TO_KAFKA);
    // Segments go on in the folder that was opened until they are rolled; then there is no place for the next.
    let aside = folder.with_extension("aside");
    std::fs::rename(&folder, &aside).expect("a folder can be renamed");
    std::fs::write(&folder, "in the way").expect("a file can be written");
    let load = Load::mqtt(&case, 1000);
    let reason = streamer.wait_fault("mqtt-to-kafka/archive/archive");
    assert!(reason.contains("cannot archive to `") && reason.contains("Not a directory"), "{reason}");
    std::fs::remove_file(&folder).expect("a file can be removed");
    std::fs::rename(&aside, &folder).expect("a folder can be renamed");
    streamer.wait_ready();
    let sent = load.stop();
    case.nothing_lost_in_topic(&streamer, sent);
    assert_eq!(streamer.terminate().code(), Some(0));
    complete(&numbers(&read(&folder)), sent).expect("every message is archived");
}

/// A small disk for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    /// `None` where nobody may mount one.
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        let mut command = Command::new("mount");
        let done = command.args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(folder).output();
        done.is_ok_and(|done| done.status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_holds_the_pipeline_up_and_loses_nothing() {
    let case = Case::new(&Stack::running(), "archnospc");
    let disk = Disk::mount(Path::new(&case.environment["ARCHIVE_DIR"]));
    let mut streamer = Streamer::start_under(&["env", "--ignore-signal=XFSZ"], &case, &[restless(&case)]);
    streamer.wait_ready();
    let filler = Path::new(&case.environment["ARCHIVE_DIR"]).join("filler");
    // Where no disk may be mounted, no file may grow: the kernel refuses what is appended just so.
    let limit = |bytes: &str| {
        let pid = streamer.pid().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(done.expect("prlimit can be started").success());
    };
    let load = Load::mqtt(&case, 1000);
    streamer.wait_deliveries(1000);
    match &disk {
        // As much as there is room for.
        Some(_) => assert!(std::fs::write(&filler, vec![0; 24 << 20]).is_err(), "the disk is small"),
        None => {
            note("no disk can be mounted here: files may not grow instead");
            limit("100000");
        }
    }
    let reason = streamer.wait_fault("mqtt-to-kafka/archive/archive");
    let full = if disk.is_some() { "No space left on device" } else { "File too large" };
    assert!(reason.starts_with("cannot archive to `") && reason.contains(full), "{reason}");
    common::streamer::outage(2);
    match &disk {
        Some(_) => std::fs::remove_file(&filler).expect("a file can be removed"),
        None => limit("unlimited"),
    }
    streamer.wait_ready();
    let sent = load.stop();
    case.nothing_lost_in_topic(&streamer, sent);
    assert_eq!(streamer.terminate().code(), Some(0));
    let folder = archive(&case, MQTT_TO_KAFKA);
    complete(&numbers(&read(&folder)), sent).expect("every message is archived");
    assert_eq!(unfinished(&folder), 0);
}
