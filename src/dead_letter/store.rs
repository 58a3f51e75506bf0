//! Where a pipeline's dead letters lie: what its `dead_letter:` says.
use std::path::PathBuf;

use serde::Deserialize;

use super::{
    envelope::Envelope,
    file::{FileMarker, LetterFile},
    mark::Id,
    topic::{Topic, TopicMarker},
};
use crate::config::Component;

/// Dead letters that can be read back.
#[derive(Clone, Debug)]
pub enum Store {
    Topic(Box<Topic>),
    File(LetterFile),
}

/// Why dead letters cannot be read or marked: what was tried, on what, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// One thing that lies in a store.
#[derive(Debug)]
pub enum Found {
    Letter(Box<Stored>),
    /// These were redriven.
    Mark(Vec<Id>),
    /// No dead letter, and why.
    Foreign(Id, String),
}

/// A dead letter in its store.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: Id,
    /// As it lies there.
    pub json: Vec<u8>,
    pub envelope: Envelope,
}

/// Reads a store from its beginning to the end that it had at the start. Blocks.
pub type Reader = Box<dyn Iterator<Item = Result<Found, StoreError>> + Send>;

/// Marks letters as redriven. Blocks until that is safe.
pub enum Marker {
    Topic(Box<TopicMarker>),
    File(FileMarker),
}

impl Found {
    /// What some JSON is: a letter, unless it cannot be read.
    pub(super) fn of(id: Id, json: &[u8]) -> Self {
        match Envelope::read(json) {
            Ok(envelope) => Self::Letter(Box::new(Stored { id, json: json.to_vec(), envelope })),
            Err(why) => Self::Foreign(id, why),
        }
    }
}

impl Store {
    /// The store that a `dead_letter:` writes to.
    ///
    /// # Errors
    /// It writes where nothing can be read back, or to topics that differ by message.
    pub fn of(component: &Component) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct File {
            path: PathBuf,
        }
        let section = &component.section;
        match component.name.as_str() {
            "kafka" => Topic::of(section).map(|topic| Self::Topic(Box::new(topic))).map_err(StoreError),
            "file" => {
                let File { path } = serde_yaml::from_value(section.value.clone())
                    .map_err(|error| StoreError(format!("`dead_letter: file` cannot be read: {error}")))?;
                Ok(Self::File(LetterFile::new(section.folder.join(path))))
            }
            other => Err(StoreError(format!(
                "dead letters that went to `{other}` cannot be read back; `kafka` and `file` can"
            ))),
        }
    }

    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Topic(topic) => topic.shown(),
            Self::File(file) => format!("file `{}`", file.path().display()),
        }
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// It is not there, or does not answer.
    pub fn open(&self) -> Result<Reader, StoreError> {
        match self {
            Self::Topic(topic) => Ok(Box::new(topic.open()?)),
            Self::File(file) => Ok(Box::new(file.open()?)),
        }
    }

    /// Opens it for marks of letters of `pipeline` that went `to` somewhere.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn marker(&self, pipeline: &str, to: &str) -> Result<Marker, StoreError> {
        match self {
            Self::Topic(topic) => topic.marker(pipeline, to).map(|marker| Marker::Topic(Box::new(marker))),
            Self::File(file) => file.marker(pipeline, to).map(Marker::File),
        }
    }
}

impl Marker {
    /// Says that these letters have arrived. They are safe from being redriven again once this returns.
    ///
    /// # Errors
    /// They may be redriven again.
    pub fn mark(&mut self, letters: &[Id]) -> Result<(), StoreError> {
        match self {
            Self::Topic(marker) => marker.mark(letters),
            Self::File(marker) => marker.mark(letters),
        }
    }
}
