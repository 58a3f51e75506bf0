//! Scripts as the rest of streamer sees them: a `Mapping` makes a new payload, a `Condition` answers yes or no.
//!
//! Each is compiled to a plan where that can be done; the interpreter does the rest, script by script and message by
//! message, with the same answers.
use std::sync::Arc;

use super::{
    compiled::Compiled,
    document,
    plan::{Deopt, Outcome, Refusal},
    program::{Answer, Program, ScriptError},
    review::Purpose,
    scan::scan_payload,
};
use crate::{
    diagnostic::Fault,
    message::{Batch, Documents, Layout, MessageRef, Scanned, Slot},
    shape::Shape,
    spec::Site,
};

/// A script whose value is the new payload, as JSON. `()` is `null`.
pub struct Mapping {
    script: Script,
    /// Where the members of the last result are, for `index`.
    index: Vec<Slot>,
    indexed: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Its new payload is written.
    Written,
    /// The script called `drop()`.
    Dropped,
}

/// How many messages the interpreter worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interpreted {
    /// Messages of a script that is not compiled.
    pub script: u64,
    /// Messages that did not fit a compiled script's plan.
    pub message: u64,
}

impl std::ops::AddAssign for Interpreted {
    fn add_assign(&mut self, other: Self) {
        self.script += other.script;
        self.message += other.message;
    }
}

impl Mapping {
    /// Compiles a script in its surroundings.
    ///
    /// # Errors
    /// Faults with a line and column inside the script and no path: the caller knows the field.
    pub fn compile(source: &str, site: impl Into<Site>) -> Result<Self, Vec<Fault>> {
        let script = Script::compile(source, site.into())?;
        let index = vec![Slot::default(); script.plan.as_ref().map_or(0, |plan| plan.members().len())];
        Ok(Self { script, index, indexed: false })
    }

    /// Adds the places it looks at to `layout`; `bind` takes it when all steps that share it have done so.
    pub fn wants(&mut self, layout: &mut Layout) {
        self.script.wants(layout);
    }

    /// Takes the layout that the payloads are scanned with.
    pub fn bind(&mut self, layout: &Arc<Layout>) {
        self.script.bind(layout);
    }

    /// Reads the payloads of a batch before `run` is called for its messages.
    pub fn scan(&self, batch: &mut Batch) {
        self.script.scan(batch);
    }

    /// The members of the maps it makes, when it makes maps and they are known.
    pub fn members(&self) -> Option<&Arc<Layout>> {
        self.script.plan.as_ref().ok().map(Compiled::members).filter(|members| !members.is_empty())
    }

    /// Adds the scan of the payload that `run` has written last to those of its members.
    pub fn index(&self, payload: &[u8], documents: &mut Documents) {
        let Some(members) = self.members() else { return };
        documents.push(|slots| {
            if self.indexed {
                slots.copy_from_slice(&self.index);
                // How deep it is nested nobody asks: it is the payload of a plan's result that no plan has read.
                return Scanned::Json { depth: u8::MAX, complete: true };
            }
            scan_payload(members, payload, slots)
        });
    }

    /// Why the script is not compiled to a plan; none when it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.script.plan.as_ref().err()
    }

    /// What its writer should know, each at its place in the script: warnings, and what keeps it from being compiled.
    pub fn notes(&self) -> Vec<Fault> {
        self.script.notes(Purpose::Value)
    }

    /// What it makes of payloads like `payload`; places are those in the script.
    pub fn shape(&self, payload: &Shape) -> Shape {
        self.script.program.infer(&self.script.source, payload)
    }

    /// Takes the counts since the last call.
    pub fn interpreted(&mut self) -> Interpreted {
        std::mem::take(&mut self.script.interpreted)
    }

    /// Runs the script for `message`, of a batch that `scan` has read, and appends the new payload to `out`.
    ///
    /// # Errors
    /// This message cannot be mapped; `out` is as it was.
    pub fn run(&mut self, message: MessageRef<'_>, out: &mut Vec<u8>) -> Result<Emit, ScriptError> {
        let Script { program, plan, interpreted, .. } = &mut self.script;
        match plan {
            Ok(plan) => match plan.map(message, out, &mut self.index) {
                Ok(Outcome::Written { indexed }) => {
                    self.indexed = indexed;
                    return Ok(Emit::Written);
                }
                Ok(Outcome::Dropped) => return Ok(Emit::Dropped),
                Err(Deopt) => interpreted.message += 1,
            },
            Err(_) => interpreted.script += 1,
        }
        self.indexed = false;
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

    /// The same without the plan, to hold the two against each other.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
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
    /// Compiles a script in its surroundings.
    ///
    /// # Errors
    /// As for `Mapping::compile`.
    pub fn compile(source: &str, site: impl Into<Site>) -> Result<Self, Vec<Fault>> {
        Ok(Self { script: Script::compile(source, site.into())? })
    }

    /// Why the script is not compiled to a plan; none when it is.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.script.plan.as_ref().err()
    }

    /// What its writer should know, each at its place in the script: warnings, and what keeps it from being compiled.
    pub fn notes(&self) -> Vec<Fault> {
        self.script.notes(Purpose::Condition)
    }

    /// Takes the counts since the last call.
    pub fn interpreted(&mut self) -> Interpreted {
        std::mem::take(&mut self.script.interpreted)
    }

    /// As for `Mapping::wants`.
    pub fn wants(&mut self, layout: &mut Layout) {
        self.script.wants(layout);
    }

    /// As for `Mapping::bind`.
    pub fn bind(&mut self, layout: &Arc<Layout>) {
        self.script.bind(layout);
    }

    /// Reads the payloads of a batch before `test` is called for its messages.
    pub fn scan(&self, batch: &mut Batch) {
        self.script.scan(batch);
    }

    /// Whether it holds for `message`. `drop()` is a no.
    ///
    /// # Errors
    /// The script failed, or its value is neither true nor false.
    pub fn test(&mut self, message: MessageRef<'_>) -> Result<bool, ScriptError> {
        let Script { program, plan, interpreted, .. } = &mut self.script;
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

fn note(refusal: &Refusal) -> Fault {
    let (line, column) = refusal.at;
    Fault::new("interpreted", "", format!("the script is interpreted: plans do not know {}", refusal.what))
        .label("keeps the script from being compiled")
        .help("it works all the same, but costs about five times the CPU; docs/mapping.md says what is compiled")
        .at(line.max(1), column.max(1))
        .into_note()
}

/// A script both ways.
struct Script {
    source: Box<str>,
    program: Program,
    plan: Result<Compiled, Refusal>,
    interpreted: Interpreted,
}

impl Script {
    fn compile(source: &str, site: Site) -> Result<Self, Vec<Fault>> {
        let program = Program::compile(source, site)?;
        let plan = program.plan(source).map(Compiled::new);
        Ok(Self { source: source.into(), program, plan, interpreted: Interpreted::default() })
    }

    fn notes(&self, purpose: Purpose) -> Vec<Fault> {
        let mut notes = self.program.review(&self.source, purpose);
        notes.extend(self.plan.as_ref().err().map(note));
        notes
    }

    fn wants(&mut self, layout: &mut Layout) {
        if let Ok(plan) = &mut self.plan {
            plan.wants(layout);
        }
    }

    fn bind(&mut self, layout: &Arc<Layout>) {
        if let Ok(plan) = &mut self.plan {
            plan.bind(layout);
        }
    }

    fn scan(&self, batch: &mut Batch) {
        if let Ok(plan) = &self.plan {
            plan.scan(batch);
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
