//! The computing part of a lane: steps, and which output gets what. No waiting, no network.
use crate::{
    message::Batch,
    metrics::ScriptMetrics,
    script::Condition,
    step::{Failure, Step, StepReport},
};

/// A step and its place in the file, `steps[0]`.
pub struct StepPart {
    pub label: String,
    pub step: Box<dyn Step>,
}

/// The steps of a lane, and the conditions of the outputs behind it.
pub(super) struct Work {
    pub steps: Vec<(ScriptMetrics, StepPart)>,
    pub routes: Vec<Route>,
}

/// Which messages go to one output.
pub(super) struct Route {
    /// `outputs.table`.
    pub stage: String,
    pub when: Option<(Condition, ScriptMetrics)>,
}

/// What came of a batch.
pub(super) struct Worked {
    pub batch: Batch,
    /// For each route, which messages of the batch it gets.
    pub shares: Vec<Share>,
    pub failed: Vec<Failed>,
    pub filtered: u64,
}

/// A failed message, and the stage it failed in.
pub(super) struct Failed {
    pub stage: String,
    pub failure: Failure,
}

/// Which messages of a batch an output gets.
pub(super) enum Share {
    All,
    Some(Vec<u32>),
}

impl Work {
    /// Runs the steps and decides which output gets what.
    pub fn run(&mut self, batch: Batch) -> Worked {
        let redriven = batch.source().redriven().map(|redriven| (redriven.output.clone(), redriven.part));
        let mut worked = self.run_all(batch);
        if let Some((output, part)) = redriven {
            worked.restrict(&self.routes, output.as_deref(), part);
        }
        worked
    }

    fn run_all(&mut self, mut batch: Batch) -> Worked {
        let mut failed = Vec::new();
        let mut filtered = 0;
        for (script, StepPart { label, step }) in &mut self.steps {
            let mut report = StepReport::default();
            batch = step.apply(batch, &mut report);
            script.add(report.interpreted.script, report.interpreted.message);
            filtered += report.filtered;
            failed.extend(report.failures.into_iter().map(|failure| Failed { stage: label.clone(), failure }));
        }
        let conditional = self.routes.iter().any(|route| route.when.is_some());
        if !conditional {
            let shares = self.routes.iter().map(|_| Share::All).collect();
            return Worked { batch, shares, failed, filtered };
        }
        for (when, _) in self.routes.iter().filter_map(|route| route.when.as_ref()) {
            when.scan(&mut batch);
        }
        let mut shares: Vec<Vec<u32>> = self.routes.iter().map(|_| Vec::new()).collect();
        for (index, message) in batch.iter().enumerate() {
            // A message whose condition fails for one output goes to none: it is a dead letter, once.
            let start = failed.len();
            let mut wanted = false;
            for (route, share) in self.routes.iter_mut().zip(&mut shares) {
                match route.when.as_mut().map_or(Ok(true), |(when, _)| when.test(message)) {
                    Ok(true) => {
                        share.push(index as u32);
                        wanted = true;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        let failure = Failure::script(message, error);
                        failed.push(Failed { stage: format!("{}.when", route.stage), failure });
                        break;
                    }
                }
            }
            if failed.len() > start {
                for share in &mut shares {
                    share.pop_if(|last| *last == index as u32);
                }
            } else if !wanted {
                filtered += 1;
            }
        }
        for (when, script) in self.routes.iter_mut().filter_map(|route| route.when.as_mut()) {
            let interpreted = when.interpreted();
            script.add(interpreted.script, interpreted.message);
        }
        Worked { batch, shares: shares.into_iter().map(Share::Some).collect(), failed, filtered }
    }
}

impl Worked {
    /// Leaves out what has arrived already when dead letters are sent again: the other parts of a message that was split,
    /// and the outputs that had not refused it.
    fn restrict(&mut self, routes: &[Route], output: Option<&str>, part: Option<u32>) {
        // A message that is no longer split has no parts; it is meant.
        let is_meant = |found: Option<u32>| part.is_none() || found.is_none() || found == part;
        self.failed.retain(|failed| is_meant(failed.failure.part));
        for (route, share) in routes.iter().zip(&mut self.shares) {
            let is_for = output.is_none_or(|label| route.stage.strip_prefix("outputs.") == Some(label));
            let all = 0..self.batch.len() as u32;
            let had: Vec<u32> = match share {
                Share::All => all.collect(),
                Share::Some(indexes) => std::mem::take(indexes),
            };
            let kept = had.into_iter().filter(|&index| is_for && is_meant(self.batch.get(index as usize).part()));
            *share = Share::Some(kept.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ArenaFull, Redriven, SourceBuilder};

    /// Which messages go to the outputs `a` and `b`, by payload, of a message that a step has split into `0 1 2`.
    fn shares(output: Option<&str>, part: Option<u32>) -> (Vec<String>, Vec<String>) {
        struct Split;
        impl crate::step::Step for Split {
            fn apply(&mut self, batch: Batch, _: &mut StepReport) -> Batch {
                let mut out = batch.rewrite();
                for part in 0..3 {
                    let write = |to: &mut Vec<u8>| -> Result<(), ArenaFull> {
                        to.push(b'0' + part as u8);
                        Ok(())
                    };
                    out.push_part(batch.get(0), part, write).unwrap();
                }
                out.finish()
            }
        }
        let mut source = SourceBuilder::new("test");
        source.push(b"x", |_, _| Ok(())).unwrap();
        let redriven = Redriven { output: output.map(str::to_owned), part, before: vec![String::new()] };
        let batch = Batch::new(source.finish().with_redriven(redriven));
        let steps = vec![(
            crate::metrics::Metrics::new().script("p", "steps[0]"),
            StepPart { label: "steps[0]".to_owned(), step: Box::new(Split) },
        )];
        let routes = ["a", "b"].map(|label| Route { stage: format!("outputs.{label}"), when: None });
        let worked = Work { steps, routes: routes.into() }.run(batch);
        let texts = |share: &Share| match share {
            Share::All => panic!("a redriven message goes where it is meant to"),
            Share::Some(indexes) => indexes
                .iter()
                .map(|&index| String::from_utf8(worked.batch.get(index as usize).payload().to_vec()).unwrap())
                .collect::<Vec<_>>(),
        };
        (texts(&worked.shares[0]), texts(&worked.shares[1]))
    }

    #[test]
    fn a_redriven_message_goes_only_where_it_is_missing() {
        let all = || vec!["0".to_owned(), "1".to_owned(), "2".to_owned()];
        assert_eq!(shares(None, None), (all(), all()));
        assert_eq!(shares(Some("b"), None), (vec![], all()));
        assert_eq!(shares(Some("a"), Some(1)), (vec!["1".to_owned()], vec![]));
        assert_eq!(shares(None, Some(2)), (vec!["2".to_owned()], vec!["2".to_owned()]));
    }
}
