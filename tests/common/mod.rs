//! The harness of the tests against real services: the stack, streamer as a process, and both ends of the pipelines.
//!
//! A test makes one `Case` and gets names of its own from it (MQTT topics and client id, Kafka topics and group, table,
//! state folder), so tests run side by side on one stack. It counts at the far end, never in streamer. It waits for
//! facts with `eventually`, never for a time to pass; sleeps are only the length of an outage or the pace of a load.
#![allow(dead_code, unused_imports, reason = "every test file uses its part of the harness")]

pub mod case;
pub mod clickhouse;
pub mod http;
pub mod kafka;
pub mod load;
pub mod mqtt;
pub mod project;
pub mod stack;
pub mod store;
pub mod streamer;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use case::{Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA};
pub use mqtt::Publisher;
pub use stack::Stack;
pub use streamer::Streamer;

use rand::{SeedableRng as _, rngs::StdRng};

/// How long a fact may take on a slow, busy machine. Nothing is judged by it but "never".
pub const NEVER: Duration = Duration::from_secs(120);

/// Polls `fact` until it holds and returns it; panics with the last reason why it does not.
#[track_caller]
pub fn eventually<T>(what: &str, mut fact: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + NEVER;
    loop {
        match fact() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => panic!("never happened: {what}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// `Ok` when the numbers are equal, else a reason for `eventually`.
pub fn equal<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{got:?} instead of {wanted:?}")) }
}

/// `Ok` when `got` is at least `wanted`.
pub fn at_least<T: PartialOrd + std::fmt::Debug>(got: T, wanted: T) -> Result<(), String> {
    if got >= wanted { Ok(()) } else { Err(format!("{got:?}, not yet {wanted:?}")) }
}

/// `Ok` when every number below `sent` is among `got` and none other.
pub fn complete(got: &BTreeSet<u32>, sent: u32) -> Result<(), String> {
    let missing: Vec<_> = (0..sent).filter(|seq| !got.contains(seq)).collect();
    match (missing.first(), got.iter().find(|seq| **seq >= sent)) {
        (None, None) => Ok(()),
        (Some(first), _) => Err(format!(
            "{} of {sent} are missing, from {first} to {}",
            missing.len(),
            missing.last().expect("there is a first")
        )),
        (None, Some(foreign)) => Err(format!("{foreign} was never sent")),
    }
}

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// How often a fault is repeated: `short`, or `long` with `FAULTS=full`.
pub fn full<T>(short: T, long: T) -> T {
    if std::env::var("FAULTS").is_ok_and(|value| value == "full") { long } else { short }
}

/// Moments that differ from run to run and can be had again with `FAULTS_SEED`.
pub fn dice() -> StdRng {
    note(format!("FAULTS_SEED={}", seed()));
    StdRng::seed_from_u64(seed())
}

/// What the moments of this run follow from: `FAULTS_SEED`, or the time.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("FAULTS_SEED").ok();
        let given = given.map(|seed| seed.parse().unwrap_or_else(|_| panic!("FAULTS_SEED={seed} is not a number")));
        given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs())
    })
}

/// Says something in the output of a test, for whoever reads a failed or slow run.
#[expect(clippy::print_stderr, reason = "the test runner shows it with the test")]
pub fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}
