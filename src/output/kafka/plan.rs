//! Where each message of a write goes: topic, key and partition, grouped so that every partition is one call.
use super::topics::Topics;
use crate::{
    message::MessageRef,
    output::{Parcel, Rejection},
    script::Template,
};

/// What of a message decides where it goes.
#[derive(Debug)]
pub struct Address {
    pub topic: Template,
    pub key: Option<Template>,
}

/// A key: the message's own, or a run of `Plan::texts`.
#[derive(Clone, Copy, Debug)]
enum Key {
    None,
    Own,
    Made { start: u32, len: u32 },
}

/// One message of a write.
#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u32,
    topic: u32,
    /// Before `place`: unset.
    partition: i32,
    key: Key,
}

/// Messages for one partition, in order: `entries[start..end]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub topic: usize,
    pub partition: i32,
    pub start: usize,
    pub end: usize,
}

/// A write, addressed.
#[derive(Debug, Default)]
pub struct Plan {
    entries: Vec<Entry>,
    texts: Vec<u8>,
    groups: Vec<Group>,
    /// Topics in use, each once.
    topics: Vec<u32>,
    /// Messages that have no topic, or an impossible one.
    pub rejected: Vec<Rejection>,
    /// Messages whose topic cannot be written to now, and the first reason.
    pub postponed: Vec<u32>,
    pub reason: Option<String>,
}

impl Plan {
    /// Finds topic and key of every message.
    pub fn address(parcel: &Parcel, address: &Address, topics: &mut Topics) -> Self {
        topics.trim();
        let mut plan = Self { entries: Vec::with_capacity(parcel.len()), ..Self::default() };
        let constant = address.topic.constant().map(|name| topics.number(name.as_bytes()));
        let mut name = Vec::new();
        for (index, message) in parcel.iter().enumerate() {
            let index = index as u32;
            let topic = match constant {
                Some(topic) => topic,
                None => {
                    name.clear();
                    if !address.topic.write(message, &mut name) {
                        let reason = "the message lacks a value that the output's `topic` needs".into();
                        plan.rejected.push(Rejection { index, code: "missing-topic".into(), reason });
                        continue;
                    }
                    topics.number(&name)
                }
            };
            match topic {
                Ok(topic) => {
                    let key = plan.key(address, message);
                    plan.entries.push(Entry { index, topic: topic as u32, partition: -1, key });
                }
                Err(fault) => {
                    let name = String::from_utf8_lossy(&name);
                    let reason = format!("`{name}` cannot be the name of a topic: {fault}");
                    plan.rejected.push(Rejection { index, code: "invalid-topic".into(), reason });
                }
            }
        }
        plan.topics = plan.entries.iter().map(|e| e.topic).collect();
        plan.topics.dedup();
        plan.topics.sort_unstable();
        plan.topics.dedup();
        plan
    }

    fn key(&mut self, address: &Address, message: MessageRef<'_>) -> Key {
        let Some(template) = &address.key else {
            return if message.key().is_some() { Key::Own } else { Key::None };
        };
        let start = self.texts.len();
        if !template.write(message, &mut self.texts) {
            return Key::None;
        }
        match (u32::try_from(start), u32::try_from(self.texts.len() - start)) {
            (Ok(start), Ok(len)) => Key::Made { start, len },
            // 4 GiB of keys in one write: more than a batch can hold.
            _ => Key::None,
        }
    }

    /// The topics in use.
    pub fn topics(&self) -> impl Iterator<Item = usize> + use<> {
        self.topics.clone().into_iter().map(|t| t as usize)
    }

    /// Chooses partitions and groups the messages by them, order kept. Messages of unfit topics are postponed.
    pub fn place(&mut self, parcel: &Parcel, topics: &mut Topics) {
        let mut entries = std::mem::take(&mut self.entries);
        // Partitions of all topics in use, numbered through: `bases[t]..` are those of the t-th topic.
        let mut base_of = vec![(0u32, 0usize); self.topics.len()];
        let mut slots = 0;
        for (at, &topic) in self.topics.iter().enumerate() {
            base_of[at] = (topic, slots);
            let known = topics.get(topic as usize);
            slots += known.count().max(0) as usize;
            if known.count() <= 0 && self.reason.is_none() {
                self.reason = known.unfit.clone();
            }
        }
        let base = |topic: u32| base_of[base_of.partition_point(|(t, _)| *t < topic)].1;
        let mut counts = vec![0usize; slots];
        let mut last = (u32::MAX, 0);
        entries.retain_mut(|entry| {
            if entry.topic != last.0 {
                last = (entry.topic, base(entry.topic));
            }
            let known = topics.get(entry.topic as usize);
            let message = parcel.get(entry.index as usize);
            match known.partition(key_of(&self.texts, entry.key, message), message.payload().len()) {
                Some(partition) => {
                    entry.partition = partition;
                    counts[last.1 + partition as usize] += 1;
                    true
                }
                None => {
                    self.postponed.push(entry.index);
                    false
                }
            }
        });
        // A counting sort: stable, so the order within a partition stays.
        let mut starts = Vec::with_capacity(slots);
        let mut start = 0;
        for count in &counts {
            starts.push(start);
            start += count;
        }
        let mut sorted = entries.clone();
        for entry in &entries {
            let slot = base(entry.topic) + entry.partition as usize;
            sorted[starts[slot]] = *entry;
            starts[slot] += 1;
        }
        self.entries = sorted;
        let mut start = 0;
        while let Some(first) = self.entries.get(start) {
            let slot = base(first.topic) + first.partition as usize;
            let end = starts[slot];
            self.groups.push(Group { topic: first.topic as usize, partition: first.partition, start, end });
            start = end;
        }
    }

    /// Messages that will be handed over.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.end - group.start).sum()
    }

    /// The calls to make.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Takes the first `count` messages out of the group at `at`.
    pub fn skip(&mut self, at: usize, count: usize) {
        self.groups[at].start += count;
    }

    /// Indexes in the parcel of `entries[start..end]`, with their keys.
    pub fn messages<'a>(
        &'a self,
        parcel: &'a Parcel,
        start: usize,
        end: usize,
    ) -> impl Iterator<Item = (u32, Option<&'a [u8]>, MessageRef<'a>)> {
        self.entries[start..end].iter().map(move |entry| {
            let message = parcel.get(entry.index as usize);
            (entry.index, key_of(&self.texts, entry.key, message), message)
        })
    }

    /// Index in the parcel of the entry at `at`.
    pub fn index(&self, at: usize) -> u32 {
        self.entries[at].index
    }
}

fn key_of<'a>(texts: &'a [u8], key: Key, message: MessageRef<'a>) -> Option<&'a [u8]> {
    match key {
        Key::None => None,
        Key::Own => message.key(),
        Key::Made { start, len } => Some(&texts[start as usize..][..len as usize]),
    }
}
