//! The clock: the one place that may ask the machine for the time. It never goes back.

use crate::options::ClockMode;

/// What NOW() and CURRENT_DATE see.
#[derive(Debug)]
pub(crate) struct Clock {
    mode: ClockMode,
    newest: i64,
}

impl Clock {
    pub(crate) fn new(mode: ClockMode) -> Self {
        Clock { mode, newest: if let ClockMode::Fixed(instant) = mode { instant } else { 0 } }
    }
    /// Whether the clock is what the records say.
    pub(crate) fn is_of_records(&self) -> bool {
        self.mode == ClockMode::Replay
    }
    /// Follows the clock of a recorded tick, in microseconds.
    pub(crate) fn saw_tick(&mut self, clock_us: i64) {
        if self.mode == ClockMode::Replay {
            self.newest = self.newest.max(clock_us);
        }
    }
    /// Notes a record timestamp, in milliseconds.
    pub(crate) fn saw_record(&mut self, timestamp_ms: i64) {
        if self.mode == ClockMode::Replay {
            self.newest = self.newest.max(timestamp_ms.saturating_mul(1000));
        }
    }
    /// Moves the clock on; the machine's own goes on from there once it has caught up.
    pub(crate) fn advance(&mut self, microseconds: i64) {
        self.newest = self.now().saturating_add(microseconds);
    }
    /// The instant that [`now`](Self::now) returned last.
    pub(crate) fn last(&self) -> i64 {
        self.newest
    }
    /// The present instant, in microseconds since 1970-01-01 00:00:00 UTC.
    pub(crate) fn now(&mut self) -> i64 {
        if self.mode == ClockMode::System {
            #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros());
            self.newest = self.newest.max(i64::try_from(since).unwrap_or(i64::MAX));
        }
        self.newest
    }
}

/// The instant, in microseconds since 1970-01-01 00:00:00 UTC, that a text such as `2026-06-06 00:00:00` names; a date alone
/// is its midnight. None where it names none.
pub fn parse_instant(text: &str) -> Option<i64> {
    let whole = if text.len() == 10 { format!("{text} 00:00:00") } else { text.to_string() };
    deltaworks_connectors::format::parse::timestamp(&whole, true).ok()
}
