//! What a plan means, computed row by row: the reference that rewrites of plans are held against.

use std::collections::BTreeMap;

use deltaworks_dataflow::{DataType, Datum, Row};

use crate::expr::{EvalErrors, Evaluator, ScalarExpr};
use crate::plan::{
    Aggregate, AggregateCall, AggregateFunction, ClockVariable, DeltaJoin, Join, JoinKind, Lookback, Node, Plan, Ranking,
    SortKey, TopK,
};

pub(super) type Fields = Vec<Datum<'static>>;

/// The rows of tables, and the clock in microseconds.
#[derive(Debug)]
pub(super) struct World {
    pub(super) tables: BTreeMap<String, Vec<Fields>>,
    pub(super) now: i64,
}

const DAY: i64 = 86_400_000_000;

/// The values of expressions over a row.
fn values(expressions: &[ScalarExpr], row: &Fields) -> Fields {
    let mut bytes = Vec::new();
    Evaluator::new(expressions.to_vec(), EvalErrors::new()).eval_row(&Row::pack(row.iter().cloned()), &mut bytes);
    let types: Vec<DataType> = expressions.iter().map(ScalarExpr::data_type).collect();
    let mut rest = &bytes[..];
    types.iter().map(|data_type| Datum::decode(&mut rest, data_type).into_owned()).collect()
}

fn value(expression: &ScalarExpr, row: &Fields) -> Datum<'static> {
    values(std::slice::from_ref(expression), row).remove(0)
}

fn holds(predicate: &ScalarExpr, row: &Fields) -> bool {
    matches!(value(predicate, row), Datum::Bool(true))
}

fn int(datum: &Datum<'_>) -> Option<i128> {
    match datum {
        Datum::Int(value) => Some(i128::from(*value)),
        _ => None,
    }
}

fn joined(left: &[Datum<'static>], right: &[Datum<'static>]) -> Fields {
    left.iter().chain(right).cloned().collect()
}

fn nulls(count: usize) -> Fields {
    vec![Datum::Null; count]
}

impl World {
    /// The rows of a plan, in no order.
    pub(super) fn rows(&self, plan: &Plan) -> Vec<Fields> {
        match &plan.node {
            Node::Get { table, columns, .. } => {
                let pick = |row: &Fields| columns.iter().map(|c| row[*c].clone()).collect();
                self.tables[table].iter().map(pick).collect()
            }
            Node::Constant { rows } => {
                let types = plan.schema.types();
                let decode = |row: &Row| {
                    let mut rest = row.as_bytes();
                    types.iter().map(|t| Datum::decode(&mut rest, t).into_owned()).collect()
                };
                rows.iter().map(decode).collect()
            }
            Node::Clock { variables } => vec![variables.iter().map(|v| Datum::Int(self.clock(*v))).collect()],
            Node::Project { input, expressions } => self.rows(input).iter().map(|row| values(expressions, row)).collect(),
            Node::Filter { input, predicate } => self.rows(input).into_iter().filter(|row| holds(predicate, row)).collect(),
            Node::TemporalFilter { input, lower, upper, variable } => {
                let now = match variable {
                    ClockVariable::Now => i128::from(self.now),
                    ClockVariable::CurrentDate => i128::from(self.now.div_euclid(DAY) * DAY),
                };
                let from = |row: &Fields| lower.as_ref().is_none_or(|e| int(&value(e, row)).is_some_and(|at| at <= now));
                let until = |row: &Fields| upper.as_ref().is_none_or(|e| int(&value(e, row)).is_some_and(|at| now < at));
                self.rows(input).into_iter().filter(|row| from(row) && until(row)).collect()
            }
            Node::Unnest { .. } | Node::Window(_) | Node::Components(_) | Node::Bitmaps(_) => panic!("not in the reference"),
            Node::Union { inputs } => inputs.iter().flat_map(|input| self.rows(input)).collect(),
            Node::Distinct { input } => {
                let mut rows = self.rows(input);
                rows.sort();
                rows.dedup();
                rows
            }
            Node::Join(join) => self.join(join),
            Node::DeltaJoin(join) => self.delta_join(join),
            Node::Lookback(lookback) => self.lookback(lookback),
            Node::Aggregate(aggregate) => self.aggregate(aggregate),
            Node::TopK(top_k) => self.top_k(top_k),
        }
    }

    fn clock(&self, variable: ClockVariable) -> i64 {
        match variable {
            ClockVariable::Now => self.now,
            ClockVariable::CurrentDate => self.now.div_euclid(DAY),
        }
    }

    fn join(&self, join: &Join) -> Vec<Fields> {
        let (left, right) = (self.rows(&join.left), self.rows(&join.right));
        if join.right_unique || join.left_unique {
            check_unique(join, &left, &right);
        }
        let matches = |l: &Fields, r: &Fields| {
            let (lk, rk) = (values(&join.left_keys, l), values(&join.right_keys, r));
            let known = join.null_equal || !lk.iter().chain(&rk).any(Datum::is_null);
            known && lk == rk && join.residual.as_ref().is_none_or(|residual| holds(residual, &joined(l, r)))
        };
        let (wl, wr) = (join.left.schema.len(), join.right.schema.len());
        let has_null = right.iter().any(|r| values(&join.right_keys, r).iter().any(Datum::is_null));
        let mut rows = Vec::new();
        for l in &left {
            let found: Vec<&Fields> = right.iter().filter(|r| matches(l, r)).collect();
            let null_key = values(&join.left_keys, l).iter().any(Datum::is_null);
            match join.kind {
                JoinKind::Semi => rows.extend((!found.is_empty()).then(|| l.clone())),
                JoinKind::Anti => rows.extend(found.is_empty().then(|| l.clone())),
                JoinKind::NullAwareAnti => {
                    let out = right.is_empty() || found.is_empty() && !has_null && !null_key;
                    rows.extend(out.then(|| l.clone()));
                }
                _ => rows.extend(found.iter().map(|r| joined(l, r))),
            }
            if found.is_empty() && matches!(join.kind, JoinKind::Left | JoinKind::Full | JoinKind::LookupLeft) {
                rows.push(joined(l, &nulls(wr)));
            }
        }
        if matches!(join.kind, JoinKind::Right | JoinKind::Full) {
            let unmatched = right.iter().filter(|r| !left.iter().any(|l| matches(l, r)));
            rows.extend(unmatched.map(|r| joined(&nulls(wl), r)));
        }
        rows
    }

    /// The product of all inputs, cut by the hops of each path; all paths must agree.
    fn delta_join(&self, join: &DeltaJoin) -> Vec<Fields> {
        let mut product = vec![Fields::new()];
        let mut starts = Vec::new();
        for input in &join.inputs {
            starts.push(
                starts.last().copied().unwrap_or(0)
                    + if starts.is_empty() { 0 } else { join.inputs[starts.len() - 1].schema.len() },
            );
            let rows = self.rows(input);
            product = product.iter().flat_map(|row| rows.iter().map(move |next| joined(row, next))).collect();
        }
        let results: Vec<Vec<Fields>> = join
            .paths
            .iter()
            .map(|path| {
                let on_path = |row: &&Fields| {
                    path.iter().all(|hop| {
                        let start = starts[hop.input];
                        let own = row[start..start + join.inputs[hop.input].schema.len()].to_vec();
                        let source = values(&hop.source_keys, row);
                        !source.iter().any(Datum::is_null) && source == values(&hop.target_keys, &own)
                    }) && join.residual.as_ref().is_none_or(|residual| holds(residual, row))
                };
                product.iter().filter(on_path).cloned().collect()
            })
            .collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "paths disagree");
        results.into_iter().next().unwrap_or_default()
    }

    fn lookback(&self, lookback: &Lookback) -> Vec<Fields> {
        let right = self.rows(&lookback.right);
        let mut rows = Vec::new();
        for l in self.rows(&lookback.left) {
            let key = values(&lookback.left_keys, &l);
            let time = int(&value(&lookback.left_time, &l)).filter(|_| !key.iter().any(Datum::is_null));
            let in_range = |r: &&Fields| {
                let distance = match (time, int(&value(&lookback.right_time, r))) {
                    (Some(left), Some(right)) => right - left,
                    _ => return false,
                };
                let from = lookback.before == i64::MAX || distance >= -i128::from(lookback.before);
                let to = lookback.after == i64::MAX || distance <= i128::from(lookback.after);
                from && to && values(&lookback.right_keys, r) == key
            };
            let time =
                SortKey { expression: lookback.right_time.clone(), descending: lookback.last, nulls_first: lookback.last };
            let order: Vec<SortKey> = std::iter::once(time).chain(lookback.tie_breakers.iter().cloned()).collect();
            let found = right.iter().filter(in_range).min_by(|a, b| compare(&order, a, b).then_with(|| a.cmp(b)));
            match found {
                Some(r) => rows.push(joined(&l, r)),
                None if lookback.outer => rows.push(joined(&l, &nulls(lookback.right.schema.len()))),
                None => {}
            }
        }
        rows
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Vec<Fields> {
        let mut groups: BTreeMap<Fields, Vec<Fields>> = BTreeMap::new();
        if aggregate.keys.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for row in self.rows(&aggregate.input) {
            groups.entry(values(&aggregate.keys, &row)).or_default().push(row);
        }
        let row = |(key, rows): (Fields, Vec<Fields>)| {
            joined(&key, &aggregate.aggregates.iter().map(|call| call_value(call, &rows)).collect::<Vec<_>>())
        };
        groups.into_iter().map(row).collect()
    }

    fn top_k(&self, top_k: &TopK) -> Vec<Fields> {
        let mut partitions: BTreeMap<Fields, Vec<Fields>> = BTreeMap::new();
        for row in self.rows(&top_k.input) {
            partitions.entry(values(&top_k.partition, &row)).or_default().push(row);
        }
        let mut rows = Vec::new();
        for (_, mut partition) in partitions {
            partition.sort_by(|a, b| compare(&top_k.order, a, b).then_with(|| a.cmp(b)));
            let (mut rank, mut dense) = (0, 0);
            for (at, row) in partition.iter().enumerate() {
                let tie = at > 0 && compare(&top_k.order, &partition[at - 1], row).is_eq();
                dense += u64::from(!tie);
                rank = if tie { rank } else { at as u64 + 1 };
                let number = match top_k.ranking {
                    Ranking::RowNumber => at as u64 + 1,
                    Ranking::Rank => rank,
                    Ranking::DenseRank => dense,
                };
                if number > top_k.offset && top_k.limit.is_none_or(|limit| number <= top_k.offset + limit) {
                    let mut row = row.clone();
                    row.extend(top_k.emit_rank.then_some(Datum::Int(number as i64)));
                    rows.push(row);
                }
            }
        }
        rows
    }
}

fn check_unique(join: &Join, left: &[Fields], right: &[Fields]) {
    let distinct = |keys: &[ScalarExpr], rows: &[Fields]| {
        let mut seen: Vec<Fields> = rows.iter().map(|row| values(keys, row)).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        seen.len() == all
    };
    assert!(!join.right_unique || distinct(&join.right_keys, right), "the right side is not unique");
    assert!(!join.left_unique || distinct(&join.left_keys, left), "the left side is not unique");
}

fn compare(order: &[SortKey], left: &Fields, right: &Fields) -> std::cmp::Ordering {
    order.iter().fold(std::cmp::Ordering::Equal, |so_far, key| {
        let (l, r) = (value(&key.expression, left), value(&key.expression, right));
        so_far.then_with(|| match (l.is_null(), r.is_null()) {
            (false, false) if key.descending => r.cmp(&l),
            (false, false) => l.cmp(&r),
            (l, r) if key.nulls_first => r.cmp(&l),
            (l, r) => l.cmp(&r),
        })
    })
}

fn call_value(call: &AggregateCall, rows: &[Fields]) -> Datum<'static> {
    use AggregateFunction::{ArgMin, Count, FirstValue, Max, Min, Sum};
    let rows = rows.iter().filter(|row| call.filter.as_ref().is_none_or(|filter| holds(filter, row)));
    let mut arguments: Vec<Fields> = rows.clone().map(|row| values(&call.arguments, row)).collect();
    if call.distinct {
        arguments.sort();
        arguments.dedup();
    }
    let present = || arguments.iter().filter_map(|row| row.first()).filter(|value| !value.is_null());
    let found = match &call.function {
        Count if call.arguments.is_empty() => Some(Datum::Int(arguments.len() as i64)),
        Count => Some(Datum::Int(present().count() as i64)),
        Sum => {
            let sum: i128 = present().filter_map(int).sum();
            (present().count() > 0).then_some(Datum::Decimal(sum))
        }
        Min => present().min().cloned(),
        Max => present().max().cloned(),
        ArgMin => {
            let known = arguments.iter().filter(|row| !row[1].is_null());
            known.min_by_key(|row| (row[1].clone(), row[0].clone())).map(|row| row[0].clone())
        }
        FirstValue => {
            let first = rows.clone().min_by(|a, b| {
                compare(&call.order_by, a, b).then_with(|| values(&call.arguments, a).cmp(&values(&call.arguments, b)))
            });
            first.map(|row| value(&call.arguments[0], row))
        }
        other => panic!("{other:?} is not in the reference"),
    };
    found.unwrap_or(Datum::Null)
}
