//! How far long work is: a bar on a terminal, a line now and then elsewhere.
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::eprint;

/// Shows how far something is.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    what: &'static str,
    told: Instant,
}

/// How often a line is written where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Shown {
    /// `what` is counted: `messages`.
    pub fn new(what: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
            let look =
                format!("{{bar:30}} {{percent:>3}}%  {{human_pos}} of {{human_len}} {what}  {{per_sec}}  {{eta}} left");
            bar.set_style(ProgressStyle::with_template(&look).expect("the template is well formed"));
            bar
        });
        Self { bar, what, told: Instant::now() }
    }

    /// So many are done, of how many.
    pub fn set(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            eprint(&format!("{done} of {total} {}\n", self.what));
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
