//! A disk that takes no more.
//!
//! The kernel lets streamer write no file longer than a limit: for whoever writes, that is a full disk, and it needs no
//! disk of its own.
use std::process::Command;

use crate::{
    common::{Case, MQTT_TO_KAFKA, Stack, Streamer, case, full, streamer::outage},
    report::Scenario,
};

/// Bytes that a file may have, and no limit again.
fn limit(streamer: &Streamer, bytes: &str) {
    let done =
        Command::new("prlimit").args(["--pid", &streamer.pid().to_string(), &format!("--fsize={bytes}:")]).status();
    assert!(done.expect("prlimit can be started").success());
}

/// A message that no topic takes, not even that of the dead letters, goes to a file. While the disk takes no file, the
/// message is not acknowledged, others go on, and streamer says what is wrong.
#[test]
fn a_dead_letter_waits_for_room_on_the_disk() {
    let mut scenario = Scenario::new("disk::full_for_dead_letters");
    let case = Case::new(&Stack::running(), "disk");
    // Whoever writes past the limit is told by an error instead of a signal that ends it.
    let file = case.changed(MQTT_TO_KAFKA, &[]);
    let mut streamer = Streamer::start_under(&["env", "--ignore-signal=XFSZ"], &case, &[file]);
    streamer.wait_ready();
    let mut publisher = case.publisher();
    let mut sent = 0;
    let is_large = |seq: u32| seq % 100 == 99;
    for round in 0..full(2, 10) {
        limit(&streamer, "100000");
        scenario.fault();
        let messages = (sent..sent + 100).map(|seq| {
            let mut reading = case::reading(seq);
            if is_large(seq) {
                reading["padding"] = "x".repeat(1_200_000).into();
            }
            (case::telemetry(&case.id, seq).0, reading.to_string().into_bytes())
        });
        publisher.publish(&messages.collect::<Vec<_>>());
        sent += 100;
        let reason = streamer.wait_fault("mqtt-to-kafka/dead_letter/dead_letter");
        assert!(reason.contains("cannot save a dead letter's payload"), "{reason}");
        outage(2);
        if round % 2 == 0 {
            // It has no limit after a restart, and the message comes again.
            streamer.kill9();
            streamer.start_again();
        } else {
            limit(&streamer, "unlimited");
        }
        streamer.wait_ready();
    }
    let tally = scenario.topic_has_all_but(&case, &streamer, 0..sent, is_large);
    assert_eq!(tally.dead_lettered, u64::from(sent / 100));
}
