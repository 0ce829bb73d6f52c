//! The session: DataFusion set up for our dialect, to plan every query and to answer those that are not continuous.
//!
//! | step | file |
//! |---|---|
//! | the types that declarations and casts name | `session/types.rs` |
//! | numbers with an exponent are DOUBLE | `session/literals.rs` |
//! | before types are resolved: clock, IF, inlined functions; text is not compared with numbers | `session/dialect.rs` |
//! | after: arithmetic, casts and functions that give NULL instead of failing | `session/checked.rs` |
//! | before execution: how often they did | `session/counted.rs` |
//!
//! Planning recurses deeply, and the frames of an unoptimised build are large: every step runs on a thread of its own with
//! [`STACK`] bytes, so that callers need not care.

mod checked;
mod counted;
mod dialect;
mod literals;
mod not_in;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use types::unknown as unknown_type;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::{CatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::context::SessionState;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::var_provider::VarType;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF};
use datafusion::optimizer::analyzer::Analyzer;
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::sqlparser::ast::ExprWithAlias;
use deltaworks_dataflow::{DataType, Schema};
use sqlparser::ast;

use crate::error::SqlError;
use crate::expr::{ExpressionErrors, ScalarExpr, lower_expr};
use crate::functions::clock::Reading;
use crate::functions::macros::Macro;
use crate::functions::{aggregate, datetime, external, scalar_functions};
use crate::parser::{CreateExternalFunction, CreateFunction, Name};

/// The stack of the thread that plans and executes.
pub const STACK: usize = 64 << 20;

/// The schema of names without one, at first.
pub const DEFAULT_SCHEMA: &str = "public";

/// What the row of a single expression is called.
const ROW: &str = "row";

/// Rules of the optimizer that serve batch execution only and would hide the shapes that are lowered.
const BATCH_RULES: [&str; 6] = [
    "single_distinct_aggregation_to_group_by",
    "push_down_leaf_projections",
    "extract_leaf_expressions",
    "push_down_limit",
    "filter_null_join_keys",
    // Wants a function registry that the streaming context does not have; lowering takes DISTINCT ON as it is.
    "replace_distinct_aggregate",
];

/// What the clock functions return in a query that is not continuous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ClockReading {
    /// Microseconds since 1970-01-01 00:00:00 UTC.
    pub now: i64,
}

/// What a query that is not continuous gives.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// What could not be computed and is NULL, by expression.
    pub failures: Vec<ExpressionErrors>,
}

/// DataFusion set up for our dialect.
pub struct Session {
    context: SessionContext,
    timezone: chrono_tz::Tz,
}

impl Session {
    /// A session in a time zone.
    ///
    /// # Errors
    /// None that is known.
    pub fn new(timezone: chrono_tz::Tz) -> Result<Session, SqlError> {
        let substring = scalar_functions().into_iter().find(|function| function.name() == "substr").map(Arc::new);
        let state = SessionStateBuilder::new()
            .with_config(config())
            // Before the defaults: the first planner that takes an expression wins.
            .with_expr_planners(substring.map(|function| Arc::new(Substring(function)) as _).into_iter().collect())
            .with_default_features()
            .with_type_planner(Arc::new(types::Types))
            .with_analyzer_rules(analyzer_rules(timezone))
            .with_optimizer_rules(not_in::optimizer_rules())
            .build();
        let context = SessionContext::new_with_state(state);
        scalar_functions().into_iter().for_each(|function| context.register_udf(function));
        aggregate::aggregate_functions().into_iter().for_each(|function| context.register_udaf(function));
        Ok(Session { context, timezone })
    }
    /// The session's time zone.
    pub fn timezone(&self) -> chrono_tz::Tz {
        self.timezone
    }
    /// The type that a column declaration names.
    ///
    /// # Errors
    /// Names a type that we do not have.
    pub fn sql_type(&self, data_type: &ast::DataType) -> Result<DataType, SqlError> {
        types::sql_type(data_type)
    }

    /// Makes a schema, where it is not there yet.
    ///
    /// # Errors
    /// None that is known.
    pub fn create_schema(&self, name: &str) -> Result<(), SqlError> {
        let catalog = self.catalog()?;
        if catalog.schema(name).is_none() {
            catalog.register_schema(name, Arc::new(MemorySchemaProvider::new()))?;
        }
        Ok(())
    }
    /// Removes a schema and what is in it.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn drop_schema(&self, name: &str) -> Result<(), SqlError> {
        self.catalog()?.deregister_schema(name, true)?;
        Ok(())
    }
    /// Names without a schema mean this one from now on.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn use_schema(&self, name: &str) -> Result<(), SqlError> {
        if self.catalog()?.schema(name).is_none() {
            return Err(SqlError::new(format!("there is no schema \"{name}\""), "create it with CREATE SCHEMA"));
        }
        self.context.state_ref().write().config_mut().options_mut().catalog.default_schema = name.to_string();
        Ok(())
    }
    /// The schema of names without one.
    pub fn current_schema(&self) -> String {
        self.context.state_ref().read().config().options().catalog.default_schema.clone()
    }
    fn catalog(&self) -> Result<Arc<dyn CatalogProvider>, SqlError> {
        let name = self.context.state_ref().read().config().options().catalog.default_catalog.clone();
        self.context.catalog(&name).ok_or_else(|| SqlError::new(format!("there is no catalog \"{name}\""), ""))
    }
    /// Registers a table, replacing one of the same name; makes its schema where it is not there yet.
    ///
    /// # Errors
    /// None that is known.
    pub fn register_table(&self, name: &Name, table: Arc<dyn TableProvider>) -> Result<(), SqlError> {
        if let Some(schema) = name.schema() {
            self.create_schema(schema)?;
        }
        self.context.deregister_table(reference(name))?;
        self.context.register_table(reference(name), table)?;
        Ok(())
    }
    /// Removes a table.
    ///
    /// # Errors
    /// Where its schema is not there.
    pub fn deregister_table(&self, name: &Name) -> Result<(), SqlError> {
        self.context.deregister_table(reference(name))?;
        Ok(())
    }

    /// Registers a function whose calls are replaced by its body, replacing one of the same name.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub fn create_function(&self, function: &CreateFunction) -> Result<(), SqlError> {
        let parameters = self.parameters(&function.parameters)?;
        let returns = self.sql_type(&function.returns)?.to_arrow();
        let fields: Vec<_> = parameters
            .iter()
            .map(|(name, data_type)| datafusion::arrow::datatypes::Field::new(name, data_type.clone(), true))
            .collect();
        let schema = DFSchema::try_from(datafusion::arrow::datatypes::Schema::new(fields))?;
        let body = self.planned_expression(&function.body, &schema)?;
        self.register_function(&function.name, |name| Macro::udf(name, parameters.clone(), returns.clone(), body.clone()));
        Ok(())
    }
    /// Registers a function that is answered by an API connection, so that its calls can be planned.
    ///
    /// # Errors
    /// Types that we do not have.
    pub fn create_external_function(
        &self,
        function: &CreateExternalFunction,
        caller: Option<Arc<dyn external::Caller>>,
    ) -> Result<(), SqlError> {
        let parameters = self.parameters(&function.parameters)?;
        let returns = self.sql_type(&function.returns)?.to_arrow();
        let types: Vec<_> = parameters.into_iter().map(|(_, data_type)| data_type).collect();
        self.register_function(&function.name, |name| {
            external::External::udf(name, types.clone(), returns.clone(), caller.clone())
        });
        Ok(())
    }
    /// Removes a function made by CREATE FUNCTION.
    pub fn drop_function(&self, name: &Name) {
        self.context.deregister_udf(&name.parts().join("."));
        self.context.deregister_udf(name.object());
    }
    /// A compound function name is looked up as one string; a name in the current schema also goes without it.
    fn register_function(&self, name: &Name, make: impl Fn(String) -> ScalarUDF) {
        self.context.register_udf(make(name.parts().join(".")));
        let current = self.current_schema();
        match name.schema() {
            Some(schema) if schema == current => self.context.register_udf(make(name.object().to_string())),
            Some(_) => {}
            None => self.context.register_udf(make(format!("{current}.{}", name.object()))),
        }
    }
    fn parameters(
        &self,
        parameters: &[crate::parser::Parameter],
    ) -> Result<Vec<(String, datafusion::arrow::datatypes::DataType)>, SqlError> {
        parameters.iter().map(|p| Ok((p.name.clone(), self.sql_type(&p.data_type)?.to_arrow()))).collect()
    }
    /// The aggregate of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn aggregate_function(&self, name: &str) -> Result<Arc<AggregateUDF>, SqlError> {
        Ok(self.context.state_ref().read().udaf(name)?)
    }

    /// The analysed plan of a query on which `parser::rewrite` was run.
    ///
    /// # Errors
    /// What is wrong with the query, with its place where DataFusion knows it.
    pub fn logical_plan(&self, query: &ast::Query) -> Result<LogicalPlan, SqlError> {
        self.statement_plan(ast::Statement::Query(Box::new(query.clone())))
    }
    /// The analysed plan of a query, UPDATE, DELETE or MERGE.
    ///
    /// # Errors
    /// As [`logical_plan`](Self::logical_plan).
    pub fn statement_plan(&self, mut statement: ast::Statement) -> Result<LogicalPlan, SqlError> {
        literals::approximate_numbers(&mut statement);
        let state = self.context.state();
        let written = statement.clone();
        let plan = on_large_stack(move || {
            let statement = PlannedStatement::Statement(Box::new(statement));
            let plan = block_on(state.statement_to_plan(statement))??;
            analyse(&state, plan)
        });
        plan.map_err(|error| error.located(&written))
    }
    /// Analyses a plan that was put together by hand.
    ///
    /// # Errors
    /// What is wrong with its types.
    pub fn analyse(&self, plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        let state = self.context.state();
        on_large_stack(move || analyse(&state, plan))
    }
    /// The plan as `lower` wants it: columns pruned, filters pushed down, subqueries turned into joins.
    ///
    /// # Errors
    /// Subqueries that cannot be turned into joins.
    pub fn optimize_for_stream(&self, plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        let mut options = ConfigOptions::clone(self.context.state_ref().read().config().options());
        // Scalar subqueries become joins too; the batch engine would leave them inside expressions.
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        on_large_stack(move || {
            let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> =
                not_in::optimizer_rules().into_iter().filter(|rule| !BATCH_RULES.contains(&rule.name())).collect();
            let context = OptimizerContext::new_with_config_options(Arc::new(options)).without_query_execution_start_time();
            Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {})
        })
    }
    /// Lowers an expression over the columns of a table: computed columns, defaults, watermarks.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn expression(&self, expression: &ast::Expr, schema: &Schema) -> Result<ScalarExpr, SqlError> {
        let arrow = Arc::new(schema.to_arrow());
        let df_schema = DFSchema::try_from(Arc::clone(&arrow))?;
        let expr = self.planned_expression(expression, &df_schema)?;
        let state = self.context.state();
        let plan = on_large_stack(move || {
            // The expression as the only column over a table of that schema: analysis wants a plan.
            let source = provider_as_source(Arc::new(EmptyTable::new(arrow)));
            let plan = LogicalPlanBuilder::scan(ROW, source, None)?.project([unqualified(expr)?.alias("value")])?.build()?;
            analyse(&state, plan)
        });
        let plan = plan.map_err(|error| error.located(expression))?;
        match &plan {
            LogicalPlan::Projection(projection) => lower_expr(&projection.expr[0], projection.input.schema()),
            _ => Err(SqlError::new(format!("\"{expression}\" is no expression over one row"), "")),
        }
    }
    fn planned_expression(&self, expression: &ast::Expr, schema: &DFSchema) -> Result<Expr, SqlError> {
        let state = self.context.state();
        let mut expression = ExprWithAlias { expr: expression.clone(), alias: None };
        literals::approximate_numbers(&mut expression.expr);
        let written = expression.expr.clone();
        let planned = on_large_stack(move || state.create_logical_expr_from_sql_expr(expression, schema));
        planned.map_err(|error| error.located(&written))
    }
    /// The rows that an analysed plan gives now, and what could not be computed in them.
    ///
    /// # Errors
    /// What keeps the plan from being executed; rows never do.
    pub fn execute(&self, plan: LogicalPlan, clock: ClockReading) -> Result<Answer, SqlError> {
        let mut state = self.context.state();
        let today = self.today(clock).ok_or_else(|| SqlError::new("the clock is out of range", ""))?;
        let reading = Reading { now: clock.now, today };
        state.execution_props_mut().add_var_provider(VarType::System, Arc::new(reading));
        let tally = Arc::new(counted::Tally::default());
        let counting = Arc::clone(&tally);
        let batches = on_large_stack(move || {
            let plan = state.optimize(&counted::constants_counted(plan, &counting)?)?;
            let plan = counted::counted(plan, &counting)?;
            block_on(async {
                let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
                datafusion::physical_plan::collect(physical, state.task_ctx()).await
            })?
        })?;
        Ok(Answer { batches, failures: tally.report() })
    }
    /// The date of an instant in the session zone, in days since 1970-01-01.
    pub fn today(&self, clock: ClockReading) -> Option<i32> {
        datetime::local_day(clock.now, self.timezone)
    }
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    options.catalog.default_schema = DEFAULT_SCHEMA.to_string();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    config
}
/// Our rules around those of the batch engine.
fn analyzer_rules(timezone: chrono_tz::Tz) -> Vec<Arc<dyn datafusion::optimizer::AnalyzerRule + Send + Sync>> {
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(dialect::DialectRule { timezone }));
    rules.push(Arc::new(checked::CheckedRule { timezone }));
    rules
}
fn analyse(state: &SessionState, plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
}
/// A name as the batch engine refers to it.
fn reference(name: &Name) -> TableReference {
    match name.schema() {
        Some(schema) => TableReference::partial(schema, name.object()),
        None => TableReference::bare(name.object()),
    }
}
/// The expression with columns that name no table.
fn unqualified(expr: Expr) -> PlanResult<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let plain = expr.transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_none() => {
                let relation = Some(TableReference::bare(ROW));
                Transformed::yes(Expr::Column(datafusion::common::Column { relation, ..column }))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(plain.data)
}
fn block_on<F: Future>(future: F) -> PlanResult<F::Output> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|error| DataFusionError::External(Box::new(error)))?;
    Ok(runtime.block_on(future))
}
/// Runs a step on a thread with a stack of [`STACK`] bytes.
fn on_large_stack<T: Send>(step: impl FnOnce() -> PlanResult<T> + Send) -> Result<T, SqlError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("planner".into())
            .stack_size(STACK)
            .spawn_scoped(scope, step)
            .map_err(|error| SqlError::new(format!("a thread could not be started: {error}"), ""))?;
        match thread.join() {
            Ok(result) => result.map_err(SqlError::from),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// SUBSTR and SUBSTRING are syntax, which never looks into the registry of functions.
#[derive(Debug)]
struct Substring(Arc<ScalarUDF>);

impl ExprPlanner for Substring {
    fn plan_substring(&self, args: Vec<Expr>) -> PlanResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&self.0), args))))
    }
}
