//! Debezium's change envelope as Avro: a record with `before`, `after` and `op`, among others. What it does stands in `change.rs`.
//!
//! The images are left where they lie until `op`, which follows them, is known.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deltaworks_dataflow::{DataType, Datum};

use super::cursor::{Broken, Cursor};
use super::read::{self, Columns, Failure, Values};
use super::registry::Registry;
use super::schema::{Kind, WriterSchema};
use super::{CHANGES, Schemas, check_end, split};
use crate::decode::{Prepared, Slots, TableFormat, Target};
use crate::error::{Error, Result as SetupResult};
use crate::format::change::{self, Images};
use crate::format::json::{Conversion, Field};
use crate::format::{RecordFormat, Reject};
use crate::record::Record;

/// Records that are Debezium envelopes.
pub(crate) struct DebeziumAvro {
    fields: Vec<Field>,
    schemas: Schemas<Plan>,
}

/// What a schema holds of an envelope.
struct Plan {
    schema: WriterSchema,
    /// The fields of the record; None where it is none.
    parts: Option<Vec<Part>>,
    /// The record itself as a row, where it was flattened on its way.
    flattened: Columns,
    is_heartbeat: bool,
}
/// A field of an envelope.
struct Part {
    name: String,
    node: usize,
    /// Of an image, where its fields go.
    columns: Option<Columns>,
}

impl Plan {
    fn new(schema: WriterSchema, fields: &[Field]) -> Plan {
        let part = |(name, node): &(String, usize)| {
            let is_image = matches!(name.as_str(), "before" | "after");
            let columns = is_image.then(|| Columns::new(&schema, *node, fields, false));
            Part { name: name.clone(), node: *node, columns }
        };
        let record = schema.record(schema.root());
        let parts = record.map(|record| record.iter().map(part).collect());
        let is_heartbeat = record.is_some_and(|record| !record.is_empty() && record.iter().all(|(name, _)| name == "ts_ms"));
        Plan { flattened: Columns::new(&schema, schema.root(), fields, false), parts, is_heartbeat, schema }
    }
}

/// What was found in an envelope.
#[derive(Default)]
struct Found<'a> {
    op: Option<String>,
    flat_op: Option<String>,
    flat_deleted: Option<String>,
    before: Option<Image<'a>>,
    after: Option<Image<'a>>,
}
/// The bytes of an image, and how they are read.
#[derive(Clone, Copy)]
struct Image<'a> {
    bytes: &'a [u8],
    columns: &'a Columns,
}
/// Reads images of one schema.
struct ImageReader<'p> {
    schema: &'p WriterSchema,
    fields: &'p [Field],
}
impl<'a> Images<Image<'a>> for ImageReader<'_> {
    fn read(&mut self, image: Image<'a>, slots: &mut Slots) -> Result<(), Reject> {
        read::row(self.schema, image.columns, self.fields, &mut Cursor::new(image.bytes), slots)
    }
    fn fields(&self) -> &[Field] {
        self.fields
    }
}

impl DebeziumAvro {
    pub(crate) fn new(table: &TableFormat) -> SetupResult<DebeziumAvro> {
        if table.key.is_empty() && !table.metadata.is_empty() {
            let reason = "without a key a row is found again by all its columns, and metadata differ from record to record";
            return Err(Error::Columns { format: CHANGES, reason: reason.to_owned() });
        }
        let mut fields = table.in_value()?;
        for field in &mut fields {
            field.conversion = Conversion { database: true, ..Conversion::default() };
        }
        Ok(DebeziumAvro { fields, schemas: Schemas::new(Registry::from_options(&table.options, CHANGES)?) })
    }
}

impl RecordFormat for DebeziumAvro {
    fn decode(&mut self, record: &Record<'_>, target: &mut Target<'_>) -> Result<(), Reject> {
        let Some(value) = record.value else { return change::tombstone(target) };
        let (id, body) = split(value)?;
        let plan = self.schemas.plan(id)?;
        let Some(parts) = &plan.parts else { return Err(change::no_envelope()) };
        if plan.is_heartbeat {
            target.ignore();
            return Ok(());
        }
        let found = find(&plan.schema, parts, body)?;
        let mut images = ImageReader { schema: &plan.schema, fields: &self.fields };
        if let Some(op) = &found.op {
            return change::apply(&mut images, op, found.before, found.after, target);
        }
        if found.flat_op.is_none() && found.flat_deleted.is_none() {
            return Err(change::no_envelope());
        }
        let deleted = found.flat_deleted.as_deref() == Some("true") || found.flat_op.as_deref() == Some("d");
        change::flattened(&mut images, Image { bytes: body, columns: &plan.flattened }, deleted, target)
    }
    fn open(&mut self, stop: &Arc<AtomicBool>) -> SetupResult<()> {
        self.schemas.registry.open(stop)
    }
    fn prepare(&mut self, values: &mut dyn Iterator<Item = &[u8]>) -> Prepared {
        let fields = &self.fields;
        self.schemas.prepare(values, |schema| Plan::new(schema, fields))
    }
}

/// Walks through an envelope.
fn find<'a>(schema: &'a WriterSchema, parts: &'a [Part], body: &'a [u8]) -> Result<Found<'a>, Reject> {
    let values = Values { schema };
    let mut cursor = Cursor::new(body);
    let mut found = Found::default();
    for Part { name, node, columns } in parts {
        let broken = |Broken(reason)| Reject::field(name, reason);
        if let Some(columns) = columns {
            let mut ahead = cursor.clone();
            let is_there = !matches!(schema.node(values.branch(*node, &mut ahead).map_err(broken)?).kind, Kind::Null);
            let start = cursor.at();
            values.skip(*node, &mut cursor, 0).map_err(broken)?;
            let image = is_there.then(|| Image { bytes: cursor.since(start), columns });
            *(if name == "before" { &mut found.before } else { &mut found.after }) = image;
            continue;
        }
        let text = match name.as_str() {
            "op" => &mut found.op,
            "__op" => &mut found.flat_op,
            "__deleted" => &mut found.flat_deleted,
            _ => {
                values.skip(*node, &mut cursor, 0).map_err(broken)?;
                continue;
            }
        };
        *text = word(&values, *node, &mut cursor).map_err(|reason| Reject::field(name, reason))?;
    }
    check_end(&cursor)?;
    Ok(found)
}
/// A field that is read as text.
fn word(values: &Values<'_>, node: usize, cursor: &mut Cursor<'_>) -> Result<Option<String>, String> {
    match values.datum(node, &DataType::String, Conversion::default(), cursor, 1) {
        Ok(Datum::Str(text)) => Ok(Some(text.into_owned())),
        Ok(_) | Err(Failure::Unavailable) => Ok(None),
        Err(Failure::Wrong(_, reason) | Failure::Broken(Broken(reason))) => Err(reason),
    }
}
