//! Lowering of projections and filters, and what becomes of the clock in them.
//!
//! `NOW()` and `CURRENT_DATE` are columns of a one-row collection. An expression that uses them is computed over its input
//! crossed with that collection, as high in the plan as it stands: `DATEDIFF(CURRENT_DATE(), MAX(d))` meets the clock behind
//! the aggregate, so that a tick touches one row per group. A comparison `column op NOW() ± constant` in a filter needs no
//! cross: it says from when to when the row is present, see [`terms::presence`].

use std::collections::BTreeSet;

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::logical_plan::{Filter, Projection};
use deltaworks_dataflow::{Column, DataType, Schema};

use super::{Lowering, Result, filter, pick, project, schema_of, terms};
use crate::expr::ScalarExpr;
use crate::plan::{ClockVariable, Join, JoinKind, Node, Plan};

impl Lowering<'_> {
    pub(super) fn projection(&mut self, projection: &Projection) -> Result<Plan> {
        let input = self.plan(&projection.input)?;
        self.projection_over(input, projection)
    }

    pub(super) fn projection_over(&mut self, input: Plan, projection: &Projection) -> Result<Plan> {
        let expressions = self.expressions(&projection.expr, projection.input.schema())?;
        self.project_over(input, expressions, &schema_of(&projection.schema)?)
    }

    /// A projection named by `names`, over the clock where an expression uses it.
    pub(super) fn project_over(&mut self, input: Plan, expressions: Vec<ScalarExpr>, names: &Schema) -> Result<Plan> {
        let bound = self.bind(input, &expressions);
        let expressions: Vec<ScalarExpr> = expressions.iter().map(|e| bound.replace(e)).collect();
        let below = |index: usize| bound.plan.schema.columns[index].name.clone();
        let column = |(named, expression): (&Column, &ScalarExpr)| Column {
            // What the planner computes once for several readers is known to people by what it is.
            name: match named.name.starts_with("__common_expr_") {
                true => expression.to_text(&below),
                false => named.name.clone(),
            },
            data_type: expression.data_type(),
            nullable: named.nullable,
        };
        let schema = Schema::new(names.columns.iter().zip(&expressions).map(column).collect());
        Ok(project(bound.plan, expressions, schema))
    }

    pub(super) fn filter(&mut self, filter: &Filter) -> Result<Plan> {
        let input = self.plan(&filter.input)?;
        self.filtered(input, &filter.predicate, filter.input.schema())
    }

    pub(super) fn filtered(&mut self, input: Plan, predicate: &Expr, schema: &DFSchema) -> Result<Plan> {
        let predicate = self.expression(predicate, schema)?;
        let (timed, plain): (Vec<_>, Vec<_>) = predicate.into_conjuncts().into_iter().partition(uses_clock);
        let mut plan = match ScalarExpr::conjunction(plain) {
            Some(predicate) => filter(input, predicate),
            None => input,
        };
        let mut others = Vec::new();
        let mut presences = Vec::new();
        for conjunct in timed {
            match terms::presence(&conjunct) {
                Some(presence) => presences.push(presence),
                None => others.push(conjunct),
            }
        }
        for (variable, presence) in merged(presences) {
            let schema = plan.schema.clone();
            let (lower, upper) = (presence.lower, presence.upper);
            plan = Plan::new(Node::TemporalFilter { input: Box::new(plan), lower, upper, variable }, schema);
        }
        Ok(self.clock_filter(plan, others))
    }

    /// Filters that no presence expresses: over the clock, whose columns then go.
    fn clock_filter(&mut self, plan: Plan, conjuncts: Vec<ScalarExpr>) -> Plan {
        let width = plan.schema.len();
        let bound = self.bind(plan, &conjuncts);
        match ScalarExpr::conjunction(conjuncts.iter().map(|e| bound.replace(e))) {
            Some(predicate) => pick(filter(bound.plan, predicate), &(0..width).collect::<Vec<_>>()),
            None => bound.plan,
        }
    }

    /// Appends a column for each clock variable that the expressions use.
    pub(super) fn bind<'e>(&mut self, input: Plan, expressions: impl IntoIterator<Item = &'e ScalarExpr>) -> Bound {
        let mut variables = BTreeSet::new();
        expressions.into_iter().for_each(|expression| expression.clocks(&mut variables));
        let variables: Vec<ClockVariable> = variables.into_iter().collect();
        let first = input.schema.len();
        if variables.is_empty() {
            return Bound { plan: input, first, variables };
        }
        if variables.contains(&ClockVariable::Now)
            && let Some(tables) = unfolded_tables(&input)
        {
            self.warnings.push(format!(
                "NOW() reaches every row of {tables}: each tick of the clock changes all of them; \
                 compare a column with NOW() in WHERE, or aggregate first"
            ));
        }
        Bound { plan: cross_clock(input, &variables), first, variables }
    }
}

/// An input with the clock's columns behind its own.
pub(super) struct Bound {
    pub(super) plan: Plan,
    first: usize,
    variables: Vec<ClockVariable>,
}

impl Bound {
    /// How many columns the clock added.
    pub(super) fn added(&self) -> usize {
        self.variables.len()
    }
    /// The expression with the clock's columns for its variables.
    pub(super) fn replace(&self, expression: &ScalarExpr) -> ScalarExpr {
        expression.transform(&|part| match part {
            ScalarExpr::Clock(variable) => match self.variables.iter().position(|v| *v == variable) {
                Some(at) => ScalarExpr::column(self.first + at, ScalarExpr::Clock(variable).data_type()),
                None => ScalarExpr::Clock(variable),
            },
            other => other,
        })
    }
}

pub(super) fn uses_clock(expression: &ScalarExpr) -> bool {
    expression.any(&|part| matches!(part, ScalarExpr::Clock(_)))
}

fn cross_clock(input: Plan, variables: &[ClockVariable]) -> Plan {
    let column = |variable: &ClockVariable| match variable {
        ClockVariable::Now => Column { name: "now".into(), data_type: DataType::Timestamp, nullable: false },
        ClockVariable::CurrentDate => Column { name: "current_date".into(), data_type: DataType::Date, nullable: false },
    };
    let clock = Schema::new(variables.iter().map(column).collect());
    let schema = Schema::new(input.schema.columns.iter().chain(&clock.columns).cloned().collect());
    let join = Join {
        left: input,
        right: Plan::new(Node::Clock { variables: variables.to_vec() }, clock),
        kind: JoinKind::Inner,
        left_keys: Vec::new(),
        right_keys: Vec::new(),
        null_equal: false,
        residual: None,
        right_unique: true,
        left_unique: false,
        cross_limit: None,
        reason: "every row meets the clock".into(),
    };
    Plan::new(Node::Join(Box::new(join)), schema)
}

/// One node holds one lower and one upper bound: the first of each, the second of each, ..
fn merged(presences: Vec<(ClockVariable, terms::Presence)>) -> Vec<(ClockVariable, terms::Presence)> {
    let mut merged: Vec<(ClockVariable, terms::Presence)> = Vec::new();
    for (variable, presence) in presences {
        let free = |have: &terms::Presence| {
            !(have.lower.is_some() && presence.lower.is_some() || have.upper.is_some() && presence.upper.is_some())
        };
        match merged.iter_mut().find(|(have, bounds)| *have == variable && free(bounds)) {
            Some((_, bounds)) => {
                bounds.lower = bounds.lower.take().or(presence.lower);
                bounds.upper = bounds.upper.take().or(presence.upper);
            }
            None => merged.push((variable, presence)),
        }
    }
    merged
}

/// The tables whose rows reach this plan without having been folded into groups; None where there are none.
fn unfolded_tables(plan: &Plan) -> Option<String> {
    fn collect(plan: &Plan, names: &mut BTreeSet<String>) {
        match &plan.node {
            Node::Get { table, .. } => {
                names.insert(format!("\"{table}\""));
            }
            Node::Aggregate(_) | Node::TopK(_) | Node::Distinct { .. } => {}
            _ => plan.inputs().into_iter().for_each(|input| collect(input, names)),
        }
    }
    let mut names = BTreeSet::new();
    collect(plan, &mut names);
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join(", "))
}
