//! The session doctor on a real broker: what costs messages although the connection works stands in the notes of
//! `/health/ready`.
use crate::{
    common::{Case, MQTT_TO_KAFKA, Stack, Streamer, load::Load},
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
