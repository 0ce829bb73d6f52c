//! What the thread that fetches and the source that is read have in common: per partition the records that came, and how far
//! it is.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::record::Records;

/// Wakes whoever waits for something to happen. A ring that nobody waited for is not lost.
#[derive(Clone, Debug, Default)]
pub struct Bell {
    state: Arc<(Mutex<bool>, Condvar)>,
}
impl Bell {
    /// A bell that nobody has rung.
    pub fn new() -> Bell {
        Bell::default()
    }
    /// Wakes who waits, or who waits next.
    pub fn ring(&self) {
        let (rung, waiting) = &*self.state;
        *rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        waiting.notify_all();
    }
    /// Waits for a ring, at most so long.
    pub fn wait(&self, at_most: Duration) {
        let (rung, waiting) = &*self.state;
        let rung = rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = waiting.wait_timeout_while(rung, at_most, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// What came of a partition and was not taken yet, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The topic's number.
    pub(super) topic: u32,
    pub(super) partition: i32,
    pub(super) arrived: Records,
    pub(super) at: Standing,
    /// What happened to it last.
    pub(super) note: String,
}
/// How far a partition is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// The offset of the next record; what arrived lies before it.
    pub(super) next: i64,
    /// What there was when reading began: until it is reached, the partition is waited for.
    pub(super) target: i64,
    /// The offset after the last record that the broker has, as last heard.
    pub(super) high: i64,
    /// The broker has nothing behind what arrived.
    pub(super) at_end: bool,
    /// Nothing will ever come behind what arrived.
    pub(super) ended: bool,
}
impl Standing {
    /// Whether more is known to be there than arrived.
    pub(super) fn is_behind(&self) -> bool {
        !self.ended && !self.at_end && self.next < self.target
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) topics: Vec<String>,
    pub(super) inboxes: Vec<Inbox>,
    /// What is to be said.
    pub(super) news: Vec<String>,
    pub(super) failure: Option<Error>,
    /// Whether no broker answers.
    pub(super) away: bool,
    /// Up to where each partition was handed out.
    pub(super) delivered: Vec<i64>,
    /// Up to where each partition was taken in by whoever reads: it may be committed.
    pub(super) taken: Vec<i64>,
    /// Whether what is there now is to be the target.
    pub(super) retarget: bool,
    pub(super) stop: bool,
}

/// The state, and a bell for either side.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// For the thread that fetches: there is something to fetch, or room again.
    pub(super) fetch: Bell,
    /// For the reader.
    pub(super) arrived: Bell,
}
impl Shared {
    pub(super) fn new(arrived: Bell) -> Shared {
        Shared { arrived, ..Shared::default() }
    }
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
