//! Dead letters as they lie in a topic or a file: the envelope, reading them back, choosing among them, and the marks that
//! say which were redriven.
//!
//! A store is read from its beginning to its end as of the moment it was opened. A mark (`mark`) lies behind the letters it
//! names, so what is open is known only at the end: `survey` reads once and remembers a few bytes a letter, and who needs
//! the letters themselves reads once more. Nothing else is kept about letters anywhere.
mod envelope;
mod file;
mod found;
mod groups;
mod kept;
mod mark;
mod redrive;
mod select;
mod store;
mod survey;
mod topic;

pub use envelope::{Envelope, Header, Letter, Part, Past, REDRIVEN_HEADER, Received, envelopes, write_letter};
pub use found::{Found, Reader, StoreError, Stored};
pub use groups::Group;
pub use kept::Kept;
pub use mark::{Id, MARK_HEADER, Mark};
pub use redrive::{Letters, Progress, Way};
pub use select::{Filter, moment};
pub use store::{Marker, Store};
pub use survey::{Entry, Survey, survey};
