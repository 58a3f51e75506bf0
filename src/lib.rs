//! streamer: a declarative stream processor. Rooms in import order; `docs/architecture.md` says what lives where.
pub mod ack;
pub mod cli;
pub mod client;
pub mod codec;
pub mod config;
pub mod diagnostic;
pub mod http;
pub mod input;
pub mod lint;
pub mod message;
pub mod metrics;
pub mod output;
pub mod pipeline;
pub mod registry;
pub mod script;
pub mod spec;
pub mod step;
