//! A block: the messages of one write to the spool, as they were received, under one checksum.
//!
//! ```text
//! header  magic u32 | messages u32 | number of the first u64 | written, Unix ms i64 | body bytes u64 | sum of body u64 | sum of header u64
//! body    input name | captures | message, message, …
//! ```
//! Numbers of the header are little endian, those of the body are LEB128. Sums are XXH3 of 64 bits. A body is read in
//! place: it becomes the arena of the batch.
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::message::{Captures, Header as MessageHeader, Origin, Source, Span};

/// `SPL1`; another layout gets another number.
pub const MAGIC: [u8; 4] = *b"SPL1";
/// Bytes of a header.
pub const HEADER_BYTES: usize = 48;

const QOS: u8 = 0b11;
const RETAIN: u8 = 1 << 2;
const KEY: u8 = 1 << 3;
const TIMESTAMP: u8 = 1 << 4;
const OFFSET: u8 = 1 << 5;
const HEADERS: u8 = 1 << 6;
const SAME_TOPIC: u8 = 1 << 7;

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub messages: u32,
    /// Number of the first message.
    pub first: u64,
    pub written_ms: i64,
    pub body_bytes: u64,
    pub body_sum: u64,
}

impl Header {
    /// The header at the start of `bytes`; `None` when there is none, or a damaged one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let header = Self {
            messages: u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
            first: number(8),
            written_ms: number(16) as i64,
            body_bytes: number(24),
            body_sum: number(32),
        };
        (bytes[..4] == MAGIC && number(40) == xxh3_64(&bytes[..40])).then_some(header)
    }

    fn write(&self, to: &mut [u8]) {
        to[..4].copy_from_slice(&MAGIC);
        to[4..8].copy_from_slice(&self.messages.to_le_bytes());
        for (at, number) in [(8, self.first), (16, self.written_ms as u64), (24, self.body_bytes), (32, self.body_sum)]
        {
            to[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = xxh3_64(&to[..40]);
        to[40..48].copy_from_slice(&sum.to_le_bytes());
    }
}

/// A block under construction. All its messages come from one input with the same names for topic levels.
pub struct BlockWriter {
    bytes: Vec<u8>,
    messages: u32,
    written_ms: i64,
}

impl BlockWriter {
    /// An empty block for messages like those of `source`.
    pub fn new(source: &Source, now_ms: i64) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        put_bytes(&mut bytes, source.input().as_bytes());
        let filters = source.all_captures().map_or(&[][..], |captures| &captures.filters);
        put(&mut bytes, filters.len() as u64);
        for filter in filters {
            put(&mut bytes, filter.len() as u64);
            for (name, level) in filter {
                put_bytes(&mut bytes, name.as_bytes());
                put(&mut bytes, *level as u64);
            }
        }
        Self { bytes, messages: 0, written_ms: now_ms }
    }

    /// Adds all messages of `source`, as they were received. Answers how many.
    pub fn push(&mut self, source: &Source) -> u32 {
        let mut last_topic: Option<&[u8]> = None;
        let arena = source.bytes();
        for origin in source.origins() {
            let topic = origin.topic.of(arena);
            let same = last_topic.replace(topic) == Some(topic);
            let flag = |on: bool, flag: u8| if on { flag } else { 0 };
            self.bytes.push(
                origin.qos & QOS
                    | flag(origin.retain, RETAIN)
                    | flag(origin.key.is_some(), KEY)
                    | flag(origin.timestamp_ms.is_some(), TIMESTAMP)
                    | flag(origin.partition != -1 || origin.offset != -1, OFFSET)
                    | flag(origin.headers.1 > 0, HEADERS)
                    | flag(same, SAME_TOPIC),
            );
            let to = &mut self.bytes;
            // No filter is the largest number, and would take three bytes.
            put(to, u64::from(origin.filter.wrapping_add(1)));
            put_signed(to, origin.received_at_ms.wrapping_sub(self.written_ms));
            if !same {
                put_bytes(to, topic);
            }
            if let Some(key) = origin.key {
                put_bytes(to, key.of(arena));
            }
            if let Some(timestamp) = origin.timestamp_ms {
                put_signed(to, timestamp.wrapping_sub(self.written_ms));
            }
            if origin.partition != -1 || origin.offset != -1 {
                put_signed(to, origin.partition.into());
                put_signed(to, origin.offset);
            }
            if origin.headers.1 > 0 {
                put(to, origin.headers.1.into());
                for (name, value) in source.headers(origin) {
                    put_bytes(to, name.as_bytes());
                    put_bytes(to, value);
                }
            }
            put_bytes(to, origin.payload.of(arena));
        }
        let added = source.origins().len() as u32;
        self.messages += added;
        added
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The block, with the number of its first message.
    pub fn finish(mut self, first: u64) -> Vec<u8> {
        let (to, body) = self.bytes.split_at_mut(HEADER_BYTES);
        let header = Header {
            messages: self.messages,
            first,
            written_ms: self.written_ms,
            body_bytes: body.len() as u64,
            body_sum: xxh3_64(body),
        };
        header.write(to);
        self.bytes
    }
}

/// The messages of a body whose checksum is right, without the first `skip`. `None` when it is no body.
pub fn source(header: &Header, body: Bytes, skip: u32) -> Option<Source> {
    let mut read = Read { bytes: &body, at: 0 };
    let name = read.span()?;
    let mut filters = Vec::new();
    for _ in 0..read.number()? {
        let mut filter = Vec::new();
        for _ in 0..read.number()? {
            let name = std::str::from_utf8(read.span()?.of(&body)).ok()?.to_owned();
            filter.push((name, usize::try_from(read.number()?).ok()?));
        }
        filters.push(filter);
    }
    let (mut origins, mut headers, mut last_topic) = (Vec::new(), Vec::new(), Span::default());
    for _ in 0..header.messages {
        let flags = read.byte()?;
        let filter = u16::try_from(read.number()?).ok()?.wrapping_sub(1);
        let received_at_ms = header.written_ms.wrapping_add(read.signed()?);
        if flags & SAME_TOPIC == 0 {
            last_topic = read.span()?;
        }
        let key = if flags & KEY != 0 { Some(read.span()?) } else { None };
        let timestamp_ms =
            if flags & TIMESTAMP != 0 { Some(header.written_ms.wrapping_add(read.signed()?)) } else { None };
        let (partition, offset) = match flags & OFFSET {
            0 => (-1, -1),
            _ => (i32::try_from(read.signed()?).ok()?, read.signed()?),
        };
        let first = headers.len() as u32;
        let mut count = 0;
        if flags & HEADERS != 0 {
            count = u16::try_from(read.number()?).ok()?;
            for _ in 0..count {
                headers.push(MessageHeader { name: read.span()?, value: read.span()? });
            }
        }
        let payload = read.span()?;
        origins.push(Origin {
            payload,
            topic: last_topic,
            key,
            headers: (first, count),
            filter,
            partition,
            offset,
            timestamp_ms,
            received_at_ms,
            qos: flags & QOS,
            retain: flags & RETAIN != 0,
        });
    }
    if read.at != body.len() {
        return None;
    }
    origins.drain(..(skip as usize).min(origins.len()));
    let name = std::str::from_utf8(name.of(&body)).ok()?.to_owned();
    let source = Source::new(name, body, origins, headers);
    Some(if filters.is_empty() { source } else { source.with_captures(Arc::new(Captures { filters })) })
}

fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Small numbers of either sign take few bytes.
fn put_signed(to: &mut Vec<u8>, number: i64) {
    put(to, (number << 1 ^ number >> 63) as u64);
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

struct Read<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Read<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn span(&mut self) -> Option<Span> {
        let length = usize::try_from(self.number()?).ok()?;
        let start = self.at;
        self.at = start.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        Span::new(start, length).ok()
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::message::{Parts, SourceBuilder};

    fn described(source: &Source) -> Vec<String> {
        let describe = |origin: &Origin| {
            let Origin { filter, partition, offset, timestamp_ms, received_at_ms, qos, retain, .. } = origin;
            format!(
                "{} {:?} {:?} {filter} {partition} {offset} {timestamp_ms:?} {received_at_ms} {qos} {retain} {:?} {:?} {:?}",
                source.topic(origin),
                source.key(origin),
                source.original(origin),
                source.headers(origin).collect::<Vec<_>>(),
                source.capture(origin, "device"),
                source.input(),
            )
        };
        source.origins().iter().map(describe).collect()
    }

    fn bytes(random: &mut StdRng, max: usize) -> Vec<u8> {
        (0..random.random_range(0..=max)).map(|_| random.random()).collect()
    }

    fn text(random: &mut StdRng) -> String {
        (0..random.random_range(0..30)).map(|_| random.random::<char>()).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let r = &mut random;
            let mut builder = SourceBuilder::new("mqtt");
            let topics: Vec<_> = (0..3).map(|_| text(r)).collect();
            for _ in 0..r.random_range(0..20) {
                let payload = bytes(r, 400);
                let describe = |origin: &mut Origin, parts: &mut Parts| {
                    origin.topic = parts.text(&topics[r.random_range(0..3)])?;
                    if r.random() {
                        origin.key = Some(parts.bytes(&bytes(r, 20))?);
                        origin.timestamp_ms = Some(r.random());
                        (origin.partition, origin.offset) = (r.random(), r.random());
                    }
                    origin.filter = if r.random() { r.random() } else { u16::MAX };
                    (origin.received_at_ms, origin.qos, origin.retain) = (r.random(), r.random_range(0..3), r.random());
                    (0..r.random_range(0..3)).try_for_each(|_| parts.header(origin, &text(r), &bytes(r, 20)))
                };
                builder.push(&payload, describe).unwrap();
            }
            let captures = Captures { filters: vec![vec![], vec![("device".into(), 0)]] };
            let before = builder.finish().with_captures(Arc::new(captures));
            let (first, now, messages) = (r.random(), r.random(), before.origins().len());
            let mut writer = BlockWriter::new(&before, now);
            writer.push(&before);
            let block = writer.finish(first);
            let header = Header::read(&block).unwrap();
            assert_eq!((header.first, header.messages as usize, header.written_ms), (first, messages, now));
            let body = Bytes::from(block).slice(HEADER_BYTES..);
            assert_eq!(header.body_sum, xxh3_64(&body));
            let skip = r.random_range(0..=messages);
            let after = source(&header, body, skip as u32).unwrap();
            assert_eq!(described(&after), &described(&before)[skip..], "seed {seed}");
        }
    }

    #[test]
    fn nonsense_is_no_body() {
        // It may be anything but a panic.
        for seed in 0..5000 {
            let mut random = StdRng::seed_from_u64(seed);
            let body = bytes(&mut random, 200);
            let messages = random.random_range(0..100);
            let header = Header { messages, first: 0, written_ms: 0, body_bytes: body.len() as u64, body_sum: 0 };
            let _ = source(&header, body.into(), 0);
        }
    }

    #[test]
    fn a_changed_header_is_none() {
        let writer = BlockWriter::new(&SourceBuilder::new("mqtt").finish(), 5);
        let block = writer.finish(7);
        for at in 0..HEADER_BYTES {
            let mut changed = block.clone();
            changed[at] ^= 0x10;
            assert_eq!(Header::read(&changed), None, "byte {at}");
        }
        assert_eq!(Header::read(&block[..HEADER_BYTES - 1]), None);
    }
}
