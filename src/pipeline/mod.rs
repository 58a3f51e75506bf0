//! Pipelines at work: reading, steps, batching, retries, dead letters and acks. No component is known here by name.
//!
//! ```text
//!  lane (one an input)                                  writer (one an output)
//!  Input::read ─▶ budget ─▶ steps ─▶ route by `when` ─▶ Batcher ─▶ Output::write ─▶ retry? ─▶ ack
//!                              │ failed                               │ rejected
//!                              └────────────▶ dead letters ◀──────────┘   (a writer of their own)
//! ```
//!
//! Every message ends as delivered, dead-lettered, filtered or not acknowledged; `ack` says how that is kept. A lane is
//! sequential and in order; lanes and writers are tasks of their own. Stopping runs the same way: lanes stop reading,
//! writers write what they have, and only then the inputs say goodbye.
mod backoff;
mod batcher;
mod budget;
mod build;
mod dead_letter;
mod run;
mod spool;
mod supervisor;
#[cfg(test)]
mod tests;
mod trial;
mod work;
mod writer;

pub use budget::Memory;
pub use run::{Environment, InputPart, Limits, OutputPart, Pipeline};
pub use spool::Settings as Spool;
pub use supervisor::Supervisor;
pub use trial::{Sample, Through, Trial, Tried, TriedLetter, TriedMessage, bytes_text, check_case};
pub use work::StepPart;

/// Why a pipeline ended before it was told to. What was not acknowledged comes again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PipelineError {
    /// A bad message, and nowhere to put it.
    #[error(
        "{position} cannot be delivered ({stage}: {reason}), and the pipeline has no `dead_letter:` to put it in; add one, or repair the message's source"
    )]
    NoDeadLetter { stage: String, reason: String, position: String },
    /// The dead-letter output refuses a dead letter even without its payload.
    #[error("the dead-letter output refuses a dead letter: {reason}")]
    DeadLetterRefused { reason: String },
    /// A batch grew past what an arena can hold.
    #[error("a batch grew past 4 GiB; lower the input's batch size")]
    TooLarge,
    /// Another part of the pipeline has ended.
    #[error("another part of the pipeline has stopped")]
    Stopped,
    /// A bug in streamer.
    #[error("internal error in {part}: {message}; please report it")]
    Panicked { part: String, message: String },
}
