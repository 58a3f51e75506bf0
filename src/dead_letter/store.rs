//! Where a pipeline's dead letters lie: what its `dead_letter:` says.
use std::path::PathBuf;

use serde::Deserialize;

use super::{
    file::{FileMarker, LetterFile},
    found::{Reader, StoreError},
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

/// Marks letters as redriven. Blocks until that is safe.
pub enum Marker {
    Topic(Box<TopicMarker>),
    File(FileMarker),
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
