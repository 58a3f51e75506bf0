//! Keeps the messages for which a script answers true.
//!
//! The others are counted as filtered and acknowledged: they are dropped on purpose. A message for which the script
//! fails, or answers anything but true or false, is a dead letter.
use std::sync::Arc;

use super::{Failure, Step, StepReport, in_field};
use crate::{
    diagnostic::Fault,
    message::{Batch, Layout},
    script::{Condition, ScriptText},
    shape::Shape,
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Step> = Spec {
    name: "filter",
    summary: "Keeps the messages for which a script answers true and drops the others.",
    example: "is_json && payload.battery > 20",
    scripts: &[""],
    schema: schema_of::<ScriptText>,
    build,
};

struct Filter {
    condition: Condition,
    /// The setting that names the script's file.
    field: Option<&'static str>,
}

fn build(section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
    let script = decode::<ScriptText>(section)?;
    let condition = script.compile(section, Condition::compile)?;
    Ok(Box::new(Filter { condition, field: script.field() }))
}

/// The step that keeps the messages for which `condition` holds.
pub fn filter_by(condition: Condition) -> Box<dyn Step> {
    Box::new(Filter { condition, field: None })
}

impl Step for Filter {
    fn apply(&mut self, mut batch: Batch, report: &mut StepReport) -> Batch {
        self.condition.scan(&mut batch);
        batch.retain(|message| match self.condition.test(message) {
            Ok(keep) => {
                report.filtered += u64::from(!keep);
                keep
            }
            Err(error) => {
                report.failures.push(Failure::script(message, error));
                false
            }
        });
        report.interpreted += self.condition.interpreted();
        batch
    }

    fn notes(&self) -> Vec<Fault> {
        self.condition.notes().into_iter().map(|note| in_field(note, self.field)).collect()
    }

    fn wants(&mut self, layout: &mut Layout) {
        self.condition.wants(layout);
    }

    fn bind(&mut self, layout: &Arc<Layout>) {
        self.condition.bind(layout);
    }

    fn shape(&self, before: &Shape) -> Shape {
        before.clone().narrowed()
    }

    fn keeps_payloads(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::tests::run;

    #[test]
    fn messages_are_kept_dropped_or_failed() {
        let (kept, report) =
            run(&SPEC, &Section::from_yaml("payload.n > 1"), &[b"{\"n\":1}", b"{\"n\":2}", b"x", b"{\"n\":3}"]);
        assert_eq!(kept, ["{\"n\":2}", "{\"n\":3}"]);
        assert_eq!((report.filtered, report.failures.len()), (1, 1));
        assert_eq!((report.failures[0].origin, report.failures[0].place.as_deref()), (2, Some("test/test:1:9")));
    }
}
