//! From a checked file to parts that can run. No network yet.
use std::time::Duration;

use super::{
    Spool,
    run::{InputPart, Limits, OutputPart, Pipeline},
    work::StepPart,
};
use crate::{
    config::{self, Component, Delivery},
    diagnostic::{Diagnostic, Fault},
    input::{Input, Replay, TopicNames},
    output::{Once, Output, build_archive},
    registry::Registry,
    script::Condition,
    spec::Spec,
    step,
};

const KNOWN: &str = "lint knows every component of a checked file";

impl Pipeline {
    /// Makes the parts of a pipeline that lint found no errors in.
    ///
    /// # Errors
    /// What the components find wrong in their settings, each at its place.
    pub fn build(config: &config::Pipeline, registry: &Registry) -> Result<Self, Vec<Diagnostic>> {
        let mut faults = Vec::new();
        let inputs = config.inputs.iter().filter_map(|entry| {
            let input = part(registry.input(&entry.component.name), &entry.component, &mut faults)?;
            // Steps keep state and scratch space, so every lane has its own.
            let steps = config.steps.iter().filter_map(|step| {
                let label = step.label.to_string();
                let built = registry.build_step(&step.component.name, &step.component.section);
                let built = built.map_err(|found| faults.extend(found.iter().map(|f| step.component.diagnose(f))));
                Some(StepPart { label, step: built.ok()? })
            });
            let steps = steps.collect();
            Some(InputPart { label: entry.label.to_string(), input, steps })
        });
        let mut inputs: Vec<_> = inputs.collect();
        let outputs = config.outputs.iter().filter_map(|entry| {
            let output = part(registry.output(&entry.component.name), &entry.component, &mut faults)?;
            let mut when = Vec::new();
            // A compiled condition keeps scratch space, so every lane has its own.
            for condition in entry.when.iter().flat_map(|condition| inputs.iter().map(move |_| condition)) {
                match Condition::compile(&condition.script, condition.site()) {
                    Ok(compiled) => when.push(compiled),
                    Err(errors) => {
                        faults.extend(errors.iter().map(|fault| condition.diagnose(fault)));
                        return None;
                    }
                }
            }
            Some(OutputPart { label: entry.label.to_string(), output, when })
        });
        let mut outputs: Vec<_> = outputs.collect();
        for (lane, input) in inputs.iter_mut().enumerate() {
            let mut steps: Vec<_> = input.steps.iter_mut().map(|part| &mut part.step).collect();
            let mut conditions: Vec<_> = outputs.iter_mut().filter_map(|output| output.when.get_mut(lane)).collect();
            step::link(&mut steps, &mut conditions);
        }
        let dead_letter = config
            .dead_letter
            .as_ref()
            .and_then(|component| part(registry.output(&component.name), component, &mut faults));
        let archive = config.archive.as_ref().and_then(|component| {
            let spec = registry.output(&component.name).expect(KNOWN);
            checked(build_archive(spec, &component.section), component, &mut faults)
        });
        let limits = Limits {
            in_flight_bytes_max: config.limits.in_flight_bytes_max,
            shutdown_timeout: Duration::from_millis(config.limits.shutdown_timeout_ms),
        };
        let once = once(config.delivery, &inputs, &outputs);
        let spool = config.spool.as_ref().map(|spool| Spool {
            enabled: spool.enabled,
            bytes_max: spool.bytes_max,
            after: Duration::from_millis(spool.after_ms),
        });
        let pipeline = Self { name: config.name.clone(), inputs, outputs, dead_letter, archive, limits, once, spool };
        if faults.is_empty() { Ok(pipeline) } else { Err(faults) }
    }

    /// The same, with nothing between its input and `output`.
    pub fn straight_to(mut self, label: &str, output: Box<dyn Output>) -> Self {
        self.inputs.iter_mut().for_each(|part| part.steps.clear());
        self.outputs = vec![OutputPart { label: label.to_owned(), output, when: Vec::new() }];
        self
    }
}

impl Pipeline {
    /// The same pipeline, fed by `input` in place of its own inputs, and without an archive: what comes was archived before.
    /// The steps are those of the lane `label`, of the first one when there is none. `delivery` is what its file asks for.
    ///
    /// # Errors
    /// There is no such input.
    pub fn fed_by(
        mut self,
        label: Option<&str>,
        delivery: Option<Delivery>,
        input: impl FnOnce(Option<TopicNames>) -> Box<dyn Input>,
    ) -> Result<Self, String> {
        let lane = match label {
            None => 0,
            Some(label) => self.inputs.iter().position(|part| part.label == label).ok_or_else(|| {
                let labels: Vec<_> = self.inputs.iter().map(|part| format!("`{}`", part.label)).collect();
                format!("pipeline `{}` has no input `{label}`; it has {}", self.name, labels.join(", "))
            })?,
        };
        let InputPart { label, input: own, steps } = self.inputs.swap_remove(lane);
        self.inputs = vec![InputPart { label, input: input(own.topic_names()), steps }];
        for output in &mut self.outputs {
            output.when = std::mem::take(&mut output.when).into_iter().skip(lane).take(1).collect();
        }
        self.archive = None;
        self.once = once(delivery, &self.inputs, &self.outputs);
        Ok(self)
    }
}

/// Whether every message is to be written once.
fn once(delivery: Option<Delivery>, inputs: &[InputPart], outputs: &[OutputPart]) -> Once {
    let possible = inputs.iter().all(|part| part.input.replay() == Replay::ByOffset)
        && matches!(outputs, [part] if part.output.recognises());
    Once::of(delivery.map(|delivery| delivery == Delivery::ExactlyOnce), possible)
}

fn part<T: ?Sized>(
    spec: Option<&'static Spec<T>>,
    component: &Component,
    faults: &mut Vec<Diagnostic>,
) -> Option<Box<T>> {
    checked((spec.expect(KNOWN).build)(&component.section), component, faults)
}

fn checked<T>(built: Result<T, Vec<Fault>>, component: &Component, faults: &mut Vec<Diagnostic>) -> Option<T> {
    built.map_err(|found| faults.extend(found.iter().map(|fault| component.diagnose(fault)))).ok()
}
