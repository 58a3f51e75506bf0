//! Connection settings shared by an input and an output of one system. Reads and writes no messages itself.
pub mod clickhouse;
mod contact;
pub mod kafka;
pub mod mqtt;
pub mod probe;
mod secret;
pub mod tls;

pub use contact::{Contact, Topic};
pub use probe::Probe;
pub use secret::Secret;
