//! Lowering of tables, constants, unions, DISTINCT, ORDER BY and unnesting.

use datafusion::common::DFSchema;
use datafusion::common::NullHandling;
use datafusion::logical_expr::logical_plan::{
    Distinct, DistinctOn, EmptyRelation, FetchType, Limit, SkipType, Sort, TableScan, Union, Unnest, Values,
};
use datafusion::logical_expr::{LogicalPlan, SortExpr};
use deltaworks_dataflow::{Column, DataType, Row, Schema};

use super::{Lowering, Result, column, columns, filter, pick, project, schema_of, terms};
use crate::error::SqlError;
use crate::expr::ScalarExpr;
use crate::parser::LOOKUP_SUFFIX;
use crate::plan::{Node, Plan, Ranking, SortKey, TopK};

impl Lowering<'_> {
    /// A looked-up table keeps its suffix until its join is lowered: see `lookup.rs`.
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<Plan> {
        let written = scan.table_name.to_string();
        let lookup = written.ends_with(LOOKUP_SUFFIX);
        let facts = self.tables.table(written.strip_suffix(LOOKUP_SUFFIX).unwrap_or(&written)).ok_or_else(|| {
            SqlError::new(format!("table \"{written}\" does not exist"), "create it first; SHOW TABLES lists what there is")
        })?;
        let columns = scan.projection.clone().unwrap_or_else(|| (0..facts.schema.len()).collect());
        let schema = Schema::new(columns.iter().map(|index| facts.schema.columns[*index].clone()).collect());
        let table = if lookup { format!("{}{LOOKUP_SUFFIX}", facts.name) } else { facts.name };
        let mut plan = Plan::new(Node::Get { table, columns, in_chunks: false }, schema);
        for predicate in &scan.filters {
            plan = self.filtered(plan, predicate, &scan.projected_schema)?;
        }
        Ok(plan)
    }

    pub(super) fn empty(&mut self, empty: &EmptyRelation) -> Result<Plan> {
        let rows = if empty.produce_one_row { vec![Row::default()] } else { Vec::new() };
        Ok(Plan::new(Node::Constant { rows }, schema_of(&empty.schema)?))
    }

    pub(super) fn values(&mut self, values: &Values) -> Result<Plan> {
        let schema = schema_of(&values.schema)?;
        let mut rows = Vec::new();
        let mut computed = Vec::new();
        for row in &values.values {
            let expressions = self.expressions(row, &DFSchema::empty())?;
            match terms::constant_row(&expressions) {
                Some(row) => rows.push(row),
                None => {
                    let one = Plan::new(Node::Constant { rows: vec![Row::default()] }, Schema::default());
                    computed.push(self.project_over(one, expressions, &schema)?);
                }
            }
        }
        let constant = Plan::new(Node::Constant { rows }, schema.clone());
        if computed.is_empty() {
            return Ok(constant);
        }
        computed.insert(0, constant);
        Ok(Plan::new(Node::Union { inputs: computed }, schema))
    }

    pub(super) fn union(&mut self, union: &Union) -> Result<Plan> {
        let schema = schema_of(&union.schema)?;
        let mut inputs = Vec::new();
        for input in &union.inputs {
            let input = self.plan(input)?;
            inputs.push(cast_to(input, &schema));
        }
        Ok(Plan::new(Node::Union { inputs }, schema))
    }

    pub(super) fn distinct(&mut self, distinct: &Distinct) -> Result<Plan> {
        match distinct {
            Distinct::All(input) => {
                let input = self.plan(input)?;
                let schema = input.schema.clone();
                Ok(Plan::new(Node::Distinct { input: Box::new(input) }, schema))
            }
            Distinct::On(on) => self.distinct_on(on),
        }
    }

    /// The first row of each partition, then the selected columns.
    fn distinct_on(&mut self, on: &DistinctOn) -> Result<Plan> {
        let input = self.plan(&on.input)?;
        let partition = self.expressions(&on.on_expr, on.input.schema())?;
        let order = self.sort_keys(on.sort_expr.iter().flatten(), on.input.schema())?;
        let first = top_k(input, partition, order, 0, Some(1));
        let selected = self.expressions(&on.select_expr, on.input.schema())?;
        self.project_over(first, selected, &schema_of(&on.schema)?)
    }

    pub(super) fn sort_keys<'e>(
        &self,
        order: impl IntoIterator<Item = &'e SortExpr>,
        schema: &DFSchema,
    ) -> Result<Vec<SortKey>> {
        let key = |sort: &SortExpr| {
            let expression = self.expression(&sort.expr, schema)?;
            Ok(SortKey { expression, descending: !sort.asc, nulls_first: sort.nulls_first })
        };
        order.into_iter().map(key).collect()
    }

    pub(super) fn sort(&mut self, sort: &Sort) -> Result<Plan> {
        let input = self.plan(&sort.input)?;
        let Some(limit) = sort.fetch else {
            self.warnings.push("ORDER BY without LIMIT has no meaning in a continuous query and is left out".into());
            return Ok(input);
        };
        let order = self.sort_keys(&sort.expr, sort.input.schema())?;
        Ok(top_k(input, Vec::new(), order, 0, Some(limit as u64)))
    }

    /// LIMIT takes its order from the ORDER BY below it, which a projection may separate from it.
    pub(super) fn limit(&mut self, limit: &Limit) -> Result<Plan> {
        let (SkipType::Literal(offset), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(SqlError::new("LIMIT and OFFSET must be numbers", "write them as literals"));
        };
        let (offset, fetch) = (offset as u64, fetch.map(|fetch| fetch as u64));
        self.limited(&limit.input, offset, fetch)
    }

    fn limited(&mut self, input: &LogicalPlan, offset: u64, limit: Option<u64>) -> Result<Plan> {
        match input {
            LogicalPlan::SubqueryAlias(alias) => self.limited(&alias.input, offset, limit),
            LogicalPlan::Projection(projection) if below_projections(&projection.input) => {
                let input = self.limited(&projection.input, offset, limit)?;
                self.projection_over(input, projection)
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                let input = self.plan(&sort.input)?;
                let order = self.sort_keys(&sort.expr, sort.input.schema())?;
                Ok(top_k(input, Vec::new(), order, offset, limit))
            }
            other => {
                self.warnings.push("LIMIT without ORDER BY takes the first rows in the order of their encoding".into());
                let input = self.plan(other)?;
                Ok(top_k(input, Vec::new(), Vec::new(), offset, limit))
            }
        }
    }

    /// The logical node unnests some of its input's columns in place; ours appends the element. So the elements are
    /// appended one after the other, then the columns are put in order.
    pub(super) fn unnest(&mut self, unnest: &Unnest) -> Result<Plan> {
        if !unnest.struct_type_columns.is_empty() {
            return Err(SqlError::new("a struct cannot be unnested", "name its fields: s.a, s.b"));
        }
        let input = self.plan(&unnest.input)?;
        let width = input.schema.len();
        let [(array, list)] = &unnest.list_type_columns[..] else {
            return Err(SqlError::new(
                "several arrays unnested in one SELECT",
                "unnest the second one in an outer query: every element of the first then meets every one of the second",
            ));
        };
        let mut plan = input;
        let mut source = *array;
        for _ in 0..list.depth {
            plan = append_elements(plan, source, unnest.options.null_handling)?;
            source = plan.schema.len() - 1;
        }
        debug_assert!(source >= width);
        let place = |index: &usize| if index == array { source } else { *index };
        let mut plan = pick(plan, &unnest.dependency_indices.iter().map(place).collect::<Vec<_>>());
        rename(&mut plan, &schema_of(&unnest.schema)?);
        Ok(plan)
    }
}

/// Whether an ORDER BY follows below projections and aliases.
fn below_projections(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => below_projections(&alias.input),
        LogicalPlan::Projection(projection) => below_projections(&projection.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        _ => false,
    }
}

/// The first rows of each partition, without their rank.
pub(super) fn top_k(input: Plan, partition: Vec<ScalarExpr>, order: Vec<SortKey>, offset: u64, limit: Option<u64>) -> Plan {
    let schema = input.schema.clone();
    let ranking = Ranking::RowNumber;
    let top_k = TopK { input, partition, order, offset, limit, ranking, emit_rank: false, before_sink: false };
    Plan::new(Node::TopK(Box::new(top_k)), schema)
}

/// Appends the elements of an array column as a column of their own.
fn append_elements(input: Plan, array: usize, nulls: NullHandling) -> Result<Plan> {
    let DataType::Array(item) = &input.schema.columns[array].data_type else {
        return Err(SqlError::new(
            format!("column \"{}\" is no array", input.schema.columns[array].name),
            "only arrays can be unnested",
        ));
    };
    let mut schema = input.schema.clone();
    schema.columns.push(Column::new("element", (**item).clone()));
    let expression = column(&input, array);
    let unnested = |input: Plan, outer: bool| {
        let node = Node::Unnest { input: Box::new(input), array: expression.clone(), outer };
        Plan::new(node, schema.clone())
    };
    Ok(match nulls {
        NullHandling::Drop => unnested(input, false),
        NullHandling::PreserveAndExpandEmpty => unnested(input, true),
        // A NULL array keeps its row, an empty one does not.
        NullHandling::Preserve => {
            let is_null = filter(input.clone(), terms::is_null(expression.clone()));
            let mut kept = columns(&is_null);
            kept.push(terms::null((**item).clone()));
            let inputs = vec![unnested(input, false), project(is_null, kept, schema.clone())];
            Plan::new(Node::Union { inputs }, schema.clone())
        }
    })
}

/// Gives the columns the names of `schema`.
pub(super) fn rename(plan: &mut Plan, schema: &Schema) {
    for (column, named) in plan.schema.columns.iter_mut().zip(&schema.columns) {
        column.name.clone_from(&named.name);
    }
}

/// Casts the columns whose type is not that of `schema`, and names them all.
fn cast_to(mut input: Plan, schema: &Schema) -> Plan {
    rename(&mut input, schema);
    if input.schema.types() == schema.types() {
        return input;
    }
    let cast = |(expression, column): (ScalarExpr, &Column)| expression.cast_to(&column.data_type);
    let expressions = columns(&input).into_iter().zip(&schema.columns).map(cast).collect();
    project(input, expressions, schema.clone())
}
