//! REPAIR TABLE: rows made from dead letters are folded into their table, and the letters go, as one tick.
//!
//! The last three columns of the query say of which letter a row is made: source, partition and position. A letter that several
//! rows are made of goes once; of several letters of one place, as after a file was copied twice, one goes per row.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use deltaworks_dataflow::row::{project, split_field};
use deltaworks_dataflow::{CommandKind, DataType, Datum, Diff, Row};
use deltaworks_sql::parser::{Body, Name, rewrite};

use crate::catalog::Table;
use crate::create::columns_help;
use crate::error::EngineError;
use crate::query::{Answered, short};
use crate::script::Engine;
use crate::write::{cast_column, check_not_null};

type Result<T> = std::result::Result<T, EngineError>;

/// The columns that name a letter, at the front of a dead-letter table and at the end of the query.
const PLACE: [(&str, DataType); 3] =
    [("source", DataType::String), ("partition", DataType::Int), ("position", DataType::BigInt)];

impl Engine {
    /// REPAIR TABLE. Returns how many rows were folded in, and how many letters went.
    pub(crate) fn repair(&mut self, name: &Name, body: &Body) -> Result<(usize, usize)> {
        self.check_names(std::slice::from_ref(name))?;
        let qualified = self.catalog.qualify(name);
        let Some(table) = self.catalog.get(&qualified).and_then(|entry| entry.table()).cloned() else {
            return Err(EngineError::new(
                format!("\"{}\" is no table and has no dead letters", name.object()),
                "repair the table whose source or statement rejected the rows",
            ));
        };
        let errors = format!("{qualified}$errors");
        let mut query = body.query.clone();
        rewrite(&mut *query)?;
        let mut names = self.check_reads(body)?;
        names.push(Name::new(errors.split('.')));
        let plan = repaired_plan(&table, self.session.logical_plan(&query)?)?;
        let Answered { result: repaired, failures } = self.run(plan, &names)?;
        let (rows, places) = self.checked(&table, &repaired.rows)?;
        let letters = self.letters_at(&errors, places)?;
        let counts = (rows.len(), letters.len());
        let taken = letters.into_iter().map(|letter| (letter, -1)).collect();
        self.write_with_letters(&qualified, &table, rows, taken)?;
        self.count_failures(&qualified, failures);
        self.uncount_letters(&qualified, &table, counts.1 as u64);
        Ok(counts)
    }
    /// Letters that are gone count no longer, wherever they were counted.
    fn uncount_letters(&mut self, name: &str, table: &Table, mut gone: u64) {
        for counted in [&mut self.sources.progress.dead, &mut self.rejected] {
            if let Some(count) = counted.get_mut(name) {
                let taken = gone.min(*count);
                *count -= taken;
                gone -= taken;
            }
        }
        let rejected = &table.letters.counts.rejected;
        // The workers only add to it.
        rejected.fetch_sub(gone.min(rejected.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
    /// The rows to fold in, and per place of letters how many rows are made of them.
    #[expect(clippy::type_complexity, reason = "two lists of plain parts")]
    fn checked(&self, table: &Table, repaired: &[Row]) -> Result<(Vec<(CommandKind, Row)>, BTreeMap<Row, usize>)> {
        let delivered = table.delivered_schema();
        let (mut rows, mut places) = (Vec::new(), BTreeMap::new());
        for row in repaired {
            let mut rest = &row[..];
            for _ in 0..delivered.len() {
                split_field(&mut rest);
            }
            let new = Row::from_bytes(&row[..row.len() - rest.len()]);
            check_not_null(&delivered, &new)?;
            rows.push((CommandKind::Upsert, new));
            *places.entry(Row::from_bytes(rest)).or_default() += 1;
        }
        Ok((rows, places))
    }
    /// The letters at these places, for each at most as many as there are rows.
    fn letters_at(&mut self, errors: &str, mut places: BTreeMap<Row, usize>) -> Result<Vec<Row>> {
        let Some(entry) = self.catalog.get(errors).cloned() else { return Ok(Vec::new()) };
        let mut letters = Vec::new();
        let mut found: BTreeMap<Row, Diff> = BTreeMap::new();
        for letter in self.rows_of(errors, &entry)? {
            let mut place = Vec::new();
            project(&letter, &[0, 1, 2], &mut place);
            let place = Row::from_bytes(&place);
            if let Some(left) = places.get_mut(&place) {
                *found.entry(place).or_default() += 1;
                if *left > 0 {
                    *left -= 1;
                    letters.push(letter);
                }
            }
        }
        match places.keys().find(|place| !found.contains_key(*place)) {
            None => Ok(letters),
            Some(place) => Err(EngineError::new(
                format!("\"{}\" has no dead letter at {}", short(errors), shown(place)),
                format!("nothing was written; end the select list with source, partition, position of {}", short(errors)),
            )),
        }
    }
}

/// The query's columns as the table's delivered ones, cast, followed by the place of the letter.
fn repaired_plan(table: &Table, plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let given = columns.len().saturating_sub(PLACE.len());
    let whole = given == table.schema.len();
    if columns.len() < PLACE.len() || !(whole || given == table.delivered.len()) {
        return Err(EngineError::new(
            format!("REPAIR TABLE has {} columns for {} and source, partition, position", columns.len(), table.schema.len()),
            columns_help(&table.schema),
        ));
    }
    let mut expressions = Vec::new();
    for (index, place) in table.delivered.iter().enumerate() {
        let cast = cast_column(&plan, if whole { *place } else { index }, &table.schema.columns[*place].data_type);
        expressions.push(cast.alias(format!("column {index}")));
    }
    for ((name, data_type), column) in PLACE.iter().zip(&columns[given..]) {
        expressions.push(cast(Expr::Column(column.clone()), data_type.to_arrow()).alias(*name));
    }
    Ok(LogicalPlanBuilder::from(plan).project(expressions)?.build()?)
}
fn shown(place: &[u8]) -> String {
    let mut rest = place;
    let fields = PLACE.iter().map(|(name, data_type)| match Datum::decode(&mut rest, data_type) {
        Datum::Str(text) => format!("{name} '{text}'"),
        Datum::Int(number) => format!("{name} {number}"),
        _ => format!("{name} NULL"),
    });
    fields.collect::<Vec<_>>().join(", ")
}
