//! Reads messages from files, one a line, and ends after the last one.
//!
//! Guarantee: at least once, by starting over. Files are read from their first line whenever the pipeline starts, so
//! whatever was not delivered comes again, and so does everything else. The number of the line is `meta.offset`.
use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{fs::File as Handle, io::AsyncReadExt};

use super::{
    Input, InputContext, InputError, Replay,
    lines::{CHUNK_BYTES, Lines, Nobody, unix_ms},
    stdin::line_bytes_max,
};
use crate::{
    ack::Ack,
    diagnostic::Fault,
    message::Batch,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Input> = Spec {
    name: "file",
    summary: "Reads messages from files, one a line, and ends after the last one.",
    example: "{ path: samples/readings.jsonl }",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `file`.
///
/// Each line is a message; empty lines are skipped.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file, or the files, read one after the other. A relative path starts at the folder of the pipeline file.
    path: Paths,
    /// Longest line, in bytes. At a longer one the input stops with an error that names file and line.
    #[serde(default = "line_bytes_max")]
    #[schemars(range(min = 1))]
    line_bytes_max: usize,
}

/// One file or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Paths {
    /// One file.
    One(PathBuf),
    /// Several, in the order they are read.
    Many(Vec<PathBuf>),
}

struct File {
    paths: Vec<PathBuf>,
    line_bytes_max: usize,
    /// Index of the file being read.
    current: usize,
    open: Option<(Handle, Lines)>,
    /// True once the end of the open file was met.
    ended: bool,
    sent: u64,
}

fn build(section: &Section) -> Result<Box<dyn Input>, Vec<Fault>> {
    let config: Config = decode(section)?;
    let paths = match config.path {
        Paths::One(path) => vec![path],
        Paths::Many(paths) => paths,
    };
    if paths.is_empty() {
        return Err(vec![Fault::new("no-path", "path", "`file` without a path").label("expected at least one")]);
    }
    let paths = paths.iter().map(|path| section.folder.join(path)).collect();
    let line_bytes_max = config.line_bytes_max;
    Ok(Box::new(File { paths, line_bytes_max, current: 0, open: None, ended: false, sent: 0 }))
}

#[async_trait]
impl Input for File {
    fn replay(&self) -> Replay {
        Replay::Unacknowledged
    }

    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        self.open().await
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        loop {
            self.open().await?;
            let Some((handle, lines)) = &mut self.open else { return Ok(None) };
            let path = &self.paths[self.current];
            let failed =
                |what: &dyn std::fmt::Display| InputError::message(format!("cannot read `{}`: {what}", path.display()));
            let source = lines.take("file", unix_ms(), self.ended).map_err(|error| failed(&error))?;
            if let Some(source) = source {
                self.sent += 1;
                return Ok(Some((Batch::new(source), Ack::new(Arc::new(Nobody), self.sent))));
            }
            if self.ended {
                self.open = None;
                self.ended = false;
                self.current += 1;
                continue;
            }
            lines.buffer().reserve(CHUNK_BYTES);
            // Dropped here, nothing is lost: a read that has begun goes on inside the handle.
            self.ended = handle.read_buf(lines.buffer()).await.map_err(|error| failed(&error))? == 0;
        }
    }

    async fn close(&mut self, _: Duration) {
        self.open = None;
    }
}

impl File {
    /// Opens the current file, unless it is open or the last one was read.
    async fn open(&mut self) -> Result<(), InputError> {
        if let (None, Some(path)) = (&self.open, self.paths.get(self.current)) {
            let handle = Handle::open(path)
                .await
                .map_err(|error| InputError::new(format!("cannot open `{}`", path.display()), error))?;
            self.open = Some((handle, Lines::new(self.line_bytes_max)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::tests::{context, read_all};

    fn input(folder: &std::path::Path, yaml: &str) -> Box<dyn Input> {
        let mut section = Section::from_yaml(yaml);
        section.folder = folder.to_owned();
        (SPEC.build)(&section).unwrap()
    }

    #[tokio::test]
    async fn files_are_read_one_after_the_other_and_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "one\n\ntwo").unwrap();
        std::fs::write(folder.path().join("b"), "x\n".repeat(300_000)).unwrap();
        let mut input = input(folder.path(), "{ path: [a, b] }");
        input.connect(&context()).await.unwrap();
        let seen = read_all(&mut *input).await.unwrap();
        assert_eq!(seen.len(), 300_002);
        assert_eq!(seen[..3], [(1, "one".to_owned()), (3, "two".to_owned()), (1, "x".to_owned())]);
        assert_eq!(seen.last().unwrap().0, 300_000);
    }

    #[tokio::test]
    async fn errors_name_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "one\nseventeen").unwrap();
        let mut long = input(folder.path(), "{ path: a, line_bytes_max: 5 }");
        long.connect(&context()).await.unwrap();
        assert_eq!(long.read().await.unwrap().unwrap().0.len(), 1);
        let error = long.read().await.unwrap_err().to_string();
        assert!(error.ends_with("/a`: line 2 is longer than `line_bytes_max` (5 bytes)"), "{error}");
        let mut missing = input(folder.path(), "{ path: no }");
        let error = missing.connect(&context()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot open `") && error.contains("/no`: No such file"), "{error}");
    }
}
