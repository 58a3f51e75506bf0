//! Writes messages to Parquet files in a folder: the archive of a pipeline.
//!
//! Guarantee: at least once. A message is confirmed once it is synced in a segment; segments become Parquet on a thread of
//! their own. A crash loses nothing that was confirmed and leaves no broken file. What waits while one write is synced
//! goes out with the next, so a slow disk makes writes larger and not more of them.
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{Delivery, Output, OutputContext, OutputError, Parcel, WriteError, WriteLimits};
use crate::{
    archive::{Keep, Remote, Settings, Store, frames},
    client::Secret,
    diagnostic::Fault,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Output> = Spec {
    name: "parquet",
    summary: "Writes messages with all their metadata to Parquet files, sorted by time, in a folder for each hour.",
    example: "{ path: archive/readings }",
    scripts: &[],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `parquet`.
///
/// Made for `archive:`, where it keeps every message as it came. Files lie in `date=YYYY-MM-DD/hour=HH/` by the time a
/// message was received, in UTC. Columns: `topic`, `key`, `partition`, `offset`, `timestamp`, `received_at`, `headers`,
/// `qos`, `retain`, `pipeline`, `input`, `payload`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The folder. A relative path starts at the folder of the pipeline file; folders that are missing are made. No two
    /// pipelines may write to one folder.
    path: PathBuf,
    /// An object store that finished files go to, instead of staying in the folder: `s3://bucket/folder` for any store that
    /// speaks S3, `gs://bucket/folder` for Google Cloud Storage, `az://container/folder` for Azure. What is not there yet
    /// waits in the folder, also while the store is down.
    #[serde(default)]
    url: Option<String>,
    /// Settings of the object store, for example `aws_endpoint`, `aws_region`, `aws_access_key_id`, `aws_secret_access_key`,
    /// `aws_allow_http`, `google_service_account`, `azure_storage_account_name`. What is not given is taken from the
    /// variables of that name (`AWS_ENDPOINT`).
    #[serde(default)]
    options: BTreeMap<String, Secret>,
    /// A segment of so many bytes becomes Parquet, files therefore hold about as many bytes of messages.
    #[serde(default = "roll_bytes")]
    #[schemars(range(min = 1_048_576, max = 1_073_741_824))]
    roll_bytes: u64,
    /// A segment so old becomes Parquet, in seconds: the longest time until other tools see a message.
    #[serde(default = "roll_s")]
    #[schemars(range(min = 1, max = 86_400))]
    roll_s: u64,
    /// Files of hours that ended more than so many days ago are removed. All are kept when it is left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = 36_500))]
    keep_days: Option<u64>,
    /// The oldest files are removed while all together have more bytes. All are kept when it is left out.
    #[serde(default)]
    #[schemars(range(min = 1_048_576))]
    keep_bytes: Option<u64>,
}

fn roll_bytes() -> u64 {
    64 << 20
}

fn roll_s() -> u64 {
    600
}

struct Parquet {
    settings: Settings,
    store: Option<Arc<Store>>,
}

fn build(section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    let config: Config = decode(section)?;
    if config.path.as_os_str().is_empty() {
        return Err(vec![Fault::new("no-path", "path", "`parquet` without a path").label("empty")]);
    }
    let mut faults = Vec::new();
    let remote = config.url.and_then(|url| {
        let options = config.options.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        let fault = |reason: String| faults.push(Fault::new("invalid-url", "url", reason));
        Remote::to_write(&url, &options).map_err(fault).ok()
    });
    for (field, is_set) in [("keep_days", config.keep_days.is_some()), ("keep_bytes", config.keep_bytes.is_some())] {
        if is_set && remote.is_some() {
            faults.push(
                Fault::new("conflicting-fields", field, format!("`{field}` does not go together with `url`"))
                    .label("files in an object store are not removed from here")
                    .help("give the bucket a rule for the life of its objects instead"),
            );
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let age = config.keep_days.map(|days| Duration::from_secs(days.saturating_mul(86_400)));
    let settings = Settings {
        folder: section.folder.join(config.path),
        pipeline: section.pipeline.to_string(),
        roll_bytes: config.roll_bytes,
        roll_after: Duration::from_secs(config.roll_s),
        keep: Keep { age, bytes: config.keep_bytes },
        remote,
    };
    Ok(Box::new(Parquet { settings, store: None }))
}

#[async_trait]
impl Output for Parquet {
    fn limits(&self) -> WriteLimits {
        WriteLimits { in_flight_max: 1, ..WriteLimits::IMMEDIATE }
    }

    fn archive(&mut self, _: &str) -> Option<Vec<Fault>> {
        Some(Vec::new())
    }

    async fn connect(&mut self, context: &OutputContext) -> Result<(), OutputError> {
        if self.store.is_none() {
            let settings = self.settings.clone();
            let metrics = context.metrics.files(&context.health);
            let opened = spawn_blocking(move || Store::open(settings, metrics))
                .await
                .expect("opening an archive does not panic");
            let folder = self.settings.folder.display();
            let store = opened.map_err(|error| OutputError(format!("cannot archive to `{folder}`: {error}")))?;
            self.store = Some(Arc::new(store));
        }
        Ok(())
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        let folder = self.settings.folder.clone();
        let Some(store) = self.store.clone() else {
            let error = WriteError::retry(format!("the archive `{}` is not open", folder.display()));
            return std::future::ready(Err(error)).boxed();
        };
        // Topics and keys come on top; growing once is cheap.
        let frames = frames(parcel.iter(), parcel.bytes() + parcel.len() * 128);
        let appended = spawn_blocking(move || store.append(&frames));
        async move {
            let appended = appended.await.expect("appending to an archive does not panic");
            appended.map_err(|error| WriteError::retry(format!("cannot archive to `{}`: {error}", folder.display())))
        }
        .boxed()
    }

    async fn close(&mut self, deadline: Duration) {
        // An append that is still open holds it too; then the next run finishes the segments.
        if let Some(store) = self.store.take().and_then(Arc::into_inner) {
            let closed = spawn_blocking(move || store.close(deadline)).await;
            closed.expect("closing an archive does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::{context, parcel};

    fn output(folder: &std::path::Path, yaml: &str) -> Box<dyn Output> {
        let mut section = Section::from_yaml(yaml);
        section.folder = folder.to_owned();
        (SPEC.build)(&section).unwrap()
    }

    #[tokio::test]
    async fn a_confirmed_message_is_in_a_segment_and_after_the_close_in_parquet() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = output(folder.path(), "{ path: a/b }");
        output.connect(&context()).await.unwrap();
        output.write(&parcel(&["one", "two"])).await.await.unwrap();
        let segment = std::fs::read_dir(folder.path().join("a/b/.segments")).unwrap().next().unwrap().unwrap();
        let bytes = std::fs::read(segment.path()).unwrap();
        assert!(bytes.windows(3).any(|window| window == b"two"));
        output.close(Duration::from_secs(60)).await;
        assert_eq!(crate::archive::list(folder.path()).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_or_is_taken_is_a_retry_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        let error = output(folder.path(), "{ path: plain/x }").connect(&context()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot archive to `") && error.contains("plain/x`"), "{error}");
        let mut first = output(folder.path(), "{ path: a }");
        first.connect(&context()).await.unwrap();
        let mut second = output(folder.path(), "{ path: a }");
        let error = second.connect(&context()).await.unwrap_err().to_string();
        assert!(error.ends_with("give each a folder of its own"), "{error}");
        let retry = second.write(&parcel(&["a"])).await.await.unwrap_err().retry.unwrap();
        assert!(retry.reason.ends_with("is not open"), "{}", retry.reason);
    }
}
