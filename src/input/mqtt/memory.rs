//! What is remembered of the session over a restart, in a small file: when we last had it, so that a broker that has
//! lost it while we were away does not go unnoticed, and what it had dropped by then.
//!
//! Nothing depends on it but what is said: when it cannot be written, the session works all the same.
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tracing::warn;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    url: String,
    client_id: String,
    /// When we last had the session, subscribed.
    pub seen_ms: i64,
    /// How long the broker keeps it from then on.
    pub expiry_s: u32,
    /// How many messages the broker had dropped since its start, if it says so.
    pub dropped: Option<i64>,
}

pub struct Memory {
    file: PathBuf,
    url: String,
    client_id: String,
    kept: Option<Kept>,
    writing: Option<JoinHandle<()>>,
    /// The last write failed.
    failing: Arc<AtomicBool>,
}

impl Memory {
    /// What is remembered of the session of `client_id` at `url`; another one's is of no use.
    pub async fn open(folder: &Path, url: &str, client_id: &str) -> Self {
        let file = folder.join("session.json");
        let kept = match tokio::fs::read(&file).await {
            Ok(text) => match serde_json::from_slice::<Kept>(&text) {
                Ok(kept) => Some(kept).filter(|kept| kept.url == url && kept.client_id == client_id),
                Err(error) => {
                    warn!(file = %file.display(), %error, "what is remembered of the session cannot be read; if the broker has lost it, that is not noticed");
                    None
                }
            },
            // It says why when it writes there.
            Err(_) => None,
        };
        let (url, client_id) = (url.to_owned(), client_id.to_owned());
        Self { file, url, client_id, kept, writing: None, failing: Arc::default() }
    }

    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The session is there and subscribed.
    pub fn seen(&mut self, expiry_s: u32, dropped: Option<i64>) {
        let (url, client_id) = (self.url.clone(), self.client_id.clone());
        let dropped = dropped.or(self.kept.as_ref().and_then(|kept| kept.dropped));
        self.kept = Some(Kept { url, client_id, seen_ms: now_ms(), expiry_s, dropped });
        // One write at a time; a disk that hangs gets no more of them.
        if self.writing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.write();
        }
    }

    fn write(&mut self) {
        let (file, kept, failing) = (self.file.clone(), self.kept.clone(), self.failing.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let result = write(&file, &kept);
            let failed = failing.swap(result.is_err(), Ordering::Relaxed);
            if let Err(error) = result.as_ref()
                && !failed
            {
                warn!(file = %file.display(), %error, "cannot remember the session; if the broker loses it while streamer is away, that is not noticed");
            }
        }));
    }

    /// Nothing is to be expected of the broker.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// Waits until what was last noted is written.
    pub async fn close(&mut self, deadline: Duration) {
        if let Some(writing) = self.writing.take() {
            // Too late, it is known less exactly when the session was last there.
            let _ = tokio::time::timeout(deadline, writing).await;
        }
    }
}

/// All of it or nothing, even after a power cut.
fn write(file: &Path, kept: &Option<Kept>) -> std::io::Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    let part = file.with_extension("part");
    std::fs::write(&part, serde_json::to_vec(kept)?)?;
    std::fs::File::open(&part)?.sync_all()?;
    std::fs::rename(part, file)
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A time for people.
pub fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_remembered_and_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new/one");
        let mut memory = Memory::open(&place, "mqtt://b:1", "me").await;
        assert_eq!(memory.kept(), None);
        memory.seen(60, Some(3));
        memory.close(Duration::from_secs(60)).await;
        // A broker that says nothing of dropped messages does not make them forgotten.
        memory.seen(60, None);
        memory.close(Duration::from_secs(60)).await;
        let again = Memory::open(&place, "mqtt://b:1", "me").await;
        assert_eq!(again.kept(), memory.kept());
        assert_eq!(again.kept().map(|kept| (kept.expiry_s, kept.dropped)), Some((60, Some(3))));
        assert_eq!(Memory::open(&place, "mqtt://b:1", "you").await.kept(), None);
        assert_eq!(Memory::open(&place, "mqtt://c:1", "me").await.kept(), None);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_or_written_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("session.json"), "{").unwrap();
        let mut memory = Memory::open(folder.path(), "mqtt://b:1", "me").await;
        assert_eq!(memory.kept(), None);
        memory.seen(60, None);
        memory.close(Duration::from_secs(60)).await;
        assert!(Memory::open(folder.path(), "mqtt://b:1", "me").await.kept().is_some());
        // A file is in the way of the folder.
        let mut memory = Memory::open(&folder.path().join("session.json/below"), "mqtt://b:1", "me").await;
        memory.seen(60, None);
        memory.close(Duration::from_secs(60)).await;
        assert!(memory.kept().is_some() && memory.failing.load(Ordering::Relaxed));
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!(time(1_700_000_000_999), "2023-11-14T22:13:20Z");
    }
}
