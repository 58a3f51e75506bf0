//! How long to wait before the next attempt.
use std::time::Duration;

use super::LinkError;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// After a session takeover: two clients with one id must not throw each other out many times a second. Longer would be too
/// long where it is only a bad line: all the while the broker's queue fills up.
const AFTER_TAKEOVER: Duration = Duration::from_secs(5);
/// A connection that lasted this long starts the count anew. One that breaks at once, on the same bad packet each time,
/// does not.
const LASTED: Duration = Duration::from_secs(1);
/// The same where another client may have taken the session over: it comes back as fast as we do.
const LASTED_UNDISPUTED: Duration = Duration::from_secs(60);

/// Doubles from 0.1 s to 30 s; the lower half is fixed, the upper half is random, so that clients do not come all at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Tells that a connection is lost that had lasted `time`, or could not be made.
    pub fn lost_after(&mut self, time: Duration, lost: &LinkError) {
        let lasted = if lost.may_be_takeover() { LASTED_UNDISPUTED } else { LASTED };
        if time >= lasted {
            self.next = FIRST;
        } else if time >= LASTED {
            self.next = self.next.min(AFTER_TAKEOVER);
        }
        if lost.is_takeover() {
            self.next = self.next.max(AFTER_TAKEOVER);
        }
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_30_seconds() {
        let mut backoff = Backoff::default();
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let wait = backoff.wait().as_millis();
            assert!((expected / 2..=expected).contains(&wait), "{wait} of {expected}");
        }
        let url = || "mqtt://h".to_owned();
        let silent = LinkError::Silent { url: url(), silent: FIRST };
        let closed = LinkError::Closed { url: url() };
        let takeover = LinkError::Disconnected { url: url(), code: 0x8e, words: "" };
        for (seconds, lost, at_least, at_most) in [
            (0, &silent, 15, 30),
            (0, &closed, 15, 30),
            (5, &closed, 2, 5),
            (2, &silent, 0, 0),
            (2, &takeover, 2, 5),
            (100, &closed, 0, 0),
        ] {
            backoff.lost_after(Duration::from_secs(seconds), lost);
            let wait = backoff.wait().as_secs();
            assert!((at_least..=at_most).contains(&wait), "{wait} s after {seconds} s and {lost}");
        }
    }
}
