//! Gathering: all updates of a collection, tick by tick, on one worker.
//!
//! *Definition*: calls `each(tick, updates)` on worker 0 for every tick with updates, in order, once the tick is complete.
//! The updates are not consolidated: a sink does that when it folds them by key.
//!
//! *State*: the updates of incomplete ticks. *On late rows*: rows of a dataflow that was installed late, whose history lies
//! before `start`, come as updates of tick `start`.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use deltaworks_dataflow::{Collection, Diff, Row, Time};

use crate::pending::Pending;

/// Gathers the collection on worker 0; the returned stream only tells how far it is.
pub fn gather<'s>(
    input: Collection<'s>,
    start: Time,
    name: &str,
    mut each: impl FnMut(Time, Vec<(Row, Diff)>) + 'static,
) -> StreamVec<'s, Time, ()> {
    let to_first = Exchange::new(|_: &(Row, Time, Diff)| 0);
    input.inner.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(to_first, name, move |_, _| {
        let mut pending: Pending<(Row, Diff)> = Pending::new();
        move |(input, frontier), _output| {
            input.for_each(|capability, updates| pending.stash(&capability, updates, start));
            while let Some(([capability], updates)) = pending.next_complete(frontier) {
                each(*capability.time(), updates);
            }
        }
    })
}
