//! Which columns of a plan are unique: sets of columns whose values no two rows share.
//!
//! They come from PRIMARY KEYs and GROUP BYs and travel up through projections, filters and joins. The empty set says that
//! there is at most one row. Values are compared as rows are: NULL equals NULL. What is returned is true but not complete.

use std::collections::BTreeSet;

use super::TableInfo;
use crate::expr::ScalarExpr;
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
        Node::Constant { .. } | Node::Unnest { .. } | Node::Union { .. } => Vec::new(),
        Node::Project { input, expressions } => through_project(unique_columns(input, tables), expressions),
        Node::Filter { input, predicate } => without_constants(unique_columns(input, tables), predicate),
        Node::TemporalFilter { input, .. } => unique_columns(input, tables),
        Node::Distinct { .. } => vec![(0..plan.schema.len()).collect()],
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
    let place = |column: &usize| columns.iter().position(|c| c == column);
    let key: Option<Columns> = facts.primary_key.iter().map(place).collect();
    key.filter(|_| !facts.primary_key.is_empty()).into_iter().collect()
}

/// A set survives where each of its columns is among the expressions.
fn through_project(sets: Vec<Columns>, expressions: &[ScalarExpr]) -> Vec<Columns> {
    let place = |column: &usize| expressions.iter().position(|e| e.as_column() == Some(*column));
    sets.iter().filter_map(|set| set.iter().map(place).collect()).collect()
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
    vec![(0..aggregate.keys.len()).collect()]
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
