//! What outputs get, against what they can write: steps say what payloads look like behind them, outputs what of that
//! they can never write (`unknown-column`, `unfilled-column`, `unfit-value`).
use super::{File, Part};
use crate::{
    config::Role,
    diagnostic::{Diagnostic, Fault},
    shape::Shape,
};

/// What payloads look like behind all steps, and the step that makes them.
pub(super) struct Made<'f> {
    shape: Shape,
    step: Option<&'f Part>,
}

impl<'f> Made<'f> {
    pub fn of(file: &'f File<'_>) -> Self {
        let slots = file.slots.iter().filter(|slot| slot.role == Role::Step);
        let parts: Vec<&Part> = file.parts.iter().filter(|part| part.role == Role::Step).collect();
        // What a step with a fault makes is not known.
        if slots.count() != parts.len() {
            return Self { shape: Shape::Any, step: None };
        }
        let (shape, step) = file.registry.made_by(parts.iter().map(|part| Some(&part.component)));
        Self { shape, step: step.map(|step| parts[step]) }
    }

    /// What `output` gets of it.
    pub fn given_to(&self, output: &Part) -> Shape {
        let shape = self.shape.clone();
        if output.has_condition { shape.narrowed() } else { shape }
    }

    /// A finding of `output`, at its place.
    pub fn diagnose(&self, output: &Part, fault: &Fault) -> Diagnostic {
        let step = self.step.filter(|_| fault.of_payload);
        step.unwrap_or(output).component.diagnose(fault)
    }
}

/// For a run in which nobody is asked; servers know better what can be written.
pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let made = Made::of(file);
    for output in file.parts.iter().filter(|part| part.role == Role::Output) {
        found.extend(review(file, &made, output));
    }
}

/// What can be told of an output from the files alone.
pub(super) fn review(file: &File<'_>, made: &Made<'_>, output: &Part) -> Vec<Diagnostic> {
    let found = file.registry.find(output.role.kind(), &output.component.name);
    let faults = found.map(|found| found.review(&output.component.section, &made.given_to(output)));
    faults.iter().flatten().map(|fault| made.diagnose(output, fault)).collect()
}
