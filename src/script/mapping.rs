//! Scripts as the rest of streamer sees them: a `Mapping` makes a new payload, a `Condition` answers yes or no.
//!
//! Each is compiled to a plan where that can be done; the interpreter does the rest, script by script and message by
//! message, with the same answers.
use super::{
    compiled::Compiled,
    document,
    plan::{Deopt, Outcome, Refusal},
    program::{Answer, Program, ScriptError},
};
use crate::{
    diagnostic::{Fault, ScriptPlace},
    message::{MessageRef, Slot},
};

/// A script whose value is the new payload, as JSON. `()` is `null`.
pub struct Mapping {
    script: Script,
    index: Vec<Slot>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Its new payload is written.
    Written,
    /// The script called `drop()`.
    Dropped,
}

/// How often a script could not be run as a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interpreted {
    /// Messages of a script that is not compiled.
    pub script: u64,
    /// Messages that did not fit a compiled script's plan.
    pub message: u64,
}

impl Mapping {
    /// Compiles the script that stands at `place`.
    ///
    /// # Errors
    /// Faults with a line and column inside the script and no path: the caller knows the field.
    pub fn compile(source: &str, place: ScriptPlace) -> Result<Self, Vec<Fault>> {
        let script = Script::compile(source, place)?;
        let index = vec![Slot::default(); script.plan.as_ref().map_or(0, |plan| plan.members())];
        Ok(Self { script, index })
    }

    /// Why the script is not compiled to a plan; none when it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.script.plan.as_ref().err()
    }

    /// Takes the counts since the last call.
    pub fn interpreted(&mut self) -> Interpreted {
        std::mem::take(&mut self.script.interpreted)
    }

    /// Runs the script for `message` and appends the new payload to `out`.
    ///
    /// # Errors
    /// This message cannot be mapped; `out` is as it was.
    pub fn run(&mut self, message: MessageRef<'_>, out: &mut Vec<u8>) -> Result<Emit, ScriptError> {
        let Script { program, plan, interpreted } = &mut self.script;
        match plan {
            Ok(plan) => match plan.map(message, out, &mut self.index) {
                Ok(Outcome::Written { .. }) => return Ok(Emit::Written),
                Ok(Outcome::Dropped) => return Ok(Emit::Dropped),
                Err(Deopt) => interpreted.message += 1,
            },
            Err(_) => interpreted.script += 1,
        }
        let Answer::Value(value, payload) = program.run(message)? else {
            return Ok(Emit::Dropped);
        };
        let start = out.len();
        match document::write(&value, payload, out) {
            Ok(()) => Ok(Emit::Written),
            Err(error) => {
                out.truncate(start);
                Err(program.unwritable(&error))
            }
        }
    }

    /// The same without the plan.
    #[cfg(test)]
    pub fn interpret(&mut self, message: MessageRef<'_>, out: &mut Vec<u8>) -> Result<Emit, ScriptError> {
        let refused = Err(Refusal { at: (0, 0), what: String::new() });
        let plan = std::mem::replace(&mut self.script.plan, refused);
        let result = self.run(message, out);
        self.script.plan = plan;
        result
    }
}

/// A script whose value is true or false.
pub struct Condition {
    script: Script,
}

impl Condition {
    /// Compiles the script that stands at `place`.
    ///
    /// # Errors
    /// As for `Mapping::compile`.
    pub fn compile(source: &str, place: ScriptPlace) -> Result<Self, Vec<Fault>> {
        Ok(Self { script: Script::compile(source, place)? })
    }

    /// Why the script is not compiled to a plan; none when it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.script.plan.as_ref().err()
    }

    /// Takes the counts since the last call.
    pub fn interpreted(&mut self) -> Interpreted {
        std::mem::take(&mut self.script.interpreted)
    }

    /// Whether it holds for `message`. `drop()` is a no.
    ///
    /// # Errors
    /// The script failed, or its value is neither true nor false.
    pub fn test(&mut self, message: MessageRef<'_>) -> Result<bool, ScriptError> {
        let Script { program, plan, interpreted } = &mut self.script;
        match plan {
            Ok(plan) => match plan.test(message) {
                Ok(answer) => return Ok(answer),
                Err(Deopt) => interpreted.message += 1,
            },
            Err(_) => interpreted.script += 1,
        }
        match program.run(message)? {
            Answer::Dropped => Ok(false),
            Answer::Value(value, _) => value.as_bool().map_err(|other| {
                let reason = format!("a condition answers true or false, and this one answered `{}`", type_word(other));
                program.error("not-a-condition", reason, Some((1, 1)))
            }),
        }
    }
}

/// A script both ways.
struct Script {
    program: Program,
    plan: Result<Compiled, Refusal>,
    interpreted: Interpreted,
}

impl Script {
    fn compile(source: &str, place: ScriptPlace) -> Result<Self, Vec<Fault>> {
        let program = Program::compile(source, place)?;
        let plan = program.plan(source).map(Compiled::new);
        Ok(Self { program, plan, interpreted: Interpreted::default() })
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
