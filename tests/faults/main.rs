//! The fault battery: processes are killed, frozen and cut off for real, and what arrives is counted at the far end.
//!
//! Each scenario publishes numbered messages, breaks something, and ends with a line of what became of them
//! (`report`): lost, duplicated, out of order, dead-lettered. From MQTT to Kafka nothing may be lost; from Kafka to
//! ClickHouse nothing may be lost and nothing may be there twice. `make test` runs a short form, `make faults` the full
//! one (`FAULTS=full`, scenarios that take long included) and shows the lines as a table. `FAULTS_SEED` repeats the
//! moments of a run.
#[path = "../common/mod.rs"]
mod common;

mod clickhouse;
mod disk;
mod ends;
mod kafka;
mod kills;
mod mqtt;
mod network;
mod once;
mod outages;
mod proxy;
mod report;
mod session;
mod tally;

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf};

use common::{Case, KAFKA_TO_CLICKHOUSE, Streamer, at_least, eventually, load::Load, root};

/// Tells it to stop. It does so in order; only before it has started anything the signal ends it at once.
#[track_caller]
fn stop(streamer: &mut Streamer) {
    let ended = streamer.terminate();
    assert!(ended.success() || ended.signal() == Some(15), "it was told to stop and did: {ended}");
}

/// Waits until the load has sent `count` messages.
fn wait_sent(load: &Load, count: u32) {
    eventually("the load goes on", || at_least(load.sent(), count));
}

/// The shipped pipeline into ClickHouse with something else in place of `old`, wherever its file lies.
#[track_caller]
fn into_table(case: &Case, changes: &[(&str, &str)]) -> PathBuf {
    let schemas = format!("{}/schemas/", root().display());
    case.changed(KAFKA_TO_CLICKHOUSE, &[changes, &[("../schemas/", &schemas)]].concat())
}

/// The shipped pipeline into ClickHouse, whose member takes its partitions back at once after a restart.
fn static_member(case: &Case) -> PathBuf {
    let old = "      group: ${KAFKA_GROUP:-streamer}\n";
    into_table(case, &[(old, &format!("{old}      group_instance_id: one\n"))])
}
