//! A place for finished files that is no folder: an object store.
//!
//! An object appears under its name only when all of it is there, so nothing needs to be renamed. Sending a file again
//! replaces it by the same one.
use std::{collections::BTreeMap, fmt, io::Read as _, path::Path, sync::Arc};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart, parse_url_opts, path::Path as Key};
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

impl Remote {
    /// A store by its URL: `s3://bucket/folder`. `options` are those of the store, by their names, for example
    /// `aws_endpoint`; what is not given is taken from the variables of that name, `AWS_ENDPOINT`. Connects to nothing.
    ///
    /// # Errors
    /// What is wrong with URL or options; without the values of options.
    pub fn of(url: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("`{url}` is no URL: {error}"))?;
        let mut all: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, _)| name.starts_with("AWS_"))
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect();
        all.extend(options.iter().map(|(name, value)| (name.to_lowercase(), value.clone())));
        // The id of a key is no secret, and so short that it may be part of any word.
        let is_secret = |name: &str| {
            let is = |word: &str| name.contains(word);
            is("secret") || is("token") || is("password") || (is("key") && !is("key_id"))
        };
        let secrets = all.iter().filter(|(name, value)| is_secret(name) && !value.is_empty());
        let secrets: Vec<_> = secrets.map(|(_, value)| value.clone()).collect();
        let (store, prefix) =
            parse_url_opts(&parsed, all).map_err(|error| hide(&secrets, format!("`{url}` cannot be used: {error}")))?;
        Ok(Self { store: store.into(), prefix, url: url.to_owned(), secrets })
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
            std::io::Error::other(hide(&self.secrets, format!("cannot write `{to}` to `{}`: {error}", self.url)))
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
        let said = Remote::of("s3://b", &options(&[("aws_secret_access_key", "hunter2"), ("hunter2", "x")])).err();
        assert!(!said.unwrap_or_default().contains("hunter2"));
        assert_eq!(hide(&["hunter2".to_owned()], "a hunter2 b".to_owned()), "a *** b");
    }
}
