//! The one writer of an archive: appends to a segment, and finishes full, old and left-over segments on a thread of its
//! own, so that making Parquet never holds up a message.
use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{
    REMOTE, Remote, SEGMENTS, convert, list,
    segment::{self, ENDING, Segment},
};
use crate::metrics::FileMetrics;

/// Where an archive is and when its files are finished and removed.
#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: PathBuf,
    /// Written to each file.
    pub pipeline: String,
    /// A segment of so many bytes is finished.
    pub roll_bytes: u64,
    /// A segment so old is finished.
    pub roll_after: Duration,
    pub keep: Keep,
    /// Where finished files go; without it, they stay in the folder.
    pub remote: Option<Remote>,
}

/// Which finished files stay; all of them when nothing is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Files of hours that ended longer ago are removed.
    pub age: Option<Duration>,
    /// The oldest files are removed until no more bytes are left.
    pub bytes: Option<u64>,
}

/// An archive that is open for writing.
pub struct Store {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    settings: Settings,
    metrics: FileMetrics,
    state: Mutex<State>,
    /// The thread has something to do.
    wake: Condvar,
    /// For the remote store.
    runtime: Option<Handle>,
    /// Held as long as anybody writes here.
    _lock: File,
}

#[derive(Default)]
struct State {
    current: Option<(Segment, Instant)>,
    /// Segments that take no more, oldest first, and the bytes of each.
    sealed: VecDeque<(PathBuf, u64)>,
    closing: bool,
}

/// Pauses after a segment could not be finished.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often old files are looked for when no file is finished.
const CLEAN_EVERY: Duration = Duration::from_secs(600);

impl Store {
    /// Opens an archive for writing. Segments that an earlier run has left are finished meanwhile; `metrics` says how that
    /// goes, there and later.
    ///
    /// # Errors
    /// The folder cannot be made or read, or somebody else writes to it.
    pub fn open(settings: Settings, metrics: FileMetrics) -> io::Result<Self> {
        let segments = settings.folder.join(SEGMENTS);
        fs::create_dir_all(&segments)?;
        let lock = lock(&settings.folder)?;
        let marker = settings.folder.join(REMOTE);
        match &settings.remote {
            Some(_) => drop(File::create(marker)?),
            None if marker.exists() => fs::remove_file(marker)?,
            None => {}
        }
        let length = |path: PathBuf| fs::metadata(&path).map(|metadata| (path, metadata.len()));
        let sealed = leftovers(&segments)?.into_iter().map(length).collect::<io::Result<VecDeque<_>>>()?;
        metrics.waiting_bytes.set(sealed.iter().map(|&(_, length)| length as i64).sum());
        if !sealed.is_empty() {
            info!(folder = %settings.folder.display(), segments = sealed.len(), "finishing what an earlier run has archived");
        }
        let state = Mutex::new(State { sealed, ..State::default() });
        let shared = Arc::new(Shared {
            settings,
            metrics,
            state,
            wake: Condvar::new(),
            runtime: Handle::try_current().ok(),
            _lock: lock,
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || own.work())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Appends messages, made by [`super::frames`], and syncs them. Blocks until they are safe.
    ///
    /// # Errors
    /// They may be archived or not; appending them again is safe and may keep them twice.
    pub fn append(&self, frames: &[u8]) -> io::Result<()> {
        let Shared { settings, metrics, state, wake, .. } = &*self.shared;
        let mut state = state.lock();
        let (mut segment, since) = match state.current.take() {
            Some(current) => current,
            None => {
                let segments = settings.folder.join(SEGMENTS);
                let path = segments.join(format!("{}.{ENDING}", Uuid::now_v7()));
                let made = Segment::create(path.clone(), &settings.pipeline);
                let synced = made.and_then(|segment| File::open(segments)?.sync_all().map(|()| segment));
                match synced {
                    Ok(segment) => {
                        metrics.waiting_bytes.inc_by(segment.length as i64);
                        (segment, Instant::now())
                    }
                    Err(error) => {
                        // Nothing was confirmed in it.
                        let _ = fs::remove_file(&path);
                        return Err(error);
                    }
                }
            }
        };
        let before = segment.length;
        let appended = segment.append(frames);
        metrics.waiting_bytes.inc_by((segment.length - before) as i64);
        if appended.is_err() || segment.length >= settings.roll_bytes {
            state.sealed.push_back((segment.path, segment.length));
            wake.notify_one();
        } else {
            let is_first = since.elapsed() < PAUSE_MIN;
            state.current = Some((segment, since));
            if is_first {
                // The thread sleeps until it is old.
                wake.notify_one();
            }
        }
        appended
    }

    /// Finishes all segments, as far as that takes no longer than `deadline`; what is left is finished by the next run.
    pub fn close(mut self, deadline: Duration) {
        self.shared.close();
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + deadline;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// The thread: finishes segments, one after the other, until the archive is closed.
    fn work(&self) {
        let mut pause = None;
        let mut cleaned: Option<Instant> = None;
        loop {
            let mut state = self.state.lock();
            let age = state.current.as_ref().map(|(_, since)| since.elapsed());
            if age.is_some_and(|age| age >= self.settings.roll_after || state.closing)
                && let Some((segment, _)) = state.current.take()
            {
                state.sealed.push_back((segment.path, segment.length));
            }
            let Some((path, length)) = state.sealed.front().cloned() else {
                if state.closing {
                    return;
                }
                let is_due = cleaned.is_none_or(|at| at.elapsed() >= CLEAN_EVERY);
                if is_due {
                    drop(state);
                    self.clean();
                    cleaned = Some(Instant::now());
                    continue;
                }
                let left = age.map_or(CLEAN_EVERY, |age| self.settings.roll_after.saturating_sub(age));
                self.wake.wait_for(&mut state, left.min(CLEAN_EVERY));
                continue;
            };
            drop(state);
            match finish(&self.settings.folder, &path, &|part, name| self.place(part, name)) {
                Ok(()) => {
                    self.state.lock().sealed.pop_front();
                    self.metrics.waiting_bytes.dec_by(length as i64);
                    self.metrics.health.progress();
                    (pause, cleaned) = (None, None);
                }
                Err(reason) => {
                    self.metrics.health.fault(format!(
                        "cannot finish a segment of the archive: {reason}. Its messages are safe in `{}`, and it is tried again",
                        path.display()
                    ));
                    // It may be room that is missing.
                    self.clean();
                    let mut state = self.state.lock();
                    if state.closing {
                        warn!(folder = %self.settings.folder.display(), segments = state.sealed.len(), reason, "not all of the archive is finished; the next start does it");
                        return;
                    }
                    let wait = pause.map_or(PAUSE_MIN, |last: Duration| (last * 2).min(PAUSE_MAX));
                    pause = Some(wait);
                    self.wake.wait_for(&mut state, wait);
                }
            }
        }
    }

    /// Puts a finished file where it belongs.
    fn place(&self, part: &Path, name: &str) -> io::Result<()> {
        let Some(remote) = &self.settings.remote else { return convert::rename(&self.settings.folder, part, name) };
        let runtime = self.runtime.as_ref().ok_or_else(|| io::Error::other("the runtime is gone"))?;
        remote.put(runtime, part, name)?;
        fs::remove_file(part)
    }

    /// Removes finished files that are not to be kept.
    fn clean(&self) {
        let Keep { age, bytes } = self.settings.keep;
        if age.is_none() && bytes.is_none() {
            return;
        }
        let now = jiff::Timestamp::now().as_millisecond();
        let failed = clean(&self.settings.folder, now, age, bytes).err().map(|error| {
            let folder = self.settings.folder.display();
            warn!(%folder, %error, "cannot remove old files of the archive");
            format!("cannot remove old files of the archive from `{folder}`: {error}")
        });
        self.metrics.health.note(failed);
    }
}

/// Removes the files of hours that ended longer ago than `age`, at the time `now`, then the oldest until at most `bytes` are
/// left.
fn clean(folder: &Path, now: i64, age: Option<Duration>, bytes: Option<u64>) -> io::Result<()> {
    let before = age.map(|age| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
    let mut parts = Vec::new();
    for part in list(folder)? {
        parts.push((fs::metadata(&part.path)?.len(), part));
    }
    let mut total: u64 = parts.iter().map(|(len, _)| len).sum();
    // Oldest first, and only what lies in an hour's folder: whatever else is there is not ours to remove.
    for (len, part) in parts {
        let Some(hour) = part.hour else { continue };
        let is_old = before.is_some_and(|before| (hour + 1) * 3_600_000 <= before);
        if is_old || bytes.is_some_and(|most| total > most) {
            fs::remove_file(&part.path)?;
            total -= len;
            debug!(file = %part.path.display(), "removed from the archive");
            // Folders go with their last file; one that is not empty stays.
            let mut folders = part.path.ancestors().skip(1).take(2);
            while folders.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
        }
    }
    Ok(())
}

/// Takes the right to write to a folder.
pub(super) fn lock(folder: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(folder.join(".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another pipeline or process archives to this folder; give each a folder of its own",
        )),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Segments of an earlier run, oldest first; what a crash has left half made is removed.
pub(super) fn leftovers(segments: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(segments)? {
        let path = entry?.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some(ENDING) => found.push(path),
            Some("part") => fs::remove_file(path)?,
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

/// Makes Parquet of a segment and deletes it.
///
/// # Errors
/// Why it could not be; it is still there.
pub(super) fn finish(folder: &Path, path: &Path, place: &dyn Fn(&Path, &str) -> io::Result<()>) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let id = path.file_stem().unwrap_or_default().to_string_lossy();
    let done = catch_unwind(AssertUnwindSafe(|| {
        let Some(mut content) = segment::read(path).map_err(text)? else {
            let aside = path.with_extension("unreadable");
            error!(file = %aside.display(), "a segment of the archive is of another version of streamer, or damaged from its start; it is kept");
            return fs::rename(path, aside).map_err(text);
        };
        if content.torn > 0 {
            info!(segment = %path.display(), bytes = content.torn, "the end of a segment was cut off by a crash, before it was confirmed");
        }
        let files = convert::convert(folder, &id, &mut content, place).map_err(text)?;
        debug!(segment = %path.display(), messages = content.rows.len(), files, "finished");
        if content.is_damaged {
            let aside = path.with_extension("damaged");
            error!(file = %aside.display(), messages = content.rows.len(), "a segment of the archive is damaged in the middle; what stands before that is archived, the segment is kept");
            return fs::rename(path, aside).map_err(text);
        }
        fs::remove_file(path).map_err(text)
    }));
    done.unwrap_or_else(|_| Err("an internal error; please report it".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{super::segment::tests::batch, *};
    use crate::archive::{Reader, frames};

    fn settings(folder: &Path) -> Settings {
        Settings {
            folder: folder.to_owned(),
            pipeline: "p".to_owned(),
            roll_bytes: 1 << 20,
            roll_after: Duration::from_secs(3600),
            keep: Keep::default(),
            remote: None,
        }
    }

    fn open(settings: Settings) -> io::Result<Store> {
        Store::open(settings, FileMetrics::detached())
    }

    fn put(store: &Store, payloads: &[&[u8]]) {
        store.append(&frames(batch(payloads).iter(), 0)).unwrap();
    }

    /// Payloads of all finished files, in the order that a replay has.
    fn payloads(folder: &Path) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for part in list(folder).unwrap() {
            let mut reader = Reader::open(&part.path, &(i64::MIN..i64::MAX)).unwrap();
            while let Some(chunk) = reader.next_chunk().unwrap() {
                let mut source = crate::message::SourceBuilder::new("test");
                (0..chunk.len()).for_each(|i| chunk.push_to(i, 0, &mut source).unwrap());
                let source = source.finish();
                all.extend(source.origins().iter().map(|origin| source.original(origin).to_vec()));
            }
        }
        all
    }

    fn segments(folder: &Path) -> usize {
        leftovers(&folder.join(SEGMENTS)).unwrap().len()
    }

    const DAY: Duration = Duration::from_secs(86_400);
    /// 2026-11-24T08:00Z.
    const NOW: i64 = 1_795_507_200_000;
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_appended_becomes_parquet_at_the_close() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(Settings { roll_bytes: 1 << 30, ..settings(folder.path()) }).unwrap();
        let large = vec![7; 10_000_000];
        put(&store, &[b"one", b"", &large]);
        // Received in the same millisecond as the first: behind it, in the order they came.
        put(&store, &[b"four"]);
        store.close(LONG);
        let found = payloads(folder.path());
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [3, 4, 0, 10_000_000]);
        assert!(found[0] == b"one" && found[1] == b"four" && found[3] == large);
        assert_eq!(segments(folder.path()), 0);
    }

    #[test]
    fn a_segment_that_is_full_or_old_is_finished_while_others_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let wait = |count: usize| {
            let until = Instant::now() + LONG;
            while list(folder.path()).unwrap().len() < count {
                assert!(Instant::now() < until, "{count} files");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let store = open(settings(folder.path())).unwrap();
        put(&store, &[&vec![1; 2 << 20]]);
        wait(1);
        store.close(LONG);
        let old = Settings { roll_after: Duration::from_millis(20), ..settings(folder.path()) };
        let store = open(old).unwrap();
        put(&store, &[b"old"]);
        wait(2);
        put(&store, &[b"old again"]);
        wait(3);
    }

    #[test]
    fn a_second_writer_is_refused_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(settings(folder.path())).unwrap();
        let error = open(settings(folder.path())).err().unwrap().to_string();
        assert!(error.starts_with("another pipeline or process archives to this folder"), "{error}");
        first.close(LONG);
        open(settings(folder.path())).unwrap();
    }

    #[test]
    fn a_crash_at_any_step_of_finishing_leaves_every_message_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(settings(folder.path())).unwrap();
        let hours: Vec<&[u8]> = vec![b"a", b"b"];
        put(&store, &hours);
        // As kill -9 would leave it: the segment is there, and perhaps finished files and a part of one.
        let path = leftovers(&folder.path().join(SEGMENTS)).unwrap().remove(0);
        let bytes = fs::read(&path).unwrap();
        store.close(LONG);
        let done = payloads(folder.path());
        fs::write(&path, &bytes).unwrap();
        fs::write(path.with_extension("part"), b"PAR1 half").unwrap();
        open(settings(folder.path())).unwrap().close(LONG);
        assert_eq!(payloads(folder.path()), done);
        assert_eq!(fs::read_dir(folder.path().join(SEGMENTS)).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_segment_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let segments = folder.path().join(SEGMENTS);
        fs::create_dir(&segments).unwrap();
        fs::write(segments.join("x.segment"), "streamer segment 9\n and what it may hold").unwrap();
        fs::write(segments.join("y.segment"), "streamer seg").unwrap();
        open(settings(folder.path())).unwrap().close(LONG);
        let left: Vec<_> = fs::read_dir(segments).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["x.unreadable"]);
    }

    #[test]
    fn old_files_are_removed_by_age_and_by_bytes_and_others_never() {
        let folder = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; 100]).unwrap();
        };
        let files = ["date=2020-01-01/hour=05/a.parquet", "date=2020-01-01/hour=06/b.parquet", "mine/c.parquet"];
        files.iter().for_each(|path| make(path));
        let future = "date=2200-01-01/hour=00/d.parquet";
        make(future);
        let left = || list(folder.path()).unwrap().len();
        clean(folder.path(), NOW, None, Some(400)).unwrap();
        assert_eq!(left(), 4);
        clean(folder.path(), NOW, None, Some(399)).unwrap();
        assert!(!folder.path().join("date=2020-01-01/hour=05").exists());
        assert_eq!(left(), 3);
        clean(folder.path(), NOW, Some(DAY), None).unwrap();
        assert!(!folder.path().join("date=2020-01-01").exists());
        assert!(folder.path().join(future).exists() && folder.path().join("mine/c.parquet").exists());
    }

    #[test]
    fn a_clock_that_jumps_loses_nothing_and_mixes_no_hours() {
        const HOUR: i64 = 3_600_000;
        let folder = tempfile::tempdir().unwrap();
        let store = open(settings(folder.path())).unwrap();
        // Forward by an hour, back by two, before 1970, centuries ahead, and out of the calendar on both sides.
        let times = [NOW, NOW + HOUR, NOW - HOUR, NOW + 1, -1, NOW + 175_000 * 24 * HOUR, i64::MAX, i64::MAX - HOUR];
        let times: Vec<i64> = times.into_iter().chain([i64::MIN, i64::MIN + HOUR, NOW - HOUR]).collect();
        let mut source = crate::message::SourceBuilder::new("mqtt");
        for (n, &ms) in times.iter().enumerate() {
            let fill = |o: &mut crate::message::Origin, _: &mut _| {
                o.received_at_ms = ms;
                Ok(())
            };
            source.push(n.to_string().as_bytes(), fill).unwrap();
        }
        store.append(&frames(crate::message::Batch::new(source.finish()).iter(), 0)).unwrap();
        store.close(LONG);
        let (mut found, mut files) = (Vec::new(), 0);
        for part in list(folder.path()).unwrap() {
            let mut reader = part.open(&(i64::MIN..i64::MAX)).unwrap();
            while let Some(chunk) = reader.next_chunk().unwrap() {
                assert!(chunk.received_at_ms.is_sorted());
                let hours = chunk.received_at_ms.iter().map(|ms| ms.div_euclid(HOUR));
                let inside = part.hour.is_none_or(|hour| hours.clone().all(|found| found == hour));
                let at_the_end = chunk.received_at_ms.iter().all(|ms| ms.unsigned_abs() > 200_000_000_000_000);
                assert!(inside || at_the_end, "{part:?}: {:?}", chunk.received_at_ms);
                found.extend(chunk.received_at_ms);
            }
            files += 1;
        }
        // The two hours before and behind the calendar each share a file.
        assert_eq!(files, 7);
        let mut times = times;
        times.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, times);
        // Age is told by the folder's name: a clock that is behind removes nothing that it should not.
        clean(folder.path(), NOW - 10 * HOUR, Some(DAY), None).unwrap();
        assert!(folder.path().join("date=2026-11-24/hour=07").exists());
        clean(folder.path(), NOW + HOUR + DAY.as_millis() as i64, Some(DAY), None).unwrap();
        assert!(!folder.path().join("date=2026-11-24/hour=07").exists());
        assert!(folder.path().join("date=2026-11-24/hour=09").exists());
    }

    #[test]
    fn what_waits_is_counted_and_a_segment_that_cannot_be_finished_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = FileMetrics::detached();
        // Where the hour's folder should be lies a file.
        fs::write(folder.path().join("date=2023-11-14"), "in the way").unwrap();
        let wait = |what: &str, is_so: &dyn Fn() -> bool| {
            let until = Instant::now() + LONG;
            while !is_so() {
                assert!(Instant::now() < until, "{what}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let store = Store::open(Settings { roll_after: Duration::ZERO, ..settings(folder.path()) }, metrics.clone());
        let store = store.unwrap();
        put(&store, &[b"one"]);
        let waiting = metrics.waiting_bytes.get();
        assert!(waiting > 0);
        wait("a fault", &|| metrics.health.is_faulty());
        fs::remove_file(folder.path().join("date=2023-11-14")).unwrap();
        wait("it is finished", &|| metrics.waiting_bytes.get() == 0);
        wait("it works", &|| !metrics.health.is_faulty());
        store.close(LONG);
        assert_eq!(payloads(folder.path()), [b"one"]);
    }
}
