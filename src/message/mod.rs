//! Messages. Everything moves in batches, and a batch is one arena of bytes plus small descriptors that point into it.
//!
//! ```text
//! Source   bytes:   [topic|payload|topic|payload|…]   as the input read them; never changed, kept until the ack
//!          origins: [Origin, Origin, …]               where in `bytes` each message's parts lie, and its metadata
//! Batch    bytes:   [payload|payload|…]               the payloads as the last step left them (at first: the source's)
//!          messages: [Message{origin, payload}, …]    fewer, as many or more than origins: steps filter and split
//! ```
//!
//! Cloning a `Batch` copies descriptors, never payloads. The original bytes stay reachable through `origin`, so a dead
//! letter can always show what was really received. Nothing here allocates per message.
mod layout;
mod source;

use std::{any::Any, sync::Arc};

use bytes::Bytes;

pub use layout::{Document, Documents, Key, Layout, NodeId, Scanned, Slot, SlotKind};
pub use source::{Captures, Header, Origin, Source, SourceBuilder};

/// A run of bytes inside an arena: start and length, at most 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

/// An arena would pass 4 GiB, the most a `Span` can address.
#[derive(Debug, thiserror::Error)]
#[error("a batch cannot hold more than 4 GiB of bytes")]
pub struct ArenaFull;

impl Span {
    /// The span `start..start + len`, in bytes.
    ///
    /// # Errors
    /// `ArenaFull` when the end lies past 4 GiB.
    pub fn new(start: usize, len: usize) -> Result<Self, ArenaFull> {
        let end = start.checked_add(len).ok_or(ArenaFull)?;
        u32::try_from(end).map_err(|_| ArenaFull)?;
        Ok(Self { start: start as u32, len: len as u32 })
    }

    /// The bytes of this span in `arena`. The span must have been made for that arena.
    pub fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..][..self.len as usize]
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// True when the span holds no bytes.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// One message on its way: its payload as the last step left it, and which message of the source it came from.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Index into `Source::origins`.
    pub origin: u32,
    /// Where the payload lies in `Batch::bytes`.
    pub payload: Span,
}

/// Messages that move together, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    source: Arc<Source>,
    bytes: Bytes,
    messages: Vec<Message>,
}

impl Batch {
    /// Every message of `source`, payloads unchanged.
    pub fn new(source: Source) -> Self {
        let bytes = source.bytes().clone();
        let messages = source
            .origins()
            .iter()
            .enumerate()
            .map(|(i, o)| Message { origin: i as u32, payload: o.payload })
            .collect();
        Self { source: Arc::new(source), bytes, messages }
    }

    /// How many messages are in the batch.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when no message is left, for example because a filter dropped them all.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What the input read, shared by every batch made from it.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The message at `index`, in batch order.
    pub fn get(&self, index: usize) -> MessageRef<'_> {
        MessageRef { batch: self, message: self.messages[index] }
    }

    /// The messages in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MessageRef<'_>> + Clone {
        self.messages.iter().map(|&message| MessageRef { batch: self, message })
    }

    /// Bytes of all current payloads together.
    pub fn payload_bytes(&self) -> usize {
        self.messages.iter().map(|m| m.payload.len()).sum()
    }

    /// Bytes of memory this batch keeps alive: the source's arena and, after a step, the payloads' own.
    pub fn memory_bytes(&self) -> usize {
        let own = if self.bytes.as_ptr() == self.source.bytes().as_ptr() { 0 } else { self.bytes.len() };
        self.source.bytes().len() + own + self.messages.len() * size_of::<Message>()
    }

    /// Keeps only the messages for which `keep` answers true. Payloads are not touched.
    pub fn retain(&mut self, mut keep: impl FnMut(MessageRef<'_>) -> bool) {
        let mut messages = std::mem::take(&mut self.messages);
        messages.retain(|&message| keep(MessageRef { batch: self, message }));
        self.messages = messages;
    }

    /// The messages at `indexes`, in that order, sharing this batch's bytes.
    pub fn select(&self, indexes: &[u32]) -> Self {
        let messages = indexes.iter().map(|&i| self.messages[i as usize]).collect();
        Self { source: self.source.clone(), bytes: self.bytes.clone(), messages }
    }

    /// Starts a batch with new payloads for messages of this one.
    pub fn rewrite(&self) -> BatchWriter {
        BatchWriter {
            source: self.source.clone(),
            bytes: Vec::with_capacity(self.payload_bytes() * 5 / 4),
            messages: Vec::with_capacity(self.len()),
        }
    }

    /// Ties `guard` to the memory of this batch: it is dropped together with the source's bytes. The pipeline hangs its
    /// byte budget on this. Only for a batch whose source nobody shares yet, as an input hands it out.
    pub fn hold(&mut self, guard: Box<dyn Any + Send + Sync>) {
        let source = Arc::get_mut(&mut self.source);
        debug_assert!(source.is_some(), "the source of a new batch is not shared");
        if let Some(source) = source {
            source.hold(guard);
        }
    }
}

/// Writes the payloads a step makes into a new arena.
#[derive(Debug)]
pub struct BatchWriter {
    source: Arc<Source>,
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

impl BatchWriter {
    /// Adds one message that came from `origin`. `write` appends its payload to the buffer; when it fails, what it wrote
    /// is taken back and no message is added.
    ///
    /// # Errors
    /// Whatever `write` answers, or `ArenaFull`.
    pub fn push<E: From<ArenaFull>>(
        &mut self,
        origin: u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let span = write(&mut self.bytes).and_then(|()| Ok(Span::new(start, self.bytes.len() - start)?));
        match span {
            Ok(payload) => {
                self.messages.push(Message { origin, payload });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// The finished batch.
    pub fn finish(self) -> Batch {
        Batch { source: self.source, bytes: Bytes::from(self.bytes), messages: self.messages }
    }
}

/// One message of a batch, to read.
#[derive(Clone, Copy)]
pub struct MessageRef<'a> {
    batch: &'a Batch,
    message: Message,
}

impl<'a> MessageRef<'a> {
    /// The payload as the last step left it.
    pub fn payload(self) -> &'a [u8] {
        self.message.payload.of(&self.batch.bytes)
    }

    /// Index of the message in the source it came from.
    pub fn origin_index(self) -> u32 {
        self.message.origin
    }

    /// Metadata and original bytes of the message it came from.
    pub fn origin(self) -> &'a Origin {
        &self.batch.source.origins()[self.message.origin as usize]
    }

    /// What the input read this message with.
    pub fn source(self) -> &'a Source {
        &self.batch.source
    }

    /// The topic it was received on; empty where the input has none.
    pub fn topic(self) -> &'a str {
        self.batch.source.topic(self.origin())
    }

    /// The key it was received with.
    pub fn key(self) -> Option<&'a [u8]> {
        self.batch.source.key(self.origin())
    }

    /// The headers it was received with, as name and value.
    pub fn headers(self) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> {
        self.batch.source.headers(self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(payloads: &[&str]) -> Batch {
        let mut source = SourceBuilder::new("test");
        for (i, payload) in payloads.iter().enumerate() {
            source
                .push(payload.as_bytes(), |o, b| {
                    o.topic = b.text("t")?;
                    o.key = Some(b.bytes(format!("k{i}").as_bytes())?);
                    o.offset = i as i64;
                    Ok(())
                })
                .unwrap();
        }
        Batch::new(source.finish())
    }

    #[test]
    fn a_rewritten_message_keeps_its_original_bytes() {
        let old = batch(&["one", "two", "three"]);
        let mut writer = old.rewrite();
        for m in old.iter().filter(|m| m.payload() != b"two") {
            writer
                .push::<ArenaFull>(m.origin_index(), |out| {
                    out.extend(m.payload().iter().rev());
                    Ok(())
                })
                .unwrap();
        }
        let new = writer.finish();
        let seen: Vec<_> =
            new.iter().map(|m| (m.payload(), m.source().original(m.origin()), m.key().unwrap())).collect();
        assert_eq!(seen, [(&b"eno"[..], &b"one"[..], &b"k0"[..]), (b"eerht", b"three", b"k2")]);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let old = batch(&["a", "b"]);
        let mut writer = old.rewrite();
        let failed = writer.push(0, |out| {
            out.extend_from_slice(b"half");
            Err(ArenaFull)
        });
        assert!(failed.is_err());
        writer
            .push::<ArenaFull>(1, |out| {
                out.extend_from_slice(b"whole");
                Ok(())
            })
            .unwrap();
        let new = writer.finish();
        assert_eq!(new.iter().map(|m| m.payload()).collect::<Vec<_>>(), [b"whole"]);
    }

    #[test]
    fn select_and_retain_share_the_bytes() {
        let all = batch(&["a", "b", "c", "d"]);
        let mut some = all.select(&[3, 1]);
        assert_eq!(some.iter().map(|m| m.payload()).collect::<Vec<_>>(), [b"d", b"b"]);
        some.retain(|m| m.origin().offset == 1);
        assert_eq!(some.len(), 1);
        assert_eq!(some.payload_bytes(), 1);
    }

    #[test]
    fn a_span_past_4_gib_is_refused() {
        assert!(Span::new(u32::MAX as usize, 1).is_err());
        assert!(Span::new(usize::MAX, 1).is_err());
        assert!(Span::new(u32::MAX as usize, 0).is_ok());
    }

    #[test]
    fn a_guard_is_dropped_with_the_last_batch() {
        let guard = Arc::new(());
        let mut first = batch(&["a"]);
        first.hold(Box::new(guard.clone()));
        let second = first.clone();
        drop(first);
        assert_eq!(Arc::strong_count(&guard), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
