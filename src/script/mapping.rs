//! Scripts as the rest of streamer sees them: a `Mapping` makes a new payload, a `Condition` answers yes or no.
use super::{
    document,
    program::{Answer, Program, ScriptError},
};
use crate::{
    diagnostic::{Fault, ScriptPlace},
    message::MessageRef,
};

/// A script whose value is the new payload, as JSON. `()` is `null`.
pub struct Mapping {
    program: Program,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Its new payload is written.
    Written,
    /// The script called `drop()`.
    Dropped,
}

impl Mapping {
    /// Compiles the script that stands at `place`.
    ///
    /// # Errors
    /// Faults with a line and column inside the script and no path: the caller knows the field.
    pub fn compile(source: &str, place: ScriptPlace) -> Result<Self, Vec<Fault>> {
        Ok(Self { program: Program::compile(source, place)? })
    }

    /// Runs the script for `message` and appends the new payload to `out`.
    ///
    /// # Errors
    /// This message cannot be mapped; `out` is as it was.
    pub fn run(&mut self, message: MessageRef<'_>, out: &mut Vec<u8>) -> Result<Emit, ScriptError> {
        let Answer::Value(value, payload) = self.program.run(message)? else {
            return Ok(Emit::Dropped);
        };
        let start = out.len();
        match document::write(&value, payload, out) {
            Ok(()) => Ok(Emit::Written),
            Err(error) => {
                out.truncate(start);
                Err(self.program.unwritable(&error))
            }
        }
    }
}

/// A script whose value is true or false.
pub struct Condition {
    program: Program,
}

impl Condition {
    /// Compiles the script that stands at `place`.
    ///
    /// # Errors
    /// As for `Mapping::compile`.
    pub fn compile(source: &str, place: ScriptPlace) -> Result<Self, Vec<Fault>> {
        Ok(Self { program: Program::compile(source, place)? })
    }

    /// Whether it holds for `message`. `drop()` is a no.
    ///
    /// # Errors
    /// The script failed, or its value is neither true nor false.
    pub fn test(&mut self, message: MessageRef<'_>) -> Result<bool, ScriptError> {
        match self.program.run(message)? {
            Answer::Dropped => Ok(false),
            Answer::Value(value, _) => value.as_bool().map_err(|other| {
                let reason = format!("a condition answers true or false, and this one answered `{}`", type_word(other));
                self.program.error("not-a-condition", reason, Some((1, 1)))
            }),
        }
    }
}

/// The name of a Rhai type as JSON calls it.
fn type_word(name: &str) -> &str {
    match name {
        "()" => "null",
        "i64" => "an integer",
        "f64" => "a float",
        other => other,
    }
}
