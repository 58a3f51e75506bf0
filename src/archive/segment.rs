//! A segment: messages in the order they came, appended and synced. What a crash has cut off at its end was never
//! confirmed, and is recognised by its checksum.
//!
//! ```text
//! "streamer segment 1\n"  length u32, pipeline     then frames: length u32, checksum u64 (xxh3), messages
//! ```
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::Row;
use crate::message::MessageRef;

const MAGIC: &[u8] = b"streamer segment 1\n";
/// Ending of a segment's name.
pub(super) const ENDING: &str = "segment";
/// A frame is closed when it has so many bytes.
const FRAME_BYTES: usize = 4 << 20;
/// Length and checksum.
const FRAME_HEAD: usize = 12;

/// Messages as they are appended to a segment.
pub fn frames<'a>(messages: impl Iterator<Item = MessageRef<'a>>, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes);
    let mut messages = messages.peekable();
    while messages.peek().is_some() {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEAD]);
        for message in messages.by_ref() {
            Row::write(message, &mut out);
            if out.len() - start >= FRAME_BYTES {
                break;
            }
        }
        let body = start + FRAME_HEAD;
        // A message is smaller than 4 GiB, and a frame ends with the one that passes 4 MiB.
        let (length, sum) = ((out.len() - body) as u32, xxh3_64(&out[body..]));
        out[start..][..4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..][..8].copy_from_slice(&sum.to_le_bytes());
    }
    out
}

/// A segment that is written.
pub(super) struct Segment {
    pub path: PathBuf,
    file: File,
    /// Bytes that are whole frames.
    pub length: u64,
}

impl Segment {
    /// Makes a new one. It is on the disk with the first frame.
    pub fn create(path: PathBuf, pipeline: &str) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&(pipeline.len() as u32).to_le_bytes());
        head.extend_from_slice(pipeline.as_bytes());
        file.write_all(&head)?;
        Ok(Self { path, file, length: head.len() as u64 })
    }

    /// Appends frames and syncs them: they are safe when this answers.
    ///
    /// # Errors
    /// They may be there in part or as a whole, unconfirmed. The segment takes no more; what it holds stays good.
    pub fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(frames).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Taken back if that works: a full disk has not much room for what is sent again anyway.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += frames.len() as u64;
        Ok(())
    }
}

/// What a segment holds. Its messages stay in the file until they are loaded: a segment may be as large as `roll_bytes`.
pub(super) struct Content {
    pub pipeline: String,
    file: File,
    pub rows: Vec<Spot>,
    /// Bytes at its end that are no whole frames.
    pub torn: u64,
    /// There are whole frames behind the first broken one: this is no crash's doing alone.
    pub is_damaged: bool,
}

/// Where a message stands in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub received_at_ms: i64,
    at: u64,
    pub length: u32,
}

impl Content {
    /// Some of the messages, in the order of `spots`: their bytes, and where in these each begins.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self, spots: &[Spot]) -> io::Result<(Bytes, Vec<usize>)> {
        let wanted: u64 = spots.iter().map(|spot| u64::from(spot.length)).sum();
        let start = spots.iter().map(|spot| spot.at).min().unwrap_or_default();
        let end = spots.iter().map(|spot| spot.at + u64::from(spot.length)).max().unwrap_or_default();
        let mut bytes = Vec::new();
        // Sorted by time they stand close together, unless a clock has jumped.
        if end - start <= SPREAD_MAX * wanted {
            read_at(&self.file, start, end - start, &mut bytes)?;
            let places = spots.iter().map(|spot| (spot.at - start) as usize).collect();
            return Ok((bytes.into(), places));
        }
        let (mut one, mut places) = (Vec::new(), Vec::with_capacity(spots.len()));
        for spot in spots {
            read_at(&self.file, spot.at, spot.length.into(), &mut one)?;
            places.push(bytes.len());
            bytes.extend_from_slice(&one);
        }
        Ok((bytes.into(), places))
    }
}

/// Messages are read one by one when they are spread over more than so many times their bytes.
const SPREAD_MAX: u64 = 4;

/// Looks through a segment, one that is still written too. `None` when it is no segment, or one of another version.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Option<Content>> {
    let file = File::open(path)?;
    let whole = file.metadata()?.len();
    let (mut head, mut name) = (Vec::new(), Vec::new());
    (&file).take(MAGIC.len() as u64 + 4).read_to_end(&mut head)?;
    let mut content = Content { pipeline: String::new(), file, rows: Vec::new(), torn: 0, is_damaged: false };
    let Some((magic, length)) = head.split_last_chunk().filter(|_| head.len() == MAGIC.len() + 4) else {
        // Perhaps not even its head was written when the process died.
        return Ok(MAGIC.starts_with(&head[..head.len().min(MAGIC.len())]).then_some(content));
    };
    if magic != MAGIC {
        return Ok(None);
    }
    (&content.file).take(u32::from_le_bytes(*length).into()).read_to_end(&mut name)?;
    content.pipeline = String::from_utf8_lossy(&name).into_owned();
    let mut at = (head.len() + name.len()) as u64;
    let mut body = Vec::new();
    while frame(&content.file, at, whole, &mut body)?.is_some() {
        let start = at + FRAME_HEAD as u64;
        let mut left = &body[..];
        while !left.is_empty() {
            let before = left.len();
            let Some(row) = Row::read(&mut left) else {
                // Its checksum is right, so this program has another idea of a message than the one that wrote it.
                return Ok(None);
            };
            let (place, length) = (start + (body.len() - before) as u64, (before - left.len()) as u32);
            content.rows.push(Spot { received_at_ms: row.received_at_ms, at: place, length });
        }
        at = start + body.len() as u64;
    }
    content.torn = whole - at.min(whole);
    // The length of the first broken frame may be right where its bytes are not.
    if whole >= at + FRAME_HEAD as u64 {
        read_at(&content.file, at, 4, &mut body)?;
        let length = u32::from_le_bytes(*body.first_chunk().expect("four were read"));
        let next = at + FRAME_HEAD as u64 + u64::from(length);
        content.is_damaged = frame(&content.file, next, whole, &mut body)?.is_some();
    }
    Ok(Some(content))
}

/// Reads the body of the frame at `at` of a file with `whole` bytes. `None` when no whole one is there.
fn frame(file: &File, at: u64, whole: u64, body: &mut Vec<u8>) -> io::Result<Option<()>> {
    let start = at + FRAME_HEAD as u64;
    if start > whole {
        return Ok(None);
    }
    read_at(file, at, FRAME_HEAD as u64, body)?;
    let (length, sum) = body.split_at(4);
    let length = u64::from(u32::from_le_bytes(length.try_into().expect("it has four bytes")));
    let sum = u64::from_le_bytes(sum.try_into().expect("it has eight bytes"));
    // A file that a crash has filled with zeros has no frame in it.
    if length == 0 || length > whole - start {
        return Ok(None);
    }
    read_at(file, start, length, body)?;
    Ok((xxh3_64(body) == sum).then_some(()))
}

fn read_at(mut file: &File, at: u64, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    into.resize(length as usize, 0);
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(into)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::{Batch, SourceBuilder};

    pub fn batch(payloads: &[&[u8]]) -> Batch {
        let mut source = SourceBuilder::new("kafka");
        for (i, payload) in payloads.iter().enumerate() {
            source
                .push(payload, |o, parts| {
                    o.topic = parts.text("devices/a")?;
                    o.key = (i % 2 == 0).then(|| parts.bytes(b"\xff\x00")).transpose()?;
                    (o.partition, o.offset, o.qos, o.retain) = (3, i as i64, 1, i == 1);
                    o.timestamp_ms = (i % 2 == 1).then_some(-5);
                    o.received_at_ms = 1_700_000_000_000 + i as i64;
                    parts.header(o, "h", b"\x00\xff")?;
                    parts.header(o, "h", b"")
                })
                .unwrap();
        }
        Batch::new(source.finish())
    }

    /// Payloads of all messages, in order.
    fn payloads(content: &Content) -> Vec<Vec<u8>> {
        let (bytes, places) = content.load(&content.rows).unwrap();
        places.into_iter().map(|at| Row::read(&mut &bytes[at..]).unwrap().payload.to_vec()).collect()
    }

    fn written(path: &Path, payloads: &[&[u8]]) -> u64 {
        let mut segment = Segment::create(path.to_owned(), "p").unwrap();
        for payload in payloads {
            segment.append(&frames(batch(&[payload]).iter(), 0)).unwrap();
        }
        segment.length
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.segment");
        let large = vec![7; FRAME_BYTES + 1];
        let payloads = [&b"one"[..], b"", &large, b"four"];
        let mut segment = Segment::create(path.clone(), "p").unwrap();
        segment.append(&frames(batch(&payloads).iter(), 0)).unwrap();
        let content = read(&path).unwrap().unwrap();
        assert_eq!((content.pipeline.as_str(), content.torn, content.is_damaged), ("p", 0, false));
        let (bytes, places) = content.load(&content.rows).unwrap();
        let rows: Vec<_> = places.into_iter().map(|at| Row::read(&mut &bytes[at..]).unwrap()).collect();
        assert_eq!(rows.iter().map(|row| row.payload).collect::<Vec<_>>(), payloads);
        let row = rows[1];
        assert_eq!((row.topic, row.key, row.input), ("devices/a", None, "kafka"));
        assert_eq!((row.partition, row.offset, row.qos, row.retain), (3, 1, 1, true));
        assert_eq!((row.timestamp_ms, row.received_at_ms), (Some(-5), 1_700_000_000_001));
        assert_eq!(row.headers.collect::<Vec<_>>(), [("h", &b"\x00\xff"[..]), ("h", b"")]);
        assert_eq!(rows[0].key, Some(&b"\xff\x00"[..]));
        // Two that are far apart, the later one first, and none.
        let (bytes, places) = content.load(&[content.rows[3], content.rows[0]]).unwrap();
        let apart: Vec<_> = places.into_iter().map(|at| Row::read(&mut &bytes[at..]).unwrap().payload).collect();
        assert_eq!(apart, [&b"four"[..], b"one"]);
        assert!(bytes.len() < 1000 && content.load(&[]).unwrap().0.is_empty());
    }

    #[test]
    fn wherever_a_crash_cuts_it_the_whole_frames_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.segment");
        let whole = written(&path, &[b"one", b"two", b"three"]);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, whole);
        for cut in 0..bytes.len() {
            for tail in [&b""[..], &[0; 40], b"garbage and more of it"] {
                std::fs::write(&path, [&bytes[..cut], tail].concat()).unwrap();
                // In its head nothing was confirmed yet.
                let Some(content) = read(&path).unwrap() else { continue };
                assert!(content.rows.len() < 3 && !content.is_damaged, "cut at {cut}");
                let expected = [&b"one"[..], b"two"];
                let read = payloads(&content);
                assert_eq!(read, expected[..read.len()], "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_seen_and_is_no_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.segment");
        written(&path, &[b"one", b"two", b"three"]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(3).position(|w| w == b"two").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let content = read(&path).unwrap().unwrap();
        assert_eq!((content.rows.len(), content.is_damaged), (1, true));
        std::fs::write(&path, b"PAR1 something else").unwrap();
        assert!(read(&path).unwrap().is_none());
    }
}
