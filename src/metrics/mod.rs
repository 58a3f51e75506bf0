//! The metrics of a process: names, units, labels and help in one place, kept by `prometheus-client`. Counters are
//! looked up once, when a component starts, and are plain atomics after that.
mod health;

use std::sync::{Arc, atomic::AtomicU64};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

pub use health::{Health, HealthBoard, HealthReport};

/// Which component of which pipeline.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ComponentLabels {
    pub pipeline: String,
    /// `input`, `step`, `output`, `archive` or `dead_letter`.
    pub kind: &'static str,
    /// The user's label.
    pub label: String,
}

/// Which pipeline.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PipelineLabels {
    pub pipeline: String,
}

/// Which script, and why the interpreter ran it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ScriptLabels {
    pub pipeline: String,
    /// `steps[0]`, `outputs.table.when`.
    pub step: String,
    /// `script`: it is not compiled to a plan. `message`: it is, and the message did not fit.
    pub reason: &'static str,
}

/// A reload of a pipeline.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReloadLabels {
    pub pipeline: String,
    /// `ok`, or `refused`: the file has faults.
    pub result: &'static str,
}

/// Every metric of the process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    received: Family<ComponentLabels, Counter>,
    received_bytes: Family<ComponentLabels, Counter>,
    delivered: Family<ComponentLabels, Counter>,
    rejected: Family<ComponentLabels, Counter>,
    retries: Family<ComponentLabels, Counter>,
    reconnects: Family<ComponentLabels, Counter>,
    up: Family<ComponentLabels, Gauge>,
    lag: Family<ComponentLabels, Gauge>,
    broker_dropped: Family<ComponentLabels, Gauge>,
    write_seconds: Family<ComponentLabels, Histogram, fn() -> Histogram>,
    write_messages: Family<ComponentLabels, Histogram, fn() -> Histogram>,
    filtered: Family<PipelineLabels, Counter>,
    dead_lettered: Family<PipelineLabels, Counter>,
    in_flight: Family<PipelineLabels, Gauge>,
    spool_state: Family<ComponentLabels, Gauge>,
    spool_bytes: Family<ComponentLabels, Gauge>,
    spool_messages: Family<ComponentLabels, Gauge>,
    spool_oldest: Family<ComponentLabels, Gauge<f64, AtomicU64>>,
    archive_waiting: Family<ComponentLabels, Gauge>,
    age_seconds: Family<PipelineLabels, Histogram, fn() -> Histogram>,
    interpreted: Family<ScriptLabels, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    stale: Family<PipelineLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut r = Registry::with_prefix("streamer");
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        let info: Gauge<i64> = Gauge::default();
        info.set(1);
        r.sub_registry_with_labels(build.into_iter().map(|(k, v)| (k.into(), v.into()))).register(
            "build",
            "Always 1; the label is the running version",
            info,
        );
        let started: Gauge<f64, AtomicU64> = Gauge::default();
        started
            .set(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64()));
        r.register_with_unit("start_time", "When the process started, Unix time", Unit::Seconds, started);
        // Latencies from 1 ms to about 9 min, batch sizes from 1 to about 1 M.
        let seconds = || Histogram::new(exponential_buckets(0.001, 3.0, 13));
        let messages = || Histogram::new(exponential_buckets(1.0, 4.0, 11));
        let m = Self {
            registry: Arc::default(),
            received: Family::default(),
            received_bytes: Family::default(),
            delivered: Family::default(),
            rejected: Family::default(),
            retries: Family::default(),
            reconnects: Family::default(),
            up: Family::default(),
            lag: Family::default(),
            broker_dropped: Family::default(),
            write_seconds: Family::new_with_constructor(seconds),
            write_messages: Family::new_with_constructor(messages),
            filtered: Family::default(),
            dead_lettered: Family::default(),
            in_flight: Family::default(),
            spool_state: Family::default(),
            spool_bytes: Family::default(),
            spool_messages: Family::default(),
            spool_oldest: Family::default(),
            archive_waiting: Family::default(),
            age_seconds: Family::new_with_constructor(seconds),
            interpreted: Family::default(),
            reloads: Family::default(),
            stale: Family::default(),
        };
        r.register("received_messages", "Messages taken from an input", m.received.clone());
        r.register("received_bytes", "Payload bytes taken from an input", m.received_bytes.clone());
        r.register("delivered_messages", "Messages an output has confirmed", m.delivered.clone());
        r.register("rejected_messages", "Messages an output can never accept", m.rejected.clone());
        r.register("retries", "Writes tried again after a failure", m.retries.clone());
        r.register("reconnects", "Connections lost and made again", m.reconnects.clone());
        r.register("up", "1 while the component works, 0 while it is disconnected or stalled", m.up.clone());
        r.register("lag_messages", "Messages an input has still to read, as the broker counts them", m.lag.clone());
        r.register(
            "broker_dropped_messages",
            "Messages the MQTT broker says it has dropped since it started, for any of its clients",
            m.broker_dropped.clone(),
        );
        r.register_with_unit(
            "write",
            "Time from handing a batch to an output to its answer",
            Unit::Seconds,
            m.write_seconds.clone(),
        );
        r.register("write_messages", "Messages in one write of an output", m.write_messages.clone());
        r.register(
            "filtered_messages",
            "Messages dropped on purpose by a step or by every output's `when`",
            m.filtered.clone(),
        );
        r.register("dead_lettered_messages", "Messages whose dead letter is confirmed", m.dead_lettered.clone());
        r.register(
            "in_flight_messages",
            "Messages taken from the inputs and not yet acknowledged",
            m.in_flight.clone(),
        );
        r.register(
            "spool_state",
            "0 while messages go to the outputs directly, 1 while they go to disk, 2 while the outputs take them from there",
            m.spool_state.clone(),
        );
        r.register("spool_bytes", "Bytes that the spool takes on disk", m.spool_bytes.clone());
        r.register("spool_messages", "Messages on disk that are not delivered", m.spool_messages.clone());
        r.register_with_unit(
            "spool_oldest",
            "How long the oldest file of the spool has been there",
            Unit::Seconds,
            m.spool_oldest.clone(),
        );
        r.register(
            "archive_waiting_bytes",
            "Bytes of archived messages that are in no finished file yet",
            m.archive_waiting.clone(),
        );
        r.register_with_unit(
            "age",
            "Age of a batch when it is acknowledged, from its receipt",
            Unit::Seconds,
            m.age_seconds.clone(),
        );
        r.register(
            "interpreted_messages",
            "Messages whose script was interpreted, because it or the message does not fit a compiled plan",
            m.interpreted.clone(),
        );
        r.register("reloads", "Changes of a pipeline's files, and what became of them", m.reloads.clone());
        r.register(
            "config_stale",
            "1 while a pipeline runs with another content than that of its file, because that has faults",
            m.stale.clone(),
        );
        *m.registry.lock() = r;
        m
    }

    /// The counters of one component.
    pub fn component(&self, pipeline: &str, kind: &'static str, label: &str) -> ComponentMetrics {
        let labels = ComponentLabels { pipeline: pipeline.to_owned(), kind, label: label.to_owned() };
        let up = self.up.get_or_create(&labels).clone();
        ComponentMetrics {
            received: self.received.get_or_create(&labels).clone(),
            received_bytes: self.received_bytes.get_or_create(&labels).clone(),
            delivered: self.delivered.get_or_create(&labels).clone(),
            rejected: self.rejected.get_or_create(&labels).clone(),
            retries: self.retries.get_or_create(&labels).clone(),
            reconnects: self.reconnects.get_or_create(&labels).clone(),
            lag: self.lag.get_or_create(&labels).clone(),
            broker_dropped: self.broker_dropped.get_or_create(&labels).clone(),
            write_seconds: self.write_seconds.get_or_create(&labels).clone(),
            write_messages: self.write_messages.get_or_create(&labels).clone(),
            up,
            parts: Parts { up: self.up.clone(), archive_waiting: self.archive_waiting.clone(), labels },
        }
    }

    /// The counters of one pipeline.
    pub fn pipeline(&self, pipeline: &str) -> PipelineMetrics {
        let labels = PipelineLabels { pipeline: pipeline.to_owned() };
        PipelineMetrics {
            filtered: self.filtered.get_or_create(&labels).clone(),
            dead_lettered: self.dead_lettered.get_or_create(&labels).clone(),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            age_seconds: self.age_seconds.get_or_create(&labels).clone(),
        }
    }

    /// Counts a reload.
    pub fn reload(&self, pipeline: &str, result: &'static str) {
        self.reloads.get_or_create(&ReloadLabels { pipeline: pipeline.to_owned(), result }).inc();
    }

    /// Says whether a pipeline runs with another content than that of its file.
    pub fn stale(&self, pipeline: &str, stale: bool) {
        self.stale.get_or_create(&PipelineLabels { pipeline: pipeline.to_owned() }).set(stale.into());
    }

    /// The counters of one step's script.
    pub fn script(&self, pipeline: &str, step: &str) -> ScriptMetrics {
        let counter = |reason| {
            let labels = ScriptLabels { pipeline: pipeline.to_owned(), step: step.to_owned(), reason };
            self.interpreted.get_or_create(&labels).clone()
        };
        ScriptMetrics { script: counter("script"), message: counter("message") }
    }

    /// The gauges of the spool of one input.
    pub fn spool(&self, pipeline: &str, label: &str) -> SpoolMetrics {
        let labels = ComponentLabels { pipeline: pipeline.to_owned(), kind: "input", label: label.to_owned() };
        SpoolMetrics {
            state: self.spool_state.get_or_create(&labels).clone(),
            bytes: self.spool_bytes.get_or_create(&labels).clone(),
            messages: self.spool_messages.get_or_create(&labels).clone(),
            oldest: self.spool_oldest.get_or_create(&labels).clone(),
        }
    }

    /// Everything in the text format of OpenMetrics 1.0.
    pub fn text(&self) -> String {
        let mut out = String::new();
        encode(&mut out, &self.registry.lock()).expect("writing to a string cannot fail");
        out
    }
}

/// Counters of one component, cheap to clone and to count with.
#[derive(Clone, Debug)]
pub struct ComponentMetrics {
    pub received: Counter,
    pub received_bytes: Counter,
    pub delivered: Counter,
    pub rejected: Counter,
    pub retries: Counter,
    pub reconnects: Counter,
    pub up: Gauge,
    pub lag: Gauge,
    pub broker_dropped: Gauge,
    pub write_seconds: Histogram,
    pub write_messages: Histogram,
    parts: Parts,
}

/// What the metrics of a component's parts are made of.
#[derive(Clone, Debug)]
struct Parts {
    labels: ComponentLabels,
    up: Family<ComponentLabels, Gauge>,
    archive_waiting: Family<ComponentLabels, Gauge>,
}

impl ComponentMetrics {
    /// The making of an archive's files, which goes on behind the confirmation of messages and may fail while that works.
    /// `health` is the component's own.
    pub fn files(&self, health: &Health) -> FileMetrics {
        const PART: &str = "files";
        let Parts { labels, up, archive_waiting } = &self.parts;
        let waiting_bytes = archive_waiting.get_or_create(labels).clone();
        let labels = ComponentLabels { label: format!("{}/{PART}", labels.label), ..labels.clone() };
        FileMetrics { health: health.part(PART, up.get_or_create(&labels).clone()), waiting_bytes }
    }
}

/// How the making of an archive's files goes.
#[derive(Clone, Debug)]
pub struct FileMetrics {
    pub health: Health,
    /// Bytes of messages that are in no file yet.
    pub waiting_bytes: Gauge,
}

impl FileMetrics {
    /// Shown nowhere, for tests and tools.
    pub fn detached() -> Self {
        Self { health: Health::detached().part("files", Gauge::default()), waiting_bytes: Gauge::default() }
    }
}

/// Counters of messages that a script's interpreter worked on.
#[derive(Clone, Debug)]
pub struct ScriptMetrics {
    pub script: Counter,
    pub message: Counter,
}

impl ScriptMetrics {
    /// Counts messages of a script that is not compiled, and messages that did not fit its plan.
    pub fn add(&self, script: u64, message: u64) {
        // A plan that fits, which is the rule, costs no atomic addition.
        if script > 0 {
            self.script.inc_by(script);
        }
        if message > 0 {
            self.message.inc_by(message);
        }
    }
}

/// What a spool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolState {
    /// Nothing: messages go to the outputs directly.
    Direct,
    /// Messages go to disk.
    Spooling,
    /// The outputs take messages from disk.
    Draining,
}

impl SpoolState {
    /// `direct`, `spooling` or `draining`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Spooling => "spooling",
            Self::Draining => "draining",
        }
    }
}

/// Gauges of the spool of one input.
#[derive(Clone, Debug)]
pub struct SpoolMetrics {
    state: Gauge,
    bytes: Gauge,
    messages: Gauge,
    oldest: Gauge<f64, AtomicU64>,
}

impl SpoolMetrics {
    /// How things are: bytes on disk, messages that are not delivered, and the age of the oldest in seconds.
    pub fn set(&self, state: SpoolState, bytes: u64, messages: u64, oldest_s: f64) {
        self.state.set(state as i64);
        self.bytes.set(bytes as i64);
        self.messages.set(messages as i64);
        self.oldest.set(oldest_s);
    }
}

/// Counters of one pipeline.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    pub filtered: Counter,
    pub dead_lettered: Counter,
    pub in_flight: Gauge,
    pub age_seconds: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_unit_and_counters_end_in_total() {
        let metrics = Metrics::new();
        metrics.component("p", "input", "devices").received.inc_by(3);
        metrics.pipeline("p").filtered.inc();
        let text = metrics.text();
        assert!(
            text.contains("streamer_received_messages_total{pipeline=\"p\",kind=\"input\",label=\"devices\"} 3"),
            "{text}"
        );
        assert!(text.contains("streamer_filtered_messages_total{pipeline=\"p\"} 1"), "{text}");
        assert!(text.contains("# UNIT streamer_write_seconds seconds"), "{text}");
    }
}
