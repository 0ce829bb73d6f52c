//! Lowering of GROUP BY: arguments over the input's columns, grouping sets as unions.

use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::{AggregateFunction as Call, AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::logical_plan::Aggregate as LogicalAggregate;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Expr, GroupingSet};
use deltaworks_dataflow::{Column, Datum, Row, Schema};

use super::clock::Bound;
use super::{Lowering, Result, column, project, schema_of, terms};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::plan::{Aggregate, AggregateCall, AggregateFunction, Node, Plan, SortKey};

/// Grouping sets beyond this are more dataflow than anybody means.
const GROUPING_SETS_MAX: usize = 64;

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &LogicalAggregate) -> Result<Plan> {
        let input = self.plan(&aggregate.input)?;
        let schema = schema_of(&aggregate.schema)?;
        let over = aggregate.input.schema();
        let keys = self.expressions(grouping_set_to_exprlist(&aggregate.group_expr)?, over)?;
        let first_call = schema.len() - aggregate.aggr_expr.len();
        let calls: Result<Vec<_>> = aggregate.aggr_expr.iter().map(|call| self.aggregate_call(call, over)).collect();
        let (input, keys, calls) = self.bind_aggregate(input, keys, calls?);
        let names = |at: std::ops::Range<usize>| schema.columns[at].iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        let call_names = names(first_call..schema.len());
        let [Expr::GroupingSet(set)] = &aggregate.group_expr[..] else {
            return Ok(group(input, keys, &names(0..first_call), calls, &call_names));
        };
        let sets = grouping_sets(set, &aggregate.group_expr)?;
        let mut inputs = Vec::new();
        for (index, set) in sets.iter().enumerate() {
            let ordinal = sets[..index].iter().filter(|earlier| *earlier == set).count();
            let grouped = group_by_set(input.clone(), &keys, set, calls.clone(), &schema);
            inputs.push(spread_set(grouped, &keys, set, ordinal, &schema));
        }
        Ok(Plan::new(Node::Union { inputs }, schema))
    }

    fn bind_aggregate(
        &mut self,
        input: Plan,
        keys: Vec<ScalarExpr>,
        calls: Vec<AggregateCall>,
    ) -> (Plan, Vec<ScalarExpr>, Vec<AggregateCall>) {
        let bound = self.bind(input, keys.iter().chain(calls.iter().flat_map(AggregateCall::expressions)));
        let keys = keys.iter().map(|key| bound.replace(key)).collect();
        let calls = calls.iter().map(|call| call.map(&|e| Bound::replace(&bound, e))).collect();
        (bound.plan, keys, calls)
    }

    fn aggregate_call(&self, expression: &Expr, schema: &DFSchema) -> Result<AggregateCall> {
        let call = match expression {
            Expr::Alias(alias) => return self.aggregate_call(&alias.expr, schema),
            Expr::AggregateFunction(call) => call,
            other => return Err(SqlError::new(format!("\"{other}\" is no aggregate"), "")),
        };
        super::refuse::functions(expression)?;
        let Call { func, params } = call;
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
        let function = aggregate_function(func.name());
        let data_type = {
            use datafusion::logical_expr::ExprSchemable;
            let arrow = expression.get_type(schema)?;
            deltaworks_dataflow::DataType::from_arrow(&arrow)
                .ok_or_else(|| SqlError::new(format!("\"{expression}\" has the unsupported type {arrow}"), "cast it"))?
        };
        let mut arguments = self.expressions(args, schema)?;
        let counts_rows = function == AggregateFunction::Count && !distinct;
        if counts_rows && matches!(&arguments[..], [only] if only.as_literal().is_some_and(|value| !value.is_null())) {
            arguments.clear();
        }
        let mut filter = filter.as_ref().map(|filter| self.expression(filter, schema)).transpose()?;
        if let (Some(NullTreatment::IgnoreNulls), Some(first)) = (null_treatment, arguments.first()) {
            let not_null = terms::is_not_null(first.clone());
            filter = Some(filter.map_or(not_null.clone(), |filter| filter.and(not_null)));
        }
        let order_by = self.sort_keys(order_by, schema)?;
        Ok(AggregateCall { function, arguments, distinct: *distinct, filter, order_by, data_type, in_chunks: false })
    }
}

impl AggregateCall {
    /// All expressions of the call, over the input's columns.
    pub fn expressions(&self) -> impl Iterator<Item = &ScalarExpr> {
        self.arguments.iter().chain(&self.filter).chain(self.order_by.iter().map(|key| &key.expression))
    }
    /// The call with each of its expressions replaced by what `f` makes of it.
    pub fn map(&self, f: &dyn Fn(&ScalarExpr) -> ScalarExpr) -> AggregateCall {
        AggregateCall {
            arguments: self.arguments.iter().map(f).collect(),
            filter: self.filter.as_ref().map(f),
            order_by: self.order_by.iter().map(|key| key.map(f)).collect(),
            ..self.clone()
        }
    }
}

impl SortKey {
    /// The key with its expression replaced by what `f` makes of it.
    pub fn map(&self, f: &dyn Fn(&ScalarExpr) -> ScalarExpr) -> SortKey {
        SortKey { expression: f(&self.expression), ..self.clone() }
    }
    /// The key that sorts the other way round.
    pub fn reversed(&self) -> SortKey {
        SortKey { descending: !self.descending, nulls_first: !self.nulls_first, ..self.clone() }
    }
}

fn aggregate_function(name: &str) -> AggregateFunction {
    match name.to_lowercase().as_str() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" | "mean" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "arg_min" | "min_by" => AggregateFunction::ArgMin,
        "arg_max" | "max_by" => AggregateFunction::ArgMax,
        "first_value" => AggregateFunction::FirstValue,
        "last_value" => AggregateFunction::LastValue,
        other => AggregateFunction::Other(other.to_string()),
    }
}

/// One row per group: keys, then aggregates. Without aggregates that is DISTINCT.
fn group(input: Plan, keys: Vec<ScalarExpr>, names: &[String], calls: Vec<AggregateCall>, call_names: &[String]) -> Plan {
    let key = |(key, name): (&ScalarExpr, &String)| Column::new(name.clone(), key.data_type());
    let call = |(call, name): (&AggregateCall, &String)| Column::new(name.clone(), call.data_type.clone());
    let mut schema = Schema::new(keys.iter().zip(names).map(key).collect());
    if calls.is_empty() {
        if keys.is_empty() {
            return Plan::new(Node::Constant { rows: vec![Row::default()] }, schema);
        }
        let projected = project(input, keys, schema.clone());
        return Plan::new(Node::Distinct { input: Box::new(projected) }, schema);
    }
    schema.columns.extend(calls.iter().zip(call_names).map(call));
    Plan::new(Node::Aggregate(Box::new(Aggregate { input, keys, aggregates: calls })), schema)
}

/// The sets as positions in the list of all grouping expressions.
fn grouping_sets(set: &GroupingSet, group: &[Expr]) -> Result<Vec<Vec<usize>>> {
    let all = grouping_set_to_exprlist(group)?;
    let place = |expression: &Expr| all.iter().position(|have| *have == expression).unwrap_or_default();
    let places = |expressions: &[Expr]| expressions.iter().map(place).collect::<Vec<_>>();
    let sets: Vec<Vec<usize>> = match set {
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| places(set)).collect(),
        GroupingSet::Rollup(expressions) => (0..=expressions.len()).rev().map(|n| places(&expressions[..n])).collect(),
        GroupingSet::Cube(expressions) if expressions.len() < 16 => (0..1usize << expressions.len())
            .map(|mask| {
                places(expressions).into_iter().enumerate().filter(|(i, _)| mask >> i & 1 == 0).map(|(_, p)| p).collect()
            })
            .collect(),
        GroupingSet::Cube(_) => Vec::new(),
    };
    if sets.is_empty() || sets.len() > GROUPING_SETS_MAX {
        let help = format!("name the sets that are needed: GROUPING SETS ((a, b), (a)); at most {GROUPING_SETS_MAX}");
        return Err(SqlError::new("too many grouping sets", help));
    }
    Ok(sets
        .into_iter()
        .map(|mut set| {
            set.sort_unstable();
            set.dedup();
            set
        })
        .collect())
}

fn group_by_set(input: Plan, keys: &[ScalarExpr], set: &[usize], calls: Vec<AggregateCall>, schema: &Schema) -> Plan {
    let name = |index: usize| schema.columns[index].name.clone();
    let names: Vec<String> = set.iter().map(|index| name(*index)).collect();
    let call_names: Vec<String> = (schema.len() - calls.len()..schema.len()).map(name).collect();
    group(input, set.iter().map(|index| keys[*index].clone()).collect(), &names, calls, &call_names)
}

/// All grouping columns, NULL where the set lacks them, then the number of the set, then the aggregates.
fn spread_set(grouped: Plan, keys: &[ScalarExpr], set: &[usize], ordinal: usize, schema: &Schema) -> Plan {
    let mut mask = (ordinal as i64) << keys.len();
    let mut expressions = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        match set.iter().position(|have| *have == index) {
            Some(at) => expressions.push(column(&grouped, at)),
            None => {
                mask |= 1 << (keys.len() - 1 - index);
                expressions.push(terms::null(key.data_type()));
            }
        }
    }
    expressions.push(ScalarExpr::literal(Datum::Int(mask), schema.columns[keys.len()].data_type.clone()));
    expressions.extend((set.len()..grouped.schema.len()).map(|index| column(&grouped, index)));
    project(grouped, expressions, schema.clone())
}
