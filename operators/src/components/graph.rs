//! The links and members, the oldest member of each component, and what of all that has been emitted.
//!
//! Links between the same two members are one edge of the [`Forest`]. Members and edges are numbers; those of members that left
//! are used again only after the tick, so that within one a number means one id.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::Link;
use super::forest::Forest;
use deltaworks_dataflow::row::{is_null_field, split_field};
use deltaworks_dataflow::{Diff, Row};

/// An id that an edge names.
#[derive(Default)]
struct Member {
    id: Row,
    /// The edge that was seen first.
    oldest: Option<u32>,
    /// The one id that was emitted, as a member's number.
    shown: Option<u32>,
    /// Whether the tick has to look at what was emitted for it.
    dirty: bool,
    /// How many edges name it, those included that are not there because they were retracted too often.
    named: u32,
}

/// What a component has beside its members.
#[derive(Default)]
struct Identity {
    /// The oldest member, unless `stale`.
    oldest: Option<u32>,
    stale: bool,
    /// The one id that was emitted for all members that are not dirty; None while the component is new.
    shown: Option<u32>,
    touched: bool,
}

/// The links between two members: when they were first seen, ascending, and how often each is there.
#[derive(Default)]
struct Edge {
    ends: [u32; 2],
    seen: SmallVec<[(Row, Diff); 1]>,
    /// When the first link that is there was seen; as the forest knows it, which follows edge by edge.
    first: Option<Row>,
}

impl Edge {
    fn first_now(&self) -> Option<&Row> {
        self.seen.iter().find(|(_, count)| *count > 0).map(|(seen, _)| seen)
    }
    fn add(&mut self, seen: &Row, diff: Diff) {
        match self.seen.binary_search_by(|(other, _)| other.cmp(seen)) {
            Err(place) => self.seen.insert(place, (seen.clone(), diff)),
            Ok(place) => {
                self.seen[place].1 = self.seen[place].1.wrapping_add(diff);
                if self.seen[place].1 == 0 {
                    self.seen.remove(place);
                }
            }
        }
    }
}

/// All links, and the components they make.
#[derive(Default)]
pub(super) struct Graph {
    numbers: HashMap<Row, u32>,
    members: Vec<Member>,
    free_members: Vec<u32>,
    pairs: HashMap<[u32; 2], u32>,
    edges: Vec<Edge>,
    free_edges: Vec<u32>,
    forest: Forest<Identity>,
    /// What the current tick has to look at: components, members, and members that may be named no more.
    touched: Vec<u32>,
    dirty: Vec<u32>,
    unnamed: Vec<u32>,
}

impl Graph {
    /// Applies a tick's links.
    pub(super) fn change_links(&mut self, links: &[(Link, Diff)]) {
        let mut changes: Vec<([u32; 2], &Row, Diff)> = Vec::with_capacity(links.len());
        for ((a, b, seen), diff) in links {
            let ends = match (is_id(a), is_id(b)) {
                (true, true) => [a, b],
                (true, false) => [a, a],
                (false, true) => [b, b],
                (false, false) => continue,
            };
            let mut ends = ends.map(|id| self.number(id));
            ends.sort_unstable();
            changes.push((ends, seen, *diff));
        }
        changes.sort_unstable_by_key(|(ends, _, _)| *ends);
        let mut removed = Vec::new();
        for of_pair in changes.chunk_by(|a, b| a.0 == b.0) {
            self.change_edge(of_pair, &mut removed);
        }
        // Last, so that a new link can replace one that goes.
        for edge in removed {
            self.remove_edge(edge);
        }
    }
    fn number(&mut self, id: &Row) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = self.free_members.pop().unwrap_or_else(|| {
            self.members.push(Member::default());
            self.members.len() as u32 - 1
        });
        self.members[number as usize].id = id.clone();
        self.numbers.insert(id.clone(), number);
        self.unnamed.push(number);
        number
    }
    /// Applies the changes of the links between two members; an edge that is to go is added to `removed`.
    fn change_edge(&mut self, changes: &[([u32; 2], &Row, Diff)], removed: &mut Vec<u32>) {
        let ends = changes[0].0;
        let edge = self.edge(ends);
        let state = &mut self.edges[edge as usize];
        changes.iter().for_each(|(_, seen, diff)| state.add(seen, *diff));
        let Some(after) = state.first_now().cloned() else {
            match state.first {
                Some(_) => removed.push(edge),
                None => self.forget_if_blank(edge),
            }
            return;
        };
        match state.first.replace(after.clone()) {
            None => self.add_edge(edge),
            Some(before) if after < before => ends.iter().for_each(|end| self.grow_older(*end, edge)),
            Some(before) => ends.iter().for_each(|end| self.grow_younger(*end, edge, &before)),
        }
    }
    fn edge(&mut self, ends: [u32; 2]) -> u32 {
        if let Some(edge) = self.pairs.get(&ends) {
            return *edge;
        }
        let edge = self.free_edges.pop().unwrap_or_else(|| {
            self.edges.push(Edge::default());
            self.edges.len() as u32 - 1
        });
        self.edges[edge as usize].ends = ends;
        self.pairs.insert(ends, edge);
        ends.iter().for_each(|end| self.members[*end as usize].named += 1);
        edge
    }
    fn add_edge(&mut self, edge: u32) {
        let ends = self.edges[edge as usize].ends;
        for end in ends {
            let component = self.forest.plant(end);
            self.touch(component);
            self.mark(end);
            self.grow_older(end, edge);
        }
        if let Some((component, absorbed)) = self.forest.add_edge(edge, ends) {
            self.touch(component);
            let identity = self.forest.note(component);
            let stale = identity.stale || absorbed.stale;
            let oldest = if stale { None } else { self.older(identity.oldest, absorbed.oldest) };
            let identity = self.forest.note_mut(component);
            (identity.stale, identity.oldest) = (stale, oldest);
        }
    }
    fn remove_edge(&mut self, edge: u32) {
        let Edge { ends, first, .. } = &mut self.edges[edge as usize];
        let (ends, Some(first)) = (*ends, first.take()) else { return };
        if let Some((old, new)) = self.forest.remove_edge(edge) {
            self.touch(old);
            self.touch(new);
            let lost_oldest = self.forest.note(old).oldest.is_none_or(|oldest| self.forest.tree_of(oldest) != Some(old));
            self.forest.note_mut(old).stale |= lost_oldest;
            self.forest.note_mut(new).stale = true;
        }
        for end in ends {
            self.grow_younger(end, edge, &first);
            if self.forest.edges_of(end).next().is_none() {
                self.remove_member(end);
            }
        }
        self.forget_if_blank(edge);
    }
    /// Takes a member without edges out of its component.
    fn remove_member(&mut self, member: u32) {
        self.mark(member);
        // An edge from a member to itself comes by twice.
        if self.forest.tree_of(member).is_some() {
            self.forest.uproot(member);
        }
    }
    fn forget_if_blank(&mut self, edge: u32) {
        let Edge { ends, seen, .. } = &self.edges[edge as usize];
        if !seen.is_empty() {
            return;
        }
        let ends = *ends;
        self.pairs.remove(&ends);
        self.free_edges.push(edge);
        for end in ends {
            self.members[end as usize].named -= 1;
            self.unnamed.push(end);
        }
    }

    fn touch(&mut self, component: u32) {
        let identity = self.forest.note_mut(component);
        if !std::mem::replace(&mut identity.touched, true) {
            self.touched.push(component);
        }
    }
    fn mark(&mut self, member: u32) {
        if !std::mem::replace(&mut self.members[member as usize].dirty, true) {
            self.dirty.push(member);
        }
    }
    /// What members are ordered by: when they were first seen, and their id.
    fn age(&self, member: u32) -> Option<(&Row, &Row)> {
        let state = &self.members[member as usize];
        Some((self.edges[state.oldest? as usize].first.as_ref()?, &state.id))
    }
    fn older(&self, a: Option<u32>, b: Option<u32>) -> Option<u32> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if self.age(a) <= self.age(b) { a } else { b }),
            (one, other) => one.or(other),
        }
    }
    /// An edge of the member is there, or was seen earlier than before.
    fn grow_older(&mut self, member: u32, edge: u32) {
        let first = |edge: u32| self.edges[edge as usize].first.as_ref();
        let oldest = self.members[member as usize].oldest;
        if oldest.is_none_or(|oldest| first(edge) < first(oldest)) {
            self.members[member as usize].oldest = Some(edge);
        } else if oldest != Some(edge) {
            return;
        }
        let Some(component) = self.forest.tree_of(member) else { return };
        let identity = self.forest.note(component);
        if !identity.stale {
            let oldest = self.older(identity.oldest, Some(member));
            self.forest.note_mut(component).oldest = oldest;
            self.touch(component);
        }
    }
    /// An edge of the member, seen at `before`, is gone, or was seen later now.
    fn grow_younger(&mut self, member: u32, edge: u32, before: &Row) {
        if self.members[member as usize].oldest != Some(edge) {
            return;
        }
        let mut oldest: Option<(u32, &Row)> = None;
        for edge in self.forest.edges_of(member) {
            let Some(first) = &self.edges[edge as usize].first else { continue };
            if oldest.is_none_or(|(_, oldest)| first < oldest) {
                oldest = Some((edge, first));
            }
            if first <= before {
                break;
            }
        }
        let stays = oldest.is_some_and(|(_, first)| first == before);
        self.members[member as usize].oldest = oldest.map(|(edge, _)| edge);
        if let (false, Some(component)) = (stays, self.forest.tree_of(member))
            && self.forest.note(component).oldest == Some(member)
        {
            self.forest.note_mut(component).stale = true;
            self.touch(component);
        }
    }

    /// Emits how the tick changed the one ids, in the order of members, and returns the (old, new) one ids that replaced each
    /// other, in order. Ends the tick.
    pub(super) fn emit(&mut self, mut emit: impl FnMut(&Row, &Row, Diff)) -> Vec<Row> {
        self.settle_components();
        let moved = std::mem::take(&mut self.forest.moved);
        moved.into_iter().for_each(|member| self.mark(member));
        let mut changed: Vec<(u32, Option<u32>, Option<u32>)> = Vec::new();
        for member in std::mem::take(&mut self.dirty) {
            let new = self.forest.tree_of(member).and_then(|component| self.forest.note(component).oldest);
            let state = &mut self.members[member as usize];
            state.dirty = false;
            let old = std::mem::replace(&mut state.shown, new);
            if old != new {
                changed.push((member, old, new));
            }
        }
        let id = |member: u32| &self.members[member as usize].id;
        changed.sort_unstable_by(|a, b| id(a.0).cmp(id(b.0)));
        let mut replaced: Vec<Row> = Vec::new();
        for (member, old, new) in changed {
            old.into_iter().for_each(|old| emit(id(member), id(old), -1));
            new.into_iter().for_each(|new| emit(id(member), id(new), 1));
            if let (Some(old), Some(new)) = (old, new) {
                replaced.push(Row::from_bytes(&[&id(old)[..], &id(new)[..]].concat()));
            }
        }
        replaced.sort_unstable();
        replaced.dedup();
        self.release_members();
        replaced
    }
    /// Finds the oldest member of the touched components; the members of those where it is another have to be looked at.
    fn settle_components(&mut self) {
        for component in std::mem::take(&mut self.touched) {
            if !std::mem::take(&mut self.forest.note_mut(component).touched) {
                continue;
            }
            if self.forest.note(component).stale {
                let members = self.forest.nodes_of(component).iter();
                let oldest = members.fold(None, |oldest, member| self.older(oldest, Some(*member)));
                let identity = self.forest.note_mut(component);
                (identity.stale, identity.oldest) = (false, oldest);
            }
            let identity = self.forest.note_mut(component);
            if identity.shown != identity.oldest {
                identity.shown = identity.oldest;
                let Graph { forest, members, dirty, .. } = self;
                let new = forest.nodes_of(component).iter();
                dirty.extend(new.filter(|member| !std::mem::replace(&mut members[**member as usize].dirty, true)));
            }
        }
    }
    /// Frees the numbers of members that no edge names.
    fn release_members(&mut self) {
        for member in std::mem::take(&mut self.unnamed) {
            let state = &mut self.members[member as usize];
            if state.named == 0 && !state.id.is_empty() {
                self.numbers.remove(&state.id);
                *state = Member::default();
                self.free_members.push(member);
            }
        }
    }
    /// How many members and edges are kept.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.numbers.len(), self.pairs.len())
    }
}

/// Whether the fields are an id.
fn is_id(mut id: &[u8]) -> bool {
    let mut any = false;
    while !id.is_empty() {
        any = true;
        if is_null_field(split_field(&mut id)) {
            return false;
        }
    }
    any
}
