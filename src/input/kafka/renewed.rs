//! Topics that are deleted and made again while they are read.
//!
//! The offsets of the new topic start anew. Librdkafka learns that the topic has another id before it fetches the first
//! message of the new one, and then goes on at the old position (a FIXME in its `rdkafka_topic.c`). Where the new topic
//! ends before that position, Kafka says so and reading starts over; where it has grown past it, its first messages
//! would be passed over and nobody would notice. So the change of id, which librdkafka tells in its log alone, starts the
//! input over: what we know of the topic is forgotten, and the group's positions are set to the topic's beginning.
//!
//! The log goes through the same queue as messages, so the change is known before any message of the new topic is seen.
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Topics that were found to be others now.
#[derive(Debug, Default)]
pub struct Renewed {
    topics: Mutex<Vec<String>>,
    /// There are some. Asked after every poll.
    some: AtomicBool,
}

impl Renewed {
    /// Reads a line of librdkafka's log.
    pub fn note(&self, text: &str) {
        if let Some(topic) = renewed(text) {
            self.topics.lock().push(topic.to_owned());
            self.some.store(true, Ordering::Release);
        }
    }

    /// Those found since the last call.
    pub fn take(&self) -> Vec<String> {
        if !self.some.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.some.store(false, Ordering::Release);
        std::mem::take(&mut *self.topics.lock())
    }
}

/// The topic that has another id now, from librdkafka's words. The first id it learns replaces one of zeros.
fn renewed(text: &str) -> Option<&str> {
    let (topic, ids) = text.split_once("Topic ")?.1.split_once(" changed id from ")?;
    let known = ids.split_once(" to ")?.0.trim_end_matches('=').bytes().any(|byte| byte != b'A');
    known.then_some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_made_again_is_one_whose_id_changes() {
        let said = "[thrd:main]: Topic a.b-c changed id from bGzl6IGzTkmNXIxJyJcOQw to 0fQxPDdbRqyvU3bIfP6vHQ";
        assert_eq!(renewed(said), Some("a.b-c"));
        let first = "[thrd:main]: Topic a changed id from AAAAAAAAAAAAAAAAAAAAAA to 0fQxPDdbRqyvU3bIfP6vHQ";
        assert_eq!(renewed(first), None);
        assert_eq!(renewed("[thrd:main]: Topic a [0] Leader 1 Epoch 0"), None);
    }

    #[test]
    fn a_change_is_told_once() {
        let noted = Renewed::default();
        assert_eq!(noted.take(), [""; 0]);
        noted.note("[thrd:main]: Topic a changed id from bGzl6IGzTkmNXIxJyJcOQw to 0fQxPDdbRqyvU3bIfP6vHQ");
        assert_eq!(noted.take(), ["a"]);
        assert_eq!(noted.take(), [""; 0]);
    }
}
