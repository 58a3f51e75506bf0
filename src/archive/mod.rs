//! The archive: every message as it was received, kept in files that other tools can read.
//!
//! ```text
//! archive/mqtt/
//!   .segments/0197….segment                     messages as they come: appended and synced before they are confirmed
//!   .lock                                       held by the one pipeline that writes here
//!   date=2026-11-24/hour=09/0197….parquet       finished: sorted by time, one file for each hour of a segment
//! ```
//!
//! A message is safe once its segment is synced. A segment that is full or old enough becomes Parquet on a thread of its
//! own, and is deleted only when all its files are in place under names that follow from its own: a crash in between
//! makes the same files again. Days and hours are those of `received_at`, in UTC.
mod convert;
mod file;
mod place;
mod read;
mod remote;
mod row;
mod segment;
mod store;

pub use file::{Chunk, ReadError, Reader};
pub use place::Place;
pub use read::{Part, Parts, list, rows};
pub use remote::Remote;
pub use row::{Headers, Row};
pub use segment::frames;
pub use store::{Keep, Settings, Store};

/// Version of the columns, in each file's metadata under [`VERSION_KEY`]. A file of a later version is refused.
pub const VERSION: u32 = 1;
/// Key of the version in a file's metadata.
pub const VERSION_KEY: &str = "streamer.archive";

/// In the folder of an archive whose files go to an object store: only their pipeline may finish them.
const REMOTE: &str = ".remote";
/// Folder of the segments, inside the archive's. Other tools skip names with a dot.
const SEGMENTS: &str = ".segments";
