//! A place for finished files that is no folder: an object store.
//!
//! An object appears under its name only when all of it is there, so nothing needs to be renamed. Sending a file again
//! replaces it by the same one.
use std::{collections::BTreeMap, error::Error, fmt, io::Read as _, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, RetryConfig, WriteMultipart,
    aws::AmazonS3Builder, path::Path as Key,
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

/// How often one request is tried before it counts as failed. Whoever writes tries again for ever, and is to say soon that
/// it does.
const RETRY: RetryConfig = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(60), backoff: BACKOFF };
const BACKOFF: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };

impl Remote {
    /// A store by its URL: `s3://bucket/folder`. `options` are those of the store, by their names, for example
    /// `aws_endpoint`; what is not given is taken from the variables of that name, `AWS_ENDPOINT`. Connects to nothing.
    ///
    /// # Errors
    /// What is wrong with URL or options; without the values of options.
    pub fn of(url: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("`{url}` is no URL: {error}"))?;
        let variables = std::env::vars().map(|(name, value)| (name.to_lowercase(), value));
        let variables: BTreeMap<_, _> = variables.filter(|(name, _)| name.starts_with("aws_")).collect();
        let options: BTreeMap<_, _> =
            options.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
        let all = variables.iter().chain(&options);
        let secrets: Vec<_> =
            all.filter(|(name, value)| is_secret(name) && !value.is_empty()).map(|(_, value)| value.clone()).collect();
        let failed = |reason: String| hide(&secrets, format!("`{url}` cannot be used: {reason}"));
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|error| failed(cause(&error)))?;
        // The same for each kind of store, whose builders have no trait in common.
        macro_rules! build {
            ($builder:ty) => {{
                let mut builder = <$builder>::new().with_url(url).with_retry(RETRY);
                for (name, value) in &variables {
                    if let (Ok(key), false) = (name.parse(), options.contains_key(name)) {
                        builder = builder.with_config(key, value);
                    }
                }
                for (name, value) in &options {
                    let key = name.parse().map_err(|_| failed(format!("it has no option `{name}`")))?;
                    builder = builder.with_config(key, value);
                }
                Arc::new(builder.build().map_err(|error| failed(cause(&error)))?)
            }};
        }
        let store: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder),
            _ => {
                return Err(failed(
                    "it is no URL of a store that is known here; write `s3://bucket/folder`".to_owned(),
                ));
            }
        };
        Ok(Self { store, prefix, url: url.to_owned(), secrets })
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

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

/// The id of a key is no secret, and so short that it may be part of any word.
fn is_secret(option: &str) -> bool {
    let is = |word: &str| option.contains(word);
    is("secret") || is("token") || is("password") || (is("key") && !is("key_id"))
}

/// What is at the bottom of an error: the same as long as the trouble is, without times and numbers of tries.
fn cause(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let text = deepest.to_string();
    // A store's answer is XML with the number of the request in it.
    let tag = |name: &str| Some(text.split_once(&format!("<{name}>"))?.1.split_once(&format!("</{name}>"))?.0);
    match (text.split_once('<'), tag("Code"), tag("Message")) {
        (Some((status, _)), Some(code), Some(message)) => format!("{}{code}: {message}", status),
        _ => text,
    }
}

fn hide(secrets: &[String], text: String) -> String {
    secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_told_by_its_url_and_shows_no_secrets() {
        let options = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let good =
            options(&[("aws_region", "x"), ("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"), ("aws_access_key_id", "ID")]);
        let remote = Remote::of("s3://bucket/a/b", &good).unwrap();
        assert_eq!((remote.prefix.as_ref(), format!("{remote:?}").as_str()), ("a/b", "Remote(s3://bucket/a/b)"));
        for (url, reason) in [("no url", "`no url` is no URL: "), ("nowhere://x", "`nowhere://x` cannot be used: ")] {
            let said = Remote::of(url, &good).unwrap_err();
            assert!(said.starts_with(reason) && !said.contains("hunter2"), "{said}");
        }
        let said = Remote::of("s3://b", &options(&[("aws_secret_access_key", "hunter2"), ("aws_regoin", "x")]));
        assert_eq!(said.unwrap_err(), "`s3://b` cannot be used: it has no option `aws_regoin`");
        let said = Remote::of("s3://b", &options(&[("aws_secret_access_key", "hunter2"), ("hunter2", "x")])).err();
        assert!(!said.unwrap_or_default().contains("hunter2"));
        assert_eq!(hide(&["hunter2".to_owned()], "a hunter2 b".to_owned()), "a *** b");
    }
}
