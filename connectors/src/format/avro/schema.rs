//! The schema that a message was written with, as a table of nodes that refer to each other by number.
//!
//! The crate `apache_avro` parses it: names, namespaces and logical types are its business. What it does not keep is read from
//! the schema's text beside it: `connect.name`, by which Kafka Connect and Debezium say what a number counts. Defaults are left out
//! before: they are for readers that have a schema of their own, and a wrong one does not matter here.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::InnerDecimalSchema;
use serde_json::Value;

use crate::format::debezium::time_unit;
use crate::format::json::TimeUnit;

/// A parsed schema.
#[derive(Clone, Debug)]
pub(super) struct WriterSchema {
    nodes: Vec<Node>,
    root: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) meaning: Meaning,
}

/// How a value is written. Numbers are those of nodes.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(String, usize)>),
}

/// What a value stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Itself.
    Plain,
    /// Unscaled bytes of a number with this scale.
    Decimal(i32),
    /// Unscaled bytes of a number, and its scale.
    BigDecimal,
    /// A record of both.
    VariableDecimal,
    /// A day or point in time, since 1970.
    Instant(TimeUnit, Zone),
    /// The time since midnight.
    TimeOfDay(TimeUnit),
    /// A length of time.
    Span(TimeUnit),
    /// Months, days and milliseconds.
    Duration,
    Uuid,
}
/// Whether a point in time is one everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    Utc,
    Local,
}

impl WriterSchema {
    /// Parses a schema's text.
    pub(super) fn parse(text: &str) -> Result<WriterSchema, String> {
        let mut json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        leave_out_defaults(&mut json);
        let schema = Schema::parse(&json).map_err(|error| error.to_string())?;
        let mut builder = Builder { nodes: Vec::new(), names: HashMap::new() };
        let root = builder.node(&schema, &json, None)?;
        Ok(WriterSchema { nodes: builder.nodes, root })
    }
    pub(super) fn root(&self) -> usize {
        self.root
    }
    pub(super) fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }
    /// The fields of a record; of others None.
    pub(super) fn record(&self, number: usize) -> Option<&[(String, usize)]> {
        match &self.node(number).kind {
            Kind::Record(fields) => Some(fields),
            _ => None,
        }
    }
    /// What a value may be: the branches of a union, else itself.
    pub(super) fn branches(&self, number: usize) -> Vec<usize> {
        match &self.node(number).kind {
            Kind::Union(branches) => branches.clone(),
            _ => vec![number],
        }
    }
}

fn leave_out_defaults(json: &mut Value) {
    match json {
        Value::Array(parts) => parts.iter_mut().for_each(leave_out_defaults),
        Value::Object(parts) => {
            parts.remove("default");
            parts.values_mut().for_each(leave_out_defaults);
        }
        _ => {}
    }
}

struct Builder {
    nodes: Vec<Node>,
    /// Records, enums and fixed by full name.
    names: HashMap<String, usize>,
}

impl Builder {
    fn node(&mut self, schema: &Schema, json: &Value, namespace: Option<&str>) -> Result<usize, String> {
        let json = Annotated::new(json);
        if let Schema::Ref { name } = schema {
            let name = name.fullname(namespace);
            return self.names.get(&name).copied().ok_or_else(|| format!("\"{name}\" is not defined"));
        }
        let number = self.nodes.len();
        // A record may hold itself, so it has a number before it has fields.
        self.nodes.push(Node { kind: Kind::Null, meaning: Meaning::Plain });
        let full_name = schema.name().map(|name| name.fully_qualified_name(namespace).into_owned());
        if let Some(name) = &full_name {
            self.names.insert(name.fullname(None), number);
        }
        let inner = full_name.as_ref().and_then(|name| name.namespace()).or(namespace);
        let kind = self.kind(schema, &json, inner)?;
        let record_name = full_name.as_ref().map(|name| name.fullname(None));
        let meaning = json.meaning(schema, record_name.as_deref());
        self.nodes[number] = Node { kind, meaning };
        Ok(number)
    }
    fn kind(&mut self, schema: &Schema, json: &Annotated<'_>, namespace: Option<&str>) -> Result<Kind, String> {
        Ok(match schema {
            Schema::Null => Kind::Null,
            Schema::Boolean => Kind::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Kind::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Kind::Long,
            Schema::Float => Kind::Float,
            Schema::Double => Kind::Double,
            Schema::String => Kind::String,
            Schema::Bytes | Schema::BigDecimal => Kind::Bytes,
            Schema::Fixed(fixed) | Schema::Duration(fixed) => Kind::Fixed(fixed.size),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Kind::Bytes,
                InnerDecimalSchema::Fixed(fixed) => Kind::Fixed(fixed.size),
            },
            Schema::Uuid(uuid) => match uuid {
                apache_avro::schema::UuidSchema::String => Kind::String,
                apache_avro::schema::UuidSchema::Bytes => Kind::Bytes,
                apache_avro::schema::UuidSchema::Fixed(fixed) => Kind::Fixed(fixed.size),
            },
            Schema::Enum(symbols) => Kind::Enum(symbols.symbols.clone()),
            Schema::Array(array) => Kind::Array(self.node(&array.items, json.part("items"), namespace)?),
            Schema::Map(map) => Kind::Map(self.node(&map.types, json.part("values"), namespace)?),
            Schema::Union(union) => {
                let branch = |(index, branch)| self.node(branch, json.item(index), namespace);
                Kind::Union(union.variants().iter().enumerate().map(branch).collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let texts = json.part("fields");
                let mut fields = Vec::with_capacity(record.fields.len());
                for (index, field) in record.fields.iter().enumerate() {
                    let text = texts.get(index).and_then(|text| text.get("type")).unwrap_or(&Value::Null);
                    fields.push((field.name.clone(), self.node(&field.schema, text, namespace)?));
                }
                Kind::Record(fields)
            }
            Schema::Ref { name } => return Err(format!("\"{}\" is not defined", name.fullname(namespace))),
        })
    }
}

/// A schema's text, with what Kafka Connect notes on it.
struct Annotated<'j> {
    json: &'j Value,
    connect_name: Option<&'j str>,
    connect_scale: Option<i32>,
}

impl<'j> Annotated<'j> {
    fn new(mut json: &'j Value) -> Self {
        let (mut connect_name, mut connect_scale) = (None, None);
        loop {
            connect_name = connect_name.or_else(|| json.get("connect.name")?.as_str());
            let scale = || json.get("connect.parameters")?.get("scale")?.as_str()?.parse().ok();
            connect_scale = connect_scale.or_else(scale);
            // A type may stand in an object of its own, or in several.
            match json.get("type") {
                Some(inner @ (Value::Object(_) | Value::Array(_))) => json = inner,
                _ => return Annotated { json, connect_name, connect_scale },
            }
        }
    }
    fn part(&self, name: &str) -> &'j Value {
        self.json.get(name).unwrap_or(&Value::Null)
    }
    fn item(&self, index: usize) -> &'j Value {
        self.json.get(index).unwrap_or(&Value::Null)
    }
    fn meaning(&self, schema: &Schema, record_name: Option<&str>) -> Meaning {
        match schema {
            Schema::Date => Meaning::Instant(TimeUnit::Days, Zone::Local),
            Schema::TimeMillis => Meaning::TimeOfDay(TimeUnit::Millis),
            Schema::TimeMicros => Meaning::TimeOfDay(TimeUnit::Micros),
            Schema::TimestampMillis => Meaning::Instant(TimeUnit::Millis, Zone::Utc),
            Schema::TimestampMicros => Meaning::Instant(TimeUnit::Micros, Zone::Utc),
            Schema::TimestampNanos => Meaning::Instant(TimeUnit::Nanos, Zone::Utc),
            Schema::LocalTimestampMillis => Meaning::Instant(TimeUnit::Millis, Zone::Local),
            Schema::LocalTimestampMicros => Meaning::Instant(TimeUnit::Micros, Zone::Local),
            Schema::LocalTimestampNanos => Meaning::Instant(TimeUnit::Nanos, Zone::Local),
            Schema::Decimal(decimal) => Meaning::Decimal(i32::try_from(decimal.scale).unwrap_or(i32::MAX)),
            Schema::BigDecimal => Meaning::BigDecimal,
            Schema::Uuid(_) => Meaning::Uuid,
            Schema::Duration(_) => Meaning::Duration,
            Schema::Int | Schema::Long => self.connect_name.map_or(Meaning::Plain, counted),
            Schema::Bytes | Schema::Fixed(_) => match (self.connect_name, self.connect_scale) {
                (Some("org.apache.kafka.connect.data.Decimal"), Some(scale)) => Meaning::Decimal(scale),
                _ => Meaning::Plain,
            },
            Schema::Record(_) => {
                let variable = "io.debezium.data.VariableScaleDecimal";
                let is_variable = [self.connect_name, record_name].contains(&Some(variable));
                if is_variable { Meaning::VariableDecimal } else { Meaning::Plain }
            }
            _ => Meaning::Plain,
        }
    }
}
/// What a number counts, by the name that Kafka Connect gives its type.
fn counted(connect_name: &str) -> Meaning {
    match connect_name {
        "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Meaning::TimeOfDay(TimeUnit::Millis),
        "io.debezium.time.MicroTime" => Meaning::TimeOfDay(TimeUnit::Micros),
        "io.debezium.time.NanoTime" => Meaning::TimeOfDay(TimeUnit::Nanos),
        "io.debezium.time.MicroDuration" => Meaning::Span(TimeUnit::Micros),
        "io.debezium.time.NanoDuration" => Meaning::Span(TimeUnit::Nanos),
        name => time_unit(name).map_or(Meaning::Plain, |unit| Meaning::Instant(unit, Zone::Local)),
    }
}
