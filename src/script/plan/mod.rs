//! Scripts compiled to plans: what most mappings do, done without an interpreter.
//!
//! A plan is a tree of plain operations over the slots of a payload that was scanned once; a map that the script ends
//! with is written member by member straight into the output. It allocates nothing for a message: what it makes lies in
//! an arena that is reset for the next one.
//!
//! Three levels keep its answers those of the interpreter:
//! 1. A script with anything that `compile` does not know is not compiled; a [`Refusal`] says what and where.
//! 2. A message with anything that `run` does not cover (a wrong type, an overflow, a `throw`) is left to the
//!    interpreter, which gives the exact value or the exact error. A plan has no effects, so it can be left at any point.
//! 3. Tests run both on generated scripts and messages and compare.
//!
//! A plan always ends: it has no loops but those over lists, and these, like texts that grow, are paid from a budget.
mod builtins;
mod changed;
mod compile;
mod emit;
mod run;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub(super) use builtins::is_builtin;
pub(super) use changed::changed_in;
pub use compile::Refusal;
pub(super) use compile::compile;
pub(super) use run::{Deopt, Outcome, Payload};
pub(super) use tree::{Place, Plan};

impl Plan {
    /// The places of the payload it looks at; a place's parent comes before it, the payload itself first.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Names of the members of the maps it may end with, sorted.
    pub fn members(&self) -> &[Box<str>] {
        &self.members
    }

    /// True when it asks for the payload as JSON.
    pub fn reads_json(&self) -> bool {
        self.reads_json
    }
}
