//! The evaluator: expressions over packed rows.
//!
//! Fields are located once per row and only as far as they are needed. A plain column is a copy of its bytes, a run of
//! neighbouring columns one copy. Comparisons of columns and constants compare encoded bytes; integers are computed without
//! any intermediate form.

use std::rc::Rc;

use deltaworks_dataflow::row::{encode_bool, encode_int, encode_null, field_len};
use deltaworks_dataflow::{Diff, Schema};

use super::compile::{Compiler, Node};
use super::{EvalErrors, ScalarExpr};

/// Expressions made ready for evaluation; one per dataflow operator.
#[derive(Debug)]
pub struct Evaluator {
    steps: Vec<Step>,
    /// The steps of the first output; all but for [`cut`](Self::cut).
    first_steps: usize,
    /// How many fields have to be located.
    needed: usize,
    fields: Vec<Field>,
    errors: Rc<EvalErrors>,
}

/// One or several neighbouring output fields.
#[derive(Debug)]
enum Step {
    /// The columns from `first` to `last`, as they are.
    Copy { first: usize, last: usize },
    /// The value of an expression.
    Compute(Node),
}

impl Step {
    #[inline]
    fn run(&self, view: &View<'_>, out: &mut Vec<u8>) {
        match self {
            Step::Copy { first, last } => view.copy(*first, *last, out),
            Step::Compute(node) => node.encode(view, out),
        }
    }
}

/// Where a field lies: `parts[part][start..end]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    part: u32,
    start: u32,
    end: u32,
}

/// A row whose fields are located.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    parts: &'a [&'a [u8]],
    fields: &'a [Field],
}

impl<'a> View<'a> {
    /// The encoded bytes of a column.
    #[inline]
    pub(super) fn field(&self, index: usize) -> &'a [u8] {
        let field = self.fields[index];
        &self.parts[field.part as usize][field.start as usize..field.end as usize]
    }
    /// Appends the columns from `first` to `last`, one copy per part.
    #[inline]
    fn copy(&self, first: usize, last: usize, out: &mut Vec<u8>) {
        let (from, to) = (self.fields[first], self.fields[last]);
        if from.part == to.part {
            out.extend_from_slice(&self.parts[from.part as usize][from.start as usize..to.end as usize]);
            return;
        }
        out.extend_from_slice(&self.parts[from.part as usize][from.start as usize..]);
        self.parts[from.part as usize + 1..to.part as usize].iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(&self.parts[to.part as usize][..to.end as usize]);
    }
}

impl Evaluator {
    /// Makes expressions ready. Their failures are counted in `errors`.
    pub fn new(expressions: Vec<ScalarExpr>, errors: Rc<EvalErrors>) -> Self {
        Evaluator::with_names(expressions, errors, &|index| format!("#{index}"))
    }
    /// The same, with failures reported under the names of the columns.
    pub fn named(expressions: Vec<ScalarExpr>, schema: &Schema, errors: Rc<EvalErrors>) -> Self {
        let name = |index: usize| schema.columns.get(index).map_or_else(|| format!("#{index}"), |c| c.name.clone());
        Evaluator::with_names(expressions, errors, &name)
    }
    /// The same, with failures reported under names for the columns.
    pub fn with_names(expressions: Vec<ScalarExpr>, errors: Rc<EvalErrors>, names: &dyn Fn(usize) -> String) -> Self {
        Evaluator::cut(expressions, usize::MAX, errors, names)
    }
    /// The same, for [`eval_cut`](Self::eval_cut): the expressions before `cut` go to the first output.
    pub fn cut(expressions: Vec<ScalarExpr>, cut: usize, errors: Rc<EvalErrors>, names: &dyn Fn(usize) -> String) -> Self {
        let mut columns = Default::default();
        expressions.iter().for_each(|expr| expr.columns(&mut columns));
        let compiler = Compiler { errors: Rc::clone(&errors), names };
        let mut steps: Vec<Step> = Vec::new();
        let mut first_steps = None;
        for (place, expr) in expressions.iter().enumerate() {
            if place == cut {
                first_steps = Some(steps.len());
            }
            match (expr.as_column(), steps.last_mut()) {
                (Some(index), Some(Step::Copy { last, .. })) if index == *last + 1 && place != cut => *last = index,
                (Some(index), _) => steps.push(Step::Copy { first: index, last: index }),
                (None, _) => steps.push(Step::Compute(compiler.compile(expr))),
            }
        }
        let needed = columns.last().map_or(0, |last| last + 1);
        let first_steps = first_steps.unwrap_or(steps.len());
        Evaluator { steps, first_steps, needed, fields: Vec::with_capacity(needed), errors }
    }
    /// Sets how often the rows evaluated from now on occur: negative for a retraction.
    #[inline]
    pub fn set_diff(&mut self, diff: Diff) {
        self.errors.set_diff(diff);
    }
    /// Appends one encoded field per expression.
    #[inline]
    pub fn eval_row(&mut self, row: &[u8], out: &mut Vec<u8>) {
        self.eval_parts(&[row], out);
    }
    /// Appends one encoded field per expression, over the row that the parts make when put one after the other.
    pub fn eval_parts(&mut self, parts: &[&[u8]], out: &mut Vec<u8>) {
        self.locate(parts);
        let view = View { parts, fields: &self.fields };
        self.steps.iter().for_each(|step| step.run(&view, out));
    }
    /// Appends the fields of the expressions before the cut to `first`, the others to `second`.
    pub fn eval_cut(&mut self, parts: &[&[u8]], first: &mut Vec<u8>, second: &mut Vec<u8>) {
        self.locate(parts);
        let view = View { parts, fields: &self.fields };
        let (before, after) = self.steps.split_at(self.first_steps);
        before.iter().for_each(|step| step.run(&view, first));
        after.iter().for_each(|step| step.run(&view, second));
    }
    /// Whether the first expression is true; NULL is not.
    #[inline]
    pub fn eval_predicate(&mut self, row: &[u8]) -> bool {
        self.eval_predicate_parts(&[row])
    }
    /// Whether the first expression is true of the row that the parts make.
    pub fn eval_predicate_parts(&mut self, parts: &[&[u8]]) -> bool {
        self.locate(parts);
        let view = View { parts, fields: &self.fields };
        match self.steps.first() {
            Some(Step::Compute(node)) => node.truth(&view) == Some(true),
            Some(Step::Copy { first, .. }) => {
                let mut truth = Vec::with_capacity(1);
                encode_bool(&mut truth, true);
                view.field(*first) == truth
            }
            None => true,
        }
    }
    /// Finds the fields as far as they are needed.
    #[inline]
    fn locate(&mut self, parts: &[&[u8]]) {
        self.fields.clear();
        for (index, part) in parts.iter().enumerate() {
            let mut start = 0;
            while start < part.len() {
                if self.fields.len() == self.needed {
                    return;
                }
                let end = start + field_len(&part[start..]);
                self.fields.push(Field { part: index as u32, start: start as u32, end: end as u32 });
                start = end;
            }
        }
    }
}

/// Appends an integer or NULL.
#[inline]
pub(super) fn encode_optional_int(value: Option<i64>, out: &mut Vec<u8>) {
    match value {
        Some(value) => encode_int(out, value),
        None => encode_null(out),
    }
}
