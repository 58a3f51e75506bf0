//! streamer: a declarative stream processor. Rooms in import order; `docs/architecture.md` says what lives where.
pub mod ack;
pub mod client;
pub mod diagnostic;
pub mod input;
pub mod message;
pub mod metrics;
pub mod output;
pub mod script;
pub mod spec;
pub mod step;
