//! Steps: messages in, messages out. One file each; `STEPS` lists them. A step is a plain function over a batch: it
//! waits for nothing, locks nothing and knows nothing of acks.
mod filter;
mod jsonpath;
mod map;
mod set;
mod split;

use std::sync::Arc;

pub use filter::filter_by;
pub use map::map_by;

use crate::{
    diagnostic::{Fault, PathSegment},
    message::{Batch, Layout, MessageRef},
    script::{Condition, Interpreted, ScriptError},
    shape::{Place, Shape},
    spec::Spec,
};

/// Every step, sorted by name.
pub static STEPS: &[&Spec<dyn Step>] = &[&filter::SPEC, &jsonpath::SPEC, &map::SPEC, &set::SPEC, &split::SPEC];

/// One kind of work on messages.
///
/// A step belongs to one lane, so it may keep state and scratch space. It is called with one batch after the other.
pub trait Step: Send {
    /// Works on every message of `batch`, in order. A message that cannot be worked on is left out of the answer and
    /// named in `report`; so no message with an error ever reaches an output.
    fn apply(&mut self, batch: Batch, report: &mut StepReport) -> Batch;

    /// Adds the places of the payload that it looks at to `layout`. Called once, before `bind`.
    fn wants(&mut self, _layout: &mut Layout) {}

    /// Takes the layout of all steps that read the same payloads: each is then scanned once for all of them. A step that
    /// was never bound has a layout of its own.
    fn bind(&mut self, _layout: &Arc<Layout>) {}

    /// What the writer of its scripts should know: each with the field it is in, and its place there.
    fn notes(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// What its payloads look like, when those it gets look like `before`; places are those in its own settings.
    fn shape(&self, before: &Shape) -> Shape {
        if self.keeps_payloads() { before.clone() } else { Shape::Any }
    }

    /// True when payloads leave as they came, so that the next step reads the same ones.
    fn keeps_payloads(&self) -> bool {
        false
    }
}

/// A note about a script that stands in `field`, or is the whole section.
fn in_field(note: Fault, field: Option<&str>) -> Fault {
    field.into_iter().fold(note, Fault::within)
}

/// A shape whose places are those in the script of `field`, which may stand within others.
fn shape_in(shape: Shape, field: &[&str]) -> Shape {
    let path = || field.iter().map(|name| PathSegment::Key((*name).to_owned()));
    shape.at(&|place| Place { path: path().chain(place.path).collect(), ..place })
}

/// Lets the steps of a lane, and the conditions behind them, share the scans of payloads that stay the same.
pub fn link(steps: &mut [&mut Box<dyn Step>], conditions: &mut [&mut Condition]) {
    let mut rest = steps;
    loop {
        // Up to the first step that makes new payloads; that one reads the old ones, too.
        let end = rest.iter().position(|step| !step.keeps_payloads()).map_or(rest.len(), |at| at + 1);
        let last = end == rest.len() && rest.last().is_none_or(|step| step.keeps_payloads());
        let (group, behind) = rest.split_at_mut(end);
        let mut layout = Layout::new();
        group.iter_mut().for_each(|step| step.wants(&mut layout));
        if last {
            conditions.iter_mut().for_each(|condition| condition.wants(&mut layout));
        }
        let layout = Arc::new(layout);
        group.iter_mut().for_each(|step| step.bind(&layout));
        if last {
            conditions.iter_mut().for_each(|condition| condition.bind(&layout));
            return;
        }
        rest = behind;
    }
}

/// What a step did besides passing messages on. The pipeline turns failures into dead letters.
#[derive(Debug, Default)]
pub struct StepReport {
    /// Messages that are now dead letters.
    pub failures: Vec<Failure>,
    /// Messages dropped on purpose.
    pub filtered: u64,
    /// Messages that the interpreter worked on, because a script or a message did not fit a plan.
    pub interpreted: Interpreted,
}

/// Why one message could not be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the message in the batch's source.
    pub origin: u32,
    /// Which part of it failed, when a step has split it; from 0.
    pub part: Option<u32>,
    /// Kebab-case name of the error, for example `script-error`.
    pub code: String,
    /// What went wrong, for a person.
    pub reason: String,
    /// `file:line:column` of the script, when it is known.
    pub place: Option<String>,
}

impl Failure {
    /// A message that cannot be worked on.
    pub fn of(message: MessageRef<'_>, code: impl Into<String>, reason: impl Into<String>) -> Self {
        let (origin, part) = (message.origin_index(), message.part());
        Self { origin, part, code: code.into(), reason: reason.into(), place: None }
    }

    /// A message for which a script failed.
    pub fn script(message: MessageRef<'_>, error: ScriptError) -> Self {
        Self { place: error.place, ..Self::of(message, error.code, error.reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::SourceBuilder, spec::Section};

    /// What a step makes of a batch, and its report.
    pub(super) fn apply(spec: &Spec<dyn Step>, section: &Section, batch: Batch) -> (Batch, StepReport) {
        let mut report = StepReport::default();
        let mut step = (spec.build)(section).unwrap_or_else(|faults| panic!("{faults:?}"));
        let batch = step.apply(batch, &mut report);
        (batch, report)
    }

    /// What a step makes of `payloads`, and its report.
    pub(super) fn run(spec: &Spec<dyn Step>, section: &Section, payloads: &[&[u8]]) -> (Vec<String>, StepReport) {
        let mut source = SourceBuilder::new("test");
        for payload in payloads {
            source.push(payload, |_, _| Ok(())).unwrap();
        }
        let (batch, report) = apply(spec, section, Batch::new(source.finish()));
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
