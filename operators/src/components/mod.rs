//! Connected components of links between ids: who is one and the same, and under which id.
//!
//! **Definition.** The members are the ids that links name; two are of one component if a path of links connects them. A member
//! was first seen when the first of its links says so. For every member the output has (id, one id), where the one id is that of
//! the component's oldest member: the smallest (first seen, id). It is a function of the links that are there, so a merge keeps
//! the older id, and after a split it stays with the part that has that member.
//!
//! The history has (old, new) once for every tick at which some member's one id was `old` before and is `new` after it. It only
//! grows, and depends on which links shared a tick: it is frozen, and belongs into a durable table.
//!
//! **State.** The links, about 150 bytes each, and the members, about 200 bytes each, all on one worker: components have no key
//! that their links could be routed by. A spanning forest says which links hold components together (`graph.rs`).
//!
//! **On retraction.** A link outside the forest just goes. One inside is searched for a replacement from both ends at once, which
//! costs the smaller of the two sides; only that side gets another component. A new link costs the smaller component. Beyond that
//! a tick costs what it emits, and one pass over a component whose oldest member lost the link that made it the oldest.
//!
//! **On ties, nulls, late rows.** A link and its reverse are the same link; links may be there several times, or from an id to
//! itself. An id with a NULL field is no id: a link with one such end says of the other that it is a member, a link with two says
//! nothing. A NULL `first_seen` is later than all others. Each tick is applied as a whole. A link that was retracted more often
//! than inserted is not there until it is inserted more often.
//!
//! **Example.** Links `m1 - phone` (first seen on day 1) and `m2 - device` (day 2): `m1, phone -> m1` and `device, m2 -> device`, the
//! smaller id of two first seen together. With `phone - device` (day 3) all four are `m1`, and the history gets `(device, m1)`.

mod forest;
mod graph;
#[cfg(test)]
mod tests;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use self::graph::Graph;
use crate::pending::Pending;
use deltaworks_dataflow::{Collection, Diff, KeyedCollection, Row, Time};

/// A link: the ids of its two ends, each of any number of fields, and when it was first seen, encoded so that bytes compare as
/// instants do.
pub type Link = (Row, Row, Row);

/// What [`components`] makes.
pub struct Components<'s> {
    /// Per member (id, one id).
    pub one_ids: KeyedCollection<'s>,
    /// (old one id, new one id), the fields of one after those of the other, at the tick at which it was replaced.
    pub history: Collection<'s>,
}

/// Keeps the connected components of the links.
pub fn components<'s>(links: VecCollection<'s, Time, Link, Diff>, name: &str) -> Components<'s> {
    let mut builder = OperatorBuilder::new(name.to_owned(), links.inner.scope());
    let mut input = builder.new_input(links.inner, Exchange::new(|_: &(Link, Time, Diff)| 0));
    let (one_ids, one_id_stream) = builder.new_output();
    let (history, history_stream) = builder.new_output();
    let (mut one_ids, mut history) = (OutputBuilder::from(one_ids), OutputBuilder::from(history));
    builder.build(move |_| {
        let mut waiting: Pending<(Link, Diff), 2> = Pending::new();
        let mut graph = Graph::default();
        move |frontiers| {
            input.for_each(|capability, links| waiting.stash(&capability, links, 0));
            let (mut one_ids, mut history) = (one_ids.activate(), history.activate());
            while let Some(([one_id_capability, history_capability], mut links)) = waiting.next_complete(&frontiers[0]) {
                let time = *one_id_capability.time();
                consolidate(&mut links);
                graph.change_links(&links);
                let replaced = {
                    let mut session = one_ids.session(&one_id_capability);
                    graph.emit(|id, one_id, diff| session.give(((id.clone(), one_id.clone()), time, diff)))
                };
                history.session(&history_capability).give_iterator(replaced.into_iter().map(|row| (row, time, 1)));
            }
        }
    });
    Components { one_ids: one_id_stream.as_collection(), history: history_stream.as_collection() }
}
