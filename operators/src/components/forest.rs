//! A spanning forest: which nodes hang together, as edges come and go.
//!
//! An edge that connects two trees joins them; any other is kept beside the forest, for the day when an edge of the forest goes.
//! Then both halves of the tree are walked at once, an edge here and an edge there, until one is done: the smaller one, or
//! nearly. If none of the edges beside the forest leads out of it, it is a tree of its own.

/// No number.
pub(super) const NONE: u32 = u32::MAX;

/// A node: its edges, and the tree it is in.
#[derive(Default)]
struct Node {
    /// Edges of the forest, and those beside it.
    edges: [Vec<u32>; 2],
    tree: u32,
    /// Where in the tree's list of nodes it is.
    place: u32,
    /// The walk that last came by.
    walk: u64,
}
/// Which of a node's lists an edge is in.
const FOREST: usize = 0;
const BESIDE: usize = 1;

#[derive(Default)]
struct Edge {
    ends: [u32; 2],
    /// Where in the lists of its ends it is.
    places: [u32; 2],
    list: usize,
}

/// A tree: its nodes, and what its owner notes about it.
#[derive(Default)]
struct Tree<I> {
    nodes: Vec<u32>,
    note: I,
}

/// Nodes and edges have the numbers that the owner gives them, trees have numbers of their own.
#[derive(Default)]
pub(super) struct Forest<I> {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    trees: Vec<Tree<I>>,
    free: Vec<u32>,
    walks: u64,
    /// The nodes that were taken over by another tree, since the owner last took this list.
    pub(super) moved: Vec<u32>,
}

impl<I: Default> Forest<I> {
    /// The tree of a node, if it is in one.
    pub(super) fn tree_of(&self, node: u32) -> Option<u32> {
        let tree = self.nodes.get(node as usize)?.tree;
        (tree != NONE).then_some(tree)
    }
    pub(super) fn nodes_of(&self, tree: u32) -> &[u32] {
        &self.trees[tree as usize].nodes
    }
    pub(super) fn note(&self, tree: u32) -> &I {
        &self.trees[tree as usize].note
    }
    pub(super) fn note_mut(&mut self, tree: u32) -> &mut I {
        &mut self.trees[tree as usize].note
    }
    /// The edges of a node.
    pub(super) fn edges_of(&self, node: u32) -> impl Iterator<Item = u32> {
        self.nodes[node as usize].edges.iter().flatten().copied()
    }
    /// Makes the node a tree of its own if it is in none; returns its tree.
    pub(super) fn plant(&mut self, node: u32) -> u32 {
        while self.nodes.len() <= node as usize {
            self.nodes.push(Node { tree: NONE, ..Node::default() });
        }
        if self.nodes[node as usize].tree == NONE {
            let tree = self.new_tree();
            self.enter(tree, node);
        }
        self.nodes[node as usize].tree
    }
    /// Takes a node without edges, which therefore is a tree of its own, out.
    pub(super) fn uproot(&mut self, node: u32) {
        let tree = self.nodes[node as usize].tree;
        self.leave(node);
        self.trees[tree as usize] = Tree::default();
        self.free.push(tree);
    }
    /// Adds an edge between two planted nodes. If that joins two trees, returns the one that is left and the other's note.
    pub(super) fn add_edge(&mut self, edge: u32, ends: [u32; 2]) -> Option<(u32, I)> {
        let trees = ends.map(|node| self.nodes[node as usize].tree);
        let list = if trees[0] == trees[1] { BESIDE } else { FOREST };
        // The owner may give numbers to edges that it does not add.
        let count = self.edges.len().max(edge as usize + 1);
        self.edges.resize_with(count, Edge::default);
        self.edges[edge as usize] = Edge { ends, places: [NONE; 2], list };
        self.attach(edge);
        (list == FOREST).then(|| self.join(trees))
    }
    /// Takes an edge out. If that splits its tree, returns the part with the larger tree's number, and the new one.
    pub(super) fn remove_edge(&mut self, edge: u32) -> Option<(u32, u32)> {
        self.detach(edge);
        let Edge { ends, list, .. } = self.edges[edge as usize];
        if list == BESIDE {
            return None;
        }
        let (side, walk) = self.smaller_side(ends);
        if let Some(replacement) = self.replacement(&side, walk) {
            self.detach(replacement);
            self.edges[replacement as usize].list = FOREST;
            self.attach(replacement);
            return None;
        }
        let old = self.nodes[ends[0] as usize].tree;
        let new = self.new_tree();
        for node in side {
            self.leave(node);
            self.enter(new, node);
        }
        Some((old, new))
    }

    fn new_tree(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.trees.push(Tree::default());
            self.trees.len() as u32 - 1
        })
    }
    fn enter(&mut self, tree: u32, node: u32) {
        let nodes = &mut self.trees[tree as usize].nodes;
        let state = &mut self.nodes[node as usize];
        (state.tree, state.place) = (tree, nodes.len() as u32);
        nodes.push(node);
    }
    fn leave(&mut self, node: u32) {
        let Node { tree, place, .. } = self.nodes[node as usize];
        let nodes = &mut self.trees[tree as usize].nodes;
        nodes.swap_remove(place as usize);
        if let Some(moved) = nodes.get(place as usize) {
            self.nodes[*moved as usize].place = place;
        }
        self.nodes[node as usize].tree = NONE;
    }
    /// The larger tree takes the smaller one's nodes over.
    fn join(&mut self, trees: [u32; 2]) -> (u32, I) {
        let [a, b] = trees.map(|tree| self.trees[tree as usize].nodes.len());
        let [large, small] = if a >= b { trees } else { [trees[1], trees[0]] };
        let absorbed = std::mem::take(&mut self.trees[small as usize]);
        self.free.push(small);
        absorbed.nodes.iter().for_each(|node| self.enter(large, *node));
        self.moved.extend(absorbed.nodes);
        (large, absorbed.note)
    }
    /// Puts an edge into the lists of its ends; an edge from a node to itself only once.
    fn attach(&mut self, edge: u32) {
        let Edge { ends, places, list } = &mut self.edges[edge as usize];
        let count = if ends[0] == ends[1] { 1 } else { 2 };
        for (node, place) in ends.iter().zip(places).take(count) {
            let edges = &mut self.nodes[*node as usize].edges[*list];
            *place = edges.len() as u32;
            edges.push(edge);
        }
    }
    fn detach(&mut self, edge: u32) {
        let Edge { ends, places, list } = self.edges[edge as usize];
        let count = if ends[0] == ends[1] { 1 } else { 2 };
        for (node, place) in ends.into_iter().zip(places).take(count) {
            let edges = &mut self.nodes[node as usize].edges[list];
            edges.swap_remove(place as usize);
            if let Some(moved) = edges.get(place as usize) {
                let moved = &mut self.edges[*moved as usize];
                moved.places[usize::from(moved.ends[0] != node)] = place;
            }
        }
    }
    fn other_end(&self, edge: u32, node: u32) -> u32 {
        let [a, b] = self.edges[edge as usize].ends;
        if a == node { b } else { a }
    }
    /// Walks the forest from both nodes at once; returns the nodes of the side that is done first, and its walk.
    fn smaller_side(&mut self, starts: [u32; 2]) -> (Vec<u32>, u64) {
        self.walks += 2;
        let mut sides = starts.map(|start| Side { nodes: vec![start], at: 0, edge: 0 });
        let walks = [self.walks - 1, self.walks];
        (0..2).for_each(|side| self.nodes[starts[side] as usize].walk = walks[side]);
        loop {
            for (side, walk) in sides.iter_mut().zip(walks) {
                if !self.step(side, walk) {
                    return (std::mem::take(&mut side.nodes), walk);
                }
            }
        }
    }
    /// Follows one more edge; false if there is none.
    fn step(&mut self, side: &mut Side, walk: u64) -> bool {
        while let Some(node) = side.nodes.get(side.at).copied() {
            match self.nodes[node as usize].edges[FOREST].get(side.edge).copied() {
                Some(edge) => {
                    side.edge += 1;
                    let next = self.other_end(edge, node);
                    let state = &mut self.nodes[next as usize];
                    if state.walk != walk {
                        state.walk = walk;
                        side.nodes.push(next);
                    }
                    return true;
                }
                None => (side.at, side.edge) = (side.at + 1, 0),
            }
        }
        false
    }
    /// An edge beside the forest that leads from these nodes, which this walk has marked, to another.
    fn replacement(&self, side: &[u32], walk: u64) -> Option<u32> {
        let leads_out = |node: u32, edge: u32| self.nodes[self.other_end(edge, node) as usize].walk != walk;
        side.iter().find_map(|node| {
            let beside = &self.nodes[*node as usize].edges[BESIDE];
            beside.iter().copied().find(|edge| leads_out(*node, *edge))
        })
    }
}

/// A walk: the nodes found, and which edge of which of them is next.
struct Side {
    nodes: Vec<u32>,
    at: usize,
    edge: usize,
}
