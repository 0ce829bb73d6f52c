//! EXPLAIN ANALYZE: the query is run once, as a dataflow of its own over the present tables, and every operator is measured.
//!
//! A query that reads all of one dynamic table is answered for the query behind it. What runs is not touched: it has no
//! counters, and is as fast as if nobody had asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltaworks_dataflow::host::Build;
use deltaworks_sql::explain::ExplainRow;
use deltaworks_sql::plan::{Node, Plan};
use deltaworks_sql::render::{Kept, Measured, Renderer, add_report};

use crate::catalog::{Catalog, Kind};
use crate::error::EngineError;
use crate::install::CLOCK_RESOLUTION;
use crate::query::short;
use crate::script::Engine;

type Result<T> = std::result::Result<T, EngineError>;

impl Engine {
    /// The query behind a plan that does nothing but read a dynamic table: the table's name and plan.
    pub(crate) fn view_behind(&self, plan: &Plan) -> Option<(String, Plan)> {
        match &plan.node {
            Node::Get { table, columns, .. } if columns.iter().enumerate().all(|(index, column)| index == *column) => {
                match &self.catalog.get(table)?.kind {
                    Kind::Dynamic(view) if view.schema.len() == columns.len() => Some((table.clone(), view.plan.clone())),
                    _ => None,
                }
            }
            Node::Project { input, expressions } => {
                let same = expressions.iter().enumerate().all(|(index, e)| e.as_column() == Some(index));
                if same && expressions.len() == input.schema.len() { self.view_behind(input) } else { None }
            }
            _ => None,
        }
    }
    /// Runs a plan over the present tables and returns what was measured of each node, parents first.
    pub(crate) fn measure(&mut self, plan: &Plan) -> Result<Vec<Measured>> {
        let mut reads = BTreeSet::new();
        Catalog::reads(plan, &mut reads);
        self.check_no_streams(&reads)?;
        self.catch_up(&reads)?;
        let imports = self.imports_of(&reads)?;
        self.dataflows += 1;
        let name = format!("analysis {}", self.dataflows);
        let (clock_input, timezone) = (self.next_input, self.timezone);
        self.next_input += 1;
        self.clocks.insert(name.clone(), clock_input);
        let mut nodes = Vec::new();
        plan.walk(&mut |_| nodes.push(Measured::default()));
        let (analysed, label) = (plan.clone(), name.clone());
        let build = move |build: &mut Build<'_, '_>| {
            let mut renderer = Renderer::new(build, timezone, clock_input, CLOCK_RESOLUTION);
            for (table, trace, kept) in &imports {
                renderer.import(table, trace, kept);
            }
            renderer.analyze(&label, &analysed);
        };
        self.host.install_timed(&name, Arc::new(build));
        let settled = self.settle();
        let reports = self.host.observe();
        self.host.drop_dataflow(&name);
        self.clocks.remove(&name);
        settled?;
        for (_, report) in reports.iter().filter(|(observer, _)| *observer == name) {
            add_report(report, &mut nodes)?;
        }
        Ok(nodes)
    }
    fn imports_of(&self, reads: &BTreeSet<String>) -> Result<Vec<(String, String, Kept)>> {
        let import = |name: &String| {
            let (trace, kept) = self.catalog.get(name).and_then(|entry| entry.kept.clone()).ok_or_else(|| {
                EngineError::new(
                    format!("\"{}\" cannot be read: nothing keeps its rows", short(name)),
                    "read the table or view that feeds it",
                )
            })?;
            Ok((name.clone(), trace, kept))
        };
        reads.iter().map(import).collect()
    }
}

/// What was measured of each line of an EXPLAIN: the line of a target has the figures of what feeds it.
pub(crate) fn by_line(lines: &[ExplainRow], nodes: &[Measured]) -> Vec<Measured> {
    let above = lines.len() - nodes.len();
    let target = nodes.first().map(|root| Measured { rows: root.rows, ..Measured::default() });
    target.into_iter().cycle().take(above).chain(nodes.iter().copied()).collect()
}
