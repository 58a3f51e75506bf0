//! A bad network between streamer and all three services at once: cuts, delays, slow lines, hangs, refusals, as the dice
//! have it. The numbers of `FAULTS_SEED` give the same fates again.
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    common::{Case, MQTT_TO_KAFKA, Stack, Streamer, dice, full, load::Load, streamer::outage},
    into_table,
    proxy::{Fate, Half, Proxy},
    report::Scenario,
    wait_sent,
};

/// What a bad network does to a connection.
fn any(dice: &mut StdRng) -> Fate {
    let half = if dice.random() { Half::Requests } else { Half::Answers };
    match dice.random_range(0..8) {
        0 => Fate::Refuse,
        1 | 2 => Fate::Cut(half, dice.random_range(0..50_000)),
        3 => Fate::Hang(half, dice.random_range(0..50_000)),
        4 | 5 => Fate::Delay(half, Duration::from_millis(dice.random_range(1..300))),
        6 => Fate::Rate(half, dice.random_range(2_000..200_000)),
        _ => Fate::Pass,
    }
}

/// Both pipelines with the proxies that stand before Mosquitto, Kafka and ClickHouse, and time-outs that are shorter
/// than a test.
fn behind_proxies(name: &str) -> (Case, [Proxy; 3], Vec<std::path::PathBuf>) {
    let stack = Stack::running();
    let mut case = Case::new(&stack, name);
    case.create_table();
    let http = stack.clickhouse.url.trim_start_matches("http://").trim_end_matches('/');
    let proxies = [Proxy::new(&stack.mqtt), Proxy::kafka(&stack.kafka), Proxy::new(http)];
    let [mqtt, kafka, clickhouse] = &proxies;
    let (host, port) = mqtt.address.split_once(':').expect("host:port");
    case.environment.insert("MQTT_BROKER", host.to_owned());
    case.environment.insert("MQTT_PORT", port.to_owned());
    case.environment.insert("KAFKA_BOOTSTRAP", kafka.address.clone());
    case.environment.insert("CLICKHOUSE_URL", format!("http://{}", clickhouse.address));
    let table = "      table: ${CLICKHOUSE_TABLE:-iot.telemetry}\n";
    let files = vec![
        case.changed(MQTT_TO_KAFKA, &[("      qos: 1\n", "      qos: 1\n      keep_alive_s: 5\n")]),
        into_table(&case, &[(table, &format!("{table}      timeout_ms: 3000\n"))]),
    ];
    (case, proxies, files)
}

#[test]
fn cuts_delays_and_hangs_lose_nothing_and_double_nothing_after_kafka() {
    let mut scenario = Scenario::new("network::cuts_delays_and_hangs");
    let (case, proxies, files) = behind_proxies("net");
    let streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    streamer.wait_deliveries(500);
    let mut dice = dice();
    for _ in 0..full(2, 20) {
        for proxy in &proxies {
            let mut own_dice = StdRng::from_rng(&mut dice);
            proxy.set(move || any(&mut own_dice));
        }
        outage(10);
        proxies.iter().for_each(|proxy| proxy.set(|| Fate::Pass));
        wait_sent(&load, load.sent() + 500);
    }
    scenario.faults(proxies.iter().map(Proxy::harm).sum());
    scenario.topic_has(&case, &streamer, load.stop());
    scenario.table_has_topic(&case, &streamer);
}

/// Every connection is cut, again and again, at moments the dice choose: the plainest fault and the most frequent one.
#[test]
fn connections_cut_at_random_lose_nothing_and_double_nothing_after_kafka() {
    let mut scenario = Scenario::new("network::connections_cut");
    let (case, proxies, files) = behind_proxies("cut");
    let streamer = Streamer::start(&case, &files);
    streamer.wait_ready();
    let load = Load::mqtt(&case, 1000);
    let mut dice = dice();
    for _ in 0..full(20, 300) {
        std::thread::sleep(Duration::from_millis(dice.random_range(0..700)));
        proxies[dice.random_range(0..proxies.len())].cut();
        scenario.fault();
    }
    scenario.topic_has(&case, &streamer, load.stop());
    scenario.table_has_topic(&case, &streamer);
}
