//! CREATE and DROP: entries of the catalog come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::catalog::view::ViewTable;
use deltaworks_connectors::decode::DeadLetter;
use deltaworks_sql::external::CallSite;
use deltaworks_sql::lower::check_query;
use deltaworks_sql::lower::unique::unique_columns;
use deltaworks_sql::parser::{
    CreateDynamicTable, CreateTable, CreateView, DropObject, Identity, LOOKUP_SUFFIX, Name, ObjectKind, Spanned, Statement,
};
use deltaworks_sql::render::check_lookups;

use crate::catalog::{self, Catalog, Entry, Kind, View};
use crate::create;
use crate::error::EngineError;
use crate::identity::history_of;
use crate::query::{RowsFor, short, shown_schema};
use crate::script::Engine;
use crate::snapshot::SnapshotTable;

type Result<T> = std::result::Result<T, EngineError>;

impl Engine {
    pub(crate) fn create_schema(&mut self, name: &Name, if_not_exists: bool) -> Result<()> {
        if !self.catalog.schemas.insert(name.object().to_string()) && !if_not_exists {
            return Err(EngineError::new(
                format!("schema \"{}\" exists already", name.object()),
                "leave the statement out or write CREATE SCHEMA IF NOT EXISTS",
            ));
        }
        Ok(self.session.create_schema(name.object())?)
    }
    pub(crate) fn use_schema(&mut self, name: &Name) -> Result<()> {
        if !self.catalog.schemas.contains(name.object()) {
            return Err(EngineError::new(
                format!("schema \"{}\" does not exist", name.object()),
                format!("create it first: CREATE SCHEMA {}", name.object()),
            ));
        }
        self.catalog.current = name.object().to_string();
        Ok(self.session.use_schema(name.object())?)
    }
    /// The qualified name for a new entry; None where it exists and may.
    fn new_name(&mut self, name: &Name, if_not_exists: bool, or_replace: bool) -> Result<Option<String>> {
        let qualified = self.catalog.qualify(name);
        let schema = qualified.split('.').next().unwrap_or_default().to_string();
        if !self.catalog.schemas.contains(&schema) {
            return Err(EngineError::new(
                format!("schema \"{schema}\" does not exist"),
                format!("create it first: CREATE SCHEMA {schema}"),
            ));
        }
        let Some(entry) = self.catalog.get(&qualified) else { return Ok(Some(qualified)) };
        if if_not_exists {
            return Ok(None);
        }
        let noun = entry.noun();
        if or_replace {
            return Ok(Some(qualified));
        }
        Err(EngineError::new(
            format!("{noun} \"{}\" exists already", name.object()),
            "drop it first, or give this one another name",
        ))
    }
    /// Makes room for a definition that was planned and replaces this one.
    fn replace(&mut self, name: &str, reads: &BTreeSet<String>) -> Result<()> {
        if self.catalog.get(name).is_none() {
            return Ok(());
        }
        if self.catalog.closure(reads.iter().cloned()).contains(name) {
            return Err(EngineError::new(
                format!("\"{}\" would depend on itself", short(name)),
                "give the new one another name",
            ));
        }
        self.remove(name, false)
    }
    /// The input of the dead letters of a view that calls external functions.
    fn letters_of(&mut self, calls: &[CallSite]) -> Option<u32> {
        if calls.is_empty() {
            return None;
        }
        self.next_input += 1;
        Some(self.next_input - 1)
    }
    pub(crate) fn add(&mut self, name: &str, kind: Kind, statement: &Spanned<Statement>) -> Result<()> {
        let (position, statement) = ((statement.line, statement.column), statement.shown());
        let mut entry = Entry {
            kind,
            statement,
            position,
            snapshot: None,
            dataflow: None,
            kept: None,
            failures: BTreeMap::new(),
            refused: None,
        };
        if let (Some(schema), false) = (entry.schema(), matches!(entry.kind, Kind::Inlined(..))) {
            let snapshot = SnapshotTable::new(schema);
            let handle = Name::new(name.split('.'));
            self.session.register_table(&handle, snapshot.clone())?;
            self.session.register_table(&lookup_handle(name), snapshot.clone())?;
            entry.snapshot = Some(snapshot);
        }
        self.catalog.entries.insert(name.to_string(), entry);
        Ok(())
    }
    pub(crate) fn create_table(&mut self, create: &CreateTable, statement: &Spanned<Statement>) -> Result<()> {
        let Some(name) = self.new_name(&create.name, create.if_not_exists, false)? else { return Ok(()) };
        let table = create::table(&self.session, create, self.clock.is_of_records(), &mut self.next_input)?;
        self.add(&name, Kind::Table(Box::new(table)), statement)?;
        self.add(&format!("{name}$errors"), Kind::Errors(DeadLetter::schema()), statement)
    }
    pub(crate) fn create_view(&mut self, create: &CreateView, statement: &Spanned<Statement>) -> Result<()> {
        let Some(name) = self.new_name(&create.name, create.if_not_exists, create.or_replace)? else { return Ok(()) };
        let mut query = create.body.query.clone();
        deltaworks_sql::parser::rewrite(&mut *query)?;
        let names = self.check_reads(&create.body)?;
        let mut plan = self.session.logical_plan(&query)?;
        if !create.columns.is_empty() {
            plan = rename(plan, &create.columns)?;
        }
        let tables: BTreeSet<String> = names.iter().map(|n| self.catalog.qualify(n)).collect();
        let schema = deltaworks_dataflow::Schema::from_arrow(plan.schema().as_arrow());
        let schema = shown_schema(schema.map_err(|e| EngineError::new(e, "cast the column"))?);
        check_column_names(&schema)?;
        self.replace(&name, &tables)?;
        self.add(&name, Kind::Inlined(schema, tables), statement)?;
        if let Some(entry) = self.catalog.entries.get_mut(&name) {
            entry.refused = check_query(&query).err();
        }
        let handle = Name::new(name.split('.'));
        let view = ViewTable::new(plan, Some(statement.text.clone()));
        Ok(self.session.register_table(&handle, Arc::new(view))?)
    }
    pub(crate) fn create_dynamic_table(
        &mut self,
        create: &CreateDynamicTable,
        statement: &Spanned<Statement>,
    ) -> Result<()> {
        let Some(name) = self.new_name(&create.name, create.if_not_exists, create.or_replace)? else { return Ok(()) };
        let continuous = self.continuous(&create.body, RowsFor::DynamicTable)?;
        check_lookups(&continuous.plan, &[])?;
        let mut schema = shown_schema(continuous.plan.schema.clone());
        let renamed: Vec<&String> = create.schema.columns.iter().map(|column| &column.name).collect();
        if !renamed.is_empty() && renamed.len() != schema.len() {
            return Err(EngineError::new(
                format!("the query has {} columns, the table names {}", schema.len(), renamed.len()),
                "name all columns or none",
            ));
        }
        for (column, new) in schema.columns.iter_mut().zip(renamed) {
            column.name.clone_from(new);
        }
        check_column_names(&schema)?;
        let smallest = unique_columns(&continuous.plan, &self.catalog).into_iter().min_by_key(BTreeSet::len);
        let single_row = smallest.as_ref().is_some_and(BTreeSet::is_empty);
        let key = smallest.unwrap_or_default().into_iter().filter(|c| Some(*c) != continuous.stamp).collect();
        let view = View {
            schema,
            key,
            single_row,
            append_only: false,
            in_chunks: continuous.in_chunks,
            stamp: continuous.stamp,
            errors_input: self.letters_of(&continuous.calls),
            calls: continuous.calls,
            logical: Arc::new(continuous.logical),
            plan: continuous.plan,
        };
        let mut reads = BTreeSet::new();
        Catalog::reads(&view.plan, &mut reads);
        self.check_streams_ahead(&reads)?;
        self.replace(&name, &reads)?;
        let asks = view.errors_input.is_some();
        self.add(&name, Kind::Dynamic(Box::new(view)), statement)?;
        if asks {
            self.add(&format!("{name}$errors"), Kind::Errors(DeadLetter::schema()), statement)?;
        }
        self.install_over_installed(&name, &reads)
    }
    /// A continuous statement over a stream that runs already would see nothing of what has passed.
    pub(crate) fn check_streams_ahead(&self, reads: &BTreeSet<String>) -> Result<()> {
        let runs =
            |name: &&String| self.catalog.get(name).is_some_and(|entry| entry.is_stream() && entry.dataflow.is_some());
        match reads.iter().find(runs) {
            None => Ok(()),
            Some(name) => Err(EngineError::new(
                format!("stream \"{}\" runs already, and what has passed is not kept", short(name)),
                "make continuous statements over it before the first statement that reads, writes or starts it",
            )),
        }
    }
    /// A continuous statement over tables that run already sees their present rows at once, as inserts of one tick.
    pub(crate) fn install_over_installed(&mut self, name: &str, reads: &BTreeSet<String>) -> Result<()> {
        let closure = self.catalog.closure(reads.iter().cloned());
        let entries = || closure.iter().filter_map(|read| self.catalog.get(read));
        // A stream that does not run yet waits for the other statements over it: what passes it, passes once.
        let waits = entries().any(|entry| entry.is_stream() && entry.dataflow.is_none());
        if waits || !entries().any(|entry| entry.dataflow.is_some()) {
            return Ok(());
        }
        self.ensure_installed(closure.into_iter().chain([name.to_string()]).collect())?;
        self.settle()
    }
    pub(crate) fn drop_object(&mut self, object: &DropObject) -> Result<()> {
        match object.kind {
            ObjectKind::Table | ObjectKind::View | ObjectKind::DynamicTable => {
                let qualified = self.catalog.qualify(&object.name);
                if self.catalog.get(&qualified).is_none() {
                    if object.if_exists {
                        return Ok(());
                    }
                    return self.check_names(std::slice::from_ref(&object.name));
                }
                self.check_kind(object, &qualified)?;
                self.remove(&qualified, object.cascade)
            }
            ObjectKind::Schema => self.drop_schema(object),
            ObjectKind::Pipe => self.drop_pipe(&object.name, object.if_exists),
            ObjectKind::Function => self.drop_function(&object.name),
            ObjectKind::Connection => self.drop_connection(&object.name, object.if_exists),
        }
    }
    /// A table, a view and a dynamic table are each dropped by their own statement.
    fn check_kind(&self, object: &DropObject, qualified: &str) -> Result<()> {
        let Some(entry) = self.catalog.get(qualified) else { return Ok(()) };
        let (right, word) = match entry.kind {
            Kind::Table(_) => (ObjectKind::Table, "TABLE"),
            Kind::Inlined(..) => (ObjectKind::View, "VIEW"),
            Kind::Dynamic(_) | Kind::History(_) if Identity::of(&object.name).is_some() => {
                return Err(goes_with_links(&object.name));
            }
            Kind::Dynamic(_) | Kind::History(_) => (ObjectKind::DynamicTable, "DYNAMIC TABLE"),
            Kind::Errors(_) => {
                let name = object.name.object();
                return Err(EngineError::new(
                    format!("\"{name}\" is a dead-letter table, which goes with its table"),
                    format!("write DROP TABLE {}", name.trim_end_matches("$errors")),
                ));
            }
        };
        if object.kind == right {
            return Ok(());
        }
        let name = &object.name;
        Err(EngineError::new(format!("\"{name}\" is a {}", entry.noun()), format!("write DROP {word} {name}")))
    }
    fn drop_schema(&mut self, object: &DropObject) -> Result<()> {
        let schema = object.name.object().to_string();
        if !self.catalog.schemas.contains(&schema) {
            if object.if_exists {
                return Ok(());
            }
            return Err(EngineError::new(format!("schema \"{schema}\" does not exist"), "write DROP SCHEMA IF EXISTS"));
        }
        let prefix = format!("{schema}.");
        let inside: Vec<String> = self.catalog.entries.keys().filter(|n| n.starts_with(&prefix)).cloned().collect();
        if !inside.is_empty() && !object.cascade {
            return Err(EngineError::new(
                format!("schema \"{schema}\" is not empty: it has {}", short(&inside[0])),
                "write DROP SCHEMA .. CASCADE",
            ));
        }
        for name in inside {
            if self.catalog.get(&name).is_some() {
                self.remove(&name, true)?;
            }
        }
        self.catalog.schemas.remove(&schema);
        Ok(())
    }
    /// Removes an entry and, with `cascade`, the views and inserts that read it. Tables that those inserts fed stay.
    pub(crate) fn remove(&mut self, name: &str, cascade: bool) -> Result<()> {
        if !cascade {
            self.check_unused(name)?;
        }
        for view in self.catalog.views_of(name) {
            if self.catalog.get(&view).is_some() {
                self.remove(&view, true)?;
            }
        }
        for pipe in self.pipes_of(name) {
            self.remove_pipe(&pipe)?;
        }
        // What was sent before is written before the inserts stop.
        self.settle()?;
        let inserts = std::mem::take(&mut self.catalog.inserts);
        let gone = |insert: &catalog::Insert| insert.target == name || insert.reads(name);
        let (removed, kept): (Vec<_>, Vec<_>) = inserts.into_iter().partition(gone);
        self.catalog.inserts = kept;
        for insert in &removed {
            insert.stopped.store(true, Ordering::SeqCst);
            if insert.target != name {
                self.say(&format!("the {} into {} ends", insert.noun(), short(&insert.target)));
            }
        }
        let mut dataflows: BTreeSet<String> = removed.into_iter().filter_map(|insert| insert.dataflow).collect();
        for removed in std::iter::once(name.to_string()).chain(catalog::companions(name)) {
            let Some(entry) = self.catalog.entries.remove(&removed) else { continue };
            self.session.deregister_table(&Name::new(removed.split('.')))?;
            self.session.deregister_table(&lookup_handle(&removed))?;
            dataflows.extend(entry.dataflow);
        }
        self.sources.forget(name);
        self.letters.forget(name)?;
        self.rejected.remove(name);
        self.crowded.remove(name);
        if let Some(mut sink) = self.sinks.remove(name) {
            sink.finish()?;
        }
        for dataflow in dataflows {
            let entries = self.catalog.entries.values().any(|entry| entry.dataflow.as_ref() == Some(&dataflow));
            let inserts = self.catalog.inserts.iter().any(|insert| insert.dataflow.as_ref() == Some(&dataflow));
            if !entries && !inserts {
                self.host.drop_dataflow(&dataflow);
                self.clocks.remove(&dataflow);
            }
        }
        Ok(())
    }
    /// An error that names what reads an entry.
    fn check_unused(&self, name: &str) -> Result<()> {
        let noun = self.catalog.get(name).map_or("table", Entry::noun);
        if let Some(pipe) = self.pipes_of(name).first() {
            let (name, pipe) = (short(name), short(pipe));
            return Err(EngineError::new(
                format!("{noun} \"{name}\" is used by pipe \"{pipe}\""),
                format!("drop pipe \"{pipe}\" first, or write CASCADE"),
            ));
        }
        let (identities, views): (Vec<_>, Vec<_>) =
            self.catalog.views_of(name).into_iter().partition(|view| history_of(view).is_some());
        let readers = identities.iter().flat_map(|identity| self.catalog.readers(identity));
        if let Some(view) = views.into_iter().chain(readers).next() {
            return Err(EngineError::new(
                format!("{noun} \"{}\" is used by \"{}\"", short(name), short(&view)),
                format!("drop \"{}\" first, or write CASCADE", short(&view)),
            ));
        }
        if let Some(insert) = self.catalog.inserts.iter().find(|insert| insert.target != name && insert.reads(name)) {
            return Err(EngineError::new(
                format!("{noun} \"{}\" is used by the {} into \"{}\"", short(name), insert.noun(), short(&insert.target)),
                format!("write CASCADE to end the {}; what it wrote stays", insert.noun()),
            ));
        }
        Ok(())
    }
}

/// The error that what the identity function reads is dropped by itself.
fn goes_with_links(name: &Name) -> EngineError {
    let identity = Identity::of(name).map(|identity| (identity.to_string(), identity.links.to_string()));
    let (call, links) = identity.unwrap_or_default();
    EngineError::new(format!("\"{name}\" is what {call} reads, which goes with \"{links}\""), format!("drop \"{links}\""))
}
/// The name under which the batch engine's planner finds a table that is looked up.
fn lookup_handle(qualified: &str) -> Name {
    Name::new(format!("{qualified}{LOOKUP_SUFFIX}").split('.'))
}
fn rename(plan: datafusion::logical_expr::LogicalPlan, names: &[String]) -> Result<datafusion::logical_expr::LogicalPlan> {
    use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
    let columns = plan.schema().columns();
    if columns.len() != names.len() {
        return Err(EngineError::new(
            format!("the query has {} columns, the view names {}", columns.len(), names.len()),
            "name all columns or none",
        ));
    }
    let expressions = columns.into_iter().zip(names).map(|(column, name)| Expr::Column(column).alias(name));
    Ok(LogicalPlanBuilder::from(plan).project(expressions.collect::<Vec<_>>())?.build()?)
}
fn check_column_names(schema: &deltaworks_dataflow::Schema) -> Result<()> {
    for (place, column) in schema.columns.iter().enumerate() {
        if schema.columns[..place].iter().any(|other| other.name == column.name) {
            return Err(EngineError::new(
                format!("column \"{}\" is there twice", column.name),
                "give one of them another name with AS",
            ));
        }
    }
    Ok(())
}
