//! What librdkafka says on the side: connections lost and made, statistics, logs. Turned into one health entry.
use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rdkafka::{config::RDKafkaLogLevel, error::KafkaError, types::RDKafkaErrorCode};
use serde::Deserialize;
use tracing::{debug, warn};

use super::lower_first;
use crate::metrics::Health;

/// Watches one librdkafka client. Its callbacks come from whichever thread polls the client.
pub struct Watch {
    brokers: String,
    health: Health,
    /// False until `connect` succeeded: before that its answer says what is wrong.
    armed: AtomicBool,
    /// True while the connection is among `faults`, so that good news costs one load a batch.
    down: AtomicBool,
    /// What is wrong, by what it is about.
    faults: Mutex<BTreeMap<&'static str, String>>,
    /// The last trouble that librdkafka reported, for errors that only say "timed out".
    last: Mutex<Option<String>>,
}

const CONNECTION: &str = "connection";

impl Watch {
    /// A watch that says nothing before `arm`.
    pub fn new(brokers: String, health: Health) -> Self {
        Self {
            brokers,
            health,
            armed: AtomicBool::new(false),
            down: AtomicBool::new(false),
            faults: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// The configured brokers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The connection is made: from now on trouble goes to the health entry.
    pub fn arm(&self) {
        // Attempts that failed before this one are past.
        self.up();
        self.armed.store(true, Ordering::Release);
        self.publish();
    }

    /// Nothing more is reported: the client is being closed.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }

    /// Sets or clears the fault about `what`.
    pub fn fault(&self, what: &'static str, fault: Option<String>) {
        let mut faults = self.faults.lock();
        let changed = match fault {
            Some(fault) => faults.insert(what, fault.clone()) != Some(fault),
            None => faults.remove(what).is_some(),
        };
        drop(faults);
        if changed {
            self.publish();
        }
    }

    /// A broker has answered.
    pub fn up(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::AcqRel) {
            self.fault(CONNECTION, None);
        }
    }

    /// True while no broker can be reached.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Why the brokers do not answer, as far as librdkafka has said, else `fallback`.
    pub fn reason(&self, fallback: &str) -> String {
        self.last.lock().clone().unwrap_or_else(|| fallback.to_owned())
    }

    /// librdkafka's error callback.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        debug!(brokers = self.brokers, %error, reason, "librdkafka reports trouble");
        let code = error.rdkafka_error_code();
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            // What follows counts milliseconds and repetitions: news without news.
            let plain = reason.split(" (after ").next().unwrap_or(reason);
            *self.last.lock() = Some(lower_first(plain));
        } else if self.is_down() {
            return;
        }
        let fault = match code {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                let cause = self.last.lock().clone().map(|last| format!(": {last}")).unwrap_or_default();
                format!(
                    "no Kafka broker of `{}` can be reached{cause}; check that Kafka runs and `brokers` is right",
                    self.brokers
                )
            }
            Some(RDKafkaErrorCode::Authentication) => {
                format!("Kafka at `{}` refuses the sign-in: {}; check `sasl`", self.brokers, lower_first(reason))
            }
            Some(RDKafkaErrorCode::SSL) => {
                format!("no secure connection to Kafka at `{}`: {}; check `tls`", self.brokers, lower_first(reason))
            }
            _ => return,
        };
        self.down.store(true, Ordering::Release);
        self.fault(CONNECTION, Some(fault));
    }

    /// librdkafka's statistics: tells whether a broker answers. `None` when they cannot be read.
    pub fn statistics(&self, json: &[u8]) -> Option<Seen> {
        let statistics: Statistics = match serde_json::from_slice(json) {
            Ok(statistics) => statistics,
            Err(error) => {
                debug!(%error, "cannot read librdkafka's statistics");
                return None;
            }
        };
        // The coordinator of a group has an entry of its own, which can be up while there is nobody to fetch from.
        let brokers = || statistics.brokers.values().filter(|b| matches!(&*b.source, "configured" | "learned"));
        if brokers().any(|b| b.state == "UP") {
            self.up();
        }
        let partitions = statistics.topics.values().flat_map(|t| t.partitions.values());
        let lag = partitions.filter(|p| p.fetch_state == "active").map(|p| p.consumer_lag.max(0)).sum();
        Some(Seen { brokers: brokers().count(), lag })
    }

    fn publish(&self) {
        if !self.armed.load(Ordering::Acquire) {
            return;
        }
        let text = self.faults.lock().values().map(String::as_str).collect::<Vec<_>>().join("; ");
        if text.is_empty() { self.health.ok() } else { self.health.fault(text) }
    }
}

/// What statistics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Brokers the client knows.
    pub brokers: usize,
    /// Messages behind, over the assigned partitions.
    pub lag: i64,
}

/// The part of librdkafka's statistics that is used here.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Broker {
    state: String,
    source: String,
}

#[derive(Deserialize)]
struct Topic {
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    fetch_state: String,
    consumer_lag: i64,
}

/// Passes librdkafka's log on. Lost connections are its most frequent lines, and health tells of them once. A broker
/// that has just started makes producers ask for their id a few times more, and says so in as many lines; a partition
/// whose leader is away has a line of its own.
pub fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Emerg, Error, Warning};
    let quiet = matches!(facility, "FAIL" | "ERROR" | "CONFWARN" | "METADATAUPDATE")
        || (facility == "GETPID" && text.ends_with("retrying"));
    match level {
        Emerg | Alert | Critical => warn!(facility, text, "librdkafka"),
        Error | Warning if !quiet => warn!(facility, text, "librdkafka"),
        _ => debug!(facility, text, "librdkafka"),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::metrics::HealthBoard;

    #[test]
    fn a_lost_connection_is_a_fault_until_a_broker_answers() {
        let board = HealthBoard::default();
        let watch = Watch::new("a:1".into(), board.add("x", Gauge::default()));
        watch.error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert!(board.report().faults[0].1.starts_with("starting"), "said nothing before it was armed");
        watch.up();
        watch.arm();
        assert!(board.report().ready);
        watch.error(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "Connection refused");
        assert!(board.report().ready, "one broker is not all");
        watch.error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let fault = &board.report().faults[0].1;
        assert!(fault.starts_with("no Kafka broker of `a:1` can be reached: connection refused;"), "{fault}");
        let down = br#"{"brokers":{"a":{"state":"DOWN","source":"learned"}}}"#;
        assert_eq!(watch.statistics(down), Some(Seen { brokers: 1, lag: 0 }));
        assert!(!board.report().ready);
        let coordinator = br#"{"brokers":{"GroupCoordinator":{"state":"UP","source":"logical"}}}"#;
        assert_eq!(watch.statistics(coordinator), Some(Seen { brokers: 0, lag: 0 }));
        assert!(!board.report().ready, "a coordinator is nobody to fetch from");
        let json = br#"{"brokers":{"a":{"state":"UP","source":"configured"}},"topics":{"t":{"partitions":{
            "0":{"fetch_state":"active","consumer_lag":5},"1":{"fetch_state":"none","consumer_lag":9},
            "-1":{"fetch_state":"active","consumer_lag":-1}}}}}"#;
        assert_eq!(watch.statistics(json), Some(Seen { brokers: 1, lag: 5 }));
        assert!(board.report().ready);
    }
}
