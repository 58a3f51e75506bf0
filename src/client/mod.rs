//! Connection settings shared by the input and the output of one system.
pub mod kafka;
pub mod secret;

pub use secret::Secret;
