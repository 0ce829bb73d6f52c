//! Items that wait until their time is complete.
//!
//! An operator that keeps state of its own must apply a tick as a whole: it stashes what arrives here and takes out, in the
//! order of times, what the frontier has passed.

use std::collections::BTreeMap;
use timely::dataflow::operators::{Capability, InputCapability};
use timely::progress::frontier::MutableAntichain;

use deltaworks_dataflow::{Diff, Time};

/// Items by time, each time with the right to send at it on every output.
pub(crate) struct Pending<T, const OUTPUTS: usize = 1> {
    times: BTreeMap<Time, ([Capability<Time>; OUTPUTS], Vec<T>)>,
}

impl<T, const OUTPUTS: usize> Pending<T, OUTPUTS> {
    pub(crate) fn new() -> Self {
        Pending { times: BTreeMap::new() }
    }
    /// The items of `time`, which must not be before the capability's.
    pub(crate) fn at(&mut self, time: Time, capability: &InputCapability<Time>) -> &mut Vec<T> {
        &mut self.times.entry(time).or_insert_with(|| (delayed(capability, time), Vec::new())).1
    }
    /// Makes `time` due even if nothing arrives at it.
    pub(crate) fn expect(&mut self, capabilities: [Capability<Time>; OUTPUTS], time: Time) {
        self.times.entry(time).or_insert_with(|| (capabilities, Vec::new()));
    }
    /// Takes over the items of one message, all of the message's time.
    pub(crate) fn stash_all(&mut self, capability: &InputCapability<Time>, items: &mut Vec<T>) {
        let stashed = self.at(*capability.time(), capability);
        if stashed.is_empty() {
            std::mem::swap(stashed, items);
        } else {
            stashed.append(items);
        }
    }
    /// Takes out the first time if it is complete.
    pub(crate) fn next_complete(
        &mut self,
        frontier: &MutableAntichain<Time>,
    ) -> Option<([Capability<Time>; OUTPUTS], Vec<T>)> {
        let first = self.times.first_entry()?;
        if frontier.less_equal(first.key()) { None } else { Some(first.remove()) }
    }
    /// The first time that something waits for.
    pub(crate) fn first_time(&self) -> Option<Time> {
        self.times.first_key_value().map(|(time, _)| *time)
    }
    /// Takes out the first time.
    pub(crate) fn pop_first(&mut self) -> Option<([Capability<Time>; OUTPUTS], Vec<T>)> {
        self.times.pop_first().map(|(_, waiting)| waiting)
    }
}

fn delayed<const OUTPUTS: usize>(capability: &InputCapability<Time>, time: Time) -> [Capability<Time>; OUTPUTS] {
    std::array::from_fn(|output| capability.delayed(&time, output))
}

impl<D, const OUTPUTS: usize> Pending<(D, Diff), OUTPUTS> {
    /// Takes over updates, each at its own time but not before `start`.
    pub(crate) fn stash(&mut self, capability: &InputCapability<Time>, updates: &mut Vec<(D, Time, Diff)>, start: Time) {
        let mut updates = updates.drain(..).peekable();
        while let Some((data, time, diff)) = updates.next() {
            let stashed = self.at(time.max(start), capability);
            stashed.push((data, diff));
            while let Some((data, _, diff)) = updates.next_if(|next| next.1 == time) {
                stashed.push((data, diff));
            }
        }
    }
}
