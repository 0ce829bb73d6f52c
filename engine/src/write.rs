//! One-shot writes: INSERT, UPDATE, DELETE, TRUNCATE. They read at the newest complete tick and write as one tick.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, try_cast};
use datafusion::prelude::lit;
use datafusion::scalar::ScalarValue;
use deltaworks_connectors::format::text::ResultSet;
use deltaworks_dataflow::batch::to_array;
use deltaworks_dataflow::host::InputBatch;
use deltaworks_dataflow::row::{is_null_field, project, split_field};
use deltaworks_dataflow::{Command, CommandKind, DataType, Datum, Diff, Position, Row, Schema};
use deltaworks_operators::merge::{DeleteBehavior, Engine as MergeEngine};
use deltaworks_sql::expr::{EvalErrors, Evaluator, ExpressionErrors, ScalarExpr};
use deltaworks_sql::parser::{Body, ColumnName, Insert, Name, Statement, marked_name, parse_script, rewrite};
use sqlparser::ast;

use crate::catalog::Table;
use crate::continuous::check_no_metadata;
use crate::copy::at_instant;
use crate::create::columns_help;
use crate::error::EngineError;
use crate::merge::{check_updatable, described};
use crate::options::Evaluation;
use crate::query::{Answered, short};
use crate::script::Engine;
use crate::sinks::{Gathered, OpenSink};

type Result<T> = std::result::Result<T, EngineError>;

/// How many inputs are kept of an expression that failed in statements.
const SAMPLES: usize = 5;

impl Engine {
    /// The table that a one-shot write may write.
    pub(crate) fn writable(&self, name: &Name) -> Result<(String, Table)> {
        self.check_names(std::slice::from_ref(name))?;
        let qualified = self.catalog.qualify(name);
        let entry = self.catalog.get(&qualified);
        let Some(table) = entry.and_then(|entry| entry.table()) else {
            let reads: Vec<String> = self.catalog.upstream(&qualified).iter().map(|n| short(n).to_string()).collect();
            let noun = entry.map_or("table", |entry| entry.noun());
            return Err(EngineError::new(
                format!("\"{}\" is a {noun} and cannot be written", name.object()),
                format!("write the table that feeds it: {}", reads.join(", ")),
            ));
        };
        if table.connector.is_some() {
            return Err(EngineError::new(
                format!("table \"{}\" is fed by its connector and cannot be written by a statement", name.object()),
                "write to the topic or file behind it, or use a table without a connector",
            ));
        }
        Ok((qualified, table.clone()))
    }
    /// INSERT, one-shot. Returns the number of rows.
    pub(crate) fn insert_once(&mut self, insert: &Insert) -> Result<usize> {
        let (qualified, table) = match self.outlet(&insert.table)? {
            Some(outlet) => outlet,
            None => self.writable(&insert.table)?,
        };
        if insert.overwrite {
            return Err(EngineError::new("INSERT OVERWRITE is not supported yet", "use TRUNCATE TABLE, then INSERT INTO"));
        }
        let mut query = insert.body.query.clone();
        rewrite(&mut *query)?;
        let names = self.check_reads(&insert.body)?;
        if let ast::SetExpr::Values(values) = &mut *query.body {
            cast_values(values, &table, &insert.columns)?;
        }
        let plan = self.session.logical_plan(&query)?;
        let plan = self.insert_plan(&table, &insert.columns, plan)?;
        let Answered { result: ResultSet { rows, .. }, failures } = self.run(plan, &names)?;
        let schema = table.delivered_schema();
        let upserts: Vec<(CommandKind, Row)> = rows.into_iter().map(|row| (CommandKind::Upsert, row)).collect();
        for (_, row) in &upserts {
            check_not_null(&schema, row)?;
        }
        let count = upserts.len();
        match table.connector.is_some() {
            true => self.write_out(&qualified, upserts)?,
            false => self.write(&qualified, &table, upserts)?,
        }
        self.count_failures(&qualified, failures);
        Ok(count)
    }
    /// The table, if what is inserted into it goes out by its connector: nothing may read it in this run.
    fn outlet(&self, name: &Name) -> Result<Option<(String, Table)>> {
        self.check_names(std::slice::from_ref(name))?;
        let qualified = self.catalog.qualify(name);
        let table = self.catalog.get(&qualified).and_then(|entry| entry.table());
        let Some(table) = table.filter(|table| table.connector.is_some()) else { return Ok(None) };
        self.check_not_read(&qualified)?;
        check_no_metadata(name, table)?;
        if table.computed.is_some() {
            return Err(EngineError::new(
                format!("table \"{}\" computes columns, and VALUES go out as they are", name.object()),
                "insert into a table without computed columns, or INSERT INTO .. SELECT from one",
            ));
        }
        Ok(Some((qualified, table.clone())))
    }
    /// Gives rows to a sink, as one tick of their own.
    fn write_out(&mut self, name: &str, rows: Vec<(CommandKind, Row)>) -> Result<()> {
        self.open_sink(name)?;
        let tick = self.send_tick(Vec::new())?;
        if let Some(sink) = self.sinks.get(name) {
            // It is there for as long as its sink is.
            let _ = sink.sender().send(Gathered::Rows(tick, rows.into_iter().map(|(_, row)| (row, 1)).collect()));
        }
        self.complete(tick)?;
        // What a statement says is written has arrived, whatever becomes of the rest of the script.
        self.sinks.get_mut(name).map_or(Ok(()), OpenSink::deliver)
    }
    /// Counts what a statement wrote as NULL under the table, for SHOW ERRORS.
    pub(crate) fn count_failures(&mut self, name: &str, failures: Vec<ExpressionErrors>) {
        let Some(entry) = self.catalog.entries.get_mut(name) else { return };
        for failure in failures {
            let line = entry.failures.entry(failure.expression).or_default();
            line.0 += failure.count;
            line.1.extend(failure.samples);
            line.1.truncate(SAMPLES);
        }
    }
    /// The plan's columns as the table's delivered ones: in place or by the listed names, cast, defaults filled in.
    pub(crate) fn insert_plan(&mut self, table: &Table, listed: &[ColumnName], plan: LogicalPlan) -> Result<LogicalPlan> {
        let places = table.places_for(listed, plan.schema().fields().len())?;
        let mut expressions = Vec::new();
        for place in &table.delivered {
            let column = &table.schema.columns[*place];
            let expression = match places.iter().position(|p| p == place) {
                Some(index) => cast_column(&plan, index, &column.data_type),
                None => lit(self.default_value(table, *place)?),
            };
            expressions.push(expression.alias(&column.name));
        }
        Ok(LogicalPlanBuilder::from(plan).project(expressions)?.build()?)
    }
    /// What stands in a column that an insert leaves out: its default or NULL, as a row of one field.
    pub(crate) fn default_row(&mut self, table: &Table, place: usize) -> Result<Row> {
        let Some(default) = table.defaults.get(&place) else { return Ok(Row::pack([Datum::Null])) };
        let default = self.default_expression(default)?.cast_to(&table.schema.columns[place].data_type);
        let mut field = Vec::new();
        Evaluator::new(vec![default], EvalErrors::new()).eval_row(&[], &mut field);
        Ok(Row::from_bytes(&field))
    }
    /// A default with the clock read.
    fn default_expression(&mut self, default: &ast::Expr) -> Result<ScalarExpr> {
        let expression = self.session.expression(default, &Schema::default())?;
        Ok(at_instant(&expression, self.instant()?, self.timezone))
    }
    /// The same for the batch engine.
    pub(crate) fn default_value(&mut self, table: &Table, place: usize) -> Result<ScalarValue> {
        let data_type = &table.schema.columns[place].data_type;
        let row = self.default_row(table, place)?;
        let datum = Datum::decode(&mut &row[..], data_type);
        Ok(ScalarValue::try_from_array(&to_array(&[datum], data_type), 0)?)
    }
    /// DELETE FROM. Returns the number of rows.
    pub(crate) fn delete(&mut self, delete: &ast::Delete) -> Result<usize> {
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
        let [ast::TableWithJoins { relation: ast::TableFactor::Table { name, .. }, joins }] = &from[..] else {
            return Err(EngineError::new("DELETE takes one table", "write DELETE FROM table WHERE .."));
        };
        if !joins.is_empty() || delete.using.is_some() {
            return Err(EngineError::new("DELETE takes one table", "use a subquery in WHERE"));
        }
        let (qualified, table) = self.writable(&Name::from(name))?;
        let found = self.query(&select_from(from[0].clone(), delete.selection.clone(), Vec::new())?)?;
        let count = found.rows.len();
        let losses = found.rows.iter().map(|row| loss(&table, row)).collect();
        self.write(&qualified, &table, losses)?;
        Ok(if ignores_deletes(&table) { 0 } else { count })
    }
    /// TRUNCATE TABLE. Returns the number of rows.
    pub(crate) fn truncate(&mut self, name: &Name) -> Result<usize> {
        let (qualified, table) = self.writable(name)?;
        let found = self.query(&parse_query(&format!("SELECT * FROM {name}"))?)?;
        let losses = found.rows.iter().map(|row| loss(&table, row)).collect();
        self.write(&qualified, &table, losses)?;
        Ok(if ignores_deletes(&table) { 0 } else { found.rows.len() })
    }
    /// UPDATE. Returns the number of rows.
    pub(crate) fn update(&mut self, update: &ast::Update) -> Result<usize> {
        let ast::TableFactor::Table { name, .. } = &update.table.relation else {
            return Err(EngineError::new("UPDATE takes a table", "write UPDATE table SET column = .. WHERE .."));
        };
        if update.from.is_some() || !update.table.joins.is_empty() {
            return Err(EngineError::new("UPDATE takes one table", "use a subquery in SET or WHERE, or MERGE INTO"));
        }
        let (qualified, table) = self.writable(&Name::from(name))?;
        check_updatable(&qualified, &table)?;
        let assigned = assignments(&update.assignments, &table)?;
        let new = |place: &usize| {
            let column = &table.schema.columns[*place].name;
            let old = || ast::Expr::Identifier(ast::Ident::with_quote('"', column));
            let expr = assigned.get(place).cloned().unwrap_or_else(old);
            ast::SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', marked_name(column, "new")) }
        };
        let new = table.delivered.iter().map(new).collect();
        let body = select_from(update.table.clone(), update.selection.clone(), new)?;
        let Answered { result: found, failures } = self.select_new(&table, &body)?;
        let width = table.schema.len();
        let schema = table.delivered_schema();
        let mut changes = Vec::new();
        let mut keys = BTreeSet::new();
        for row in &found.rows {
            let (old, new) = split_at_column(row, width);
            check_not_null(&schema, &new)?;
            if let Some(key) = new_key(&table, &new).filter(|_| !table.key.is_empty())
                && !keys.insert(key.clone())
            {
                let columns = table.key.iter().map(|column| table.schema.columns[*column].clone()).collect();
                return Err(EngineError::new(
                    format!("two rows of the UPDATE get the key ({})", described(&Schema::new(columns), &key)),
                    "nothing was written; give each row a key of its own",
                ));
            }
            // partial_update would keep the old value where the new one is NULL.
            let whole = matches!(engine_of(&table), Some(MergeEngine::PartialUpdate));
            if whole || table.key.is_empty() || moves(&table, &old, &new) {
                changes.push(loss(&table, &old));
            }
            changes.push((CommandKind::Upsert, new));
        }
        // All losses first: a new row may take the key of another row that moves away.
        changes.sort_by_key(|(kind, _)| *kind == CommandKind::Upsert);
        self.write(&qualified, &table, changes)?;
        self.count_failures(&qualified, failures);
        Ok(found.rows.len())
    }
    /// An UPDATE's query, with the new columns cast to the table's types.
    fn select_new(&mut self, table: &Table, body: &Body) -> Result<Answered> {
        let names = self.check_reads(body)?;
        let mut query = body.query.clone();
        rewrite(&mut *query)?;
        let plan = self.session.logical_plan(&query)?;
        let width = table.schema.len();
        let columns = plan.schema().columns();
        let mut expressions: Vec<Expr> = columns[..width].iter().cloned().map(Expr::Column).collect();
        for (index, place) in (width..).zip(&table.delivered) {
            let cast = cast_column(&plan, index, &table.schema.columns[*place].data_type);
            expressions.push(cast.alias(&columns[index].name));
        }
        let plan = LogicalPlanBuilder::from(plan).project(expressions)?.build()?;
        self.run(plan, &names)
    }
    /// Writes commands to a table as one tick and waits until it is complete.
    pub(crate) fn write(&mut self, name: &str, table: &Table, changes: Vec<(CommandKind, Row)>) -> Result<()> {
        self.write_with_letters(name, table, changes, Vec::new())
    }
    /// The same, with changes of the table's dead letters in the same tick.
    pub(crate) fn write_with_letters(
        &mut self,
        name: &str,
        table: &Table,
        changes: Vec<(CommandKind, Row)>,
        letters: Vec<(Row, Diff)>,
    ) -> Result<()> {
        let ignored = ignores_deletes(table);
        let lost = changes.iter().filter(|(kind, _)| *kind != CommandKind::Upsert).count();
        if ignored && lost > 0 {
            self.say(&format!(
                "warning: {lost} deletes are ignored: 'table.delete.behavior' of {} is 'ignore'",
                short(name)
            ));
        }
        let deletes = changes.iter().any(|(kind, _)| *kind != CommandKind::Upsert);
        if deletes && table.merge.as_ref().is_some_and(|merge| merge.delete == DeleteBehavior::Disable) {
            return Err(EngineError::new(
                format!("deletes are disabled on table \"{}\"", short(name)),
                "nothing was written; create the table with 'table.delete.behavior' = 'allow' to delete from it",
            ));
        }
        self.ensure_installed(std::iter::once(name.to_string()).collect())?;
        let statement = self.next_statement();
        let command = |(offset, (kind, row)): (usize, (CommandKind, Row))| {
            let position = Position { timestamp: 0, source: statement, partition: 0, offset: offset as u64 };
            Command { position, kind, row }
        };
        let commands: Vec<Command> = changes.into_iter().enumerate().map(command).collect();
        let mut ticks = match self.options.evaluation {
            Evaluation::Chopped(_) => self.chop(table, commands),
            _ => vec![commands],
        };
        let last = ticks.pop().unwrap_or_default();
        for commands in ticks {
            self.send_tick(vec![(table.input, InputBatch::Commands(commands))])?;
        }
        let mut batches = vec![(table.input, InputBatch::Commands(last))];
        if !letters.is_empty() {
            batches.push((table.errors_input, InputBatch::Updates(letters)));
        }
        self.send_tick(batches)?;
        self.settle()
    }
    /// Cuts a write into random ticks, some rows retracted and put back in between. For tests.
    fn chop(&mut self, table: &Table, commands: Vec<Command>) -> Vec<Vec<Command>> {
        let mut ticks: Vec<Vec<Command>> = vec![Vec::new()];
        for command in commands {
            let chance = self.random();
            if chance.is_multiple_of(3) {
                ticks.push(Vec::new());
            }
            let undo = if table.retained && (chance >> 8).is_multiple_of(2) { undo(table, &command) } else { None };
            let redo = command.clone();
            if let Some(tick) = ticks.last_mut() {
                tick.push(command);
            }
            if let Some(undo) = undo {
                ticks.extend([vec![undo], vec![redo]]);
            }
        }
        ticks
    }
}

/// The command that undoes an upsert; None where nothing does.
fn undo(table: &Table, command: &Command) -> Option<Command> {
    if command.kind != CommandKind::Upsert {
        return None;
    }
    let kind = match table.merge.as_ref().map(|merge| &merge.engine) {
        None | Some(MergeEngine::LastRow) => CommandKind::Retract,
        Some(_) => return None,
    };
    Some(Command { kind, ..command.clone() })
}

/// The columns that UPDATE SET assigns, by their places.
pub(crate) fn assignments(assignments: &[ast::Assignment], table: &Table) -> Result<BTreeMap<usize, ast::Expr>> {
    let mut assigned = BTreeMap::new();
    for assignment in assignments {
        let ast::AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(EngineError::new("UPDATE assigns to columns", "write SET column = value, .."));
        };
        let error = |what: &str, help: String| {
            EngineError::new(format!("column \"{}\" {what}", Name::from(name).object()), help).at_name(name)
        };
        let place = table.schema.index_of(Name::from(name).object()).filter(|place| table.delivered.contains(place));
        let place = place.ok_or_else(|| error("cannot be updated", columns_help(&table.schema)))?;
        if assigned.insert(place, assignment.value.clone()).is_some() {
            return Err(error("is assigned twice", "assign it once".into()));
        }
    }
    Ok(assigned)
}
/// The command that takes a row of the table away.
pub(crate) fn loss(table: &Table, row: &[u8]) -> (CommandKind, Row) {
    let mut bytes = Vec::new();
    if table.key.is_empty() {
        // Computed columns are computed again on the way in.
        project(row, &table.delivered, &mut bytes);
        return (CommandKind::Retract, Row::from_bytes(&bytes));
    }
    project(row, &table.key, &mut bytes);
    (CommandKind::Delete, Row::from_bytes(&bytes))
}
fn ignores_deletes(table: &Table) -> bool {
    table.merge.as_ref().is_some_and(|merge| merge.delete == DeleteBehavior::Ignore)
}
fn engine_of(table: &Table) -> Option<&MergeEngine> {
    table.merge.as_ref().map(|merge| &merge.engine)
}
/// Whether an update changes the row's key.
pub(crate) fn moves(table: &Table, old: &[u8], new: &[u8]) -> bool {
    let mut before = Vec::new();
    project(old, &table.key, &mut before);
    new_key(table, new).is_none_or(|after| before != after)
}
/// The key of a row as statements deliver it; None where a computed column is part of it.
fn new_key(table: &Table, new: &[u8]) -> Option<Vec<u8>> {
    let places: Option<Vec<usize>> =
        table.key.iter().map(|column| table.delivered.iter().position(|place| place == column)).collect();
    let mut key = Vec::new();
    project(new, &places?, &mut key);
    Some(key)
}
/// Casts every value to its column's type, so that the rows of one VALUES need not agree on a type of their own.
fn cast_values(values: &mut ast::Values, table: &Table, listed: &[ColumnName]) -> Result<()> {
    let width = values.rows.first().map_or(0, |row| row.content.len());
    let places = table.places_for(listed, width)?;
    let types: Vec<Option<ast::DataType>> =
        places.iter().map(|place| written_type(&table.schema.columns[*place].data_type)).collect();
    for row in &mut values.rows {
        for (value, data_type) in row.content.iter_mut().zip(&types) {
            let Some(data_type) = data_type.clone() else { continue };
            let expr = Box::new(std::mem::replace(value, ast::Expr::value(ast::Value::Null)));
            *value = ast::Expr::Cast { kind: ast::CastKind::TryCast, expr, data_type, array: false, format: None };
        }
    }
    Ok(())
}
/// A column of a plan, cast to a type. A constant is cast itself: behind a column it would be folded before its failure is counted.
pub(crate) fn cast_column(plan: &LogicalPlan, index: usize, target: &DataType) -> Expr {
    let constant = match plan {
        LogicalPlan::Projection(projection) => Some(projection.expr[index].clone().unalias()).filter(is_constant),
        _ => None,
    };
    try_cast(constant.unwrap_or_else(|| Expr::Column(plan.schema().columns().swap_remove(index))), target.to_arrow())
}
fn is_constant(expr: &Expr) -> bool {
    let reads_more = |part: &Expr| {
        Ok(matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..)))
    };
    !expr.any_column_refs() && !expr.is_volatile() && !expr.exists(reads_more).unwrap_or(true)
}
/// The type as the parser has it; None for one that cannot be written in a CAST.
fn written_type(data_type: &DataType) -> Option<ast::DataType> {
    let body = parse_query(&format!("SELECT CAST(NULL AS {data_type})")).ok()?;
    let ast::SetExpr::Select(select) = *body.query.body else { return None };
    match select.projection.into_iter().next()? {
        ast::SelectItem::UnnamedExpr(ast::Expr::Cast { data_type, .. }) => Some(data_type),
        _ => None,
    }
}
fn split_at_column(row: &[u8], column: usize) -> (Row, Row) {
    let mut rest = row;
    for _ in 0..column {
        split_field(&mut rest);
    }
    let (left, right) = row.split_at(row.len() - rest.len());
    (Row::from_bytes(left), Row::from_bytes(right))
}
/// An error where a row has NULL in a column that is NOT NULL.
pub(crate) fn check_not_null(schema: &Schema, row: &[u8]) -> Result<()> {
    let mut rest = row;
    for column in &schema.columns {
        let field = split_field(&mut rest);
        if !column.nullable && is_null_field(field) {
            return Err(EngineError::new(
                format!("column \"{}\" is NOT NULL, and a row has NULL there", column.name),
                "nothing was written; give the column a value in every row",
            ));
        }
    }
    Ok(())
}
/// A query of a table's rows, put together of the parts of a statement, so that errors have their places.
fn select_from(table: ast::TableWithJoins, selection: Option<ast::Expr>, more: Vec<ast::SelectItem>) -> Result<Body> {
    let mut body = parse_query("SELECT * FROM t")?;
    if let ast::SetExpr::Select(select) = &mut *body.query.body {
        (select.from, select.selection) = (vec![table], selection);
        select.projection.extend(more);
    }
    Ok(body)
}
/// A query from text that the engine made.
pub(crate) fn parse_query(text: &str) -> Result<Body> {
    match parse_script(text)?.into_iter().next().map(|statement| statement.node) {
        Some(Statement::Query(body)) => Ok(body),
        _ => Err(EngineError::new("the statement could not be turned into a query", "")),
    }
}
