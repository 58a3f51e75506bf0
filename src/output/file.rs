//! Writes messages to a file, one a line.
//!
//! Guarantee: at least once. A message is confirmed once it is on the disk (`sync: true`, the default). A write that
//! fails half way is taken back, and a line that a crash has left unfinished never runs into the next one.
use std::{
    io::{self, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    fs::{File as Handle, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

use super::{Delivery, Output, OutputContext, OutputError, Parcel, WriteError, WriteLimits, lines::frame};
use crate::{
    diagnostic::Fault,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Output> = Spec {
    name: "file",
    summary: "Writes messages to a file, one a line.",
    example: "{ path: out/readings.jsonl }",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `file`.
///
/// Each message is a line. JSON that is spread over several lines is put on one; any other payload with a line end in it
/// is rejected.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file. A relative path starts at the folder of the pipeline file; folders that are missing are made.
    path: PathBuf,
    /// Whether to write behind what the file holds already. When false, the file is emptied at the start.
    #[serde(default = "yes")]
    append: bool,
    /// Whether every write is put on the disk before its messages are confirmed. When false, a power failure can lose
    /// messages that were confirmed; the end of the process alone cannot.
    #[serde(default = "yes")]
    sync: bool,
}

fn yes() -> bool {
    true
}

struct File {
    path: PathBuf,
    sync: bool,
    /// True when the file is to be emptied as soon as it is opened, which happens once.
    empty_first: bool,
    open: Option<Handle>,
    /// Bytes of the file that are whole lines.
    length: u64,
}

fn build(section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    let config: Config = decode(section)?;
    if config.path.as_os_str().is_empty() {
        return Err(vec![Fault::new("no-path", "path", "`file` without a path").label("empty")]);
    }
    let path = section.folder.join(config.path);
    Ok(Box::new(File { path, sync: config.sync, empty_first: !config.append, open: None, length: 0 }))
}

#[async_trait]
impl Output for File {
    fn limits(&self) -> WriteLimits {
        WriteLimits { in_flight_max: 1, ..WriteLimits::IMMEDIATE }
    }

    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        self.open().await.map_err(|error| OutputError(format!("cannot open `{}`: {error}", self.path.display())))
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        let (lines, result) = frame(parcel);
        let answer = match self.append(&lines).await {
            Ok(()) => result,
            Err(error) => {
                // Opened anew before the next write, which takes back what part of the lines was written.
                self.open = None;
                Err(WriteError::retry(format!("cannot write to `{}`: {error}", self.path.display())))
            }
        };
        std::future::ready(answer).boxed()
    }

    async fn close(&mut self, _: Duration) {
        self.open = None;
    }
}

impl File {
    async fn open(&mut self) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let mut options = OpenOptions::new();
        let mut handle = options.read(true).write(true).create(true).truncate(false).open(&self.path).await?;
        let is_file = handle.metadata().await?.is_file();
        if self.empty_first && is_file {
            handle.set_len(0).await?;
        } else if self.length > 0 && is_file {
            // We were here before: a write failed half way.
            let there = handle.metadata().await?.len();
            handle.set_len(self.length.min(there)).await?;
        }
        self.empty_first = false;
        if is_file {
            self.length = handle.seek(SeekFrom::End(0)).await?;
            if self.length > 0 {
                let mut last = [0];
                handle.seek(SeekFrom::End(-1)).await?;
                handle.read_exact(&mut last).await?;
                handle.seek(SeekFrom::End(0)).await?;
                if last != *b"\n" {
                    handle.write_all(b"\n").await?;
                    handle.flush().await?;
                    self.length += 1;
                }
            }
        }
        self.open = Some(handle);
        Ok(())
    }

    async fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.open().await?;
        let handle = self.open.as_mut().expect("opened just now");
        handle.write_all(lines).await?;
        handle.flush().await?;
        if self.sync {
            handle.sync_data().await?;
        }
        self.length += lines.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::{context, parcel};

    async fn write(folder: &std::path::Path, yaml: &str, payloads: &[&str]) -> String {
        let mut section = Section::from_yaml(yaml);
        section.folder = folder.to_owned();
        let mut output = (SPEC.build)(&section).unwrap();
        output.connect(&context()).await.unwrap();
        for payload in payloads {
            output.write(&parcel(&[payload])).await.await.unwrap();
        }
        output.close(Duration::from_secs(1)).await;
        std::fs::read_to_string(folder.join("out/x.jsonl")).unwrap()
    }

    #[tokio::test]
    async fn lines_are_appended_or_replace_the_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write(folder.path(), "{ path: out/x.jsonl }", &["a", "b"]).await, "a\nb\n");
        assert_eq!(write(folder.path(), "{ path: out/x.jsonl, sync: false }", &["c"]).await, "a\nb\nc\n");
        assert_eq!(write(folder.path(), "{ path: out/x.jsonl, append: false }", &["d", "e"]).await, "d\ne\n");
    }

    #[tokio::test]
    async fn an_unfinished_line_does_not_run_into_the_next() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("out")).unwrap();
        std::fs::write(folder.path().join("out/x.jsonl"), "whole\nhal").unwrap();
        assert_eq!(write(folder.path(), "{ path: out/x.jsonl }", &["a"]).await, "whole\nhal\na\n");
    }

    #[tokio::test]
    async fn what_a_failed_write_left_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut file = File { path: path.clone(), sync: true, empty_first: false, open: None, length: 0 };
        file.append(b"a\n").await.unwrap();
        std::fs::write(&path, "a\nhalf a li").unwrap();
        file.open = None;
        file.append(b"b\n").await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        let mut section = Section::from_yaml("{ path: plain/x }");
        section.folder = folder.path().to_owned();
        let mut output = (SPEC.build)(&section).unwrap();
        let error = output.connect(&context()).await.unwrap_err().to_string();
        assert!(error.contains("cannot open `") && error.contains("plain/x"), "{error}");
        let retry = output.write(&parcel(&["a"])).await.await.unwrap_err().retry.unwrap();
        assert!(retry.reason.contains("cannot write to `"), "{}", retry.reason);
    }
}
