//! The session doctor: what costs messages at the broker although the connection works. The log says it when it happens,
//! `/health/ready` from then on, so that it is not missed.
use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::outage::{Count, Demand, Verdict, Wanted};
use crate::metrics::Health;

/// A broker that does not say why it ends connections does so at each start of another client with our name: soon.
const SOON: Duration = Duration::from_secs(60);
/// So often in a row is no accident.
const ENDED_OFTEN: u32 = 3;

pub struct Doctor {
    health: Health,
    url: String,
    client_id: String,
    /// What was found, by kind.
    found: BTreeMap<&'static str, String>,
    takeovers: u32,
    /// Connections in a row that the broker has ended soon and without a word.
    ended: u32,
    sessions_lost: u32,
    /// The broker's count of dropped messages when it was first heard.
    dropped_before: Option<i64>,
    /// What an outage that is to be survived asks of the broker.
    demand: Option<Demand>,
    survive: Option<Wanted>,
}

impl Doctor {
    pub(super) fn new(health: Health, url: String, client_id: String, survive: Option<Wanted>) -> Self {
        Self {
            health,
            url,
            client_id,
            found: BTreeMap::new(),
            takeovers: 0,
            ended: 0,
            sessions_lost: 0,
            dropped_before: None,
            demand: survive.map(Demand::new),
            survive,
        }
    }

    /// A connection was made.
    pub fn connected(&mut self, session_present: bool) {
        if let Some(demand) = &mut self.demand {
            demand.connected(session_present, Instant::now());
        }
    }

    /// Compares what has come so far with what the broker can keep.
    pub(super) fn measure(&mut self, count: Count) {
        let url = &self.url;
        match self.demand.as_mut().and_then(|demand| demand.measure(count, Instant::now())) {
            None => {}
            Some(Verdict::Enough { needed }) => {
                info!(
                    url,
                    needed, "the broker keeps enough messages for the outage of `survive_outage_s`, by what comes now"
                );
            }
            Some(Verdict::TooSmall { text }) => {
                warn!(url, "{text}");
                self.say("queue", text);
            }
        }
    }

    /// Messages are shared with other clients.
    pub fn shares(&mut self, filter: &str) {
        let text = format!(
            "`{filter}` is a shared subscription: order is not kept, and Mosquitto keeps the part of a member that is away only up to `max_queued_messages`"
        );
        if self.say("shared", text) {
            let url = &self.url;
            warn!(url, filter, "a shared subscription keeps no order, and loses more while a member is away");
        }
    }

    /// Another client has connected under our name.
    pub fn taken_over(&mut self) {
        self.takeovers += 1;
        let (url, client_id, times) = (&self.url, &self.client_id, self.takeovers);
        error!(url, client_id, times, "another client took over this session: every `client_id` must be used once");
        let text = format!(
            "another client took over this session (times so far: {times}): give each client of {url} a `client_id` of its own, not `{client_id}`"
        );
        self.say("takeover", text);
    }

    /// The broker has ended a connection of that age and did not say why. Mosquitto 2.0 does so at a takeover.
    pub fn ended_after(&mut self, lasted: Duration) {
        self.ended = if lasted < SOON { self.ended + 1 } else { 1 };
        if self.ended < ENDED_OFTEN {
            return;
        }
        let (url, client_id, times) = (&self.url, &self.client_id, self.ended);
        let text = format!(
            "the broker at {url} keeps closing our connection without a reason (times in a row: {times}): does another client use the `client_id` `{client_id}`?"
        );
        if times == ENDED_OFTEN {
            warn!(
                url,
                client_id, times, "the broker keeps closing our connection: does another client use our `client_id`?"
            );
        }
        self.say("takeover", text);
    }

    /// The connection is lost, or could not be made, for a reason that no other client is behind.
    pub fn ended_otherwise(&mut self) {
        self.ended = 0;
    }

    /// The broker knows nothing of a session that it was to keep.
    pub fn session_lost(&mut self) {
        self.sessions_lost += 1;
        let (url, times) = (&self.url, self.sessions_lost);
        error!(
            url,
            times,
            "the broker has lost our session: what was published while we were away is lost; look at its persistence and session limits"
        );
        let text = format!(
            "the broker has lost our session (times so far: {times}) and what it kept for us: set `persistence true` and a short `autosave_interval` in Mosquitto, and a longer session expiry elsewhere"
        );
        self.say("session", text);
    }

    /// The broker keeps the session for a shorter time than it was asked to.
    pub fn kept_shorter(&mut self, granted_s: u32, asked_s: u32) {
        let url = &self.url;
        warn!(url, granted_s, asked_s, "the broker keeps our session shorter than `session_expiry_s`");
        let mut text = format!(
            "the broker keeps our session for {granted_s} s and not {asked_s} s: after a longer absence messages are lost"
        );
        if let Some(survive) = self.survive.filter(|survive| survive.outage.as_secs() > granted_s.into()) {
            text += &format!(", also after one of {} s (`survive_outage_s`)", survive.outage.as_secs());
        }
        self.say("expiry", text);
    }

    /// The broker says how many messages it has dropped since it started.
    pub fn dropped(&mut self, count: i64) {
        // A broker that was restarted counts from 0.
        let before = *self.dropped_before.get_or_insert(count);
        self.dropped_before = Some(before.min(count));
        let new = count - before;
        if new <= 0 {
            return;
        }
        let text = format!(
            "the broker has dropped {new} messages of its clients since streamer connected ({count} since it started): raise `max_queued_messages` in Mosquitto"
        );
        if self.say("dropped", text) {
            let url = &self.url;
            warn!(url, count, new, "the broker dropped messages: raise `max_queued_messages` in its configuration");
        }
    }

    /// Answers whether it is news.
    fn say(&mut self, kind: &'static str, text: String) -> bool {
        let is_new = self.found.get(kind) != Some(&text);
        self.found.insert(kind, text);
        let all: Vec<_> = self.found.values().map(String::as_str).collect();
        self.health.note(Some(all.join("; ")));
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::{client::mqtt::LinkError, metrics::HealthBoard};

    #[test]
    fn what_was_found_stays_on_the_board() {
        let board = HealthBoard::default();
        let health = board.add("p/input/in", Gauge::default());
        health.ok();
        let mut doctor = Doctor::new(health, "mqtt://b:1883".into(), "me".into(), None);
        for count in [100, 100] {
            doctor.dropped(count);
            assert!(board.report().notes.is_empty(), "it was so before");
        }
        doctor.dropped(103);
        doctor.taken_over();
        doctor.taken_over();
        let report = board.report();
        assert!(report.ready, "the connection works");
        let (name, note) = &report.notes[0];
        assert_eq!((name.as_str(), report.notes.len()), ("p/input/in", 1));
        assert!(note.contains("dropped 3 messages of its clients") && note.contains("`max_queued_messages`"), "{note}");
        assert!(note.contains("times so far: 2") && note.contains("not `me`"), "{note}");
        // Restarted: its count begins anew, and so does ours.
        doctor.dropped(1);
        doctor.dropped(6);
        assert!(board.report().notes[0].1.contains("dropped 5 messages"), "{:?}", board.report().notes);
        board.remove("p/");
        assert!(board.report().notes.is_empty());
    }

    #[test]
    fn connections_that_end_without_a_word_again_and_again_raise_a_question() {
        let url = || "mqtt://b:1883".to_owned();
        let broken = |kind| LinkError::Broken { url: url(), source: std::io::Error::from(kind) };
        let ends = [
            LinkError::Closed { url: url() },
            broken(ErrorKind::ConnectionReset),
            broken(ErrorKind::BrokenPipe),
            broken(ErrorKind::UnexpectedEof),
        ];
        assert!(ends.iter().all(LinkError::is_silent_end));
        let others = [broken(ErrorKind::TimedOut), LinkError::Silent { url: url(), silent: SOON }];
        assert!(!others.iter().any(LinkError::is_silent_end));

        let board = HealthBoard::default();
        let mut doctor = Doctor::new(board.add("p/input/in", Gauge::default()), url(), "me".into(), None);
        let notes = || board.report().notes;
        for _ in 0..2 {
            doctor.ended_after(Duration::from_secs(1));
            doctor.ended_after(Duration::from_secs(1));
            doctor.ended_otherwise();
        }
        doctor.ended_after(Duration::from_secs(1));
        doctor.ended_after(Duration::from_secs(1));
        doctor.ended_after(SOON);
        assert!(notes().is_empty(), "a broker that restarts now and then does so, too: {:?}", notes());
        doctor.ended_after(Duration::from_secs(1));
        doctor.ended_after(Duration::from_secs(1));
        let found = notes();
        assert!(found[0].1.contains("does another client use the `client_id` `me`?"), "{found:?}");
    }
}
