//! The time that scripts see: that of the message at hand, read once and only when asked for.
use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

/// The clock of one thread. A script runs on one thread from start to end.
struct Clock {
    now_ms: Cell<Option<i64>>,
    /// The time of every message, when it is fixed.
    fixed_ms: Cell<Option<i64>>,
}

thread_local! {
    static CLOCK: Clock = const { Clock { now_ms: Cell::new(None), fixed_ms: Cell::new(None) } };
}

/// Another message begins on this thread.
pub(super) fn begin() {
    CLOCK.with(|clock| clock.now_ms.set(clock.fixed_ms.get()));
}

/// Fixes the time that scripts of this thread see, Unix milliseconds, until it is set free with `None`.
pub fn fix_clock(ms: Option<i64>) {
    CLOCK.with(|clock| clock.fixed_ms.set(ms));
}

/// Unix milliseconds; the same value however often one message asks.
pub(super) fn now_ms() -> i64 {
    CLOCK.with(|clock| {
        clock.now_ms.get().unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
            clock.now_ms.set(Some(now));
            now
        })
    })
}
