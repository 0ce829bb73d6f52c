//! Compiled expressions: a tree per expression with types resolved, constants encoded and failing places registered.

use std::cmp::Ordering;
use std::rc::Rc;

use deltaworks_dataflow::row::{encode_bool, encode_null, is_null_field};
use deltaworks_dataflow::{DataType, Datum};

use super::arithmetic::{self, Fault, whole};
use super::eval::{View, encode_optional_int};
use super::like::LikePattern;
use super::udf::CompiledUdf;
use super::{BinaryOp, EvalErrors, Function, ScalarExpr, UnaryOp, cast};
use crate::plan::ClockVariable;

/// Makes compiled expressions of the expressions of one operator.
pub(super) struct Compiler<'a> {
    pub(super) errors: Rc<EvalErrors>,
    pub(super) names: &'a dyn Fn(usize) -> String,
}

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Node {
    Column {
        index: usize,
        data_type: DataType,
    },
    Constant {
        value: Datum<'static>,
        encoded: Vec<u8>,
    },
    /// A comparison of two fields by their encoded bytes.
    CompareBytes {
        op: BinaryOp,
        left: Operand,
        right: Operand,
    },
    /// A comparison of two integers.
    CompareInts {
        op: BinaryOp,
        left: Box<Node>,
        right: Box<Node>,
    },
    /// Any other comparison.
    Compare {
        op: BinaryOp,
        left: Box<Node>,
        right: Box<Node>,
    },
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Unary {
        op: UnaryOp,
        input: Box<Node>,
    },
    Negate {
        input: Box<Node>,
        data_type: DataType,
        fails: Failure,
    },
    /// Arithmetic of integers of one unit.
    Whole {
        op: BinaryOp,
        left: Box<Node>,
        right: Box<Node>,
        to: DataType,
        fails: Failure,
    },
    Arithmetic(Box<Arithmetic>),
    Cast {
        input: Box<Node>,
        from: DataType,
        to: DataType,
        fails: Failure,
    },
    Case {
        branches: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
        is_int: bool,
    },
    Coalesce(Vec<Node>),
    InList {
        input: Box<Node>,
        items: Vec<Datum<'static>>,
        has_null: bool,
        negated: bool,
    },
    Like {
        input: Box<Node>,
        pattern: LikePattern,
        negated: bool,
    },
    Call(Box<Call>),
    Udf(Box<CompiledUdf>),
}

/// A field that is compared as bytes.
#[derive(Debug)]
pub(super) enum Operand {
    Column(usize),
    Constant(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Arithmetic {
    op: BinaryOp,
    left: Node,
    left_type: DataType,
    right: Node,
    right_type: DataType,
    to: DataType,
    fails: Failure,
}

#[derive(Debug)]
pub(super) struct Call {
    function: Function,
    arguments: Vec<Node>,
    types: Vec<DataType>,
    to: DataType,
    fails: Failure,
}

/// Where the failures of one node are counted.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    errors: Rc<EvalErrors>,
    slot: usize,
}

impl Failure {
    /// Counts a failure on these inputs.
    #[cold]
    pub(super) fn count(&self, inputs: &[(&Datum<'_>, &DataType)]) {
        self.errors.count(self.slot, || {
            inputs.iter().map(|(value, data_type)| cast::text(value, data_type)).collect::<Vec<_>>().join(", ")
        });
    }
    /// The value, or NULL and a count.
    #[inline]
    fn or_null<'a>(&self, result: Result<Datum<'a>, Fault>, inputs: &[(&Datum<'_>, &DataType)]) -> Datum<'a> {
        result.unwrap_or_else(|Fault| {
            self.count(inputs);
            Datum::Null
        })
    }
}

impl Compiler<'_> {
    /// Compiles an expression.
    pub(super) fn compile(&self, expr: &ScalarExpr) -> Node {
        match expr {
            ScalarExpr::Column { index, data_type } => Node::Column { index: *index, data_type: data_type.clone() },
            ScalarExpr::Literal { value, .. } => constant(value.clone()),
            // The planner puts a column in place of every clock; one that is left has no reading.
            ScalarExpr::Clock(ClockVariable::Now | ClockVariable::CurrentDate) => constant(Datum::Null),
            ScalarExpr::Cast { input, data_type } => Node::Cast {
                from: input.data_type(),
                to: data_type.clone(),
                fails: self.failure(expr),
                input: self.boxed(input),
            },
            ScalarExpr::Unary { op: UnaryOp::Negate, input } => {
                Node::Negate { data_type: input.data_type(), fails: self.failure(expr), input: self.boxed(input) }
            }
            ScalarExpr::Unary { op, input } => Node::Unary { op: *op, input: self.boxed(input) },
            ScalarExpr::Binary { op, left, right, data_type } => self.binary(expr, *op, left, right, data_type),
            ScalarExpr::Case { branches, otherwise, data_type } => Node::Case {
                branches: branches.iter().map(|(when, then)| (self.compile(when), self.compile(then))).collect(),
                otherwise: otherwise.as_ref().map(|expr| self.boxed(expr)),
                is_int: data_type.is_int(),
            },
            ScalarExpr::Call { function, arguments, data_type } => self.call(expr, function, arguments, data_type),
            ScalarExpr::Udf { function, arguments, data_type } => {
                let nodes = arguments.iter().map(|argument| self.compile(argument)).collect();
                Node::Udf(Box::new(CompiledUdf::new(function, arguments, nodes, data_type, self.failure(expr))))
            }
        }
    }
    fn boxed(&self, expr: &ScalarExpr) -> Box<Node> {
        Box::new(self.compile(expr))
    }
    fn failure(&self, expr: &ScalarExpr) -> Failure {
        Failure { slot: self.errors.register(expr.to_text(self.names)), errors: Rc::clone(&self.errors) }
    }
    fn binary(&self, expr: &ScalarExpr, op: BinaryOp, left: &ScalarExpr, right: &ScalarExpr, to: &DataType) -> Node {
        match op {
            BinaryOp::And => return Node::And(self.boxed(left), self.boxed(right)),
            BinaryOp::Or => return Node::Or(self.boxed(left), self.boxed(right)),
            op if op.is_comparison() => return self.comparison(op, left, right),
            _ => {}
        }
        let (left_type, right_type) = (left.data_type(), right.data_type());
        if plain_integers(&left_type, &right_type, to) {
            let (left, right) = (self.boxed(left), self.boxed(right));
            return Node::Whole { op, left, right, to: to.clone(), fails: self.failure(expr) };
        }
        let (left, right, fails) = (self.compile(left), self.compile(right), self.failure(expr));
        Node::Arithmetic(Box::new(Arithmetic { op, left, left_type, right, right_type, to: to.clone(), fails }))
    }
    fn comparison(&self, op: BinaryOp, left: &ScalarExpr, right: &ScalarExpr) -> Node {
        if let (Some(left), Some(right)) = (operand(left), operand(right)) {
            return Node::CompareBytes { op, left, right };
        }
        let ints = left.data_type().is_int() && right.data_type().is_int();
        let (left, right) = (self.boxed(left), self.boxed(right));
        if ints { Node::CompareInts { op, left, right } } else { Node::Compare { op, left, right } }
    }
    fn call(&self, expr: &ScalarExpr, function: &Function, arguments: &[ScalarExpr], to: &DataType) -> Node {
        let mut nodes: Vec<Node> = arguments.iter().map(|argument| self.compile(argument)).collect();
        match (function, arguments) {
            (Function::Coalesce, _) => return Node::Coalesce(nodes),
            (Function::InList { negated }, [_, items @ ..]) if items.iter().all(|item| item.as_literal().is_some()) => {
                let literals = items.iter().filter_map(|item| item.as_literal().cloned());
                let (nulls, mut items): (Vec<_>, Vec<_>) = literals.partition(Datum::is_null);
                items.sort();
                let input = Box::new(nodes.swap_remove(0));
                return Node::InList { input, items, has_null: !nulls.is_empty(), negated: *negated };
            }
            (
                Function::Like { negated, ignore_case, escape },
                [_, ScalarExpr::Literal { value: Datum::Str(pattern), .. }],
            ) => {
                let pattern = LikePattern::new(pattern, *escape, *ignore_case);
                return Node::Like { input: Box::new(nodes.swap_remove(0)), pattern, negated: *negated };
            }
            _ => {}
        }
        let types = arguments.iter().map(ScalarExpr::data_type).collect();
        let (function, to, fails) = (*function, to.clone(), self.failure(expr));
        Node::Call(Box::new(Call { function, arguments: nodes, types, to, fails }))
    }
}

fn constant(value: Datum<'static>) -> Node {
    let mut encoded = Vec::new();
    value.encode(&mut encoded);
    Node::Constant { value, encoded }
}
fn operand(expr: &ScalarExpr) -> Option<Operand> {
    match expr {
        ScalarExpr::Column { index, .. } => Some(Operand::Column(*index)),
        ScalarExpr::Literal { value, .. } => {
            let mut encoded = Vec::new();
            value.encode(&mut encoded);
            Some(Operand::Constant(encoded))
        }
        _ => None,
    }
}
/// Whether arithmetic on values of these types is that of 64-bit integers: no months, and no days met by microseconds.
fn plain_integers(left: &DataType, right: &DataType, to: &DataType) -> bool {
    let months = *left == DataType::IntervalMonth || *right == DataType::IntervalMonth;
    let days = *left == DataType::Date && *right == DataType::IntervalDay
        || *left == DataType::IntervalDay && *right == DataType::Date;
    left.is_int() && right.is_int() && to.is_int() && !months && !days
}
/// Whether two values that compare so satisfy the comparison.
#[inline]
fn holds(op: BinaryOp, order: Ordering) -> bool {
    match op {
        BinaryOp::Eq | BinaryOp::NullSafeEq => order.is_eq(),
        BinaryOp::NotEq | BinaryOp::NullSafeNotEq => order.is_ne(),
        BinaryOp::Lt => order.is_lt(),
        BinaryOp::LtEq => order.is_le(),
        BinaryOp::Gt => order.is_gt(),
        _ => order.is_ge(),
    }
}
/// The comparison where at least one side may be NULL.
#[inline]
fn compared(op: BinaryOp, left_null: bool, right_null: bool, order: impl FnOnce() -> Ordering) -> Option<bool> {
    match (op, left_null || right_null) {
        (_, false) => Some(holds(op, order())),
        (BinaryOp::NullSafeEq, true) => Some(left_null && right_null),
        (BinaryOp::NullSafeNotEq, true) => Some(!(left_null && right_null)),
        (_, true) => None,
    }
}

impl Operand {
    #[inline]
    fn bytes<'a>(&'a self, view: &View<'a>) -> &'a [u8] {
        match self {
            Operand::Column(index) => view.field(*index),
            Operand::Constant(bytes) => bytes,
        }
    }
}

impl Node {
    /// Appends the encoded value.
    pub(super) fn encode<'a>(&'a self, view: &View<'a>, out: &mut Vec<u8>) {
        match self {
            Node::Column { index, .. } => out.extend_from_slice(view.field(*index)),
            Node::Constant { encoded, .. } => out.extend_from_slice(encoded),
            Node::Whole { .. } => encode_optional_int(self.int(view), out),
            Node::CompareBytes { .. }
            | Node::CompareInts { .. }
            | Node::Compare { .. }
            | Node::And(..)
            | Node::Or(..)
            | Node::Unary { .. }
            | Node::InList { .. }
            | Node::Like { .. } => match self.truth(view) {
                Some(truth) => encode_bool(out, truth),
                None => encode_null(out),
            },
            Node::Case { branches, otherwise, .. } => match chosen(branches, otherwise.as_deref(), view) {
                Some(node) => node.encode(view, out),
                None => encode_null(out),
            },
            _ => self.datum(view).encode(out),
        }
    }

    /// The truth of a predicate; None is NULL.
    pub(super) fn truth<'a>(&'a self, view: &View<'a>) -> Option<bool> {
        match self {
            Node::CompareBytes { op, left, right } => {
                let (a, b) = (left.bytes(view), right.bytes(view));
                compared(*op, is_null_field(a), is_null_field(b), || a.cmp(b))
            }
            Node::CompareInts { op, left, right } => {
                let (a, b) = (left.int(view), right.int(view));
                compared(*op, a.is_none(), b.is_none(), || a.cmp(&b))
            }
            Node::Compare { op, left, right } => {
                let (a, b) = (left.datum(view), right.datum(view));
                compared(*op, a.is_null(), b.is_null(), || a.cmp(&b))
            }
            Node::And(left, right) => match left.truth(view) {
                Some(false) => Some(false),
                Some(true) => right.truth(view),
                None => right.truth(view).filter(|truth| !truth),
            },
            Node::Or(left, right) => match left.truth(view) {
                Some(true) => Some(true),
                Some(false) => right.truth(view),
                None => right.truth(view).filter(|truth| *truth),
            },
            Node::Unary { op, input } => unary_truth(*op, input, view),
            Node::InList { input, items, has_null, negated } => {
                let value = input.datum(view);
                if value.is_null() {
                    return None;
                }
                let found = items.binary_search_by(|item| item.cmp(&value)).is_ok();
                if found || !has_null { Some(found != *negated) } else { None }
            }
            Node::Like { input, pattern, negated } => match input.datum(view) {
                Datum::Str(text) => Some(pattern.matches(&text) != *negated),
                _ => None,
            },
            Node::Case { branches, otherwise, .. } => chosen(branches, otherwise.as_deref(), view)?.truth(view),
            _ => match self.datum(view) {
                Datum::Bool(truth) => Some(truth),
                _ => None,
            },
        }
    }

    /// The value of an expression whose values are held as integers; None is NULL.
    #[inline]
    pub(super) fn int<'a>(&'a self, view: &View<'a>) -> Option<i64> {
        match self {
            Node::Whole { op, left, right, to, fails } => {
                let (a, b) = (left.int(view)?, right.int(view)?);
                let value = whole(*op, a, b).and_then(|value| arithmetic::in_range(value, to));
                value.map_err(|Fault| fails.count(&[(&Datum::Int(a), to), (&Datum::Int(b), to)])).ok()
            }
            Node::Case { branches, otherwise, is_int: true } => chosen(branches, otherwise.as_deref(), view)?.int(view),
            _ => match self.datum(view) {
                Datum::Int(value) => Some(value),
                _ => None,
            },
        }
    }

    /// The value.
    pub(super) fn datum<'a>(&'a self, view: &View<'a>) -> Datum<'a> {
        match self {
            Node::Column { index, data_type } => Datum::decode(&mut view.field(*index), data_type),
            Node::Constant { value, .. } => value.clone(),
            Node::Negate { input, data_type, fails } => {
                let value = input.datum(view);
                fails.or_null(arithmetic::negate(&value, data_type), &[(&value, data_type)])
            }
            Node::Whole { .. } => self.int(view).map_or(Datum::Null, Datum::Int),
            Node::Arithmetic(node) => node.datum(view),
            Node::Cast { input, from, to, fails } => {
                let value = input.datum(view);
                cast::cast(value, from, to).unwrap_or_else(|Fault| {
                    fails.count(&[(&input.datum(view), from)]);
                    Datum::Null
                })
            }
            Node::Case { branches, otherwise, .. } => {
                chosen(branches, otherwise.as_deref(), view).map_or(Datum::Null, |node| node.datum(view))
            }
            Node::Coalesce(nodes) => {
                nodes.iter().map(|node| node.datum(view)).find(|value| !value.is_null()).unwrap_or(Datum::Null)
            }
            Node::Call(call) => call.datum(view),
            Node::Udf(call) => call.datum(view),
            _ => self.truth(view).map_or(Datum::Null, Datum::Bool),
        }
    }
}

fn unary_truth<'a>(op: UnaryOp, input: &'a Node, view: &View<'a>) -> Option<bool> {
    let is_null = || match input {
        Node::Column { index, .. } => is_null_field(view.field(*index)),
        _ => input.datum(view).is_null(),
    };
    match op {
        UnaryOp::IsNull => Some(is_null()),
        UnaryOp::IsNotNull => Some(!is_null()),
        UnaryOp::Not => input.truth(view).map(|truth| !truth),
        UnaryOp::IsTrue => Some(input.truth(view) == Some(true)),
        UnaryOp::IsNotTrue => Some(input.truth(view) != Some(true)),
        UnaryOp::IsFalse => Some(input.truth(view) == Some(false)),
        UnaryOp::IsNotFalse => Some(input.truth(view) != Some(false)),
        UnaryOp::Negate => None,
    }
}
/// The value of the first branch whose condition is true.
#[inline]
fn chosen<'a>(branches: &'a [(Node, Node)], otherwise: Option<&'a Node>, view: &View<'a>) -> Option<&'a Node> {
    branches.iter().find(|(when, _)| when.truth(view) == Some(true)).map(|(_, then)| then).or(otherwise)
}

impl Arithmetic {
    fn datum<'a>(&'a self, view: &View<'a>) -> Datum<'a> {
        let (left, right) = (self.left.datum(view), self.right.datum(view));
        let result = arithmetic::arithmetic(self.op, &left, &self.left_type, &right, &self.right_type, &self.to);
        self.fails.or_null(result, &[(&left, &self.left_type), (&right, &self.right_type)])
    }
}
impl Call {
    fn datum<'a>(&'a self, view: &View<'a>) -> Datum<'a> {
        let arguments: Vec<Datum<'a>> = self.arguments.iter().map(|argument| argument.datum(view)).collect();
        self.function.call(&arguments, &self.types, &self.to).unwrap_or_else(|Fault| {
            let inputs: Vec<_> = arguments.iter().zip(&self.types).collect();
            self.fails.count(&inputs);
            Datum::Null
        })
    }
}
