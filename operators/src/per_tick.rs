//! The frame of operators that keep state of their own and apply each tick as a whole.

use differential_dataflow::{AsCollection, VecCollection};
use timely::ExchangeData;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::pending::Pending;
use deltaworks_dataflow::{Diff, Time};

/// Gives every tick's updates, once they are complete, to `tick`, which reports the changes of the output. An update goes to
/// the worker that `route` names.
pub(crate) fn per_tick<'s, D: ExchangeData, O: Clone + 'static>(
    input: VecCollection<'s, Time, D, Diff>,
    route: impl Fn(&D) -> u64 + 'static,
    name: &str,
    mut tick: impl FnMut(Vec<(D, Diff)>, &mut dyn FnMut(O, Diff)) + 'static,
) -> VecCollection<'s, Time, O, Diff> {
    let by_route = Exchange::new(move |update: &(D, Time, Diff)| route(&update.0));
    input
        .inner
        .unary_frontier(by_route, name, move |_, _| {
            let mut waiting: Pending<(D, Diff)> = Pending::new();
            move |(input, frontier), output| {
                input.for_each(|capability, updates| waiting.stash(&capability, updates, 0));
                while let Some(([capability], updates)) = waiting.next_complete(frontier) {
                    let time = *capability.time();
                    let mut session = output.session(&capability);
                    tick(updates, &mut |data, diff| session.give((data, time, diff)));
                }
            }
        })
        .as_collection()
}
