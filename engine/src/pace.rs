//! The pace of a replay: records come as far apart as they once did, or so many times faster.
//!
//! A tick takes the records of one [`frame`](Pace::frame) of record time, and begins when the frame is over: where ticks end is
//! a function of the recording and the speed, never of how fast the machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What passes between two ticks of a paced replay, at most, in milliseconds.
const FRAME_MS: f64 = 100.0;
/// How long a wait goes without looking whether the run is to stop.
const NAP: Duration = Duration::from_millis(50);

/// The time that passes outside, and waiting for it.
pub(crate) trait Timer {
    /// What has passed since some instant.
    fn elapsed(&self) -> Duration;
    /// Waits; false where the run is to stop.
    fn wait(&mut self, duration: Duration) -> bool;
}

/// The machine's own time.
pub(crate) struct WallTimer {
    start: Instant,
    stop: Arc<AtomicBool>,
}

impl WallTimer {
    /// Waits until `stop` is set at most.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        WallTimer { start: Instant::now(), stop }
    }
}
impl Timer for WallTimer {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
    fn wait(&mut self, duration: Duration) -> bool {
        let mut left = duration;
        while !self.stop.load(Ordering::Relaxed) {
            if left.is_zero() {
                return true;
            }
            let nap = left.min(NAP);
            std::thread::sleep(nap);
            left -= nap;
        }
        false
    }
}

/// Says when records are due.
pub(crate) struct Pace {
    speed: f64,
    /// When the first record came, and its timestamp in milliseconds.
    anchor: Option<(Duration, i64)>,
    timer: Box<dyn Timer + Send>,
}

impl Pace {
    /// A replay that is `speed` times as fast as what was recorded.
    pub(crate) fn new(speed: f64, timer: Box<dyn Timer + Send>) -> Self {
        Pace { speed, anchor: None, timer }
    }
    /// The record time that one tick spans, in milliseconds.
    pub(crate) fn frame(&self) -> i64 {
        ((FRAME_MS * self.speed) as i64).max(1)
    }
    /// How long it is until records before the timestamp are due.
    pub(crate) fn until(&mut self, timestamp_ms: i64) -> Duration {
        let elapsed = self.timer.elapsed();
        let (start, first) = *self.anchor.get_or_insert((elapsed, timestamp_ms));
        let apart = timestamp_ms.saturating_sub(first).max(0) as f64 / 1000.0 / self.speed;
        let due = Duration::try_from_secs_f64(apart).ok().and_then(|apart| start.checked_add(apart));
        due.unwrap_or(Duration::MAX).saturating_sub(elapsed)
    }
    /// Waits; false where the run is to stop.
    pub(crate) fn wait(&mut self, duration: Duration) -> bool {
        self.timer.wait(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A timer that jumps ahead when it is waited for, and is called off at the end of `patience`.
    struct Jumping {
        now: Arc<Mutex<Duration>>,
        patience: Duration,
    }
    impl Timer for Jumping {
        fn elapsed(&self) -> Duration {
            *self.now.lock().unwrap()
        }
        fn wait(&mut self, duration: Duration) -> bool {
            let mut now = self.now.lock().unwrap();
            *now += duration;
            *now < self.patience
        }
    }
    fn pace(speed: f64) -> (Pace, Arc<Mutex<Duration>>) {
        let now = Arc::new(Mutex::new(Duration::from_secs(7)));
        let timer = Jumping { now: Arc::clone(&now), patience: Duration::from_secs(3600) };
        (Pace::new(speed, Box::new(timer)), now)
    }
    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn records_are_due_as_far_apart_as_they_were() {
        for (speed, expected) in [(1.0, 2000), (10.0, 200), (0.5, 4000)] {
            let (mut pace, now) = pace(speed);
            assert_eq!(pace.until(1_000_000), MS(0));
            assert_eq!(pace.until(1_002_000), MS(expected));
            assert!(pace.wait(MS(expected / 2)));
            assert_eq!(pace.until(1_002_000), MS(expected - expected / 2));
            // Work takes time too; what is overdue is due, and the next one does not wait longer for it.
            *now.lock().unwrap() += MS(expected);
            assert_eq!(pace.until(1_002_000), MS(0));
            assert_eq!(pace.until(1_004_000), MS(expected / 2));
            // A timestamp that goes back is due.
            assert_eq!(pace.until(5), MS(0));
        }
    }
    #[test]
    fn frames_follow_the_speed() {
        assert_eq!([0.001, 1.0, 10.0, 1000.0].map(|speed| pace(speed).0.frame()), [1, 100, 1000, 100_000]);
    }
    #[test]
    fn no_wait_is_too_long_to_be_told() {
        let (mut pace, _) = pace(1e-300);
        pace.until(0);
        assert_eq!(pace.until(i64::MAX), Duration::MAX - Duration::from_secs(7));
        assert!(!pace.wait(Duration::from_secs(4000)));
    }
    #[test]
    fn a_wait_ends_when_the_run_is_to_stop() {
        let stop = Arc::new(AtomicBool::new(false));
        let mut timer = WallTimer::new(Arc::clone(&stop));
        assert!(timer.wait(MS(1)));
        stop.store(true, Ordering::Relaxed);
        assert!(!timer.wait(Duration::MAX));
    }
}
