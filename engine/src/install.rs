//! Installation: pending definitions become one dataflow on every worker.
//!
//! Definitions wait until something needs them: a statement that reads or writes one of them, or the end of the script. They are
//! then built together, so that a table's rows flow into the views above it without being arranged in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use deltaworks_dataflow::host::{Build, Host};
use deltaworks_dataflow::{Diff, Row, Time};
use deltaworks_sql::external::CallSite;
use deltaworks_sql::plan::{Node, Plan};
use deltaworks_sql::render::{InsertTarget, Kept, Renderer, TableSpec};

use crate::calls::Desk;
use crate::catalog::{Catalog, Insert, Kind, Table, companions, owner};
use crate::error::EngineError;
use crate::identity::history_of;
use crate::sinks::{Gathered, OpenSink};

/// The resolution of NOW() in views, microseconds.
pub(crate) const CLOCK_RESOLUTION: i64 = 1_000_000;

/// One thing to build, in an order in which nothing is read before it is built.
enum Step {
    Table {
        spec: TableSpec,
        inserts: Vec<(Plan, InsertTarget, Option<usize>)>,
    },
    View {
        name: String,
        plan: Plan,
        stamp: Option<usize>,
        /// The input of its dead letters, where it has some.
        errors_input: Option<u32>,
        /// The name of the history, where it gives one ids.
        history: Option<String>,
    },
    /// What a view or table asks of an external function.
    Ask {
        name: String,
        site: CallSite,
        desk: Desk,
    },
    Sink {
        name: String,
        plan: Plan,
        stamp: Option<usize>,
        sink: Sender<Gathered>,
        stopped: Arc<AtomicBool>,
    },
    /// Inserts into a table of an earlier dataflow.
    Feed {
        table: String,
        plan: Plan,
        target: InsertTarget,
        stamp: Option<usize>,
    },
}

/// Everything a worker needs to build a dataflow.
struct Installation {
    imports: Vec<(String, String, Kept)>,
    steps: Vec<Step>,
    keeps: Vec<(String, String, Kept)>,
    clock_input: u32,
    timezone: chrono_tz::Tz,
}

impl Installation {
    fn build(&self, build: &mut Build<'_, '_>) {
        let mut renderer = Renderer::new(build, self.timezone, self.clock_input, CLOCK_RESOLUTION);
        for (name, trace, kept) in &self.imports {
            renderer.import(name, trace, kept);
        }
        for step in &self.steps {
            match step {
                Step::Table { spec, inserts } => {
                    let mut streams = Vec::new();
                    for (plan, target, stamp) in inserts {
                        renderer.begin(&spec.name);
                        streams.push(renderer.commands(plan, target, *stamp).expect("checked when it was planned"));
                    }
                    renderer.begin(&spec.name);
                    renderer.table(spec, streams);
                }
                Step::View { name, plan, stamp, errors_input, history } => {
                    renderer.begin(name);
                    renderer.view(name, plan, *stamp);
                    if let (Some(history), Node::Components(one_ids)) = (history, &plan.node) {
                        renderer.history(history, one_ids);
                    }
                    if let Some(input) = errors_input {
                        let letters = renderer.build().updates(*input);
                        renderer.define(&format!("{name}$errors"), letters);
                    }
                }
                Step::Ask { name, site, desk } => {
                    renderer.begin(name);
                    let (name, function, desk) = (name.clone(), site.function.clone(), desk.clone());
                    let ask = move |_, updates| desk.take(&function, &name, updates);
                    renderer.sink(&site.arguments, None, "Ask", ask, |_, _| {});
                }
                Step::Sink { name, plan, stamp, sink, stopped } => {
                    renderer.begin(name);
                    let hand_on = |gathered: fn(Time, Vec<(Row, Diff)>) -> Gathered| {
                        let (sink, stopped) = (sink.clone(), Arc::clone(stopped));
                        move |tick, updates| {
                            if !stopped.load(Ordering::SeqCst) {
                                // Nobody takes it any more where the sink's table was dropped.
                                drop(sink.send(gathered(tick, updates)));
                            }
                        }
                    };
                    renderer.sink(plan, *stamp, "Sink", hand_on(Gathered::Rows), hand_on(Gathered::LeftOut));
                }
                Step::Feed { table, plan, target, stamp } => {
                    renderer.begin(table.rsplit_once('#').map_or(table, |(name, _)| name));
                    let commands = renderer.commands(plan, target, *stamp).expect("checked when it was planned");
                    renderer.build().feed(table, commands);
                }
            }
        }
        for (name, trace, kept) in &self.keeps {
            renderer.keep(name, trace, kept);
        }
        renderer.finish();
    }
}

/// What is to be installed together, and what must stay readable.
pub(crate) struct Request<'a> {
    /// Pending entries to install: whatever they read that is pending must be among them.
    pub(crate) names: BTreeSet<String>,
    /// Pending inserts to install, as places in `Catalog::inserts`.
    pub(crate) inserts: Vec<usize>,
    /// Whether an entry is read by a later statement.
    pub(crate) read_later: &'a dyn Fn(&str) -> bool,
    pub(crate) sinks: &'a BTreeMap<String, OpenSink>,
    pub(crate) desk: Desk,
    pub(crate) dataflow: String,
    pub(crate) clock_input: u32,
    pub(crate) timezone: chrono_tz::Tz,
}

/// Builds one dataflow of the requested entries and notes in the catalog where they are.
///
/// # Errors
/// Views that read each other in a circle.
pub(crate) fn install(catalog: &mut Catalog, host: &Host, request: &Request<'_>) -> Result<(), EngineError> {
    let order = order(catalog, &request.names)?;
    let mut steps = Vec::new();
    let mut keeps = Vec::new();
    for name in &order {
        let Some(entry) = catalog.entries.get(name) else { continue };
        match &entry.kind {
            Kind::Table(table) if is_stored(table, name, request) => {
                let own = request.inserts.iter().map(|i| &catalog.inserts[*i]).filter(|insert| insert.target == *name);
                let inserts = own.map(|insert| (insert.plan.clone(), target(table, insert), insert.stamp)).collect();
                steps.push(Step::Table { spec: spec(name, table), inserts });
            }
            Kind::Dynamic(view) => {
                let (plan, stamp, errors_input) = (view.plan.clone(), view.stamp, view.errors_input);
                let history = history_of(name);
                steps.push(Step::View { name: name.clone(), plan, stamp, errors_input, history });
                asks(name, &view.calls, request, &mut steps);
            }
            _ => continue,
        }
        keep(catalog, name, request, &mut keeps);
        companions(name).for_each(|companion| keep(catalog, &companion, request, &mut keeps));
    }
    for insert in request.inserts.iter().map(|i| &catalog.inserts[*i]) {
        let Some(table) = catalog.get(&insert.target).and_then(|entry| entry.table()) else { continue };
        asks(&insert.target, &insert.calls, request, &mut steps);
        if let Some(sink) = request.sinks.get(&insert.target) {
            let (name, plan) = (insert.target.clone(), insert.plan.clone());
            let stopped = Arc::clone(&insert.stopped);
            steps.push(Step::Sink { name, plan, stamp: insert.stamp, sink: sink.sender(), stopped });
        } else if !order.contains(&insert.target) {
            steps.push(Step::Feed {
                table: spec(&insert.target, table).feed(),
                plan: insert.plan.clone(),
                target: target(table, insert),
                stamp: insert.stamp,
            });
        }
    }
    let reads = reads(&steps);
    for step in &mut steps {
        if let Step::Table { spec, .. } = step {
            let letters = format!("{}$errors", spec.name);
            spec.letters_read = reads.contains(&letters) || keeps.iter().any(|(name, _, _)| *name == letters);
        }
    }
    let imports = imports(catalog, reads, &order);
    let installation =
        Installation { imports, steps, keeps: keeps.clone(), clock_input: request.clock_input, timezone: request.timezone };
    host.install(&request.dataflow, Arc::new(move |build: &mut Build<'_, '_>| installation.build(build)));
    for name in &order {
        if let Some(entry) = catalog.entries.get_mut(name) {
            entry.dataflow = Some(request.dataflow.clone());
        }
    }
    for (name, trace, kept) in keeps {
        if let Some(entry) = catalog.entries.get_mut(&name) {
            (entry.dataflow, entry.kept) = (Some(request.dataflow.clone()), Some((trace, kept)));
        }
    }
    for index in &request.inserts {
        catalog.inserts[*index].dataflow = Some(request.dataflow.clone());
    }
    Ok(())
}

/// What a statement asks of external functions.
fn asks(name: &str, calls: &[CallSite], request: &Request<'_>, steps: &mut Vec<Step>) {
    for site in calls {
        steps.push(Step::Ask { name: name.to_string(), site: site.clone(), desk: request.desk.clone() });
    }
}
/// A table that is only a sink stores nothing.
fn is_stored(table: &Table, name: &str, request: &Request<'_>) -> bool {
    table.connector.is_none() || !request.sinks.contains_key(name)
}
/// The table as it is rendered.
pub(crate) fn spec(name: &str, table: &Table) -> TableSpec {
    TableSpec {
        name: name.to_string(),
        schema: table.schema.clone(),
        merge: table.merge.clone(),
        number: table.number,
        retention: table.retention.clone(),
        computed: table.computed.clone(),
        input: table.input,
        errors_input: table.errors_input,
        letters: table.letters.clone(),
        letters_read: false,
    }
}
fn target(table: &Table, insert: &Insert) -> InsertTarget {
    use deltaworks_operators::merge::Engine;
    let retract = matches!(table.merge.as_ref().map(|merge| &merge.engine), Some(Engine::Aggregation(_)));
    let (key, stopped) = (table.key.clone(), Arc::clone(&insert.stopped));
    InsertTarget { key, retract, statement: insert.statement, merge: insert.merge.clone(), stopped }
}
fn keep(catalog: &Catalog, name: &str, request: &Request<'_>, keeps: &mut Vec<(String, String, Kept)>) {
    if let Some(entry) = catalog.get(name)
        && (request.read_later)(name)
    {
        keeps.push((name.to_string(), format!("{name}/{}", request.dataflow), entry.keeping()));
    }
}
/// What the steps read.
fn reads(steps: &[Step]) -> BTreeSet<String> {
    let mut reads = BTreeSet::new();
    for step in steps {
        match step {
            Step::Table { inserts, .. } => inserts.iter().for_each(|(plan, _, _)| Catalog::reads(plan, &mut reads)),
            Step::Ask { site, .. } => Catalog::reads(&site.arguments, &mut reads),
            Step::View { plan, .. } | Step::Sink { plan, .. } | Step::Feed { plan, .. } => {
                Catalog::reads(plan, &mut reads);
            }
        }
    }
    reads
}
/// What is read from earlier dataflows.
fn imports(catalog: &Catalog, reads: BTreeSet<String>, order: &[String]) -> Vec<(String, String, Kept)> {
    reads
        .into_iter()
        .filter(|name| !order.contains(&owner(name)))
        .filter_map(|name| {
            let (trace, kept) = catalog.get(&name)?.kept.clone()?;
            Some((name, trace, kept))
        })
        .collect()
}

/// The names in an order in which each comes after what it reads.
fn order(catalog: &Catalog, names: &BTreeSet<String>) -> Result<Vec<String>, EngineError> {
    let mut ordered = Vec::new();
    let mut open = Vec::new();
    for name in names {
        visit(catalog, name, names, &mut open, &mut ordered)?;
    }
    Ok(ordered)
}
fn visit(
    catalog: &Catalog,
    name: &str,
    names: &BTreeSet<String>,
    open: &mut Vec<String>,
    ordered: &mut Vec<String>,
) -> Result<(), EngineError> {
    if ordered.iter().any(|other| other == name) || !names.contains(name) {
        return Ok(());
    }
    if let Some(at) = open.iter().position(|other| other == name) {
        let circle: Vec<&str> = open[at..].iter().map(String::as_str).chain([name]).collect();
        return Err(EngineError::new(
            format!("these feed each other in a circle: {}", circle.join(" -> ")),
            "take one INSERT out of the circle",
        ));
    }
    open.push(name.to_string());
    for read in catalog.upstream(name) {
        visit(catalog, &owner(&read), names, open, ordered)?;
    }
    open.pop();
    ordered.push(name.to_string());
    Ok(())
}
