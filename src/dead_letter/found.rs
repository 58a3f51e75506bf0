//! What is found in a store of dead letters.
use super::{envelope::Envelope, mark::Id};

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

impl Found {
    /// What some JSON is: a letter, unless it cannot be read.
    pub(super) fn of(id: Id, json: &[u8]) -> Self {
        match Envelope::read(json) {
            Ok(envelope) => Self::Letter(Box::new(Stored { id, json: json.to_vec(), envelope })),
            Err(why) => Self::Foreign(id, why),
        }
    }
}
