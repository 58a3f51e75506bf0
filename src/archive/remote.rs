//! A place for finished files that is no folder: an object store.
//!
//! An object appears under its name only when all of it is there, so nothing needs to be renamed. Sending a file again
//! replaces it by the same one.
use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    io::{self, Read as _},
    ops::Range,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, future::try_join_all};
use object_store::{
    BackoffConfig, ObjectMeta, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, RetryConfig, WriteMultipart,
    aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, path::Path as Key,
};
use tokio::runtime::Handle;
use url::Url;

/// An object store, and where in it an archive is.
#[derive(Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    /// As the user wrote it.
    url: String,
    /// Never to be shown.
    secrets: Vec<String>,
}

/// Larger files go up in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// Parts that are under way at once.
const PARTS: usize = 4;

/// How long a request that fails is tried again before it counts as failed.
const RETRY: RetryConfig = RetryConfig { max_retries: 10, retry_timeout: Duration::from_secs(180), backoff: BACKOFF };
const BACKOFF: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };

/// Settings of a store by their names.
type Options = BTreeMap<String, String>;

/// A finished file in a store.
#[derive(Clone)]
pub struct Object {
    remote: Arc<Remote>,
    key: Key,
    pub(super) size: u64,
    runtime: Handle,
}

impl Remote {
    /// A store that files go to, by its URL: `s3://bucket/folder`, `gs://bucket/folder` or `az://container/folder`.
    /// `options` are those of the store, by their names, for example `aws_endpoint`; what is not given is taken from the
    /// variables of that name, `AWS_ENDPOINT`. Connects to nothing.
    ///
    /// # Errors
    /// What is wrong with URL or options; without the values of options.
    pub fn to_write(url: &str, options: &Options) -> Result<Self, String> {
        // Whoever writes tries again for ever, and is to say soon that it does.
        Self::open(url, options, RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(60), ..RETRY })
    }

    /// A store that files are read from; otherwise the same.
    ///
    /// # Errors
    /// What is wrong with URL or options; without the values of options.
    pub fn to_read(url: &str, options: &Options) -> Result<Self, String> {
        Self::open(url, options, RETRY)
    }

    fn open(url: &str, options: &Options, retry: RetryConfig) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("`{url}` is no URL: {error}"))?;
        if parsed.password().is_some() {
            return Err("a password does not belong in the URL of a store, which is shown; use options".to_owned());
        }
        let failed = |reason: &str| format!("`{url}` cannot be used: {reason}");
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|error| failed(&error.to_string()))?;
        let options: Options = options.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
        let variables = |start: &str| -> Options {
            let all = std::env::vars().map(|(name, value)| (name.to_lowercase(), value));
            all.filter(|(name, _)| name.starts_with(start) && !options.contains_key(name)).collect()
        };
        let mut secrets = Vec::new();
        // The same for each kind of store, whose builders have no trait in common.
        macro_rules! build {
            ($builder:ty, $variables:expr) => {{
                let mut builder = <$builder>::new().with_url(url).with_retry(retry);
                let variables = $variables;
                secrets.extend(secrets_of(&variables).chain(secrets_of(&options)).cloned());
                for (name, value) in &variables {
                    if let Ok(key) = name.parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                for (name, value) in &options {
                    let key =
                        name.parse().map_err(|_| failed(&hide(&secrets, format!("it has no option `{name}`"))))?;
                    builder = builder.with_config(key, value);
                }
                Arc::new(builder.build().map_err(|error| failed(&hide(&secrets, error.to_string())))?)
            }};
        }
        let store: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder, variables("aws_")),
            ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder, variables("google_")),
            ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder, variables("azure_")),
            _ => return Err(failed("write `s3://bucket/folder`, `gs://bucket/folder` or `az://container/folder`")),
        };
        Ok(Self { store, prefix, url: url.trim_end_matches('/').to_owned(), secrets })
    }

    /// As the user wrote it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its finished files. Blocks, and needs the runtime of the caller.
    ///
    /// # Errors
    /// It cannot be reached, refuses, or has nothing there.
    pub(super) fn list(&self) -> io::Result<Vec<Object>> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let failed = |error: object_store::Error| io::Error::other(hide(&self.secrets, cause(&error)));
        let found: Vec<ObjectMeta> = runtime.block_on(async {
            if is_parquet(&self.prefix) {
                return self.store.head(&self.prefix).await.map(|one| vec![one]).map_err(failed);
            }
            self.store.list(Some(&self.prefix)).try_collect().await.map_err(failed)
        })?;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "nothing lies there"));
        }
        let remote = Arc::new(self.clone());
        let is_shown = |key: &Key| !key.parts().any(|part| part.as_ref().starts_with('.'));
        let found = found.into_iter().filter(|meta| is_parquet(&meta.location) && is_shown(&meta.location));
        let object = |meta: ObjectMeta| Object {
            remote: remote.clone(),
            key: meta.location,
            size: meta.size,
            runtime: runtime.clone(),
        };
        Ok(found.map(object).collect())
    }

    /// Copies a file to `name`, below the archive's folder. Blocks.
    ///
    /// # Errors
    /// The store does not take it; nothing is there under that name, or what was there before.
    pub(super) fn put(&self, runtime: &Handle, file: &Path, name: &str) -> std::io::Result<()> {
        let to = name.split('/').fold(self.prefix.clone(), |key, part| key.join(part));
        let mut file = std::fs::File::open(file)?;
        let whole = file.metadata()?.len();
        let failed = |error: object_store::Error| {
            let cause = hide(&self.secrets, cause(&error));
            std::io::Error::other(format!("cannot write `{name}` to `{}`: {cause}", self.url))
        };
        let mut next = || {
            let mut part = Vec::with_capacity(PART_BYTES.min(whole as usize + 1));
            file.by_ref().take(PART_BYTES as u64).read_to_end(&mut part).map(|_| Bytes::from(part))
        };
        runtime.block_on(async {
            if whole <= PART_BYTES as u64 {
                return self.store.put(&to, next()?.into()).await.map(drop).map_err(failed);
            }
            let upload = self.store.put_multipart(&to).await.map_err(failed)?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            loop {
                let part = next();
                let ready = parts.wait_for_capacity(PARTS).await;
                match (part, ready) {
                    (Ok(part), Ok(())) if part.is_empty() => break,
                    (Ok(part), Ok(())) => parts.put(part),
                    (part, ready) => {
                        // So that the store keeps no parts of what never comes; if that fails, it cleans up by itself.
                        let _ = parts.abort().await;
                        part?;
                        return ready.map_err(failed);
                    }
                }
            }
            parts.finish().await.map(drop).map_err(failed)
        })
    }
}

impl Object {
    /// As a URL below that of its store.
    pub(super) fn url(&self) -> String {
        let below = self.key.prefix_match(&self.remote.prefix).into_iter().flatten();
        below.fold(self.remote.url.clone(), |url, part| format!("{url}/{}", part.as_ref()))
    }

    /// Some of its bytes. Blocks.
    ///
    /// # Errors
    /// The store does not give them.
    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let failed = |error: object_store::Error| io::Error::other(hide(&self.remote.secrets, cause(&error)));
        let step = PART_BYTES as u64;
        let starts = (range.start..range.end).step_by(PART_BYTES);
        let part = |start: u64| self.remote.store.get_range(&self.key, start..(start + step).min(range.end));
        let mut parts = self.runtime.block_on(try_join_all(starts.map(part))).map_err(failed)?;
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Ok(parts.concat().into()),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({})", self.url())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

fn is_parquet(key: &Key) -> bool {
    key.as_ref().ends_with(".parquet")
}

fn secrets_of(options: &Options) -> impl Iterator<Item = &String> {
    options.iter().filter(|(name, value)| is_secret(name) && !value.is_empty()).map(|(_, value)| value)
}

/// The id of a key is no secret, and so short that it may be part of any word.
fn is_secret(option: &str) -> bool {
    let is = |word: &str| option.contains(word);
    let is_key = is("key") && !is("key_id") && !option.ends_with("_file");
    is_key || (is("secret") || is("token") || is("password")) && !option.ends_with("_file")
}

/// What is at the bottom of an error: the same as long as the trouble is, without times and numbers of tries.
fn cause(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let text = deepest.to_string();
    // A store's answer is XML with the number of the request in it; Azure's message has that in further lines.
    let tag = |name: &str| Some(text.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>"))?.0);
    let text = text.strip_prefix("Server returned non-2xx status code: ").unwrap_or(&text);
    match (text.split_once('<'), tag("Code"), tag("Message")) {
        (Some((status, _)), Some(code), Some(message)) => {
            format!("{status}{code}: {}", message.lines().next().unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

fn hide(secrets: &[String], text: String) -> String {
    secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_store_is_told_by_its_url_and_shows_no_secrets() {
        let good =
            options(&[("aws_region", "x"), ("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"), ("aws_access_key_id", "ID")]);
        let remote = Remote::to_write("s3://bucket/a/b/", &good).unwrap();
        assert_eq!((remote.prefix.as_ref(), format!("{remote:?}").as_str()), ("a/b", "Remote(s3://bucket/a/b)"));
        for (url, reason) in [
            ("no url", "`no url` is no URL: "),
            ("nowhere://x", "`nowhere://x` cannot be used: "),
            ("file:///tmp", "`file:///tmp` cannot be used: write `s3://bucket/folder`, `gs://bucket/folder` or `az"),
            ("s3://me:hunter2@bucket/a", "a password does not belong in the URL of a store"),
        ] {
            let said = Remote::to_write(url, &good).unwrap_err();
            assert!(said.starts_with(reason) && !said.contains("hunter2"), "{said}");
        }
        let said = Remote::to_read("s3://b", &options(&[("aws_secret_access_key", "hunter2"), ("aws_regoin", "x")]));
        assert_eq!(said.unwrap_err(), "`s3://b` cannot be used: it has no option `aws_regoin`");
        let said = Remote::to_read("s3://b", &options(&[("aws_secret_access_key", "hunter2"), ("hunter2", "x")]));
        assert!(!said.unwrap_err().contains("hunter2"));
        assert_eq!(hide(&["hunter2".to_owned()], "a hunter2 b".to_owned()), "a *** b");
    }

    #[test]
    fn each_kind_of_store_has_its_urls_and_options() {
        // A key that belongs to nobody, as emulators have it.
        let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let azure = [("azure_storage_account_name", "me"), ("azure_storage_account_key", key)];
        let google = [("google_skip_signature", "true")];
        for (url, good, prefix, kind) in [
            ("az://container/a/b", &azure[..], "a/b", "MicrosoftAzure"),
            ("abfss://container@me.dfs.core.windows.net/a", &azure, "a", "MicrosoftAzure"),
            ("https://me.blob.core.windows.net/container/a", &azure, "a", "MicrosoftAzure"),
            ("gs://bucket/a/b", &google, "a/b", "GoogleCloudStorage"),
            ("https://s3.eu-central-1.amazonaws.com/bucket/a", &[], "a", "AmazonS3"),
        ] {
            let remote = Remote::to_read(url, &options(good)).unwrap();
            assert_eq!(remote.prefix.as_ref(), prefix);
            assert!(remote.store.to_string().starts_with(kind), "{}", remote.store);
            assert_eq!(remote.secrets.iter().any(|secret| secret == key), kind == "MicrosoftAzure");
            let said = Remote::to_read(url, &options(&[("no_such", "x")])).unwrap_err();
            assert_eq!(said, format!("`{url}` cannot be used: it has no option `no_such`"));
        }
        let said = Remote::to_read("gs://b", &options(&[("google_service_account", "/no/such/file")])).unwrap_err();
        assert!(said.starts_with("`gs://b` cannot be used: ") && said.contains("/no/such/file"), "{said}");
        let said = Remote::to_read("az://c/a", &options(&[("azure_storage_account_key", key)])).unwrap_err();
        assert!(said.starts_with("`az://c/a` cannot be used: ") && !said.contains(key), "{said}");
    }

    #[test]
    fn the_cause_of_an_error_is_the_same_at_every_try() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>It is not there\nRequestId:1</Message></Error>";
        let error = io::Error::other(format!("Server returned non-2xx status code: 404 Not Found: {xml}"));
        assert_eq!(cause(&error), "404 Not Found: NoSuchBucket: It is not there");
        assert_eq!(cause(&io::Error::other("plain <text")), "plain <text");
    }
}
