//! The `tests:` of a pipeline file: messages in, and what must come out.
use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

/// One example: what goes in, and what must come out. What is not expected must not come.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestCase {
    /// What it shows, in a few words.
    pub name: String,
    /// The message.
    #[serde(default)]
    pub input: Option<TestInput>,
    /// Several messages, in order.
    #[serde(default)]
    pub inputs: Vec<TestInput>,
    /// The time that `now()` gives: a text like `2024-05-01T10:00:00Z`, or Unix milliseconds. The real time without it.
    #[serde(default)]
    pub clock: Option<Json>,
    /// What each output must get, by label, in order. An output that is not named must get nothing.
    #[serde(default)]
    pub outputs: BTreeMap<String, Vec<Expected>>,
    /// The dead letters there must be, in order.
    #[serde(default)]
    pub dead_letters: Vec<ExpectedLetter>,
    /// How many messages must be filtered.
    #[serde(default)]
    pub dropped: u64,
}

/// A message that goes in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestInput {
    /// The payload: a text as it is, any other value as JSON. Empty without it.
    #[serde(default, deserialize_with = "given")]
    pub payload: Option<Json>,
    /// The payload's bytes in Base64, for what is no text.
    #[serde(default)]
    pub payload_base64: Option<String>,
    /// A file that holds the payload, relative to the pipeline file.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Metadata by the names that scripts use: `topic`, `key`, `partition`, `offset`, `timestamp_ms`, `received_at` or
    /// `received_at_ms`, `qos`, `retain`, `headers` (names and texts); any other name is one that the input's topic
    /// filter gives.
    #[serde(default)]
    pub meta: BTreeMap<String, Json>,
    /// Label of the input it comes from; the first one without it.
    #[serde(default)]
    pub input: Option<String>,
}

/// A message that must come out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The payload. Of an object only the members that are given must be there, unless it is `exact`; numbers are equal
    /// when their values are. A text is compared with the payload's bytes, or with the text that it is in JSON.
    #[serde(default, deserialize_with = "given")]
    pub payload: Option<Json>,
    /// The key; null for none.
    #[serde(default, deserialize_with = "given")]
    pub key: Option<Json>,
    /// Headers that must be there; null for one that must not.
    #[serde(default)]
    pub headers: BTreeMap<String, Json>,
    /// The topic it is sent to.
    #[serde(default)]
    pub topic: Option<String>,
    /// When true, the payload must have no other members.
    #[serde(default)]
    pub exact: bool,
}

/// A dead letter that must come.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedLetter {
    /// Its code, for example `script-error`.
    #[serde(default)]
    pub code: Option<String>,
    /// A part of its reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// Where it failed: `steps[0]`, `outputs.table`.
    #[serde(default)]
    pub stage: Option<String>,
    /// The end of its place: `12:7`, or with the file.
    #[serde(default)]
    pub place: Option<String>,
}

/// Tells null from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}
