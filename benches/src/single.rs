//! A dataflow on this thread whose ticks are timed: input, then steps until the tick is complete.

use std::time::{Duration, Instant};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::worker::Worker;

use crate::Result;
use crate::measure::Measured;
use deltaworks_dataflow::{Diff, Time};

/// An update of a dataflow's input.
pub type Update<D> = (D, Time, Diff);

/// The input and the probe of a dataflow.
pub struct Ticks<'w, D: Clone + 'static> {
    worker: &'w mut Worker,
    input: InputHandle<Time, CapacityContainerBuilder<Vec<Update<D>>>>,
    probe: ProbeHandle<Time>,
    next: Time,
    /// The CPU time that all ticks took so far.
    pub cpu: Duration,
}

impl<'w, D: Clone + 'static> Ticks<'w, D> {
    /// Drives what was built on the worker.
    pub fn new(
        worker: &'w mut Worker,
        input: InputHandle<Time, CapacityContainerBuilder<Vec<Update<D>>>>,
        probe: ProbeHandle<Time>,
    ) -> Self {
        Ticks { worker, input, probe, next: 0, cpu: Duration::ZERO }
    }
    /// Sends the rows as a tick and returns how long it took until it was complete; making the updates is not counted.
    pub fn tick(&mut self, rows: impl IntoIterator<Item = (D, Diff)>) -> Duration {
        let time = self.next;
        let mut updates: Vec<Update<D>> = rows.into_iter().map(|(row, diff)| (row, time, diff)).collect();
        let (start, cpu) = (Instant::now(), cpu_time().unwrap_or_default());
        self.input.send_batch(&mut updates);
        self.next += 1;
        self.input.advance_to(self.next);
        while self.probe.less_than(&self.next) {
            self.worker.step();
        }
        let elapsed = start.elapsed();
        self.cpu += cpu_time().unwrap_or_default().saturating_sub(cpu);
        elapsed
    }
}

/// The CPU time, user and system, that this process has used: on a busy machine the only time that counts.
///
/// # Errors
/// Where the system does not tell.
pub fn cpu_time() -> Result<Duration> {
    Ok(Measured::of_this_process(Instant::now())?.cpu)
}

/// The resident set of this process in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
