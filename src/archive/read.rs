//! Which files an archive has, in the order they are read.
use std::{
    cmp::Ordering,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{REMOTE, ReadError, Reader, SEGMENTS, convert, remote::Object, store};

/// A finished file of an archive.
#[derive(Clone, Debug)]
pub struct Part {
    /// Of an object, its URL.
    pub path: PathBuf,
    object: Option<Object>,
    /// The hour of its messages since 1970, if it lies in an hour's folder.
    pub hour: Option<i64>,
    /// The same wherever the archive lies: `date=2026-11-24/hour=09/0197….parquet`. No two files have the same, unless one
    /// is a copy of the other.
    pub name: String,
}

/// Segments that could not be finished because their pipeline runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Segments that were finished now.
    pub finished: usize,
    /// Segments of a running pipeline, or on their way to an object store, which are left to their pipeline.
    pub open: usize,
    pub open_bytes: u64,
}

/// Objects that are asked for at once.
const TOGETHER: usize = 16;
/// Folders inside each other, at most.
const DEPTH_MAX: usize = 16;

/// The finished files below a folder, or the one file: by hour, then by name, which rises with time.
///
/// # Errors
/// The folder cannot be read.
pub fn list(path: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    if fs::metadata(path)?.is_file() {
        parts.push(part(path.to_owned()));
        return Ok(parts);
    }
    let mut add = |file: PathBuf| parts.extend(is_parquet(&file).then(|| part(file).named_below(path)));
    walk(path, DEPTH_MAX, &mut add, &mut |_| Ok(()))?;
    parts.sort_by(Part::order);
    Ok(parts)
}

impl Part {
    pub(super) fn of_object(object: Object, store: &str) -> Self {
        let part = part(object.url().into());
        Self { object: Some(object), ..part }.named_below(store.as_ref())
    }

    /// One that lies in no hour's folder is named after its place in what was looked through: other tools give their files
    /// the same name in many folders.
    fn named_below(mut self, root: &Path) -> Self {
        let below = self.path.strip_prefix(root).unwrap_or(Path::new(""));
        if self.hour.is_none() && below.components().next().is_some() {
            self.name = below.to_string_lossy().into_owned();
        }
        self
    }

    /// By hour, then by name.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        (self.hour, &self.name, &self.path).cmp(&(other.hour, &other.name, &other.path))
    }

    /// Whether it lies in a store.
    pub fn is_object(&self) -> bool {
        self.object.is_some()
    }

    /// Opens it, for messages received in `time`.
    ///
    /// # Errors
    /// It is no file of an archive that this version knows.
    pub fn open(&self, time: &Range<i64>) -> Result<Reader, ReadError> {
        match &self.object {
            Some(object) => Reader::of_object(object, time),
            None => Reader::open(&self.path, time),
        }
    }
}

/// How many messages each of `parts` has to look through for `time`. Objects are asked for together.
pub fn rows(parts: &[Part], time: &Range<i64>) -> Vec<Result<u64, ReadError>> {
    let rows = |part: &Part| part.open(time).map(|reader| reader.rows());
    if parts.iter().all(|part| part.object.is_none()) {
        return parts.iter().map(rows).collect();
    }
    std::thread::scope(|scope| {
        let chunks = parts.chunks(parts.len().div_ceil(TOGETHER));
        let threads: Vec<_> =
            chunks.map(|chunk| scope.spawn(move || chunk.iter().map(rows).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("opening a file does not panic")).collect()
    })
}

impl Parts {
    /// Finishes the segments that crashes have left below a folder. Those of a running pipeline are left alone.
    ///
    /// # Errors
    /// The folder cannot be read, or a segment cannot be finished.
    pub fn finish(path: &Path) -> io::Result<Self> {
        let mut parts = Self::default();
        if !path.is_dir() {
            return Ok(parts);
        }
        walk(path, DEPTH_MAX, &mut |_| {}, &mut |folder| {
            let segments = folder.join(SEGMENTS);
            let lock = match folder.join(REMOTE).exists() {
                true => Err(io::ErrorKind::ResourceBusy.into()),
                false => store::lock(folder),
            };
            match lock {
                Ok(_lock) => {
                    for segment in store::leftovers(&segments)? {
                        store::finish(folder, &segment, &|part, name| convert::rename(folder, part, name))
                            .map_err(io::Error::other)?;
                        parts.finished += 1;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    for entry in fs::read_dir(&segments)? {
                        parts.open += 1;
                        parts.open_bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
                    }
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        Ok(parts)
    }
}

/// Shows each file, and each folder that holds segments.
fn walk(
    folder: &Path,
    depth: usize,
    file: &mut dyn FnMut(PathBuf),
    archive: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        // A file may be removed while we look: retention, or the pipeline that writes here.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        match (metadata.is_dir(), name.to_string_lossy().starts_with('.')) {
            (true, true) if name == SEGMENTS => archive(folder)?,
            (true, false) if depth > 0 => walk(&path, depth - 1, file, archive)?,
            (false, false) => file(path),
            _ => {}
        }
    }
    Ok(())
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet")
}

fn part(path: PathBuf) -> Part {
    let text = |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let file = text(Some(&path));
    let (hour, date) = (text(path.parent()), text(path.ancestors().nth(2)));
    let number = hour.strip_prefix("hour=").and_then(|hour| hour.parse::<i8>().ok());
    let day = date.strip_prefix("date=").and_then(|date| date.parse::<jiff::civil::Date>().ok());
    let start = day.zip(number).and_then(|(day, hour)| {
        let time = jiff::civil::Time::new(hour, 0, 0, 0).ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(day.to_datetime(time)).ok()
    });
    let hour_number = start.map(|start| start.as_second().div_euclid(3600));
    let name = if hour_number.is_some() { format!("{date}/{hour}/{file}") } else { file };
    Part { path, object: None, hour: hour_number, name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_hour_and_named_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "date=2026-11-24/hour=09/b.parquet",
            "date=2026-11-24/hour=09/a.parquet",
            "date=2026-11-23/hour=23/c.parquet",
        ];
        for name in names.iter().chain(&[
            "x.parquet",
            "other/x.parquet",
            ".segments/y.parquet",
            "date=2026-11-24/hour=09/note.txt",
        ]) {
            let path = folder.path().join("mqtt").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found: Vec<_> = list(folder.path()).unwrap().into_iter().map(|part| part.name).collect();
        assert_eq!(found, ["mqtt/other/x.parquet", "mqtt/x.parquet", names[2], names[1], names[0]]);
        let one = list(&folder.path().join("mqtt").join(names[0])).unwrap();
        assert_eq!((one[0].name.as_str(), one[0].hour), (names[0], Some(1_795_512_600 / 3600)));
        assert!(list(&folder.path().join("absent")).is_err());
    }
}
