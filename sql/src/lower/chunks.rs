//! Bitmaps that travel in chunks: where a plan can do with handles instead of bitmaps.
//!
//! A bitmap that travels in chunks stands in a row as a *handle*, the key of the group that it was made of; its ids are rows of
//! a collection of their own, by handle. One id more changes one chunk and no row.
//!
//! | handles come from | |
//! |---|---|
//! | GROUP_BITMAP_STATE, GROUP_BITMAP_AND_STATE, _OR_STATE, _XOR_STATE | the group's key |
//! | a dynamic table whose column is made so | the handle in its row |
//! | BITMAP_AND, _OR, _XOR, _ANDNOT of handles in a select list | the operands' handles |
//!
//! | handles pass | |
//! |---|---|
//! | projections, filters, inner, semi and anti joins (of the kept side) | wherever nothing but `IS [NOT] NULL` asks for the bitmap |
//!
//! | handles are used by | |
//! |---|---|
//! | BITMAP_COUNT, BITMAP_AND_CARDINALITY and the others, of trees of BITMAP_AND, _OR, _XOR, _ANDNOT over handles | [`Bitmaps`] |
//! | GROUP_BITMAP_AND, _OR, _XOR and their states, of a column with handles | the aggregate |
//!
//! Wherever anything else reads a bitmap it is made whole at its source, and everything between is as if there were no chunks. A
//! handle is never NULL, and says nothing about the bitmap: equal bitmaps may have different handles.

use super::terms::used_by;
use super::unique::Columns;
use super::{TableInfo, filter, pick, project};
use crate::expr::{Function, ScalarExpr, UnaryOp};
use crate::functions::bitmap::BitmapFunction;
use crate::plan::{Aggregate, AggregateCall, AggregateFunction, Bitmaps, DeltaJoin, Join, JoinKind, Node, Plan};
use deltaworks_dataflow::bitmap::SetOperation;
use deltaworks_dataflow::{Column, DataType, Schema};
use deltaworks_operators::bitmap::{FoldOperation, SetExpression};

/// The plan with handles inside, and bitmaps as whole values in its rows.
pub fn inside(plan: Plan, tables: &dyn TableInfo) -> Plan {
    let all = all_columns(&plan);
    convert(plan, &all, tables).0
}

/// The plan with handles inside and, where it can, in its rows: the columns that have them.
pub fn throughout(plan: Plan, tables: &dyn TableInfo) -> (Plan, Vec<usize>) {
    let (plan, handles) = convert(plan, &Columns::new(), tables);
    (plan, handles.into_iter().collect())
}

/// How a bitmap aggregate puts bitmaps together: None for one of ids, and for what is no such aggregate.
pub(crate) fn fold_of(call: &AggregateCall) -> Option<FoldOperation> {
    match (bitmap_name(call)?.0, call.distinct) {
        ("_and", _) => Some(FoldOperation::And),
        ("_or", _) => Some(FoldOperation::Or),
        // Of equal bitmaps only one would count.
        ("_xor", false) => Some(FoldOperation::Xor),
        _ => None,
    }
}
/// Whether the call is a bitmap aggregate that can be kept in chunks, of ids or bitmaps, whatever it shows.
pub(crate) fn is_bitmap(call: &AggregateCall) -> bool {
    bitmap_name(call).is_some_and(|(fold, _)| fold.is_empty()) || fold_of(call).is_some()
}
/// Whether it shows the bitmap, and not how many ids that has.
pub(crate) fn is_state(call: &AggregateCall) -> bool {
    bitmap_name(call).is_some_and(|(_, state)| state)
}
fn bitmap_name(call: &AggregateCall) -> Option<(&str, bool)> {
    let AggregateFunction::Other(name) = &call.function else { return None };
    let fold = name.strip_prefix("group_bitmap")?;
    Some(fold.strip_suffix("_state").map_or((fold, false), |fold| (fold, true)))
}

fn all_columns(plan: &Plan) -> Columns {
    (0..plan.schema.len()).collect()
}
fn both(columns: &Columns, more: Columns) -> Columns {
    columns.union(&more).copied().collect()
}
/// The columns from `from` on, `width` of them, by their positions there.
fn part(columns: &Columns, from: usize, width: usize) -> Columns {
    columns.range(from..from + width).map(|column| column - from).collect()
}

/// The plan with handles wherever possible, but not in the columns `whole`, and which of its columns have handles.
fn convert(plan: Plan, whole: &Columns, tables: &dyn TableInfo) -> (Plan, Columns) {
    let schema = plan.schema;
    match plan.node {
        Node::Get { table, columns, .. } => {
            let offered = tables.table(&table).map(|facts| facts.in_chunks).unwrap_or_default();
            let handles: Columns = (0..columns.len()).filter(|at| offered.contains(&columns[*at])).collect();
            let in_chunks = !offered.is_empty() && handles.is_disjoint(whole);
            let plan = Plan::new(Node::Get { table, columns, in_chunks }, schema);
            (plan, if in_chunks { handles } else { Columns::new() })
        }
        Node::Project { input, expressions } => convert_project(*input, &expressions, schema, whole, tables),
        Node::Filter { input, predicate } => convert_filter(*input, predicate, schema, whole, tables),
        Node::TemporalFilter { input, lower, upper, variable } => {
            let (input, handles) = convert(*input, &both(whole, used_by(lower.iter().chain(&upper))), tables);
            (Plan::new(Node::TemporalFilter { input: Box::new(input), lower, upper, variable }, schema), handles)
        }
        Node::Join(join) => convert_join(*join, schema, whole, tables),
        Node::DeltaJoin(join) => convert_delta(*join, schema, whole, tables),
        Node::Aggregate(aggregate) => convert_aggregate(*aggregate, schema, whole, tables),
        node => {
            let mut plan = Plan::new(node, schema);
            for input in plan.inputs_mut() {
                let own = std::mem::replace(input, Plan::new(Node::Constant { rows: Vec::new() }, Schema::default()));
                *input = inside(own, tables);
            }
            (plan, Columns::new())
        }
    }
}

fn convert_join(mut join: Join, schema: Schema, whole: &Columns, tables: &dyn TableInfo) -> (Plan, Columns) {
    let width = join.left.schema.len();
    let whole = both(whole, used_by(&join.residual));
    let left = both(&part(&whole, 0, width), used_by(&join.left_keys));
    let right = both(&part(&whole, width, join.right.schema.len()), used_by(&join.right_keys));
    let (left, right) = match join.kind {
        JoinKind::Inner => (left, right),
        JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => (left, all_columns(&join.right)),
        // Handles are never NULL, and what is looked up is not followed.
        _ => (all_columns(&join.left), all_columns(&join.right)),
    };
    let mut handles;
    (join.left, handles) = convert(join.left, &left, tables);
    let (converted, of_right) = convert(join.right, &right, tables);
    join.right = converted;
    handles.extend(of_right.into_iter().map(|column| column + width));
    (Plan::new(Node::Join(Box::new(join)), schema), handles)
}

fn convert_delta(mut join: DeltaJoin, schema: Schema, whole: &Columns, tables: &dyn TableInfo) -> (Plan, Columns) {
    let hops = || join.paths.iter().flatten();
    let whole = both(whole, used_by(join.residual.iter().chain(hops().flat_map(|hop| &hop.source_keys))));
    let mut handles = Columns::new();
    let mut inputs = Vec::with_capacity(join.inputs.len());
    let mut from = 0;
    for (number, input) in std::mem::take(&mut join.inputs).into_iter().enumerate() {
        let width = input.schema.len();
        let hops = join.paths.iter().flatten().filter(|hop| hop.input == number);
        let keys = used_by(hops.flat_map(|hop| &hop.target_keys));
        let (input, own) = convert(input, &both(&part(&whole, from, width), keys), tables);
        handles.extend(own.into_iter().map(|column| column + from));
        inputs.push(input);
        from += width;
    }
    join.inputs = inputs;
    (Plan::new(Node::DeltaJoin(Box::new(join)), schema), handles)
}

fn convert_aggregate(mut aggregate: Aggregate, schema: Schema, whole: &Columns, tables: &dyn TableInfo) -> (Plan, Columns) {
    let keys = aggregate.keys.len();
    let mut needed = used_by(&aggregate.keys);
    for call in &aggregate.aggregates {
        let of_column =
            fold_of(call).is_some() && call.filter.is_none() && call.arguments.iter().all(|e| e.as_column().is_some());
        if !of_column {
            needed.extend(used_by(call.expressions()));
        }
    }
    aggregate.input = convert(aggregate.input, &needed, tables).0;
    let mut handles = Columns::new();
    for (number, call) in aggregate.aggregates.iter_mut().enumerate() {
        call.in_chunks = is_bitmap(call) && is_state(call) && !whole.contains(&(keys + number));
        if call.in_chunks {
            handles.insert(keys + number);
        }
    }
    (Plan::new(Node::Aggregate(Box::new(aggregate)), schema), handles)
}

fn convert_filter(
    input: Plan,
    predicate: ScalarExpr,
    schema: Schema,
    whole: &Columns,
    tables: &dyn TableInfo,
) -> (Plan, Columns) {
    let asked = Asked { expressions: std::slice::from_ref(&predicate), sets: &Columns::new() };
    let (input, handles) = asked.convert_input(input, whole.clone(), tables);
    let mut bitmaps = Bitmaps { input, counts: Vec::new(), sets: Vec::new() };
    let predicate = asked.over(&mut bitmaps, &handles, &predicate, false);
    let width = bitmaps.input.schema.len();
    if bitmaps.counts.is_empty() {
        let plan = filter(bitmaps.input, predicate);
        return (Plan { schema, ..plan }, handles);
    }
    let filtered = filter(with_results(bitmaps), predicate);
    (pick(filtered, &(0..width).collect::<Vec<_>>()), handles)
}

fn convert_project(
    input: Plan,
    expressions: &[ScalarExpr],
    schema: Schema,
    whole: &Columns,
    tables: &dyn TableInfo,
) -> (Plan, Columns) {
    let sets: Columns = (0..expressions.len()).filter(|place| !whole.contains(place)).collect();
    let asked = Asked { expressions, sets: &sets };
    let (input, handles) = asked.convert_input(input, Columns::new(), tables);
    let width = input.schema.len();
    let mut bitmaps = Bitmaps { input, counts: Vec::new(), sets: Vec::new() };
    // Counts before sets, as the columns of the results are.
    let mut over: Vec<ScalarExpr> =
        expressions.iter().map(|expression| asked.over(&mut bitmaps, &handles, expression, false)).collect();
    for place in &sets {
        over[*place] = asked.over(&mut bitmaps, &handles, &over[*place], true);
    }
    let first_set = width + bitmaps.counts.len();
    let has_handle = |e: &ScalarExpr| e.as_column().is_some_and(|c| handles.contains(&c) || c >= first_set);
    let of_output = (0..over.len()).filter(|place| has_handle(&over[*place])).collect();
    let input = match bitmaps.counts.is_empty() && bitmaps.sets.is_empty() {
        true => bitmaps.input,
        false => with_results(bitmaps),
    };
    (project(input, over, schema), of_output)
}

/// The node, its columns named by what they are.
fn with_results(bitmaps: Bitmaps) -> Plan {
    let mut schema = bitmaps.input.schema.clone();
    let named = |data_type: DataType| move |set: &SetExpression| (set.clone(), data_type.clone());
    let counts = bitmaps.counts.iter().map(named(DataType::BigInt));
    let results: Vec<_> = counts.chain(bitmaps.sets.iter().map(named(DataType::Bitmap))).collect();
    for (set, data_type) in results {
        let text = set_text(&set, &bitmaps.input.schema);
        let name = if data_type == DataType::BigInt { format!("BITMAP_COUNT({text})") } else { text };
        schema.columns.push(Column::new(name, data_type));
    }
    Plan::new(Node::Bitmaps(Box::new(bitmaps)), schema)
}

/// A set in SQL's words, over columns of a schema.
pub(crate) fn set_text(set: &SetExpression, schema: &Schema) -> String {
    match set {
        SetExpression::Operand(column) => schema.columns[*column].name.clone(),
        SetExpression::Combined(operation, left, right) => {
            let function = match operation {
                SetOperation::And => BitmapFunction::And,
                SetOperation::Or => BitmapFunction::Or,
                SetOperation::Xor => BitmapFunction::Xor,
                SetOperation::AndNot => BitmapFunction::AndNot,
            };
            format!("{function}({}, {})", set_text(left, schema), set_text(right, schema))
        }
    }
}

/// Expressions over one input, some of which may read bitmaps by handle.
struct Asked<'a> {
    expressions: &'a [ScalarExpr],
    /// The expressions that may give handles themselves.
    sets: &'a Columns,
}

impl Asked<'_> {
    /// The input with handles as far as every set that is asked for has all of its operands or none of them as handles.
    fn convert_input(&self, input: Plan, whole: Columns, tables: &dyn TableInfo) -> (Plan, Columns) {
        let mut needed = whole;
        let mut trees = Vec::new();
        for (place, expression) in self.expressions.iter().enumerate() {
            find(expression, self.sets.contains(&place), &mut trees, &mut needed);
        }
        loop {
            let (converted, handles) = convert(input.clone(), &needed, tables);
            let torn: Columns = trees.iter().filter(|tree| is_torn(tree, &handles)).flat_map(operands).collect();
            if torn.is_empty() {
                return (converted, handles);
            }
            needed.extend(torn);
        }
    }
    /// The expression with columns of `bitmaps` for the counts (or, with `set`, for itself) that can be read from handles.
    fn over(&self, bitmaps: &mut Bitmaps, handles: &Columns, expression: &ScalarExpr, set: bool) -> ScalarExpr {
        let width = bitmaps.input.schema.len();
        let of_handles = |set: &SetExpression| operands(set).is_subset(handles);
        if set {
            let made = as_set(expression).filter(|made| expression.as_column().is_none() && of_handles(made));
            let Some(made) = made else { return expression.clone() };
            let column = width + bitmaps.counts.len() + place_of(made, &mut bitmaps.sets);
            return ScalarExpr::column(column, DataType::Bitmap);
        }
        match as_count(expression).filter(of_handles) {
            Some(count) => ScalarExpr::column(width + place_of(count, &mut bitmaps.counts), expression.data_type()),
            None => expression.map_children(&mut |child| self.over(bitmaps, handles, child, false)),
        }
    }
}

/// The set's place in the list, where it is put if it is new.
fn place_of(set: SetExpression, list: &mut Vec<SetExpression>) -> usize {
    list.iter().position(|other| *other == set).unwrap_or_else(|| {
        list.push(set);
        list.len() - 1
    })
}
fn operands(set: &SetExpression) -> Columns {
    let mut operands = Columns::new();
    set.operands(&mut operands);
    operands
}
fn is_torn(set: &SetExpression, handles: &Columns) -> bool {
    let operands = operands(set);
    !operands.is_disjoint(handles) && !operands.is_subset(handles)
}

/// Finds the sets that could be read from handles; the columns that are read otherwise are needed whole.
fn find(expression: &ScalarExpr, may_be_set: bool, trees: &mut Vec<SetExpression>, needed: &mut Columns) {
    let set = if may_be_set { as_set(expression) } else { None };
    match (set.or_else(|| as_count(expression)), expression) {
        (Some(set), _) => trees.push(set),
        (None, ScalarExpr::Unary { op: UnaryOp::IsNull | UnaryOp::IsNotNull, input }) if input.as_column().is_some() => {}
        (None, ScalarExpr::Column { index, .. }) => {
            needed.insert(*index);
        }
        _ => expression.children().into_iter().for_each(|child| find(child, false, trees, needed)),
    }
}

/// What is counted, where the expression is the number of a set's ids.
fn as_count(expression: &ScalarExpr) -> Option<SetExpression> {
    let ScalarExpr::Call { function: Function::Bitmap(function), arguments, .. } = expression else { return None };
    let operation = match function {
        BitmapFunction::Count => return as_set(arguments.first()?),
        BitmapFunction::AndCardinality => SetOperation::And,
        BitmapFunction::OrCardinality => SetOperation::Or,
        BitmapFunction::XorCardinality => SetOperation::Xor,
        BitmapFunction::AndNotCardinality => SetOperation::AndNot,
        _ => return None,
    };
    combined(operation, arguments)
}
/// The expression as a set made of columns.
fn as_set(expression: &ScalarExpr) -> Option<SetExpression> {
    match expression {
        ScalarExpr::Column { index, data_type: DataType::Bitmap } => Some(SetExpression::Operand(*index)),
        ScalarExpr::Call { function: Function::Bitmap(function), arguments, .. } => {
            let operation = match function {
                BitmapFunction::And => SetOperation::And,
                BitmapFunction::Or => SetOperation::Or,
                BitmapFunction::Xor => SetOperation::Xor,
                BitmapFunction::AndNot => SetOperation::AndNot,
                _ => return None,
            };
            combined(operation, arguments)
        }
        _ => None,
    }
}
fn combined(operation: SetOperation, arguments: &[ScalarExpr]) -> Option<SetExpression> {
    let [left, right] = arguments else { return None };
    Some(SetExpression::Combined(operation, Box::new(as_set(left)?), Box::new(as_set(right)?)))
}
