//! `streamer lint --connect` against real services: what it finds, where, and that it leaves everything as it was.
mod common;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    Case, MQTT_TO_KAFKA, Stack, at_least, eventually, kafka, mqtt,
    project::{Project, text},
    root, streamer,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// What `lint --connect` says of a pipeline, one line a finding, and its exit code.
fn connect(pipeline: &str) -> (Vec<String>, i32) {
    connect_all(&[("p.yaml", pipeline)])
}

fn connect_all(files: &[(&str, &str)]) -> (Vec<String>, i32) {
    let project = Project::new(files);
    let names = files.iter().map(|(name, _)| *name);
    // The machine may be busy: the limit is not what is tested here.
    let arguments = ["lint", "--connect", "--connect-timeout", "60", "--format", "concise"];
    let output = project.streamer(&arguments.into_iter().chain(names).collect::<Vec<_>>());
    let code = output.status.code().expect("it ends by itself");
    assert_ne!(code, 2, "{}", text(&output.stderr));
    (text(&output.stdout).lines().map(str::to_owned).collect(), code)
}

/// One finding, with this beginning and all of `parts`.
#[track_caller]
fn is_one(found: &[String], start: &str, parts: &[&str]) {
    let [line] = found else { panic!("not one finding: {found:#?}") };
    assert!(line.starts_with(start), "{line}\n{start}");
    for part in parts {
        assert!(line.contains(part), "no `{part}` in: {line}");
    }
}

fn reading(brokers: &str, topic: &str) -> String {
    format!(
        "inputs:\n  in:\n    kafka:\n      brokers: {brokers}\n      topics: [{topic}]\n      group: g\noutputs:\n  out: {{ drop: {{}} }}\ndead_letter: {{ drop: {{}} }}\n"
    )
}

fn writing(brokers: &str, topic: &str, more: &str) -> String {
    format!(
        "inputs:\n  in: {{ generate: {{ count: 1 }} }}\noutputs:\n  out:\n    kafka:\n      brokers: {brokers}\n      topic: {topic}\n{more}dead_letter: {{ drop: {{}} }}\n"
    )
}

/// From a topic into a table, each row once.
fn into_table(case: &Case, more: &str) -> String {
    let Stack { kafka, clickhouse, .. } = &case.stack;
    format!(
        "inputs:\n  in: {{ kafka: {{ brokers: {kafka}, topics: [{}], group: g }} }}\noutputs:\n  out:\n    clickhouse:\n      url: {}\n      table: {}\n{more}dead_letter: {{ drop: {{}} }}\n",
        case.kafka_topic(),
        clickhouse.url,
        case.table()
    )
}

/// Into a table, from nowhere.
fn rows(case: &Case, more: &str) -> String {
    format!(
        "inputs:\n  in: {{ generate: {{ count: 1 }} }}\noutputs:\n  out:\n    clickhouse:\n      url: {}\n      table: {}\n{more}dead_letter: {{ drop: {{}} }}\n",
        case.stack.clickhouse.url,
        case.table()
    )
}

/// Topics that the brokers know.
fn exists(brokers: &str, topic: &str) -> bool {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("broker.address.family", "v4");
    let consumer: BaseConsumer = config.create().expect("the settings are right");
    let metadata = eventually("Kafka lists its topics", || {
        consumer.fetch_metadata(None, Duration::from_secs(10)).map_err(|error| error.to_string())
    });
    metadata.topics().iter().any(|found| found.name() == topic)
}

#[test]
fn what_is_well_is_clean() {
    let case = Case::new(&Stack::running(), "well");
    case.create_table();
    kafka::create(&case.stack.kafka, case.kafka_topic(), 3, &[]);
    assert_eq!(connect(&into_table(&case, "")), (Vec::new(), 0));
    let demanded = format!("delivery: exactly_once\n{}", into_table(&case, ""));
    assert_eq!(connect(&demanded), (Vec::new(), 0));
    assert_eq!(connect(&writing(&case.stack.kafka, case.kafka_topic(), "")), (Vec::new(), 0));
    assert_eq!(connect(&reading(&case.stack.kafka, "'^no-such.*'")), (Vec::new(), 0), "a pattern may match nothing");
}

#[test]
fn a_server_that_is_away_is_one_finding_at_its_address() {
    // Nobody listens on port 1.
    let (found, code) = connect(&reading("127.0.0.1:1", "t"));
    is_one(&found, "p.yaml:4:16: error[unreachable-server] Kafka at `127.0.0.1:1` cannot be reached: ", &["refused"]);
    assert_eq!(code, 1);
    let (read, write) = (reading("127.0.0.1:1", "t"), writing("127.0.0.1:1", "u", ""));
    let (found, _) = connect_all(&[("a.yaml", &read), ("b.yaml", &format!("name: b\n{write}"))]);
    is_one(&found, "a.yaml:4:16: error[unreachable-server]", &[]);

    let table = "inputs:\n  in: { generate: { count: 1 } }\noutputs:\n  out:\n    clickhouse:\n      url: http://127.0.0.1:1\n      table: t\ndead_letter: { drop: {} }\n";
    let (found, code) = connect(table);
    is_one(&found, "p.yaml:6:12: error[unreachable-server] ClickHouse at `http://127.0.0.1:1` cannot", &["refused"]);
    assert_eq!(code, 1);
}

#[test]
fn a_missing_topic_is_found_and_not_made() {
    let case = Case::new(&Stack::running(), "absent");
    let (brokers, topic) = (&case.stack.kafka, case.kafka_topic());
    let says = format!("topic `{topic}` does not exist on Kafka at `{brokers}`");
    let (found, _) = connect(&reading(brokers, topic));
    is_one(&found, "p.yaml:5:16: ", &["[absent-topic]", &says]);
    let (found, _) = connect(&writing(brokers, topic, ""));
    is_one(&found, "p.yaml:7:14: ", &["[absent-topic]", &says]);
    // What the brokers would make it with is known already.
    let (found, _) = connect(&writing(brokers, topic, "      message_bytes_max: 3000000\n"));
    let [absent, limit] = found.as_slice() else { panic!("{found:#?}") };
    assert!(absent.contains("[absent-topic]"), "{absent}");
    assert!(limit.starts_with("p.yaml:8:26: warning[message-limit]"), "{limit}");
    assert!(!exists(brokers, topic), "asking has made the topic");
}

#[test]
fn a_topic_that_takes_less_than_is_written_is_found() {
    let case = Case::new(&Stack::running(), "limit");
    let (brokers, topic) = (&case.stack.kafka, case.kafka_topic());
    kafka::create(brokers, topic, 1, &[("max.message.bytes", "20000")]);
    let (found, code) = connect(&writing(brokers, topic, "      message_bytes_max: 30000\n"));
    let says = format!("topic `{topic}` takes messages of up to 20000 bytes, this output writes up to 30000");
    is_one(&found, "p.yaml:8:26: warning[message-limit] ", &[&says]);
    assert_eq!(code, 0);
    assert_eq!(connect(&writing(brokers, topic, "      message_bytes_max: 20000\n")).0, <[String; 0]>::default());
}

#[test]
fn a_topic_without_enough_replicas_takes_nothing() {
    let case = Case::new(&Stack::running(), "thin");
    let (brokers, topic) = (&case.stack.kafka, case.kafka_topic());
    kafka::create(brokers, topic, 2, &[("min.insync.replicas", "2")]);
    let (found, code) = connect(&writing(brokers, topic, ""));
    is_one(&found, "p.yaml:7:14: error[topic-unavailable] 2 of 2 partition(s)", &["fewer than 2 replicas in sync"]);
    assert_eq!(code, 1);
    assert_eq!(connect(&reading(brokers, topic)).0, <[String; 0]>::default(), "it can be read all the same");
}

#[test]
fn a_missing_table_is_found_and_not_made() {
    let case = Case::new(&Stack::running(), "notable");
    kafka::create(&case.stack.kafka, case.kafka_topic(), 1, &[]);
    let (found, code) = connect(&into_table(&case, ""));
    is_one(&found, "p.yaml:7:14: error[absent-table] there is no table", &[case.table()]);
    assert_eq!(code, 1);
    let sql = format!("CREATE TABLE {} (a UInt8) ENGINE = MergeTree ORDER BY a", case.table());
    let project = Project::new(&[("p.yaml", &into_table(&case, "      create: t.sql\n")), ("t.sql", &sql)]);
    let output = project.streamer(&["lint", "--connect", "--connect-timeout", "60", "--format", "concise", "p.yaml"]);
    is_one(&[text(&output.stdout).trim().to_owned()], "p.yaml:7:14: note[absent-table]", &[]);
    let there = format!("SELECT name FROM system.tables WHERE concat(database, '.', name) = '{}'", case.table());
    assert_eq!(case.stack.clickhouse.query(&there), Ok(Vec::new()), "asking has made the table");
}

#[test]
fn a_table_that_recognises_nothing_is_found_with_what_to_run() {
    let case = Case::new(&Stack::running(), "window");
    kafka::create(&case.stack.kafka, case.kafka_topic(), 1, &[]);
    let clickhouse = &case.stack.clickhouse;
    let run = |sql: &str| clickhouse.query(sql).unwrap();
    run("CREATE DATABASE IF NOT EXISTS iot");
    run(&format!("CREATE TABLE {} (a UInt8) ENGINE = MergeTree ORDER BY a", case.table()));
    let alter = "MODIFY SETTING non_replicated_deduplication_window = 10000`";
    let (found, code) = connect(&into_table(&case, ""));
    is_one(&found, "p.yaml:7:14: warning[no-deduplication]", &[alter]);
    assert_eq!(code, 0);
    let demanded = format!("delivery: exactly_once\n{}", into_table(&case, ""));
    let (found, code) = connect(&demanded);
    is_one(&found, "p.yaml:8:14: error[no-deduplication]", &[alter]);
    assert_eq!(code, 1);
    // What it says mends it.
    let statement = found[0].split("run `").nth(1).unwrap().trim_end_matches('`');
    run(statement);
    assert_eq!(connect(&demanded), (Vec::new(), 0));
    // A view behind the table is another place where rows come twice.
    run(&format!("CREATE MATERIALIZED VIEW {0}_view ENGINE = MergeTree ORDER BY a AS SELECT a FROM {0}", case.table()));
    let (found, _) = connect(&demanded);
    is_one(&found, "p.yaml:8:14: error[no-deduplication]", &[".inner_id.", alter]);
}

#[test]
fn what_the_steps_make_is_held_against_the_columns_of_the_server() {
    let case = Case::new(&Stack::running(), "columns");
    let clickhouse = &case.stack.clickhouse;
    let run = |sql: &str| clickhouse.query(sql).unwrap();
    run("CREATE DATABASE IF NOT EXISTS iot");
    let (table, settings) = (case.table(), "SETTINGS non_replicated_deduplication_window = 100");
    let made =
        |columns: &str| format!("CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY device {settings}");
    run(&made("device String, battery UInt8, ts UInt32, site LowCardinality(String), n Nested(x Float32, y Float32)"));
    let map = |script: &str| format!("steps:\n  - map: '{script}'\n");
    let with = |script: &str, more: &str| format!("{}{}", map(script), rows(&case, more));

    let good = "#{ device: payload.id, battery: num(payload.b, 0), ts: now(), site: \"a\", n: #{ x: 0.5, y: 1 } }";
    assert_eq!(connect(&with(good, "")), (Vec::new(), 0));
    // What is certain for every message is an error.
    let (found, code) =
        connect(&with("#{ device: payload.id, batery: 1, ts: now(), site: \"a\", n: #{ x: 0.5 } }", ""));
    is_one(&found, "p.yaml:2:34: error[unknown-column]", &[table, "has no column `batery`"]);
    assert_eq!(code, 1);
    let block = with("X", "").replace(
        "'X'",
        "|\n      #{ device: payload.id, battery: \"full\", n: 5, ts: format_ts(0),\n         site: () }",
    );
    let (found, code) = connect(&block);
    let starts: Vec<_> = found.iter().map(|line| line.split(", which").next().unwrap()).collect();
    assert_eq!(
        starts,
        [
            "p.yaml:3:30: error[unfit-value] `battery` is `\"full\"`",
            "p.yaml:3:47: error[unfit-value] `n` is `5`",
            "p.yaml:3:53: error[unfit-value] `ts` is a text like `\"2024-05-01T10:00:00.500Z\"`",
            "p.yaml:4:10: error[unfit-value] `site` is `null`",
        ]
    );
    assert_eq!(code, 1);
    // What only some messages have is a warning, and so is a column that nothing fills.
    let (found, code) = connect(&with("let m = #{ device: payload.id }; if payload.b == 1 { m.extra = 1 } m", ""));
    let [unfilled, unknown] = found.as_slice() else { panic!("{found:#?}") };
    assert!(
        unfilled.contains("warning[unfilled-column] nothing fills columns `battery`, `ts`, `site`, `n`"),
        "{unfilled}"
    );
    assert!(unknown.contains("warning[unknown-column]") && unknown.contains("`extra`"), "{unknown}");
    assert_eq!(code, 0);

    // The server counts more than a file that is older; without a table the file is all there is.
    let old = made("device String, n Nested(x Float32)");
    let lint = |file: &str| {
        let project = Project::new(&[("p.yaml", file), ("t.sql", &old)]);
        let output =
            project.streamer(&["lint", "--connect", "--connect-timeout", "60", "--format", "concise", "p.yaml"]);
        text(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let file = with(good, "      create: t.sql\n");
    assert_eq!(lint(&file), <[String; 0]>::default());
    run(&format!("DROP TABLE {table} SYNC"));
    let found = lint(&file);
    let count = |code: &str| found.iter().filter(|line| line.contains(code)).count();
    assert_eq!((count("warning[unknown-column]"), count("note[absent-table]"), found.len()), (4, 1, 5), "{found:#?}");
}

/// What is read from a file is what the server makes of it, or less.
#[test]
fn columns_read_from_a_file_are_those_that_the_server_lists() {
    let case = Case::new(&Stack::running(), "ddl");
    let clickhouse = &case.stack.clickhouse;
    clickhouse.query("CREATE DATABASE IF NOT EXISTS iot").unwrap();
    let sql = format!(
        "-- (a, b\nCREATE TABLE IF NOT EXISTS {} (
            a UInt8, -- one, (two
            `b c` LowCardinality(Nullable(String)) COMMENT 'x, DEFAULT 1' CODEC(ZSTD(3)),
            d Decimal(9, 2) DEFAULT 1.5, /* e UInt8, */
            f UInt8 NULL, g DOUBLE PRECISION, h INT NOT NULL DEFAULT 5, i VARCHAR(10),
            j Enum8('x,y' = 1, ')' = 2), k DateTime64(3, 'UTC') DEFAULT now64(3),
            l UInt64 MATERIALIZED a + 1, m UInt64 ALIAS a + 2, e String EPHEMERAL,
            n Nested(x Float32, `y` UInt8), o Array(Tuple(p UInt8, q String)), r Map(String, UInt8),
            INDEX ix a TYPE minmax GRANULARITY 1, CONSTRAINT c CHECK a < 200
        ) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100",
        case.table()
    );
    let names = ["a", "\"b c\"", "d", "f", "g", "h", "i", "j", "k", "l", "m", "e", "n", "o", "r", "n.x", "z"];
    // A value that none of the types takes, but those that take everything.
    let fields: Vec<_> = names
        .iter()
        .map(|name| format!("{}: ()", if name.contains('.') { format!("\"{name}\"") } else { (*name).to_owned() }))
        .collect();
    let pipeline = format!(
        "steps:\n  - map: |\n      #{{\n        {}\n      }}\n{}",
        fields.join(",\n        "),
        rows(&case, "      create: t.sql\n")
    );
    let project = Project::new(&[("p.yaml", &pipeline), ("t.sql", &sql)]);
    let lint = |arguments: &[&str]| {
        let output = project.streamer(&[&["lint", "--format", "concise"], arguments, &["p.yaml"]].concat());
        let said = text(&output.stdout).replace(": warning[", ": error[");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let by_file = lint(&[]);
    clickhouse.query(&sql).unwrap();
    let by_server = lint(&["--connect", "--connect-timeout", "60"]);
    assert!(by_file.len() > 7, "{by_file:#?}");
    // Types of other names are known to the server alone.
    let line = |name: &str| names.iter().position(|known| *known == name).unwrap() + 4;
    let only: Vec<_> = by_server.iter().filter(|found| !by_file.contains(found)).collect();
    let starts: Vec<String> =
        ["g", "h", "i"].iter().map(|name| format!("p.yaml:{}:9: error[unfit-value]", line(name))).collect();
    assert!(only.len() == 3 && only.iter().zip(&starts).all(|(found, start)| found.starts_with(start)), "{only:#?}");
    assert!(by_file.iter().all(|found| by_server.contains(found)), "{by_file:#?}\n{by_server:#?}");
}

#[test]
fn a_refused_password_stands_at_the_password() {
    let case = Case::new(&Stack::running(), "refused");
    kafka::create(&case.stack.kafka, case.kafka_topic(), 1, &[]);
    let secret = "      user: default\n      password: \"${X:-not-the-password}\"\n";
    let (found, code) = connect(&into_table(&case, secret));
    is_one(
        &found,
        "p.yaml:9:17: error[refused-sign-in] ClickHouse at ",
        &["refuses the sign-in", "password is incorrect"],
    );
    assert!(!found[0].contains("not-the-password"), "a secret has left: {}", found[0]);
    assert_eq!(code, 1);
}

#[test]
fn an_mqtt_broker_is_asked_for_everything() {
    let pipeline = |address: &str| {
        format!(
            "inputs:\n  in:\n    mqtt:\n      url: mqtt://{address}\n      client_id: c\n      topics: [a/+, {{ filter: b, qos: 2 }}, $share/g/c]\noutputs:\n  out:\n    mqtt: {{ url: mqtt://{address}, topic: d, qos: 2, retain: true }}\ndead_letter: {{ drop: {{}} }}\n"
        )
    };
    let (found, code) = connect(&pipeline(&Stack::running().mqtt));
    let [shared, window] = found.as_slice() else { panic!("{found:#?}") };
    assert!(shared.starts_with("p.yaml:6:44: warning[shared-subscription]"), "{shared}");
    assert!(window.starts_with("p.yaml:9:5: note[broker-limit]"), "Mosquitto takes 20 at a time: {window}");
    assert_eq!(code, 0);
    let (found, code) = connect(&pipeline("127.0.0.1:1"));
    let found: Vec<_> = found.into_iter().filter(|line| !line.contains("shared-subscription")).collect();
    is_one(&found, "p.yaml:4:12: error[unreachable-server] the MQTT broker at mqtt://127.0.0.1:1 ", &["refused"]);
    assert_eq!(code, 1);
}

/// A Mosquitto with these limits, for as long as this lives.
struct Limited(std::process::Child, String);

impl Limited {
    fn start(case: &Case, limits: &str) -> Self {
        let find = "import sys; sys.path.insert(0, 'services'); from local.install import program; print(program('mosquitto') or '')";
        let found =
            Command::new("python3").args(["-c", find]).current_dir(root()).output().expect("python3 can be started");
        let program = text(&found.stdout).trim().to_owned();
        assert!(!program.is_empty(), "no mosquitto is installed, which this test starts with limits of its own");
        let port = streamer::free_port();
        let config =
            case.write("mosquitto.conf", &format!("listener {port} 127.0.0.1\nallow_anonymous true\n{limits}"));
        let broker =
            Command::new(program).arg("-c").arg(config).stderr(Stdio::null()).spawn().expect("it can be started");
        let broker = Self(broker, format!("127.0.0.1:{port}"));
        eventually("mosquitto answers", || mqtt::answers(&broker.1).map_err(|error| error.to_string()));
        broker
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_limits_of_an_mqtt_broker_are_held_against_the_settings() {
    let case = Case::new(&Stack::running(), "limited");
    let broker =
        Limited::start(&case, "max_qos 1\nretain_available false\nmax_inflight_messages 5\nmax_packet_size 5000\n");
    let pipeline = |qos: u8, more: &str| {
        let address = &broker.1;
        format!(
            "inputs:\n  in:\n    mqtt:\n      url: mqtt://{address}\n      client_id: c\n      topics: b\n      qos: {qos}\noutputs:\n  out:\n    mqtt:\n      url: mqtt://{address}\n      topic: d\n      qos: {qos}\n{more}dead_letter: {{ drop: {{}} }}\n"
        )
    };
    let (found, code) = connect(&pipeline(2, "      retain: true\n      in_flight_max: 6\n"));
    let expected = [
        ("p.yaml:6:15: error[refused-subscription]", "grants `b` only with qos 1, not 2"),
        ("p.yaml:10:5: note[broker-limit]", "takes packets of up to 5000 bytes"),
        ("p.yaml:13:12: error[broker-limit]", "takes messages with qos 1 at most"),
        ("p.yaml:14:15: error[broker-limit]", "keeps no retained messages"),
        ("p.yaml:15:22: note[broker-limit]", "takes 5 unconfirmed messages at a time"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, (start, part)) in found.iter().zip(expected) {
        assert!(found.starts_with(start) && found.contains(part), "{found}\n{start}: {part}");
    }
    assert_eq!(code, 1);
    let (found, code) = connect(&pipeline(1, "      in_flight_max: 5\n"));
    is_one(&found, "p.yaml:10:5: note[broker-limit]", &["packets"]);
    assert_eq!(code, 0);
}

#[test]
fn who_else_is_in_a_group_is_found() {
    let case = Case::new(&Stack::running(), "members");
    let (brokers, topic, group) = (&case.stack.kafka, case.kafka_topic(), &case.id);
    kafka::create(brokers, topic, 1, &[]);
    let pipeline = reading(brokers, topic).replace("group: g", &format!("group: {group}"));
    assert_eq!(connect(&pipeline), (Vec::new(), 0), "a group that is not there yet is none");
    let one = Member::join(brokers, group, topic, "dashboard");
    let (found, code) = connect(&pipeline);
    is_one(
        &found,
        "p.yaml:6:14: warning[foreign-member]",
        &[&format!("group `{group}` has members"), "`dashboard` at "],
    );
    assert_eq!(code, 0);
    drop(one);
    eventually("the member has left", || match connect(&pipeline).0.as_slice() {
        [] => Ok(()),
        found => Err(format!("{found:?}")),
    });
    // Our own instances are no strangers, but one partition is enough for one of them only.
    let ours = Member::join(brokers, group, topic, "streamer");
    assert_eq!(connect(&pipeline), (Vec::new(), 0));
    let more = Member::join(brokers, group, topic, "streamer");
    eventually("both are members", || match connect(&pipeline).0.as_slice() {
        [one] if one.starts_with("p.yaml:6:14: note[idle-member]") && one.contains("2 members for 1 partition") => {
            Ok(())
        }
        found => Err(format!("{found:?}")),
    });
    drop((ours, more));
}

/// A member of a group, for as long as this lives.
struct Member(std::sync::Arc<std::sync::atomic::AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Member {
    /// Joins, and waits until the brokers list it.
    fn join(brokers: &str, group: &str, topic: &str, client_id: &str) -> Self {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("broker.address.family", "v4").set("client.id", client_id);
        config.set("group.id", group).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("the settings are right");
        consumer.subscribe(&[topic]).expect("a topic");
        let members = |consumer: &BaseConsumer| {
            let all =
                consumer.fetch_group_list(Some(group), Duration::from_secs(10)).map_err(|error| error.to_string())?;
            let group = all.groups().iter().find(|found| found.name() == group).ok_or("no group")?;
            let stable = group.state() == "Stable";
            Ok::<_, String>(if stable { group.members().len() } else { 0 })
        };
        eventually("a member joins", || {
            let _ = consumer.poll(Duration::from_millis(50));
            at_least(members(&consumer)?, 1)
        });
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::default());
        let stopped = stop.clone();
        let polling = std::thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = consumer.poll(Duration::from_millis(50));
            }
        });
        Self(stop, Some(polling))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.1.take().expect("it polls until now").join();
    }
}

#[test]
fn keys_for_one_partition_are_worth_a_note() {
    let case = Case::new(&Stack::running(), "keys");
    let (brokers, topic) = (&case.stack.kafka, case.kafka_topic());
    kafka::create(brokers, topic, 1, &[]);
    let (found, code) = connect(&writing(brokers, topic, "      key: k\n"));
    is_one(&found, "p.yaml:8:12: note[one-partition]", &[&format!("topic `{topic}` has one partition")]);
    assert_eq!(code, 0);
    assert_eq!(connect(&writing(brokers, topic, "")).0, <[String; 0]>::default());
}

#[test]
fn asking_an_mqtt_broker_leaves_the_session_of_a_pipeline_alone() {
    let case = Case::new(&Stack::running(), "session");
    let file = root().join(format!("pipelines/{MQTT_TO_KAFKA}.yaml"));
    let ask = || {
        let arguments = ["lint", "--connect", "--connect-timeout", "60", "--format", "concise"];
        let output = streamer::output(&case, &[&arguments[..], &[file.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    };
    let mut streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    ask();
    streamer.terminate();
    assert!(!streamer.log().contains("took over"), "{}", streamer.log());
    // Whoever starts clean under the pipeline's name, or ends its session, loses what comes while it is away.
    ask();
    case.publisher().publish(&(0..20).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    ask();
    streamer.start_again();
    case.nothing_lost_in_topic(&streamer, 20);
}

#[test]
fn without_the_option_nobody_is_asked() {
    let project = Project::new(&[("p.yaml", &reading("127.0.0.1:1", "t"))]);
    let output = project.streamer(&["lint", "p.yaml"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(0)));
    let output = project.streamer(&["lint", "--connect-timeout", "5", "p.yaml"]);
    assert!(text(&output.stderr).contains("--connect"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(2));
}
