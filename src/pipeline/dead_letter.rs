//! Dead letters: messages that can never be delivered, kept with their original bytes and the reason.
//!
//! A dead letter is a message like any other: its payload is the JSON envelope below, its key is the original's, and the
//! same facts stand in its headers for filters. It goes through a `Writer` of its own, so it is retried like any other
//! write, and the acks of the batch it came from wait for it.
//!
//! Envelope, version 1: `version pipeline stage code reason place? part? attempts time source{input topic? key? partition?
//! offset? timestamp_ms? received_at_ms} payload | payload_base64`. When the dead-letter output refuses even the
//! envelope because of its size, the payload goes to a file first, and the envelope carries `payload_bytes
//! payload_sha256 payload_file` instead.
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, time::sleep};

use super::{
    PipelineError,
    backoff::Backoff,
    batcher::{Job, Write},
    writer::Refused,
};
use crate::{
    ack::Ack,
    message::{ArenaFull, Batch, Origin, Source, SourceBuilder},
    metrics::Health,
    output::Rejection,
};

/// Why one message is a dead letter.
pub struct Letter<'a> {
    pub source: &'a Source,
    pub origin: &'a Origin,
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

/// The way of dead letters out of one pipeline. Cloning shares it.
#[derive(Clone)]
pub struct DeadLetters {
    pipeline: Arc<str>,
    jobs: Option<mpsc::Sender<Job>>,
}

impl DeadLetters {
    /// Hands dead letters to `jobs`; without it, the first one stops the pipeline.
    pub fn new(pipeline: Arc<str>, jobs: Option<mpsc::Sender<Job>>) -> Self {
        Self { pipeline, jobs }
    }

    /// Sends `letters` on their way. `acks` wait until they are confirmed.
    ///
    /// # Errors
    /// The pipeline has no `dead_letter:` or its writer has ended; the acks are dropped, so the messages come again.
    pub async fn send(&self, letters: Vec<Letter<'_>>, acks: Vec<Ack>) -> Result<(), PipelineError> {
        let Some(first) = letters.first() else {
            acks.into_iter().for_each(Ack::delivered);
            return Ok(());
        };
        let Some(jobs) = &self.jobs else {
            return Err(PipelineError::NoDeadLetter {
                stage: first.stage.to_owned(),
                reason: first.reason.to_owned(),
                position: position(first),
            });
        };
        let batch = envelopes(&self.pipeline, &letters).map_err(|_| PipelineError::TooLarge)?;
        jobs.send(Job { batch: Arc::new(batch), acks }).await.map_err(|_| PipelineError::Stopped)
    }
}

/// The refusals of one output become dead letters.
pub struct ToDeadLetters {
    pub letters: DeadLetters,
    /// `outputs.table`.
    pub stage: String,
}

#[async_trait]
impl Refused for ToDeadLetters {
    async fn take(&self, write: &Write, rejected: &[Rejection]) -> Result<Option<Job>, PipelineError> {
        let mut letters = Vec::with_capacity(rejected.len());
        for rejection in rejected {
            let message = write.parcel.get(rejection.index as usize);
            letters.push(Letter {
                source: message.source(),
                origin: message.origin(),
                part: message.part(),
                stage: &self.stage,
                code: &rejection.code,
                reason: &rejection.reason,
                place: None,
                attempts: write.attempts,
            });
        }
        self.letters.send(letters, write.acks.iter().map(Ack::split).collect()).await?;
        Ok(None)
    }
}

/// The refusals of the dead-letter output itself: the payload goes to a file, the rest of the envelope is written again.
pub struct ToFiles {
    /// Where the files go; made when it is needed.
    pub folder: PathBuf,
    pub health: Health,
}

#[async_trait]
impl Refused for ToFiles {
    async fn take(&self, write: &Write, rejected: &[Rejection]) -> Result<Option<Job>, PipelineError> {
        let mut batch = SourceBuilder::new("dead_letter");
        for rejection in rejected {
            let message = write.parcel.get(rejection.index as usize);
            let refused = || PipelineError::DeadLetterRefused { reason: rejection.reason.clone() };
            let mut envelope: Map<String, Value> = serde_json::from_slice(message.payload()).map_err(|_| refused())?;
            let payload = take_payload(&mut envelope).ok_or_else(refused)?;
            let digest = hex(&Sha256::digest(&payload));
            let file = self.folder.join(format!("{digest}.payload"));
            self.save(file.clone(), payload.into()).await;
            envelope.insert("payload_file".into(), json!(file));
            let text = serde_json::to_vec(&envelope).expect("a map of strings is JSON");
            batch
                .push(&text, |origin, parts| {
                    origin.key = message.key().map(|k| parts.bytes(k)).transpose()?;
                    message.headers().try_for_each(|(name, value)| parts.header(origin, name, value))
                })
                .map_err(|_| PipelineError::TooLarge)?;
        }
        let acks = write.acks.iter().map(Ack::split).collect();
        Ok(Some(Job { batch: Arc::new(Batch::new(batch.finish())), acks }))
    }
}

impl ToFiles {
    /// Saves a payload, however long it takes: a full disk is no reason to lose it.
    async fn save(&self, file: PathBuf, payload: Arc<[u8]>) {
        let mut backoff = Backoff::default();
        loop {
            let (to, bytes) = (file.clone(), payload.clone());
            let saved = tokio::task::spawn_blocking(move || write_synced(&to, &bytes)).await;
            match saved.expect("writing a file does not panic") {
                Ok(()) => return,
                Err(error) => {
                    self.health.fault(format!("cannot save a dead letter's payload in `{}`: {error}", file.display()))
                }
            }
            sleep(backoff.pause()).await;
        }
    }
}

/// Writes a file so that it is there whole or not at all, even after a power cut.
fn write_synced(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let part = file.with_extension("part");
    let mut out = std::fs::File::create(&part)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&part, file)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Takes the payload out of an envelope and describes it instead.
fn take_payload(envelope: &mut Map<String, Value>) -> Option<Vec<u8>> {
    let payload = match (envelope.remove("payload"), envelope.remove("payload_base64")) {
        (Some(Value::String(text)), _) => text.into_bytes(),
        (_, Some(Value::String(text))) => BASE64.decode(text).ok()?,
        _ => return None,
    };
    envelope.insert("payload_bytes".into(), json!(payload.len()));
    envelope.insert("payload_sha256".into(), json!(hex(&Sha256::digest(&payload))));
    Some(payload)
}

fn envelopes(pipeline: &str, letters: &[Letter<'_>]) -> Result<Batch, ArenaFull> {
    let time = jiff::Timestamp::now();
    let mut batch = SourceBuilder::new("dead_letter");
    for letter in letters {
        let (source, origin) = (letter.source, letter.origin);
        let key = source.key(origin);
        let topic = Some(source.topic(origin)).filter(|t| !t.is_empty());
        let mut from = json!({ "input": source.input(), "received_at_ms": origin.received_at_ms });
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                from[name] = value;
            }
        };
        add("topic", topic.map(Value::from));
        add("key", key.map(|k| String::from_utf8_lossy(k).into()));
        add("partition", (origin.partition >= 0).then(|| origin.partition.into()));
        add("offset", (origin.offset >= 0).then(|| origin.offset.into()));
        add("timestamp_ms", origin.timestamp_ms.map(Value::from));
        let mut envelope = json!({
            "version": 1,
            "pipeline": pipeline,
            "stage": letter.stage,
            "code": letter.code,
            "reason": letter.reason,
            "attempts": letter.attempts,
            "time": time.to_string(),
            "source": from,
        });
        if let Some(place) = letter.place {
            envelope["place"] = json!(place);
        }
        if let Some(part) = letter.part {
            envelope["part"] = json!(part);
        }
        let payload = source.original(origin);
        match simdutf8::basic::from_utf8(payload) {
            Ok(text) => envelope["payload"] = json!(text),
            Err(_) => envelope["payload_base64"] = json!(BASE64.encode(payload)),
        }
        let text = serde_json::to_vec(&envelope).expect("a map of strings is JSON");
        batch.push(&text, |o, parts| {
            o.key = key.map(|k| parts.bytes(k)).transpose()?;
            o.received_at_ms = time.as_millisecond();
            let number = |n: i64| (n >= 0).then(|| n.to_string());
            let headers = [
                ("streamer_pipeline", Some(pipeline.to_owned())),
                ("streamer_stage", Some(letter.stage.to_owned())),
                ("streamer_code", Some(letter.code.to_owned())),
                ("streamer_reason", Some(letter.reason.chars().take(500).collect())),
                ("streamer_place", letter.place.map(str::to_owned)),
                ("streamer_part", letter.part.map(|part| part.to_string())),
                ("streamer_input", Some(source.input().to_owned())),
                ("streamer_topic", topic.map(str::to_owned)),
                ("streamer_partition", number(origin.partition.into())),
                ("streamer_offset", number(origin.offset)),
            ];
            headers
                .iter()
                .filter_map(|(name, value)| Some((name, value.as_ref()?)))
                .try_for_each(|(name, value)| parts.header(o, name, value.as_bytes()))
        })?;
    }
    Ok(Batch::new(batch.finish()))
}

/// Where a message came from, for people.
fn position(letter: &Letter<'_>) -> String {
    let (source, origin) = (letter.source, letter.origin);
    match (source.topic(origin), origin.partition, origin.offset) {
        ("", _, -1) => format!("a message of input `{}`", source.input()),
        ("", _, offset) => format!("message {offset} of input `{}`", source.input()),
        (topic, -1, _) => format!("a message on topic `{topic}`"),
        (topic, partition, offset) => format!("topic `{topic}`, partition {partition}, offset {offset}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(payload: &[u8]) -> Source {
        let mut source = SourceBuilder::new("kafka");
        source
            .push(payload, |o, parts| {
                o.topic = parts.text("telemetry")?;
                o.key = Some(parts.bytes(b"phone-1")?);
                (o.partition, o.offset) = (3, 42);
                Ok(())
            })
            .unwrap();
        source.finish()
    }

    fn letter(source: &Source) -> Letter<'_> {
        let origin = &source.origins()[0];
        Letter {
            source,
            origin,
            part: None,
            stage: "outputs.table",
            code: "column-range",
            reason: "too big",
            place: None,
            attempts: 2,
        }
    }

    fn envelope(batch: &Batch) -> Map<String, Value> {
        serde_json::from_slice(batch.get(0).payload()).unwrap()
    }

    #[test]
    fn an_envelope_holds_the_original_bytes_the_reason_and_the_position() {
        let source = source(b"{\"battery\": 300}");
        let batch = envelopes("p", &[letter(&source)]).unwrap();
        let e = envelope(&batch);
        assert_eq!(e["payload"], "{\"battery\": 300}");
        assert_eq!(
            (&e["code"], &e["stage"], &e["attempts"]),
            (&json!("column-range"), &json!("outputs.table"), &json!(2))
        );
        assert_eq!(e["source"]["topic"], "telemetry");
        assert_eq!((&e["source"]["partition"], &e["source"]["offset"]), (&json!(3), &json!(42)));
        let message = batch.get(0);
        assert_eq!(message.key(), Some(&b"phone-1"[..]));
        assert!(message.headers().any(|h| h == ("streamer_offset", &b"42"[..])));
    }

    #[test]
    fn bytes_that_are_not_text_are_kept_as_base64() {
        let source = source(b"\xff\x00");
        let mut e = envelope(&envelopes("p", &[letter(&source)]).unwrap());
        assert_eq!(e["payload_base64"], "/wA=");
        assert_eq!(take_payload(&mut e).unwrap(), b"\xff\x00");
        assert_eq!(e["payload_bytes"], 2);
    }

    #[test]
    fn a_payload_is_saved_whole_and_its_envelope_shrinks() {
        let folder = tempfile::tempdir().unwrap();
        let text = "x".repeat(100_000);
        let source = source(text.as_bytes());
        let mut e = envelope(&envelopes("p", &[letter(&source)]).unwrap());
        let payload = take_payload(&mut e).unwrap();
        let file = folder.path().join("a/b.payload");
        write_synced(&file, &payload).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        assert!(serde_json::to_string(&e).unwrap().len() < 1000);
        assert!(take_payload(&mut e).is_none(), "an envelope shrinks once");
    }
}
