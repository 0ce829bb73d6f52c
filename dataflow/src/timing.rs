//! How long the operators of a dataflow run, for the dataflows of which somebody asks it.
//!
//! A worker logs when it schedules operators only for dataflows that are built while the log is there; all others have none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

/// The name of the workers' log of what is scheduled when.
const SCHEDULE_LOG: &str = "timely";

/// How long the operators of one dataflow ran on this worker.
#[derive(Default)]
pub struct Busy {
    /// Nanoseconds by the operators' numbers.
    pub by_operator: BTreeMap<usize, u64>,
    started: BTreeMap<usize, Duration>,
}
impl Busy {
    fn log(&mut self, at: Duration, event: &TimelyEvent) {
        let TimelyEvent::Schedule(schedule) = event else { return };
        match schedule.start_stop {
            StartStop::Start => {
                self.started.insert(schedule.id, at);
            }
            StartStop::Stop => {
                if let Some(start) = self.started.remove(&schedule.id) {
                    let nanos = u64::try_from(at.saturating_sub(start).as_nanos()).unwrap_or(u64::MAX);
                    *self.by_operator.entry(schedule.id).or_default() += nanos;
                }
            }
        }
    }
}

/// Logs when the operators of the dataflows built from here on run. A dataflow built without has no log at all.
pub(crate) fn log_schedule(worker: &mut Worker) -> Rc<RefCell<Busy>> {
    let busy: Rc<RefCell<Busy>> = Rc::default();
    let ours = Rc::clone(&busy);
    if let Some(mut log) = worker.log_register() {
        log.insert::<TimelyEventBuilder, _>(SCHEDULE_LOG, move |_, events| {
            for (at, event) in events.take().into_iter().flatten() {
                ours.borrow_mut().log(at, &event);
            }
        });
    }
    busy
}
/// Ends the log.
pub(crate) fn stop_log(worker: &mut Worker) {
    if let Some(mut log) = worker.log_register() {
        log.remove(SCHEDULE_LOG);
    }
}
