//! Which columns of a plan are unique: sets of columns whose values no two rows share.
//!
//! They come from PRIMARY KEYs and GROUP BYs and travel up through projections, filters, joins, and unions whose inputs a
//! constant tells apart. The empty set says that there is at most one row. Values are compared as rows are: NULL equals NULL.
//! What is returned is true but not complete.

use std::collections::BTreeSet;

use deltaworks_dataflow::{DataType, Datum, Row};

use super::TableInfo;
use crate::expr::{Function, ScalarExpr};
use crate::plan::{Aggregate, ComponentRows, DeltaJoin, Join, JoinKind, Node, Plan, Ranking, TopK};

/// A set of column positions.
pub type Columns = BTreeSet<usize>;

/// More sets than this are not followed: they would only cost planning time.
const SETS_MAX: usize = 12;

/// Returns sets of columns that are unique in the plan's rows, none of them a superset of another.
pub fn unique_columns(plan: &Plan, tables: &dyn TableInfo) -> Vec<Columns> {
    let sets = match &plan.node {
        Node::Get { table, columns, .. } => of_table(table, columns, tables),
        Node::Constant { rows } if rows.len() <= 1 => vec![Columns::new()],
        Node::Clock { .. } => vec![Columns::new()],
        Node::Constant { .. } | Node::Unnest { .. } => Vec::new(),
        Node::Union { inputs } => of_union(inputs, tables),
        Node::Project { input, expressions } => through_project(unique_columns(input, tables), expressions),
        Node::Filter { input, predicate } => without_constants(unique_columns(input, tables), predicate),
        Node::TemporalFilter { input, .. } => unique_columns(input, tables),
        Node::Distinct { input } => {
            // A constant tells no rows apart.
            vec![(0..plan.schema.len()).filter(|column| constant(input, *column).is_none()).collect()]
        }
        Node::Join(join) => of_join(join, tables),
        Node::DeltaJoin(join) => of_delta_join(join, tables),
        Node::Lookback(lookback) => unique_columns(&lookback.left, tables),
        Node::Aggregate(aggregate) => of_aggregate(aggregate),
        Node::TopK(top_k) => of_top_k(top_k, tables),
        Node::Window(window) => unique_columns(&window.input, tables),
        Node::Components(components) => match components.rows {
            ComponentRows::OneIds => vec![Columns::from([0])],
            ComponentRows::History => Vec::new(),
        },
        Node::Bitmaps(bitmaps) => unique_columns(&bitmaps.input, tables),
    };
    minimal(sets)
}

/// Whether no two rows of the plan agree on `columns`.
pub fn is_unique(plan: &Plan, columns: &Columns, tables: &dyn TableInfo) -> bool {
    unique_columns(plan, tables).iter().any(|set| set.is_subset(columns))
}

/// Whether the plan has at most one row.
pub fn is_single_row(plan: &Plan, tables: &dyn TableInfo) -> bool {
    is_unique(plan, &Columns::new(), tables)
}

/// The columns that stand alone among the expressions.
pub fn plain_columns(expressions: &[ScalarExpr]) -> Columns {
    expressions.iter().filter_map(ScalarExpr::as_column).collect()
}

fn minimal(mut sets: Vec<Columns>) -> Vec<Columns> {
    sets.sort_by_key(Columns::len);
    let mut kept: Vec<Columns> = Vec::new();
    for set in sets {
        if kept.len() < SETS_MAX && !kept.iter().any(|k| k.is_subset(&set)) {
            kept.push(set);
        }
    }
    kept
}

fn of_table(table: &str, columns: &[usize], tables: &dyn TableInfo) -> Vec<Columns> {
    let Some(facts) = tables.table(table) else {
        return Vec::new();
    };
    if facts.single_row {
        return vec![Columns::new()];
    }
    let place = |column: &usize| columns.iter().position(|c| c == column);
    let key: Option<Columns> = facts.primary_key.iter().map(place).collect();
    key.filter(|_| !facts.primary_key.is_empty()).into_iter().collect()
}

/// A set survives where each of its columns is among the expressions: as it is, as its text, in a wider type, behind a prefix.
fn through_project(sets: Vec<Columns>, expressions: &[ScalarExpr]) -> Vec<Columns> {
    let place = |column: &usize| expressions.iter().position(|e| told_apart_by(e) == Some(*column));
    sets.iter().filter_map(|set| set.iter().map(place).collect()).collect()
}
/// The column whose different values give different values of the expression.
fn told_apart_by(expression: &ScalarExpr) -> Option<usize> {
    match expression {
        ScalarExpr::Cast { input, data_type } if keeps_apart(&input.data_type(), data_type) => told_apart_by(input),
        ScalarExpr::Call { function: Function::Concat, arguments, .. } => {
            let is_text = |part: &&ScalarExpr| part.as_literal().is_some_and(|value| *value != Datum::Null);
            let mut parts = arguments.iter().filter(|part| !is_text(part));
            let part = parts.next()?;
            if parts.next().is_none() { told_apart_by(part) } else { None }
        }
        other => other.as_column(),
    }
}
/// Whether a cast never fails and never makes two values one.
fn keeps_apart(from: &DataType, to: &DataType) -> bool {
    use DataType::{BigInt, Boolean, Date, Double, Float, Int, SmallInt, String, TinyInt};
    matches!(
        (from, to),
        (TinyInt, SmallInt | Int | BigInt)
            | (SmallInt, Int | BigInt)
            | (Int, BigInt)
            | (Float, Double)
            | (TinyInt | SmallInt | Int | BigInt | Boolean | Date, String)
    )
}

/// What is unique in every input is unique beside a column that is another constant in each of them.
fn of_union(inputs: &[Plan], tables: &dyn TableInfo) -> Vec<Columns> {
    let Some((first, others)) = inputs.split_first() else { return Vec::new() };
    let marks: Vec<usize> = (0..first.schema.len()).filter(|column| is_mark(inputs, *column)).collect();
    if marks.is_empty() {
        return Vec::new();
    }
    let mut sets = unique_columns(first, tables);
    for input in others {
        sets = minimal(pairs(&sets, &unique_columns(input, tables)));
    }
    sets.iter().flat_map(|set| marks.iter().map(move |mark| set.iter().copied().chain([*mark]).collect())).collect()
}
/// Whether the column is a constant in each of the plans, another one in each.
fn is_mark(plans: &[Plan], column: usize) -> bool {
    let constants: Option<Vec<_>> = plans.iter().map(|plan| constant(plan, column)).collect();
    let Some(constants) = constants else { return false };
    constants.iter().enumerate().all(|(at, constant)| !constants[..at].contains(constant))
}
fn constant(plan: &Plan, column: usize) -> Option<Row> {
    match &plan.node {
        Node::Project { input, expressions } => match &expressions[column] {
            ScalarExpr::Literal { value, .. } => Some(Row::pack([value.clone()])),
            other => constant(input, other.as_column()?),
        },
        Node::Filter { input, .. } | Node::TemporalFilter { input, .. } | Node::Distinct { input } => {
            constant(input, column)
        }
        _ => None,
    }
}

/// A column that a filter holds to one value tells no rows apart.
fn without_constants(sets: Vec<Columns>, predicate: &ScalarExpr) -> Vec<Columns> {
    let fixed: Columns = super::terms::conjuncts(predicate).iter().filter_map(super::terms::fixed_column).collect();
    sets.iter().map(|set| set.difference(&fixed).copied().collect()).collect()
}

fn of_join(join: &Join, tables: &dyn TableInfo) -> Vec<Columns> {
    let left = unique_columns(&join.left, tables);
    let width = join.left.schema.len();
    let right = || -> Vec<Columns> {
        unique_columns(&join.right, tables).iter().map(|set| set.iter().map(|c| c + width).collect()).collect()
    };
    let right_fixed: Columns = plain_columns(&join.right_keys).iter().map(|c| c + width).collect();
    let left_fixed = plain_columns(&join.left_keys);
    match join.kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => left,
        JoinKind::Inner | JoinKind::LookupInner => {
            let right = right();
            let mut sets = pairs(&left, &right);
            if left.iter().any(|set| set.is_subset(&left_fixed)) {
                sets.extend(right.iter().cloned());
            }
            if right.iter().any(|set| set.is_subset(&right_fixed)) {
                sets.extend(left);
            }
            // Equated columns stand for each other.
            let equal = equated(join, width);
            let other: Vec<Columns> = sets.iter().map(|set| replace(set, &equal)).collect();
            sets.extend(other);
            sets
        }
        JoinKind::Left | JoinKind::LookupLeft => {
            let right = right();
            let mut sets = pairs(&left, &right);
            if right.iter().any(|set| set.is_subset(&right_fixed)) {
                sets.extend(left);
            }
            sets
        }
        // Two unmatched rows, one of each side, may both be NULL throughout.
        JoinKind::Right | JoinKind::Full => Vec::new(),
    }
}

fn equated(join: &Join, width: usize) -> Vec<(usize, usize)> {
    let pair = |(left, right): (&ScalarExpr, &ScalarExpr)| Some((left.as_column()?, right.as_column()? + width));
    join.left_keys.iter().zip(&join.right_keys).filter_map(pair).collect()
}

fn replace(set: &Columns, equal: &[(usize, usize)]) -> Columns {
    set.iter().map(|column| equal.iter().find(|pair| pair.1 == *column).map_or(*column, |pair| pair.0)).collect()
}

fn pairs(left: &[Columns], right: &[Columns]) -> Vec<Columns> {
    left.iter().flat_map(|l| right.iter().map(move |r| l.union(r).copied().collect())).collect()
}

/// An input adds nothing to what tells rows apart when it is met by a unique key on its own path.
fn of_delta_join(join: &DeltaJoin, tables: &dyn TableInfo) -> Vec<Columns> {
    let mut offset = 0;
    let mut starts = Vec::new();
    for input in &join.inputs {
        starts.push(offset);
        offset += input.schema.len();
    }
    let shifted = |input: usize| -> Vec<Columns> {
        let sets = unique_columns(&join.inputs[input], tables);
        sets.iter().map(|set| set.iter().map(|c| c + starts[input]).collect()).collect()
    };
    let mut all = Vec::new();
    for (start, path) in join.paths.iter().enumerate() {
        let mut sets = shifted(start);
        for hop in path {
            let keys = plain_columns(&hop.target_keys);
            if !is_unique(&join.inputs[hop.input], &keys, tables) {
                sets = pairs(&sets, &shifted(hop.input));
            }
        }
        all.extend(sets);
    }
    all
}

fn of_aggregate(aggregate: &Aggregate) -> Vec<Columns> {
    let is_constant = |key: &ScalarExpr| match key.as_column() {
        Some(column) => constant(&aggregate.input, column).is_some(),
        None => key.as_literal().is_some(),
    };
    vec![(0..aggregate.keys.len()).filter(|place| !is_constant(&aggregate.keys[*place])).collect()]
}

fn of_top_k(top_k: &TopK, tables: &dyn TableInfo) -> Vec<Columns> {
    let mut sets = unique_columns(&top_k.input, tables);
    let partition: Option<Columns> = top_k.partition.iter().map(ScalarExpr::as_column).collect();
    if let (Some(partition), Ranking::RowNumber) = (partition, top_k.ranking) {
        if top_k.limit == Some(1) {
            sets.push(partition);
        } else if top_k.emit_rank {
            sets.push(partition.into_iter().chain([top_k.input.schema.len()]).collect());
        }
    }
    sets
}
