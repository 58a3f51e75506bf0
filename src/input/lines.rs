//! Cuts a stream of bytes into messages, one a line. Does no reading itself.
//!
//! A line ends with `\n` or `\r\n`, which is not part of the message; the last one may end with the stream. Empty lines
//! are no messages, but are counted. Nothing is copied: the lines of one chunk share its memory.
use bytes::BytesMut;

use crate::message::{Origin, Source, Span};

/// Most messages of one batch.
const MESSAGES_MAX: usize = 4096;
/// Most bytes asked for in one read.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// The part of a stream that was read and not yet handed out.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// Bytes of the buffer in which there is no line end.
    searched: usize,
    /// Number of the next line, from 1.
    line: i64,
    line_bytes_max: usize,
}

/// A line is longer than the setting allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is longer than `line_bytes_max` ({max} bytes)")]
pub(super) struct LineTooLong {
    line: i64,
    max: usize,
}

impl Lines {
    pub fn new(line_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, line: 1, line_bytes_max }
    }

    /// Where to read more bytes into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The messages of the whole lines that are there, as many as fit into a batch; `None` when more must be read first.
    /// `ended` says that nothing more will come, so that what is left is the last line.
    ///
    /// # Errors
    /// `LineTooLong`, once the lines before it are handed out; and again whenever it is asked after that.
    pub fn take(&mut self, input: &str, received_at_ms: i64, ended: bool) -> Result<Option<Source>, LineTooLong> {
        let mut origins = Vec::new();
        let mut start = 0;
        let mut too_long = false;
        while origins.len() < MESSAGES_MAX && !too_long {
            let from = self.searched.max(start);
            let end = match memchr::memchr(b'\n', &self.buffer[from..]) {
                Some(at) => from + at,
                None if ended && start < self.buffer.len() => self.buffer.len(),
                None => {
                    self.searched = self.buffer.len();
                    // A line that never ends must not fill the memory; the one byte more may be a `\r`.
                    too_long = self.buffer.len() - start > self.line_bytes_max.saturating_add(1);
                    break;
                }
            };
            let line = &self.buffer[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            too_long = line.len() > self.line_bytes_max;
            if too_long {
                break;
            }
            if !line.is_empty() {
                let payload = Span::new(start, line.len()).expect("what is buffered is far below 4 GiB");
                origins.push(Origin { payload, offset: self.line, received_at_ms, ..Origin::default() });
            }
            self.line += 1;
            start = (end + 1).min(self.buffer.len());
        }
        let arena = self.buffer.split_to(start).freeze();
        self.searched = self.searched.saturating_sub(start);
        if origins.is_empty() {
            return if too_long { Err(LineTooLong { line: self.line, max: self.line_bytes_max }) } else { Ok(None) };
        }
        Ok(Some(Source::new(input, arena, origins, Vec::new())))
    }
}

/// Unix milliseconds now.
pub(super) fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_millis() as i64)
}

/// For inputs that cannot acknowledge.
pub(super) struct Nobody;

impl crate::ack::Settle for Nobody {
    fn settle(&self, _: u64, _: crate::ack::Outcome) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `chunks`, with their numbers, and the error at the end.
    fn lines(max: usize, chunks: &[&str]) -> (Vec<(i64, String)>, Option<LineTooLong>) {
        let mut lines = Lines::new(max);
        let mut seen = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            lines.buffer().extend_from_slice(chunk.as_bytes());
            loop {
                match lines.take("test", 0, i + 1 == chunks.len()) {
                    Ok(Some(source)) => seen.extend(
                        source
                            .origins()
                            .iter()
                            .map(|o| (o.offset, String::from_utf8(source.original(o).to_vec()).unwrap())),
                    ),
                    Ok(None) => break,
                    Err(error) => return (seen, Some(error)),
                }
            }
        }
        (seen, None)
    }

    fn check(chunks: &[&str], expected: &[(i64, &str)]) {
        let (seen, error) = lines(5, chunks);
        let seen: Vec<_> = seen.iter().map(|(n, l)| (*n, l.as_str())).collect();
        assert_eq!((seen.as_slice(), error), (expected, None), "{chunks:?}");
    }

    #[test]
    fn streams_are_cut_into_lines() {
        check(&["a\nbc\r\n\nd"], &[(1, "a"), (2, "bc"), (4, "d")]);
        check(&["a", "b\nc", "\n", ""], &[(1, "ab"), (2, "c")]);
        check(&["12345\r\n12345"], &[(1, "12345"), (2, "12345")]);
        check(&["12345\r", "\n"], &[(1, "12345")]);
        check(&["", "\n\n"], &[]);
    }

    #[test]
    fn a_line_too_long_is_an_error_after_those_before_it() {
        for chunks in [&["a\n123456\nb\n"][..], &["a\n12345678", "9"], &["a\n123456"]] {
            let (seen, error) = lines(5, chunks);
            assert_eq!((seen.as_slice(), error), (&[(1, "a".to_owned())][..], Some(LineTooLong { line: 2, max: 5 })));
        }
    }

    #[test]
    fn many_lines_come_in_bounded_batches() {
        let text = "x\n".repeat(MESSAGES_MAX * 2 + 7);
        let (seen, error) = lines(5, &[&text]);
        assert_eq!((seen.len(), seen.last().unwrap().0, error), (MESSAGES_MAX * 2 + 7, seen.len() as i64, None));
        let mut lines = Lines::new(5);
        lines.buffer().extend_from_slice(text.as_bytes());
        assert_eq!(lines.take("test", 0, true).unwrap().unwrap().origins().len(), MESSAGES_MAX);
    }
}
