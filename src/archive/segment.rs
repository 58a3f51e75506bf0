//! A segment: messages in the order they came, appended and synced. What a crash has cut off at its end was never
//! confirmed, and is recognised by its checksum.
//!
//! ```text
//! "streamer segment 1\n"  length u32, pipeline     then frames: length u32, checksum u64 (xxh3), messages
//! ```
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
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

/// What a segment holds.
pub(super) struct Content {
    pub pipeline: String,
    pub bytes: Bytes,
    /// Of each message: when it was received, and where it stands in `bytes`.
    pub rows: Vec<(i64, usize)>,
    /// Bytes at its end that are no whole frames.
    pub torn: usize,
    /// There are whole frames behind the first broken one: this is no crash's doing alone.
    pub is_damaged: bool,
}

impl Content {
    /// The message that stands at a place of `rows`.
    pub fn row(&self, at: usize) -> Row<'_> {
        Row::read(&mut &self.bytes[at..]).expect("it was read before")
    }
}

/// Reads a segment, one that is still written too. `None` when it is no segment, or one of another version.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Option<Content>> {
    let bytes = Bytes::from(std::fs::read(path)?);
    if bytes.len() < MAGIC.len() + 4 && MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) {
        // Not even its head was written when the process died.
        return Ok(Some(Content { pipeline: String::new(), bytes, rows: Vec::new(), torn: 0, is_damaged: false }));
    }
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Ok(None) };
    let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    let name = &rest[..length.min(rest.len())];
    let pipeline = String::from_utf8_lossy(name).into_owned();
    let mut rows = Vec::new();
    let mut at = bytes.len() - rest.len() + name.len();
    while let Some((body, end)) = frame(&bytes, at) {
        let before = rows.len();
        let mut left = body;
        while let Some(row) = (!left.is_empty()).then(|| (end - left.len(), Row::read(&mut left))) {
            let (at, Some(row)) = row else {
                // Its checksum is right, so this program has another idea of a message than the one that wrote it.
                rows.truncate(before);
                return Ok(None);
            };
            rows.push((row.received_at_ms, at));
        }
        at = end;
    }
    let torn = bytes.len() - at;
    // Its length may be right where its bytes are not.
    let skipped = bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|length| u32::from_le_bytes(*length));
    let next = skipped.and_then(|length| at.checked_add(FRAME_HEAD + length as usize));
    let is_damaged = next.is_some_and(|next| frame(&bytes, next).is_some());
    Ok(Some(Content { pipeline, bytes, rows, torn, is_damaged }))
}

/// The body of the frame at `at`, and its end.
fn frame(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let body = rest.get(..u32::from_le_bytes(*length) as usize)?;
    // A file that a crash has filled with zeros has no frame in it.
    let is_whole = !body.is_empty() && xxh3_64(body) == u64::from_le_bytes(*sum);
    is_whole.then_some((body, at + FRAME_HEAD + body.len()))
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
        let rows: Vec<_> = content.rows.iter().map(|&(_, at)| content.row(at)).collect();
        assert_eq!(rows.iter().map(|row| row.payload).collect::<Vec<_>>(), payloads);
        let row = rows[1];
        assert_eq!((row.topic, row.key, row.input), ("devices/a", None, "kafka"));
        assert_eq!((row.partition, row.offset, row.qos, row.retain), (3, 1, 1, true));
        assert_eq!((row.timestamp_ms, row.received_at_ms), (Some(-5), 1_700_000_000_001));
        assert_eq!(row.headers.collect::<Vec<_>>(), [("h", &b"\x00\xff"[..]), ("h", b"")]);
        assert_eq!(rows[0].key, Some(&b"\xff\x00"[..]));
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
                let read: Vec<_> = content.rows.iter().map(|&(_, at)| content.row(at).payload).collect();
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
