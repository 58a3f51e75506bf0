//! The computing part of a lane: steps, and which output gets what. No waiting, no network.
use super::run::StepPart;
use crate::{
    message::Batch,
    metrics::ScriptMetrics,
    script::Condition,
    step::{Failure, StepReport},
};

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
    pub fn run(&mut self, mut batch: Batch) -> Worked {
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
