//! Renders joins: which columns each side's arrangement holds, and where the output's columns are found in a match.

use std::collections::BTreeSet;
use std::rc::Rc;

use deltaworks_dataflow::{Arranged, Collection, Column, DataType, Datum, Diff, Row, Schema, Time};
use deltaworks_operators::join::{
    HalfJoin, OuterKind, Pick, Range, Residual, When, Window, limit_pairs, linear_join, linear_join_null_equal,
    lookback_join, null_aware_anti_join, outer_join, semi_join,
};
use differential_dataflow::VecCollection;

use super::Renderer;
use super::layout::Layout;
use super::shape::{Compiled, Direction, Exiting, Shape, nulls};
use crate::explain::join_detail;
use crate::expr::{Evaluator, ScalarExpr};
use crate::plan::{DeltaJoin, Join, JoinKind, Lookback, Node, Plan, SortKey};

/// Both sides of a join, cut for their arrangements.
struct Sides {
    left: Layout,
    right: Layout,
    left_arity: usize,
    /// Whether the right side's columns are found in its value alone, because a key may be without it.
    right_optional: bool,
    left_optional: bool,
}

impl Sides {
    /// Fields of key ++ left value ++ right value.
    fn fields(&self) -> usize {
        self.left.fields() + self.right.value.len()
    }
    /// Where an output column stands in key ++ left value ++ right value. Columns nobody reads stand anywhere.
    fn place(&self, column: usize) -> usize {
        let keys = self.left.key.len();
        if column < self.left_arity {
            self.left.place(column, self.left_optional).unwrap_or(0)
        } else {
            let place = self.right.place(column - self.left_arity, self.right_optional).unwrap_or(0);
            if place < keys { place } else { place + self.left.value.len() }
        }
    }
}

impl<'s> Renderer<'_, '_, 's> {
    fn sides(&self, join: &Join, wanted: &BTreeSet<usize>) -> Sides {
        let left_arity = join.left.schema.len();
        let right_optional = matches!(join.kind, JoinKind::Left | JoinKind::Full | JoinKind::LookupLeft);
        let left_optional = matches!(join.kind, JoinKind::Right | JoinKind::Full);
        let mut all = wanted.clone();
        if let Some(residual) = &join.residual {
            residual.columns(&mut all);
        }
        let left = self.wanted(&all, 0, left_arity);
        let right = self.wanted(&all, left_arity, left_arity + join.right.schema.len());
        Sides {
            left: Layout::new(&join.left_keys, &[], &join.left.schema.types(), &left, left_optional),
            right: Layout::new(&join.right_keys, &[], &join.right.schema.types(), &right, right_optional),
            left_arity,
            right_optional,
            left_optional,
        }
    }

    pub(super) fn join<D: Exiting>(&mut self, join: &Join, shape: Shape) -> VecCollection<'s, Time, D, Diff> {
        let arity = join.left.schema.len() + join.right.schema.len();
        if let Node::Clock { variables } = &join.right.node {
            return self.with_clock(&join.left, variables, shape);
        }
        match join.kind {
            JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => {
                let rows = self.semi(join);
                self.map_whole(rows, join.left.schema.len(), shape)
            }
            JoinKind::LookupInner | JoinKind::LookupLeft => {
                let rows = self.rows(&join.left);
                self.lookup(join, rows, shape)
            }
            _ if join.kind != JoinKind::Inner && join.residual.is_some() && shape.filters() => {
                // In an outer join with a residual, "no output" must mean "no match" and nothing else.
                let rows = self.join(join, Shape::rows());
                self.map_whole(rows, arity, shape)
            }
            _ => {
                let sides = self.sides(join, &shape.columns_read(arity));
                let left = self.arrange(&join.left, sides.left.clone(), &[], "Left");
                let right = self.arrange(&join.right, sides.right.clone(), &[], "Right");
                let (left, right) = self.limited(join, left, right);
                let compiled = shape.compile(arity, sides.fields(), &|column| sides.place(column), &self.errors);
                let residual = join.residual.as_ref().map(|residual| self.residual(residual, join, &sides));
                match join.kind {
                    JoinKind::Inner => inner(left, right, join.null_equal, residual, compiled),
                    JoinKind::Left if is_unique_left(join) => unique_left(left, right, &sides, compiled),
                    kind => outer(left, right, kind, join.null_equal, residual, &sides, compiled),
                }
            }
        }
    }
    /// Without keys every row meets every row: both sides, until both have more rows than the plan allows.
    fn limited(&mut self, join: &Join, left: Arranged<'s>, right: Arranged<'s>) -> (Arranged<'s>, Arranged<'s>) {
        let Some(limit) = join.cross_limit else { return (left, right) };
        let message = format!(
            "a join in \"{}\" has no equality ({}), and both its sides have more than {limit} rows",
            self.view.strip_prefix("public.").unwrap_or(&self.view),
            join_detail(join)
        );
        let help = "equate a column of one side with one of the other, or make one side smaller by a filter before the join";
        if let Some(analysis) = &mut self.analysis {
            // An analysis that cannot be made ends itself alone.
            let reached = analysis.limited(message, help);
            return limit_pairs(left, right, limit, move || reached.set(true));
        }
        let alarm = self.build.alarm();
        limit_pairs(left, right, limit, move || alarm.limit(message.clone(), help.into()))
    }
    fn residual(&self, residual: &ScalarExpr, join: &Join, sides: &Sides) -> Evaluator {
        let columns: Vec<&Column> = join.left.schema.columns.iter().chain(&join.right.schema.columns).collect();
        let name = |place: usize| {
            let column = columns.iter().enumerate().find(|(column, _)| sides.place(*column) == place);
            column.map_or_else(|| format!("#{place}"), |(_, column)| column.name.clone())
        };
        let moved = residual.map_columns(&|column| sides.place(column));
        Evaluator::with_names(vec![moved], Rc::clone(&self.errors), &name)
    }
    fn semi(&mut self, join: &Join) -> Collection<'s> {
        let left_arity = join.left.schema.len();
        let sides = self.sides(join, &(0..left_arity).collect());
        let left = self.arrange(&join.left, sides.left.clone(), &[], "Left");
        let right = self.arrange(&join.right, sides.right.clone(), &[], "Right");
        let (left, right) = self.limited(join, left, right);
        let mut compiled =
            Shape::rows().compile(left_arity, sides.left.fields(), &|column| sides.place(column), &self.errors);
        let row = move |key: &[u8], value: &[u8]| compiled.apply::<Row>(&[key, value], 1).unwrap_or_default();
        if join.kind == JoinKind::NullAwareAnti && join.residual.is_none() {
            return null_aware_anti_join(left, right, "NullAwareAntiJoin", row);
        }
        let residual = join.residual.as_ref().map(|residual| {
            let mut evaluator = self.residual(residual, join, &sides);
            let test: Residual =
                Box::new(move |key: &[u8], left: &[u8], right: &[u8]| evaluator.eval_predicate_parts(&[key, left, right]));
            test
        });
        let anti = join.kind != JoinKind::Semi;
        semi_join(left, right, anti, residual, join.null_equal, if anti { "AntiJoin" } else { "SemiJoin" }, row)
    }
    /// A lookup join: changes of `rows` (the left input) probe; changes of the right side do not react.
    pub(super) fn lookup<D: Exiting>(
        &mut self,
        join: &Join,
        rows: Collection<'s>,
        shape: Shape,
    ) -> VecCollection<'s, Time, D, Diff> {
        let arity = join.left.schema.len() + join.right.schema.len();
        let sides = self.sides(join, &shape.columns_read(arity));
        let outer = join.kind == JoinKind::LookupLeft;
        let right = self.arrange(&join.right, sides.right.clone(), &[], "Right");
        let keyed = Shape::keyed(&join.left.schema, sides.left.key.clone(), sides.left.value.clone());
        let stream = self.map_whole::<(Row, Row)>(rows, sides.left_arity, keyed);
        let mut compiled = shape.compile(arity, sides.fields(), &|column| sides.place(column), &self.errors);
        let mut residual = join.residual.as_ref().map(|residual| self.residual(residual, join, &sides));
        let missing = nulls(sides.right.value.len());
        HalfJoin { when: When::UpTo, outer, null_equal: join.null_equal }.render(
            stream,
            right,
            "LookupJoin",
            move |key, left, right| {
                if let (Some(right), Some(residual)) = (right, &mut residual)
                    && !residual.eval_predicate_parts(&[key, left, right])
                {
                    return None;
                }
                compiled.apply(&[key, left, right.unwrap_or(&missing)], 1)
            },
        )
    }
    pub(super) fn lookback<D: Exiting>(&mut self, lookback: &Lookback, shape: Shape) -> VecCollection<'s, Time, D, Diff> {
        let left_arity = lookback.left.schema.len();
        let arity = left_arity + lookback.right.schema.len();
        let read = shape.columns_read(arity);
        let (left_wanted, right_wanted) = (self.wanted(&read, 0, left_arity), self.wanted(&read, left_arity, arity));
        let left_types = lookback.left.schema.types();
        let (stored, order, read_right) = lookback_right(lookback, &right_wanted);
        let sides = Sides {
            left: Layout::new(
                &lookback.left_keys,
                std::slice::from_ref(&lookback.left_time),
                &left_types,
                &left_wanted,
                false,
            ),
            right: read_right,
            left_arity,
            right_optional: lookback.outer,
            left_optional: false,
        };
        let left = self.arrange(&lookback.left, sides.left.clone(), &[], "Left");
        let right = self.arrange(&lookback.right, stored, &order, "Right");
        let mut compiled = shape.compile(arity, sides.fields(), &|column| sides.place(column), &self.errors);
        let missing = nulls(sides.right.value.len());
        let range = Range::Window(Window { before: lookback.before, after: lookback.after });
        let pick = if lookback.last { Pick::Last } else { Pick::First };
        lookback_join(left, right, range, pick, lookback.outer, "LookbackJoin", move |key, left, right, diff| {
            compiled.apply(&[key, left, right.unwrap_or(&missing)], diff)
        })
    }
    /// The concatenated rows of an inner join of several inputs.
    pub(super) fn delta_join(&mut self, join: &DeltaJoin) -> Collection<'s> {
        use deltaworks_operators::join::delta_path;
        let starts: Vec<usize> = join
            .inputs
            .iter()
            .scan(0, |at, input| {
                let start = *at;
                *at += input.schema.len();
                Some(start)
            })
            .collect();
        let arity: usize = join.inputs.iter().map(|input| input.schema.len()).sum();
        let mut all: Option<Collection<'s>> = None;
        for (index, hops) in join.paths.iter().enumerate() {
            // Rows on a path: the columns of the inputs met so far, in the order in which they were met.
            let mut met: Vec<usize> = vec![index];
            let mut rendered = Vec::new();
            for hop in hops {
                let place = path_place(&met, &join.inputs, &starts);
                let keys: Vec<ScalarExpr> = hop.source_keys.iter().map(|key| key.map_columns(&place)).collect();
                let input = &join.inputs[hop.input];
                let wanted = (0..input.schema.len()).collect();
                let layout = Layout::new(&hop.target_keys, &[], &input.schema.types(), &wanted, false);
                let arranged = self.arrange(input, layout.clone(), &[], "Delta");
                let names: Vec<String> =
                    met.iter().flat_map(|m| &join.inputs[*m].schema.columns).map(|column| column.name.clone()).collect();
                rendered.push(self.hop(hop.input, arranged, (keys, names), &layout, input.schema.types()));
                met.push(hop.input);
            }
            let rows = self.rows(&join.inputs[index]);
            let rows = delta_path(rows, index, rendered, "DeltaJoin");
            let place = path_place(&met, &join.inputs, &starts);
            let in_order: Vec<ScalarExpr> = join
                .inputs
                .iter()
                .flat_map(|input| input.schema.types())
                .enumerate()
                .map(|(column, data_type)| ScalarExpr::column(place(column), data_type))
                .collect();
            let rows = self.map_whole(rows, arity, Shape::rows().after_project(&Schema::default(), &in_order));
            all = Some(match all {
                Some(others) => others.concat(rows),
                None => rows,
            });
        }
        let rows = all.expect("a delta join has inputs");
        match &join.residual {
            Some(residual) => {
                let columns = join.inputs.iter().flat_map(|input| input.schema.columns.iter().cloned()).collect();
                self.map_whole(rows, arity, Shape::rows().after_filter(&Schema::new(columns), residual))
            }
            None => rows,
        }
    }
    fn hop(
        &self,
        input: usize,
        arranged: Arranged<'s>,
        (keys, names): (Vec<ScalarExpr>, Vec<String>),
        layout: &Layout,
        types: Vec<DataType>,
    ) -> deltaworks_operators::join::Hop<'s> {
        let name = |index: usize| names.get(index).cloned().unwrap_or_else(|| format!("#{index}"));
        let mut key = Evaluator::with_names(keys, Rc::clone(&self.errors), &name);
        let whole: Vec<ScalarExpr> =
            (0..types.len()).map(|c| ScalarExpr::column(layout.place(c, false).unwrap_or(0), types[c].clone())).collect();
        let mut row = Evaluator::new(whole, Rc::clone(&self.errors));
        deltaworks_operators::join::Hop {
            input,
            arranged,
            key: Box::new(move |path: &[u8], out: &mut Vec<u8>| key.eval_row(path, out)),
            merge: Box::new(move |path: &[u8], found_key: &[u8], value: &[u8], out: &mut Vec<u8>| {
                out.extend_from_slice(path);
                row.eval_parts(&[found_key, value], out);
                true
            }),
        }
    }
}

/// How a lookback's right side is arranged: its layout and sort keys, and the layout by which columns are found in it. Sort
/// keys that are not written as they are cannot be read back: such columns stand in the value a second time.
fn lookback_right(lookback: &Lookback, wanted: &BTreeSet<usize>) -> (Layout, Vec<SortKey>, Layout) {
    let order = lookback.right_order();
    let types = lookback.right.schema.types();
    let layout = |first: &[ScalarExpr]| Layout::new(&lookback.right_keys, first, &types, wanted, lookback.outer);
    let directions: Vec<Direction> = order.iter().map(Direction::of).collect();
    if directions.iter().all(|direction| direction.is_plain()) {
        let first: Vec<ScalarExpr> = order.into_iter().map(|key| key.expression).collect();
        return (layout(&first), Vec::new(), layout(&first));
    }
    let unreadable = || ScalarExpr::literal(Datum::Null, DataType::Boolean);
    let fields = |(key, direction): (&SortKey, &Direction)| match direction.is_plain() {
        true => vec![key.expression.clone()],
        false => (0..direction.fields()).map(|_| unreadable()).collect(),
    };
    let first: Vec<ScalarExpr> = order.iter().zip(&directions).flat_map(fields).collect();
    let read = layout(&first);
    let payload = read.value.get(first.len()..).unwrap_or_default().to_vec();
    (Layout { key: read.key.clone(), value: payload }, order, read)
}

/// Maps a column of the join's output to its place on a path that met the inputs `met`.
fn path_place<'a>(met: &[usize], inputs: &'a [Plan], starts: &'a [usize]) -> impl Fn(usize) -> usize + use<'a> {
    let met = met.to_vec();
    move |column| {
        let input = starts.iter().rposition(|start| *start <= column).unwrap_or(0);
        let before = met.iter().take_while(|m| **m != input).map(|m| inputs[*m].schema.len()).sum::<usize>();
        before + column - starts[input]
    }
}

fn inner<'s, D: Exiting>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    null_equal: bool,
    mut residual: Option<Evaluator>,
    mut compiled: Compiled,
) -> VecCollection<'s, Time, D, Diff> {
    let logic = move |key: &[u8], left: &[u8], right: &[u8], diff: Diff| {
        let parts = [key, left, right];
        if let Some(residual) = &mut residual {
            residual.set_diff(diff);
            if !residual.eval_predicate_parts(&parts) {
                return None;
            }
        }
        compiled.apply(&parts, diff)
    };
    if null_equal {
        linear_join_null_equal(left, right, "LinearJoin", logic)
    } else {
        linear_join(left, right, "LinearJoin", logic)
    }
}
/// Whether the join is rendered by one operator that says how often each row occurs, so that failures can be counted in it.
pub(super) fn counts_failures(join: &Join) -> bool {
    join.kind == JoinKind::Inner || is_unique_left(join)
}
fn is_unique_left(join: &Join) -> bool {
    join.kind == JoinKind::Left && join.right_unique && join.residual.is_none() && !join.null_equal
}
/// A left join with at most one right row per key: one operator that reacts to both sides.
fn unique_left<'s, D: Exiting>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    sides: &Sides,
    mut compiled: Compiled,
) -> VecCollection<'s, Time, D, Diff> {
    let missing = nulls(sides.right.value.len());
    lookback_join(left, right, Range::Whole, Pick::First, true, "LeftJoin", move |key, left, right, diff| {
        compiled.apply(&[key, left, right.unwrap_or(&missing)], diff)
    })
}
fn outer<'s, D: Exiting>(
    left: Arranged<'s>,
    right: Arranged<'s>,
    kind: JoinKind,
    null_equal: bool,
    mut residual: Option<Evaluator>,
    sides: &Sides,
    mut compiled: Compiled,
) -> VecCollection<'s, Time, D, Diff> {
    let kind = match kind {
        JoinKind::Right => OuterKind::Right,
        JoinKind::Full => OuterKind::Full,
        _ => OuterKind::Left,
    };
    let (no_left, no_right) = (nulls(sides.left.value.len()), nulls(sides.right.value.len()));
    let has_residual = residual.is_some();
    outer_join(left, right, kind, has_residual, null_equal, "OuterJoin", move |key, left, right| {
        if let (Some(left), Some(right), Some(residual)) = (left, right, &mut residual)
            && !residual.eval_predicate_parts(&[key, left, right])
        {
            return None;
        }
        compiled.apply(&[key, left.unwrap_or(&no_left), right.unwrap_or(&no_right)], 1)
    })
}
