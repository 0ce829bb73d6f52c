//! Optimisation of our plan: the rewrites of `lower/` in their order, with what tidies up between them.
//!
//! 1. [`simplify`]: projections merge, filters sink below projections, what does nothing goes;
//! 2. top-k, lookback and delta joins are recognised;
//! 3. [`prune`]: every node gives only the columns that somebody reads;
//! 4. [`finish`]: joins learn which of their sides are unique, and say why they are what they are.

use deltaworks_dataflow::{Column, Schema};

use crate::arrangement;
use crate::expr::ScalarExpr;
use crate::lower::unique::{self, Columns, is_single_row, is_unique, plain_columns};
use crate::lower::{PlanSettings, TableInfo, delta, filter, lookback, pick, project, terms, top_k};
use crate::plan::{Aggregate, DeltaHop, DeltaJoin, Join, JoinKind, Lookback, Node, Plan, Ranking, TopK, Window};

/// A join without keys fails when its smaller side grows beyond this many rows.
pub const CROSS_LIMIT: u64 = 10_000;

/// Optimises a plan. Its columns stay, their names may change.
pub fn optimize(plan: Plan, tables: &dyn TableInfo, settings: &PlanSettings, warnings: &mut Vec<String>) -> Plan {
    let plan = bottom_up(plan, &mut |plan| simplify(plan, tables));
    let plan = bottom_up(plan, &mut |plan| top_k::recognise(simplify(plan, tables)));
    let plan = bottom_up(plan, &mut |plan| simplify(plan, tables));
    let plan = bottom_up(plan, &mut |plan| lookback::recognise(simplify(plan, tables), tables));
    let plan = delta::recognise(plan, tables, settings, warnings);
    let plan = bottom_up(plan, &mut |plan| simplify(plan, tables));
    let all = (0..plan.schema.len()).collect();
    let plan = bottom_up(narrow(plan, &all), &mut |plan| simplify(plan, tables));
    bottom_up(plan, &mut |plan| finish(plan, tables))
}

fn names_of(names: &Schema, schema: Schema) -> Schema {
    let named = |(named, column): (&Column, Column)| Column { name: named.name.clone(), ..column };
    Schema::new(names.columns.iter().zip(schema.columns).map(named).collect())
}

/// Rewrites a plan from its leaves to its root.
fn bottom_up(mut plan: Plan, rewrite: &mut impl FnMut(Plan) -> Plan) -> Plan {
    for input in plan.inputs_mut() {
        let own = std::mem::replace(input, Plan::new(Node::Constant { rows: Vec::new() }, Schema::default()));
        *input = bottom_up(own, rewrite);
    }
    rewrite(plan)
}

/// Tidies one node up; its inputs are tidy.
fn simplify(plan: Plan, tables: &dyn TableInfo) -> Plan {
    let schema = plan.schema;
    match plan.node {
        Node::Project { input, expressions } => simplify_project(*input, expressions, schema),
        Node::Filter { input, predicate } => simplify_filter(*input, predicate, tables),
        Node::Union { inputs } => simplify_union(inputs, schema),
        Node::Distinct { input } if is_unique(&input, &(0..input.schema.len()).collect(), tables) => *input,
        node => Plan::new(node, schema),
    }
}

fn simplify_project(input: Plan, expressions: Vec<ScalarExpr>, schema: Schema) -> Plan {
    if lookback::is_identity(&expressions, &input) {
        let schema = names_of(&schema, input.schema);
        return Plan::new(input.node, schema);
    }
    match input.node {
        Node::Project { input: below, expressions: inner } if may_merge(&expressions, &inner) => {
            let merged = expressions.iter().map(|e| e.substitute(&inner)).collect();
            simplify_project(*below, merged, schema)
        }
        // Reading fewer columns, or the same ones in another order, costs nothing at the table.
        Node::Get { table, columns, in_chunks } if expressions.iter().all(|e| e.as_column().is_some()) => {
            let picked = expressions.iter().filter_map(|e| e.as_column().map(|c| columns[c])).collect();
            Plan::new(Node::Get { table, columns: picked, in_chunks }, schema)
        }
        node => project(Plan::new(node, input.schema), expressions, schema),
    }
}

/// Merging must not compute an expression twice.
fn may_merge(outer: &[ScalarExpr], inner: &[ScalarExpr]) -> bool {
    let mut uses = vec![0usize; inner.len()];
    for expression in outer {
        count_uses(expression, &mut uses);
    }
    let cheap = |e: &ScalarExpr| e.as_column().is_some() || e.as_literal().is_some();
    uses.iter().zip(inner).all(|(uses, e)| *uses <= 1 || cheap(e))
}

fn count_uses(expression: &ScalarExpr, uses: &mut [usize]) {
    if let Some(index) = expression.as_column() {
        uses[index] += 1;
    }
    expression.children().into_iter().for_each(|child| count_uses(child, uses));
}

/// Filters sink below projections, so that they meet each other and the rankings that they cut.
fn simplify_filter(input: Plan, predicate: ScalarExpr, tables: &dyn TableInfo) -> Plan {
    if predicate == ScalarExpr::boolean(true) {
        return input;
    }
    match input.node {
        Node::Filter { input: below, predicate: inner } => simplify_filter(*below, inner.and(predicate), tables),
        Node::Project { input: below, expressions } => {
            let sunk = simplify_filter(*below, predicate.substitute(&expressions), tables);
            let schema = input.schema;
            simplify(project(sunk, expressions, schema), tables)
        }
        node => filter(Plan::new(node, input.schema), predicate),
    }
}

fn simplify_union(inputs: Vec<Plan>, schema: Schema) -> Plan {
    let empty = |plan: &Plan| matches!(&plan.node, Node::Constant { rows } if rows.is_empty());
    let mut flat = Vec::new();
    for input in inputs {
        match input.node {
            Node::Union { inputs } => flat.extend(inputs),
            node => flat.push(Plan::new(node, input.schema)),
        }
    }
    if flat.iter().any(|input| !empty(input)) {
        flat.retain(|input| !empty(input));
    } else {
        flat.truncate(1);
    }
    match flat.len() {
        1 => flat.remove(0),
        _ => Plan::new(Node::Union { inputs: flat }, schema),
    }
}

/// The plan with just the wanted columns, in their order.
fn narrow(plan: Plan, wanted: &Columns) -> Plan {
    let (plan, kept) = prune(plan, wanted);
    if kept.iter().eq(wanted.iter()) {
        return plan;
    }
    let places: Vec<usize> = wanted.iter().map(|column| place(&kept, *column)).collect();
    pick(plan, &places)
}

fn place(kept: &[usize], column: usize) -> usize {
    kept.iter().position(|kept| *kept == column).unwrap_or(0)
}

fn moved(expression: &ScalarExpr, kept: &[usize]) -> ScalarExpr {
    expression.map_columns(&|column| place(kept, column))
}

fn moved_all(expressions: &[ScalarExpr], kept: &[usize]) -> Vec<ScalarExpr> {
    expressions.iter().map(|e| moved(e, kept)).collect()
}

fn with(wanted: &Columns, more: Columns) -> Columns {
    wanted.union(&more).copied().collect()
}

fn cut(schema: &Schema, kept: &[usize]) -> Schema {
    Schema::new(kept.iter().map(|index| schema.columns[*index].clone()).collect())
}

/// The plan without columns that nobody wants, as far as its node can do without them, and which of its columns it kept,
/// ascending. An input that is indexed or held gives exactly what is needed of it.
fn prune(plan: Plan, wanted: &Columns) -> (Plan, Vec<usize>) {
    let schema = plan.schema;
    let all = || (0..schema.len()).collect::<Vec<_>>();
    match plan.node {
        Node::Get { table, columns, in_chunks } => {
            let kept: Vec<usize> = wanted.iter().copied().collect();
            let columns = kept.iter().map(|index| columns[*index]).collect();
            (Plan::new(Node::Get { table, columns, in_chunks }, cut(&schema, &kept)), kept)
        }
        node @ (Node::Constant { .. } | Node::Bitmaps(_)) => {
            let kept = all();
            (Plan::new(node, schema), kept)
        }
        Node::Clock { variables } => {
            let kept: Vec<usize> = wanted.iter().copied().collect();
            let variables = kept.iter().map(|index| variables[*index]).collect();
            (Plan::new(Node::Clock { variables }, cut(&schema, &kept)), kept)
        }
        Node::Project { input, expressions } => {
            let kept: Vec<usize> = wanted.iter().copied().collect();
            let expressions: Vec<ScalarExpr> = kept.iter().map(|index| expressions[*index].clone()).collect();
            let (input, below) = prune(*input, &terms::used_by(&expressions));
            (project(input, moved_all(&expressions, &below), cut(&schema, &kept)), kept)
        }
        Node::Filter { input, predicate } => {
            let (input, kept) = prune(*input, &with(wanted, terms::used(&predicate)));
            let predicate = moved(&predicate, &kept);
            (filter(input, predicate), kept)
        }
        Node::TemporalFilter { input, lower, upper, variable } => {
            let (input, kept) = prune(*input, &with(wanted, terms::used_by(lower.iter().chain(&upper))));
            let (lower, upper) = (lower.map(|e| moved(&e, &kept)), upper.map(|e| moved(&e, &kept)));
            let node = Node::TemporalFilter { input: Box::new(input), lower, upper, variable };
            (Plan::new(node, cut(&schema, &kept)), kept)
        }
        Node::Unnest { input, array, outer } => prune_unnest(*input, array, outer, schema, wanted),
        Node::Union { inputs } => {
            let kept: Vec<usize> = wanted.iter().copied().collect();
            let inputs = inputs.into_iter().map(|input| narrow(input, wanted)).collect();
            (Plan::new(Node::Union { inputs }, cut(&schema, &kept)), kept)
        }
        Node::Distinct { input } => {
            let kept = all();
            let input = narrow(*input, &kept.iter().copied().collect());
            (Plan::new(Node::Distinct { input: Box::new(input) }, schema), kept)
        }
        Node::Join(join) => prune_join(*join, schema, wanted),
        Node::DeltaJoin(join) => prune_delta(*join, schema, wanted),
        Node::Lookback(lookback) => prune_lookback(*lookback, schema, wanted),
        Node::Aggregate(aggregate) => prune_aggregate(*aggregate, schema, wanted),
        Node::TopK(top_k) => prune_top_k(*top_k, schema, wanted),
        Node::Window(window) => prune_window(*window, schema, wanted),
        // It is a table of its own by the time a query reads it.
        node @ Node::Components(_) => {
            let kept = all();
            (Plan::new(node, schema), kept)
        }
    }
}

fn prune_unnest(input: Plan, array: ScalarExpr, outer: bool, schema: Schema, wanted: &Columns) -> (Plan, Vec<usize>) {
    let element = schema.len() - 1;
    let own: Columns = wanted.iter().copied().filter(|index| *index < element).collect();
    let (input, mut kept) = prune(input, &with(&own, terms::used(&array)));
    let array = moved(&array, &kept);
    kept.push(element);
    (Plan::new(Node::Unnest { input: Box::new(input), array, outer }, cut(&schema, &kept)), kept)
}

/// The wanted columns of two sides, each by its own positions.
fn sides(wanted: &Columns, width: usize) -> (Columns, Columns) {
    let (left, right): (Columns, Columns) = wanted.iter().partition(|index| **index < width);
    (left, right.into_iter().map(|index| index - width).collect())
}

/// The kept columns of both sides by their positions in the output.
fn both(left: &Columns, right: &Columns, width: usize) -> Vec<usize> {
    left.iter().copied().chain(right.iter().map(|index| index + width)).collect()
}

fn listed(columns: &Columns) -> Vec<usize> {
    columns.iter().copied().collect()
}

fn prune_join(join: Join, schema: Schema, wanted: &Columns) -> (Plan, Vec<usize>) {
    let width = join.left.schema.len();
    let one_sided = matches!(join.kind, JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti);
    let (left, right) = sides(&with(wanted, terms::used_by(&join.residual)), width);
    let left = with(&left, terms::used_by(&join.left_keys));
    let right = with(&right, terms::used_by(&join.right_keys));
    let pairs = both(&left, &right, width);
    let kept = if one_sided { listed(&left) } else { pairs.clone() };
    let pruned = Join {
        left_keys: moved_all(&join.left_keys, &listed(&left)),
        right_keys: moved_all(&join.right_keys, &listed(&right)),
        residual: join.residual.as_ref().map(|e| moved(e, &pairs)),
        left: narrow(join.left, &left),
        right: narrow(join.right, &right),
        ..join
    };
    (Plan::new(Node::Join(Box::new(pruned)), cut(&schema, &kept)), kept)
}

fn prune_lookback(lookback: Lookback, schema: Schema, wanted: &Columns) -> (Plan, Vec<usize>) {
    let width = lookback.left.schema.len();
    let (left, right) = sides(wanted, width);
    let (left_needed, right_needed) = lookback::needed(&lookback);
    let (left, right) = (with(&left, left_needed), with(&right, right_needed));
    let kept = both(&left, &right, width);
    let (l, r) = (listed(&left), listed(&right));
    let pruned = Lookback {
        left_keys: moved_all(&lookback.left_keys, &l),
        right_keys: moved_all(&lookback.right_keys, &r),
        left_time: moved(&lookback.left_time, &l),
        right_time: moved(&lookback.right_time, &r),
        tie_breakers: lookback.tie_breakers.iter().map(|key| key.map(&|e| moved(e, &r))).collect(),
        left: narrow(lookback.left, &left),
        right: narrow(lookback.right, &right),
        ..lookback
    };
    (Plan::new(Node::Lookback(Box::new(pruned)), cut(&schema, &kept)), kept)
}

fn prune_delta(join: DeltaJoin, schema: Schema, wanted: &Columns) -> (Plan, Vec<usize>) {
    let mut starts = Vec::new();
    let mut end = 0;
    for input in &join.inputs {
        starts.push(end);
        end += input.schema.len();
    }
    let hops = || join.paths.iter().flatten();
    let mut needed = with(wanted, terms::used_by(join.residual.iter().chain(hops().flat_map(|hop| &hop.source_keys))));
    for hop in hops() {
        needed.extend(terms::used_by(&hop.target_keys).into_iter().map(|c| c + starts[hop.input]));
    }
    let kept = listed(&needed);
    let own = |input: usize, width: usize| -> Columns {
        let range = starts[input]..starts[input] + width;
        needed.iter().filter(|c| range.contains(c)).map(|c| c - starts[input]).collect()
    };
    let own: Vec<Columns> = join.inputs.iter().enumerate().map(|(at, input)| own(at, input.schema.len())).collect();
    let hop = |hop: &DeltaHop| DeltaHop {
        input: hop.input,
        source_keys: moved_all(&hop.source_keys, &kept),
        target_keys: moved_all(&hop.target_keys, &listed(&own[hop.input])),
    };
    let pruned = DeltaJoin {
        paths: join.paths.iter().map(|path| path.iter().map(hop).collect()).collect(),
        residual: join.residual.as_ref().map(|e| moved(e, &kept)),
        inputs: join.inputs.into_iter().zip(&own).map(|(input, own)| narrow(input, own)).collect(),
        reason: join.reason,
    };
    (Plan::new(Node::DeltaJoin(Box::new(pruned)), cut(&schema, &kept)), kept)
}

fn prune_aggregate(aggregate: Aggregate, schema: Schema, wanted: &Columns) -> (Plan, Vec<usize>) {
    let keys = aggregate.keys.len();
    let mut calls: Vec<usize> = wanted.iter().filter(|index| **index >= keys).map(|index| index - keys).collect();
    if calls.is_empty() {
        // A group is there as long as it has rows; one aggregate has to notice.
        calls.push(0);
    }
    let kept: Vec<usize> = (0..keys).chain(calls.iter().map(|call| call + keys)).collect();
    let calls: Vec<_> = calls.iter().map(|call| aggregate.aggregates[*call].clone()).collect();
    let needed = terms::used_by(aggregate.keys.iter().chain(calls.iter().flat_map(|call| call.expressions())));
    let (input, below) = prune(aggregate.input, &needed);
    let pruned = Aggregate {
        input,
        keys: moved_all(&aggregate.keys, &below),
        aggregates: calls.iter().map(|call| call.map(&|e| moved(e, &below))).collect(),
    };
    (Plan::new(Node::Aggregate(Box::new(pruned)), cut(&schema, &kept)), kept)
}

fn prune_top_k(top_k: TopK, schema: Schema, wanted: &Columns) -> (Plan, Vec<usize>) {
    let rank = top_k.input.schema.len();
    let always_first = top_k.limit == Some(1) && top_k.offset == 0 && top_k.ranking == Ranking::RowNumber;
    if top_k.emit_rank && (always_first || !wanted.contains(&rank)) {
        return prune(top_k::without_rank(top_k, schema), wanted);
    }
    let own: Columns = wanted.iter().copied().filter(|index| *index < rank).collect();
    let keys = terms::used_by(top_k.partition.iter().chain(top_k.order.iter().map(|key| &key.expression)));
    let needed = with(&own, keys);
    let mut kept = listed(&needed);
    let pruned = TopK {
        partition: moved_all(&top_k.partition, &kept),
        order: top_k.order.iter().map(|key| key.map(&|e| moved(e, &kept))).collect(),
        input: narrow(top_k.input, &needed),
        ..top_k
    };
    if pruned.emit_rank {
        kept.push(rank);
    }
    (Plan::new(Node::TopK(Box::new(pruned)), cut(&schema, &kept)), kept)
}

fn prune_window(window: Window, schema: Schema, wanted: &Columns) -> (Plan, Vec<usize>) {
    let width = window.input.schema.len();
    let functions: Vec<usize> = (0..window.functions.len()).filter(|at| wanted.contains(&(width + at))).collect();
    let own: Columns = wanted.iter().copied().filter(|index| *index < width).collect();
    if functions.is_empty() {
        return prune(window.input, &own);
    }
    let mut needed = with(&own, terms::used_by(&window.partition));
    functions.iter().for_each(|at| needed.extend(window.functions[*at].columns()));
    let below = listed(&needed);
    let kept = below.iter().copied().chain(functions.iter().map(|at| width + at)).collect::<Vec<_>>();
    let pruned = Window {
        partition: moved_all(&window.partition, &below),
        functions: functions.iter().map(|at| window.functions[*at].map_columns(&|c| place(&below, c))).collect(),
        input: narrow(window.input, &needed),
    };
    (Plan::new(Node::Window(Box::new(pruned)), cut(&schema, &kept)), kept)
}

/// Fills in what a join should know about its sides.
fn finish(mut plan: Plan, tables: &dyn TableInfo) -> Plan {
    if let Node::Join(join) = &mut plan.node {
        finish_join(join, tables);
    }
    plan
}

fn finish_join(join: &mut Join, tables: &dyn TableInfo) {
    // In the order of the PRIMARY KEY the table's own index serves.
    let order = key_order(&join.right, &join.right_keys, tables).or_else(|| key_order(&join.left, &join.left_keys, tables));
    if let Some(order) = order {
        let reorder = |keys: &[ScalarExpr]| order.iter().map(|at| keys[*at].clone()).collect();
        (join.left_keys, join.right_keys) = (reorder(&join.left_keys), reorder(&join.right_keys));
    }
    join.right_unique = is_unique(&join.right, &plain_columns(&join.right_keys), tables);
    join.left_unique = is_unique(&join.left, &plain_columns(&join.left_keys), tables);
    let one_row = is_single_row(&join.left, tables) || is_single_row(&join.right, tables);
    join.cross_limit = (join.left_keys.is_empty() && !one_row).then_some(CROSS_LIMIT);
    if join.reason.is_empty() {
        join.reason = reason(join);
    }
}

/// The order in which the keys are the PRIMARY KEY, where they are that and nothing else.
fn key_order(input: &Plan, keys: &[ScalarExpr], tables: &dyn TableInfo) -> Option<Vec<usize>> {
    arrangement::primary_key_order(input, keys, tables).filter(|order| order.len() == keys.len())
}

fn reason(join: &Join) -> String {
    match join.kind {
        JoinKind::LookupInner | JoinKind::LookupLeft => "asked for by FOR SYSTEM_TIME AS OF: never revised".into(),
        _ if join.cross_limit.is_some() => {
            format!("no keys: every pair is a candidate; the smaller side may have {CROSS_LIMIT} rows")
        }
        _ if join.left_keys.is_empty() => "one side has at most one row".into(),
        JoinKind::Inner if join.right_unique || join.left_unique => "two inputs, one of them unique by the key".into(),
        JoinKind::Inner => "two inputs by equal keys".into(),
        JoinKind::Left | JoinKind::Right | JoinKind::Full if join.right_unique && join.residual.is_none() => {
            "at most one match per key".into()
        }
        JoinKind::Left | JoinKind::Right | JoinKind::Full => "unmatched rows are kept".into(),
        JoinKind::Semi => "only whether there is a match matters".into(),
        JoinKind::Anti => "only whether there is no match matters".into(),
        JoinKind::NullAwareAnti => "NOT IN: NULL on the right leaves nothing".into(),
    }
}

/// Sets of columns that are unique in the plan's rows, the smallest first: what a view may call its key.
pub fn unique_keys(plan: &Plan, tables: &dyn TableInfo) -> Vec<Vec<usize>> {
    unique::unique_columns(plan, tables).iter().map(listed).collect()
}
