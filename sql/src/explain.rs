//! EXPLAIN: the plan as rows, one per operator: which join was chosen and why, which index it probes, who shares the index,
//! and whether its state grows.

use deltaworks_dataflow::Schema;

use crate::arrangement::{self, Arrangement, ArrangementKey, key_text};
use crate::expr::ScalarExpr;
use crate::lower::TableInfo;
use crate::plan::{
    Aggregate, AggregateCall, AggregateFunction, ComponentRows, DeltaJoin, Join, JoinKind, Lookback, Node, Plan, Ranking,
    SortKey, TopK, Window,
};

/// One operator of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainRow {
    /// Its number, from 0, the root first.
    pub id: i32,
    /// The operator that reads it; None for the root.
    pub parent: Option<i32>,
    /// What it is: source, filter, project, lookup_join, ..
    pub operator: &'static str,
    /// What it does, in SQL's words.
    pub detail: String,
    /// The indexes that it probes: whose rows by which keys. Empty without.
    pub arrangement: String,
    /// Who else probes them. Empty where nobody does.
    pub shared_with: String,
    /// Whether what it holds itself is `none`, `bounded` or `grows`.
    pub state: &'static str,
    /// Why it is what it is, and what lets it grow.
    pub reason: String,
}

/// Where a continuous statement's rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A table or view of that name.
    Table(&'a str),
    /// A connector.
    Sink(&'a str),
}

/// What EXPLAIN asks besides the plan.
pub struct Context<'a> {
    /// The catalog.
    pub tables: &'a dyn TableInfo,
    /// Other statements that probe an index, by name.
    pub sharers: &'a dyn Fn(&ArrangementKey) -> Vec<String>,
    /// The operator that keeps a table which statements read by the function that gives it; None for any other table.
    pub behind: &'a dyn Fn(&str) -> Option<Behind>,
}

/// An operator that keeps a table.
pub struct Behind {
    /// What it computes.
    pub plan: Plan,
    /// The other statements that read the table.
    pub readers: Vec<String>,
}

/// The plan as rows, parents before their inputs.
pub fn explain(plan: &Plan, tables: &dyn TableInfo) -> Vec<ExplainRow> {
    explain_statement(plan, None, &Context { tables, sharers: &|_| Vec::new(), behind: &|_| None })
}

/// The plan as rows, below the table or sink that it feeds, with the statements that share its indexes.
pub fn explain_statement(plan: &Plan, target: Option<Target<'_>>, context: &Context<'_>) -> Vec<ExplainRow> {
    let mut rows = Vec::new();
    let mut indexes: Vec<(i32, Arrangement)> = Vec::new();
    let parent = target.map(|target| {
        let (operator, detail) = match target {
            Target::Table(name) => ("table", name),
            Target::Sink(name) => ("sink", name),
        };
        let (arrangement, shared_with, reason) = (String::new(), String::new(), String::new());
        let state = if operator == "sink" { "none" } else { state_name(of_inputs(&[plan], context.tables)) };
        rows.push(ExplainRow {
            id: 0,
            parent: None,
            operator,
            detail: detail.into(),
            arrangement,
            shared_with,
            state,
            reason,
        });
        0
    });
    describe(plan, parent, context, &mut rows, &mut indexes);
    for row in rows.iter_mut().filter(|row| row.shared_with.is_empty()) {
        row.shared_with = shared_with(row.id, &indexes, context);
    }
    rows
}

fn describe(
    plan: &Plan,
    parent: Option<i32>,
    context: &Context<'_>,
    rows: &mut Vec<ExplainRow>,
    indexes: &mut Vec<(i32, Arrangement)>,
) {
    let id = rows.len() as i32;
    let probed = arrangement::of_node(plan, context.tables);
    let state = state(plan, &probed, context.tables);
    let mut reason = reason(plan, context.tables);
    if let State::Grows(table) = &state {
        let separator = if reason.is_empty() { "" } else { "; " };
        reason = format!("{reason}{separator}grows with table \"{table}\"");
    }
    rows.push(ExplainRow {
        id,
        parent,
        operator: operator(plan, context.tables),
        detail: detail(plan),
        arrangement: probed.iter().map(|index| index.text.as_str()).collect::<Vec<_>>().join("; "),
        shared_with: String::new(),
        state: state_name(state),
        reason,
    });
    indexes.extend(probed.into_iter().map(|index| (id, index)));
    if let Node::Get { table, .. } = &plan.node
        && let Some(behind) = (context.behind)(table)
    {
        let operator = rows.len();
        describe(&behind.plan, Some(id), context, rows, indexes);
        rows[operator].shared_with = behind.readers.join(", ");
    }
    for input in plan.inputs() {
        describe(input, Some(id), context, rows, indexes);
    }
}

/// The other users of the indexes of one operator.
fn shared_with(id: i32, indexes: &[(i32, Arrangement)], context: &Context<'_>) -> String {
    let mut names: Vec<String> = Vec::new();
    for (_, index) in indexes.iter().filter(|(owner, _)| *owner == id) {
        if let (true, Some(table)) = (index.exists, &index.table) {
            names.push(format!("table {table}"));
        }
        let others = indexes.iter().filter(|(owner, other)| *owner != id && other.key == index.key);
        names.extend(others.map(|(owner, _)| format!("operator {owner}")));
        names.extend((context.sharers)(&index.key));
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names.join(", ")
}

fn operator(plan: &Plan, tables: &dyn TableInfo) -> &'static str {
    match &plan.node {
        Node::Get { table, .. } => match tables.table(table) {
            Some(facts) if facts.arranged => "table",
            _ => "source",
        },
        Node::Constant { .. } | Node::Clock { .. } => "source",
        Node::Project { .. } => "project",
        Node::Filter { .. } => "filter",
        Node::TemporalFilter { .. } => "temporal_filter",
        Node::Unnest { .. } => "unnest",
        Node::Union { .. } => "union",
        Node::Distinct { .. } => "distinct",
        Node::Join(join) => match join.kind {
            JoinKind::Inner => "linear_join",
            JoinKind::Left | JoinKind::Right | JoinKind::Full => "outer_join",
            JoinKind::Semi => "semi_join",
            JoinKind::Anti | JoinKind::NullAwareAnti => "anti_join",
            JoinKind::LookupInner | JoinKind::LookupLeft => "lookup_join",
        },
        Node::DeltaJoin(_) => "delta_join",
        Node::Lookback(_) => "lookback_join",
        Node::Aggregate(_) | Node::Window(_) => "aggregate",
        Node::TopK(_) => "top_k",
        Node::Components(_) => "identity",
        Node::Bitmaps(_) => "bitmaps",
    }
}

fn reason(plan: &Plan, tables: &dyn TableInfo) -> String {
    match &plan.node {
        Node::Get { table, .. } if tables.table(table).is_some_and(|facts| !facts.retained) => {
            "a stream: nothing of it is kept".into()
        }
        Node::Get { in_chunks: true, .. } if has_bitmaps(plan) => IN_CHUNKS.into(),
        Node::Aggregate(aggregate) if aggregate.aggregates.iter().any(|call| call.in_chunks) => IN_CHUNKS.into(),
        Node::Bitmaps(_) => "in chunks: one id more or less costs one chunk of 65,536 ids".into(),
        Node::Join(join) => join.reason.clone(),
        Node::DeltaJoin(join) => join.reason.clone(),
        Node::Lookback(lookback) => lookback.reason.clone(),
        Node::Window(_) => "a changed partition is computed anew".into(),
        Node::TopK(top_k) if top_k.before_sink => {
            let key = texts(&top_k.partition, &top_k.input.schema);
            format!("several rows may have the sink's key ({key}): the first in encoded-row order is sent")
        }
        Node::TemporalFilter { .. } => "rows leave by the clock: nothing is scanned".into(),
        Node::Components(components) => match components.rows {
            ComponentRows::OneIds => "a forest of the links, on one worker".into(),
            ComponentRows::History => "a forest of the links, on one worker; what it gave stays".into(),
        },
        _ => String::new(),
    }
}

/// Why rows have no bitmaps in them.
const IN_CHUNKS: &str = "bitmaps in chunks";

fn has_bitmaps(plan: &Plan) -> bool {
    plan.schema.columns.iter().any(|column| column.data_type == deltaworks_dataflow::DataType::Bitmap)
}

fn text(expression: &ScalarExpr, schema: &Schema) -> String {
    expression.to_text(&|index| schema.columns.get(index).map_or_else(|| format!("#{index}"), |c| c.name.clone()))
}

fn texts<'a>(expressions: impl IntoIterator<Item = &'a ScalarExpr>, schema: &Schema) -> String {
    expressions.into_iter().map(|e| text(e, schema)).collect::<Vec<_>>().join(", ")
}

fn names(schema: &Schema) -> String {
    schema.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn detail(plan: &Plan) -> String {
    match &plan.node {
        Node::Get { table, .. } => format!("{table} ({})", names(&plan.schema)),
        Node::Constant { rows } => format!("{} fixed rows", rows.len()),
        Node::Clock { .. } => format!("clock ({})", names(&plan.schema)),
        Node::Project { input, expressions } => {
            let named = |(e, column): (&ScalarExpr, &deltaworks_dataflow::Column)| {
                let text = text(e, &input.schema);
                if text == column.name { text } else { format!("{text} AS {}", column.name) }
            };
            expressions.iter().zip(&plan.schema.columns).map(named).collect::<Vec<_>>().join(", ")
        }
        Node::Filter { input, predicate } => text(predicate, &input.schema),
        Node::TemporalFilter { input, lower, upper, .. } => {
            let from = lower.as_ref().map(|e| format!("from {}", text(e, &input.schema)));
            let until = upper.as_ref().map(|e| format!("until {}", text(e, &input.schema)));
            from.into_iter().chain(until).collect::<Vec<_>>().join(" ")
        }
        Node::Unnest { input, array, .. } => text(array, &input.schema),
        Node::Union { inputs } => format!("{} inputs", inputs.len()),
        Node::Distinct { .. } => names(&plan.schema),
        Node::Join(join) => join_detail(join),
        Node::DeltaJoin(join) => delta_detail(join, &plan.schema),
        Node::Lookback(lookback) => lookback_detail(lookback),
        Node::Aggregate(aggregate) => aggregate_detail(aggregate),
        Node::TopK(top_k) => top_k_detail(top_k),
        Node::Window(window) => window_detail(window),
        Node::Components(components) => {
            let function = if components.rows == ComponentRows::OneIds { "IDENTITY" } else { "IDENTITY_HISTORY" };
            format!("{function} of ({})", names(&components.links.schema))
        }
        Node::Bitmaps(bitmaps) => {
            let results = &plan.schema.columns[bitmaps.input.schema.len()..];
            results.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
        }
    }
}

/// How a join matches, in SQL's words.
pub(crate) fn join_detail(join: &Join) -> String {
    let kind = match join.kind {
        JoinKind::Inner | JoinKind::LookupInner => "inner",
        JoinKind::Left | JoinKind::LookupLeft => "left",
        JoinKind::Right => "right",
        JoinKind::Full => "full",
        JoinKind::Semi => "semi",
        JoinKind::Anti => "anti",
        JoinKind::NullAwareAnti => "null-aware anti",
    };
    let equal = if join.null_equal { "IS NOT DISTINCT FROM" } else { "=" };
    let pair = |(left, right): (&ScalarExpr, &ScalarExpr)| {
        format!("{} {equal} {}", text(left, &join.left.schema), text(right, &join.right.schema))
    };
    let mut parts: Vec<String> = join.left_keys.iter().zip(&join.right_keys).map(pair).collect();
    let both = Schema::new(join.left.schema.columns.iter().chain(&join.right.schema.columns).cloned().collect());
    parts.extend(join.residual.iter().map(|residual| text(residual, &both)));
    if parts.is_empty() { format!("{kind}, every pair") } else { format!("{kind} ON {}", parts.join(" AND ")) }
}

fn delta_detail(join: &DeltaJoin, schema: &Schema) -> String {
    let path = |(from, hops): (usize, &Vec<crate::plan::DeltaHop>)| {
        let hop = |hop: &crate::plan::DeltaHop| {
            format!(" -> {} by {}", hop.input, key_text(&join.inputs[hop.input], &hop.target_keys))
        };
        format!("{from}{}", hops.iter().map(hop).collect::<String>())
    };
    let mut text_of = join.paths.iter().enumerate().map(path).collect::<Vec<_>>().join("; ");
    if let Some(residual) = &join.residual {
        text_of.push_str(&format!("; where {}", text(residual, schema)));
    }
    text_of
}

fn lookback_detail(lookback: &Lookback) -> String {
    let (left, right) = (&lookback.left.schema, &lookback.right.schema);
    let bound = |distance: i64, sign: char| match distance {
        i64::MAX => None,
        0 => Some(text(&lookback.left_time, left)),
        n => Some(format!(
            "{} {} {}",
            text(&lookback.left_time, left),
            if n < 0 { flip(sign) } else { sign },
            n.unsigned_abs()
        )),
    };
    let range = match (bound(lookback.before, '-'), bound(lookback.after, '+')) {
        (Some(from), Some(to)) => format!("BETWEEN {from} AND {to}"),
        (Some(from), None) => format!(">= {from}"),
        (None, Some(to)) => format!("<= {to}"),
        (None, None) => "of any time".into(),
    };
    let tie_breaker = |key: &SortKey| {
        let direction = match (lookback.last, key.descending) {
            (true, false) => " ASC",
            (false, true) => " DESC",
            _ => "",
        };
        text(&key.expression, right) + direction
    };
    let order: Vec<String> =
        std::iter::once(text(&lookback.right_time, right)).chain(lookback.tie_breakers.iter().map(tie_breaker)).collect();
    let order = order.join(", ");
    format!(
        "{} {} by ({order}) of {} = {} with {} {range}",
        if lookback.outer { "left," } else { "inner," },
        if lookback.last { "last" } else { "first" },
        texts(&lookback.left_keys, left),
        texts(&lookback.right_keys, right),
        text(&lookback.right_time, right),
    )
}

fn flip(sign: char) -> char {
    if sign == '-' { '+' } else { '-' }
}

fn aggregate_detail(aggregate: &Aggregate) -> String {
    let schema = &aggregate.input.schema;
    let calls: Vec<String> = aggregate.aggregates.iter().map(|call| call_text(call, schema)).collect();
    match aggregate.keys.is_empty() {
        true => calls.join(", "),
        false => format!("{} BY {}", calls.join(", "), texts(&aggregate.keys, schema)),
    }
}

fn call_text(call: &AggregateCall, schema: &Schema) -> String {
    let name = match &call.function {
        AggregateFunction::ArgMin => "ARG_MIN".to_string(),
        AggregateFunction::ArgMax => "ARG_MAX".to_string(),
        AggregateFunction::FirstValue => "FIRST_VALUE".to_string(),
        AggregateFunction::LastValue => "LAST_VALUE".to_string(),
        AggregateFunction::Other(name) => name.to_uppercase(),
        other => format!("{other:?}").to_uppercase(),
    };
    let arguments = if call.arguments.is_empty() { "*".to_string() } else { texts(&call.arguments, schema) };
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let order =
        if call.order_by.is_empty() { String::new() } else { format!(" ORDER BY {}", sort_text(&call.order_by, schema)) };
    let filter = call.filter.as_ref().map(|e| format!(" FILTER (WHERE {})", text(e, schema))).unwrap_or_default();
    format!("{name}({distinct}{arguments}{order}){filter}")
}

fn sort_text(order: &[SortKey], schema: &Schema) -> String {
    let key = |key: &SortKey| {
        let direction = if key.descending { " DESC" } else { "" };
        let nulls = match (key.descending, key.nulls_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{}{direction}{nulls}", text(&key.expression, schema))
    };
    order.iter().map(key).collect::<Vec<_>>().join(", ")
}

fn top_k_detail(top_k: &TopK) -> String {
    let schema = &top_k.input.schema;
    let ranking = match top_k.ranking {
        Ranking::RowNumber => "ROW_NUMBER",
        Ranking::Rank => "RANK",
        Ranking::DenseRank => "DENSE_RANK",
    };
    let ranks = match top_k.limit {
        Some(1) if top_k.offset == 0 => format!("{ranking} = 1"),
        Some(limit) if top_k.offset == 0 => format!("{ranking} <= {limit}"),
        Some(limit) => format!("{ranking} in {}..{}", top_k.offset + 1, top_k.offset + limit),
        None if top_k.offset == 0 => ranking.to_string(),
        None => format!("{ranking} > {}", top_k.offset),
    };
    let partition =
        if top_k.partition.is_empty() { String::new() } else { format!(" BY {}", texts(&top_k.partition, schema)) };
    let order =
        if top_k.order.is_empty() { String::new() } else { format!(" ORDER BY {}", sort_text(&top_k.order, schema)) };
    format!("{ranks}{partition}{order}")
}

fn window_detail(window: &Window) -> String {
    let name = |index: usize| window.input.schema.columns.get(index).map(|c| c.name.clone());
    let call = |call: &crate::plan::WindowCall| {
        use datafusion::common::tree_node::{Transformed, TreeNode};
        use datafusion::logical_expr::Expr;
        let named = call.expression.clone().transform(|part| {
            Ok(match &part {
                Expr::Column(column) => {
                    let index = column.name.strip_prefix('c').and_then(|index| index.parse().ok());
                    match index.and_then(name) {
                        Some(name) => Transformed::yes(Expr::Column(datafusion::common::Column::new_unqualified(name))),
                        None => Transformed::no(part),
                    }
                }
                _ => Transformed::no(part),
            })
        });
        named.map_or_else(|_| call.expression.to_string(), |named| named.data.to_string())
    };
    window.functions.iter().map(call).collect::<Vec<_>>().join(", ")
}

/// What an operator holds.
enum State {
    None,
    Bounded,
    /// With the named table.
    Grows(String),
}

fn state_name(state: State) -> &'static str {
    match state {
        State::None => "none",
        State::Bounded => "bounded",
        State::Grows(_) => "grows",
    }
}

fn state(plan: &Plan, probed: &[Arrangement], tables: &dyn TableInfo) -> State {
    match &plan.node {
        Node::Get { .. }
        | Node::Constant { .. }
        | Node::Clock { .. }
        | Node::Project { .. }
        | Node::Filter { .. }
        | Node::Unnest { .. }
        | Node::Union { .. } => State::None,
        Node::TemporalFilter { input, upper, .. } if upper.is_none() => of_inputs(&[input], tables),
        Node::TemporalFilter { .. } => State::Bounded,
        Node::Join(_) | Node::Lookback(_) | Node::DeltaJoin(_) => {
            let own: Vec<&Plan> = probed.iter().filter(|index| !index.exists).map(|index| &index.key.plan).collect();
            if own.is_empty() { State::None } else { of_inputs(&own, tables) }
        }
        Node::Aggregate(aggregate) if aggregate.keys.is_empty() && aggregate.aggregates.iter().all(is_constant_state) => {
            State::Bounded
        }
        _ => of_inputs(&plan.inputs(), tables),
    }
}

/// Whether the aggregate holds the same few numbers however many rows there are.
fn is_constant_state(call: &AggregateCall) -> bool {
    use AggregateFunction::{Avg, Count, Sum};
    !call.distinct && matches!(call.function, Count | Sum | Avg)
}

/// The state of an operator that holds rows of its inputs.
fn of_inputs(inputs: &[&Plan], tables: &dyn TableInfo) -> State {
    match inputs.iter().find_map(|input| growing_table(input, tables)) {
        Some(table) => State::Grows(table),
        None => State::Bounded,
    }
}

/// A table without bound whose rows reach the plan's output.
pub fn growing_table(plan: &Plan, tables: &dyn TableInfo) -> Option<String> {
    match &plan.node {
        Node::Get { table, .. } => {
            let bounded = tables.table(table).is_some_and(|facts| facts.bounded);
            (!bounded).then(|| table.clone())
        }
        Node::TemporalFilter { upper: Some(_), .. } => None,
        Node::Aggregate(aggregate) if aggregate.keys.is_empty() => None,
        Node::TopK(top_k) if top_k.partition.is_empty() && top_k.limit.is_some() => None,
        _ => plan.inputs().into_iter().find_map(|input| growing_table(input, tables)),
    }
}
