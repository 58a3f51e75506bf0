//! Writes messages to a file, one a line.
//!
//! Guarantee: at least once. A message is confirmed once it is on the disk (`sync: true`, the default). A write that
//! fails half way is taken back, and a line that a crash has left unfinished never runs into the next one. Several
//! processes may append to one file: each write happens under the file's lock.
use std::{
    fs::File as Handle,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::fs::OpenOptions;

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
    open: Option<Arc<Handle>>,
}

fn build(section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    let config: Config = decode(section)?;
    if config.path.as_os_str().is_empty() {
        return Err(vec![Fault::new("no-path", "path", "`file` without a path").label("empty")]);
    }
    let path = section.folder.join(config.path);
    Ok(Box::new(File { path, sync: config.sync, empty_first: !config.append, open: None }))
}

#[async_trait]
impl Output for File {
    fn limits(&self) -> WriteLimits {
        WriteLimits { in_flight_max: 1, ..WriteLimits::IMMEDIATE }
    }

    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        self.open()
            .await
            .map(drop)
            .map_err(|error| OutputError(format!("cannot open `{}`: {error}", self.path.display())))
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        let (lines, result) = frame(parcel);
        let answer = match self.append(lines).await {
            Ok(()) => result,
            Err(error) => {
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
    async fn open(&mut self) -> io::Result<Arc<Handle>> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        if let Some(folder) = self.path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&self.path).await?;
        if self.empty_first && file.metadata().await?.is_file() {
            file.set_len(0).await?;
        }
        self.empty_first = false;
        let handle = Arc::new(file.into_std().await);
        self.open = Some(handle.clone());
        Ok(handle)
    }

    async fn append(&mut self, lines: Vec<u8>) -> io::Result<()> {
        let (file, sync) = (self.open().await?, self.sync);
        let appended = tokio::task::spawn_blocking(move || {
            if !file.metadata()?.is_file() {
                return (&*file).write_all(&lines);
            }
            // Another process may write to the same file, such as one that sends dead letters again. Some network file
            // systems know no locks; there a file has one writer.
            match file.lock() {
                Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
                _ => {}
            }
            let result = append(&file, &mut |mut file| {
                file.write_all(&lines)?;
                if sync { file.sync_data() } else { Ok(()) }
            });
            let _ = file.unlock();
            result
        });
        appended.await.expect("writing a file does not panic")
    }
}

/// Has `write` write at the end of the file, behind a line end. What a write that fails half way has left is taken back.
fn append(mut file: &Handle, write: &mut dyn FnMut(&Handle) -> io::Result<()>) -> io::Result<()> {
    let end = file.seek(SeekFrom::End(0))?;
    if end > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    write(file).inspect_err(|_| {
        let _ = file.set_len(end);
    })
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

    #[test]
    fn what_a_failed_write_left_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "a\n").unwrap();
        let file = Handle::options().read(true).write(true).open(&path).unwrap();
        let failed = append(&file, &mut |mut file| {
            file.write_all(b"half a li")?;
            Err(io::Error::other("no space"))
        });
        assert!(failed.is_err());
        append(&file, &mut |mut file| file.write_all(b"b\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_writers_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File { path: folder.path().join("x"), sync: false, empty_first: false, open: None };
        let (mut one, mut two) = (open(), open());
        let line = |c: char| format!("{}\n", c.to_string().repeat(5000)).into_bytes();
        for _ in 0..20 {
            let (a, b) = tokio::join!(one.append(line('a')), two.append(line('b')));
            a.and(b).unwrap();
        }
        let text = std::fs::read_to_string(folder.path().join("x")).unwrap();
        let whole = |c: char| text.lines().filter(|l| l.len() == 5000 && l.chars().all(|x| x == c)).count();
        assert_eq!((whole('a'), whole('b')), (20, 20));
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
