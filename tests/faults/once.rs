//! Exactly once from Kafka into ClickHouse: instances that come and go, zombies, refused rows, batches that must be
//! divided. That the count sees doubled rows is shown by running without exactly-once.
use crate::{
    common::{Case, KAFKA_TO_CLICKHOUSE, Stack, Streamer, equal, full, kafka::Producer, load::Load, note},
    report::Scenario,
    static_member, wait_sent,
};

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
    let sent = load.stop() as usize;
    let rows = streamer.eventually("every message has its row", || {
        let (rows, seqs) = case.in_table()?;
        equal(seqs.len(), sent).map(|()| rows)
    });
    note(format!("{sent} sent, {rows} rows"));
    assert!(rows > sent, "four kills doubled nothing: the other tests prove nothing");
}

#[test]
fn instances_that_come_and_go_double_nothing() {
    let mut scenario = Scenario::new("once::instances_come_and_go");
    let case = Case::new(&Stack::running(), "storm");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let mut first = case.start(&[KAFKA_TO_CLICKHOUSE]);
    first.wait_deliveries(500);
    for round in 0..full(2, 20) {
        let second = case.start_beside(&[KAFKA_TO_CLICKHOUSE]);
        second.wait_deliveries(500);
        if round % 2 == 0 {
            // The partitions wander over in peace, then the first one dies.
            first.kill9();
        } else {
            assert_eq!(first.terminate().code(), Some(0));
        }
        scenario.fault();
        first = second;
    }
    scenario.table_has(&case, &first, load.stop());
}

#[test]
fn a_member_that_slept_past_its_session_doubles_nothing() {
    let mut scenario = Scenario::new("once::a_member_sleeps_past_its_session");
    let case = Case::new(&Stack::running(), "zombie");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let mut sleeper = case.start(&[KAFKA_TO_CLICKHOUSE]);
    let mut other = case.start_beside(&[KAFKA_TO_CLICKHOUSE]);
    for _ in 0..full(1, 10) {
        sleeper.wait_deliveries(1000);
        sleeper.signal("STOP");
        scenario.fault();
        // Gets the sleeper's partitions once its session is over.
        wait_sent(&load, load.sent() + 8_000);
        sleeper.signal("CONT");
        wait_sent(&load, load.sent() + 3_000);
        std::mem::swap(&mut sleeper, &mut other);
    }
    scenario.table_has(&case, &sleeper, load.stop());
    other.kill9();
}

#[test]
fn a_table_that_remembers_nothing_is_refused_until_it_does() {
    let mut scenario = Scenario::new("once::a_table_that_remembers_nothing");
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
    scenario.fault();
    query(statement);
    let mut producer = Producer::new(&case.stack.kafka);
    for seq in 0..100 {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), None, &key, Some(&value));
    }
    producer.flush();
    scenario.table_has(&case, &streamer, 100);
}

#[test]
fn a_range_in_too_many_partitions_is_written_in_pieces() {
    let mut scenario = Scenario::new("once::a_range_in_too_many_partitions");
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
    scenario.fault();
    let tally = scenario.table_has(&case, &streamer, 1500);
    assert_eq!(tally.dead_lettered, 0, "no row is refused");
}

#[test]
fn refused_rows_become_dead_letters_and_the_others_stay_one() {
    let mut scenario = Scenario::new("once::refused_rows");
    let case = Case::new(&Stack::running(), "poison");
    case.create_table();
    let refuse = format!("ALTER TABLE {} ADD CONSTRAINT odd CHECK ts % 500 != 7", case.table());
    case.stack.clickhouse.query(&refuse).expect("ClickHouse takes it");
    let load = Load::kafka(&case, 2000);
    let mut streamer = Streamer::start(&case, &[static_member(&case)]);
    for _ in 0..full(3, 20) {
        streamer.wait_deliveries(1500);
        streamer.kill9();
        scenario.fault();
        streamer.start_again();
    }
    let tally = scenario.table_has_all_but(&case, &streamer, 0..load.stop(), |seq| seq % 500 == 7);
    assert!(tally.dead_lettered > 0);
}
