//! Renders GROUP BY: each aggregate by the cheapest exact way, the parts put together per group.
//!
//! | aggregates | how | state per group |
//! |---|---|---|
//! | COUNT, SUM, AVG | accumulated under retraction | O(1) |
//! | MIN(x), MAX(x), COUNT(DISTINCT x) | read off the different arguments, together with those above | the distinct arguments |
//! | ARG_MIN, ARG_MAX, FIRST_VALUE, LAST_VALUE | the head of the group in sort order | the arranged arguments |
//! | SUM(DISTINCT x), AVG(DISTINCT x) | accumulated over the distinct arguments | the distinct arguments |
//! | GROUP_BITMAP and its family | a set that retracts | the set |
//! | any other | the batch engine over the group's rows | the arranged arguments |

use std::cell::Cell;
use std::rc::Rc;

use deltaworks_dataflow::arrange::arrange;
use deltaworks_dataflow::row::split_fields;
use deltaworks_dataflow::{Collection, DataType, Datum, KeyedCollection, Row};
use deltaworks_operators::aggregate::{Accumulator, accumulate_counting, collate, recompute};
use deltaworks_operators::distinct::distinct;
use deltaworks_operators::top_k::{TopK as TopKSpec, top_k};

use super::Renderer;
use super::layout::Layout;
use super::recompute::GroupAggregate;
use super::shape::{Direction, Shape};
use crate::expr::{ScalarExpr, UnaryOp};
use crate::lower::chunks::is_bitmap;
use crate::plan::{Aggregate, AggregateCall, AggregateFunction, Plan, SortKey};

/// The argument with NULL for rows that the FILTER clause leaves out.
pub(super) fn argument(call: &AggregateCall, index: usize) -> ScalarExpr {
    let value = call.arguments.get(index).cloned().unwrap_or_else(|| ScalarExpr::boolean(true));
    let value = match call.function {
        // COUNT of several arguments counts the rows in which none is NULL.
        AggregateFunction::Count if call.arguments.len() > 1 => where_present(&call.arguments, ScalarExpr::boolean(true)),
        // A row without an order has no say, even where there is no other.
        AggregateFunction::ArgMin | AggregateFunction::ArgMax if index == 0 => where_present(&call.arguments[1..], value),
        _ => value,
    };
    match &call.filter {
        None => value,
        Some(filter) => {
            let data_type = value.data_type();
            ScalarExpr::Case { branches: vec![(filter.clone(), value)], otherwise: None, data_type }
        }
    }
}
/// The value where none of `all` is NULL, else NULL.
fn where_present(all: &[ScalarExpr], value: ScalarExpr) -> ScalarExpr {
    let present = |e: &ScalarExpr| ScalarExpr::Unary { op: UnaryOp::IsNotNull, input: Box::new(e.clone()) };
    let data_type = value.data_type();
    match ScalarExpr::conjunction(all.iter().map(present)) {
        Some(condition) => ScalarExpr::Case { branches: vec![(condition, value)], otherwise: None, data_type },
        None => value,
    }
}
/// How the aggregates accumulate, each None where it does not. Those of the same argument share a set of values.
fn accumulators(calls: &[AggregateCall]) -> Vec<Option<Accumulator>> {
    let arguments: Vec<ScalarExpr> = calls.iter().map(|call| argument(call, 0)).collect();
    let set = |index: usize| arguments.iter().position(|other| *other == arguments[index]).unwrap_or(index);
    let of_call = |(index, call): (usize, &AggregateCall)| match call.function {
        AggregateFunction::Min => Some(Accumulator::Min(set(index))),
        AggregateFunction::Max => Some(Accumulator::Max(set(index))),
        AggregateFunction::Count if call.distinct => Some(Accumulator::CountDistinct(set(index))),
        _ if call.distinct => None,
        _ => accumulator(call),
    };
    calls.iter().enumerate().map(of_call).collect()
}
/// How an aggregate whose every argument counts accumulates; None where it does not.
fn accumulator(call: &AggregateCall) -> Option<Accumulator> {
    let input = call.arguments.first().map(ScalarExpr::data_type);
    Some(match (&call.function, input) {
        (AggregateFunction::Count, None) if call.filter.is_none() => Accumulator::CountRows,
        (AggregateFunction::Count, _) => Accumulator::Count,
        (AggregateFunction::Sum, Some(DataType::Decimal { .. })) => Accumulator::SumDecimal,
        (AggregateFunction::Sum, Some(DataType::Float | DataType::Double)) => Accumulator::SumFloat,
        (AggregateFunction::Sum, Some(DataType::IntervalDay)) => Accumulator::SumWithin { most: i64::MAX },
        (AggregateFunction::Sum, Some(DataType::IntervalMonth)) => Accumulator::SumWithin { most: i32::MAX.into() },
        (AggregateFunction::Sum, Some(_)) => Accumulator::SumInt,
        (AggregateFunction::Avg, Some(DataType::Decimal { scale, .. })) => match &call.data_type {
            DataType::Decimal { scale: wanted, .. } => {
                Accumulator::AvgDecimal { shift: u32::try_from(wanted - scale).unwrap_or(0) }
            }
            _ => return None,
        },
        (AggregateFunction::Avg, Some(DataType::Float | DataType::Double)) => Accumulator::AvgFloat,
        _ => return None,
    })
}
/// The order in which the wanted value is the first, and that value.
fn head(call: &AggregateCall) -> Option<(Vec<SortKey>, ScalarExpr)> {
    let key = |expression: ScalarExpr, descending: bool| SortKey { expression, descending, nulls_first: false };
    let value = argument(call, 0);
    Some(match call.function {
        AggregateFunction::ArgMin => (vec![key(argument(call, 1), false), key(value.clone(), false)], value),
        AggregateFunction::ArgMax => (vec![key(argument(call, 1), true), key(value.clone(), false)], value),
        AggregateFunction::FirstValue | AggregateFunction::LastValue if !call.order_by.is_empty() => {
            let last = call.function == AggregateFunction::LastValue;
            let turned = |k: &SortKey| SortKey {
                expression: k.expression.clone(),
                descending: k.descending != last,
                nulls_first: k.nulls_first != last,
            };
            let mut order: Vec<SortKey> = call.order_by.iter().map(turned).collect();
            order.push(key(value.clone(), last));
            (order, value)
        }
        _ => return None,
    })
}

/// A part of the results: which aggregates it holds.
struct Part<'s> {
    rows: KeyedCollection<'s>,
    calls: Vec<usize>,
}

impl<'s> Renderer<'_, '_, 's> {
    /// `plan` is the node itself, by which what it keeps in chunks is found.
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, plan: &Plan) -> Collection<'s> {
        let input = &aggregate.input;
        let mut parts: Vec<Part<'s>> = Vec::new();
        let mut accumulated: Vec<usize> = Vec::new();
        let accumulators = accumulators(&aggregate.aggregates);
        for (index, call) in aggregate.aggregates.iter().enumerate() {
            if accumulators[index].is_some() {
                accumulated.push(index);
            } else if let Some((order, value)) = head(call) {
                parts.push(Part { rows: self.head(input, &aggregate.keys, call, &order, value), calls: vec![index] });
            } else if call.in_chunks {
                parts.push(Part { rows: self.handles(plan, aggregate.keys.len() + index), calls: vec![index] });
            } else {
                parts.push(Part { rows: self.single(input, &aggregate.keys, call), calls: vec![index] });
            }
        }
        if !accumulated.is_empty() || parts.is_empty() {
            let rows = self.accumulated(aggregate, &accumulated, accumulators.into_iter().flatten().collect());
            parts.insert(0, Part { rows, calls: accumulated });
        }
        self.together(aggregate, parts)
    }
    /// One row per group: the key, then the results in the order of the query.
    fn together(&mut self, aggregate: &Aggregate, parts: Vec<Part<'s>>) -> Collection<'s> {
        let keys = aggregate.keys.len();
        let global = aggregate.keys.is_empty();
        let order: Vec<usize> = parts.iter().flat_map(|part| part.calls.clone()).collect();
        let results = if parts.len() == 1 && !global {
            parts.into_iter().next().expect("one part").rows
        } else {
            let empty = |part: &Part<'_>| Row::pack(part.calls.iter().map(|c| empty_result(&aggregate.aggregates[*c])));
            let defaults = global.then(|| parts.iter().map(empty).collect());
            let start = self.build.start;
            collate(parts.into_iter().map(|part| part.rows).collect(), defaults, start, "Collate")
        };
        let places: Vec<usize> =
            (0..aggregate.aggregates.len()).map(|call| keys + order.iter().position(|c| *c == call).unwrap_or(0)).collect();
        let columns: Vec<usize> = (0..keys).chain(places).collect();
        let in_order = columns.iter().enumerate().all(|(index, column)| index == *column);
        results.map(move |(key, value)| {
            let mut bytes = Vec::with_capacity(key.len() + value.len());
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(&value);
            if in_order {
                return Row::from_bytes(&bytes);
            }
            let mut row = Vec::with_capacity(bytes.len());
            deltaworks_dataflow::row::project(&bytes, &columns, &mut row);
            Row::from_bytes(&row)
        })
    }
    /// What accumulates. Without any: the group keys alone (DISTINCT).
    fn accumulated(
        &mut self,
        aggregate: &Aggregate,
        calls: &[usize],
        accumulators: Vec<Accumulator>,
    ) -> KeyedCollection<'s> {
        let arguments = calls.iter().map(|index| argument(&aggregate.aggregates[*index], 0)).collect();
        let keyed = self.keyed(&aggregate.input, &aggregate.keys, arguments);
        self.accumulate_counted(keyed, accumulators)
    }
    /// Accumulates; results with too many digits are NULL and counted.
    fn accumulate_counted(&mut self, keyed: KeyedCollection<'s>, accumulators: Vec<Accumulator>) -> KeyedCollection<'s> {
        let overflows = self.failures("SUM or AVG with too many digits");
        accumulate_counting(keyed, accumulators, overflows, "Accumulate")
    }
    /// A counter of what an aggregate of this view cannot hold, shown under `what`.
    pub(super) fn failures(&mut self, what: &'static str) -> Rc<Cell<i64>> {
        let counter = Rc::new(Cell::new(0));
        let shown = Rc::clone(&counter);
        if let Some(analysis) = &mut self.analysis {
            analysis.fails(&counter);
        }
        let view = self.view.clone();
        self.build.observe(&view, move || vec![(what.to_string(), shown.get(), Vec::new())]);
        counter
    }
    pub(super) fn keyed(&mut self, input: &Plan, keys: &[ScalarExpr], values: Vec<ScalarExpr>) -> KeyedCollection<'s> {
        self.render::<(Row, Row)>(input, Shape::keyed(&input.schema, keys.to_vec(), values))
    }
    /// The value that stands first in the group's order. NULLs are skipped where the function skips them, because they sort
    /// last; a group of NULLs alone gives NULL.
    fn head(
        &mut self,
        input: &Plan,
        keys: &[ScalarExpr],
        call: &AggregateCall,
        order: &[SortKey],
        value: ScalarExpr,
    ) -> KeyedCollection<'s> {
        // FILTER on functions that do not skip NULLs must take the rows out.
        let skips = !matches!(call.function, AggregateFunction::FirstValue | AggregateFunction::LastValue);
        let flag = call.filter.clone().filter(|_| !skips);
        let mut order = order.to_vec();
        if let Some(filter) = flag {
            let left_out = ScalarExpr::Unary { op: UnaryOp::IsNotTrue, input: Box::new(filter) };
            order.insert(0, SortKey { expression: left_out, descending: false, nulls_first: false });
        }
        let layout = Layout { key: keys.to_vec(), value: vec![value] };
        let arranged = self.arrange(input, layout, &order, "Head");
        let skip: usize = order.iter().map(|k| Direction::of(k).fields()).sum();
        let spec = TopKSpec { order_fields: skip, ..TopKSpec::first() };
        top_k(arranged, spec, "Head", move |key, value, _| {
            Some((Row::from_bytes(key), Row::from_bytes(split_fields(value, skip).1)))
        })
    }
    /// An aggregate that needs an arrangement or a state of its own.
    fn single(&mut self, input: &Plan, keys: &[ScalarExpr], call: &AggregateCall) -> KeyedCollection<'s> {
        if call.distinct
            && let Some(accumulator) = accumulator(call)
        {
            let (count, mut columns) = (keys.len(), keys.to_vec());
            columns.push(argument(call, 0));
            let shape = Shape::rows().after_project(&input.schema, &columns);
            let rows = distinct(self.render::<Row>(input, shape), "DistinctArguments");
            let keyed = rows.map(move |row| {
                let (key, value) = split_fields(&row, count);
                (Row::from_bytes(key), Row::from_bytes(value))
            });
            return self.accumulate_counted(keyed, vec![accumulator]);
        }
        if is_bitmap(call) {
            return self.bitmap(input, keys, call);
        }
        self.general(input, keys, call)
    }
    /// Any other aggregate: the batch engine over the group's rows in encoded order.
    fn general(&mut self, input: &Plan, keys: &[ScalarExpr], call: &AggregateCall) -> KeyedCollection<'s> {
        let mut values: Vec<ScalarExpr> = call.arguments.clone();
        values.extend(call.order_by.iter().map(|key| key.expression.clone()));
        values.push(call.filter.clone().unwrap_or_else(|| ScalarExpr::boolean(true)));
        let types: Vec<DataType> = values.iter().map(ScalarExpr::data_type).collect();
        let keyed = self.keyed(input, keys, values);
        let arranged = arrange(keyed, "Arrange: Recompute");
        self.made(&arranged);
        let mut group = GroupAggregate::new(self.session(), call, &types);
        recompute(arranged, "Recompute", move |_, rows, results| results.push(group.evaluate(rows)))
    }
}

/// What an aggregate gives for no rows at all.
fn empty_result(call: &AggregateCall) -> Datum<'static> {
    match &call.function {
        AggregateFunction::Count => Datum::Int(0),
        // The handle of the one group.
        AggregateFunction::Other(_) if call.in_chunks => Datum::Bitmap(Default::default()),
        AggregateFunction::Other(name) => super::recompute::empty_result(name, &call.data_type),
        _ => Datum::Null,
    }
}
