//! Wall time, CPU time and peak memory of a process.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::fmt;
use std::time::{Duration, Instant};

use crate::Result;

/// What a process used.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Time on the clock.
    pub wall: Duration,
    /// User and system time of all threads.
    pub cpu: Duration,
    /// The largest resident set, in bytes.
    pub peak_bytes: u64,
}

impl Measured {
    /// What this process used; `start` is when its `main` began.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn of_this_process(start: Instant) -> Result<Measured> {
        Ok(Measured::new(start.elapsed(), &getrusage(UsageWho::RUSAGE_SELF)?))
    }
    /// What the child processes that have ended used; the peak is that of the largest.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn of_children(start: Instant) -> Result<Measured> {
        Ok(Measured::new(start.elapsed(), &getrusage(UsageWho::RUSAGE_CHILDREN)?))
    }
    fn new(wall: Duration, usage: &Usage) -> Measured {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let cpu = Duration::from_micros(micros.unsigned_abs());
        // Linux counts the largest resident set in KiB, macOS in bytes.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        Measured { wall, cpu, peak_bytes: usage.max_rss().unsigned_abs() * unit }
    }
    /// The figures of a run over so many records, as `name=value` pairs.
    pub fn with_records(&self, records: u64) -> String {
        let per = |time: Duration| records as f64 / time.as_secs_f64().max(1e-9);
        format!("{self} records={records} rec/s={:.0} rec/cpu_s={:.0}", per(self.wall), per(self.cpu))
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64());
        write!(f, "wall_s={wall:.3} cpu_s={cpu:.3} peak_mb={:.0}", self.peak_bytes as f64 / (1024.0 * 1024.0))
    }
}
