//! Where an archive is read from: a folder, or an object store.
use std::{collections::BTreeMap, fmt, fs::File, io, ops::Range, path::PathBuf, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use super::{Part, Remote, list, remote::Object};

/// The folder or the store that holds an archive, or a part of it.
#[derive(Clone, Debug)]
pub enum Place {
    /// A folder, or one file.
    Folder(PathBuf),
    /// A store, or one of its objects.
    Store(Remote),
}

impl Place {
    /// What a user has written: a path, or the URL of a store. `options` are the store's.
    ///
    /// # Errors
    /// What is wrong with the URL or the options.
    pub fn of(text: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        match text.contains("://") {
            true => Self::of_url(text, options),
            false if options.is_empty() => Ok(Self::Folder(text.into())),
            false => Err(format!("`{text}` is a path and has no options; those of a store go with its URL")),
        }
    }

    /// A store.
    ///
    /// # Errors
    /// What is wrong with the URL or the options.
    pub fn of_url(url: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        Remote::to_read(url, options).map(Self::Store)
    }

    /// The finished files, by hour, then by name, which rises with time. Blocks; a store needs the runtime of the caller.
    ///
    /// # Errors
    /// The folder or store cannot be read.
    pub fn list(&self) -> io::Result<Vec<Part>> {
        match self {
            Self::Folder(path) => list(path),
            Self::Store(remote) => {
                let mut parts: Vec<_> = {
                    let objects = remote.list()?.into_iter();
                    objects.map(|object| Part::of_object(object, remote.url())).collect()
                };
                parts.sort_by(Part::order);
                Ok(parts)
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Store(remote) => f.write_str(remote.url()),
        }
    }
}

/// The bytes of a file, wherever it lies.
pub(super) enum Blob {
    File(File),
    Object(Window),
}

/// An object, and the part of it that was asked for last.
#[derive(Clone)]
pub(super) struct Window {
    object: Object,
    last: Arc<Mutex<(u64, Bytes)>>,
}

/// So much is asked for at least.
const LEAST: u64 = 64 << 10;
/// What is read next is got in one go unless it is larger.
const AHEAD_MAX: u64 = 64 << 20;

impl Blob {
    pub fn of_object(object: Object) -> Self {
        Self::Object(Window { object, last: Arc::default() })
    }

    /// What shall be asked for ahead, if it is an object.
    pub fn window(&self) -> Option<Window> {
        match self {
            Self::File(_) => None,
            Self::Object(window) => Some(window.clone()),
        }
    }
}

impl Length for Blob {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => Length::len(file),
            Self::Object(window) => window.object.size,
        }
    }
}

impl ChunkReader for Blob {
    type T = Box<dyn io::Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        match self {
            Self::File(file) => Ok(Box::new(file.get_read(start)?)),
            Self::Object(window) => Ok(Box::new(Reading { window: window.clone(), at: start })),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            Self::Object(window) => window.get(start, length as u64),
        }
    }
}

/// The store did not give what was asked for: nothing is known of the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(pub io::Error);

impl Window {
    /// Gets a range that will be read in one go, unless it is too large for that.
    pub fn ahead(&self, range: Range<u64>) -> Result<(), ParquetError> {
        let length = range.end.saturating_sub(range.start);
        if (1..=AHEAD_MAX).contains(&length) { self.get(range.start, length).map(drop) } else { Ok(()) }
    }

    fn get(&self, start: u64, length: u64) -> Result<Bytes, ParquetError> {
        let size = self.object.size;
        let end = start
            .checked_add(length)
            .filter(|&end| end <= size)
            .ok_or_else(|| ParquetError::EOF(format!("{length} bytes at {start} of {size} that the object has")))?;
        let (first, bytes) = &mut *self.last.lock();
        if start < *first || end > *first + bytes.len() as u64 {
            // Near the end, where the footer is, what stands before is wanted next.
            let from = start.min(size.saturating_sub(LEAST));
            let range = from..end.max((start + LEAST).min(size));
            (*bytes, *first) =
                (self.object.read(range).map_err(|error| ParquetError::External(Unreachable(error).into()))?, from);
        }
        let at = (start - *first) as usize;
        Ok(bytes.slice(at..at + length as usize))
    }
}

/// Reads an object on from a place.
struct Reading {
    window: Window,
    at: u64,
}

impl io::Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.window.object.size.saturating_sub(self.at);
        let length = left.min(into.len() as u64);
        let bytes = self.window.get(self.at, length).map_err(io::Error::other)?;
        into[..bytes.len()].copy_from_slice(&bytes);
        self.at += length;
        Ok(bytes.len())
    }
}
