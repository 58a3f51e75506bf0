//! Connection settings shared by an input and an output of one system. Reads and writes no messages itself.
pub mod clickhouse;
mod contact;
pub mod kafka;
pub mod mqtt;
mod secret;
pub mod tls;

pub use contact::{Contact, Topic};
pub use secret::Secret;
