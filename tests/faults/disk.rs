//! A disk that takes no more.
//!
//! Where the machine lets us mount one, it is a small disk of its own that is really full. Else, and where one file is
//! enough, the kernel lets streamer write no file longer than a limit: for whoever writes, that is a full disk, too.
use std::{fs::OpenOptions, io::Write as _, path::PathBuf, process::Command};

use crate::{
    common::{Case, MQTT_TO_KAFKA, Stack, Streamer, at_least, case, equal, full, load::Load, note, streamer::outage},
    proxy::{Fate, Half, Proxy},
    report::Scenario,
    wait_sent,
};

const DISK_BYTES: u64 = 64 << 20;

/// A disk for one folder of a case.
enum Disk {
    /// A file system in memory, unmounted when this is dropped.
    Own(PathBuf),
    /// Files that may not grow.
    Limit,
}

impl Disk {
    /// At `folder`, before anything is there.
    fn at(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("the folder for temporary files works");
        let size = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        match mounted {
            Ok(done) if done.status.success() => Self::Own(folder),
            refused => {
                note(format!("no disk can be mounted here, files of limited length take its place: {refused:?}"));
                Self::Limit
            }
        }
    }

    fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// What whoever writes is told.
    fn refusal(&self) -> &'static str {
        if self.is_own() { "No space left on device" } else { "File too large" }
    }

    /// From now on it takes `left` bytes more, or no file that is longer.
    fn fill(&self, streamer: &Streamer, left: u64) {
        // The log is a file, too.
        let Self::Own(folder) = self else { return limit(streamer, &left.max(100_000).to_string()) };
        let file = OpenOptions::new().create(true).append(true).open(folder.join("filler"));
        let mut file = file.expect("a file can be made");
        while file.write(&[0; 64 << 10]).is_ok() {}
        let bytes = file.metadata().expect("it is there").len();
        file.set_len(bytes.saturating_sub(left)).expect("it can be made shorter");
    }

    fn make_room(&self, streamer: &Streamer) {
        match self {
            Self::Own(folder) => std::fs::remove_file(folder.join("filler")).expect("it is there"),
            Self::Limit => limit(streamer, "unlimited"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Own(folder) = self {
            let done = Command::new("umount").arg("--lazy").arg(&*folder).status();
            note(format!("the disk is taken away: {done:?}"));
        }
    }
}

/// Starts streamer so that it is told by an error instead of a signal that it writes past a limit.
fn start(case: &Case) -> Streamer {
    let file = case.changed(MQTT_TO_KAFKA, &[]);
    let streamer = Streamer::start_under(&["env", "--ignore-signal=XFSZ"], case, &[file]);
    streamer.wait_ready();
    streamer
}

/// Kafka is away, and messages go to disk until it is full. What is acknowledged by then is safe, a `kill -9` included;
/// streamer says what is wrong; and with room, or with Kafka, it goes on.
#[test]
fn a_full_disk_under_the_spool_loses_nothing() {
    const SPOOL: &str = "mqtt-to-kafka/spool/devices";
    const STEP: u32 = 20_000;
    const LEFT: u64 = 2 << 20;
    let mut case = Case::new(&Stack::running(), "full");
    let disk = Disk::at(case.state());
    let mut scenario = Scenario::new(if disk.is_own() { "disk::full_for_spool" } else { "disk::limit_for_spool" });
    let brokers = Proxy::kafka(&case.stack.kafka);
    case.environment.insert("KAFKA_BOOTSTRAP", brokers.address.clone());
    let mut streamer = start(&case);
    let mut publisher = case.publisher();
    let mut sent = 0;
    for round in 0..full(2, 8) {
        publisher.publish(&(sent..sent + 500).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
        streamer.wait_deliveries(500);
        // What it frees later would be room.
        streamer.eventually("the spool is empty", || equal(streamer.metric("streamer_spool_bytes", &[])?, 0.0));
        brokers.set(|| Fate::Hang(Half::Answers, 0));
        disk.fill(&streamer, LEFT);
        scenario.fault();
        publisher.publish(&(sent + 500..sent + STEP).map(|seq| case.telemetry(seq)).collect::<Vec<_>>());
        sent += STEP;
        let reason = streamer.wait_fault(SPOOL);
        assert!(reason.contains(disk.refusal()), "{reason}");
        assert!(reason.contains("Nothing more is read or acknowledged until the disk takes it"), "{reason}");
        if round % 2 == 0 {
            // The disk is still full when it starts again, and the broker has what was not acknowledged.
            streamer.kill9();
            streamer.start_again();
            if !disk.is_own() {
                // A limit ends with the process.
                disk.fill(&streamer, LEFT);
            }
            streamer.wait_fault(SPOOL);
            // Kafka alone helps, too: what is delivered makes room.
            brokers.set(|| Fate::Pass);
            streamer.eventually("the spool takes messages again", || no_fault(&streamer, SPOOL));
            disk.make_room(&streamer);
        } else {
            disk.make_room(&streamer);
            streamer.eventually("the spool takes messages again", || no_fault(&streamer, SPOOL));
            streamer.eventually("the rest goes to disk", || {
                at_least(streamer.metric("streamer_spool_messages", &[])?, f64::from(STEP - 500))
            });
            brokers.set(|| Fate::Pass);
        }
        streamer.wait_ready();
    }
    scenario.topic_has(&case, &streamer, sent);
}

/// The archive's disk is full, again and again. A message that is not archived is not acknowledged, or stays in the spool,
/// though Kafka has it; with room everything goes on.
#[test]
fn a_full_disk_under_the_archive_loses_nothing() {
    const ARCHIVE: &str = "mqtt-to-kafka/archive/archive";
    let mut case = Case::new(&Stack::running(), "archive");
    let disk = Disk::at(case.folder().join("small"));
    let mut scenario = Scenario::new(if disk.is_own() { "disk::full_for_archive" } else { "disk::limit_for_archive" });
    case.environment.insert("ARCHIVE_DIR", case.folder().join("small/archive").display().to_string());
    let mut streamer = start(&case);
    let load = Load::mqtt(&case, 1000);
    // A segment that is finished gives room back, so it is filled until that shows.
    let fill = |streamer: &Streamer| {
        let told =
            |streamer: &Streamer| no_fault(streamer, ARCHIVE).err().filter(|health| health.contains(disk.refusal()));
        streamer.eventually("the archive says that the disk is full", || {
            disk.fill(streamer, 0);
            told(streamer).ok_or_else(|| "it works".to_owned())
        });
    };
    for round in 0..full(2, 8) {
        wait_sent(&load, load.sent() + 1000);
        fill(&streamer);
        scenario.fault();
        wait_sent(&load, load.sent() + 2000);
        if round % 2 == 0 {
            streamer.kill9();
            streamer.start_again();
            fill(&streamer);
        }
        disk.make_room(&streamer);
        streamer.wait_ready();
    }
    scenario.topic_has(&case, &streamer, load.stop());
}

fn no_fault(streamer: &Streamer, component: &str) -> Result<(), String> {
    let (_, health) = streamer.get("/health/ready")?;
    let report: serde_json::Value = serde_json::from_str(&health).map_err(|error| error.to_string())?;
    let mut faults = report["faults"].as_array().into_iter().flatten();
    if faults.any(|fault| fault["component"] == component) { Err(health) } else { Ok(()) }
}

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
    let mut streamer = start(&case);
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
