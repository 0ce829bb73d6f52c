//! CREATE: from a statement to a catalog entry.

use std::collections::BTreeMap;

use deltaworks_connectors::decode::{Metadata, MetadataColumn, RECORD_BYTES_MAX};
use deltaworks_connectors::kafka::letters::{ERRORS_TOPIC, errors_topic};
use deltaworks_connectors::kafka::sink::is_kafka;
use deltaworks_connectors::keys::KeyColumns;
use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_dataflow::{Column, DataType, Datum, Schema};
use deltaworks_operators::letters::Letters;
use deltaworks_operators::merge::{AggregatedColumn, ColumnAggregate, DeleteBehavior, Engine as MergeEngine, MergeSpec};
use deltaworks_operators::retention::Retention;
use deltaworks_sql::expr::ScalarExpr;
use deltaworks_sql::parser::{ColumnKind, CreateTable};
use deltaworks_sql::session::Session;
use sqlparser::ast;

use crate::catalog::Table;
use crate::error::EngineError;
use crate::number::{number, numbering};

type Result<T> = std::result::Result<T, EngineError>;

pub(crate) const MERGE_ENGINE: &str = "table.merge-engine";
const RETAIN: &str = "table.retain";
pub(crate) const RETENTION: &str = "table.retention";
pub(crate) const DELETE_BEHAVIOR: &str = "table.delete.behavior";
const ERRORS_RETENTION: &str = "errors.retention";
const ERRORS_RETENTION_BYTES: &str = "errors.retention.bytes";

/// The table that a CREATE TABLE describes.
pub(crate) fn table(session: &Session, create: &CreateTable, record_clock: bool, next_input: &mut u32) -> Result<Table> {
    let columns = Columns::new(session, create)?;
    let options = ConnectorOptions::new(create.options.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    let has_connector = options.connector().is_some();
    options.check()?;
    let key = key(create, &columns.schema)?;
    if options.connector() == Some("upsert-kafka") && key.is_empty() {
        return Err(EngineError::new(
            "a table with connector \"upsert-kafka\" needs a key",
            "declare PRIMARY KEY (..) NOT ENFORCED: the columns that the records' keys hold",
        ));
    }
    if is_kafka(&options) {
        KeyColumns::from_options(&options, &columns.schema, &key, &columns.metadata_in_table())?;
    }
    let mut merge = match columns.number {
        Some(place) => {
            let data_type = &columns.schema.columns[place].data_type;
            Some(numbering(create, place, data_type, &key, &options)?)
        }
        None => merge(&options, &key, &columns.schema)?,
    };
    let changes = options.format().starts_with("debezium");
    check_table_options(&options, &columns.schema)?;
    check_errors_options(&options)?;
    let retained = retained(&options, &key)?;
    let retention = retention(&options, create, &columns.schema, record_clock)?;
    let only_added = match &merge {
        Some(merge) => merge.engine == MergeEngine::FirstRow && merge.delete != DeleteBehavior::Allow,
        // Of a stream nothing can be deleted.
        None => (has_connector || !retained) && !changes,
    };
    if let Some(merge) = &mut merge {
        merge.retention.clone_from(&retention);
    }
    let input = *next_input;
    *next_input += 2;
    Ok(Table {
        computed: columns.computed(session)?,
        number: columns.number,
        schema: columns.schema,
        key,
        delivered: columns.delivered,
        metadata: columns.metadata,
        defaults: columns.defaults,
        declared: columns.declared,
        continuous: has_connector || options.get(MERGE_ENGINE).is_some(),
        append_only: only_added && retention.is_none(),
        retained,
        retention,
        errors_fail: errors_fail(&options)?,
        letters: letters(&options)?,
        connector: has_connector.then_some(options),
        merge,
        input,
        errors_input: input + 1,
    })
}

/// Whether the table keeps its rows.
fn retained(options: &ConnectorOptions, key: &[usize]) -> Result<bool> {
    match options.get(RETAIN) {
        None | Some("all") => Ok(true),
        Some("none") if !key.is_empty() => Err(EngineError::new(
            format!("a table with a PRIMARY KEY keeps one row per key: it cannot have '{RETAIN}' = 'none'"),
            "leave out the option, or the key: without one the table is a stream",
        )),
        Some("none") if options.get(RETENTION).is_some() => Err(EngineError::new(
            format!("a table with '{RETAIN}' = 'none' keeps nothing that '{RETENTION}' could limit"),
            "leave out one of the two options",
        )),
        Some("none") => Ok(false),
        Some(other) => Err(EngineError::new(format!("option \"{RETAIN}\" cannot be \"{other}\""), "it is all or none")),
    }
}

/// How long the table keeps its rows, and by what it knows their age.
fn retention(
    options: &ConnectorOptions,
    create: &CreateTable,
    schema: &Schema,
    record_clock: bool,
) -> Result<Option<Retention>> {
    let Some(duration) = options.duration(RETENTION)? else { return Ok(None) };
    let span = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    if span == 0 {
        return Err(EngineError::new(
            format!("option \"{RETENTION}\" leaves nothing"),
            "give a duration such as 90 d, or 'table.retain' = 'none' to keep nothing",
        ));
    }
    let column = match &create.schema.watermark {
        None => None,
        Some(watermark) => Some(event_time(&watermark.column, schema)?),
    };
    Ok(Some(Retention { span, column, record_clock }))
}
/// The column of a WATERMARK.
fn event_time(name: &str, schema: &Schema) -> Result<usize> {
    let Some(place) = schema.index_of(name) else {
        return Err(EngineError::new(format!("the WATERMARK names \"{name}\", which is no column"), columns_help(schema)));
    };
    match &schema.columns[place].data_type {
        DataType::Timestamp | DataType::TimestampLtz => Ok(place),
        other => Err(EngineError::new(
            format!("'{RETENTION}' goes by the WATERMARK column \"{name}\", which is {other}"),
            "make the column a TIMESTAMP, or leave out the WATERMARK: records then age by their own timestamp",
        )),
    }
}

/// Options of tables; a misspelt one must not be passed over.
fn check_table_options(options: &ConnectorOptions, schema: &Schema) -> Result<()> {
    const KNOWN: [&str; 6] = [
        MERGE_ENGINE,
        "table.merge-engine.first_row.order-column",
        "table.merge-engine.versioned.ver-column",
        DELETE_BEHAVIOR,
        RETAIN,
        RETENTION,
    ];
    for (name, _) in options.iter() {
        if name.starts_with("table.") && !KNOWN.contains(&name) {
            return Err(EngineError::new(
                format!("there is no option \"{name}\""),
                format!("known are {}", KNOWN.join(", ")),
            ));
        }
        let column = name.strip_prefix("fields.").map(|rest| rest.strip_suffix(".agg").unwrap_or(rest));
        if let Some(column) = column.filter(|column| schema.index_of(column).is_none()) {
            let message = format!("option \"{name}\" names \"{column}\", which is no column");
            return Err(EngineError::new(message, columns_help(schema)));
        }
    }
    Ok(())
}

/// Whether the table wants the job to end at a record that cannot be decoded.
fn errors_fail(options: &ConnectorOptions) -> Result<bool> {
    match options.get("errors") {
        None => Ok(false),
        Some("fail") => Ok(true),
        Some(other) => {
            let expected = "fail; without the option such records are collected in <table>$errors";
            Err(options.invalid("errors", other, expected).into())
        }
    }
}
/// How long the table's dead letters are kept.
fn letters(options: &ConnectorOptions) -> Result<Letters> {
    let mut letters = Letters::default();
    if let Some(age) = options.duration(ERRORS_RETENTION)? {
        letters.span = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    }
    if let Some(bytes) = options.size(ERRORS_RETENTION_BYTES)? {
        letters.bytes_max = bytes;
    }
    for (option, is_nothing) in [(ERRORS_RETENTION, letters.span == 0), (ERRORS_RETENTION_BYTES, letters.bytes_max == 0)] {
        if is_nothing {
            let help = "give one that leaves something, such as 7 d or 1 gb; it is that without the option";
            return Err(EngineError::new(format!("option \"{option}\" leaves nothing"), help));
        }
    }
    Ok(letters)
}
/// Options of dead letters; those of a table without a connector are not looked at elsewhere.
fn check_errors_options(options: &ConnectorOptions) -> Result<()> {
    const KNOWN: [&str; 4] = [ERRORS_RETENTION, ERRORS_RETENTION_BYTES, RECORD_BYTES_MAX, ERRORS_TOPIC];
    if let Some((name, _)) = options.iter().find(|(name, _)| name.starts_with("errors.") && !KNOWN.contains(name)) {
        let help = format!("known are {}", KNOWN.join(", "));
        return Err(EngineError::new(format!("there is no option \"{name}\""), help));
    }
    if let Some((name, value)) = options.first(&[ERRORS_TOPIC, RECORD_BYTES_MAX]).filter(|_| options.connector().is_none()) {
        let expected = "a table with a connector: others are given no records";
        return Err(options.invalid(name, value, expected).into());
    }
    errors_topic(options)?;
    match options.size(RECORD_BYTES_MAX)? {
        Some(0) => Err(EngineError::new(
            format!("option \"{RECORD_BYTES_MAX}\" leaves nothing"),
            "give the size of the largest record that is to be decoded, such as 64 mb",
        )),
        _ => Ok(()),
    }
}

/// The columns of a CREATE TABLE, sorted by where their values come from.
struct Columns {
    schema: Schema,
    /// Places of physical and metadata columns.
    delivered: Vec<usize>,
    metadata: Vec<MetadataColumn>,
    defaults: BTreeMap<usize, ast::Expr>,
    declared: BTreeMap<usize, String>,
    expressions: BTreeMap<usize, ast::Expr>,
    number: Option<usize>,
}

impl Columns {
    fn new(session: &Session, create: &CreateTable) -> Result<Self> {
        let mut columns = Columns {
            schema: Schema::default(),
            delivered: Vec::new(),
            metadata: Vec::new(),
            defaults: BTreeMap::new(),
            declared: BTreeMap::new(),
            expressions: BTreeMap::new(),
            number: number(create),
        };
        // A computed column's type follows from the others, so those come first.
        for (place, column) in create.schema.columns.iter().enumerate() {
            let data_type = match &column.data_type {
                Some(data_type) => session
                    .sql_type(data_type)
                    .map_err(|e| EngineError::from(e).in_column(column.position.line, column.position.column))?,
                None => DataType::String,
            };
            let key = create.schema.primary_key.contains(&column.name);
            let nullable = !column.not_null && !key && column.kind != ColumnKind::AutoIncrement;
            if let Some(declared) = column.data_type.as_ref().and_then(|declared| spelling(declared, &data_type)) {
                columns.declared.insert(place, declared);
            }
            columns.schema.columns.push(Column { name: column.name.clone(), data_type, nullable });
            match &column.kind {
                ColumnKind::AutoIncrement => {}
                ColumnKind::Computed(expression) => {
                    columns.expressions.insert(place, expression.clone());
                }
                ColumnKind::Metadata { key, .. } => {
                    let name = key.as_deref().unwrap_or(&column.name);
                    let metadata = Metadata::from_name(name).ok_or_else(|| {
                        EngineError::new(
                            format!("there is no metadata \"{name}\""),
                            "known are topic, partition, offset, timestamp, headers and key",
                        )
                        .in_column(column.position.line, column.position.column)
                    })?;
                    columns.metadata.push(MetadataColumn { column: columns.delivered.len(), metadata });
                    columns.delivered.push(place);
                }
                ColumnKind::Physical { default } => {
                    if let Some(default) = default {
                        columns.defaults.insert(place, default.clone());
                    }
                    columns.delivered.push(place);
                }
            }
        }
        columns.type_computed(session)?;
        Ok(columns)
    }
    /// Computed columns read the delivered ones.
    fn delivered_schema(&self) -> Schema {
        Schema::new(self.delivered.iter().map(|place| self.schema.columns[*place].clone()).collect())
    }
    /// The metadata columns, as places among all columns.
    fn metadata_in_table(&self) -> Vec<MetadataColumn> {
        let place = |metadata: &MetadataColumn| MetadataColumn { column: self.delivered[metadata.column], ..*metadata };
        self.metadata.iter().map(place).collect()
    }
    fn type_computed(&mut self, session: &Session) -> Result<()> {
        let delivered = self.delivered_schema();
        for (place, expression) in &self.expressions {
            let column = &mut self.schema.columns[*place];
            column.data_type = session.expression(expression, &delivered)?.data_type();
            column.nullable = true;
        }
        Ok(())
    }
    /// Every column over the delivered ones; None where none is computed.
    fn computed(&self, session: &Session) -> Result<Option<Vec<ScalarExpr>>> {
        if self.expressions.is_empty() && self.number.is_none() {
            return Ok(None);
        }
        let delivered = self.delivered_schema();
        let column = |place: usize| match self.expressions.get(&place) {
            // The table puts the number in.
            _ if self.number == Some(place) => Ok(ScalarExpr::literal(Datum::Null, DataType::BigInt)),
            Some(expression) => {
                let computed = session.expression(expression, &delivered)?;
                refuse_clock(&computed, &self.schema.columns[place].name)?;
                Ok(computed)
            }
            None => {
                let index = self.delivered.iter().position(|d| *d == place).unwrap_or(0);
                Ok(ScalarExpr::column(index, self.schema.columns[place].data_type.clone()))
            }
        };
        (0..self.schema.len()).map(column).collect::<Result<Vec<_>>>().map(Some)
    }
}

/// How a type is declared, where that says more than the type that holds it: VARCHAR(20), TIMESTAMP(3).
fn spelling(declared: &ast::DataType, data_type: &DataType) -> Option<String> {
    let has_length = matches!(data_type, DataType::String | DataType::Bytes | DataType::Timestamp | DataType::TimestampLtz);
    let text = declared.to_string();
    (has_length && text.contains('(')).then(|| text.to_uppercase())
}

/// What a record brings cannot depend on when it is looked at.
pub(crate) fn refuse_clock(expression: &ScalarExpr, column: &str) -> Result<()> {
    if expression.any(&|part| matches!(part, ScalarExpr::Clock(_))) {
        return Err(EngineError::new(
            format!("column \"{column}\" reads the clock, which a continuous statement cannot take a value from"),
            "use WRITE_TIMESTAMP() in the select list, or compare with NOW() in a view",
        ));
    }
    Ok(())
}
fn key(create: &CreateTable, schema: &Schema) -> Result<Vec<usize>> {
    let place = |name: &String| {
        schema.index_of(name).ok_or_else(|| {
            EngineError::new(format!("the PRIMARY KEY names \"{name}\", which is no column"), columns_help(schema))
        })
    };
    create.schema.primary_key.iter().map(place).collect()
}
/// The columns that there are, for a help line.
pub(crate) fn columns_help(schema: &Schema) -> String {
    let names: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
    format!("the columns are {}", names.join(", "))
}

/// How commands fold, from the table's options.
fn merge(options: &ConnectorOptions, key: &[usize], schema: &Schema) -> Result<Option<MergeSpec>> {
    let name = options.get(MERGE_ENGINE);
    if key.is_empty() {
        return match name {
            None => Ok(None),
            Some(name) => Err(EngineError::new(
                format!("merge engine \"{name}\" needs a key"),
                "declare PRIMARY KEY (..) NOT ENFORCED",
            )),
        };
    }
    let column_option = |option: &str| match options.get(option) {
        None => Ok(None),
        Some(column) => schema.index_of(column).map(Some).ok_or_else(|| {
            EngineError::new(format!("option \"{option}\" names \"{column}\", which is no column"), columns_help(schema))
        }),
    };
    let engine = match name.unwrap_or("last_row") {
        "last_row" | "deduplicate" => MergeEngine::LastRow,
        "first_row" => match column_option("table.merge-engine.first_row.order-column")? {
            Some(column) => MergeEngine::FirstRowBy { order: column },
            None => MergeEngine::FirstRow,
        },
        "versioned" => match column_option("table.merge-engine.versioned.ver-column")? {
            Some(column) => MergeEngine::Versioned { version: column },
            None => {
                return Err(EngineError::new(
                    "merge engine \"versioned\" needs a version column",
                    "set 'table.merge-engine.versioned.ver-column' = '<column>'",
                ));
            }
        },
        "partial_update" => MergeEngine::PartialUpdate,
        "aggregation" => MergeEngine::Aggregation(aggregated(options, key, schema)?),
        other => {
            return Err(EngineError::new(
                format!("there is no merge engine \"{other}\""),
                "known are last_row, first_row, versioned, partial_update and aggregation",
            ));
        }
    };
    let delete = match options.get(DELETE_BEHAVIOR) {
        None => engine.default_delete(),
        Some("allow") => DeleteBehavior::Allow,
        Some("ignore") => DeleteBehavior::Ignore,
        Some("disable") => DeleteBehavior::Disable,
        Some(other) => {
            return Err(EngineError::new(
                format!("option \"{DELETE_BEHAVIOR}\" cannot be \"{other}\""),
                "it is allow, ignore or disable",
            ));
        }
    };
    Ok(Some(MergeSpec::new(key.to_vec(), engine, delete)))
}

/// The columns of an aggregation table, by their 'fields.<column>.agg'.
fn aggregated(options: &ConnectorOptions, key: &[usize], schema: &Schema) -> Result<Vec<AggregatedColumn>> {
    let mut columns = Vec::new();
    for (place, column) in schema.columns.iter().enumerate() {
        let aggregate = if key.contains(&place) {
            ColumnAggregate::Key
        } else {
            let option = format!("fields.{}.agg", column.name);
            column_aggregate(options.get(&option).unwrap_or("last_value")).ok_or_else(|| {
                EngineError::new(
                    format!("option \"{option}\": there is no aggregate \"{}\"", options.get(&option).unwrap_or_default()),
                    "known are sum, count, avg, min, max, last_value, last_non_null_value, first_value, \
                     first_non_null_value, bool_and, bool_or and bitmap",
                )
            })?
        };
        check_aggregated(aggregate, column)?;
        columns.push(AggregatedColumn { aggregate, data_type: column.data_type.clone() });
    }
    Ok(columns)
}
/// An aggregate of a column is a value of the column's own type.
fn check_aggregated(aggregate: ColumnAggregate, column: &Column) -> Result<()> {
    use DataType::{BigInt, Decimal, Double, Float, Int, IntervalDay, IntervalMonth, SmallInt, TinyInt};
    let data_type = &column.data_type;
    let is_whole = matches!(data_type, TinyInt | SmallInt | Int | BigInt);
    let is_number = is_whole || matches!(data_type, Float | Double | Decimal { .. } | IntervalDay | IntervalMonth);
    let (fits, wanted) = match aggregate {
        ColumnAggregate::Sum | ColumnAggregate::Avg => (is_number, "a number"),
        ColumnAggregate::Count => (is_whole, "an integer, as BIGINT"),
        ColumnAggregate::BoolAnd | ColumnAggregate::BoolOr => (*data_type == DataType::Boolean, "BOOLEAN"),
        ColumnAggregate::Bitmap => (*data_type == DataType::Bitmap, "BITMAP"),
        ColumnAggregate::Min | ColumnAggregate::Max => (*data_type != DataType::Bitmap, "of a type that has an order"),
        _ => return Ok(()),
    };
    if fits {
        return Ok(());
    }
    Err(EngineError::new(
        format!("option \"fields.{0}.agg\": column \"{0}\" of type {data_type} has no such aggregate", column.name),
        format!("the column has to be {wanted}"),
    ))
}
fn column_aggregate(name: &str) -> Option<ColumnAggregate> {
    Some(match name {
        "sum" => ColumnAggregate::Sum,
        "count" => ColumnAggregate::Count,
        "avg" => ColumnAggregate::Avg,
        "min" => ColumnAggregate::Min,
        "max" => ColumnAggregate::Max,
        "last" | "last_value" => ColumnAggregate::Last,
        "last_non_null_value" => ColumnAggregate::LastNonNull,
        "first" | "first_value" => ColumnAggregate::First,
        "first_non_null_value" => ColumnAggregate::FirstNonNull,
        "bool_and" => ColumnAggregate::BoolAnd,
        "bool_or" => ColumnAggregate::BoolOr,
        "bitmap" => ColumnAggregate::Bitmap,
        _ => return None,
    })
}
