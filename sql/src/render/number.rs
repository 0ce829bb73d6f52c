//! Renders a table with an AUTO_INCREMENT column: one row per key that was ever upserted, the key with its number.

use std::rc::Rc;

use deltaworks_dataflow::arrange::collection;
use deltaworks_dataflow::row::split_fields;
use deltaworks_dataflow::{Collection, Command, CommandKind, Diff, Row, Time};
use deltaworks_operators::dictionary::dictionary;
use deltaworks_operators::merge::{MergeCounters, Rejected};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::ToStream;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;

use super::Renderer;
use super::insert::without_column;

impl<'s> Renderer<'_, '_, 's> {
    /// The keys of upserts with their numbers, which stand in column `place`. Deletes take no number back and are counted.
    pub(super) fn numbered(
        &mut self,
        commands: StreamVec<'s, Time, Command>,
        place: usize,
        counters: Rc<MergeCounters>,
        name: &str,
    ) -> (Collection<'s>, StreamVec<'s, Time, Rejected>) {
        let rejected = commands.clone().flat_map(|command| {
            let merges = command.kind == CommandKind::Merge;
            merges.then_some((command, "a table with an AUTO_INCREMENT column takes no continuous MERGE"))
        });
        let keys = commands.unary::<CapacityContainerBuilder<Vec<(Row, Time, Diff)>>, _, _, _>(Pipeline, "Keys", |_, _| {
            move |input, output| {
                input.for_each(|capability, commands| {
                    let time = *capability.time();
                    let mut session = output.session(&capability);
                    for command in commands.drain(..) {
                        match command.kind {
                            CommandKind::Upsert => session.give((without_column(&command.row, place), time, 1)),
                            CommandKind::Delete | CommandKind::Retract => {
                                counters.ignored_deletes.set(counters.ignored_deletes.get() + 1);
                            }
                            CommandKind::Merge => {}
                        }
                    }
                });
            }
        });
        let nothing = Vec::<((Row, Row), Time, Diff)>::new();
        let known = collection(nothing.to_stream(self.build.scope).container::<Vec<_>>());
        let rows = dictionary(collection(keys), known, name).map(move |(key, number)| {
            let (before, after) = split_fields(&key, place);
            Row::from_bytes(&[before, &number[..], after].concat())
        });
        (rows, rejected)
    }
}
