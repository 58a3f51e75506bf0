//! The batch that is being read: messages are copied out of librdkafka's buffers, which would otherwise be held whole
//! for as long as any message of them is on its way.
use std::{borrow::Cow, ffi::CStr, ptr};

use rdkafka::{
    Message,
    message::{BorrowedHeaders, BorrowedMessage, Headers},
};
use rdkafka_sys as sys;

use super::assignment::{Place, Range};
use crate::message::{ArenaFull, Batch, SourceBuilder};

/// Messages read and not yet offered.
pub struct Draft {
    source: SourceBuilder,
    ranges: Vec<Range>,
    /// The range that the last message belongs to: the next one most often does too.
    last: usize,
    /// Partitions taken away, and how many messages had been read by then: those of them do not count.
    gone: Vec<(Place, usize)>,
}

impl Draft {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self { source: SourceBuilder::new("kafka"), ranges: Vec::new(), last: 0, gone: Vec::new() }
    }

    /// True when nothing was read.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// Messages so far.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.source.bytes()
    }

    /// Copies a message.
    ///
    /// # Errors
    /// `ArenaFull` past 4 GiB; the message was not taken.
    pub fn push(&mut self, message: &BorrowedMessage<'_>, received_at_ms: i64) -> Result<(), ArenaFull> {
        copy(&mut self.source, message, received_at_ms)?;
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        self.extend(topic, partition, offset);
        Ok(())
    }

    fn extend(&mut self, topic: &str, partition: i32, offset: i64) {
        let fits = |r: &Range| r.partition == partition && r.topic == topic && r.end <= offset;
        if !self.ranges.get(self.last).is_some_and(fits) {
            // Newest first: a partition whose offsets start again gets a second range, after the first.
            self.last =
                self.ranges.iter().rposition(|r| r.partition == partition && r.topic == topic).unwrap_or(usize::MAX);
            if !self.ranges.get(self.last).is_some_and(fits) {
                self.last = self.ranges.len();
                self.ranges.push(Range { topic: topic.to_owned(), partition, first: offset, end: offset });
            }
        }
        self.ranges[self.last].end = offset + 1;
    }

    /// Forgets what was read of partitions that were taken away. When one of them comes back it is read again from its
    /// committed position, which may lie before messages that are on their way or in here.
    pub fn forget(&mut self, places: Vec<Place>) {
        self.ranges.retain(|r| !places.iter().any(|(t, p)| *t == r.topic && *p == r.partition));
        self.last = usize::MAX;
        let read = self.source.len();
        self.gone.extend(places.into_iter().map(|place| (place, read)));
    }

    /// The batch and its ranges. It may be empty, if all of it was forgotten.
    pub fn finish(self) -> (Batch, Vec<Range>) {
        let Self { source, ranges, gone, .. } = self;
        let mut batch = Batch::new(source.finish());
        if !gone.is_empty() {
            batch.retain(|m| {
                let is_gone = |((topic, partition), read): &(Place, usize)| {
                    (m.origin_index() as usize) < *read && m.origin().partition == *partition && m.topic() == topic
                };
                !gone.iter().any(is_gone)
            });
        }
        (batch, ranges)
    }
}

/// Copies a message with its key, headers and metadata.
///
/// # Errors
/// `ArenaFull` past 4 GiB; the message was not taken.
pub fn copy(source: &mut SourceBuilder, message: &BorrowedMessage<'_>, received_at_ms: i64) -> Result<(), ArenaFull> {
    source.push(message.payload().unwrap_or_default(), |origin, parts| {
        origin.topic = parts.text(message.topic())?;
        origin.key = message.key().map(|key| parts.bytes(key)).transpose()?;
        origin.partition = message.partition();
        origin.offset = message.offset();
        origin.timestamp_ms = message.timestamp().to_millis();
        origin.received_at_ms = received_at_ms;
        if let Some(headers) = message.headers() {
            for index in 0..headers.count() {
                if let Some((name, value)) = header(headers, index) {
                    parts.header(origin, &name, value)?;
                }
            }
        }
        Ok(())
    })
}

/// Name and value of a header. The crate's own accessor panics on a name that is not UTF-8, so one odd message would
/// stop the input for good; here such a name is read as well as it goes.
fn header(headers: &BorrowedHeaders, index: usize) -> Option<(Cow<'_, str>, &[u8])> {
    let raw = ptr::from_ref(headers).cast::<sys::rd_kafka_headers_t>();
    let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
    // SAFETY: a `BorrowedHeaders` reference is the pointer to librdkafka's list of headers (that is how the crate makes
    // and uses it), which lives as long as the message that `headers` borrows from. The three out pointers are valid.
    let error = unsafe { sys::rd_kafka_header_get_all(raw, index, &raw mut name, &raw mut value, &raw mut len) };
    if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    // SAFETY: on success `name` is a C string inside the list, alive as long as the list.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let value = if value.is_null() {
        &[][..]
    } else {
        // SAFETY: a value that is not null has `len` initialised bytes inside the list, alive as long as the list.
        unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len) }
    };
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `push`, without a broker.
    fn read(draft: &mut Draft, partition: i32, offset: i64) {
        draft
            .source
            .push(b"x", |o, parts| {
                o.topic = parts.text("t")?;
                (o.partition, o.offset) = (partition, offset);
                Ok(())
            })
            .unwrap();
        draft.extend("t", partition, offset);
    }

    #[test]
    fn messages_read_before_a_revoke_are_forgotten_and_those_after_it_kept() {
        let mut draft = Draft::new();
        [(0, 105), (1, 7), (0, 106)].into_iter().for_each(|(p, o)| read(&mut draft, p, o));
        draft.forget(vec![("t".into(), 0)]);
        [(0, 100), (1, 8), (0, 101)].into_iter().for_each(|(p, o)| read(&mut draft, p, o));
        let (batch, ranges) = draft.finish();
        let left: Vec<_> = batch.iter().map(|m| (m.origin().partition, m.origin().offset)).collect();
        assert_eq!(left, [(1, 7), (0, 100), (1, 8), (0, 101)]);
        let ranges: Vec<_> = ranges.iter().map(|r| (r.partition, r.first, r.end)).collect();
        assert_eq!(ranges, [(1, 7, 9), (0, 100, 102)]);
    }

    #[test]
    fn ranges_span_holes_and_keep_partitions_apart() {
        let mut draft = Draft::new();
        for (partition, offset) in [(0, 5), (0, 6), (1, 90), (0, 9), (0, 10), (1, 91), (0, 0), (0, 1)] {
            draft.extend("t", partition, offset);
        }
        let seen: Vec<_> = draft.ranges.iter().map(|r| (r.partition, r.first, r.end)).collect();
        assert_eq!(seen, [(0, 5, 11), (1, 90, 92), (0, 0, 2)]);
    }
}
