//! The top level of a pipeline file. This type is the one source of its keys: the JSON Schema, lint and the reader
//! read it.
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::TestCase;

/// A pipeline: messages come from every input, go through the steps in order, and leave by every output.
#[expect(dead_code, reason = "declares the keys for the schema; `Pipeline` is what they become")]
#[derive(JsonSchema)]
#[schemars(rename = "Pipeline", deny_unknown_fields)]
struct Grammar {
    /// Name in logs, metrics and dead letters. The file's name without its ending when it is left out.
    #[schemars(length(min = 1))]
    name: Option<String>,
    /// What the pipeline is for, in one sentence.
    description: Option<String>,
    /// Where messages come from: a label of your own for each, with one input under it.
    #[schemars(extend("minProperties" = 1))]
    inputs: BTreeMap<String, serde_json::Value>,
    /// What is done with each message, in order.
    #[serde(default)]
    steps: Vec<serde_json::Value>,
    /// Where messages go: a label of your own for each, with one output under it. Every output gets every message,
    /// unless its `when:` (a condition in Rhai) says no.
    #[schemars(extend("minProperties" = 1))]
    outputs: BTreeMap<String, serde_json::Value>,
    /// The output for messages that no step or output can work with, as they came and with the reason. Without it such
    /// a message stops the pipeline.
    #[serde(default)]
    dead_letter: serde_json::Value,
    /// The output for every message as it came, before any step.
    #[serde(default)]
    archive: serde_json::Value,
    /// The guarantee that the parts must give. What they give is used when it is left out.
    delivery: Option<Delivery>,
    /// Bounds of memory and time.
    limits: Option<Limits>,
    /// Keep messages on disk while outputs are away, and acknowledge them from there. For inputs whose broker keeps few
    /// messages itself, which is `mqtt`.
    #[serde(default)]
    #[schemars(with = "Spool")]
    spool: Option<Spool>,
    /// Examples that `streamer test` runs: one message in, what must come out.
    #[serde(default)]
    tests: Vec<TestCase>,
}

/// What is promised for every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Messages may get lost when streamer or the network fails.
    BestEffort,
    /// No message is lost; after a failure some may arrive twice.
    AtLeastOnce,
    /// No message is lost and none arrives twice.
    ExactlyOnce,
}

/// Bounds of one pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most payload bytes that are read and not yet acknowledged. At the limit the inputs pause. Default: 64 MiB.
    #[schemars(range(min = 1_048_576))]
    pub in_flight_bytes_max: usize,
    /// Longest time a stop may take to deliver what was read, in milliseconds. What is left then is not acknowledged
    /// and comes again. The default of 25 s fits into the 30 s that Kubernetes gives.
    #[schemars(range(max = 3_600_000))]
    pub shutdown_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight_bytes_max: 64 << 20, shutdown_timeout_ms: 25_000 }
    }
}

/// Messages on disk while outputs are away, in `STATE_DIR/spool`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// False: what is on disk is delivered, and nothing more is put there. Default: true.
    pub enabled: bool,
    /// Most bytes on disk for each input. At the limit nothing more is read or acknowledged until outputs take messages
    /// again. Default: 10 GiB.
    #[schemars(range(min = 1_048_576))]
    pub bytes_max: u64,
    /// How long outputs may leave a message without confirmation before messages go to disk, in milliseconds, beside the
    /// time that they gather messages on purpose (`linger_ms`). Default: 500.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub after_ms: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self { enabled: true, bytes_max: 10 << 30, after_ms: 500 }
    }
}

/// The JSON Schema of the top level. What stands under `inputs`, `steps`, `outputs`, `dead_letter` and `archive` is
/// left open: the registry knows it.
pub fn grammar_schema() -> serde_json::Value {
    schemars::schema_for!(Grammar).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_and_only_the_ends_are_required() {
        let schema = grammar_schema();
        let keys = schema["properties"].as_object().unwrap();
        assert_eq!(keys.len(), 11);
        for (key, field) in keys {
            assert!(field["description"].is_string(), "`{key}` has no doc comment");
        }
        assert_eq!(schema["required"], serde_json::json!(["inputs", "outputs"]));
        assert_eq!(schema["additionalProperties"], false);
    }
}
