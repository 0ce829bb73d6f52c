//! SHOW and DESCRIBE.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use deltaworks_connectors::format::text::ResultSet;
use deltaworks_dataflow::{Column, DataType, Datum, Diff, Row, Schema};
use deltaworks_sql::parser::{Name, Show};

use crate::advance::key_text;
use crate::catalog::{InsertKind, Kind};
use crate::error::EngineError;
use crate::query::short;
use crate::script::Engine;
use crate::ticks::PartitionLine;

type Result<T> = std::result::Result<T, EngineError>;

fn schema(columns: &[(&str, DataType)]) -> Schema {
    Schema::new(columns.iter().map(|(name, data_type)| Column::new(*name, data_type.clone())).collect())
}
fn text(value: impl Into<String>) -> Datum<'static> {
    Datum::str(value.into())
}
fn count(value: u64) -> Datum<'static> {
    Datum::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Engine {
    /// What a SHOW statement shows.
    pub(crate) fn show(&mut self, show: &Show) -> Result<ResultSet> {
        match show {
            Show::Tables(schema) => Ok(self.show_tables(schema.as_ref())),
            Show::Sources => Ok(self.show_sources()),
            Show::Jobs => Ok(self.show_jobs()),
            Show::Errors => self.show_errors(),
            Show::CreateTable(name) => {
                self.check_names(std::slice::from_ref(name))?;
                let entry = &self.catalog.entries[&self.catalog.qualify(name)];
                let rows = vec![Row::pack([text(entry.statement.clone())])];
                Ok(ResultSet { schema: schema(&[("statement", DataType::String)]), rows })
            }
        }
    }
    fn show_tables(&self, of: Option<&Name>) -> ResultSet {
        let wanted = of.map_or(self.catalog.current.clone(), |name| name.object().to_string());
        let visible = self.catalog.entries.iter().filter_map(|(name, entry)| {
            let (owner, object) = name.split_once('.')?;
            // A name with a $ is made by another: dead letters, a pipe's source.
            let shown = owner == wanted && !object.contains('$');
            shown.then(|| Row::pack([text(object), text(entry.noun())]))
        });
        let rows = visible.collect();
        ResultSet { schema: schema(&[("table_name", DataType::String), ("kind", DataType::String)]), rows }
    }
    fn show_sources(&self) -> ResultSet {
        let columns = [
            ("table_name", DataType::String),
            ("source", DataType::String),
            ("partition", DataType::Int),
            ("records", DataType::BigInt),
            ("next_offset", DataType::BigInt),
            ("state", DataType::String),
            ("lag", DataType::BigInt),
            ("note", DataType::String),
        ];
        let line = |line: PartitionLine| {
            let state = if line.ended { "ended" } else { "reading" };
            let note = if line.note.is_empty() { Datum::Null } else { text(line.note) };
            Row::pack([
                text(short(&line.table)),
                text(line.source),
                Datum::Int(line.partition.into()),
                count(line.records),
                count(line.next_offset),
                text(state),
                line.lag.map_or(Datum::Null, count),
                note,
            ])
        };
        let rows = self.sources.partitions().into_iter().map(line).collect();
        ResultSet { schema: schema(&columns), rows }
    }
    fn show_jobs(&self) -> ResultSet {
        let columns = [("target", DataType::String), ("kind", DataType::String), ("state", DataType::String)];
        let state = |dataflow: &Option<String>| text(if dataflow.is_some() { "running" } else { "pending" });
        let mut rows: Vec<Row> = Vec::new();
        for (name, entry) in &self.catalog.entries {
            if let Kind::Dynamic(_) = entry.kind {
                rows.push(Row::pack([text(short(name)), text("dynamic table"), state(&entry.dataflow)]));
            }
        }
        for (name, pipe) in self.catalog.pipes.iter().filter(|(_, pipe)| pipe.folder.is_some()) {
            let state = if self.sources.is_started(name) { "running" } else { "pending" };
            rows.push(Row::pack([text(short(&pipe.target)), text(format!("pipe {}", short(name))), text(state)]));
        }
        for insert in &self.catalog.inserts {
            let kind = match &insert.kind {
                InsertKind::Insert => "insert".to_string(),
                InsertKind::Merge => "merge".to_string(),
                InsertKind::Pipe(pipe) => format!("pipe {}", short(pipe)),
            };
            rows.push(Row::pack([text(short(&insert.target)), text(kind), state(&insert.dataflow)]));
        }
        ResultSet { schema: schema(&columns), rows }
    }
    /// Dead letters by table, ignored and conflicting rows, and expressions that failed, with samples.
    fn show_errors(&mut self) -> Result<ResultSet> {
        let started: Vec<String> = self.catalog.entries.keys().cloned().collect();
        self.catch_up(&started.into_iter().collect())?;
        let mut lines: BTreeMap<(String, String), (Diff, Vec<String>)> = BTreeMap::new();
        for (name, report) in self.host.observe() {
            for (what, times, samples) in report {
                let line = lines.entry((short(&name).to_string(), what)).or_default();
                line.0 += times;
                line.1.extend(samples);
            }
        }
        for (name, entry) in &self.catalog.entries {
            for (what, (times, samples)) in &entry.failures {
                let line = lines.entry((short(name).to_string(), what.clone())).or_default();
                line.0 += times;
                line.1.extend(samples.iter().cloned());
            }
        }
        for (table, letters) in self.sources.progress.dead.iter().chain(&self.rejected) {
            let what = format!("dead letters, see {}$errors", short(table));
            lines.entry((short(table).to_string(), what)).or_default().0 += i64::try_from(*letters).unwrap_or(i64::MAX);
        }
        for (name, entry) in &self.catalog.entries {
            let Some(counts) = entry.table().map(|table| &table.letters.counts) else { continue };
            let name = short(name).to_string();
            for (what, count) in [
                (format!("dead letters, see {name}$errors"), &counts.rejected),
                (format!("dead letters that left {name}$errors for their age"), &counts.aged),
                (format!("dead letters that left {name}$errors to make room"), &counts.crowded_out),
            ] {
                let count = i64::try_from(count.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
                lines.entry((name.clone(), what)).or_default().0 += count;
            }
        }
        for (function, (count, sample)) in &self.calls.nulls {
            let what = "answers that are NULL for a reason".to_string();
            let line = lines.entry((short(function).to_string(), what)).or_default();
            line.0 += i64::try_from(*count).unwrap_or(i64::MAX);
            line.1.push(sample.clone());
        }
        for (table, files) in &self.sources.progress.changed_files {
            let what = "files that changed after they were loaded".to_string();
            lines.entry((short(table).to_string(), what)).or_default().0 += i64::try_from(*files).unwrap_or(i64::MAX);
        }
        for sink in self.sinks.values() {
            let what = "rows of a key that another row holds".to_string();
            let line = lines.entry((short(&sink.table).to_string(), what)).or_default();
            line.0 += sink.left_out.count();
            if let (Some(entry), Some(key)) = (self.catalog.get(&sink.table), sink.left_out.first_key()) {
                line.1.push(key_text(entry, key));
            }
        }
        let columns = [
            ("name", DataType::String),
            ("what", DataType::String),
            ("count", DataType::BigInt),
            ("samples", DataType::Array(Box::new(DataType::String))),
        ];
        let rows = lines
            .into_iter()
            .filter(|(_, (times, _))| *times != 0)
            .map(|((name, what), (times, samples))| {
                let samples = samples.into_iter().map(text).collect();
                Row::pack([text(name), text(what), Datum::Int(times), Datum::Array(samples)])
            })
            .collect();
        Ok(ResultSet { schema: schema(&columns), rows })
    }
    /// The columns of a table or view.
    pub(crate) fn describe(&self, name: &Name) -> Result<ResultSet> {
        self.check_names(std::slice::from_ref(name))?;
        let qualified = self.catalog.qualify(name);
        let entry = &self.catalog.entries[&qualified];
        let key = match &entry.kind {
            Kind::Table(table) => table.key.clone(),
            Kind::Dynamic(view) => view.key.clone(),
            _ => Vec::new(),
        };
        let columns = entry.schema().map_or(&[][..], |schema| &schema.columns);
        let rows = columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let nullable = text(if column.nullable { "YES" } else { "NO" });
                let key = text(if key.contains(&place) { "PRI" } else { "" });
                let declared = entry.table().and_then(|table| table.declared.get(&place));
                let data_type = declared.cloned().unwrap_or_else(|| column.data_type.to_string());
                Row::pack([text(column.name.clone()), text(data_type), nullable, key])
            })
            .collect();
        let columns = [
            ("column_name", DataType::String),
            ("data_type", DataType::String),
            ("nullable", DataType::String),
            ("key", DataType::String),
        ];
        Ok(ResultSet { schema: schema(&columns), rows })
    }
}
