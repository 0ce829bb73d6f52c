//! Recognises lookback joins: of all right rows of a key inside a time range around a left row, only the first (or last) is
//! wanted. One operator then seeks it, instead of a join that makes every pair and a top-k that throws all but one away.
//!
//! Two shapes say so, over an inner or left join with equal keys and a time range:
//!
//! * `ROW_NUMBER() OVER (PARTITION BY <a unique key of the left side> ORDER BY right.time ..) = 1`
//! * `MIN(time)`, `MIN(STRUCT(time, ..))`, `ARG_MIN(x, time)`, `FIRST_VALUE(x ORDER BY time ..)` or their last counterparts,
//!   grouped by a unique key of the left side.
//!
//! A shape that comes close stays what it is, and its join says in `reason` what was missing.

use deltaworks_dataflow::{DataType, Datum};

use super::terms::{self, used};
use super::time_range::{TimeRange, saturated};
use super::unique::{Columns, is_unique, plain_columns};
use super::{TableInfo, column, columns, filter, join, project, top_k};
use crate::expr::{Function, ScalarExpr};
use crate::plan::{
    Aggregate, AggregateCall, AggregateFunction, Join, JoinKind, Lookback, Node, Plan, Ranking, SortKey, TopK,
};

/// Rewrites one node; everything below it is rewritten already.
pub(crate) fn recognise(plan: Plan, tables: &dyn TableInfo) -> Plan {
    let found = match &plan.node {
        Node::TopK(top_k) => of_top_k(top_k, tables),
        Node::Aggregate(aggregate) => of_aggregate(aggregate, tables),
        _ => return plan,
    };
    match found {
        Outcome::Found(mut lookback) => {
            lookback.schema = plan.schema;
            lookback
        }
        Outcome::Close(reason) => noted(plan, &reason),
        Outcome::Other => plan,
    }
}

/// What came of looking at a node.
enum Outcome {
    /// The lookback join, with the node's columns.
    Found(Plan),
    /// It is nearly one; what is missing.
    Close(String),
    /// Something else.
    Other,
}

type Missing<T> = Result<T, String>;

/// Writes the reason to the join below.
fn noted(mut plan: Plan, reason: &str) -> Plan {
    fn join_of(plan: &mut Plan) -> Option<&mut Join> {
        match &mut plan.node {
            Node::Join(join) => Some(join),
            Node::Project { input, .. } | Node::Filter { input, .. } => join_of(input),
            _ => None,
        }
    }
    let input = plan.inputs_mut().into_iter().next();
    if let Some(join) = input.and_then(join_of) {
        join.reason = format!("no lookback join: {reason}");
    }
    plan
}

/// A join under projections, with the projections as expressions over the join's columns.
struct Over {
    join: Join,
    expressions: Vec<ScalarExpr>,
}

fn over_join(plan: &Plan) -> Option<Over> {
    match &plan.node {
        Node::Join(join) => Some(Over { join: (**join).clone(), expressions: columns(plan) }),
        Node::Project { input, expressions } => {
            let below = over_join(input)?;
            let expressions = expressions.iter().map(|e| e.substitute(&below.expressions)).collect();
            Some(Over { join: below.join, expressions })
        }
        Node::Filter { input, predicate } => {
            let mut below = over_join(input)?;
            if below.join.kind != JoinKind::Inner {
                return None;
            }
            let predicate = predicate.substitute(&below.expressions);
            below.join.residual = ScalarExpr::conjunction(below.join.residual.into_iter().chain([predicate]));
            Some(below)
        }
        _ => None,
    }
}

/// The ways round in which the join may be read: the left side is the one that is kept.
fn orientations(over: Over) -> Vec<Over> {
    if over.join.null_equal || over.join.left_keys.is_empty() {
        return Vec::new();
    }
    match over.join.kind {
        JoinKind::Left => vec![over],
        JoinKind::Inner => {
            let turned = over_join(&join::swapped(over.join.clone())).map(|mut turned| {
                turned.expressions = over.expressions.iter().map(|e| e.substitute(&turned.expressions)).collect();
                turned
            });
            [Some(over), turned].into_iter().flatten().collect()
        }
        _ => Vec::new(),
    }
}

fn of_top_k(top_k: &TopK, tables: &dyn TableInfo) -> Outcome {
    if top_k.ranking != Ranking::RowNumber || top_k.offset != 0 || top_k.limit != Some(1) || top_k.partition.is_empty() {
        return Outcome::Other;
    }
    let Some(over) = over_join(&top_k.input) else {
        return Outcome::Other;
    };
    first_found(orientations(over), |over| {
        let partition: Vec<ScalarExpr> = top_k.partition.iter().map(|e| e.substitute(&over.expressions)).collect();
        let order: Vec<SortKey> = top_k.order.iter().map(|key| key.map(&|e| e.substitute(&over.expressions))).collect();
        let shape = Shape::of(over, &partition, tables)?;
        let choice = shape.choice(&order, &[], tables)?;
        let ties = !is_unique(&shape.right, &choice.known(&shape), tables);
        let lookback = shape.lookback(&[choice], ties)?;
        let mut expressions = over.expressions.clone();
        if top_k.emit_rank {
            expressions.push(ScalarExpr::literal(Datum::Int(1), DataType::BigInt));
        }
        Ok((lookback, expressions))
    })
}

/// Tries each way round; of several reasons the last to be found counts.
fn first_found(orientations: Vec<Over>, attempt: impl Fn(&Over) -> Missing<(Plan, Vec<ScalarExpr>)>) -> Outcome {
    let mut close: Option<(usize, String)> = None;
    for over in orientations {
        if !speaks_of_both_sides(&over.join) {
            continue;
        }
        match attempt(&over) {
            Ok((lookback, expressions)) => {
                let schema = lookback.schema.clone();
                return Outcome::Found(project(lookback, expressions, schema));
            }
            // The way round that got further has the better reason.
            Err(reason) => {
                let progress = PROGRESS.iter().position(|step| reason.starts_with(step)).unwrap_or(PROGRESS.len());
                if close.as_ref().is_none_or(|(have, _)| *have < progress) {
                    close = Some((progress, reason));
                }
            }
        }
    }
    close.map_or(Outcome::Other, |(_, reason)| Outcome::Close(reason))
}

const NOT_OF_LEFT: &str = "the partition has columns of the right side";
const NOT_UNIQUE: &str = "the partition is not a unique key of the left side";
const PROGRESS: [&str; 2] = [NOT_OF_LEFT, NOT_UNIQUE];

/// Whether something beyond the keys compares the sides: without that there is no time range to speak of.
fn speaks_of_both_sides(join: &Join) -> bool {
    let width = join.left.schema.len();
    let both = |conjunct: &ScalarExpr| {
        let used = used(conjunct);
        used.iter().any(|c| *c < width) && used.iter().any(|c| *c >= width)
    };
    join.residual.as_ref().is_some_and(|residual| terms::conjuncts(residual).iter().any(both))
}

/// A join of the right shape, taken apart. Left expressions are over the left side's columns, right ones over the right's.
struct Shape {
    left: Plan,
    right: Plan,
    left_keys: Vec<ScalarExpr>,
    right_keys: Vec<ScalarExpr>,
    left_time: ScalarExpr,
    right_time: ScalarExpr,
    before: i64,
    after: i64,
    outer: bool,
}

impl Shape {
    /// Takes a join apart whose rows are partitioned by `partition`, over the join's columns.
    fn of(over: &Over, partition: &[ScalarExpr], tables: &dyn TableInfo) -> Missing<Shape> {
        let join = &over.join;
        let width = join.left.schema.len();
        let partition: Vec<ScalarExpr> = partition.iter().map(|e| left_side(e, join, width)).collect();
        if partition.iter().any(|e| used(e).iter().any(|c| *c >= width)) {
            return Err(NOT_OF_LEFT.into());
        }
        if !is_unique(&join.left, &plain_columns(&partition), tables) {
            return Err(NOT_UNIQUE.into());
        }
        let mut left = join.left.clone();
        let mut right = join.right.clone();
        let mut range: Option<TimeRange> = None;
        let mut conditions = Vec::new();
        for conjunct in join.residual.iter().flat_map(terms::conjuncts) {
            let used = used(&conjunct);
            if used.iter().all(|c| *c >= width) {
                right = filter(right, conjunct.map_columns(&|c| c - width));
            } else if used.iter().all(|c| *c < width) {
                match join.kind {
                    JoinKind::Inner => left = filter(left, conjunct),
                    _ => conditions.push(conjunct),
                }
            } else {
                let next = TimeRange::of(&conjunct, width)
                    .ok_or_else(|| format!("the condition \"{}\" is no range of time", text(&conjunct, over)))?;
                range = Some(match range {
                    Some(range) => range
                        .and(next)
                        .ok_or_else(|| format!("the condition \"{}\" is about another time", text(&conjunct, over)))?,
                    None => next,
                });
            }
        }
        let range = range.ok_or_else(|| "nothing compares times of both sides".to_string())?;
        Ok(Shape {
            left,
            right,
            left_keys: join.left_keys.clone(),
            right_keys: join.right_keys.clone(),
            left_time: timed_if(conditions, range.left),
            right_time: range.right,
            before: saturated(-range.first),
            after: saturated(range.last),
            outer: join.kind == JoinKind::Left,
        })
    }

    fn width(&self) -> usize {
        self.left.schema.len()
    }

    /// Which right row an order picks: by time, then by further columns of the right side. `values` break the ties that are
    /// left (of an aggregate: the value itself).
    fn choice(&self, order: &[SortKey], values: &[SortKey], tables: &dyn TableInfo) -> Missing<Choice> {
        let width = self.width();
        let of_left = |e: &ScalarExpr| used(e).iter().all(|c| *c < width);
        let order = top_k::varying(order, &of_left);
        let Some((time, rest)) = order.split_first() else {
            return Err("there is no order".into());
        };
        let is_time = |e: &ScalarExpr| {
            let shifted = self.right_time.map_columns(&|c| c + width);
            terms::sorts_like(e) == terms::sorts_like(&shifted)
        };
        if !is_time(&time.expression) {
            return Err("the order does not begin with the time of the range".into());
        }
        let mut choice = Choice { last: time.descending, tie_breakers: Vec::new() };
        for key in rest.iter().chain(values.iter().filter(|key| !of_left(&key.expression))) {
            if is_unique(&self.right, &choice.known(self), tables) {
                break;
            }
            let used = used(&key.expression);
            if used.iter().any(|c| *c < width) {
                return Err("the order mixes columns of both sides".into());
            }
            let mut key = key.map(&|e| e.map_columns(&|c| c - width));
            if key.expression.as_column().is_some_and(|c| !self.right.schema.columns[c].nullable) {
                // Where NULLs would stand makes no difference; the encoding's own place takes no room.
                key.nulls_first = key.descending;
            }
            if choice.tie_breakers.iter().all(|have| have.expression != key.expression) {
                choice.tie_breakers.push(key);
            }
        }
        Ok(choice)
    }

    /// One lookback per choice, each appending its right row: left columns, right columns, right columns again, ..
    fn lookback(&self, choices: &[Choice], ties: bool) -> Missing<Plan> {
        let width = self.width();
        let mut plan = self.left.clone();
        for choice in choices {
            let kind = if self.outer { JoinKind::Left } else { JoinKind::Inner };
            let schema = join::joined_schema(&plan.schema, &self.right.schema, kind);
            debug_assert!(plan.schema.len() >= width);
            let lookback = Lookback {
                left: plan,
                right: self.right.clone(),
                left_keys: self.left_keys.clone(),
                right_keys: self.right_keys.clone(),
                left_time: self.left_time.clone(),
                right_time: self.right_time.clone(),
                before: self.before,
                after: self.after,
                last: choice.last,
                tie_breakers: choice.tie_breakers.clone(),
                ties,
                outer: self.outer,
                reason: format!(
                    "only the {} right row in the time range is wanted: one seek per left row",
                    if choice.last { "last" } else { "first" }
                ),
            };
            plan = Plan::new(Node::Lookback(Box::new(lookback)), schema);
        }
        Ok(plan)
    }
}

/// Which right row is picked.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    last: bool,
    tie_breakers: Vec<SortKey>,
}
impl Choice {
    /// The right columns that are equal in rows that this does not tell apart.
    fn known(&self, shape: &Shape) -> Columns {
        let mut known = plain_columns(&shape.right_keys);
        known.extend(plain_columns(std::slice::from_ref(terms::sorts_like(&shape.right_time))));
        known.extend(self.tie_breakers.iter().filter_map(|key| key.expression.as_column()));
        known
    }
}

/// A left row that ON rules out is kept without a match: so is one without a time.
fn timed_if(conditions: Vec<ScalarExpr>, time: ScalarExpr) -> ScalarExpr {
    let data_type = time.data_type();
    match ScalarExpr::conjunction(conditions) {
        Some(condition) => ScalarExpr::Case { branches: vec![(condition, time)], otherwise: None, data_type },
        None => time,
    }
}

/// A right column that is equated with a left one is the left one.
fn left_side(expression: &ScalarExpr, join: &Join, width: usize) -> ScalarExpr {
    if join.kind != JoinKind::Inner {
        return expression.clone();
    }
    let Some(right) = expression.as_column().filter(|c| *c >= width) else {
        return expression.clone();
    };
    let pair = join.right_keys.iter().position(|key| key.as_column() == Some(right - width));
    pair.map_or_else(|| expression.clone(), |pair| join.left_keys[pair].clone())
}

fn text(expression: &ScalarExpr, over: &Over) -> String {
    let width = over.join.left.schema.len();
    let name = |index: usize| {
        let (schema, index) =
            if index < width { (&over.join.left.schema, index) } else { (&over.join.right.schema, index - width) };
        schema.columns[index].name.clone()
    };
    expression.to_text(&name)
}

fn of_aggregate(aggregate: &Aggregate, tables: &dyn TableInfo) -> Outcome {
    if aggregate.keys.is_empty() || !aggregate.aggregates.iter().any(|call| picks(&call.function)) {
        return Outcome::Other;
    }
    let Some(over) = over_join(&aggregate.input) else {
        return Outcome::Other;
    };
    first_found(orientations(over), |over| {
        let keys: Vec<ScalarExpr> = aggregate.keys.iter().map(|e| e.substitute(&over.expressions)).collect();
        let shape = Shape::of(over, &keys, tables)?;
        let mut choices: Vec<Choice> = Vec::new();
        let mut values: Vec<(Option<Choice>, ScalarExpr)> = Vec::new();
        for call in &aggregate.aggregates {
            let call = call.map(&|e| e.substitute(&over.expressions));
            let (choice, value) = shape.pick(&call, tables)?;
            choices.extend(choice.clone().filter(|choice| !choices.contains(choice)));
            values.push((choice, value));
        }
        drop_coarser(&mut choices);
        if choices.is_empty() {
            return Err("no aggregate speaks of the right side".into());
        }
        // Rows that are left have the same values.
        let lookback = shape.lookback(&choices, false)?;
        let (width, step) = (shape.width(), shape.right.schema.len());
        let keys = keys.iter().map(|key| left_side(key, &over.join, width));
        let place = |(choice, value): &(Option<Choice>, ScalarExpr)| {
            let at = choice.as_ref().and_then(|choice| choices.iter().position(|have| refines(have, choice))).unwrap_or(0);
            value.map_columns(&|c| if c < width { c } else { c + at * step })
        };
        let expressions = keys.chain(values.iter().map(place)).collect();
        Ok((lookback, expressions))
    })
}

/// Whether `fine` picks a row that `coarse` may pick as well.
fn refines(fine: &Choice, coarse: &Choice) -> bool {
    fine.last == coarse.last && fine.tie_breakers.starts_with(&coarse.tie_breakers)
}

/// A choice by fewer tie breakers is served by one with more: what it leaves open, it does not care about.
fn drop_coarser(choices: &mut Vec<Choice>) {
    let all = choices.clone();
    choices.retain(|choice| !all.iter().any(|other| other != choice && refines(other, choice)));
}

fn picks(function: &AggregateFunction) -> bool {
    use AggregateFunction::{ArgMax, ArgMin, FirstValue, LastValue, Max, Min};
    matches!(function, Min | Max | ArgMin | ArgMax | FirstValue | LastValue)
}

impl Shape {
    /// The row that an aggregate takes its value from, and the value over left ++ right columns. No row where the value is
    /// the same throughout a group.
    fn pick(&self, call: &AggregateCall, tables: &dyn TableInfo) -> Missing<(Option<Choice>, ScalarExpr)> {
        use AggregateFunction::{ArgMax, ArgMin, FirstValue, LastValue, Max, Min};
        let width = self.width();
        let name = format!("{:?}", call.function).to_uppercase();
        if !picks(&call.function) {
            return Err(format!("{name} needs all matches"));
        }
        if call.filter.is_some() {
            return Err(format!("{name} has a FILTER"));
        }
        let Some(value) = call.arguments.first().cloned() else {
            return Err(format!("{name} has no argument"));
        };
        if matches!(call.function, Min | Max) && used(&value).iter().all(|c| *c < width) {
            return Ok((None, value));
        }
        let last = matches!(call.function, Max | ArgMax | LastValue);
        let key = |expression: ScalarExpr| SortKey { expression, descending: last, nulls_first: last };
        let ascending = SortKey { expression: value.clone(), descending: false, nulls_first: false };
        match call.function {
            Min | Max => {
                // Of a struct the fields decide one after the other, the rest of them are tie breakers.
                let parts: Vec<SortKey> = struct_fields(&value).into_iter().map(key).collect();
                Ok((Some(self.choice(&parts, &[], tables)?), value))
            }
            ArgMin | ArgMax => {
                let by = call.arguments.get(1).map(struct_fields).unwrap_or_default();
                let parts: Vec<SortKey> = by.into_iter().map(key).collect();
                let choice = self.choice(&parts, &[ascending], tables)?;
                Ok((Some(choice), self.only_with_match(value)))
            }
            FirstValue | LastValue => {
                let order: Vec<SortKey> =
                    call.order_by.iter().map(|k| if last { k.reversed() } else { k.clone() }).collect();
                let tie = if last { ascending.reversed() } else { ascending };
                Ok((Some(self.choice(&order, &[tie], tables)?), value))
            }
            _ => Err(format!("{name} needs all matches")),
        }
    }

    /// ARG_MIN of a left row without a match is NULL, whatever its expression makes of NULLs.
    fn only_with_match(&self, value: ScalarExpr) -> ScalarExpr {
        let width = self.width();
        if !self.outer || value.as_column().is_some_and(|c| c >= width) {
            return value;
        }
        let data_type = value.data_type();
        let found = terms::is_not_null(self.right_time.map_columns(&|c| c + width));
        ScalarExpr::Case { branches: vec![(found, value)], otherwise: None, data_type }
    }
}

/// The fields of a struct that is put together here; the expression itself where it is none.
fn struct_fields(expression: &ScalarExpr) -> Vec<ScalarExpr> {
    match expression {
        ScalarExpr::Call { function: Function::MakeStruct, arguments, .. } => arguments.clone(),
        ScalarExpr::Udf { function, arguments, .. } if function.name() == "struct" => arguments.clone(),
        ScalarExpr::Udf { function, arguments, .. } if function.name() == "named_struct" => {
            arguments.iter().skip(1).step_by(2).cloned().collect()
        }
        _ => vec![expression.clone()],
    }
}

/// The columns of the lookback's inputs that it needs itself: left, right.
pub(crate) fn needed(lookback: &Lookback) -> (Columns, Columns) {
    let left = terms::used_by(lookback.left_keys.iter().chain([&lookback.left_time]));
    let tie_breakers = lookback.tie_breakers.iter().map(|key| &key.expression);
    let right = terms::used_by(lookback.right_keys.iter().chain([&lookback.right_time]).chain(tie_breakers));
    (left, right)
}

/// Whether every column of the plan stands for itself in `expressions`.
pub(crate) fn is_identity(expressions: &[ScalarExpr], plan: &Plan) -> bool {
    expressions.len() == plan.schema.len() && expressions.iter().enumerate().all(|(index, e)| *e == column(plan, index))
}
