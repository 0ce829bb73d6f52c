//! INSERT INTO .. SELECT that goes on: its plan, its target, and what the two forbid each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltaworks_connectors::kafka::KafkaSinkSpec;
use deltaworks_connectors::kafka::sink::is_kafka;
use deltaworks_connectors::sink::SinkSpec;
use deltaworks_operators::merge::Engine as MergeEngine;
use deltaworks_sql::expr::ScalarExpr;
use deltaworks_sql::lower::one_per_key;
use deltaworks_sql::parser::{ColumnName, Insert, Name, Spanned, Statement};
use deltaworks_sql::plan::{Node, Plan};
use deltaworks_sql::render::check_lookups;
use deltaworks_sql::session::Session;

use crate::catalog::{self, Catalog, Entry, InsertKind, Table};
use crate::create;
use crate::error::EngineError;
use crate::query::{RowsFor, short, take_stamp};
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

impl Engine {
    /// Whether INSERT .. SELECT into the table is continuous.
    fn is_continuous(&self, name: &Name) -> bool {
        let entry = self.catalog.get(&self.catalog.qualify(name));
        entry.and_then(|entry| entry.table()).is_some_and(|table| table.continuous)
    }
    /// Whether an INSERT goes on: its table says so, and it gives no VALUES.
    pub(crate) fn is_continuous_insert(&self, insert: &Insert) -> bool {
        !insert.is_values() && self.is_continuous(&insert.table)
    }
    pub(crate) fn statement_set(&mut self, statements: &[Spanned<Statement>]) -> Result<()> {
        for statement in statements {
            let at = |error: EngineError| error.in_column(statement.line, statement.column);
            match &statement.node {
                Statement::Insert(insert) => self.insert_continuously(insert).map_err(at)?,
                Statement::Merge(merge) => self.merge_continuously(merge).map_err(at)?,
                _ => {
                    let message = "a statement set holds INSERT and MERGE only";
                    return Err(at(EngineError::new(message, "put other statements before it")));
                }
            }
        }
        Ok(())
    }
    pub(crate) fn insert_continuously(&mut self, insert: &Insert) -> Result<()> {
        self.insert_into(insert, InsertKind::Insert)
    }
    /// A continuous INSERT, or what became one.
    pub(crate) fn insert_into(&mut self, insert: &Insert, kind: InsertKind) -> Result<()> {
        self.check_names(std::slice::from_ref(&insert.table))?;
        let target = self.catalog.qualify(&insert.table);
        let Some(table) = self.catalog.get(&target).and_then(|entry| entry.table()).cloned() else {
            return Err(EngineError::new(
                format!("\"{}\" cannot be inserted into", insert.table.object()),
                "insert into a table",
            ));
        };
        let mut continuous = self.continuous(&insert.body, RowsFor::Others)?;
        self.check_circle(&target, &continuous.plan)?;
        continuous.plan = into_table(continuous.plan, &table, &insert.columns, &self.session)?;
        let stamp = match continuous.stamp {
            Some(place) => table.places(&insert.columns)?.get(place).copied(),
            None => take_stamp(&mut continuous.plan)?,
        };
        let lookups = continuous.plan.has_lookup();
        let sink = table.connector.is_some();
        if sink && lookups {
            return Err(EngineError::new(
                "the result of a lookup join cannot go to a sink directly",
                "insert it into a keyed table with a 'table.merge-engine', and that table into the sink",
            ));
        }
        check_lookups(&continuous.plan, &table.key)?;
        if lookups && matches!(table.merge.as_ref().map(|m| &m.engine), Some(MergeEngine::Aggregation(_))) {
            return Err(EngineError::new(
                "the result of a lookup join cannot be subtracted from an aggregation table",
                "insert it into a last_row table, and aggregate that in a dynamic table",
            ));
        }
        if sink {
            self.check_not_read(&target)?;
        }
        self.check_retractions(&insert.table, &table, &continuous.plan)?;
        self.check_topic(&insert.table, &table, &continuous.plan)?;
        let plan = self.before_sink(continuous.plan, &table)?;
        let mut reads = BTreeSet::new();
        Catalog::reads(&plan, &mut reads);
        self.check_streams_ahead(&reads)?;
        let statement = self.next_statement();
        match &kind {
            InsertKind::Insert => self.say(&format!("continuous insert into {}", insert.table)),
            InsertKind::Merge => self.say(&format!("continuous merge into {}", insert.table)),
            InsertKind::Pipe(pipe) => self.say(&format!("pipe {} into {}", short(pipe), insert.table)),
        }
        let name = target.clone();
        self.catalog.inserts.push(catalog::Insert {
            kind,
            target,
            plan,
            stamp,
            calls: continuous.calls,
            merge: None,
            statement,
            dataflow: None,
            stopped: Arc::default(),
        });
        self.install_over_installed(&name, &reads)
    }
    /// The plan of a query that writes the table: for a sink by key, with one row of each key.
    fn before_sink(&self, plan: Plan, table: &Table) -> Result<Plan> {
        Ok(if is_sink_by_key(table)? { one_per_key(plan, &table.key, &self.catalog) } else { plan })
    }
    /// The plan of an INSERT's query for EXPLAIN: with what stands before the sink, where something does.
    pub(crate) fn explained_insert(&self, plan: Plan, insert: &Insert) -> Result<Plan> {
        let entry = self.catalog.get(&self.catalog.qualify(&insert.table));
        let Some(table) = entry.and_then(Entry::table).filter(|table| table.connector.is_some()) else { return Ok(plan) };
        let whole = self.before_sink(into_table(plan.clone(), table, &insert.columns, &self.session)?, table)?;
        Ok(if matches!(&whole.node, Node::TopK(top_k) if top_k.before_sink) { whole } else { plan })
    }
    /// Whether what the query takes back can be taken back from the table.
    fn check_retractions(&self, name: &Name, table: &Table, plan: &Plan) -> Result<()> {
        let keeps = match table.merge.as_ref().map(|merge| &merge.engine) {
            Some(MergeEngine::Aggregation(columns)) => columns.iter().all(|column| column.aggregate.subtracts()),
            _ => !table.key.is_empty(),
        };
        if keeps || deltaworks_sql::lower::is_append_only(plan, &self.catalog) {
            return Ok(());
        }
        if table.key.is_empty() {
            let help = match reads_letters(plan) {
                true => {
                    "dead letters leave when they are repaired or old: declare PRIMARY KEY (source, partition, position)"
                }
                false => "declare a PRIMARY KEY, or insert from tables whose rows are only ever added",
            };
            return Err(EngineError::new(
                format!("table \"{}\" has no key, and the query may take rows back", name.object()),
                help,
            ));
        }
        Err(EngineError::new(
            format!("the query may take rows back, which an aggregate of table \"{}\" cannot follow", name.object()),
            "use sum, count or avg there, or a dynamic table with GROUP BY",
        ))
    }
    /// What a topic cannot take is said before anything runs.
    fn check_topic(&self, name: &Name, table: &Table, plan: &Plan) -> Result<()> {
        let Some(connector) = table.connector.as_ref().filter(|connector| is_kafka(connector)) else { return Ok(()) };
        let spec = KafkaSinkSpec::from_options(connector, &table.schema, &table.key)?;
        check_no_metadata(name, table)?;
        if spec.takes_retractions() || deltaworks_sql::lower::is_append_only(plan, &self.catalog) {
            return Ok(());
        }
        Err(EngineError::new(
            format!(
                "table \"{}\" writes rows alone to its topic ('format' = '{}'), and the query may take rows back",
                name.object(),
                connector.format()
            ),
            "use 'connector' = 'upsert-kafka', or 'format' = 'debezium-json' or 'changelog-json'",
        ))
    }
    /// A connector table is read or written, not both.
    pub(crate) fn check_not_read(&self, target: &str) -> Result<()> {
        match self.catalog.dependents(target).first() {
            None => Ok(()),
            Some(reader) => Err(EngineError::new(
                format!("table \"{}\" cannot be written: \"{}\" reads it", short(target), short(reader)),
                "declare a second table on the same topic or file",
            )),
        }
    }
    /// A table that is fed by what is computed from it would never come to rest.
    pub(crate) fn check_circle(&self, target: &str, plan: &Plan) -> Result<()> {
        let mut reads = BTreeSet::new();
        Catalog::reads(plan, &mut reads);
        if !self.catalog.closure(reads).contains(target) {
            return Ok(());
        }
        Err(EngineError::new(
            format!("the query reads what is computed from \"{}\" itself: the insert would be a circle", short(target)),
            "insert into another table",
        ))
    }
}

/// What a source adds to its records is not written.
pub(crate) fn check_no_metadata(name: &Name, table: &Table) -> Result<()> {
    if table.metadata.is_empty() {
        return Ok(());
    }
    Err(EngineError::new(
        format!("table \"{}\" has METADATA columns, which are not written to a topic", name.object()),
        "insert into a table without them",
    ))
}
/// Whether a sink has one row of each key: what writes rows alone cannot take one back for another.
pub(crate) fn is_sink_by_key(table: &Table) -> Result<bool> {
    let Some(connector) = table.connector.as_ref().filter(|_| !table.key.is_empty()) else { return Ok(false) };
    Ok(match is_kafka(connector) {
        true => KafkaSinkSpec::from_options(connector, &table.schema, &table.key)?.takes_retractions(),
        false => SinkSpec::from_options(connector, &table.schema, &table.key)?.takes_retractions(),
    })
}
/// The plan with columns as the target has them: in place or by the listed names, cast, missing ones NULL, computed ones
/// computed.
fn into_table(plan: Plan, table: &Table, listed: &[ColumnName], session: &Session) -> Result<Plan> {
    let given = plan.schema.len();
    let places = table.places_for(listed, given)?;
    let mut delivered = Vec::new();
    for place in &table.delivered {
        let column = &table.schema.columns[*place];
        delivered.push(match places.iter().position(|p| p == place) {
            Some(index) => {
                ScalarExpr::column(index, plan.schema.columns[index].data_type.clone()).cast_to(&column.data_type)
            }
            None => match table.defaults.get(place) {
                Some(default) => {
                    let default = session.expression(default, &Default::default())?;
                    create::refuse_clock(&default, &column.name)?;
                    default.cast_to(&column.data_type)
                }
                None => ScalarExpr::literal(deltaworks_dataflow::Datum::Null, column.data_type.clone()),
            },
        });
    }
    let expressions: Vec<ScalarExpr> = match &table.computed {
        Some(computed) => computed.iter().map(|expression| expression.substitute(&delivered)).collect(),
        None => delivered,
    };
    let identity = expressions.len() == given && expressions.iter().enumerate().all(|(i, e)| e.as_column() == Some(i));
    if identity {
        return Ok(Plan { schema: table.schema.clone(), ..plan });
    }
    Ok(Plan { node: Node::Project { input: Box::new(plan), expressions }, schema: table.schema.clone() })
}

/// Whether a query reads dead letters.
fn reads_letters(plan: &Plan) -> bool {
    let mut reads = BTreeSet::new();
    Catalog::reads(plan, &mut reads);
    reads.iter().any(|name| name.ends_with("$errors"))
}
