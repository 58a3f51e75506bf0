//! Kafka's oddities: topics that appear, vanish and refuse, transactions that are aborted, groups that never rest.
use std::time::Duration;

use rand::Rng as _;
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};

use crate::{
    common::{
        Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Stack, Streamer, at_least, case, dice, equal, full,
        kafka::{self, Producer},
        load::Load,
        note,
        stack::OwnStack,
    },
    report::Scenario,
    static_member, stop, wait_sent,
};

/// Two instances share a group and are ended and started at random, so that partitions wander all the time.
#[test]
fn a_storm_of_rebalances_doubles_nothing() {
    let mut scenario = Scenario::new("kafka::a_storm_of_rebalances");
    let case = Case::new(&Stack::running(), "storm");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let mut members: Vec<Streamer> = (0..2).map(|_| case.start_beside(&[KAFKA_TO_CLICKHOUSE])).collect();
    members[0].wait_deliveries(200);
    let mut dice = dice();
    for _ in 0..full(5, 60) {
        let member = &mut members[dice.random_range(0..2)];
        if dice.random_ratio(1, 3) {
            member.kill9();
        } else {
            stop(member);
        }
        scenario.fault();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..1000)));
        member.start_again();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..3000)));
    }
    scenario.table_has(&case, &members[0], load.stop());
}

/// A message that is larger than the topic takes is a dead letter; those around it arrive, in their order.
#[test]
fn messages_that_are_too_large_become_dead_letters() {
    let mut scenario = Scenario::new("kafka::messages_too_large");
    let case = Case::new(&Stack::running(), "large");
    kafka::create(&case.stack.kafka, case.kafka_topic(), 4, &[("max.message.bytes", "20000")]);
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let (sent, every) = (full(3000, 30_000), 100);
    scenario.faults(sent / every);
    let messages = (0..sent).map(|seq| {
        let mut reading = case::reading(seq);
        if seq % every == 42 {
            // It must not shrink below the limit when it is compressed.
            let mut noise = String::new();
            let mut dice = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seq.into());
            (0..40_000).for_each(|_| noise.push(char::from(dice.random_range(b'0'..=b'z'))));
            reading["padding"] = noise.into();
        }
        (case::telemetry(&case.id, seq).0, reading.to_string().into_bytes())
    });
    case.publisher().publish(&messages.collect::<Vec<_>>());
    let tally = scenario.topic_has_all_but(&case, &streamer, 0..sent, |seq| seq % every == 42);
    assert_eq!(tally.dead_lettered, u64::from(sent / every));
}

/// What was in a topic that is deleted is gone. Everything that comes later lands in the new one.
#[test]
fn a_topic_deleted_and_made_again_gets_what_came_since() {
    let mut scenario = Scenario::new("kafka::output_topic_deleted");
    let case = Case::new(&Stack::running(), "delout");
    let streamer = case.start(&[MQTT_TO_KAFKA]);
    streamer.wait_ready();
    let mut publisher = case.publisher();
    let mut publish = |seqs: std::ops::Range<u32>| {
        publisher.publish(&seqs.map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    };
    let mut first = 0;
    publish(0..1000);
    for _ in 0..full(2, 10) {
        streamer.eventually("the topic is full", || equal(case.in_topic()?.1.len(), 1000));
        kafka::delete(&case.stack.kafka, case.kafka_topic());
        scenario.fault();
        // For a moment a broker still takes messages for a topic that is deleted.
        std::thread::sleep(Duration::from_secs(1));
        first += 1000;
        publish(first..first + 1000);
    }
    scenario.topic_has_all_but(&case, &streamer, first..first + 1000, |_| false);
}

/// A topic that is read is deleted and made again; the new one's offsets begin at 0. Nothing in it is passed over.
#[test]
fn a_topic_that_is_read_may_be_deleted_and_made_again() {
    let mut scenario = Scenario::new("kafka::input_topic_deleted");
    let case = Case::new(&Stack::running(), "delin");
    case.create_table();
    let streamer = Streamer::start(&case, &[static_member(&case)]);
    let mut sent = 0;
    for round in 0..full(2, 10) {
        // The new topic grows past where the old one ended, or stays behind it.
        let count = 500 + 400 * (round % 3);
        if round > 0 {
            kafka::delete(&case.stack.kafka, case.kafka_topic());
            scenario.fault();
        }
        kafka::create(&case.stack.kafka, case.kafka_topic(), 4, &[]);
        let mut producer = Producer::new(&case.stack.kafka);
        for seq in sent..sent + count {
            let (key, value) = case.wrapped(seq);
            producer.send(case.kafka_topic(), None, &key, Some(&value));
        }
        producer.flush();
        sent += count;
        streamer.eventually("the rows are there", || at_least(case.in_table()?.1.len(), sent as usize));
    }
    scenario.table_has(&case, &streamer, sent);
    let told = streamer.log_lines("WARN").iter().filter(|line| line.contains("was deleted and made again")).count();
    note(format!("told of {told} topics made again"));
    assert!(told > 0, "it was not noticed");
}

/// A transactional producer commits some of what it writes and aborts the rest. Only what is committed has rows.
#[test]
fn aborted_messages_have_no_rows_and_leave_no_holes() {
    let mut scenario = Scenario::new("kafka::aborted_transactions");
    let case = Case::new(&Stack::running(), "abort");
    case.create_table();
    kafka::create(&case.stack.kafka, case.kafka_topic(), 4, &[]);
    let mut streamer = Streamer::start(&case, &[static_member(&case)]);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &case.stack.kafka).set("broker.address.family", "v4");
    config.set("transactional.id", &case.id);
    let producer: ThreadedProducer<_> = config.create().expect("the settings are right");
    let wait = Duration::from_secs(60);
    producer.init_transactions(wait).expect("the broker knows transactions");
    let (mut dice, mut committed) = (dice(), 0);
    for round in 0..full(30, 300) {
        producer.begin_transaction().expect("none is open");
        let aborted = dice.random_ratio(1, 3);
        let count = dice.random_range(1..200);
        for i in 0..count {
            // A number of an aborted message would show in the table beside the committed one.
            let (key, value) = case.wrapped(committed + i);
            producer.send(BaseRecord::to(case.kafka_topic()).key(&key).payload(&value)).expect("there is room");
        }
        producer.flush(wait).expect("the broker takes it");
        if aborted {
            producer.abort_transaction(wait).expect("it can be aborted");
            scenario.fault();
        } else {
            producer.commit_transaction(wait).expect("it can be committed");
            committed += count;
        }
        if round % 10 == 9 {
            streamer.kill9();
            scenario.fault();
            streamer.start_again();
        }
    }
    scenario.table_has(&case, &streamer, committed);
}

/// Topics are made by the first message to them, and their partitions have no leader yet. Nothing is lost or changes
/// places meanwhile.
#[test]
fn the_first_messages_to_new_topics_arrive() {
    let mut scenario = Scenario::new("kafka::topics_made_by_the_first_message");
    let case = Case::new(&Stack::running(), "fresh");
    let topic = "      topic: ${KAFKA_TOPIC:-telemetry}\n";
    let each = format!("      topic: \"{}.{{meta.levels[1]}}\"\n", case.kafka_topic());
    let streamer = Streamer::start(&case, &[case.changed(MQTT_TO_KAFKA, &[(topic, &each)])]);
    streamer.wait_ready();
    let sent = full(2000, 20_000);
    scenario.faults(case::DEVICES);
    case.publisher().publish(&(0..sent).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    let topics: Vec<_> =
        (0..case::DEVICES).map(|seq| format!("{}.{}", case.kafka_topic(), case::device(seq))).collect();
    let tally = scenario.topics_have(&case, &streamer, &topics, 0..sent, |_| false);
    assert_eq!((tally.duplicated, tally.out_of_order), (0, Some(0)));
}

/// The dead-letter topic is deleted between two dead letters; those that come later land in the new one.
#[test]
fn a_dead_letter_topic_that_is_gone_is_made_again() {
    let mut scenario = Scenario::new("kafka::dead_letter_topic_deleted");
    let case = Case::new(&Stack::running(), "deldead");
    case.create_table();
    let refuse = format!("ALTER TABLE {} ADD CONSTRAINT odd CHECK ts % 50 != 7", case.table());
    case.stack.clickhouse.query(&refuse).expect("ClickHouse takes it");
    kafka::create(&case.stack.kafka, case.dead_letter_topic(), 1, &[]);
    let streamer = Streamer::start(&case, &[static_member(&case)]);
    let load = Load::kafka(&case, 1000);
    wait_sent(&load, 500);
    let before = load.stop();
    let refused = |seq: u32| seq % 50 == 7;
    streamer.eventually("the dead letters are there", || {
        at_least(crate::report::dead_letters(&case)?.len(), (0..before).filter(|seq| refused(*seq)).count())
    });
    kafka::delete(&case.stack.kafka, case.dead_letter_topic());
    scenario.fault();
    std::thread::sleep(Duration::from_secs(1));
    let mut producer = Producer::new(&case.stack.kafka);
    for seq in before..before + 1000 {
        let (key, value) = case.wrapped(seq);
        producer.send(case.kafka_topic(), None, &key, Some(&value));
    }
    producer.flush();
    let tally = scenario.table_has_all_but(&case, &streamer, before..before + 1000, refused);
    assert_eq!(tally.dead_lettered, 20);
}

/// The leader of partitions dies under load, and another broker goes on with its copy. The group's coordinator moves as
/// well when it was that one. A client that is answered twice, or not at all, neither loses nor doubles anything.
#[test]
#[ignore = "three brokers take a gigabyte of memory"]
fn leaders_killed_under_load_lose_and_double_nothing() {
    const BROKERS: [&str; 3] = ["kafka", "kafka2", "kafka3"];
    let mut scenario = Scenario::new("kafka::leaders_killed");
    let own = OwnStack::of_three_brokers();
    let case = Case::new(&own.stack, "leader");
    case.create_table();
    let streamer = case.start(&[MQTT_TO_KAFKA, KAFKA_TO_CLICKHOUSE]);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    streamer.wait_deliveries(500);
    let replicas = || kafka::replicas(&case.stack.kafka, case.kafka_topic());
    for round in 0..full(3, 20) {
        let led = streamer.eventually("every broker has a whole copy", || {
            let led = replicas()?;
            let whole = !led.is_empty() && led.iter().all(|(_, whole)| whole.len() == BROKERS.len());
            if whole { Ok(led) } else { Err(format!("{led:?}")) }
        });
        let (leader, _) = led[round % led.len()];
        own.act("kill", BROKERS[leader as usize - 1]);
        scenario.fault();
        streamer.eventually("others lead", || {
            let led = replicas()?;
            if led.iter().all(|(now, _)| *now > 0 && *now != leader) { Ok(()) } else { Err(format!("{led:?}")) }
        });
        wait_sent(&load, load.sent() + 2000);
        own.act("start", BROKERS[leader as usize - 1]);
        streamer.wait_ready();
        wait_sent(&load, load.sent() + 500);
    }
    let tally = scenario.topic_has(&case, &streamer, load.stop());
    assert_eq!((tally.duplicated, tally.out_of_order), (0, Some(0)), "streamer lived all the time");
    scenario.table_has_topic(&case, &streamer);
}
