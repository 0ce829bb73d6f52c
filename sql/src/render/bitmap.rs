//! Renders bitmaps: aggregates that are sets, and sets that travel in chunks, where rows have handles.
//!
//! Chunks are rendered once per place where handles come from ([`ChunkSource`]) and found through the plan: a column with
//! handles is followed down to the node that made it.

use std::collections::BTreeMap;

use deltaworks_dataflow::arrange::{arrange, collection};
use deltaworks_dataflow::row::{is_null_field, nth_field, split_fields};
use deltaworks_dataflow::{Arranged, Collection, KeyedCollection, Row, Schema, Time};
use deltaworks_operators::bitmap::{
    Chunk, Operands, SetExpression, SetResult, assemble, combine_sets, count_sets, fold_chunks, group_bitmap,
    group_bitmap_chunks, handle, handle_key, into_chunks,
};
use deltaworks_operators::distinct::distinct;
use deltaworks_operators::join::linear_join;
use timely::dataflow::operators::vec::Map;

use super::aggregate::argument;
use super::{Kept, Renderer};
use crate::arrangement::unnamed;
use crate::expr::ScalarExpr;
use crate::lower::chunks::{fold_of, is_state};
use crate::plan::{Aggregate, AggregateCall, Bitmaps, Node, Plan};

/// A table with handles in its rows.
pub(super) struct ChunkedRows<'s> {
    pub(super) rows: Collection<'s>,
    /// By column, the chunks of each handle.
    pub(super) sets: BTreeMap<usize, KeyedCollection<'s>>,
}

/// Where handles come from.
pub(super) struct ChunkSource<'s> {
    /// A column of a node without names.
    origin: (Plan, usize),
    /// The chunks of each handle, and one head.
    chunks: KeyedCollection<'s>,
    arranged: Option<Arranged<'s>>,
}

impl<'s> Renderer<'_, '_, 's> {
    /// Defines a view whose rows have handles; false where they have none.
    pub(super) fn define_chunked(&mut self, name: &str, plan: &Plan, rows: &Collection<'s>) -> bool {
        let mut sets = BTreeMap::new();
        for column in 0..plan.schema.len() {
            if let Some(source) = self.source(plan, column) {
                sets.insert(column, self.sources[source].chunks.clone());
            }
        }
        let chunked = !sets.is_empty();
        if chunked {
            self.chunked.insert(name.to_string(), ChunkedRows { rows: rows.clone(), sets });
        }
        chunked
    }
    /// Makes a table readable whose chunks an earlier dataflow keeps.
    pub(super) fn import_chunks(&mut self, name: &str, trace: &str, columns: &[usize], rows: Collection<'s>) {
        let start = self.build.start;
        let mut sets = BTreeMap::new();
        for column in columns {
            let kept = self.build.import(&Kept::chunks_trace(trace, *column));
            let chunks = kept.as_collection(|set, chunk| (Row::from_bytes(set), Row::from_bytes(chunk)));
            let chunks = collection(chunks.inner.map(move |(row, time, diff)| (row, Time::max(time, start), diff)));
            sets.insert(*column, chunks);
        }
        self.chunked.insert(name.to_string(), ChunkedRows { rows, sets });
    }
    /// Keeps the chunks of a table, if it has any.
    pub(super) fn keep_chunks(&mut self, name: &str, trace: &str) {
        let Some(columns) = self.chunked.get(name).map(|chunked| chunked.sets.keys().copied().collect::<Vec<_>>()) else {
            return;
        };
        for column in columns {
            let Some(source) = self.table_source(name, column) else { continue };
            let arranged = self.arranged_chunks(source);
            self.build.export(&Kept::chunks_trace(trace, column), &arranged);
        }
    }
    /// The rows of a table, with handles or with bitmaps, which are put together where something first reads them.
    pub(super) fn table_rows(&mut self, table: &str, in_chunks: bool) -> Collection<'s> {
        self.read.insert(table.to_string());
        if let Some(chunked) = self.chunked.get(table) {
            let rows = chunked.rows.clone();
            if in_chunks {
                return rows;
            }
            if !self.tables.contains_key(table) {
                let sets = chunked.sets.clone();
                let whole = sets.into_iter().fold(rows, |rows, (column, chunks)| with_bitmaps(rows, column, chunks));
                self.tables.insert(table.to_string(), whole);
            }
        }
        self.tables.get(table).cloned().expect("the engine defines every table that a plan reads")
    }

    /// Where the handles of a column come from: a column of the table, aggregate or set operation that gives them. None for a
    /// column without handles.
    fn origin<'p>(&self, plan: &'p Plan, column: usize) -> Option<(&'p Plan, usize)> {
        match &plan.node {
            Node::Get { table, columns, in_chunks: true } => {
                self.chunked.get(table)?.sets.contains_key(&columns[column]).then_some((plan, column))
            }
            Node::Filter { input, .. } | Node::TemporalFilter { input, .. } => self.origin(input, column),
            Node::Project { input, expressions } => self.origin(input, expressions[column].as_column()?),
            Node::Join(join) => match column.checked_sub(join.left.schema.len()) {
                None => self.origin(&join.left, column),
                Some(column) => self.origin(&join.right, column),
            },
            Node::DeltaJoin(join) => {
                let mut column = column;
                for input in &join.inputs {
                    match column.checked_sub(input.schema.len()) {
                        None => return self.origin(input, column),
                        Some(rest) => column = rest,
                    }
                }
                None
            }
            Node::Aggregate(aggregate) => {
                let call = aggregate.aggregates.get(column.checked_sub(aggregate.keys.len())?)?;
                call.in_chunks.then_some((plan, column))
            }
            Node::Bitmaps(bitmaps) => match column.checked_sub(bitmaps.input.schema.len()) {
                None => self.origin(&bitmaps.input, column),
                Some(result) => (result >= bitmaps.counts.len()).then_some((plan, column)),
            },
            _ => None,
        }
    }
    /// Where the handles of a column lead to, as a place among the sources. The rows of the plan are rendered before: set
    /// operations make their chunks with their rows.
    fn source(&mut self, plan: &Plan, column: usize) -> Option<usize> {
        let (plan, column) = self.origin(plan, column)?;
        match &plan.node {
            Node::Get { table, columns, .. } => self.table_source(table, columns[column]),
            Node::Aggregate(aggregate) => {
                let call = &aggregate.aggregates[column - aggregate.keys.len()];
                Some(self.source_of(node_origin(plan, column), |renderer| renderer.group_chunks(aggregate, call)))
            }
            _ => self.known_source(&node_origin(plan, column)),
        }
    }
    fn known_source(&self, origin: &(Plan, usize)) -> Option<usize> {
        self.sources.iter().position(|source| source.origin == *origin)
    }
    fn table_source(&mut self, table: &str, column: usize) -> Option<usize> {
        let chunks = self.chunked.get(table)?.sets.get(&column)?.clone();
        let node = Node::Get { table: table.to_string(), columns: vec![column], in_chunks: true };
        Some(self.source_of((Plan::new(node, Schema::default()), 0), |_| chunks))
    }
    fn source_of(&mut self, origin: (Plan, usize), make: impl FnOnce(&mut Self) -> KeyedCollection<'s>) -> usize {
        if let Some(known) = self.known_source(&origin) {
            return known;
        }
        let chunks = make(self);
        self.sources.push(ChunkSource { origin, chunks, arranged: None });
        self.sources.len() - 1
    }
    /// The chunks of a source, indexed by handle.
    fn arranged_chunks(&mut self, source: usize) -> Arranged<'s> {
        if let Some(arranged) = &self.sources[source].arranged {
            return arranged.clone();
        }
        let arranged = arrange(self.sources[source].chunks.clone(), "Arrange: Chunks");
        self.made(&arranged);
        self.sources[source].arranged = Some(arranged.clone());
        arranged
    }

    /// The handles of an aggregate's column, by group.
    pub(super) fn handles(&mut self, plan: &Plan, column: usize) -> KeyedCollection<'s> {
        let source = self.source(plan, column).expect("the column has handles");
        let chunks = self.sources[source].chunks.clone();
        chunks.flat_map(|(set, chunk)| is_head(&chunk).then(|| (handle_key(&set), set)))
    }
    /// The chunks of an aggregate's groups, by handle.
    fn group_chunks(&mut self, aggregate: &Aggregate, call: &AggregateCall) -> KeyedCollection<'s> {
        let chunks = self.chunks(&aggregate.input, &aggregate.keys, call);
        let chunks = chunks.map(|(key, chunk)| (handle(&key), chunk));
        if !aggregate.keys.is_empty() {
            return chunks;
        }
        // Without keys there is a group even without rows.
        let head = self.constant(&[Row::default()]).map(|key| (handle(&key), Chunk::Head.to_row()));
        chunks.filter(|(_, chunk)| !is_head(chunk)).concat(head)
    }
    /// A set per group, of ids or of bitmaps, in chunks.
    fn chunks(&mut self, input: &Plan, keys: &[ScalarExpr], call: &AggregateCall) -> KeyedCollection<'s> {
        match fold_of(call) {
            Some(fold) => {
                let bitmaps = self.argument_chunks(input, keys, call);
                fold_chunks(bitmaps, fold, "FoldBitmaps")
            }
            None => {
                let ids = self.keyed(input, keys, vec![argument(call, 0)]);
                let negative = self.failures(NEGATIVE);
                group_bitmap_chunks(ids, negative, "GroupBitmap")
            }
        }
    }
    /// The chunks of the bitmaps of each group.
    fn argument_chunks(&mut self, input: &Plan, keys: &[ScalarExpr], call: &AggregateCall) -> KeyedCollection<'s> {
        let bitmap = argument(call, 0);
        let column = bitmap.as_column().filter(|column| self.origin(input, *column).is_some());
        let Some(column) = column else { return into_chunks(self.keyed(input, keys, vec![bitmap])) };
        let groups = self.keyed(input, &[bitmap], keys.to_vec());
        let source = self.source(input, column).expect("its rows are rendered");
        let (groups, chunks) = (arrange(groups, "Arrange: Groups"), self.arranged_chunks(source));
        self.made(&groups);
        linear_join(groups, chunks, "GroupChunks", |_, group, chunk, _| {
            Some((Row::from_bytes(group), Row::from_bytes(chunk)))
        })
    }
    /// A set per group, whole or how many ids it has.
    pub(super) fn bitmap(&mut self, input: &Plan, keys: &[ScalarExpr], call: &AggregateCall) -> KeyedCollection<'s> {
        let result = if is_state(call) { SetResult::Bitmap } else { SetResult::Cardinality };
        if fold_of(call).is_some() {
            return assemble(self.chunks(input, keys, call), result, "AssembleBitmap");
        }
        let ids = self.keyed(input, keys, vec![argument(call, 0)]);
        let negative = self.failures(NEGATIVE);
        group_bitmap(ids, result, negative, "GroupBitmap")
    }

    /// The input's columns, the counts, and the handles of the sets, whose chunks are made here too.
    pub(super) fn bitmaps(&mut self, bitmaps: &Bitmaps, plan: &Plan) -> Collection<'s> {
        let input = &bitmaps.input;
        let rows = self.rows(input);
        let mut of_sets = Vec::with_capacity(bitmaps.sets.len());
        for (number, set) in bitmaps.sets.iter().enumerate() {
            let origin = node_origin(plan, input.schema.len() + bitmaps.counts.len() + number);
            let columns = operands(std::slice::from_ref(set));
            of_sets.push(columns.clone());
            self.source_of(origin, |renderer| {
                let of_set = columns.clone();
                let asked = rows.clone().map(move |row| question(&row, &of_set));
                let operands = renderer.operands(input, &columns, &asked);
                combine_sets(asked, operands, over_operands(set, &columns), "CombineBitmaps")
            });
        }
        let counted = if bitmaps.counts.is_empty() { rows } else { self.counted(bitmaps, rows) };
        counted.map(move |row| {
            let mut bytes = row.to_vec();
            of_sets.iter().for_each(|columns| bytes.extend_from_slice(&handle(&question(&row, columns))));
            Row::from_bytes(&bytes)
        })
    }
    /// The input's rows and the counts.
    fn counted(&mut self, bitmaps: &Bitmaps, rows: Collection<'s>) -> Collection<'s> {
        let columns = operands(&bitmaps.counts);
        let of_counts = columns.clone();
        let asking = rows.map(move |row| (question(&row, &of_counts), row));
        let asked = asking.clone().map(|(question, _)| question);
        let operands = self.operands(&bitmaps.input, &columns, &asked);
        let counts = bitmaps.counts.iter().map(|set| over_operands(set, &columns)).collect();
        count_sets(asking, operands, counts, "CountBitmaps")
    }
    /// The sets that questions are about, by columns of the input, which is rendered. Only what is asked for is handed on.
    fn operands(&mut self, input: &Plan, columns: &[usize], asked: &Collection<'s>) -> Operands<'s> {
        let all: Vec<usize> =
            columns.iter().map(|column| self.source(input, *column).expect("the column has handles")).collect();
        let mut different = all.clone();
        different.sort_unstable();
        different.dedup();
        let of = all.iter().map(|source| different.iter().position(|other| other == source).unwrap_or(0)).collect();
        let mut sources = Vec::with_capacity(different.len());
        for source in different {
            let fields: Vec<usize> = (0..all.len()).filter(|operand| all[*operand] == source).collect();
            let wanted = asked.clone().flat_map(move |question| {
                let sets: Vec<Row> = fields.iter().map(|f| Row::from_bytes(nth_field(&question, *f))).collect();
                sets
            });
            let wanted = distinct(wanted, "WantedBitmaps").map(|set| (set, Row::default()));
            let (wanted, chunks) = (arrange(wanted, "Arrange: WantedBitmaps"), self.arranged_chunks(source));
            self.made(&wanted);
            sources.push(linear_join(wanted, chunks, "WantedChunks", |set, _, chunk, _| {
                Some((Row::from_bytes(set), Row::from_bytes(chunk)))
            }));
        }
        Operands { sources, of }
    }
}

fn node_origin(plan: &Plan, column: usize) -> (Plan, usize) {
    (unnamed(plan.clone()), column)
}

/// How negative ids are counted.
const NEGATIVE: &str = "negative ids, which no bitmap holds";

fn is_head(chunk: &Row) -> bool {
    is_null_field(nth_field(chunk, 0))
}
/// The columns that sets are made of.
fn operands(sets: &[SetExpression]) -> Vec<usize> {
    let mut columns = std::collections::BTreeSet::new();
    sets.iter().for_each(|set| set.operands(&mut columns));
    columns.into_iter().collect()
}
/// The expression over places among the columns.
fn over_operands(set: &SetExpression, columns: &[usize]) -> SetExpression {
    set.renumbered(&|column| columns.iter().position(|other| *other == column).unwrap_or(0))
}
/// The handles in some columns of a row.
fn question(row: &Row, columns: &[usize]) -> Row {
    let mut question = Vec::new();
    deltaworks_dataflow::row::project(row, columns, &mut question);
    Row::from_bytes(&question)
}

/// The rows with bitmaps for the handles of a column.
fn with_bitmaps<'s>(rows: Collection<'s>, column: usize, chunks: KeyedCollection<'s>) -> Collection<'s> {
    let by_set = rows.map(move |row| (Row::from_bytes(nth_field(&row, column)), row));
    let bitmaps = assemble(chunks, SetResult::Bitmap, "AssembleBitmap");
    let (by_set, bitmaps) = (arrange(by_set, "Arrange: Handles"), arrange(bitmaps, "Arrange: Bitmaps"));
    linear_join(by_set, bitmaps, "WholeBitmaps", move |_, row, bitmap, _| {
        let (before, rest) = split_fields(row, column);
        Some(Row::from_bytes(&[before, bitmap, split_fields(rest, 1).1].concat()))
    })
}
