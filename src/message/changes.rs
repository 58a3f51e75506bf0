//! What steps have set on messages: key, headers, named metadata. The texts lie in one arena for the whole batch.
use std::sync::Arc;

use super::{ArenaFull, Span};

/// Changes of the messages of one batch.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    /// In the order of the messages that were changed.
    changes: Vec<Change>,
    headers: Vec<(Span, Option<Span>)>,
    meta: Vec<(Arc<str>, Option<Span>)>,
}

/// The changes of one message. `None` inside stands for: taken away.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    key: Option<Option<Span>>,
    /// First and number in `Changes::headers`.
    headers: (u32, u32),
    /// First and number in `Changes::meta`.
    meta: (u32, u32),
}

/// What is to be set on one message. `None` inside takes it away; the texts lie in `texts`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting<'a> {
    pub texts: &'a [u8],
    pub key: Option<Option<Span>>,
    /// Name and value; each name once.
    pub headers: &'a [(Arc<str>, Option<Span>)],
    /// Name and value; each name once.
    pub meta: &'a [(Arc<str>, Option<Span>)],
}

/// The changes of one message, to read.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    all: &'a Changes,
    change: Change,
}

impl Changes {
    /// Adds the changes of the next message: `setting`, and of `before` what it does not change. Answers its number.
    ///
    /// # Errors
    /// `ArenaFull` past 4 GiB of texts.
    pub fn push(&mut self, before: Option<Changed<'_>>, setting: &Setting<'_>) -> Result<u32, ArenaFull> {
        let given = |span: Span| span.of(setting.texts);
        let key = setting.key.map(|key| key.map(given)).or_else(|| before.and_then(Changed::key));
        let key = key.map(|key| key.map(|key| self.text(key)).transpose()).transpose()?;
        let first = self.headers.len();
        let kept = before.into_iter().flat_map(Changed::headers);
        let kept = kept.filter(|(name, _)| !setting.headers.iter().any(|(set, _)| **set == **name));
        let set = setting.headers.iter().map(|(name, value)| (&**name, value.map(given)));
        for (name, value) in set.chain(kept) {
            let header = (self.text(name.as_bytes())?, value.map(|value| self.text(value)).transpose()?);
            self.headers.push(header);
        }
        let headers = range(first, self.headers.len())?;
        let first = self.meta.len();
        let kept = before.into_iter().flat_map(Changed::meta);
        let kept = kept.filter(|(name, _)| !setting.meta.iter().any(|(set, _)| set == *name));
        let set = setting.meta.iter().map(|(name, value)| (name, value.map(given)));
        for (name, value) in set.chain(kept) {
            let value = value.map(|value| self.text(value)).transpose()?;
            self.meta.push((name.clone(), value));
        }
        let meta = range(first, self.meta.len())?;
        self.changes.push(Change { key, headers, meta });
        u32::try_from(self.changes.len() - 1).map_err(|_| ArenaFull)
    }

    fn text(&mut self, text: &[u8]) -> Result<Span, ArenaFull> {
        let span = Span::new(self.bytes.len(), text.len())?;
        self.bytes.extend_from_slice(text);
        Ok(span)
    }

    /// The changes with that number.
    pub fn get(&self, number: u32) -> Changed<'_> {
        Changed { all: self, change: self.changes[number as usize] }
    }

    /// True when some message's headers are changed.
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len()
            + std::mem::size_of_val(&*self.changes)
            + std::mem::size_of_val(&*self.headers)
            + std::mem::size_of_val(&*self.meta)
    }
}

fn range(first: usize, end: usize) -> Result<(u32, u32), ArenaFull> {
    Ok((u32::try_from(first).map_err(|_| ArenaFull)?, u32::try_from(end - first).map_err(|_| ArenaFull)?))
}

impl<'a> Changed<'a> {
    /// The key, when it is changed.
    pub fn key(self) -> Option<Option<&'a [u8]>> {
        self.change.key.map(|key| key.map(|key| key.of(&self.all.bytes)))
    }

    /// The headers that are changed.
    pub fn headers(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone {
        let (first, count) = self.change.headers;
        let bytes = &self.all.bytes;
        self.all.headers[first as usize..][..count as usize].iter().map(|(name, value)| {
            (simdutf8::basic::from_utf8(name.of(bytes)).unwrap_or(""), value.map(|value| value.of(bytes)))
        })
    }

    /// The named metadata that is changed.
    pub fn meta(self) -> impl Iterator<Item = (&'a Arc<str>, Option<&'a [u8]>)> + Clone {
        let (first, count) = self.change.meta;
        let bytes = &self.all.bytes;
        self.all.meta[first as usize..][..count as usize]
            .iter()
            .map(|(name, value)| (name, value.map(|value| value.of(bytes))))
    }
}
