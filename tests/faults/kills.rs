//! kill -9 of streamer at random moments, under load.
use std::time::Duration;

use rand::{Rng as _, rngs::StdRng};

use crate::{
    common::{Case, MQTT_TO_KAFKA, Stack, Streamer, dice, full, load::Load, note, root},
    into_table,
    report::Scenario,
    static_member,
};

/// Kills it `kills` times: some at work, at another point each, some before they have done anything.
pub fn kill_again_and_again(scenario: &mut Scenario, streamer: &mut Streamer, dice: &mut StdRng, kills: u32) {
    for kill in 1..=kills {
        if dice.random_ratio(3, 4) {
            streamer.wait_deliveries(500);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..1500)));
        streamer.kill9();
        scenario.fault();
        streamer.start_again();
        if kill % 20 == 0 {
            note(format!("{kill} kills"));
        }
    }
    streamer.wait_deliveries(500);
}

#[test]
fn from_mqtt_to_kafka_nothing_is_lost() {
    let mut scenario = Scenario::new("kills::from_mqtt_to_kafka");
    let case = Case::new(&Stack::running(), "killm");
    let mut streamer = case.start(&[MQTT_TO_KAFKA]);
    // The broker keeps messages for a client only once it knows it.
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    kill_again_and_again(&mut scenario, &mut streamer, &mut dice(), full(5, 100));
    scenario.topic_has(&case, &streamer, load.stop());
}

#[test]
fn from_kafka_to_clickhouse_nothing_is_lost_and_nothing_doubled() {
    let mut scenario = Scenario::new("kills::from_kafka_to_clickhouse");
    let case = Case::new(&Stack::running(), "killk");
    case.create_table();
    let load = Load::kafka(&case, 2000);
    let mut streamer = Streamer::start(&case, &[static_member(&case)]);
    kill_again_and_again(&mut scenario, &mut streamer, &mut dice(), full(6, 200));
    scenario.table_has(&case, &streamer, load.stop());
}

#[test]
fn both_at_once_lose_nothing_and_double_nothing_after_kafka() {
    let mut scenario = Scenario::new("kills::both_at_once");
    let case = Case::new(&Stack::running(), "killb");
    case.create_table();
    let files = [root().join(format!("pipelines/{MQTT_TO_KAFKA}.yaml")), static_member(&case)];
    let mut streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    kill_again_and_again(&mut scenario, &mut streamer, &mut dice(), full(4, 50));
    scenario.topic_has(&case, &streamer, load.stop());
    scenario.table_has_topic(&case, &streamer);
}

/// Killed so soon after each start that it rarely comes to work: what it does at a start must bear being cut off, too.
#[test]
fn at_every_start_nothing_is_lost() {
    let mut scenario = Scenario::new("kills::at_every_start");
    let case = Case::new(&Stack::running(), "kills");
    case.create_table();
    let files = [root().join(format!("pipelines/{MQTT_TO_KAFKA}.yaml")), into_table(&case, &[])];
    let mut streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 500);
    let mut dice = dice();
    for _ in 0..full(10, 100) {
        streamer.kill9();
        scenario.fault();
        streamer.start_again();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..400)));
    }
    scenario.topic_has(&case, &streamer, load.stop());
    scenario.table_has_topic(&case, &streamer);
}
