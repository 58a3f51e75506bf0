//! Tells when files change. Their folders are watched: editors put a new file in the place of the old one, and Kubernetes
//! swaps a link beside it.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Config, Event, PollWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::content::ENDINGS;

/// How long it must be quiet after a change: an editor writes more than once.
const CALM: Duration = Duration::from_millis(300);
/// How long it may stay restless before the files are read all the same, in times of quiet.
const CALMS: u32 = 5;
/// How often folders are looked at where the system tells nothing.
const POLL: Duration = Duration::from_secs(2);

/// Files that are watched.
pub(super) struct Watch {
    watcher: Option<Box<dyn Watcher + Send>>,
    changes: mpsc::Receiver<()>,
    /// A change was seen and is not answered yet, or may have come before the watching began.
    seen: bool,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches the folders that `files` are in. They were read before, so the first change is told at once.
    pub fn new(files: &BTreeSet<PathBuf>) -> Self {
        // One is enough: it says that something has changed, not what.
        let (sender, changes) = mpsc::channel(1);
        let tell = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| may_matter(path))) {
                // When it is full, the change is known already.
                let _ = sender.try_send(());
            }
        };
        let watcher: Option<Box<dyn Watcher + Send>> = match notify::recommended_watcher(tell.clone()) {
            Ok(watcher) => Some(Box::new(watcher)),
            Err(error) => {
                info!(%error, "the system does not tell of changes; looking at the files every 2 s");
                let polling =
                    PollWatcher::new(tell, Config::default().with_poll_interval(POLL).with_compare_contents(true));
                polling.map(|watcher| Box::new(watcher) as Box<dyn Watcher + Send>).ok()
            }
        };
        let mut watch = Self { watcher, changes, seen: false, folders: BTreeSet::new() };
        watch.follow(files);
        watch
    }

    /// Watches the folders of these files, and no others.
    pub fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        let folder = |file: &PathBuf| match file.parent() {
            _ if file.is_dir() => file.clone(),
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => Path::new(".").to_owned(),
        };
        let wanted: BTreeSet<PathBuf> = files.iter().map(folder).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.folders.difference(&wanted) {
            // It may be gone for good.
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.folders) {
            // Nobody saw what has changed here since it was read.
            self.seen = true;
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                warn!(%error, folder = %new.display(), "changes in this folder are not seen; SIGHUP reads all files anew");
            }
        }
        self.folders = wanted;
    }

    /// Waits for a change, and until it is quiet again, or has been restless for [`CALMS`] times as long.
    ///
    /// # Cancel safety
    /// A change that was seen and not yet answered is answered by the next call: a pipeline that ends, such as one that
    /// an edit has just replaced, must not swallow the next edit.
    pub async fn changed(&mut self) {
        if !self.seen && self.changes.recv().await.is_none() {
            // Nothing is watched.
            std::future::pending::<()>().await;
        }
        self.seen = true;
        let quiet = async {
            while tokio::time::timeout(CALM, self.changes.recv()).await.is_ok_and(|change| change.is_some()) {}
        };
        // Who changes files without an end is not waited for.
        let _ = tokio::time::timeout(CALM * CALMS, quiet).await;
        self.seen = false;
    }
}

/// Whether a path may have to do with configuration. An output file may lie in the same folder; it changes all the time.
fn may_matter(path: &Path) -> bool {
    // Links that Kubernetes swaps are called `..data`: they have no ending that counts.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("..")
        || path.extension().is_none_or(|ending| ["yaml", "yml"].iter().chain(ENDINGS).any(|known| ending == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_have_changed_before_the_watching_began_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = BTreeSet::from([folder.path().join("a.yaml")]);
        let mut watch = Watch::new(&files);
        tokio::time::timeout(CALM * 3, watch.changed()).await.expect("it is told");
        watch.follow(&files);
        let again = tokio::time::timeout(CALM * 3, watch.changed()).await;
        assert!(again.is_err(), "nothing is new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_outlives_a_call_that_is_dropped() {
        let (sender, changes) = mpsc::channel(1);
        let mut watch = Watch { watcher: None, changes, seen: false, folders: BTreeSet::new() };
        sender.send(()).await.unwrap();
        let dropped = tokio::time::timeout(CALM / 2, watch.changed()).await;
        assert!(dropped.is_err(), "it waits for quiet");
        assert!(watch.changes.is_empty(), "the change was taken");
        tokio::time::timeout(CALM * 3, watch.changed()).await.expect("it is told again");
        let again = tokio::time::timeout(CALM * 100, watch.changed()).await;
        assert!(again.is_err(), "it is told once");
    }
}
