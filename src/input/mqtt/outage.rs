//! What the broker must keep while streamer is away, by what comes while it is not. Brokers do not tell their limits over
//! MQTT: the user does, or those of Mosquitto are assumed.
use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How often it is counted what came.
pub const STRETCH: Duration = Duration::from_secs(10);
/// What comes right after a connection was made is what the broker has kept, and says nothing of the devices.
const SETTLE: Duration = Duration::from_secs(60);
/// Bounds of how many of the last stretches count together.
const TOGETHER_MIN: Duration = Duration::from_secs(60);
const TOGETHER_MAX: Duration = Duration::from_secs(600);
/// A demand that grows by less is no news.
const NEWS: f64 = 1.1;
/// What is advised has so much room to grow.
const ROOM: f64 = 2.0;

/// What Mosquitto keeps for one client when its configuration says nothing.
pub const MOSQUITTO_QUEUED_MESSAGES: u64 = 1000;

/// What the user wants to survive, and what the broker keeps for one client that is away.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub outage: Duration,
    /// `max_queued_messages` of Mosquitto; 0: no limit.
    pub messages_max: u64,
    /// `max_queued_bytes` of Mosquitto; 0: no limit.
    pub bytes_max: u64,
}

/// Messages that a broker would keep, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub messages: u64,
    pub bytes: u64,
}

/// Measures what comes, in stretches, and keeps the most that an outage would make the broker keep.
pub struct Demand {
    wanted: Wanted,
    /// The last stretches, oldest first: as many as an outage takes.
    stretches: VecDeque<(Duration, Count)>,
    /// Begin of the stretch that is counted, and the count then.
    began: Option<(Instant, Count)>,
    /// Until then the broker may be sending what it has kept.
    settled: Option<Instant>,
    /// The most so far, messages and bytes, each in its own busiest time.
    most: (f64, f64),
    /// The most when it was last told.
    told: Option<(f64, f64)>,
}

/// What to say of the broker's queue.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It suffices by what is known so far.
    Enough { needed: u64 },
    /// It does not: what would be lost, and what to write where.
    TooSmall { text: String },
}

impl Demand {
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, stretches: VecDeque::new(), began: None, settled: None, most: (0.0, 0.0), told: None }
    }

    /// A connection was made. With a session from before the broker first sends what it has kept.
    pub fn connected(&mut self, session_present: bool, now: Instant) {
        self.began = None;
        self.settled = session_present.then(|| now + SETTLE);
    }

    /// Takes note of all that has come so far. Answers when there is news.
    pub fn measure(&mut self, count: Count, now: Instant) -> Option<Verdict> {
        if self.settled.is_some_and(|settled| now < settled) {
            return None;
        }
        let (began, before) = *self.began.get_or_insert((now, count));
        let lasted = now - began;
        if lasted < STRETCH {
            return None;
        }
        self.began = Some((now, count));
        let new = Count { messages: count.messages - before.messages, bytes: count.bytes - before.bytes };
        self.stretches.push_back((lasted, new));
        let together = self.wanted.outage.clamp(TOGETHER_MIN, TOGETHER_MAX);
        let mut all = self.all();
        while let Some((first, _)) = self.stretches.front()
            && all.0 - *first >= together
        {
            self.stretches.pop_front();
            all = self.all();
        }
        let outages = self.wanted.outage.as_secs_f64() / all.0.as_secs_f64();
        let (messages, bytes) = (all.1.messages as f64 * outages, all.1.bytes as f64 * outages);
        self.most = (self.most.0.max(messages), self.most.1.max(bytes));
        self.news()
    }

    fn all(&self) -> (Duration, Count) {
        self.stretches.iter().fold((Duration::ZERO, Count::default()), |(lasted, all), (stretch, count)| {
            (lasted + *stretch, Count { messages: all.messages + count.messages, bytes: all.bytes + count.bytes })
        })
    }

    fn news(&mut self) -> Option<Verdict> {
        let (messages, bytes) = self.most;
        let Wanted { outage, messages_max, bytes_max } = self.wanted;
        let too_small = |needed: f64, max: u64| max > 0 && needed > max as f64;
        let (few, short) = (too_small(messages, messages_max), too_small(bytes, bytes_max));
        if self.told.is_some_and(|told| {
            // From enough to too small is news, however small the step.
            let was = too_small(told.0, messages_max) || too_small(told.1, bytes_max);
            was == (few || short) && messages < told.0 * NEWS && bytes < told.1 * NEWS
        }) {
            return None;
        }
        let was_enough = self.told.is_some_and(|_| !few && !short);
        self.told = Some(self.most);
        if !few && !short {
            // Once is enough.
            return (!was_enough).then_some(Verdict::Enough { needed: messages.ceil() as u64 });
        }
        let (seconds, rate) = (outage.as_secs(), rounded(messages / outage.as_secs_f64()));
        let mut text = format!(
            "were streamer away for {seconds} s (`survive_outage_s`), messages would be lost: {rate} came in a second at the busiest time, and the broker keeps"
        );
        let mut advice = Vec::new();
        for (is_small, needed, max, what, setting, theirs) in [
            (few, messages, messages_max, "messages", "broker_queued_messages_max", "max_queued_messages"),
            (short, bytes, bytes_max, "bytes", "broker_queued_bytes_max", "max_queued_bytes"),
        ] {
            if is_small {
                let and = if advice.is_empty() { "" } else { " and" };
                text += &format!("{and} {max} {what} (`{setting}`) of {:.0}", needed.ceil());
                advice.push(format!("`{theirs} {}`", advised(needed)));
            }
        }
        text += &format!(": write {} into mosquitto.conf, and the same numbers here", advice.join(" and "));
        Some(Verdict::TooSmall { text })
    }
}

/// With few digits, for people.
fn rounded(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// Room to grow, in two digits.
fn advised(needed: f64) -> u64 {
    let wanted = (needed * ROOM).ceil() as u64;
    let unit = 10u64.pow(wanted.max(1).ilog10().saturating_sub(1));
    wanted.div_ceil(unit) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { outage: Duration::from_secs(120), messages_max: 1000, bytes_max: 0 };

    /// Counts `steps` of 10 s with so many messages of 100 bytes each, from `from` on.
    struct Clock {
        now: Instant,
        count: Count,
    }

    impl Clock {
        fn new() -> Self {
            Self { now: Instant::now(), count: Count::default() }
        }

        fn stretch(&mut self, demand: &mut Demand, messages: u64) -> Option<Verdict> {
            self.now += STRETCH;
            self.count.messages += messages;
            self.count.bytes += messages * 100;
            demand.measure(self.count, self.now)
        }
    }

    fn text(verdict: Option<Verdict>) -> String {
        match verdict {
            Some(Verdict::TooSmall { text }) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_queue_that_is_too_small_is_told_with_what_to_write() {
        let (mut demand, mut clock) = (Demand::new(WANTED), Clock::new());
        demand.connected(false, clock.now);
        assert_eq!(demand.measure(clock.count, clock.now), None, "nothing is measured");
        assert_eq!(
            text(clock.stretch(&mut demand, 5000)),
            "were streamer away for 120 s (`survive_outage_s`), messages would be lost: 500 came in a second at the busiest time, and the broker keeps 1000 messages (`broker_queued_messages_max`) of 60000: write `max_queued_messages 120000` into mosquitto.conf, and the same numbers here"
        );
        assert_eq!(clock.stretch(&mut demand, 5100), None, "a little more is no news");
        assert_eq!(clock.stretch(&mut demand, 0), None, "nor is less");
        assert!(text(clock.stretch(&mut demand, 50_000)).contains("1502 came in a second"));
    }

    #[test]
    fn bytes_are_a_limit_of_their_own() {
        let wanted = Wanted { messages_max: 0, bytes_max: 1_000_000, ..WANTED };
        let (mut demand, mut clock) = (Demand::new(wanted), Clock::new());
        demand.measure(clock.count, clock.now);
        let told = text(clock.stretch(&mut demand, 5000));
        assert!(told.contains("keeps 1000000 bytes (`broker_queued_bytes_max`) of 6000000"), "{told}");
        assert!(told.contains("write `max_queued_bytes 12000000`"), "{told}");
        let both = Wanted { messages_max: 1000, ..wanted };
        let (mut demand, mut clock) = (Demand::new(both), Clock::new());
        demand.measure(clock.count, clock.now);
        let told = text(clock.stretch(&mut demand, 5000));
        assert!(told.contains("`max_queued_messages 120000` and `max_queued_bytes 12000000`"), "{told}");
    }

    #[test]
    fn enough_is_told_once_and_too_small_when_it_begins() {
        let (mut demand, mut clock) = (Demand::new(WANTED), Clock::new());
        demand.measure(clock.count, clock.now);
        assert_eq!(clock.stretch(&mut demand, 80), Some(Verdict::Enough { needed: 960 }));
        assert_eq!(clock.stretch(&mut demand, 80), None);
        assert!(text(clock.stretch(&mut demand, 120)).contains("of 1120"));
        let (mut demand, mut clock) = (Demand::new(Wanted { messages_max: 0, ..WANTED }), Clock::new());
        demand.measure(clock.count, clock.now);
        assert_eq!(clock.stretch(&mut demand, 8_000), Some(Verdict::Enough { needed: 96_000 }), "no limit");
        assert_eq!(clock.stretch(&mut demand, 80_000), None);
    }

    #[test]
    fn what_the_broker_had_kept_is_not_counted() {
        let (mut demand, mut clock) = (Demand::new(WANTED), Clock::new());
        demand.connected(true, clock.now);
        for _ in 0..5 {
            assert_eq!(clock.stretch(&mut demand, 50_000), None);
        }
        assert_eq!(clock.stretch(&mut demand, 50_000), None, "from here on it is measured");
        assert_eq!(clock.stretch(&mut demand, 50), Some(Verdict::Enough { needed: 600 }));
    }

    #[test]
    fn a_burst_counts_as_long_as_an_outage_takes() {
        let (mut demand, mut clock) = (Demand::new(WANTED), Clock::new());
        demand.measure(clock.count, clock.now);
        for _ in 0..20 {
            clock.stretch(&mut demand, 10);
        }
        assert!(demand.most.0 < 130.0, "{:?}", demand.most);
        clock.stretch(&mut demand, 890);
        // 890 and eleven times 10 in the last 120 s.
        assert!((demand.most.0 - 1000.0).abs() < 1.0, "{:?}", demand.most);
    }

    #[test]
    fn advice_has_two_digits() {
        for (needed, expected) in [(0.4, 1), (600.0, 1200), (617.0, 1300), (61_700.0, 130_000)] {
            assert_eq!(advised(needed), expected, "{needed}");
        }
    }
}
