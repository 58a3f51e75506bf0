//! Marks: what says that dead letters were redriven.
//!
//! In a topic a mark is a message behind the letters it names, in the same partition, so the topic's retention never
//! takes a mark before its letters. It has the header `streamer_mark`, by which other readers tell it from a letter. For a
//! file the marks are lines of a second file beside it, `FILE.redriven`: the first may be open in a pipeline.
//!
//! A mark is written when the letters have arrived. A process that dies before leaves them open: they are sent again.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::envelope::VERSION;

/// Header of a mark: its value says what it is, `redriven`.
pub const MARK_HEADER: &str = "streamer_mark";
/// The one kind of mark.
pub const REDRIVEN: &str = "redriven";

/// Which letter of a store: `partition:offset` in a topic, the line in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// `None` in a file.
    pub partition: Option<i32>,
    /// The offset, or the line from 1.
    pub offset: i64,
    /// Hash of the line: after a file was emptied, another letter may stand on that line. 0 in a topic, and where
    /// somebody typed the line only.
    pub digest: u64,
}

impl Id {
    /// True when `self`, as somebody typed it, names the letter `other`.
    pub fn names(self, other: Self) -> bool {
        (self.partition, self.offset) == (other.partition, other.offset)
            && (self.digest == 0 || self.digest == other.digest)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(partition) => write!(f, "{partition}:{}", self.offset),
            None => write!(f, "{}", self.offset),
        }
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` names no dead letter; write what `list` shows, `0:42` in a topic, `42` in a file");
        let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(wrong);
        let (partition, offset) = match text.split_once(':') {
            Some((partition, offset)) => {
                (Some(i32::try_from(number(partition)?).map_err(|_| wrong())?), number(offset)?)
            }
            None => (None, number(text)?),
        };
        Ok(Self { partition, offset, digest: 0 })
    }
}

/// The JSON of a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub version: u32,
    /// `redriven`.
    pub mark: String,
    pub pipeline: String,
    /// Where they went: `steps` or `source`.
    pub to: String,
    pub time: String,
    /// `partition:offset`, or `line:hash`.
    letters: Vec<String>,
}

impl Mark {
    /// A mark for letters that have arrived just now.
    pub fn new(pipeline: &str, to: &str, letters: &[Id]) -> Self {
        let text = |id: &Id| match id.partition {
            Some(_) => id.to_string(),
            None => format!("{id}:{:016x}", id.digest),
        };
        Self {
            version: VERSION,
            mark: REDRIVEN.to_owned(),
            pipeline: pipeline.to_owned(),
            to: to.to_owned(),
            time: jiff::Timestamp::now().to_string(),
            letters: letters.iter().map(text).collect(),
        }
    }

    /// The letters of a mark in a topic.
    pub fn in_topic(&self) -> Vec<Id> {
        self.letters.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// The letters of a mark beside a file.
    pub fn in_file(&self) -> Vec<Id> {
        let id = |text: &String| {
            let (line, digest) = text.split_once(':')?;
            let (offset, digest) = (line.parse().ok()?, u64::from_str_radix(digest, 16).ok()?);
            Some(Id { partition: None, offset, digest })
        };
        self.letters.iter().filter_map(id).collect()
    }

    /// The JSON.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_name_letters_of_topics_and_files() {
        let back = |id: Id| serde_json::from_slice::<Mark>(&Mark::new("p", "steps", &[id]).json()).unwrap();
        let topic = Id { partition: Some(3), offset: 42, digest: 0 };
        assert_eq!(back(topic).in_topic(), [topic]);
        let file = Id { partition: None, offset: 7, digest: 0xab };
        assert_eq!(back(file).in_file(), [file]);
    }

    #[test]
    fn what_people_type_names_a_letter() {
        let line = Id { partition: None, offset: 7, digest: 0xab };
        assert!("7".parse::<Id>().unwrap().names(line));
        assert!(!"0:7".parse::<Id>().unwrap().names(line));
        assert!(!Id { digest: 1, ..line }.names(line), "another letter stands on that line now");
        for wrong in ["", "x", "1:", ":1", "-1", "1:-1", "1:2:3"] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }
}
