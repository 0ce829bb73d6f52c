//! The plan: what a continuous query computes, as plain data.
//!
//! `lower` makes it from DataFusion's logical plan, `render` builds a dataflow from it, `explain` prints it. A node refers to
//! columns by position, never by name; names are kept in [`Plan::schema`] for people. Every node is a function of its
//! inputs: a table's rows at a tick give the node's rows at that tick.

use deltaworks_dataflow::{Row, Schema};
use deltaworks_operators::bitmap::SetExpression;

use crate::expr::ScalarExpr;

/// A node of the plan and the schema of the rows it gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the node does.
    pub node: Node,
    /// The columns of its rows.
    pub schema: Schema,
}

impl Plan {
    /// Returns the plan of a node whose rows have the given columns.
    pub fn new(node: Node, schema: Schema) -> Self {
        Plan { node, schema }
    }
    /// The inputs of the node, in order.
    pub fn inputs(&self) -> Vec<&Plan> {
        match &self.node {
            Node::Get { .. } | Node::Constant { .. } | Node::Clock { .. } => Vec::new(),
            Node::Project { input, .. }
            | Node::Filter { input, .. }
            | Node::TemporalFilter { input, .. }
            | Node::Unnest { input, .. }
            | Node::Distinct { input } => vec![input],
            Node::Union { inputs } => inputs.iter().collect(),
            Node::Join(join) => vec![&join.left, &join.right],
            Node::DeltaJoin(join) => join.inputs.iter().collect(),
            Node::Lookback(lookback) => vec![&lookback.left, &lookback.right],
            Node::Aggregate(aggregate) => vec![&aggregate.input],
            Node::TopK(top_k) => vec![&top_k.input],
            Node::Window(window) => vec![&window.input],
            Node::Components(components) => vec![&components.links],
            Node::Bitmaps(bitmaps) => vec![&bitmaps.input],
        }
    }
    /// The inputs of the node, in order, to be changed in place.
    pub fn inputs_mut(&mut self) -> Vec<&mut Plan> {
        match &mut self.node {
            Node::Get { .. } | Node::Constant { .. } | Node::Clock { .. } => Vec::new(),
            Node::Project { input, .. }
            | Node::Filter { input, .. }
            | Node::TemporalFilter { input, .. }
            | Node::Unnest { input, .. }
            | Node::Distinct { input } => vec![input],
            Node::Union { inputs } => inputs.iter_mut().collect(),
            Node::Join(join) => vec![&mut join.left, &mut join.right],
            Node::DeltaJoin(join) => join.inputs.iter_mut().collect(),
            Node::Lookback(lookback) => vec![&mut lookback.left, &mut lookback.right],
            Node::Aggregate(aggregate) => vec![&mut aggregate.input],
            Node::TopK(top_k) => vec![&mut top_k.input],
            Node::Window(window) => vec![&mut window.input],
            Node::Components(components) => vec![&mut components.links],
            Node::Bitmaps(bitmaps) => vec![&mut bitmaps.input],
        }
    }
    /// Whether it has a lookup join.
    pub fn has_lookup(&self) -> bool {
        matches!(&self.node, Node::Join(join) if join.kind.is_lookup()) || self.inputs().into_iter().any(Plan::has_lookup)
    }
    /// Calls `see` with this plan and everything below it, parents first.
    pub fn walk<'a>(&'a self, see: &mut impl FnMut(&'a Plan)) {
        see(self);
        for input in self.inputs() {
            input.walk(see);
        }
    }
}

/// What a node does. Inputs come first.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// The rows of a table or view, by qualified name, restricted to `columns` (positions in the table, in output order).
    Get {
        /// Qualified name, as the catalog knows it.
        table: String,
        /// The columns read.
        columns: Vec<usize>,
        /// Whether those of its bitmaps that travel in chunks are read as handles.
        in_chunks: bool,
    },
    /// Fixed rows.
    Constant {
        /// The rows, repeated as often as they occur.
        rows: Vec<Row>,
    },
    /// The one-row collection of the clock: one column per variable. Advanced by the engine, never by an operator.
    Clock {
        /// The variables, in column order.
        variables: Vec<ClockVariable>,
    },
    /// One output column per expression.
    Project {
        /// The input.
        input: Box<Plan>,
        /// The output columns, over the input's columns.
        expressions: Vec<ScalarExpr>,
    },
    /// The rows for which the predicate is true.
    Filter {
        /// The input.
        input: Box<Plan>,
        /// Over the input's columns.
        predicate: ScalarExpr,
    },
    /// The rows for which `lower <= now < upper`: insertions and retractions are scheduled, nothing is rescanned.
    TemporalFilter {
        /// The input.
        input: Box<Plan>,
        /// The first instant (microseconds) at which the row is present; NULL: never. None: always.
        lower: Option<ScalarExpr>,
        /// The first instant at which it no longer is; NULL: never present. None: stays.
        upper: Option<ScalarExpr>,
        /// Which clock the instants are compared with. Bounds over CURRENT_DATE are midnights in microseconds.
        variable: ClockVariable,
    },
    /// One output row per element of the array that `array` gives: the input's columns, then the element.
    Unnest {
        /// The input.
        input: Box<Plan>,
        /// An expression of type ARRAY over the input's columns.
        array: ScalarExpr,
        /// Whether a row whose array is NULL or empty is kept with a NULL element.
        outer: bool,
    },
    /// All rows of all inputs.
    Union {
        /// The inputs; same types.
        inputs: Vec<Plan>,
    },
    /// Each distinct row once.
    Distinct {
        /// The input.
        input: Box<Plan>,
    },
    /// A join of two inputs.
    Join(Box<Join>),
    /// An inner equi-join of two or more inputs, one path per input over shared arrangements.
    DeltaJoin(Box<DeltaJoin>),
    /// Each left row with the first (or last) right row of its key inside a time range around it.
    Lookback(Box<Lookback>),
    /// GROUP BY: one row per group, keys first, then one column per aggregate.
    Aggregate(Box<Aggregate>),
    /// The first rows of each partition.
    TopK(Box<TopK>),
    /// Window functions other than the top-k form: the input's columns, then one column per function, by recomputing
    /// a changed partition.
    Window(Box<Window>),
    /// The identity function: which ids links say are one and the same.
    Components(Box<Components>),
    /// Set operations on bitmaps that travel in chunks.
    Bitmaps(Box<Bitmaps>),
}

/// A variable of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClockVariable {
    /// `@@now`: TIMESTAMP_LTZ / TIMESTAMP, microseconds, ticked every `clock.resolution`.
    Now,
    /// `@@current_date`: DATE in the session zone, ticked daily.
    CurrentDate,
}

/// How the rows of two inputs are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Matching pairs.
    Inner,
    /// Matching pairs, and unmatched left rows with NULLs.
    Left,
    /// Matching pairs, and unmatched right rows with NULLs. `lower` gives [`Left`](Self::Left) with the inputs swapped instead.
    Right,
    /// Matching pairs, and unmatched rows of both sides with NULLs.
    Full,
    /// Left rows with a match.
    Semi,
    /// Left rows without a match.
    Anti,
    /// NOT IN: left rows whose key is certainly not among the right keys (one key; SQL's NULL rules).
    NullAwareAnti,
    /// `FOR SYSTEM_TIME AS OF PROCTIME()`, inner: only left changes probe; see [`Join::right_unique`].
    LookupInner,
    /// The same, keeping unmatched left rows with NULLs.
    LookupLeft,
}

impl JoinKind {
    /// Whether only left changes probe.
    pub fn is_lookup(self) -> bool {
        matches!(self, JoinKind::LookupInner | JoinKind::LookupLeft)
    }
}

/// A join of two inputs. Output: the left columns, then the right columns (semi and anti: the left columns only).
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// The left input.
    pub left: Plan,
    /// The right input.
    pub right: Plan,
    /// How rows are matched.
    pub kind: JoinKind,
    /// Equated expressions over the left columns; empty: every pair is a candidate.
    pub left_keys: Vec<ScalarExpr>,
    /// Their counterparts over the right columns, of the same types.
    pub right_keys: Vec<ScalarExpr>,
    /// Whether NULL keys match each other (IS NOT DISTINCT FROM).
    pub null_equal: bool,
    /// What else must hold for a pair, over left ++ right columns. Part of the match, not a filter after it.
    pub residual: Option<ScalarExpr>,
    /// Whether a key has at most one right row, by a PRIMARY KEY or GROUP BY below.
    pub right_unique: bool,
    /// Whether a key has at most one left row.
    pub left_unique: bool,
    /// Without keys every row meets every row: how many rows the smaller side may have before the run fails. None where a
    /// side has at most one row by construction, or where there are keys.
    pub cross_limit: Option<u64>,
    /// Why this form was chosen, for EXPLAIN.
    pub reason: String,
}

/// An inner equi-join of several inputs. Output: the columns of all inputs, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaJoin {
    /// The inputs.
    pub inputs: Vec<Plan>,
    /// For each input, the order in which its changes meet the other inputs.
    pub paths: Vec<Vec<DeltaHop>>,
    /// What else must hold, over all columns.
    pub residual: Option<ScalarExpr>,
    /// Why this form was chosen.
    pub reason: String,
}

/// One hop of a path: look `input` up by `target_keys` with the values of `source_keys`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaHop {
    /// The input that is looked up.
    pub input: usize,
    /// Over the columns of ALL inputs (positions in the join's output); only columns of inputs already on the path.
    pub source_keys: Vec<ScalarExpr>,
    /// Over the columns of `input`.
    pub target_keys: Vec<ScalarExpr>,
}

/// Each left row with the first right row of its key inside a time range. Output: the left columns, then the right columns
/// (NULL where none is found and `outer`).
#[derive(Clone, Debug, PartialEq)]
pub struct Lookback {
    /// The left input.
    pub left: Plan,
    /// The right input.
    pub right: Plan,
    /// The key over the left columns.
    pub left_keys: Vec<ScalarExpr>,
    /// The key over the right columns.
    pub right_keys: Vec<ScalarExpr>,
    /// The left time: an integer-encoded expression (BIGINT, TIMESTAMP, DATE).
    pub left_time: ScalarExpr,
    /// The right time, of the same type.
    pub right_time: ScalarExpr,
    /// Right rows from `left_time - before` on, inclusive, in the unit of the column; `i64::MAX`: from the first one. May be
    /// negative (a range that begins behind the left row). No row has a time that overflows: bounds saturate.
    pub before: i64,
    /// Right rows up to `left_time + after`, inclusive; `i64::MAX`: up to the last one. May be negative.
    pub after: i64,
    /// Among them the first by right time (false) or the last (true); either way of equal times the first by `tie_breakers`,
    /// then the least row.
    pub last: bool,
    /// Keys over the right columns that break ties of the time.
    pub tie_breakers: Vec<SortKey>,
    /// Whether rows may be left that only the whole row tells apart, and matter.
    pub ties: bool,
    /// Whether a left row without a match is kept.
    pub outer: bool,
    /// Why this form was chosen.
    pub reason: String,
}

impl Lookback {
    /// The order of a key's right rows whose first row (last, where `last`) is the answer. Where that is the last, everything
    /// behind the time is turned round, so that of equal times still the first one is taken.
    pub fn right_order(&self) -> Vec<SortKey> {
        let time = SortKey { expression: self.right_time.clone(), descending: false, nulls_first: false };
        let turned = |key: &SortKey| if self.last { key.reversed() } else { key.clone() };
        let mut order: Vec<SortKey> = std::iter::once(time).chain(self.tie_breakers.iter().map(turned)).collect();
        if self.last && self.ties {
            let columns = self.right.schema.types().into_iter().enumerate();
            let columns = columns.map(|(column, data_type)| ScalarExpr::column(column, data_type));
            let is_new =
                |column: &ScalarExpr| !self.right_keys.contains(column) && order.iter().all(|key| key.expression != *column);
            let last: Vec<ScalarExpr> = columns.filter(is_new).collect();
            order.extend(last.into_iter().map(|expression| SortKey { expression, descending: true, nulls_first: true }));
        }
        order
    }
}

/// GROUP BY. Without keys there is always exactly one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The input.
    pub input: Plan,
    /// The group key over the input's columns.
    pub keys: Vec<ScalarExpr>,
    /// The aggregates.
    pub aggregates: Vec<AggregateCall>,
}

/// One aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// Which.
    pub function: AggregateFunction,
    /// The arguments over the input's columns.
    pub arguments: Vec<ScalarExpr>,
    /// Only each distinct argument once.
    pub distinct: bool,
    /// Only rows for which this is true.
    pub filter: Option<ScalarExpr>,
    /// ORDER BY inside the call.
    pub order_by: Vec<SortKey>,
    /// The type of the result.
    pub data_type: deltaworks_dataflow::DataType,
    /// Whether the result is a bitmap that travels in chunks: the column has handles.
    pub in_chunks: bool,
}

/// Which aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregateFunction {
    /// COUNT(*): no argument; COUNT(x).
    Count,
    /// SUM of integers, decimals or floats.
    Sum,
    /// AVG of integers, decimals or floats.
    Avg,
    /// MIN.
    Min,
    /// MAX.
    Max,
    /// ARG_MIN(value, by): the value of the row with the smallest `by`, ties by value.
    ArgMin,
    /// ARG_MAX(value, by).
    ArgMax,
    /// FIRST_VALUE(x ORDER BY ..).
    FirstValue,
    /// LAST_VALUE(x ORDER BY ..).
    LastValue,
    /// Any other aggregate of the batch engine, by name: recomputes the group.
    Other(String),
}

/// One key of an ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// The key.
    pub expression: ScalarExpr,
    /// Whether larger values come first.
    pub descending: bool,
    /// Whether NULL comes first. The encoding's own order has NULL last ascending and first descending.
    pub nulls_first: bool,
}

/// How ranks are given to equal rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ranking {
    /// 1, 2, 3, ..: ties by the whole row.
    RowNumber,
    /// 1, 1, 3, ..
    Rank,
    /// 1, 1, 2, ..
    DenseRank,
}

/// The rows of each partition whose rank is in (offset, offset + limit]. Output: the input's columns, then the rank if asked.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// The input.
    pub input: Plan,
    /// The partition over the input's columns; empty: one global top-k.
    pub partition: Vec<ScalarExpr>,
    /// The order.
    pub order: Vec<SortKey>,
    /// Ranks to skip.
    pub offset: u64,
    /// How many ranks; None: all of them, which makes this the ranking itself.
    pub limit: Option<u64>,
    /// How ties rank.
    pub ranking: Ranking,
    /// Whether the rank (BIGINT) is a column.
    pub emit_rank: bool,
    /// Whether it stands before a sink whose key several rows may share; see [`one_per_key`](crate::lower::one_per_key).
    pub before_sink: bool,
}

/// Connected components of links.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// The links: two ids, and when the link was first seen.
    pub links: Plan,
    /// Which rows.
    pub rows: ComponentRows,
}

/// What the identity function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentRows {
    /// (id, one id) of every member.
    OneIds,
    /// (old one id, new one id, when): what replaced what. Frozen; it depends on the ticks.
    History,
}

/// Window functions over whole partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The input.
    pub input: Plan,
    /// The partition over the input's columns.
    pub partition: Vec<ScalarExpr>,
    /// The functions, as the batch engine evaluates them, one per output column behind the input's.
    pub functions: Vec<WindowCall>,
}

/// Set operations on bitmaps that travel in chunks. Output: the input's columns, then how many ids each of `counts` has, then
/// the handles of `sets`. The operands are columns with handles, see [`lower::chunks`](crate::lower::chunks).
#[derive(Clone, Debug, PartialEq)]
pub struct Bitmaps {
    /// The input.
    pub input: Plan,
    /// Sets made of its columns, of which the number of ids is wanted.
    pub counts: Vec<SetExpression>,
    /// Sets made of its columns, which go on in chunks.
    pub sets: Vec<SetExpression>,
}

/// One window function call. Evaluated by DataFusion over the rows of one partition: the expression is kept as it was planned.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowCall {
    /// DataFusion's expression, a window function over columns without qualifier: `c3` is column 3 of `Window::input`.
    pub expression: datafusion::logical_expr::Expr,
    /// The type of the result.
    pub data_type: deltaworks_dataflow::DataType,
}
