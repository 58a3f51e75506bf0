//! Dead letters: messages that can never be delivered, kept with their original bytes and the reason.
//!
//! A dead letter is a message like any other (`dead_letter::envelopes`). It goes through a `Writer` of its own, so it is
//! retried like any other write, and the acks of the batch it came from wait for it.
//!
//! When the dead-letter output refuses even the envelope because of its size, the payload goes to a file first, and the
//! envelope carries `payload_bytes payload_sha256 payload_file` instead; key and headers follow when they are large, too.
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
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
    dead_letter::{Envelope, Letter, Part, envelopes, write_letter},
    message::{Batch, SourceBuilder},
    metrics::Health,
    output::Rejection,
};

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
                origin: message.origin_index(),
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
            let mut envelope = Envelope::read(message.payload()).map_err(|_| refused())?;
            // The payload first; key and headers when it is refused once more.
            let (part, bytes) = envelope.take_largest().ok_or_else(refused)?;
            let digest = hex(&Sha256::digest(&bytes));
            let file = match part {
                Part::Payload => self.folder.join(format!("{digest}.payload")),
                Part::KeyAndHeaders => self.folder.join(format!("{digest}.json")),
            };
            let size = bytes.len() as u64;
            self.save(file.clone(), bytes.into()).await;
            let file = Some(file.display().to_string());
            match part {
                Part::Payload => {
                    (envelope.payload_bytes, envelope.payload_sha256) = (Some(size), Some(digest));
                    envelope.payload_file = file;
                }
                Part::KeyAndHeaders => envelope.source.file = file,
            }
            let key = message.key().filter(|_| part == Part::Payload);
            write_letter(&mut batch, &envelope, key, message.origin().received_at_ms)
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
    // The folder may be new itself.
    [folder, folder.parent().unwrap_or(folder)]
        .into_iter()
        .filter(|f| f.is_dir())
        .try_for_each(|folder| std::fs::File::open(folder)?.sync_all())
}

/// Where a message came from, for people.
fn position(letter: &Letter<'_>) -> String {
    let (source, origin) = (letter.source, letter.origin());
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

    #[test]
    fn a_payload_is_saved_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b.payload");
        let bytes = vec![0xff; 100_000];
        write_synced(&file, &bytes).unwrap();
        assert!(std::fs::read(&file).unwrap() == bytes);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
}
