//! The spool's files: segments of blocks, written at the end only, and a cursor below which all is delivered.
//!
//! A block is written, then synced, and only then the next one begins. So only the last block of the last segment can
//! be torn by a crash: it was never confirmed to anybody, and is cut off when the log is opened. Anything else that
//! cannot be read is damage, and an error that names file and byte. Nothing is skipped, unless somebody says so by
//! renaming the segment to `….damaged`.
//!
//! `STATE_DIR/spool/PIPELINE/INPUT/`: `lock`, `cursor`, and a segment for each run of numbers, `00000000000000000042.log`
//! from message 42 on.
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tracing::{error, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::block::{self, HEADER_BYTES, Header, MAGIC};
use crate::message::Source;

/// A file of the spool that cannot be used: what was tried, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {action} `{}` for the spool: {source}", .file.display())]
    Io { action: &'static str, file: PathBuf, source: io::Error },
    #[error(
        "the spool `{}` is in use by another process; run one streamer for each --state-dir (STATE_DIR)", .0.display()
    )]
    Locked(PathBuf),
    #[error(
        "the spool's file `{}` is damaged at byte {offset}: {what}. It holds messages from number {number} on that were acknowledged and not delivered. Restore the file, or give its messages up by adding `.damaged` to its name", .file.display()
    )]
    Damaged { file: PathBuf, offset: u64, number: u64, what: String },
}

fn io_error(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { action, file: file.to_owned(), source }
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the segment's first message: its name.
    pub segment: u64,
    pub offset: u64,
    /// Number of the next message.
    pub number: u64,
}

struct Segment {
    first: u64,
    bytes: u64,
    /// When its first block was written, Unix milliseconds.
    written_ms: i64,
}

/// The writer's side. Whoever has it is the only one: the folder is locked.
pub struct Log {
    folder: PathBuf,
    _lock: File,
    cursor: Cursor,
    segments: VecDeque<Segment>,
    /// The last segment, open to be written.
    active: Option<File>,
    /// Bytes of a write that failed may stand behind the last block.
    torn: bool,
    end: u64,
    segment_bytes: u64,
}

impl Log {
    /// Opens the log in `folder`, or makes one. A segment takes about `segment_bytes`.
    ///
    /// # Errors
    /// The folder cannot be used, is in use, or holds what cannot be read.
    pub fn open(folder: &Path, segment_bytes: u64) -> Result<Self, LogError> {
        std::fs::create_dir_all(folder).map_err(io_error("make", folder))?;
        let lock_file = folder.join("lock");
        let lock = File::create(&lock_file).map_err(io_error("write", &lock_file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &lock_file)(error)),
        }
        let cursor = Cursor::open(folder)?;
        let mut log = Self {
            folder: folder.to_owned(),
            _lock: lock,
            cursor,
            segments: VecDeque::new(),
            active: None,
            torn: false,
            end: 0,
            segment_bytes,
        };
        for first in names(folder, ".log").map_err(io_error("read", folder))? {
            let file = segment_file(folder, first);
            let (bytes, written_ms) = look(&file).map_err(io_error("read", &file))?;
            log.segments.push_back(Segment { first, bytes, written_ms });
        }
        if let Some(last) = log.segments.back_mut() {
            let file = segment_file(folder, last.first);
            let (bytes, end) = last_block(&file, last.first)?;
            if bytes < last.bytes {
                let torn = last.bytes - bytes;
                warn!(file = %file.display(), offset = bytes, bytes = torn, "cut off a write that a crash has torn; it was never acknowledged");
                let handle = OpenOptions::new().write(true).open(&file).map_err(io_error("open", &file))?;
                handle.set_len(bytes).and_then(|()| handle.sync_all()).map_err(io_error("cut", &file))?;
                last.bytes = bytes;
            }
            log.end = end;
        }
        log.end = log.end.max(log.cursor.number.unwrap_or_default());
        if log.cursor.number.is_none() {
            log.cursor.save(log.segments.front().map_or(log.end, |first| first.first))?;
        }
        log.trim()?;
        Ok(log)
    }

    /// Where reading begins: the first message that is not known to be delivered.
    ///
    /// # Errors
    /// The segment that holds it cannot be read.
    pub fn start(&self) -> Result<Position, LogError> {
        let cursor = self.delivered();
        let Some(first) = self.segments.front().filter(|first| first.first <= cursor) else {
            // Nothing is there, or a file is missing: then reading says so.
            return Ok(Position { segment: cursor, offset: 0, number: cursor });
        };
        let mut at = Position { segment: first.first, offset: 0, number: first.first };
        let file = segment_file(&self.folder, at.segment);
        let handle = File::open(&file).map_err(io_error("open", &file))?;
        // The block that holds the cursor's message.
        while at.number < cursor && at.offset < first.bytes {
            let mut bytes = [0; HEADER_BYTES];
            handle.read_exact_at(&mut bytes, at.offset).map_err(io_error("read", &file))?;
            let header =
                Header::read(&bytes).ok_or_else(|| damaged(&file, at, "a header does not fit its checksum"))?;
            let end = header.first + u64::from(header.messages);
            if end > cursor {
                at.number = cursor;
                break;
            }
            at = Position { offset: at.offset + HEADER_BYTES as u64 + header.body_bytes, number: end, ..at };
        }
        Ok(at)
    }

    /// All messages below this number are noted as delivered.
    pub fn delivered(&self) -> u64 {
        self.cursor.number.unwrap_or_default()
    }

    /// Where the next block will stand.
    pub fn end(&self) -> Position {
        match self.segments.back() {
            Some(last) => Position { segment: last.first, offset: last.bytes, number: self.end },
            None => Position { segment: self.end, offset: 0, number: self.end },
        }
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// When the oldest block that is still there was written, Unix milliseconds.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.segments.front().map(|segment| segment.written_ms)
    }

    /// Writes a block of `messages` messages and waits until the disk has it.
    ///
    /// # Errors
    /// The disk does not take it: none of it counts, and the same block may be tried again.
    pub fn append(&mut self, block: &[u8], messages: u32, written_ms: i64) -> Result<(), LogError> {
        if self.torn {
            self.cut()?;
        }
        let full = self.segments.back().is_none_or(|last| last.bytes > 0 && last.bytes >= self.segment_bytes);
        if full {
            self.begin_segment(written_ms)?;
        }
        let last = self.segments.back_mut().expect("there is a segment");
        let file = segment_file(&self.folder, last.first);
        if self.active.is_none() {
            self.active = Some(OpenOptions::new().write(true).open(&file).map_err(io_error("open", &file))?);
        }
        let active = self.active.as_ref().expect("it was opened");
        let written = active.write_all_at(block, last.bytes).and_then(|()| active.sync_data());
        if let Err(error) = written {
            self.torn = true;
            return Err(io_error("write", &file)(error));
        }
        last.bytes += block.len() as u64;
        self.end += u64::from(messages);
        Ok(())
    }

    fn begin_segment(&mut self, written_ms: i64) -> Result<(), LogError> {
        let file = segment_file(&self.folder, self.end);
        // One that a failure has left behind is empty.
        let made = File::create(&file).and_then(|made| sync_folder(&self.folder).map(|()| made));
        self.active = Some(made.map_err(io_error("make", &file))?);
        self.segments.push_back(Segment { first: self.end, bytes: 0, written_ms });
        Ok(())
    }

    /// Takes away what a failed write has left behind.
    fn cut(&mut self) -> Result<(), LogError> {
        if let (Some(active), Some(last)) = (&self.active, self.segments.back()) {
            active.set_len(last.bytes).map_err(io_error("cut", &segment_file(&self.folder, last.first)))?;
        }
        self.torn = false;
        Ok(())
    }

    /// Notes that all messages below `number` are delivered, so that they are not read again after a restart, and removes
    /// the segments that hold no others.
    ///
    /// # Errors
    /// It could not be noted (after a crash they come again), or a file cannot be removed.
    pub fn delivered_below(&mut self, number: u64) -> Result<(), LogError> {
        if number > self.delivered() {
            self.cursor.save(number)?;
        }
        self.trim()
    }

    fn trim(&mut self) -> Result<(), LogError> {
        while let Some(first) = self.segments.front() {
            let end = self.segments.get(1).map_or(self.end, |next| next.first);
            if end > self.delivered() {
                break;
            }
            let file = segment_file(&self.folder, first.first);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &file)(error)),
                _ => {}
            }
            self.segments.pop_front();
            if self.segments.is_empty() {
                (self.active, self.torn) = (None, false);
            }
        }
        Ok(())
    }
}

/// A block that was read: its messages, the number of the first, and where the next block stands.
pub struct Block {
    pub source: Source,
    pub first: u64,
    pub next: Position,
}

/// Reads the block at `at`. There must be one: the caller knows where the log ends.
///
/// # Errors
/// It cannot be read, or not all of it is as it was written.
pub fn read(folder: &Path, mut at: Position) -> Result<Block, LogError> {
    let mut file = segment_file(folder, at.segment);
    let mut handle = open_or_given_up(folder, &mut at, &mut file)?;
    if at.offset == handle.metadata().map_err(io_error("read", &file))?.len() {
        (at.segment, at.offset) = (at.number, 0);
        file = segment_file(folder, at.segment);
        handle = open_or_given_up(folder, &mut at, &mut file)?;
    }
    let mut bytes = [0; HEADER_BYTES];
    let short = |error: io::Error, at, file: &Path| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(file, at, "it ends in the middle of a block"),
        _ => io_error("read", file)(error),
    };
    handle.read_exact_at(&mut bytes, at.offset).map_err(|error| short(error, at, &file))?;
    let header = Header::read(&bytes).ok_or_else(|| damaged(&file, at, "a header does not fit its checksum"))?;
    let end = header.first + u64::from(header.messages);
    if !(header.first..end).contains(&at.number) {
        return Err(damaged(&file, at, &format!("a block of the messages from {} to {end}", header.first)));
    }
    let mut body = vec![0; header.body_bytes as usize];
    handle.read_exact_at(&mut body, at.offset + HEADER_BYTES as u64).map_err(|error| short(error, at, &file))?;
    if xxh3_64(&body) != header.body_sum {
        return Err(damaged(&file, at, "a block does not fit its checksum"));
    }
    let skip = (at.number - header.first) as u32;
    let source = block::source(&header, Bytes::from(body), skip)
        .ok_or_else(|| damaged(&file, at, "a block of another version of streamer"))?;
    let offset = at.offset + HEADER_BYTES as u64 + header.body_bytes;
    Ok(Block { source, first: at.number, next: Position { segment: at.segment, offset, number: end } })
}

/// Opens the segment of `at`. One that the user has given up is passed over, loudly.
fn open_or_given_up(folder: &Path, at: &mut Position, file: &mut PathBuf) -> Result<File, LogError> {
    match File::open(&*file) {
        Ok(handle) => Ok(handle),
        // All of it is delivered, so it was removed: the next one goes on.
        Err(error) if error.kind() == io::ErrorKind::NotFound && segment_file(folder, at.number).exists() => {
            (at.segment, at.offset) = (at.number, 0);
            *file = segment_file(folder, at.number);
            File::open(&*file).map_err(io_error("open", file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let in_folder = |ending| names(folder, ending).map_err(io_error("read", folder));
            let (logs, given_up) = (in_folder(".log")?, in_folder(".log.damaged")?);
            let before = |names: &[u64]| names.iter().rev().find(|first| **first <= at.number).copied();
            let is_given_up = before(&given_up) > before(&logs);
            let next = logs.iter().find(|first| **first > at.number).filter(|_| is_given_up);
            let Some(&next) = next else { return Err(damaged(file, *at, "it is missing")) };
            error!(file = %file.display(), from = at.number, to = next, "messages of the spool are lost: their file was given up");
            *at = Position { segment: next, offset: 0, number: next };
            *file = segment_file(folder, next);
            File::open(&*file).map_err(io_error("open", file))
        }
        Err(error) => Err(io_error("open", file)(error)),
    }
}

/// Whether the log in `folder` holds segments, without opening it.
pub fn holds_messages(folder: &Path) -> bool {
    names(folder, ".log").is_ok_and(|names| !names.is_empty())
}

fn damaged(file: &Path, at: Position, what: &str) -> LogError {
    LogError::Damaged { file: file.to_owned(), offset: at.offset, number: at.number, what: what.to_owned() }
}

fn segment_file(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

/// The first numbers of all files with that ending, in order.
fn names(folder: &Path, ending: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(ending));
        found.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Length of a segment, and when its first block was written.
fn look(file: &Path) -> io::Result<(u64, i64)> {
    let mut handle = File::open(file)?;
    let mut bytes = Vec::new();
    (&mut handle).take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    let written_ms = Header::read(&bytes).map_or(0, |header| header.written_ms);
    Ok((handle.seek(io::SeekFrom::End(0))?, written_ms))
}

/// Where the last whole block of the last segment ends: its byte, and the number of the next message.
///
/// # Errors
/// What does not fit is not the end of a write that a crash has torn.
fn last_block(file: &Path, first: u64) -> Result<(u64, u64), LogError> {
    let bytes = std::fs::read(file).map_err(io_error("read", file))?;
    let (mut at, mut number) = (0, first);
    while at < bytes.len() {
        match whole_block(&bytes[at..]) {
            Some((header, end)) if header.first == number => {
                at += end;
                number += u64::from(header.messages);
            }
            _ if is_torn(&bytes, at) => break,
            _ => {
                let position = Position { segment: first, offset: at as u64, number };
                return Err(damaged(file, position, "a block does not fit its checksum"));
            }
        }
    }
    Ok((at as u64, number))
}

/// The whole block at the start of `bytes`, and its length.
fn whole_block(bytes: &[u8]) -> Option<(Header, usize)> {
    let header = Header::read(bytes)?;
    let end = HEADER_BYTES.checked_add(usize::try_from(header.body_bytes).ok()?)?;
    let body = bytes.get(HEADER_BYTES..end)?;
    (xxh3_64(body) == header.body_sum).then_some((header, end))
}

/// What the disk takes at once: a write that is torn misses whole ones of these.
const SECTOR: usize = 512;

/// Whether what stands at `at` is the end of a write that was never confirmed: it is cut short, or sectors of it never
/// reached the disk and read as zeros; and no whole block comes after it.
fn is_torn(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at..];
    let followed = memchr::memmem::find_iter(&rest[1..], &MAGIC).any(|next| whole_block(&rest[1 + next..]).is_some());
    let needed = Header::read(rest).map(|header| HEADER_BYTES as u64 + header.body_bytes);
    let short = rest.len() < HEADER_BYTES || needed.is_some_and(|needed| needed > rest.len() as u64);
    let mut sectors = (at.next_multiple_of(SECTOR)..bytes.len()).step_by(SECTOR);
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let unwritten = zeros(&rest[..rest.len().min(SECTOR - at % SECTOR)])
        || sectors.any(|start| zeros(&bytes[start..bytes.len().min(start + SECTOR)]));
    !followed && (short || unwritten)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The number below which all is delivered, in a file of two slots that are written in turn.
struct Cursor {
    file: File,
    path: PathBuf,
    /// `None` when neither slot can be read.
    number: Option<u64>,
    slot: u64,
}

impl Cursor {
    const SLOT_BYTES: u64 = SECTOR as u64;

    fn open(folder: &Path) -> Result<Self, LogError> {
        let path = folder.join("cursor");
        let open = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            // Its bytes are there from the start: on a full disk it can still be written.
            if file.metadata()?.len() < 2 * Self::SLOT_BYTES {
                file.write_all_at(&vec![0; 2 * Self::SLOT_BYTES as usize], 0)?;
                file.sync_all()?;
                sync_folder(folder)?;
            }
            let mut numbers = [None; 2];
            for (slot, number) in (0..).zip(&mut numbers) {
                let mut bytes = [0; 16];
                file.read_exact_at(&mut bytes, slot * Self::SLOT_BYTES)?;
                let (value, sum) = bytes.split_at(8);
                if xxh3_64(value).to_le_bytes() == sum {
                    *number = Some(u64::from_le_bytes(value.try_into().expect("eight bytes")));
                }
            }
            let slot = u64::from(numbers[0] >= numbers[1]);
            Ok((file, numbers[0].max(numbers[1]), slot))
        };
        let (file, number, slot) = open().map_err(io_error("write", &path))?;
        Ok(Self { file, path, number, slot })
    }

    fn save(&mut self, number: u64) -> Result<(), LogError> {
        let value = number.to_le_bytes();
        let bytes = [value, xxh3_64(&value).to_le_bytes()].concat();
        let written = self.file.write_all_at(&bytes, self.slot * Self::SLOT_BYTES);
        written.and_then(|()| self.file.sync_data()).map_err(io_error("write", &self.path))?;
        (self.number, self.slot) = (Some(number), 1 - self.slot);
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
