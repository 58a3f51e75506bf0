//! How long to wait before the next attempt.
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// After a session takeover: two clients with one id must not throw each other out many times a second.
const AFTER_TAKEOVER: Duration = Duration::from_secs(5);
/// A connection that lasted this long starts the count anew.
const LASTED: Duration = Duration::from_secs(10);

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
    /// Tells that a connection is lost that had lasted `time`.
    pub fn lost_after(&mut self, time: Duration) {
        if time >= LASTED {
            self.next = FIRST;
        }
    }

    /// Tells that another client took the session over.
    pub fn taken_over(&mut self) {
        self.next = self.next.max(AFTER_TAKEOVER);
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
        backoff.lost_after(Duration::from_secs(1));
        assert!(backoff.wait() >= Duration::from_secs(15), "a short life does not start the count anew");
        backoff.lost_after(Duration::from_secs(60));
        assert!(backoff.wait() <= FIRST);
        backoff.taken_over();
        assert!(backoff.wait() >= AFTER_TAKEOVER / 2);
    }
}
