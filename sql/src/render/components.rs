//! Renders the identity function: connected components of links, and how their ids were replaced.

use deltaworks_dataflow::arrange::collection;
use deltaworks_dataflow::row::split_fields;
use deltaworks_dataflow::{Collection, Row};
use deltaworks_operators::components::components;
use deltaworks_operators::stamp::stamp_changes;
use timely::dataflow::operators::vec::Map;

use super::Renderer;
use crate::arrangement::unnamed;
use crate::plan::{ComponentRows, Components, Plan};

/// What one operator makes of the links, rendered once.
pub(super) struct Rendered<'s> {
    links: Plan,
    one_ids: Collection<'s>,
    history: Collection<'s>,
}

impl<'s> Renderer<'_, '_, 's> {
    /// The rows of one ids, or those of the history, which may share their operator.
    pub(super) fn components(&mut self, node: &Components) -> Collection<'s> {
        let place = self.place_of_components(&node.links);
        let rendered = &self.components[place];
        match node.rows {
            ComponentRows::OneIds => rendered.one_ids.clone(),
            ComponentRows::History => {
                let (history, start) = (rendered.history.clone(), self.build.start);
                // It only grows, so a stamp need not be known again.
                stamp_changes(history, self.clock(), 2, start, "WriteStamp")
            }
        }
    }
    /// Makes the history readable that belongs to the one ids of a plan.
    pub fn history(&mut self, name: &str, one_ids: &Components) {
        let history = Components { rows: ComponentRows::History, ..one_ids.clone() };
        let rows = self.components(&history);
        self.define(name, rows);
    }
    fn place_of_components(&mut self, links: &Plan) -> usize {
        let same = unnamed(links.clone());
        if let Some(place) = self.components.iter().position(|rendered| rendered.links == same) {
            return place;
        }
        let rows = self.rows(links);
        let split = collection(rows.inner.map(|(row, time, diff)| {
            let (a, rest) = split_fields(&row, 1);
            let (b, seen) = split_fields(rest, 1);
            ((Row::from_bytes(a), Row::from_bytes(b), Row::from_bytes(seen)), time, diff)
        }));
        let made = components(split, "Identity");
        let one_ids = made.one_ids.map(|(id, one_id)| Row::from_bytes(&[&id[..], &one_id[..]].concat()));
        self.components.push(Rendered { links: same, one_ids, history: made.history });
        self.components.len() - 1
    }
}
