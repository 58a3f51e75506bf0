//! ClickHouse at its worst: connections cut in the body, answers that never come after the insert happened, errors of
//! the server's and of whoever stands before it, tables that change or go. Every message has one row all the same.
use std::ops::Range;

use rand::{Rng as _, rngs::StdRng};

use crate::{
    common::{
        Case, KAFKA_TO_CLICKHOUSE, Stack, Streamer, dice, equal, full, kafka::Producer, load::Load, streamer::outage,
    },
    into_table,
    proxy::{Fate, Half, Proxy},
    report::Scenario,
    static_member, wait_sent,
};

const OUTPUT: &str = "kafka-to-clickhouse/output/table";
const TABLE: &str = "      table: ${CLICKHOUSE_TABLE:-iot.telemetry}\n";

/// `host:port` of the server.
fn http(case: &Case) -> &str {
    case.stack.clickhouse.url.trim_start_matches("http://").trim_end_matches('/')
}

/// Under load, connections to ClickHouse meet the fates that `fate` draws, in turns with a quiet spell.
fn network(name: &'static str, fate: impl FnMut(&mut StdRng) -> Fate + Clone + Send + 'static) {
    let mut scenario = Scenario::new(name);
    let mut case = Case::new(&Stack::running(), "net");
    case.create_table();
    let proxy = Proxy::new(http(&case));
    case.environment.insert("CLICKHOUSE_URL", format!("http://{}", proxy.address));
    let file = into_table(&case, &[(TABLE, &format!("{TABLE}      timeout_ms: 2000\n"))]);
    let load = Load::kafka(&case, 2000);
    let streamer = Streamer::start(&case, &[file]);
    streamer.wait_deliveries(500);
    let mut dice = dice();
    for _ in 0..full(2, 20) {
        let (mut fate, mut own_dice) = (fate.clone(), rand::SeedableRng::from_rng(&mut dice));
        proxy.set(move || fate(&mut own_dice));
        outage(6);
        proxy.set(|| Fate::Pass);
        outage(2);
    }
    scenario.faults(proxy.harm());
    assert!(proxy.harm() > 0, "no connection came to harm");
    scenario.table_has(&case, &streamer, load.stop());
}

#[test]
fn connections_cut_in_the_body_double_nothing() {
    network("clickhouse::cut_in_the_body", |dice| Fate::Cut(Half::Requests, dice.random_range(0..100_000)));
}

#[test]
fn answers_cut_after_the_insert_double_nothing() {
    network("clickhouse::answers_cut", |dice| Fate::Cut(Half::Answers, dice.random_range(0..1000)));
}

#[test]
fn answers_that_never_come_after_the_insert_double_nothing() {
    network("clickhouse::answers_never_come", |dice| Fate::Hang(Half::Answers, dice.random_range(0..1000)));
}

#[test]
fn errors_of_a_server_or_a_proxy_double_nothing() {
    const ANSWERS: [&str; 5] = [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>no</html>",
        "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ];
    network("clickhouse::errors_5xx", |dice| {
        if dice.random_ratio(3, 4) { Fate::Answer(ANSWERS[dice.random_range(0..ANSWERS.len())]) } else { Fate::Pass }
    });
}

/// Writes messages to Kafka as fast as it takes them.
fn produce(case: &Case, seqs: Range<u32>) {
    let mut producer = Producer::new(&case.stack.kafka);
    for seq in seqs {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), None, &key, Some(&value));
    }
    producer.flush();
}

/// Runs a statement; `{}` stands for the table.
#[track_caller]
fn alter(case: &Case, sql: &str) {
    case.stack.clickhouse.query(&sql.replace("{}", case.table())).expect("ClickHouse takes it");
}

#[test]
fn one_refused_row_among_many_is_one_dead_letter() {
    let mut scenario = Scenario::new("clickhouse::one_refused_row_in_100000");
    let case = Case::new(&Stack::running(), "one");
    case.create_table();
    let (sent, every) = full((40_000, 20_000), (500_000, 100_000));
    alter(&case, &format!("ALTER TABLE {{}} ADD CONSTRAINT rare CHECK ts % {every} != 77"));
    produce(&case, 0..sent);
    scenario.faults(sent / every);
    let streamer = Streamer::start(&case, &[static_member(&case)]);
    let tally = scenario.table_has_all_but(&case, &streamer, 0..sent, |seq| seq % every == 77);
    assert_eq!(tally.dead_lettered, u64::from(sent / every));
}

/// Rows that are in a table when it is dropped are gone. Those that come later wait for the new one.
#[test]
fn a_table_dropped_and_made_again_gets_what_came_since() {
    let mut scenario = Scenario::new("clickhouse::table_dropped");
    let case = Case::new(&Stack::running(), "drop");
    case.create_table();
    let create = "      create: ../schemas/telemetry.sql      # run once when the table is missing\n";
    let streamer = Streamer::start(&case, &[case.changed(KAFKA_TO_CLICKHOUSE, &[(create, "")])]);
    let mut first = 0;
    produce(&case, first..first + 1000);
    for _ in 0..full(2, 10) {
        streamer.eventually("the table is full", || equal(case.stack.clickhouse.count(case.table())?, 1000));
        alter(&case, "DROP TABLE {} SYNC");
        scenario.fault();
        first += 1000;
        produce(&case, first..first + 1000);
        let reason = streamer.wait_fault(OUTPUT);
        assert!(reason.contains(case.table()), "`{reason}` does not name {}", case.table());
        case.create_table();
    }
    scenario.table_has_all_but(&case, &streamer, first..first + 1000, |_| false);
}

#[test]
fn columns_that_come_and_go_under_load_double_nothing() {
    let mut scenario = Scenario::new("clickhouse::columns_come_and_go");
    let case = Case::new(&Stack::running(), "column");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let streamer = Streamer::start(&case, &[static_member(&case)]);
    for round in 0..full(3, 20) {
        streamer.wait_deliveries(500);
        alter(&case, &format!("ALTER TABLE {{}} ADD COLUMN extra{round} UInt8 DEFAULT 7 FIRST"));
        scenario.fault();
        wait_sent(&load, load.sent() + 2000);
        if round % 2 == 0 {
            alter(&case, &format!("ALTER TABLE {{}} DROP COLUMN extra{round}"));
            scenario.fault();
            wait_sent(&load, load.sent() + 2000);
        }
    }
    let tally = scenario.table_has(&case, &streamer, load.stop());
    assert_eq!(tally.dead_lettered, 0, "no message is to blame");
}

#[test]
fn too_many_parts_are_waited_for() {
    let mut scenario = Scenario::new("clickhouse::too_many_parts");
    let case = Case::new(&Stack::running(), "parts");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let streamer = Streamer::start(&case, &[static_member(&case)]);
    streamer.wait_deliveries(500);
    for _ in 0..full(1, 10) {
        alter(&case, "SYSTEM STOP MERGES {}");
        alter(&case, "ALTER TABLE {} MODIFY SETTING parts_to_delay_insert = 1, parts_to_throw_insert = 2");
        scenario.fault();
        let reason = streamer.wait_fault(OUTPUT);
        assert!(reason.contains("parts"), "{reason}");
        outage(5);
        alter(&case, "ALTER TABLE {} MODIFY SETTING parts_to_delay_insert = 1000, parts_to_throw_insert = 3000");
        alter(&case, "SYSTEM START MERGES {}");
        streamer.wait_ready();
    }
    let tally = scenario.table_has(&case, &streamer, load.stop());
    assert_eq!(tally.dead_lettered, 0, "no message is to blame");
}

/// What may not be written is not written, and nothing is blamed for it; when it may, everything is. The proxy puts another
/// user in the place of ours: `visitor` lacks the right to insert, `auditor` has a profile that only lets it read.
#[test]
fn a_user_that_may_only_read_is_waited_for() {
    const READERS: [(&[u8], &str); 2] =
        [(b"x-clickhouse-user: visitor", "grant the user INSERT"), (b"x-clickhouse-user: auditor", "read-only")];
    let mut scenario = Scenario::new("clickhouse::read_only_user");
    let mut case = Case::new(&Stack::running(), "reader");
    case.create_table();
    let proxy = Proxy::new(http(&case));
    case.environment.insert("CLICKHOUSE_URL", format!("http://{}", proxy.address));
    let load = Load::kafka(&case, 1000);
    let streamer = Streamer::start(&case, &[static_member(&case)]);
    for (user, refusal) in READERS.iter().cycle().take(full(2, 10)) {
        streamer.wait_deliveries(500);
        proxy.rewrite(Some((Half::Requests, b"x-clickhouse-user: default".to_vec(), user.to_vec())));
        scenario.fault();
        let reason = streamer.wait_fault(OUTPUT);
        assert!(reason.contains(refusal), "{reason}");
        // An insert that was under way as the other user may still end.
        outage(2);
        let before = load.sent();
        let rows = case.stack.clickhouse.count(case.table());
        wait_sent(&load, before + 1000);
        assert_eq!(case.stack.clickhouse.count(case.table()), rows, "nothing is written meanwhile");
        proxy.rewrite(None);
        streamer.wait_ready();
    }
    let tally = scenario.table_has(&case, &streamer, load.stop());
    assert_eq!(tally.dead_lettered, 0, "no message is to blame");
}
