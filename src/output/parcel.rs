//! What one write hands to an output.
use std::sync::Arc;

use crate::message::{Batch, MessageRef, Recorded};

/// Messages of one or more batches, in order, that are written together. Cloning copies no payload.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    parts: Vec<Arc<Batch>>,
    /// Index in the parcel of each part's first message.
    starts: Vec<usize>,
    len: usize,
    bytes: usize,
}

impl Parcel {
    /// A parcel of one batch.
    pub fn of(batch: Arc<Batch>) -> Self {
        let mut parcel = Self::default();
        parcel.push(batch);
        parcel
    }

    /// Adds the messages of a batch at the end.
    pub fn push(&mut self, batch: Arc<Batch>) {
        self.starts.push(self.len);
        self.len += batch.len();
        self.bytes += batch.payload_bytes();
        self.parts.push(batch);
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no message.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Payload bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The range that it is, or is left of, when its input records ranges. Such a parcel holds one batch.
    pub fn recorded(&self) -> Option<&Recorded> {
        self.parts.first().and_then(|batch| batch.source().recorded())
    }

    /// The batches it is made of.
    pub fn parts(&self) -> &[Arc<Batch>] {
        &self.parts
    }

    /// The messages in order; the position is the index that `Rejection` and `Retry` use.
    pub fn iter(&self) -> impl Iterator<Item = MessageRef<'_>> + Clone {
        self.parts.iter().flat_map(|batch| batch.iter())
    }

    /// The message at `index`.
    pub fn get(&self, index: usize) -> MessageRef<'_> {
        let part = self.starts.partition_point(|&start| start <= index) - 1;
        self.parts[part].get(index - self.starts[part])
    }

    /// The messages at `indexes`, which rise, as a parcel of their own.
    pub fn select(&self, indexes: &[u32]) -> Self {
        let mut parcel = Self::default();
        let mut rest = indexes;
        for (part, &start) in self.parts.iter().zip(&self.starts) {
            let end = start + part.len();
            let here = rest.partition_point(|&i| (i as usize) < end);
            if here > 0 {
                let local: Vec<u32> = rest[..here].iter().map(|&i| i - start as u32).collect();
                parcel.push(Arc::new(part.select(&local)));
                rest = &rest[here..];
            }
        }
        parcel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::SourceBuilder;

    fn batch(payloads: &[&str]) -> Arc<Batch> {
        let mut source = SourceBuilder::new("test");
        for payload in payloads {
            source.push(payload.as_bytes(), |_, _| Ok(())).unwrap();
        }
        Arc::new(Batch::new(source.finish()))
    }

    #[test]
    fn a_selection_keeps_order_and_parts() {
        let mut parcel = Parcel::of(batch(&["a", "b"]));
        parcel.push(batch(&["c"]));
        parcel.push(batch(&["d", "e"]));
        assert_eq!((parcel.len(), parcel.bytes()), (5, 5));
        assert_eq!(parcel.get(2).payload(), b"c");
        assert_eq!(parcel.get(4).payload(), b"e");
        let some = parcel.select(&[1, 3, 4]);
        assert_eq!(some.iter().map(|m| m.payload()).collect::<Vec<_>>(), [b"b", b"d", b"e"]);
        assert_eq!(some.parts().len(), 2);
        assert!(parcel.select(&[]).is_empty());
    }
}
