//! Steps: messages in, messages out. One file each; `STEPS` lists them. A step is a plain function over a batch: it
//! waits for nothing, locks nothing and knows nothing of acks.
mod filter;
mod jsonpath;
mod map;

use crate::{message::Batch, script::ScriptError, spec::Spec};

/// Every step, sorted by name.
pub static STEPS: &[&Spec<dyn Step>] = &[&filter::SPEC, &jsonpath::SPEC, &map::SPEC];

/// One kind of work on messages.
///
/// A step belongs to one lane, so it may keep state and scratch space. It is called with one batch after the other.
pub trait Step: Send {
    /// Works on every message of `batch`, in order. A message that cannot be worked on is left out of the answer and
    /// named in `report`; so no message with an error ever reaches an output.
    fn apply(&mut self, batch: Batch, report: &mut StepReport) -> Batch;
}

/// What a step did besides passing messages on. The pipeline turns failures into dead letters.
#[derive(Debug, Default)]
pub struct StepReport {
    /// Messages that are now dead letters.
    pub failures: Vec<Failure>,
    /// Messages dropped on purpose.
    pub filtered: u64,
}

/// Why one message could not be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the message in the batch's source.
    pub origin: u32,
    /// Kebab-case name of the error, for example `script-error`.
    pub code: String,
    /// What went wrong, for a person.
    pub reason: String,
    /// `file:line:column` of the script, when it is known.
    pub place: Option<String>,
}

impl Failure {
    /// A message for which a script failed.
    pub fn script(origin: u32, error: ScriptError) -> Self {
        Self { origin, code: error.code.to_owned(), reason: error.reason, place: error.place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::SourceBuilder, spec::Section};

    /// What a step makes of `payloads`, and its report.
    pub(super) fn run(spec: &Spec<dyn Step>, section: &Section, payloads: &[&[u8]]) -> (Vec<String>, StepReport) {
        let mut source = SourceBuilder::new("test");
        for payload in payloads {
            source.push(payload, |_, _| Ok(())).unwrap();
        }
        let mut report = StepReport::default();
        let mut step = (spec.build)(section).unwrap();
        let batch = step.apply(Batch::new(source.finish()), &mut report);
        (batch.iter().map(|m| String::from_utf8(m.payload().to_vec()).unwrap()).collect(), report)
    }

    #[test]
    fn names_are_sorted_and_examples_build() {
        assert!(STEPS.is_sorted_by_key(|spec| spec.name));
        for spec in STEPS {
            assert!((spec.build)(&Section::from_yaml(spec.example)).is_ok(), "{}", spec.name);
        }
    }
}
