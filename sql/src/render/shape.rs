//! Shapes: what is done to a row on its way out of an operator, and as what it leaves.
//!
//! Projections and filters above an operator run inside it: they become the stages of a [`Shape`], which the operator
//! applies to the row that it has in hand as several slices (key, left value, right value), without putting them together
//! first. The row leaves as a [`Row`], or already cut into key and value for the next arrangement.

use deltaworks_dataflow::row::{encode_bool, encode_field_descending, encode_null, field_len, is_null_field, split_field};
use deltaworks_dataflow::{Diff, Row, Schema};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::expr::{EvalErrors, Evaluator, ScalarExpr, UnaryOp};
use crate::parser::shown_name;
use crate::plan::SortKey;

/// One step on a row, and the names of the columns that it reads.
#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Filter(ScalarExpr, Names),
    Project(Vec<ScalarExpr>, Names),
}
/// The names of columns, for reports of failures.
type Names = Rc<[String]>;

fn names(schema: &Schema) -> Names {
    schema.columns.iter().map(|column| shown_name(&column.name).to_string()).collect()
}

/// How the row leaves.
#[derive(Clone, Debug, PartialEq)]
enum Exit {
    /// All columns.
    Row,
    /// Key and value expressions over the columns of the last stage; the first values are sort keys.
    Keyed { key: Vec<ScalarExpr>, value: Vec<ScalarExpr>, directions: Vec<Direction>, names: Names },
}

/// How a sort key is written so that bytes sort as asked. The encoding's own order has NULL last ascending and first
/// descending; where it is wanted otherwise, a truth value stands before the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Direction {
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}
impl Direction {
    pub(crate) fn of(key: &SortKey) -> Self {
        Direction { descending: key.descending, nulls_first: key.nulls_first }
    }
    /// Whether the field is written as it is.
    pub(crate) fn is_plain(self) -> bool {
        !self.descending && !self.nulls_first
    }
    /// How many fields are written.
    pub(crate) fn fields(self) -> usize {
        if self.descending == self.nulls_first { 1 } else { 2 }
    }
    fn write(self, field: &[u8], out: &mut Vec<u8>) {
        if self.fields() == 2 {
            encode_bool(out, is_null_field(field) != self.nulls_first);
        }
        if self.descending {
            encode_field_descending(out, field);
        } else {
            out.extend_from_slice(field);
        }
    }
}

/// Stages in the order in which they are applied, and the exit. Plain data; [`compile`](Self::compile) makes it run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    stages: Vec<Stage>,
    exit: Exit,
}

impl Shape {
    /// Rows leave as they are.
    pub(crate) fn rows() -> Self {
        Shape { stages: Vec::new(), exit: Exit::Row }
    }
    /// Rows of `input` leave cut into key and value.
    pub(crate) fn keyed(input: &Schema, key: Vec<ScalarExpr>, value: Vec<ScalarExpr>) -> Self {
        let exit = Exit::Keyed { key, value, directions: Vec::new(), names: names(input) };
        Shape { stages: Vec::new(), exit }
    }
    /// Rows of `input` leave cut into key and value; the value is the sort keys, then `payload`.
    pub(crate) fn sorted(input: &Schema, key: Vec<ScalarExpr>, order: &[SortKey], payload: Vec<ScalarExpr>) -> Self {
        let directions = order.iter().map(Direction::of).collect();
        let value = order.iter().map(|k| k.expression.clone()).chain(payload).collect();
        Shape { stages: Vec::new(), exit: Exit::Keyed { key, value, directions, names: names(input) } }
    }
    /// The same, with a filter of rows of `input` before everything else.
    pub(crate) fn after_filter(mut self, input: &Schema, predicate: &ScalarExpr) -> Self {
        self.stages.insert(0, Stage::Filter(predicate.clone(), names(input)));
        self
    }
    /// The same, with a projection of rows of `input` before everything else. Where the shape can as well read the columns
    /// below the projection, it does: each stage costs a row.
    pub(crate) fn after_project(mut self, input: &Schema, expressions: &[ScalarExpr]) -> Self {
        if self.sees_through(expressions) {
            self.first_reading(&mut |expression| *expression = expression.substitute(expressions));
            self.rename_incoming(&names(input));
        } else {
            self.stages.insert(0, Stage::Project(expressions.to_vec(), names(input)));
        }
        self
    }
    /// Gives every expression that reads the incoming columns to `each`. Returns whether rows are made of them alone.
    fn first_reading(&mut self, each: &mut dyn FnMut(&mut ScalarExpr)) -> bool {
        for stage in &mut self.stages {
            match stage {
                Stage::Filter(predicate, _) => each(predicate),
                Stage::Project(list, _) => {
                    list.iter_mut().for_each(each);
                    return true;
                }
            }
        }
        match &mut self.exit {
            Exit::Row => false,
            Exit::Keyed { key, value, .. } => {
                key.iter_mut().chain(value).for_each(each);
                true
            }
        }
    }
    /// Gives everything that reads the incoming columns these names for them.
    fn rename_incoming(&mut self, incoming: &Names) {
        for stage in &mut self.stages {
            match stage {
                Stage::Filter(_, names) => *names = Rc::clone(incoming),
                Stage::Project(_, names) => {
                    *names = Rc::clone(incoming);
                    return;
                }
            }
        }
        if let Exit::Keyed { names, .. } = &mut self.exit {
            *names = Rc::clone(incoming);
        }
    }
    /// Whether columns may be replaced by these expressions, so that each is still evaluated exactly once: a failure is
    /// counted once.
    fn sees_through(&self, expressions: &[ScalarExpr]) -> bool {
        let mut copied = vec![0; expressions.len()];
        let mut within = BTreeSet::new();
        let remade = self.clone().first_reading(&mut |reader| match reader.as_column() {
            Some(column) => copied[column] += 1,
            None => reader.columns(&mut within),
        });
        let is_plain = |e: &ScalarExpr| e.as_column().is_some() || matches!(e, ScalarExpr::Literal { .. });
        let once = |column: usize| copied[column] == 1 && !within.contains(&column);
        remade && expressions.iter().enumerate().all(|(column, e)| is_plain(e) || once(column))
    }
    /// Whether rows may be rejected.
    pub(crate) fn filters(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, Stage::Filter(..)))
    }
    /// Whether rows leave as they came, perhaps filtered.
    pub(crate) fn passes_whole(&self) -> bool {
        self.exit == Exit::Row && !self.stages.iter().any(|stage| matches!(stage, Stage::Project(..)))
    }
    /// Whether an expression may fail on some input: then errors are counted, which needs the update's diff.
    pub(crate) fn can_fail(&self) -> bool {
        let fails = |list: &[ScalarExpr]| list.iter().any(can_fail);
        self.stages.iter().any(|stage| match stage {
            Stage::Filter(predicate, _) => can_fail(predicate),
            Stage::Project(list, _) => fails(list),
        }) || matches!(&self.exit, Exit::Keyed { key, value, .. } if fails(key) || fails(value))
    }
    /// The incoming columns that are read; None: all of `arity`, because rows leave whole.
    pub(crate) fn columns_read(&self, arity: usize) -> BTreeSet<usize> {
        let mut read = BTreeSet::new();
        for stage in &self.stages {
            match stage {
                Stage::Filter(predicate, _) => predicate.columns(&mut read),
                Stage::Project(list, _) => {
                    list.iter().for_each(|e| e.columns(&mut read));
                    return read;
                }
            }
        }
        match &self.exit {
            Exit::Row => read.extend(0..arity),
            Exit::Keyed { key, value, .. } => key.iter().chain(value).for_each(|e| e.columns(&mut read)),
        }
        read
    }
    /// Makes the shape run on rows whose column `i` is physically column `place(i)` of the slices it will be given.
    /// `arity` is the number of (logical) columns, `fields` that of physical ones: a row that leaves whole must not take
    /// along fields that are no columns.
    pub(crate) fn compile(
        &self,
        arity: usize,
        fields: usize,
        place: &dyn Fn(usize) -> usize,
        errors: &Rc<EvalErrors>,
    ) -> Compiled {
        let mut steps = Vec::new();
        let mut physical = true;
        let moved = |e: &ScalarExpr, physical: bool| if physical { e.map_columns(place) } else { e.clone() };
        let evaluator = |list: &[ScalarExpr], cut: usize, names: &Names, physical: bool| {
            let name = |index: usize| {
                let column = if physical { (0..arity).find(|column| place(*column) == index) } else { Some(index) };
                column.and_then(|column| names.get(column).cloned()).unwrap_or_else(|| format!("#{index}"))
            };
            let moved = list.iter().map(|e| moved(e, physical)).collect();
            Evaluator::cut(moved, cut, Rc::clone(errors), &name)
        };
        for stage in &self.stages {
            match stage {
                Stage::Filter(predicate, names) => {
                    steps.push(Step::Filter(evaluator(std::slice::from_ref(predicate), usize::MAX, names, physical)));
                }
                Stage::Project(list, names) => {
                    steps.push(Step::Project(evaluator(list, usize::MAX, names, physical)));
                    physical = false;
                }
            }
        }
        let exit = match &self.exit {
            Exit::Row if physical && fields == arity && (0..arity).all(|i| place(i) == i) => CompiledExit::Whole,
            Exit::Row if physical => {
                let columns = (0..arity).map(place).collect();
                CompiledExit::Columns(columns)
            }
            Exit::Row => CompiledExit::Whole,
            Exit::Keyed { key, value, directions, names } => {
                let both: Vec<ScalarExpr> = key.iter().chain(value).cloned().collect();
                CompiledExit::Keyed(evaluator(&both, key.len(), names, physical), directions.clone())
            }
        };
        Compiled { steps, exit, buffers: [Vec::new(), Vec::new()], out: Vec::new(), second: Vec::new() }
    }
}

enum Step {
    Filter(Evaluator),
    Project(Evaluator),
}
enum CompiledExit {
    /// The slices, concatenated.
    Whole,
    /// These physical columns.
    Columns(Vec<usize>),
    Keyed(Evaluator, Vec<Direction>),
}

/// A shape that runs.
pub(crate) struct Compiled {
    steps: Vec<Step>,
    exit: CompiledExit,
    buffers: [Vec<u8>; 2],
    out: Vec<u8>,
    second: Vec<u8>,
}

/// What leaves an operator.
pub(crate) trait Exiting: Clone + 'static {
    /// Makes the datum from what [`Compiled`] has in its two buffers.
    fn take(first: &[u8], second: &[u8]) -> Self;
}
impl Exiting for Row {
    fn take(first: &[u8], _: &[u8]) -> Self {
        Row::from_bytes(first)
    }
}
impl Exiting for (Row, Row) {
    fn take(first: &[u8], second: &[u8]) -> Self {
        (Row::from_bytes(first), Row::from_bytes(second))
    }
}

impl Compiled {
    /// Applies the shape to a row given as slices; None where a filter rejects it.
    #[inline]
    pub(crate) fn apply<D: Exiting>(&mut self, parts: &[&[u8]], diff: Diff) -> Option<D> {
        let [mut current, mut other] = std::mem::take(&mut self.buffers);
        let kept = self.run(parts, diff, &mut current, &mut other);
        self.buffers = [current, other];
        kept.then(|| D::take(&self.out, &self.second))
    }
    fn run(&mut self, parts: &[&[u8]], diff: Diff, current: &mut Vec<u8>, other: &mut Vec<u8>) -> bool {
        let mut projected = false;
        for step in &mut self.steps {
            let whole = [&current[..]];
            let row: &[&[u8]] = if projected { &whole } else { parts };
            match step {
                Step::Filter(evaluator) => {
                    evaluator.set_diff(diff);
                    if !evaluator.eval_predicate_parts(row) {
                        return false;
                    }
                }
                Step::Project(evaluator) => {
                    evaluator.set_diff(diff);
                    other.clear();
                    evaluator.eval_parts(row, other);
                    std::mem::swap(current, other);
                    projected = true;
                }
            }
        }
        let whole = [&current[..]];
        let row: &[&[u8]] = if projected { &whole } else { parts };
        self.out.clear();
        match &mut self.exit {
            CompiledExit::Whole => row.iter().for_each(|part| self.out.extend_from_slice(part)),
            CompiledExit::Columns(columns) => copy_columns(row, columns, &mut self.out),
            CompiledExit::Keyed(both, directions) => {
                both.set_diff(diff);
                self.second.clear();
                if directions.is_empty() {
                    both.eval_cut(row, &mut self.out, &mut self.second);
                } else {
                    other.clear();
                    both.eval_cut(row, &mut self.out, other);
                    write_sorted(other, directions, &mut self.second);
                }
            }
        }
        true
    }
}
/// Writes the leading fields as sort keys and the others as they are.
fn write_sorted(mut fields: &[u8], directions: &[Direction], out: &mut Vec<u8>) {
    for direction in directions {
        direction.write(split_field(&mut fields), out);
    }
    out.extend_from_slice(fields);
}
fn copy_columns(parts: &[&[u8]], columns: &[usize], out: &mut Vec<u8>) {
    let mut fields: Vec<&[u8]> = Vec::with_capacity(columns.len() + 4);
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (field, after) = rest.split_at(field_len(rest));
            fields.push(field);
            rest = after;
        }
    }
    for &column in columns {
        out.extend_from_slice(fields[column]);
    }
}

/// Whether an expression may fail on some input: everything but columns, literals, comparisons, connectives and CASE of them.
pub(crate) fn can_fail(expression: &ScalarExpr) -> bool {
    expression.any(&|part| match part {
        ScalarExpr::Cast { .. } | ScalarExpr::Call { .. } | ScalarExpr::Udf { .. } => true,
        ScalarExpr::Binary { op, .. } => op.is_arithmetic(),
        ScalarExpr::Unary { op, .. } => *op == UnaryOp::Negate,
        _ => false,
    })
}

/// A row of `count` NULLs.
pub(crate) fn nulls(count: usize) -> Row {
    let mut bytes = Vec::new();
    (0..count).for_each(|_| encode_null(&mut bytes));
    Row::from_bytes(&bytes)
}
