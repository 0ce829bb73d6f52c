//! The identity function: IDENTITY(links) and IDENTITY_HISTORY(links) are tables, made when a statement first reads one of them.
//!
//! All queries on the same links read the same two, `<links>$identity` and `<links>$identity_history`, which one operator keeps.
//! They go with their links. The history begins where the operator does: with the first dataflow that reads either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltaworks_dataflow::row::{is_null_field, split_field, split_fields};
use deltaworks_dataflow::{Column, DataType, Row, Schema};
use deltaworks_sql::explain::Behind;
use deltaworks_sql::parser::{Body, Identity, Name, Spanned, Statement, identities, parse_script};
use deltaworks_sql::plan::{ComponentRows, Components, Node, Plan};
use deltaworks_sql::render::check_lookups;

use crate::catalog::{Catalog, Kind, View};
use crate::create::columns_help;
use crate::error::EngineError;
use crate::query::{Continuous, RowsFor, short};
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

/// The columns of links that name none.
const COLUMNS: [&str; 3] = ["id_a", "id_b", "first_seen"];
const FORM: &str = "name the columns: IDENTITY(links, id_a, id_b, first_seen)";

/// The entry that a table of one ids has its history in; None for any other entry.
pub(crate) fn history_of(name: &str) -> Option<String> {
    let identity = Identity::of(&Name::new(name.split('.')))?;
    (!identity.history).then(|| identity.replaced().parts().join("."))
}
/// The entry that an entry is computed with: a history's is its table of one ids.
pub(crate) fn one_ids_of(name: &str) -> Option<String> {
    let identity = Identity::of(&Name::new(name.split('.')))?;
    identity.history.then(|| identity.one_ids().parts().join("."))
}

impl Engine {
    /// Makes what a statement reads of the identity function and nobody read before.
    pub(crate) fn make_identities(&mut self, statement: &Spanned<Statement>) -> Result<()> {
        for read in identities(&statement.node) {
            let made = if read.of_common_table {
                Err(of_common_table(&read.identity.links))
            } else {
                self.make_identity(&read.identity, statement)
            };
            made.map_err(|error| error.in_column(read.position.line, read.position.column))?;
        }
        Ok(())
    }
    fn make_identity(&mut self, identity: &Identity, statement: &Spanned<Statement>) -> Result<()> {
        let name = self.catalog.qualify(&identity.one_ids());
        if self.catalog.get(&name).is_some() {
            return Ok(());
        }
        self.check_names(std::slice::from_ref(&identity.links))?;
        let links = self.catalog.get(&self.catalog.qualify(&identity.links)).and_then(|entry| entry.schema());
        let links = links.cloned().unwrap_or_default();
        let table = &identity.links;
        let columns = columns(table, identity.columns.as_ref(), &links)?;
        check_types(table, &columns)?;
        let Continuous { plan: links, logical, .. } = self.links(identity, &columns)?;
        let mut reads = BTreeSet::new();
        Catalog::reads(&links, &mut reads);
        self.check_streams_ahead(&reads)?;
        let id = columns[0].data_type.clone();
        let one_ids = schema(&[("id", &id), ("one_id", &id)]);
        let node = Node::Components(Box::new(Components { links, rows: ComponentRows::OneIds }));
        let view = View {
            plan: Plan::new(node, one_ids.clone()),
            schema: one_ids,
            key: vec![0],
            single_row: false,
            append_only: false,
            in_chunks: Vec::new(),
            stamp: None,
            errors_input: None,
            calls: Vec::new(),
            logical: Arc::new(logical),
        };
        self.add(&name, Kind::Dynamic(Box::new(view)), statement)?;
        let history = schema(&[("old_id", &id), ("new_id", &id), ("changed_at", &DataType::TimestampLtz)]);
        self.add(&self.catalog.qualify(&identity.replaced()), Kind::History(history), statement)
    }
    /// The plan of the links.
    fn links(&mut self, identity: &Identity, columns: &[Column; 3]) -> Result<Continuous> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        let table: Vec<String> = identity.links.parts().iter().map(|part| quoted(part)).collect();
        let text = format!("SELECT {} FROM {}", names.join(", "), table.join("."));
        let Some(Statement::Query(body)) = parse_script(&text)?.pop().map(|statement| statement.node) else {
            return Err(EngineError::new(format!("table \"{}\" cannot be read", identity.links), ""));
        };
        let continuous = self.continuous(&Body { hints: Vec::new(), ..body }, RowsFor::Others)?;
        check_lookups(&continuous.plan, &[])?;
        if continuous.stamp.is_some() || !continuous.calls.is_empty() {
            return Err(EngineError::new(
                format!("the links of view \"{}\" are not a function of tables", identity.links),
                "insert them into a table, and take the identity of that",
            ));
        }
        Ok(continuous)
    }
    /// The operator that keeps a table of one ids or their history, for EXPLAIN.
    pub(crate) fn identity_behind(&self, table: &str) -> Option<Behind> {
        let one_ids = one_ids_of(table).unwrap_or_else(|| table.to_string());
        let rows = if one_ids == table { ComponentRows::OneIds } else { ComponentRows::History };
        let Kind::Dynamic(view) = &self.catalog.get(&one_ids)?.kind else { return None };
        let Node::Components(components) = &view.plan.node else { return None };
        let node = Node::Components(Box::new(Components { rows, ..(**components).clone() }));
        let readers = self.catalog.readers(&one_ids).iter().map(|name| short(name).to_string()).collect();
        Some(Behind { plan: Plan::new(node, self.catalog.get(table)?.schema()?.clone()), readers })
    }
}

/// The error that links are part of a statement, where an operator that statements share cannot read them.
fn of_common_table(links: &Name) -> EngineError {
    EngineError::new(
        format!("IDENTITY cannot be of \"{links}\", which WITH defines"),
        "make it a view, CREATE VIEW .. AS SELECT .., and take the identity of that",
    )
}
fn schema(columns: &[(&str, &DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(name, data_type)| Column::new(*name, (*data_type).clone())).collect())
}
/// The columns of the links: those that are named, else those of the usual names, else the first three.
fn columns(table: &Name, named: Option<&[String; 3]>, links: &Schema) -> Result<[Column; 3]> {
    let of = |name: &str| links.index_of(name).map(|place| links.columns[place].clone());
    if let Some(named) = named {
        let known = |name: &String| {
            of(name)
                .ok_or_else(|| EngineError::new(format!("table \"{table}\" has no column \"{name}\""), columns_help(links)))
        };
        return Ok([known(&named[0])?, known(&named[1])?, known(&named[2])?]);
    }
    match (COLUMNS.map(of), &links.columns[..]) {
        ([Some(a), Some(b), Some(seen)], _) => Ok([a, b, seen]),
        (_, [a, b, seen, ..]) => Ok([a.clone(), b.clone(), seen.clone()]),
        (_, columns) => {
            let count = columns.len();
            let message = format!("table \"{table}\" has {count} columns: a link is two ids, and when it was first seen");
            Err(EngineError::new(message, "add what is missing in a view, and take the identity of that"))
        }
    }
}
fn check_types(table: &Name, [a, b, seen]: &[Column; 3]) -> Result<()> {
    use DataType::{Array, Bitmap, Date, Double, Float, Struct, Timestamp, TimestampLtz};
    if let Some(id) = [a, b].into_iter().find(|id| matches!(id.data_type, Float | Double | Array(_) | Struct(_) | Bitmap)) {
        return Err(EngineError::new(
            format!("column \"{}\" of table \"{table}\" is {}, which is no id", id.name, id.data_type),
            format!("cast it to STRING or BIGINT in a view and take the identity of that, or {FORM}"),
        ));
    }
    if a.data_type != b.data_type {
        return Err(EngineError::new(
            format!("ids \"{}\" and \"{}\" of table \"{table}\" are {} and {}", a.name, b.name, a.data_type, b.data_type),
            format!("cast one in a view and take the identity of that, or {FORM}"),
        ));
    }
    if !matches!(seen.data_type, Timestamp | TimestampLtz | Date) {
        return Err(EngineError::new(
            format!("column \"{}\" of table \"{table}\" is {} and no time of first sight", seen.name, seen.data_type),
            format!("cast it to TIMESTAMP in a view and take the identity of that, or {FORM}"),
        ));
    }
    Ok(())
}

/// (id, one id) of all members, from all links at once: the batch evaluation of tests.
pub(crate) fn one_ids_of_links(links: &[Row]) -> Vec<Row> {
    let mut seen: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    let mut pairs = Vec::new();
    for link in links {
        let (ids, first_seen) = split_fields(link, 2);
        let mut rest = ids;
        let ends = [split_field(&mut rest), split_field(&mut rest)].map(|id| (!is_null_field(id)).then_some(id));
        for id in ends.into_iter().flatten() {
            let first = seen.entry(id).or_insert(first_seen);
            *first = (*first).min(first_seen);
        }
        if let [Some(a), Some(b)] = ends {
            pairs.push((a, b));
        }
    }
    // Each member takes the older one's id over its links until nothing changes.
    let mut oldest: BTreeMap<&[u8], (&[u8], &[u8])> = seen.iter().map(|(id, seen)| (*id, (*seen, *id))).collect();
    loop {
        let before = oldest.clone();
        for (a, b) in &pairs {
            let older = oldest[a].min(oldest[b]);
            oldest.insert(*a, older);
            oldest.insert(*b, older);
        }
        if oldest == before {
            break;
        }
    }
    oldest.iter().map(|(id, (_, one_id))| Row::from_bytes(&[*id, *one_id].concat())).collect()
}
