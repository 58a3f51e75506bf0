//! What an input read: bytes, and where in them each message lies.
use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;

use super::{ArenaFull, Span};

/// One header: where its name and value lie in the source's bytes. The name is UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub name: Span,
    pub value: Span,
}

/// Metadata of one message as it was received. Fields an input does not have keep their default.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The original payload, in the source's bytes.
    pub payload: Span,
    /// The topic (UTF-8), in the source's bytes. Empty where there is none.
    pub topic: Span,
    /// The key, in the source's bytes.
    pub key: Option<Span>,
    /// First header in `Source::headers`, and how many.
    pub headers: (u32, u16),
    /// Which topic filter of the input it matched, for `Captures`. `u16::MAX` when none with captures did.
    pub filter: u16,
    /// Kafka partition; -1 where there is none.
    pub partition: i32,
    /// Kafka offset, or the line of a file from 1; -1 where there is none.
    pub offset: i64,
    /// When the sender or the broker says it was made, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// When streamer read it, Unix milliseconds.
    pub received_at_ms: i64,
    /// MQTT quality of service it was delivered with, 0 to 2.
    pub qos: u8,
    /// MQTT retain flag.
    pub retain: bool,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            payload: Span::default(),
            topic: Span::default(),
            key: None,
            headers: (0, 0),
            filter: u16::MAX,
            partition: -1,
            offset: -1,
            timestamp_ms: None,
            received_at_ms: 0,
            qos: 0,
            retain: false,
        }
    }
}

/// Names given to levels of a topic: `devices/{device}/telemetry` names level 1 `device`. One list a topic filter.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    /// For each topic filter: name and level, counted from 0.
    pub filters: Vec<Vec<(String, usize)>>,
}

/// The messages are a range that the input has recorded before it handed them out. After a crash the same range comes
/// again, whole and alone, under the same name: an output that remembers the name writes it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Unlike that of any other range, of this input and of those of other pipelines.
    pub name: String,
    /// Another instance may have tried to write the range before; it started to before this.
    pub inherited: Option<Instant>,
}

/// The messages are dead letters that are sent through their pipeline again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redriven {
    /// Only the output of this label gets them: it had refused them, and the others have them.
    pub output: Option<String>,
    /// Only this part of each message failed when it was split; its other parts have arrived.
    pub part: Option<u32>,
    /// For each message, how it failed before: JSON that only dead letters understand.
    pub before: Vec<String>,
}

/// What one read of an input brought: an arena of bytes and one `Origin` a message.
pub struct Source {
    input: Arc<str>,
    bytes: Bytes,
    origins: Vec<Origin>,
    headers: Vec<Header>,
    captures: Option<Arc<Captures>>,
    recorded: Option<Recorded>,
    redriven: Option<Box<Redriven>>,
    guard: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Source {
    /// A source over bytes that the input has read already; every span of `origins` and `headers` points into `bytes`.
    /// `input` is the component's name, for example `mqtt`.
    pub fn new(input: impl Into<Arc<str>>, bytes: Bytes, origins: Vec<Origin>, headers: Vec<Header>) -> Self {
        Self {
            input: input.into(),
            bytes,
            origins,
            headers,
            captures: None,
            recorded: None,
            redriven: None,
            guard: OnceLock::new(),
        }
    }

    /// The same, with names for topic levels.
    pub fn with_captures(mut self, captures: Arc<Captures>) -> Self {
        self.captures = Some(captures);
        self
    }

    /// The same, as a range that is recorded.
    pub fn with_recorded(mut self, recorded: Recorded) -> Self {
        self.recorded = Some(recorded);
        self
    }

    /// The range that it is, if it was recorded.
    pub fn recorded(&self) -> Option<&Recorded> {
        self.recorded.as_ref()
    }

    /// The same, as dead letters that are sent again.
    pub fn with_redriven(mut self, redriven: Redriven) -> Self {
        self.redriven = Some(Box::new(redriven));
        self
    }

    /// What to do with the messages if they are dead letters that are sent again.
    pub fn redriven(&self) -> Option<&Redriven> {
        self.redriven.as_deref()
    }

    /// Name of the component that read it.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// The arena.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The messages as they were received.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// The payload as it was received.
    pub fn original(&self, origin: &Origin) -> &[u8] {
        origin.payload.of(&self.bytes)
    }

    /// The topic a message was received on; empty where the input has none.
    pub fn topic(&self, origin: &Origin) -> &str {
        // Inputs check topics on arrival, so the fallback is for an input that did not.
        simdutf8::basic::from_utf8(origin.topic.of(&self.bytes)).unwrap_or("")
    }

    /// The key a message was received with.
    pub fn key(&self, origin: &Origin) -> Option<&[u8]> {
        origin.key.map(|k| k.of(&self.bytes))
    }

    /// The headers a message was received with.
    pub fn headers(&self, origin: &Origin) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        let (first, count) = (origin.headers.0 as usize, origin.headers.1 as usize);
        self.headers[first..first + count]
            .iter()
            .map(|h| (simdutf8::basic::from_utf8(h.name.of(&self.bytes)).unwrap_or(""), h.value.of(&self.bytes)))
    }

    /// True when any message has headers. Outputs take their faster way when none does.
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// The topic level that the matching filter calls `name`.
    pub fn capture(&self, origin: &Origin, name: &str) -> Option<&str> {
        let level = self.levels(origin).iter().find(|(n, _)| n == name)?.1;
        self.topic(origin).split('/').nth(level)
    }

    /// The names for topic levels, of all filters.
    pub fn all_captures(&self) -> Option<&Arc<Captures>> {
        self.captures.as_ref()
    }

    /// The topic levels that the matching filter gives names to: name and number, from 0.
    pub fn levels(&self, origin: &Origin) -> &[(String, usize)] {
        let filter = self.captures.as_ref().and_then(|captures| captures.filters.get(origin.filter as usize));
        filter.map_or(&[], Vec::as_slice)
    }

    /// Names and values of all captures of a message.
    pub fn captures(&self, origin: &Origin) -> impl Iterator<Item = (&str, &str)> {
        self.levels(origin)
            .iter()
            .filter_map(|(name, level)| Some((name.as_str(), self.topic(origin).split('/').nth(*level)?)))
    }

    pub(super) fn hold(&self, guard: Box<dyn Any + Send + Sync>) {
        let held = self.guard.set(guard);
        debug_assert!(held.is_ok(), "a source is held once");
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("input", &self.input).field("origins", &self.origins).finish_non_exhaustive()
    }
}

/// Copies messages one by one into an arena, for inputs whose library owns the bytes it reads.
pub struct SourceBuilder {
    input: Arc<str>,
    parts: Parts,
    origins: Vec<Origin>,
}

/// The arena under construction. Each call appends bytes and answers where they lie.
#[derive(Default)]
pub struct Parts {
    bytes: Vec<u8>,
    headers: Vec<Header>,
    last_text: Span,
}

impl Parts {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// `ArenaFull` past 4 GiB.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<Span, ArenaFull> {
        let span = Span::new(self.bytes.len(), bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(span)
    }

    /// Appends `text` unless it is the text appended last: a topic repeated by message after message is stored once.
    ///
    /// # Errors
    /// `ArenaFull` past 4 GiB.
    pub fn text(&mut self, text: &str) -> Result<Span, ArenaFull> {
        if self.last_text.of(&self.bytes) != text.as_bytes() {
            self.last_text = self.bytes(text.as_bytes())?;
        }
        Ok(self.last_text)
    }

    /// Appends a header of `origin`. All headers of one message are added one after the other.
    ///
    /// # Errors
    /// `ArenaFull` past 4 GiB.
    pub fn header(&mut self, origin: &mut Origin, name: &str, value: &[u8]) -> Result<(), ArenaFull> {
        if origin.headers.1 == 0 {
            origin.headers.0 = u32::try_from(self.headers.len()).map_err(|_| ArenaFull)?;
        }
        origin.headers.1 = origin.headers.1.checked_add(1).ok_or(ArenaFull)?;
        let (name, value) = (self.bytes(name.as_bytes())?, self.bytes(value)?);
        self.headers.push(Header { name, value });
        Ok(())
    }
}

impl SourceBuilder {
    /// An empty source of the component called `input`.
    pub fn new(input: impl Into<Arc<str>>) -> Self {
        Self { input: input.into(), parts: Parts::default(), origins: Vec::new() }
    }

    /// Adds a message; `describe` fills in its metadata and appends topic, key and headers.
    ///
    /// # Errors
    /// `ArenaFull` past 4 GiB; the message is then not added.
    pub fn push(
        &mut self,
        payload: &[u8],
        describe: impl FnOnce(&mut Origin, &mut Parts) -> Result<(), ArenaFull>,
    ) -> Result<(), ArenaFull> {
        let mut origin = Origin { payload: self.parts.bytes(payload)?, ..Origin::default() };
        describe(&mut origin, &mut self.parts)?;
        self.origins.push(origin);
        Ok(())
    }

    /// Messages so far.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// True when no message was added yet.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.parts.bytes.len()
    }

    /// The finished source.
    pub fn finish(self) -> Source {
        Source::new(self.input, Bytes::from(self.parts.bytes), self.origins, self.parts.headers)
    }
}
