//! Consolidation: a collection whose updates at one time are summed, row by row.
//!
//! *Definition*: at every time, the same collection; per time at most one update per row, none with diff 0.
//!
//! *State*: the updates of incomplete times. *On retraction*: linear. *On ties, nulls, late rows*: rows are compared as
//! bytes. Joins may emit a row and its retraction at one time; whoever looks at single updates (a lookup join, which must not
//! probe for a row that was never there) takes its input through here.

use differential_dataflow::consolidation::consolidate as sum_up;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use deltaworks_dataflow::arrange::collection;
use deltaworks_dataflow::row::hash_bytes;
use deltaworks_dataflow::{Collection, Diff, Row, Time};

use crate::pending::Pending;

/// Sums the updates of each time, rows owned by their hash.
pub fn consolidate<'s>(input: Collection<'s>, name: &str) -> Collection<'s> {
    let by_row = Exchange::new(|update: &(Row, Time, Diff)| hash_bytes(&update.0));
    let output =
        input.inner.unary_frontier::<CapacityContainerBuilder<Vec<(Row, Time, Diff)>>, _, _, _>(by_row, name, |_, _| {
            let mut pending: Pending<(Row, Diff)> = Pending::new();
            move |(input, frontier), output| {
                input.for_each(|capability, updates| pending.stash(&capability, updates, 0));
                while let Some(([capability], mut updates)) = pending.next_complete(frontier) {
                    sum_up(&mut updates);
                    let time = *capability.time();
                    let timed = updates.into_iter().map(|(row, diff)| (row, time, diff));
                    output.session(&capability).give_iterator(timed);
                }
            }
        });
    collection(output)
}
