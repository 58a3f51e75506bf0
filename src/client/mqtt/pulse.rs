//! When to ping and when to give up. Looked at four times a keep-alive interval; in between, reads and writes only leave
//! a mark, so that nothing asks for the time while messages flow.
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub struct Pulse {
    keep_alive: Duration,
    /// Something came in or went out since the last look.
    pub heard: bool,
    pub sent: bool,
    last_heard: Instant,
    last_sent: Instant,
    /// The first ping that nothing has followed yet.
    unanswered: Option<Instant>,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Beat {
    Rest,
    Ping,
    /// The other side has been silent for this long, although asked.
    Dead(Duration),
}

impl Pulse {
    /// A keep-alive of zero turns it off.
    pub fn new(keep_alive: Duration, now: Instant) -> Self {
        Self { keep_alive, heard: false, sent: false, last_heard: now, last_sent: now, unanswered: None }
    }

    /// How often to look.
    pub fn period(&self) -> Duration {
        if self.keep_alive.is_zero() { Duration::from_secs(3600) } else { self.keep_alive / 4 }
    }

    /// Looks. `listening` is false while we hold back reading ourselves: silence means nothing then.
    pub fn beat(&mut self, now: Instant, listening: bool) -> Beat {
        if std::mem::take(&mut self.sent) {
            self.last_sent = now;
        }
        if std::mem::take(&mut self.heard) || !listening {
            self.last_heard = now;
            self.unanswered = None;
        }
        if self.keep_alive.is_zero() {
            return Beat::Rest;
        }
        if self.unanswered.is_some_and(|asked| now - asked >= self.keep_alive * 3 / 2) {
            return Beat::Dead(now - self.last_heard);
        }
        let quiet = now - self.last_sent >= self.keep_alive / 2;
        let doubtful = self.unanswered.is_none() && now - self.last_heard >= self.keep_alive;
        if !quiet && !doubtful {
            return Beat::Rest;
        }
        if listening {
            self.unanswered.get_or_insert(now);
        }
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(8);

    /// Runs `seconds`, looking every 2 s; `each` leaves its marks before each look.
    fn run(seconds: u64, listening: bool, each: impl Fn(&mut Pulse)) -> (usize, Option<u64>) {
        let start = Instant::now();
        let mut pulse = Pulse::new(KEEP_ALIVE, start);
        assert_eq!(pulse.period(), Duration::from_secs(2));
        let mut pings = 0;
        for second in (2..=seconds).step_by(2) {
            each(&mut pulse);
            match pulse.beat(start + Duration::from_secs(second), listening) {
                Beat::Ping => {
                    pings += 1;
                    pulse.sent = true;
                }
                Beat::Dead(_) => return (pings, Some(second)),
                Beat::Rest => {}
            }
        }
        (pings, None)
    }

    #[test]
    fn a_silent_broker_is_dead_after_one_and_a_half_intervals() {
        assert_eq!(run(60, true, |_| {}).1, Some(16), "pinged after 4 s, then 12 s of silence");
    }

    #[test]
    fn any_byte_counts_as_life() {
        assert_eq!(run(60, true, |p| p.heard = true).1, None);
    }

    #[test]
    fn pings_go_on_while_we_do_not_read_and_silence_means_nothing() {
        let (pings, dead) = run(60, false, |_| {});
        assert_eq!(dead, None);
        assert!(pings >= 60 / 8, "{pings}");
    }

    #[test]
    fn a_broker_that_takes_acks_and_says_nothing_is_pinged() {
        assert_eq!(run(60, true, |p| p.sent = true).1, Some(20));
    }

    #[test]
    fn no_ping_while_both_sides_talk() {
        let talking = |p: &mut Pulse| (p.sent, p.heard) = (true, true);
        assert_eq!(run(60, true, talking), (0, None));
    }
}
