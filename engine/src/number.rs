//! AUTO_INCREMENT: a table that gives each of its keys a number, for ever.

use deltaworks_connectors::options::Options as ConnectorOptions;
use deltaworks_dataflow::DataType;
use deltaworks_operators::merge::{DeleteBehavior, Engine as MergeEngine, MergeSpec};
use deltaworks_sql::parser::{ColumnDef, ColumnKind, CreateTable};

use crate::create::{DELETE_BEHAVIOR, MERGE_ENGINE, RETENTION};
use crate::error::EngineError;

type Result<T> = std::result::Result<T, EngineError>;

/// The place of the column that numbers the keys, where a table has one.
pub(crate) fn number(create: &CreateTable) -> Option<usize> {
    create.schema.columns.iter().position(|column| column.kind == ColumnKind::AutoIncrement)
}
/// How commands fold in a table that numbers its keys: the first of a key gives it a number, and nothing takes it back.
///
/// # Errors
/// What such a table cannot have.
pub(crate) fn numbering(
    create: &CreateTable,
    place: usize,
    data_type: &DataType,
    key: &[usize],
    options: &ConnectorOptions,
) -> Result<MergeSpec> {
    let column = &create.schema.columns[place];
    let checked = check_columns(create, place, data_type, key).and_then(|()| check_options(column, options));
    checked.map_err(|error| error.in_column(column.position.line, column.position.column))?;
    let delete = match options.get(DELETE_BEHAVIOR) {
        Some("disable") => DeleteBehavior::Disable,
        _ => DeleteBehavior::Ignore,
    };
    Ok(MergeSpec::new(key.to_vec(), MergeEngine::FirstRow, delete))
}
fn check_columns(create: &CreateTable, place: usize, data_type: &DataType, key: &[usize]) -> Result<()> {
    let columns = &create.schema.columns;
    let name = &columns[place].name;
    if let Some(other) = columns[place + 1..].iter().find(|column| column.kind == ColumnKind::AutoIncrement) {
        return Err(EngineError::new(
            format!("table \"{}\" has two AUTO_INCREMENT columns, \"{name}\" and \"{}\"", create.name, other.name),
            "keep one of them: a key has one number",
        ));
    }
    if *data_type != DataType::BigInt {
        return Err(EngineError::new(format!("AUTO_INCREMENT column \"{name}\" is {data_type}"), "make it BIGINT"));
    }
    if key.is_empty() {
        return Err(EngineError::new(
            format!("table \"{}\" has no PRIMARY KEY that AUTO_INCREMENT column \"{name}\" could number", create.name),
            "declare PRIMARY KEY (..) NOT ENFORCED over the other columns",
        ));
    }
    if key.contains(&place) {
        return Err(EngineError::new(
            format!("AUTO_INCREMENT column \"{name}\" is part of the PRIMARY KEY, which it numbers"),
            "leave it out of the key",
        ));
    }
    let is_key = |at: usize| key.contains(&at) && matches!(columns[at].kind, ColumnKind::Physical { .. });
    match (0..columns.len()).find(|at| *at != place && !is_key(*at)) {
        None => Ok(()),
        Some(other) => Err(EngineError::new(
            format!("a table with AUTO_INCREMENT has its key and its number; column \"{}\" is neither", columns[other].name),
            "keep it in a table of its own with the same key, and join the two",
        )),
    }
}
fn check_options(column: &ColumnDef, options: &ConnectorOptions) -> Result<()> {
    let name = &column.name;
    if options.connector().is_some() {
        return Err(EngineError::new(
            format!("a table with AUTO_INCREMENT column \"{name}\" has no connector"),
            "declare the connector's table without it, and insert the keys from there: INSERT INTO t (key) SELECT ..",
        ));
    }
    let by_arrival = options.get(MERGE_ENGINE).is_none_or(|engine| engine == "first_row");
    if !by_arrival || options.get("table.merge-engine.first_row.order-column").is_some() {
        return Err(EngineError::new(
            format!("AUTO_INCREMENT column \"{name}\" gives a number once, to the first row of a key"),
            "make 'table.merge-engine' 'first_row' without an order column, or leave it out for one-shot inserts",
        ));
    }
    for (option, refused) in [(RETENTION, options.get(RETENTION).is_some()), (DELETE_BEHAVIOR, allows_deletes(options))] {
        if refused {
            return Err(EngineError::new(
                format!("numbers are for ever: a table with AUTO_INCREMENT column \"{name}\" cannot have '{option}'"),
                "leave out the option; deletes are ignored, and counted in SHOW ERRORS",
            ));
        }
    }
    Ok(())
}
fn allows_deletes(options: &ConnectorOptions) -> bool {
    options.get(DELETE_BEHAVIOR).is_some_and(|behavior| !matches!(behavior, "ignore" | "disable"))
}
