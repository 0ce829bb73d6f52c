//! The ticks of a run that was recorded, while its recording is replayed: what each took in, and which ones statements made.
//!
//! A statement that reads finds in a replay what it found then: sources are read up to the tick that it made. Where the script is
//! another one, ticks of statements are passed over and sources are read as without them.

use std::collections::VecDeque;
use std::path::Path;

use deltaworks_connectors::recorded::{RecordedTick, TickLog};
use deltaworks_dataflow::Time;

use crate::error::EngineError;

/// The ticks that are still to come.
pub(crate) struct TicksToCome(VecDeque<RecordedTick>);

impl TicksToCome {
    /// Those of a recording; None where it does not say.
    pub(crate) fn open(dir: &Path) -> Result<Option<TicksToCome>, EngineError> {
        Ok(TickLog::open(dir)?.map(|log| TicksToCome(log.ticks.into())))
    }
    /// The clock of the next tick that takes in records, in microseconds since 1970.
    pub(crate) fn next_clock(&self) -> Option<i64> {
        self.0.iter().find(|tick| !tick.statement).map(|tick| tick.clock_us)
    }
    /// The next tick that takes in records.
    pub(crate) fn next(&mut self) -> Option<RecordedTick> {
        while self.0.pop_front_if(|tick| tick.statement).is_some() {}
        self.0.pop_front()
    }
    /// Whether it was a statement that came next, before tick `next`, and not the sources.
    pub(crate) fn is_of_statement(&mut self, next: Time) -> bool {
        while self.0.pop_front_if(|tick| tick.statement && tick.tick < next).is_some() {}
        self.0.front().is_some_and(|tick| tick.statement)
    }
    /// The clock of the statement that came next, before or at tick `next`; it is then past.
    pub(crate) fn take_statement(&mut self, next: Time) -> Option<i64> {
        let is_it = self.is_of_statement(next) && self.0.front().is_some_and(|tick| tick.tick == next);
        self.0.pop_front_if(|_| is_it).map(|tick| tick.clock_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_stand_among_ticks_of_sources() {
        let tick = |tick, statement| RecordedTick { tick, clock_us: 10 * tick as i64, upto: Default::default(), statement };
        let ticks = [(1, true), (2, false), (3, true), (4, false), (5, true), (6, false)];
        let mut log = TicksToCome(ticks.map(|(number, statement)| tick(number, statement)).into());
        assert_eq!((log.take_statement(1), log.is_of_statement(2), log.next_clock()), (Some(10), false, Some(20)));
        assert_eq!((log.next().map(|tick| tick.tick), log.is_of_statement(3)), (Some(2), true));
        // A statement that makes another tick than then takes no clock.
        assert_eq!((log.take_statement(2), log.take_statement(3), log.next_clock()), (None, Some(30), Some(40)));
        // One that is not there any more is passed over.
        assert_eq!((log.next().map(|tick| tick.tick), log.is_of_statement(6)), (Some(4), false));
        assert_eq!((log.next().map(|tick| tick.tick), log.next()), (Some(6), None));
    }
}
