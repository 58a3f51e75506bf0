//! Reads messages from standard input, one a line.
//!
//! Guarantee: none. What was read and not delivered when streamer dies is gone, unless whoever writes sends it again.
use std::{io::Read as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    Input, InputContext, InputError, Replay,
    lines::{CHUNK_BYTES, Lines, Nobody, unix_ms},
};
use crate::{
    ack::Ack,
    diagnostic::Fault,
    message::Batch,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Input> = Spec {
    name: "stdin",
    summary: "Reads messages from standard input, one a line.",
    example: "{ line_bytes_max: 1048576 }",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `stdin`.
///
/// Each line is a message; empty lines are skipped.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Longest line, in bytes. At a longer one the input stops with an error that names the line.
    #[serde(default = "line_bytes_max")]
    #[schemars(range(min = 1))]
    line_bytes_max: usize,
}

pub(super) fn line_bytes_max() -> usize {
    16 << 20
}

struct Stdin {
    lines: Lines,
    /// Chunks from the reading thread; `None` inside says why it ended.
    chunks: Option<mpsc::Receiver<std::io::Result<Bytes>>>,
    ended: bool,
    sent: u64,
}

fn build(section: &Section) -> Result<Box<dyn Input>, Vec<Fault>> {
    let config: Config = decode(section)?;
    Ok(Box::new(Stdin { lines: Lines::new(config.line_bytes_max), chunks: None, ended: false, sent: 0 }))
}

#[async_trait]
impl Input for Stdin {
    fn replay(&self) -> Replay {
        Replay::Never
    }

    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        if self.chunks.is_none() {
            // A thread of its own, because a read of standard input cannot be interrupted: tokio would wait for it when
            // the process ends.
            let (to, chunks) = mpsc::channel(4);
            std::thread::Builder::new()
                .name("stdin".to_owned())
                .spawn(move || read_chunks(&to))
                .map_err(|error| InputError::new("cannot start a thread for standard input", error))?;
            self.chunks = Some(chunks);
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        loop {
            let source = self
                .lines
                .take("stdin", unix_ms(), self.ended)
                .map_err(|error| InputError::message(format!("cannot read standard input: {error}")))?;
            if let Some(source) = source {
                self.sent += 1;
                return Ok(Some((Batch::new(source), Ack::new(Arc::new(Nobody), self.sent))));
            }
            if self.ended {
                return Ok(None);
            }
            let chunks = self.chunks.as_mut().expect("connect was called first");
            match chunks.recv().await {
                Some(Ok(chunk)) => self.lines.buffer().extend_from_slice(&chunk),
                Some(Err(error)) => {
                    self.chunks = None;
                    return Err(InputError::new("cannot read standard input", error));
                }
                None => self.ended = true,
            }
        }
    }

    async fn close(&mut self, _: Duration) {
        self.chunks = None;
    }
}

/// Sends what standard input brings, until it ends or nobody listens any more.
fn read_chunks(to: &mpsc::Sender<std::io::Result<Bytes>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let chunk = match std::io::stdin().lock().read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if to.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}
