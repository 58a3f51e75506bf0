//! The session doctor on a real broker: what costs messages although the connection works stands in the notes of
//! `/health/ready`.
use crate::{
    common::{Case, MQTT_TO_KAFKA, Stack, Streamer, full, load::Load, mqtt, streamer::outage},
    report::Scenario,
};

const QOS: &str = "      qos: 1\n";
const INPUT: &str = "mqtt-to-kafka/input/devices";

/// Streamer on the shipped pipeline, whose MQTT input has these settings, too.
fn start(case: &Case, settings: &[&str]) -> Streamer {
    let settings: String = settings.iter().map(|setting| format!("      {setting}\n")).collect();
    let file = case.changed(MQTT_TO_KAFKA, &[(QOS, &format!("{QOS}{settings}"))]);
    let streamer = Streamer::start(case, &[file]);
    streamer.wait_ready();
    streamer
}

/// What comes in ten minutes is more than the broker keeps. That is said while all is well, with what to write where.
#[test]
fn a_queue_that_is_too_small_for_the_outage_is_told_before_it() {
    let mut scenario = Scenario::new("session::queue_too_small");
    let case = Case::new(&Stack::running(), "queue");
    let streamer = start(&case, &["survive_outage_s: 600", "broker_queued_messages_max: 100000"]);
    let load = Load::mqtt(&case, 1000);
    let note = streamer.wait_note(INPUT, "were streamer away for 600 s");
    assert!(note.contains("the broker keeps 100000 messages (`broker_queued_messages_max`) of"), "{note}");
    assert!(note.contains("write `max_queued_messages 1") && note.contains("into mosquitto.conf"), "{note}");
    assert!(streamer.log_lines("WARN").iter().any(|line| line.contains("were streamer away for 600 s")));
    assert_eq!(streamer.get("/health/ready").expect("streamer answers").0, 200, "it works all the same");
    scenario.topic_has(&case, &streamer, load.stop());
}

/// Streamer was away in peace, and the broker has forgotten its session meanwhile: the very first connection tells.
#[test]
fn a_session_that_was_lost_while_streamer_was_away_is_told_at_the_start() {
    let mut scenario = Scenario::new("session::lost_while_away");
    let case = Case::new(&Stack::running(), "away");
    let mut streamer = start(&case, &[]);
    let mut publisher = case.publisher();
    let rounds = full(2, 10);
    for round in 0..rounds {
        publisher.publish(&(round * 100..(round + 1) * 100).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
        case.nothing_lost_in_topic(&streamer, (round + 1) * 100);
        if round % 2 == 0 {
            crate::stop(&mut streamer);
        } else {
            streamer.kill9();
        }
        mqtt::forget(&case.stack.mqtt, &case.id).expect("the broker takes the other client");
        scenario.fault();
        streamer.start_again();
        streamer.wait_ready();
        let note = streamer.wait_note(INPUT, "the broker has lost our session");
        assert!(note.contains("messages between 20") && note.contains("may be lost"), "{note}");
    }
    assert!(streamer.log_lines("ERROR").iter().any(|line| line.contains("the broker has lost our session")));
    // A restart alone is no loss.
    publisher.publish(&(rounds * 100..rounds * 100 + 100).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    crate::stop(&mut streamer);
    streamer.start_again();
    streamer.wait_ready();
    let (_, health) = streamer.get("/health/ready").expect("streamer answers");
    assert!(!health.contains("lost our session"), "{health}");
    scenario.topic_has(&case, &streamer, rounds * 100 + 100);
}

/// Streamer was away for longer than the broker was asked to keep its session.
#[test]
fn a_session_that_ended_while_streamer_was_away_is_told_at_the_start() {
    let mut scenario = Scenario::new("session::ended_while_away");
    let case = Case::new(&Stack::running(), "ended");
    let mut streamer = start(&case, &["session_expiry_s: 1"]);
    let mut publisher = case.publisher();
    publisher.publish(&(0..100).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    case.nothing_lost_in_topic(&streamer, 100);
    crate::stop(&mut streamer);
    scenario.fault();
    // Mosquitto looks for sessions that have ended every few seconds.
    outage(10);
    streamer.start_again();
    streamer.wait_ready();
    let note = streamer.wait_note(INPUT, "our session ended while we were away");
    assert!(note.contains("the broker keeps it for 1 s") && note.contains("are lost"), "{note}");
    publisher.publish(&(100..200).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
    scenario.topic_has(&case, &streamer, 200);
}

/// While streamer was away, more came than the broker keeps. It confirmed all to the devices, dropped the rest, and tells
/// nobody but those who ask.
#[test]
fn messages_that_the_broker_dropped_while_streamer_was_away_are_told() {
    const MORE_THAN_IT_KEEPS: u32 = 100_500;
    let case = Case::new(&Stack::running(), "dropped");
    let mut streamer = start(&case, &["watch_dropped: true"]);
    // It is known how many the broker had dropped before.
    case.publisher().publish(&[case.telemetry(0)]);
    case.nothing_lost_in_topic(&streamer, 1);
    streamer.eventually("the broker has told what it has dropped", || {
        let kept = std::fs::read_to_string(case.state().join("input/mqtt-to-kafka/devices/session.json"));
        let kept: serde_json::Value = serde_json::from_str(&kept.map_err(|e| e.to_string())?).expect("it is whole");
        kept["dropped"].as_i64().ok_or_else(|| kept.to_string())
    });
    crate::stop(&mut streamer);
    let topic = case.telemetry(0).0;
    case.publisher().publish(&(0..MORE_THAN_IT_KEEPS).map(|_| (topic.clone(), b"1".to_vec())).collect::<Vec<_>>());
    streamer.start_again();
    let note = streamer.wait_note(INPUT, "messages of its clients since 20");
    assert!(note.contains("the broker has dropped") && note.contains("raise `max_queued_messages`"), "{note}");
    assert!(streamer.log_lines("WARN").iter().any(|line| line.contains("the broker dropped messages")));
}
