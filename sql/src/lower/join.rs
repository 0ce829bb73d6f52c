//! Lowering of joins: every form as inner, left, full, semi or anti join.
//!
//! A right join is a left join with its inputs swapped. A mark join (`EXISTS` under an OR) is the union of its semi and its
//! anti join. A scalar subquery is a left join with a side that has at most one row; where that is not so by construction,
//! [`Lowering::at_most_one`] makes it so.

use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::logical_plan::Join as LogicalJoin;
use datafusion::logical_expr::logical_plan::builder::build_join_schema;
use deltaworks_dataflow::{Column, DataType, Datum, Schema};

use super::{Lowering, Result, column, columns, lookup, pick, project, terms, unique};
use crate::expr::{BinaryOp, ScalarExpr};
use crate::plan::{Aggregate, AggregateCall, AggregateFunction, Join, JoinKind, Node, Plan};

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &LogicalJoin) -> Result<Plan> {
        let left = self.plan(&join.left)?;
        let mut right = self.plan(&join.right)?;
        if is_scalar_subquery(join) {
            right = self.at_most_one(right);
        }
        let (on_left, on_right): (Vec<_>, Vec<_>) = join.on.iter().map(|(left, right)| (left, right)).unzip();
        let left_keys = self.expressions(on_left, join.left.schema())?;
        let right_keys = self.expressions(on_right, join.right.schema())?;
        let both = build_join_schema(join.left.schema(), join.right.schema(), &JoinType::Inner)?;
        let residual = join.filter.as_ref().map(|filter| self.expression(filter, &both)).transpose()?;
        let residual = residual.filter(|residual| *residual != ScalarExpr::boolean(true));
        let null_equal = join.null_equality == NullEquality::NullEqualsNull;
        let parts = Parts { left, right, left_keys, right_keys, residual, null_equal };
        let anti = if join.null_aware { JoinKind::NullAwareAnti } else { JoinKind::Anti };
        match join.join_type {
            JoinType::Inner => self.joined(parts, JoinKind::Inner),
            JoinType::Left => self.joined(parts, JoinKind::Left),
            JoinType::Full => self.joined(parts, JoinKind::Full),
            JoinType::Right => self.right_join(parts),
            JoinType::LeftSemi => self.joined(parts, JoinKind::Semi),
            JoinType::LeftAnti => self.joined(parts, anti),
            JoinType::RightSemi => self.joined(parts.swapped(), JoinKind::Semi),
            JoinType::RightAnti => self.joined(parts.swapped(), anti),
            JoinType::LeftMark => self.mark_join(parts),
            JoinType::RightMark => self.mark_join(parts.swapped()),
        }
    }

    /// A clock in the condition becomes a column of the left input.
    fn joined(&mut self, mut parts: Parts, kind: JoinKind) -> Result<Plan> {
        let width = parts.left.schema.len();
        let bound = self.bind(parts.left, &parts.residual);
        let added = bound.added();
        parts.residual = parts.residual.map(|residual| {
            let shifted = residual.map_columns(&|index| if index < width { index } else { index + added });
            bound.replace(&shifted)
        });
        parts.left = bound.plan;
        let plan = match lookup::of_join(&mut parts, kind, self.tables)? {
            Some(kind) => parts.plan(kind),
            None => parts.plan(kind),
        };
        if added == 0 {
            return Ok(plan);
        }
        let kept: Vec<usize> = (0..plan.schema.len()).filter(|i| *i < width || *i >= width + added).collect();
        Ok(pick(plan, &kept))
    }

    fn right_join(&mut self, parts: Parts) -> Result<Plan> {
        let (left, right) = (parts.left.schema.len(), parts.right.schema.len());
        let swapped = self.joined(parts.swapped(), JoinKind::Left)?;
        let order: Vec<usize> = (right..right + left).chain(0..right).collect();
        Ok(pick(swapped, &order))
    }

    /// The left rows with a truth value: whether they have a match.
    fn mark_join(&mut self, parts: Parts) -> Result<Plan> {
        let mut inputs = Vec::new();
        let mut schema = parts.left.schema.clone();
        schema.columns.push(Column { name: "mark".into(), data_type: DataType::Boolean, nullable: false });
        for (kind, mark) in [(JoinKind::Semi, true), (JoinKind::Anti, false)] {
            let rows = self.joined(parts.clone(), kind)?;
            let mut expressions = columns(&rows);
            expressions.push(ScalarExpr::boolean(mark));
            inputs.push(project(rows, expressions, schema.clone()));
        }
        Ok(Plan::new(Node::Union { inputs }, schema))
    }

    /// The rows of a scalar subquery, at most one. Of several rows none can be chosen: the value is NULL then, and counted as
    /// a failed expression whose text says so, until one row is left. The batch engine raises an error instead.
    fn at_most_one(&mut self, plan: Plan) -> Plan {
        if unique::is_single_row(&plan, self.tables) {
            return plan;
        }
        let call = |function, arguments: Vec<ScalarExpr>, data_type| AggregateCall {
            function,
            arguments,
            distinct: false,
            filter: None,
            order_by: Vec::new(),
            data_type,
            in_chunks: false,
        };
        let schema = plan.schema.clone();
        let least = |value: ScalarExpr| {
            let data_type = value.data_type();
            call(AggregateFunction::Min, vec![value], data_type)
        };
        let mut aggregates: Vec<AggregateCall> = columns(&plan).into_iter().map(least).collect();
        aggregates.push(call(AggregateFunction::Count, Vec::new(), DataType::BigInt));
        let mut counted = schema.clone();
        counted.columns.push(Column::new("rows", DataType::BigInt));
        let aggregate = Aggregate { input: plan, keys: Vec::new(), aggregates };
        let one = Plan::new(Node::Aggregate(Box::new(aggregate)), counted);
        let count = column(&one, schema.len());
        let expressions = (0..schema.len()).map(|index| unless_several(&count, column(&one, index))).collect();
        project(one, expressions, schema)
    }
}

/// `CASE WHEN count <= 1 THEN value WHEN (an expression that always fails) IS NULL THEN NULL END`.
fn unless_several(count: &ScalarExpr, value: ScalarExpr) -> ScalarExpr {
    let data_type = value.data_type();
    let one = ScalarExpr::literal(Datum::Int(1), DataType::BigInt);
    let single = ScalarExpr::predicate(BinaryOp::LtEq, count.clone(), one);
    let text = ScalarExpr::literal(Datum::str("a scalar subquery gave several rows"), DataType::String);
    let failing = terms::is_null(text.cast_to(&DataType::BigInt));
    let branches = vec![(single, value), (failing, terms::null(data_type.clone()))];
    ScalarExpr::Case { branches, otherwise: None, data_type }
}

/// DataFusion turns a scalar subquery without correlation into a left join without condition.
fn is_scalar_subquery(join: &LogicalJoin) -> bool {
    fn is_named(plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => alias.alias.table().starts_with("__scalar_sq"),
            LogicalPlan::Projection(projection) => is_named(&projection.input),
            _ => false,
        }
    }
    join.join_type == JoinType::Left && join.on.is_empty() && is_named(&join.right)
}

/// What a join joins, before it is one.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) left: Plan,
    pub(super) right: Plan,
    pub(super) left_keys: Vec<ScalarExpr>,
    pub(super) right_keys: Vec<ScalarExpr>,
    pub(super) residual: Option<ScalarExpr>,
    pub(super) null_equal: bool,
}

impl Parts {
    fn swapped(self) -> Parts {
        let (left, right) = (self.left.schema.len(), self.right.schema.len());
        let residual = self
            .residual
            .map(|residual| residual.map_columns(&|index| if index < left { index + right } else { index - left }));
        Parts {
            left: self.right,
            right: self.left,
            left_keys: self.right_keys,
            right_keys: self.left_keys,
            residual,
            null_equal: self.null_equal,
        }
    }

    pub(super) fn plan(self, kind: JoinKind) -> Plan {
        let schema = joined_schema(&self.left.schema, &self.right.schema, kind);
        let join = Join {
            left: self.left,
            right: self.right,
            kind,
            left_keys: self.left_keys,
            right_keys: self.right_keys,
            null_equal: self.null_equal,
            residual: self.residual,
            right_unique: false,
            left_unique: false,
            cross_limit: None,
            reason: String::new(),
        };
        Plan::new(Node::Join(Box::new(join)), schema)
    }
}

/// The columns of a join, nullable where a side may be missing.
pub(crate) fn joined_schema(left: &Schema, right: &Schema, kind: JoinKind) -> Schema {
    let nullable = |schema: &Schema, missing: bool| {
        let column = |column: &Column| Column { nullable: column.nullable || missing, ..column.clone() };
        schema.columns.iter().map(column).collect::<Vec<_>>()
    };
    match kind {
        JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => left.clone(),
        _ => {
            let mut columns = nullable(left, matches!(kind, JoinKind::Right | JoinKind::Full));
            columns.extend(nullable(right, matches!(kind, JoinKind::Left | JoinKind::Full | JoinKind::LookupLeft)));
            Schema::new(columns)
        }
    }
}

/// The same join with its inputs swapped, under a projection that restores the columns. Inner joins only.
pub(super) fn swapped(join: Join) -> Plan {
    let (left, right) = (join.left.schema.len(), join.right.schema.len());
    let (null_equal, kind) = (join.null_equal, join.kind);
    let Join { left: l, right: r, left_keys, right_keys, residual, .. } = join;
    let parts = Parts { left: l, right: r, left_keys, right_keys, residual, null_equal };
    let order: Vec<usize> = (right..right + left).chain(0..right).collect();
    pick(parts.swapped().plan(kind), &order)
}
