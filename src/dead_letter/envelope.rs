//! The envelope of a dead letter: what failed, why, where it came from, and its bytes as they were received.
//!
//! A dead letter is a message like any other: its payload is the JSON below, its key is the original's, and the facts
//! that people filter by stand in its headers, too. `docs/dead-letters.md` is the reference of every field. Version 1 may
//! gain fields; a field that is there keeps its name and meaning. Readers take what they know and ignore the rest.
//!
//! Bytes that are not UTF-8 stand beside the text field as Base64: `payload_base64` in place of `payload`, `key_base64`
//! in place of `key`, `value_base64` in place of a header's `value`. So what was received can be sent again byte for byte.
use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::{ArenaFull, Batch, Origin, Source, SourceBuilder};

/// The version that is written, and the latest one that is read.
pub const VERSION: u32 = 1;

/// Header of a message that was sent back to its source: how it failed before, as JSON.
pub const REDRIVEN_HEADER: &str = "streamer_redriven";

/// Failures that an envelope remembers beside its own: the latest.
const HISTORY_MAX: usize = 20;

/// Why one message is a dead letter.
pub struct Letter<'a> {
    pub source: &'a Source,
    /// Index of the message in the source.
    pub origin: u32,
    /// Which part of the message, when a step has split it; from 0.
    pub part: Option<u32>,
    /// `steps[0]`, `outputs.table`.
    pub stage: &'a str,
    pub code: &'a str,
    pub reason: &'a str,
    /// `file:line:column` of the script.
    pub place: Option<&'a str>,
    /// Writes tried, 0 when it never came to one.
    pub attempts: u32,
}

impl Letter<'_> {
    /// The message as it was received.
    pub fn origin(&self) -> &Origin {
        &self.source.origins()[self.origin as usize]
    }
}

/// The JSON of a dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    pub version: u32,
    pub pipeline: String,
    pub stage: String,
    pub code: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    #[serde(default)]
    pub attempts: u32,
    pub time: String,
    /// How often it was redriven before it failed this time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub redrives: u32,
    /// How it failed before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Past>,
    pub source: Received,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// These three in place of the payload, when it lies in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_file: Option<String>,
}

/// One failure of the past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub time: String,
    pub stage: String,
    pub code: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    #[serde(default)]
    pub attempts: u32,
}

/// Where the message came from, and what it came with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// The component that read it: `kafka`, `mqtt`.
    pub input: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<i64>,
    #[serde(default)]
    pub received_at_ms: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub qos: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
    /// Levels of the topic that the input's filter names: name and number, from 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<String, usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// A file beside the payload's with `key` and `headers`, when they were too large for the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// One header of the message. Names may repeat; the order is that of the message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// What a message that was redriven carries along about its past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Before {
    pub redrives: u32,
    pub history: Vec<Past>,
}

/// What of a dead letter lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Payload,
    KeyAndHeaders,
}

/// The file with key and headers.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Bytes as text, or as Base64 when they are none.
fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

/// The way back. `None` when neither is there, or the Base64 is none.
fn bytes_of(text: Option<&String>, base64: Option<&String>) -> Option<Vec<u8>> {
    match (text, base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(base64)) => BASE64.decode(base64).ok(),
        (None, None) => None,
    }
}

impl Header {
    fn of((name, value): (&str, &[u8])) -> Self {
        let (value, value_base64) = text_or_base64(value);
        Self { name: name.to_owned(), value, value_base64 }
    }

    /// The value's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        bytes_of(self.value.as_ref(), self.value_base64.as_ref()).unwrap_or_default()
    }
}

impl Received {
    fn of(source: &Source, origin: &Origin) -> Self {
        let (key, key_base64) = source.key(origin).map(text_or_base64).unwrap_or_default();
        let topic = Some(source.topic(origin)).filter(|topic| !topic.is_empty()).map(str::to_owned);
        let headers = source.headers(origin).filter(|(name, _)| *name != REDRIVEN_HEADER);
        Self {
            input: source.input().to_owned(),
            topic,
            key,
            key_base64,
            partition: (origin.partition >= 0).then_some(origin.partition),
            offset: (origin.offset >= 0).then_some(origin.offset),
            timestamp_ms: origin.timestamp_ms,
            received_at_ms: origin.received_at_ms,
            qos: origin.qos.into(),
            retain: origin.retain,
            levels: source.levels(origin).iter().cloned().collect(),
            headers: headers.map(Header::of).collect(),
            file: None,
        }
    }

    /// The key's bytes.
    pub fn key(&self) -> Option<Vec<u8>> {
        bytes_of(self.key.as_ref(), self.key_base64.as_ref())
    }
}

impl Before {
    /// What a source says about the past of one of its messages: nothing, unless it was redriven.
    fn of(letter: &Letter<'_>) -> Self {
        let told = match letter.source.redriven() {
            Some(redriven) => redriven.before.get(letter.origin as usize).map(|text| text.as_bytes()),
            None => letter.source.headers(letter.origin()).find(|(name, _)| *name == REDRIVEN_HEADER).map(|h| h.1),
        };
        // A header that others have made up is no history.
        told.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
    }
}

impl Envelope {
    fn of(pipeline: &str, time: &str, letter: &Letter<'_>) -> Self {
        let Before { redrives, history } = Before::of(letter);
        let (payload, payload_base64) = text_or_base64(letter.source.original(letter.origin()));
        Self {
            version: VERSION,
            pipeline: pipeline.to_owned(),
            stage: letter.stage.to_owned(),
            code: letter.code.to_owned(),
            reason: letter.reason.to_owned(),
            place: letter.place.map(str::to_owned),
            part: letter.part,
            attempts: letter.attempts,
            time: time.to_owned(),
            redrives,
            history,
            source: Received::of(letter.source, letter.origin()),
            payload,
            payload_base64,
            payload_bytes: None,
            payload_sha256: None,
            payload_file: None,
        }
    }

    /// Reads the JSON of a dead letter.
    ///
    /// # Errors
    /// What keeps it from being one, for a person.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        // A list would fit a struct, too.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err("it is no JSON object".to_owned());
        }
        #[derive(Deserialize)]
        struct Versioned {
            version: Option<Value>,
        }
        let Versioned { version } = serde_json::from_slice(json).map_err(|error| format!("it is no JSON: {error}"))?;
        match version.as_ref().and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                return Err(format!("its version is {version}, and this streamer reads version {VERSION}"));
            }
            None => return Err("it has no `version`, so it is no dead letter".to_owned()),
        }
        serde_json::from_slice(json).map_err(|error| format!("it is no dead letter: {error}"))
    }

    /// The JSON.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// The original bytes, unless they lie in a file.
    pub fn payload(&self) -> Option<Vec<u8>> {
        bytes_of(self.payload.as_ref(), self.payload_base64.as_ref())
    }

    /// Takes out what is largest, to be kept in a file: the payload, then key and headers; then nothing is left to take.
    pub fn take_largest(&mut self) -> Option<(Part, Vec<u8>)> {
        if let Some(payload) = self.payload() {
            (self.payload, self.payload_base64) = (None, None);
            return Some((Part::Payload, payload));
        }
        let source = &mut self.source;
        let kept = Kept {
            key: source.key.take(),
            key_base64: source.key_base64.take(),
            headers: std::mem::take(&mut source.headers),
        };
        (kept != Kept::default())
            .then(|| (Part::KeyAndHeaders, serde_json::to_vec(&kept).expect("texts and numbers are JSON")))
    }

    /// Puts back key and headers from the file that `take_largest` has filled.
    ///
    /// # Errors
    /// The bytes are not of such a file.
    pub fn put_back(&mut self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let Kept { key, key_base64, headers } = serde_json::from_slice(bytes)?;
        (self.source.key, self.source.key_base64, self.source.headers) = (key, key_base64, headers);
        Ok(())
    }

    /// What the message carries along when it is redriven: this failure behind those before.
    pub fn before(&self) -> String {
        let Self { time, stage, code, reason, place, attempts, .. } = self.clone();
        let mut history = self.history.clone();
        history.push(Past { time, stage, code, reason, place, attempts });
        history.drain(..history.len().saturating_sub(HISTORY_MAX));
        let before = Before { redrives: self.redrives.saturating_add(1), history };
        serde_json::to_string(&before).expect("texts and numbers are JSON")
    }

    /// The facts that people filter by.
    fn headers(&self) -> [(&'static str, Option<String>); 13] {
        let text = |text: &str| Some(text.to_owned());
        [
            ("streamer_version", Some(self.version.to_string())),
            ("streamer_pipeline", text(&self.pipeline)),
            ("streamer_stage", text(&self.stage)),
            ("streamer_code", text(&self.code)),
            ("streamer_reason", Some(self.reason.chars().take(500).collect())),
            ("streamer_place", self.place.clone()),
            ("streamer_part", self.part.map(|part| part.to_string())),
            ("streamer_attempts", Some(self.attempts.to_string())),
            ("streamer_redrives", Some(self.redrives.to_string())),
            ("streamer_input", text(&self.source.input)),
            ("streamer_topic", self.source.topic.clone()),
            ("streamer_partition", self.source.partition.map(|n| n.to_string())),
            ("streamer_offset", self.source.offset.map(|n| n.to_string())),
        ]
    }
}

/// Adds a dead letter, with `key` and its headers, to a batch.
///
/// # Errors
/// `ArenaFull` past 4 GiB.
pub fn write_letter(
    batch: &mut SourceBuilder,
    envelope: &Envelope,
    key: Option<&[u8]>,
    time_ms: i64,
) -> Result<(), ArenaFull> {
    batch.push(&envelope.json(), |origin, parts| {
        origin.key = key.map(|key| parts.bytes(key)).transpose()?;
        origin.received_at_ms = time_ms;
        let headers = envelope.headers();
        let mut headers = headers.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        headers.try_for_each(|(name, value)| parts.header(origin, name, value.as_bytes()))
    })
}

/// The dead letters as messages.
///
/// # Errors
/// `ArenaFull` past 4 GiB.
pub fn envelopes(pipeline: &str, letters: &[Letter<'_>]) -> Result<Batch, ArenaFull> {
    let now = jiff::Timestamp::now();
    let time = now.to_string();
    let mut batch = SourceBuilder::new("dead_letter");
    for letter in letters {
        let key = letter.source.key(letter.origin());
        write_letter(&mut batch, &Envelope::of(pipeline, &time, letter), key, now.as_millisecond())?;
    }
    Ok(Batch::new(batch.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Captures, Redriven};

    fn source(payload: &[u8], key: &[u8], headers: &[(&str, &[u8])]) -> Source {
        let mut source = SourceBuilder::new("kafka");
        source
            .push(payload, |o, parts| {
                o.topic = parts.text("telemetry/phone-1")?;
                o.key = Some(parts.bytes(key)?);
                (o.partition, o.offset, o.filter) = (3, 42, 0);
                headers.iter().try_for_each(|(name, value)| parts.header(o, name, value))
            })
            .unwrap();
        let captures = Captures { filters: vec![vec![("device".to_owned(), 1)]] };
        source.finish().with_captures(captures.into())
    }

    fn letter(source: &Source) -> Letter<'_> {
        let (stage, code, reason) = ("outputs.table", "column-range", "too big");
        Letter { source, origin: 0, part: None, stage, code, reason, place: None, attempts: 2 }
    }

    fn envelope(source: &Source) -> Envelope {
        Envelope::read(envelopes("p", &[letter(source)]).unwrap().get(0).payload()).unwrap()
    }

    #[test]
    fn an_envelope_holds_the_original_bytes_the_reason_and_the_position() {
        let source = source(b"{\"battery\": 300}", b"phone-1", &[]);
        let batch = envelopes("p", &[letter(&source)]).unwrap();
        let message = batch.get(0);
        let text = std::str::from_utf8(message.payload()).unwrap();
        let start = r#"{"version":1,"pipeline":"p","stage":"outputs.table","code":"column-range","reason":"too big","attempts":2,"time":""#;
        assert!(text.starts_with(start), "{text}");
        let rest = r#""source":{"input":"kafka","topic":"telemetry/phone-1","key":"phone-1","partition":3,"offset":42,"received_at_ms":0,"levels":{"device":1}},"payload":"{\"battery\": 300}"}"#;
        assert!(text.ends_with(rest), "{text}");
        assert_eq!(message.key(), Some(&b"phone-1"[..]));
        for header in [("streamer_offset", "42"), ("streamer_attempts", "2"), ("streamer_redrives", "0")] {
            assert!(message.headers().any(|found| found == (header.0, header.1.as_bytes())), "{header:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_kept_as_base64() {
        let headers: [(&str, &[u8]); 3] = [("a", b"\xfe"), ("a", b"text"), ("b", b"")];
        let e = envelope(&source(b"\xff\x00", b"\x80", &headers));
        assert_eq!((e.payload_base64.as_deref(), &e.payload), (Some("/wA="), &None));
        assert_eq!((e.source.key_base64.as_deref(), &e.source.key), (Some("gA=="), &None));
        assert_eq!(e.source.key().unwrap(), b"\x80");
        let back: Vec<_> = e.source.headers.iter().map(|h| (h.name.as_str(), h.bytes())).collect();
        assert_eq!(back, headers.map(|(name, value)| (name, value.to_vec())));
    }

    #[test]
    fn an_envelope_shrinks_twice_and_grows_back() {
        let whole = envelope(&source(b"payload", b"\x80", &[("a", b"\xfe")]));
        let mut e = whole.clone();
        assert_eq!(e.take_largest().unwrap(), (Part::Payload, b"payload".to_vec()));
        let (part, kept) = e.take_largest().unwrap();
        assert_eq!((part, e.source.key(), e.source.headers.len()), (Part::KeyAndHeaders, None, 0));
        assert!(e.take_largest().is_none());
        e.put_back(&kept).unwrap();
        assert_eq!(e.source, whole.source);
    }

    #[test]
    fn an_empty_payload_and_key_are_not_missing() {
        let e = envelope(&source(b"", b"", &[]));
        assert_eq!((e.payload(), e.source.key()), (Some(Vec::new()), Some(Vec::new())));
    }

    #[test]
    fn a_letter_that_fails_again_tells_of_both() {
        let first = envelope(&source(b"x", b"k", &[]));
        let carried = first.before();
        // By the way of the steps, and back by way of its topic.
        let redriven = Redriven { output: None, part: None, before: vec![carried.clone()] };
        let ways = [
            source(b"x", b"k", &[]).with_redriven(redriven),
            source(b"x", b"k", &[(REDRIVEN_HEADER, carried.as_bytes())]),
        ];
        for source in ways {
            let again = envelope(&source);
            assert_eq!((again.redrives, again.history.len()), (1, 1));
            assert_eq!((again.history[0].code.as_str(), &again.history[0].time), ("column-range", &first.time));
            assert!(again.source.headers.is_empty(), "the header is ours, not the message's");
            let third: Before = serde_json::from_str(&again.before()).unwrap();
            assert_eq!((third.redrives, third.history.len()), (2, 2));
        }
    }

    #[test]
    fn the_past_does_not_grow_for_ever() {
        let mut e = envelope(&source(b"x", b"k", &[]));
        for _ in 0..100 {
            let before: Before = serde_json::from_str(&e.before()).unwrap();
            (e.redrives, e.history) = (before.redrives, before.history);
        }
        assert_eq!((e.redrives, e.history.len()), (100, HISTORY_MAX));
    }

    #[test]
    fn what_is_no_letter_says_why() {
        for (json, wrong) in [
            ("nonsense", "it is no JSON object"),
            ("[1]", "it is no JSON object"),
            ("{}", "it has no `version`, so it is no dead letter"),
            (r#"{"version":2}"#, "its version is 2, and this streamer reads version 1"),
            (r#"{"version":1}"#, "it is no dead letter: missing field `pipeline` at line 1 column 13"),
        ] {
            assert_eq!(Envelope::read(json.as_bytes()).unwrap_err(), wrong);
        }
    }

    #[test]
    fn an_envelope_of_the_first_streamer_is_read() {
        let old = r#"{"attempts":1,"code":"c","payload":"x","pipeline":"p","reason":"r","source":{"input":"mqtt","key":"k","received_at_ms":5},"stage":"steps[0]","time":"2026-01-01T00:00:01.5Z","version":1}"#;
        let e = Envelope::read(old.as_bytes()).unwrap();
        assert_eq!((e.redrives, e.payload(), e.source.key()), (0, Some(b"x".to_vec()), Some(b"k".to_vec())));
    }
}
