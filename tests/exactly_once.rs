//! From Kafka into ClickHouse every message has one row, whatever dies: counted at the far end.
//!
//! `FAULTS=full` kills 200 times instead of a few; `FAULTS_SEED` repeats the moments of a run.
mod common;

use std::time::Duration;

use common::{
    Case, KAFKA_TO_CLICKHOUSE, Stack, Streamer, dice, equal, full,
    kafka::{self, Producer},
    load::Load,
    note,
};
use rand::Rng as _;

/// Waits until each of the messages `0..sent` has a row. Answers how many rows there are too many.
#[track_caller]
fn rows_too_many(case: &Case, streamer: &Streamer, sent: u32) -> u64 {
    let sql = format!("SELECT count() AS n, uniqExact(ts) AS seqs, max(ts) AS last FROM {}", case.table());
    streamer.eventually("every message has its row", || {
        let row = case.stack.clickhouse.query(&sql)?.remove(0);
        let number = |name: &str| row[name].as_u64().expect("a number");
        equal((number("seqs"), number("last")), (u64::from(sent), u64::from(sent) - 1))?;
        Ok(number("n") - number("seqs"))
    })
}

/// Waits until every message has a row, and shows that none has two.
#[track_caller]
fn once_in_table(case: &Case, streamer: &Streamer, sent: u32) {
    assert_eq!(rows_too_many(case, streamer, sent), 0, "rows that are there twice");
    // What is on its way may still arrive: an insert that was sent again must not.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(rows_too_many(case, streamer, sent), 0, "rows that are there twice, a little later");
    note(format!("{}: {sent} sent, 0 lost, 0 doubled", case.id));
}

/// The shipped pipeline, whose member takes its partitions back at once after a restart.
fn static_member(case: &Case) -> std::path::PathBuf {
    let old = "      group: ${KAFKA_GROUP:-streamer}\n";
    let new = format!("{old}      group_instance_id: one\n");
    case.changed(
        KAFKA_TO_CLICKHOUSE,
        &[(old, &new), ("../schemas/", &format!("{}/schemas/", common::root().display()))],
    )
}

#[test]
fn kill_9_doubles_nothing() {
    let case = Case::new(&Stack::running(), "once");
    case.create_table();
    let (mut dice, kills) = (dice(), full(6, 200));
    let load = Load::kafka(&case, 2000);
    let mut streamer = Streamer::start(&case, &[static_member(&case)]);
    for kill in 0..kills {
        // Some die at work, at another point of a round each, some before they have read anything.
        if dice.random_ratio(3, 4) {
            streamer.wait_deliveries(500);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..1500)));
        streamer.kill9();
        streamer.start_again();
        if kill % 20 == 19 {
            note(format!("{} kills, {} sent", kill + 1, load.sent()));
        }
    }
    streamer.wait_deliveries(500);
    once_in_table(&case, &streamer, load.stop());
}

#[test]
fn at_least_once_doubles_rows_when_it_dies_so_the_count_sees_them() {
    let case = Case::new(&Stack::running(), "twice");
    case.create_table();
    let file = static_member(&case);
    let text = std::fs::read_to_string(&file).expect("it was just written");
    std::fs::write(&file, text + "\ndelivery: at_least_once\n").expect("it can be written");
    let load = Load::kafka(&case, 2000);
    let mut streamer = Streamer::start(&case, &[file]);
    for _ in 0..4 {
        streamer.wait_deliveries(2000);
        streamer.kill9();
        streamer.start_again();
    }
    let sent = load.stop();
    let at_the_end = rows_too_many(&case, &streamer, sent);
    assert!(at_the_end > 0, "four kills doubled nothing: the other tests prove nothing");
}

#[test]
fn instances_that_come_and_go_double_nothing() {
    let case = Case::new(&Stack::running(), "storm");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let mut first = case.start(&[KAFKA_TO_CLICKHOUSE]);
    first.wait_deliveries(500);
    for round in 0..full(2, 20) {
        let second = case.start(&[KAFKA_TO_CLICKHOUSE]);
        second.wait_deliveries(500);
        if round % 2 == 0 {
            // The partitions wander over in peace, then the first one dies.
            first.kill9();
        } else {
            assert_eq!(first.terminate().code(), Some(0));
        }
        first = second;
    }
    once_in_table(&case, &first, load.stop());
}

#[test]
fn a_member_that_slept_past_its_session_doubles_nothing() {
    let case = Case::new(&Stack::running(), "zombie");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let mut sleeper = case.start(&[KAFKA_TO_CLICKHOUSE]);
    sleeper.wait_deliveries(1000);
    sleeper.signal("STOP");
    // Has all partitions only once the sleeper's session is over.
    let other = case.start(&[KAFKA_TO_CLICKHOUSE]);
    other.wait_deliveries(5000);
    sleeper.signal("CONT");
    let now = load.sent();
    common::eventually("the load goes on", || common::at_least(load.sent(), now + 10_000));
    once_in_table(&case, &other, load.stop());
    sleeper.kill9();
}

#[test]
fn a_table_that_remembers_nothing_is_refused_until_it_does() {
    let case = Case::new(&Stack::running(), "window");
    case.create_table();
    let setting = "non_replicated_deduplication_window";
    let query = |sql: String| case.stack.clickhouse.query(&sql).expect("ClickHouse takes it");
    query(format!("ALTER TABLE {} MODIFY SETTING {setting} = 0", case.table()));
    let file = static_member(&case);
    let text = std::fs::read_to_string(&file).expect("it was just written");
    std::fs::write(&file, text + "\ndelivery: exactly_once\n").expect("it can be written");
    let streamer = Streamer::start(&case, &[file]);
    let reason = streamer.wait_fault("kafka-to-clickhouse/output/table");
    let (database, table) = case.table().split_once('.').expect("a database and a table");
    let statement = format!("ALTER TABLE `{database}`.`{table}` MODIFY SETTING {setting} = 10000");
    assert!(reason.contains(&statement), "{reason}");
    query(statement);
    let mut producer = Producer::new(&case.stack.kafka);
    for seq in 0..100 {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), None, &key, Some(&value));
    }
    producer.flush();
    once_in_table(&case, &streamer, 100);
}

#[test]
fn a_range_in_too_many_partitions_is_written_in_pieces() {
    let case = Case::new(&Stack::running(), "pieces");
    case.create_table();
    let clickhouse = &case.stack.clickhouse;
    let query = |sql: String| clickhouse.query(&sql).expect("ClickHouse takes it");
    // Every row lies in a partition of its own, and an insert may have a hundred.
    query(format!(
        "CREATE TABLE {0}_p AS {0} ENGINE = MergeTree PARTITION BY ts ORDER BY ts SETTINGS \
                   non_replicated_deduplication_window = 10000",
        case.table()
    ));
    query(format!("DROP TABLE {}", case.table()));
    query(format!("RENAME TABLE {0}_p TO {0}", case.table()));
    let mut producer = Producer::new(&case.stack.kafka);
    for seq in 0..1500 {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), Some(0), &key, Some(&value));
    }
    producer.flush();
    let streamer = case.start(&[KAFKA_TO_CLICKHOUSE]);
    once_in_table(&case, &streamer, 1500);
    let letters = kafka::read_all(&case.stack.kafka, case.dead_letter_topic()).unwrap_or_default();
    equal(letters.len(), 0).expect("no row is refused");
}

#[test]
fn refused_rows_become_dead_letters_and_the_others_stay_one() {
    let case = Case::new(&Stack::running(), "poison");
    case.create_table();
    let refuse = format!("ALTER TABLE {} ADD CONSTRAINT odd CHECK ts % 500 != 7", case.table());
    case.stack.clickhouse.query(&refuse).expect("ClickHouse takes it");
    let load = Load::kafka(&case, 2000);
    let mut streamer = Streamer::start(&case, &[static_member(&case)]);
    for _ in 0..3 {
        streamer.wait_deliveries(1500);
        streamer.kill9();
        streamer.start_again();
    }
    let sent = load.stop();
    let refused = (0..sent).filter(|seq| seq % 500 == 7).count();
    streamer.eventually("every good message has its row", || {
        let (rows, seqs) = case.in_table()?;
        equal(seqs.len(), sent as usize - refused)?;
        equal(rows, seqs.len())
    });
    // A dead letter may come twice, a missing one never.
    let letters = streamer.eventually("the dead letters are there", || {
        let letters = kafka::read_all(&case.stack.kafka, case.dead_letter_topic())?;
        let offsets: std::collections::BTreeSet<_> = letters
            .iter()
            .map(|l| (l.json()["source"]["partition"].as_i64(), l.json()["source"]["offset"].as_i64()))
            .collect();
        equal(offsets.len(), refused).map(|()| letters.len())
    });
    note(format!("{sent} sent, {refused} refused, {letters} dead letters"));
}
