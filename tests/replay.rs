//! What was archived comes back: through the pipeline as it is or another one, once where the table remembers.
//!
//! `FAULTS=full` replays 1,000,000 messages instead of a few thousand.
mod common;

use std::path::PathBuf;

use common::{
    Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Stack, equal, full, kafka::Producer, note, store::ObjectStore,
    streamer::output,
};

/// Archives `count` messages by running the shipped pipeline into the case's table.
fn archived(case: &Case, count: u32) -> PathBuf {
    case.create_table();
    let mut streamer = case.start(&[KAFKA_TO_CLICKHOUSE]);
    let mut producer = Producer::new(&case.stack.kafka);
    for seq in 0..count {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), None, &key, Some(&value));
        if seq % 50_000 == 49_999 || seq + 1 == count {
            producer.flush();
            streamer.eventually("every message has its row", || {
                equal(case.stack.clickhouse.count(case.table())?, u64::from(seq) + 1)
            });
        }
    }
    assert_eq!(streamer.terminate().code(), Some(0));
    PathBuf::from(&case.environment["ARCHIVE_DIR"]).join(KAFKA_TO_CLICKHOUSE)
}

/// Runs `streamer replay` on the shipped pipeline.
#[track_caller]
fn replay(case: &Case, source: &std::path::Path, more: &[&str]) -> (i32, String, String) {
    let pipeline = common::root().join(format!("pipelines/{KAFKA_TO_CLICKHOUSE}.yaml"));
    let state = case.state();
    let paths = [source.to_str(), pipeline.to_str(), state.to_str()].map(|path| path.expect("UTF-8"));
    let mut arguments = vec!["replay", paths[0], "--pipeline", paths[1], "--state-dir", paths[2]];
    arguments.extend(more);
    let done = output(case, &arguments);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code().expect("it ended by itself"), text(&done.stdout), text(&done.stderr))
}

/// A second table like the first; streamer writes there from now on. Answers both names.
fn second_table(case: &mut Case) -> (String, String) {
    let first = case.table().to_owned();
    case.environment.insert("CLICKHOUSE_TABLE", format!("{first}_again"));
    case.create_table();
    (first, case.table().to_owned())
}

#[test]
fn a_replay_is_equal_row_for_row_and_a_second_one_doubles_nothing() {
    let mut case = Case::new(&Stack::running(), "replay");
    let count = full(5_000, 1_000_000);
    let archive = archived(&case, count);
    let (first, second) = second_table(&mut case);
    let (code, out, _) = replay(&case, &archive, &["--dry-run"]);
    assert!(code == 0 && out.starts_with(&format!("{count} messages, ")), "{out}");
    let clickhouse = case.stack.clickhouse.clone();
    for round in 0..2 {
        let (code, out, err) = replay(&case, &archive, &[]);
        assert_eq!((code, out), (0, format!("{count} messages replayed\n")), "{err}");
        assert!(!err.contains("write messages again"), "{err}");
        assert_eq!(clickhouse.count(&second).expect("a count"), u64::from(count), "round {round}");
    }
    let sum = |table: &str| {
        let sql =
            format!("SELECT count() AS n, sum(cityHash64(*)) AS sum, uniqExact(cityHash64(*)) AS kinds FROM {table}");
        clickhouse.query(&sql).expect("sums").remove(0)
    };
    assert_eq!(sum(&first), sum(&second));
    note(format!("{count} messages replayed twice: {}", sum(&second)));
}

#[test]
fn an_interrupted_replay_goes_on_and_doubles_nothing() {
    let mut case = Case::new(&Stack::running(), "resume");
    let archive = archived(&case, 3_000);
    let (_, second) = second_table(&mut case);
    // Small inserts, so that some are done when it is killed.
    let small = case.changed(
        KAFKA_TO_CLICKHOUSE,
        &[(
            "      create: ../schemas",
            &format!("      batch_messages_max: 100\n      create: {}/schemas", common::root().display()),
        )],
    );
    let arguments = |rate: &'static str| {
        let paths = [archive.to_str(), small.to_str()].map(|path| path.expect("UTF-8").to_owned());
        let [archive, small] = paths;
        let state = case.state().display().to_string();
        let mut all: Vec<String> =
            vec!["replay".into(), archive, "--pipeline".into(), small, "--state-dir".into(), state];
        if !rate.is_empty() {
            all.extend(["--rate".to_owned(), rate.to_owned()]);
        }
        all
    };
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(arguments("300"))
        .envs(&case.environment)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("streamer can be started");
    common::eventually("some rows are there and it is kept how far it is", || {
        common::at_least(case.stack.clickhouse.count(&second)?, 500)?;
        let kept = std::fs::read_dir(case.state().join("replay")).map_err(|error| error.to_string())?;
        common::at_least(kept.count(), 1)
    });
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    let arguments = arguments("");
    let done = output(&case, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && err.contains("going on behind the "), "{err}");
    assert_eq!(case.in_table().expect("rows"), (3_000, (0..3_000).collect()));
    assert_eq!(std::fs::read_dir(case.state().join("replay")).expect("a folder").count(), 0);
}

#[test]
fn a_selection_is_counted_and_files_that_are_none_stop_it() {
    let mut case = Case::new(&Stack::running(), "select");
    let archive = archived(&case, 200);
    let (_, second) = second_table(&mut case);
    let count = |more: &[&str]| {
        let (code, out, err) = replay(&case, &archive, &[&["--dry-run"], more].concat());
        assert_eq!(code, 0, "{err}");
        out.split(' ').next().and_then(|n| n.parse::<u32>().ok()).expect("a number")
    };
    assert_eq!(count(&["--key", "phone-7"]), 10);
    assert_eq!(count(&["--key", "phone-7", "--key", "phone-8", "--limit", "15"]), 15);
    assert_eq!(count(&["--topic", case.kafka_topic()]), 200);
    assert_eq!(count(&["--topic", "another"]), 0);
    assert_eq!(count(&["--to", "2020-01-01"]), 0);
    assert_eq!(count(&["--from", "2020-01-01", "--to", "2120-01-01"]), 200);
    let (code, _, err) = replay(&case, &archive, &["--from", "last Tuesday"]);
    assert!(code == 2 && err.contains("--from: `last Tuesday` is no time"), "{err}");
    let (code, _, err) = replay(&case, &archive.join("absent"), &[]);
    assert!(code == 2 && err.contains("absent`"), "{err}");

    std::fs::write(archive.join("foreign.parquet"), "no Parquet").expect("a file");
    let (code, _, err) = replay(&case, &archive, &[]);
    assert!(code == 2 && err.contains("foreign.parquet` is no whole Parquet file"), "{err}");
    assert_eq!(case.stack.clickhouse.count(&second).expect("a count"), 0, "nothing was replayed");
    let (code, out, err) = replay(&case, &archive, &["--skip-unreadable", "--key", "phone-7"]);
    assert_eq!((code, out.as_str()), (0, "10 messages replayed\n"), "{err}");
    assert_eq!(case.stack.clickhouse.count(&second).expect("a count"), 10);
}

#[test]
fn an_archive_in_an_object_store_is_replayed_from_there() {
    let mut case = Case::new(&Stack::running(), "replays3");
    let archive = archived(&case, 3_000);
    let store = ObjectStore::start(&case);
    store.put(&archive, "some/where");
    let (_, second) = second_table(&mut case);
    // Only what is no secret is on the command line.
    let options: Vec<_> = store.options().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (secret, options) = options.split_last().expect("there are some");
    case.environment.insert("AWS_SECRET_ACCESS_KEY", secret.split_once('=').expect("a value").1.to_owned());
    let options: Vec<_> = options.iter().flat_map(|option| ["--option", option]).collect();
    let run = |url: &str, more: &[&str]| {
        let done = replay(&case, std::path::Path::new(url), &[&options, more].concat());
        assert!(!done.2.contains("hunter2"), "{}", done.2);
        done
    };
    let (code, out, err) = run("s3://archive/some/where", &["--dry-run"]);
    assert!(code == 0 && out.starts_with("3000 messages, "), "{out}{err}");
    let (code, out, err) = run("s3://archive/some/where", &["--dry-run", "--key", "phone-7", "--limit", "5"]);
    assert!(code == 0 && out.starts_with("5 messages, "), "{out}{err}");
    let (code, out, err) = run("s3://archive/some/where", &["--dry-run", "--to", "2020-01-01"]);
    assert!(code == 0 && out.starts_with("0 messages, 0 bytes of payload, in 0 files"), "{out}{err}");
    let clickhouse = &case.stack.clickhouse;
    for source in ["s3://archive/some/where/", "s3://archive/some/where", archive.to_str().expect("UTF-8")] {
        // The same files, wherever they lie: the same ranges, which the table has had.
        let done = if source.contains("://") { run(source, &[]) } else { replay(&case, &archive, &[]) };
        assert_eq!((done.0, done.1.as_str()), (0, "3000 messages replayed\n"), "{source}: {}", done.2);
        assert_eq!(clickhouse.count(&second).expect("a count"), 3_000, "{source}");
    }
    let (code, _, err) = run("s3://archive/no/where", &[]);
    assert!(code == 2 && err.contains("cannot read `s3://archive/no/where`: nothing lies there"), "{err}");
    let (code, _, err) = run("s3://nobody/some/where", &[]);
    assert!(code == 2 && err.contains("cannot read `s3://nobody/some/where`: 404 Not Found: NoSuchBucket: "), "{err}");
    let (code, _, err) = run("s3://archive/some/where", &["--option", "aws_regoin=x"]);
    assert!(code == 2 && err.contains("it has no option `aws_regoin`"), "{err}");

    // As an input of a pipeline.
    let options = store.options().map(|(name, value)| format!("{name}: '{value}'")).join(", ");
    let file = case.write(
        "from.yaml",
        &format!(
            "name: from\ninputs:\n  archive:\n    parquet: {{ url: s3://archive/some/where, keys: phone-7, options: {{ {options} }} }}\n\
             steps:\n  - map: '#{{ ts: payload.payload.ts }}'\noutputs:\n  lines:\n    file: {{ path: from.jsonl }}\n\
             dead_letter:\n  file: {{ path: dead.jsonl }}\n"
        ),
    );
    let done =
        output(&case, &["run", file.to_str().expect("UTF-8"), "--state-dir", case.state().to_str().expect("UTF-8")]);
    let log = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && !log.contains("hunter2"), "{log}");
    let lines = std::fs::read_to_string(case.folder().join("from.jsonl")).expect("lines");
    assert_eq!(lines.lines().count(), 150);

    // A file that is none is named by its URL; a store that does not answer leaves nothing out.
    let broken = case.folder().join("broken");
    std::fs::create_dir(&broken).and_then(|()| std::fs::write(broken.join("x.parquet"), "no Parquet")).expect("a file");
    store.put(&broken, "some/where");
    let (code, _, err) = run("s3://archive/some/where", &[]);
    assert!(code == 2 && err.contains("`s3://archive/some/where/x.parquet` is no whole Parquet file"), "{err}");
    let (code, out, err) = run("s3://archive/some/where", &["--skip-unreadable", "--dry-run"]);
    assert!(code == 0 && out.starts_with("3000 messages, "), "{out}{err}");
    drop(store);
    let (code, out, err) = run("s3://archive/some/where", &["--skip-unreadable", "--dry-run"]);
    assert!(code == 2 && out.is_empty() && err.contains("cannot read `s3://archive/some/where`: "), "{out}{err}");
}

#[test]
fn mappings_see_the_message_as_it_was_received() {
    let case = Case::new(&Stack::running(), "then");
    let mut streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let sent: Vec<_> = (0..20).map(|seq| case.telemetry(seq)).collect();
    case.publisher().publish(&sent);
    case.nothing_lost_in_topic(&streamer, 20);
    assert_eq!(streamer.terminate().code(), Some(0));
    let file = case.write(
        "again.yaml",
        "name: again\ninputs:\n  devices:\n    mqtt: { url: mqtt://nowhere, client_id: x, topics: ['+/{device}/telemetry'] }\n\
         steps:\n  - map: '#{ device: meta.device, at: meta.received_at_ms, qos: meta.qos, ts: payload.ts }'\n\
         outputs:\n  lines:\n    file: { path: out.jsonl }\ndead_letter:\n  file: { path: dead.jsonl }\n",
    );
    let archive = PathBuf::from(&case.environment["ARCHIVE_DIR"]).join(MQTT_TO_KAFKA);
    let paths = [archive, file, case.state()].map(|path| path.display().to_string());
    let done = output(&case, &["replay", &paths[0], "--pipeline", &paths[1], "--state-dir", &paths[2]]);
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && err.contains("write messages again"), "{err}");
    let text = std::fs::read_to_string(case.folder().join("out.jsonl")).expect("lines");
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.sort_by_key(|line| line["ts"].as_u64());
    let records = common::kafka::read_all(&case.stack.kafka, case.kafka_topic()).expect("records");
    let mut then: Vec<_> = records.iter().map(|record| record.json()).collect();
    then.sort_by_key(|record| record["payload"]["ts"].as_u64());
    assert_eq!(lines.len(), 20);
    for (line, then) in lines.iter().zip(then) {
        assert_eq!(line["at"].as_i64().map(|ms| ms / 1000), then["received_at"].as_i64());
        assert_eq!((&line["device"], &line["qos"]), (&then["payload"]["device_id"], &1.into()));
    }
}
