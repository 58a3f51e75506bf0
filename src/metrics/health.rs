//! What works and what does not, with the reason: the source of `/health/ready` and of one log line a change of state.
use std::{collections::BTreeMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tracing::{info, warn};

/// Every component's state. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct HealthBoard {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    notes: Arc<Mutex<BTreeMap<String, String>>>,
}

#[derive(Debug)]
struct Entry {
    fault: Option<String>,
    since: Instant,
    /// When it last got something done, if it says so.
    progress: Option<Instant>,
}

/// What `/health/ready` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    pub ready: bool,
    /// Component and reason, for each that does not work.
    pub faults: Vec<(String, String)>,
    /// Pipeline and what to know of it, though it works.
    pub notes: Vec<(String, String)>,
}

impl HealthBoard {
    /// Adds a component, named `pipeline/kind/label`. It counts as not ready until it says `ok`.
    pub fn add(&self, name: impl Into<String>, up: Gauge) -> Health {
        let name = name.into();
        up.set(0);
        let entry = Entry { fault: Some("starting".to_owned()), since: Instant::now(), progress: None };
        self.entries.lock().insert(name.clone(), entry);
        Health { name: name.into(), board: self.clone(), up }
    }

    /// Forgets every component whose name starts with `prefix`, and its notes.
    pub fn remove(&self, prefix: &str) {
        self.entries.lock().retain(|name, _| !name.starts_with(prefix));
        self.notes.lock().retain(|name, _| !name.starts_with(prefix));
    }

    /// Says something of a pipeline that works all the same; `None` takes it back.
    pub fn note(&self, pipeline: &str, note: Option<String>) {
        let mut notes = self.notes.lock();
        match note {
            Some(note) => notes.insert(pipeline.to_owned(), note),
            None => notes.remove(pipeline),
        };
    }

    /// The state of the process: ready when every component works and there is one at all.
    pub fn report(&self) -> HealthReport {
        let entries = self.entries.lock();
        let faults: Vec<_> = entries
            .iter()
            .filter_map(|(name, e)| {
                let fault = e.fault.as_ref()?;
                let mut text = format!("{fault} (for {} s", e.since.elapsed().as_secs());
                if let Some(progress) = e.progress {
                    text += &format!(", last progress {} s ago", progress.elapsed().as_secs());
                }
                Some((name.clone(), text + ")"))
            })
            .collect();
        let notes = self.notes.lock().iter().map(|(name, note)| (name.clone(), note.clone())).collect();
        HealthReport { ready: faults.is_empty() && !entries.is_empty(), faults, notes }
    }
}

/// One component's entry. Says nothing when the state stays as it was, so callers may report as often as they like.
#[derive(Clone, Debug)]
pub struct Health {
    name: Arc<str>,
    board: HealthBoard,
    up: Gauge,
}

impl Health {
    /// An entry on a board of its own, for tests and tools.
    pub fn detached() -> Self {
        HealthBoard::default().add("detached", Gauge::default())
    }

    /// A part of the component that may fail while the rest works: `pipeline/kind/label/part`. It works until it says
    /// otherwise.
    pub fn part(&self, part: &str, up: Gauge) -> Self {
        let health = self.board.add(format!("{}/{part}", self.name), up);
        health.change(None);
        health
    }

    /// The component works.
    pub fn ok(&self) {
        if self.change(None) {
            info!(component = %self.name, "working");
        }
    }

    /// The component has got something done, and so works.
    pub fn progress(&self) {
        self.ok();
        if let Some(entry) = self.board.entries.lock().get_mut(&*self.name) {
            entry.progress = Some(Instant::now());
        }
    }

    /// The component does not work; `reason` says why and what to do. Logged when it is news: when the component
    /// worked until now, or had another reason.
    pub fn fault(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.change(Some(reason.clone())) {
            warn!(component = %self.name, reason, "not working, trying again");
        }
    }

    /// What to know of the component, though it works; `None` takes it back.
    pub fn note(&self, note: Option<String>) {
        self.board.note(&self.name, note);
    }

    /// Whether it has said that it does not work.
    #[cfg(test)]
    pub fn is_faulty(&self) -> bool {
        self.board.entries.lock().get(&*self.name).is_some_and(|entry| entry.fault.is_some())
    }

    /// The component has ended and will not come back by itself. Whoever ended it says so.
    pub fn failed(&self, reason: impl Into<String>) {
        self.change(Some(reason.into()));
    }

    fn change(&self, fault: Option<String>) -> bool {
        self.up.set(i64::from(fault.is_none()));
        let mut entries = self.board.entries.lock();
        // Removed while its pipeline stops: no state to keep, nothing to say.
        let Some(entry) = entries.get_mut(&*self.name) else { return false };
        if entry.fault == fault {
            return false;
        }
        if entry.fault.is_none() || fault.is_none() {
            entry.since = Instant::now();
        }
        entry.fault = fault;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_component_works() {
        let board = HealthBoard::default();
        assert!(!board.report().ready, "nothing runs");
        let (a, b) = (board.add("p/input/a", Gauge::default()), board.add("p/output/b", Gauge::default()));
        a.ok();
        assert_eq!(board.report().faults, [("p/output/b".to_owned(), "starting (for 0 s)".to_owned())]);
        b.ok();
        assert!(board.report().ready);
        b.fault("broker unreachable");
        assert_eq!(board.report().faults[0].1, "broker unreachable (for 0 s)");
        b.progress();
        assert!(board.report().ready);
        b.fault("broker unreachable");
        assert_eq!(board.report().faults[0].1, "broker unreachable (for 0 s, last progress 0 s ago)");
        assert!(!board.report().ready);
        b.ok();
        let part = b.part("files", Gauge::default());
        assert!(board.report().ready, "a part works from the start");
        part.fault("disk full");
        b.progress();
        assert_eq!(board.report().faults, [("p/output/b/files".to_owned(), "disk full (for 0 s)".to_owned())]);
        board.remove("p/output/");
        assert!(board.report().ready);
        b.fault("gone");
        assert!(board.report().ready);
    }
}
