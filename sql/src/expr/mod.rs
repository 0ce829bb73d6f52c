//! Scalar expressions: a value per row, as plain data, and their one evaluator.
//!
//! | part | file |
//! |---|---|
//! | the tree, its types and its text | `mod.rs`, `display.rs` |
//! | functions that are interpreted here | `function.rs`, `../functions/` |
//! | from analysed DataFusion expressions | `lower.rs` |
//! | evaluation over packed rows | `eval.rs`, `compile.rs` |
//! | arithmetic and casts | `arithmetic.rs`, `cast.rs` |
//! | failures, counted net of retractions | `errors.rs` |
//!
//! An expression refers to columns by position. It never fails: an expression that cannot be computed from values that are
//! not NULL (a bad CAST, a division by zero, an overflow) is NULL and counted.

pub(crate) mod arithmetic;
pub(crate) mod cast;
mod compile;
mod display;
mod errors;
mod eval;
mod function;
mod interpreted;
mod like;
pub(crate) mod lower;
mod udf;

pub use errors::{EvalErrors, ExpressionErrors};
pub use eval::Evaluator;
pub use function::Function;
pub(crate) use lower::text_of;
pub use lower::{lower_expr, lower_literal};
pub use udf::UdfCall;

use std::collections::BTreeSet;

use deltaworks_dataflow::{DataType, Datum};

use crate::plan::ClockVariable;

/// A value per row.
#[derive(Clone, Debug, PartialEq)]
pub enum ScalarExpr {
    /// The column at a position.
    Column {
        /// The position.
        index: usize,
        /// Its type.
        data_type: DataType,
    },
    /// A fixed value.
    Literal {
        /// The value.
        value: Datum<'static>,
        /// Its type.
        data_type: DataType,
    },
    /// A variable of the clock. Only until the planner has put a column of a clock node in its place.
    Clock(ClockVariable),
    /// The value in another type; NULL and counted where it has none there.
    Cast {
        /// The value.
        input: Box<ScalarExpr>,
        /// The type wanted.
        data_type: DataType,
    },
    /// An operator of one operand.
    Unary {
        /// Which.
        op: UnaryOp,
        /// The operand.
        input: Box<ScalarExpr>,
    },
    /// An operator of two operands. Operands of a comparison have the same type.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Left operand.
        left: Box<ScalarExpr>,
        /// Right operand.
        right: Box<ScalarExpr>,
        /// The type of the result.
        data_type: DataType,
    },
    /// `CASE WHEN c THEN v .. ELSE e END`; the form with an operand is lowered to comparisons.
    Case {
        /// Conditions with their values, the first true one wins.
        branches: Vec<(ScalarExpr, ScalarExpr)>,
        /// The value where none is true; NULL where left out.
        otherwise: Option<Box<ScalarExpr>>,
        /// The type of the result.
        data_type: DataType,
    },
    /// A function that is interpreted here.
    Call {
        /// Which.
        function: Function,
        /// Its arguments.
        arguments: Vec<ScalarExpr>,
        /// The type of the result.
        data_type: DataType,
    },
    /// Any other function of the batch engine, called on arrays of one row.
    Udf {
        /// Which.
        function: UdfCall,
        /// Its arguments.
        arguments: Vec<ScalarExpr>,
        /// The type of the result.
        data_type: DataType,
    },
}

/// An operator of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// NOT.
    Not,
    /// Unary minus.
    Negate,
    /// IS NULL.
    IsNull,
    /// IS NOT NULL.
    IsNotNull,
    /// IS TRUE.
    IsTrue,
    /// IS NOT TRUE.
    IsNotTrue,
    /// IS FALSE.
    IsFalse,
    /// IS NOT FALSE.
    IsNotFalse,
}

/// An operator of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`.
    Plus,
    /// `-`.
    Minus,
    /// `*`.
    Multiply,
    /// `/`; of integers an integer.
    Divide,
    /// `%`.
    Modulo,
    /// `=`.
    Eq,
    /// `<>`.
    NotEq,
    /// `<`.
    Lt,
    /// `<=`.
    LtEq,
    /// `>`.
    Gt,
    /// `>=`.
    GtEq,
    /// IS NOT DISTINCT FROM.
    NullSafeEq,
    /// IS DISTINCT FROM.
    NullSafeNotEq,
    /// AND.
    And,
    /// OR.
    Or,
}

impl BinaryOp {
    /// Whether this compares two values of one type.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Gt, GtEq, Lt, LtEq, NotEq, NullSafeEq, NullSafeNotEq};
        matches!(self, Eq | NotEq | Lt | LtEq | Gt | GtEq | NullSafeEq | NullSafeNotEq)
    }
    /// Whether this computes a value from two.
    pub fn is_arithmetic(self) -> bool {
        use BinaryOp::{Divide, Minus, Modulo, Multiply, Plus};
        matches!(self, Plus | Minus | Multiply | Divide | Modulo)
    }
    /// The comparison that gives the same with its operands swapped; None for what is no comparison.
    pub fn swapped(self) -> Option<BinaryOp> {
        Some(match self {
            BinaryOp::Lt => BinaryOp::Gt,
            BinaryOp::LtEq => BinaryOp::GtEq,
            BinaryOp::Gt => BinaryOp::Lt,
            BinaryOp::GtEq => BinaryOp::LtEq,
            op if op.is_comparison() => op,
            _ => return None,
        })
    }
}

impl ScalarExpr {
    /// The column at a position.
    pub fn column(index: usize, data_type: DataType) -> Self {
        ScalarExpr::Column { index, data_type }
    }
    /// A fixed value.
    pub fn literal(value: Datum<'static>, data_type: DataType) -> Self {
        ScalarExpr::Literal { value, data_type }
    }
    /// A truth value.
    pub fn boolean(value: bool) -> Self {
        ScalarExpr::literal(Datum::Bool(value), DataType::Boolean)
    }
    /// A comparison or a connective.
    pub fn predicate(op: BinaryOp, left: ScalarExpr, right: ScalarExpr) -> Self {
        ScalarExpr::Binary { op, left: Box::new(left), right: Box::new(right), data_type: DataType::Boolean }
    }
    /// `left AND right`.
    pub fn and(self, right: ScalarExpr) -> Self {
        ScalarExpr::predicate(BinaryOp::And, self, right)
    }
    /// The conjunction of all; None of none.
    pub fn conjunction(parts: impl IntoIterator<Item = ScalarExpr>) -> Option<ScalarExpr> {
        parts.into_iter().reduce(ScalarExpr::and)
    }
    /// The parts of a conjunction, in order.
    pub fn into_conjuncts(self) -> Vec<ScalarExpr> {
        match self {
            ScalarExpr::Binary { op: BinaryOp::And, left, right, .. } => {
                let mut parts = left.into_conjuncts();
                parts.extend(right.into_conjuncts());
                parts
            }
            other => vec![other],
        }
    }
    /// The value in another type; itself where it has that type.
    pub fn cast_to(self, data_type: &DataType) -> Self {
        if self.data_type() == *data_type {
            self
        } else {
            ScalarExpr::Cast { input: Box::new(self), data_type: data_type.clone() }
        }
    }

    /// The type of the value.
    pub fn data_type(&self) -> DataType {
        match self {
            ScalarExpr::Column { data_type, .. }
            | ScalarExpr::Literal { data_type, .. }
            | ScalarExpr::Cast { data_type, .. }
            | ScalarExpr::Binary { data_type, .. }
            | ScalarExpr::Case { data_type, .. }
            | ScalarExpr::Call { data_type, .. }
            | ScalarExpr::Udf { data_type, .. } => data_type.clone(),
            ScalarExpr::Clock(ClockVariable::Now) => DataType::Timestamp,
            ScalarExpr::Clock(ClockVariable::CurrentDate) => DataType::Date,
            ScalarExpr::Unary { op: UnaryOp::Negate, input } => input.data_type(),
            ScalarExpr::Unary { .. } => DataType::Boolean,
        }
    }
    /// The position, where this is a plain column.
    pub fn as_column(&self) -> Option<usize> {
        match self {
            ScalarExpr::Column { index, .. } => Some(*index),
            _ => None,
        }
    }
    /// The value, where this is a literal.
    pub fn as_literal(&self) -> Option<&Datum<'static>> {
        match self {
            ScalarExpr::Literal { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The direct parts, in order.
    pub fn children(&self) -> Vec<&ScalarExpr> {
        match self {
            ScalarExpr::Column { .. } | ScalarExpr::Literal { .. } | ScalarExpr::Clock(_) => Vec::new(),
            ScalarExpr::Cast { input, .. } | ScalarExpr::Unary { input, .. } => vec![input],
            ScalarExpr::Binary { left, right, .. } => vec![left, right],
            ScalarExpr::Case { branches, otherwise, .. } => {
                branches.iter().flat_map(|(when, then)| [when, then]).chain(otherwise.as_deref()).collect()
            }
            ScalarExpr::Call { arguments, .. } | ScalarExpr::Udf { arguments, .. } => arguments.iter().collect(),
        }
    }
    /// Adds the positions of all columns used.
    pub fn columns(&self, into: &mut BTreeSet<usize>) {
        if let ScalarExpr::Column { index, .. } = self {
            into.insert(*index);
        }
        self.children().into_iter().for_each(|child| child.columns(into));
    }
    /// Adds the clock variables used.
    pub fn clocks(&self, into: &mut BTreeSet<ClockVariable>) {
        if let ScalarExpr::Clock(variable) = self {
            into.insert(*variable);
        }
        self.children().into_iter().for_each(|child| child.clocks(into));
    }
    /// Whether any part is so.
    pub fn any(&self, test: &dyn Fn(&ScalarExpr) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }
    /// The expression with its direct parts replaced by what `f` makes of them.
    pub fn map_children(&self, f: &mut dyn FnMut(&ScalarExpr) -> ScalarExpr) -> ScalarExpr {
        let mut copy = self.clone();
        match &mut copy {
            ScalarExpr::Cast { input, .. } | ScalarExpr::Unary { input, .. } => **input = f(input),
            ScalarExpr::Binary { left, right, .. } => (**left, **right) = (f(left), f(right)),
            ScalarExpr::Case { branches, otherwise, .. } => {
                branches.iter_mut().for_each(|(when, then)| (*when, *then) = (f(when), f(then)));
                if let Some(otherwise) = otherwise {
                    **otherwise = f(otherwise);
                }
            }
            ScalarExpr::Call { arguments, .. } | ScalarExpr::Udf { arguments, .. } => {
                arguments.iter_mut().for_each(|argument| *argument = f(argument));
            }
            ScalarExpr::Column { .. } | ScalarExpr::Literal { .. } | ScalarExpr::Clock(_) => {}
        }
        copy
    }
    /// The expression with every part replaced, parts first, by what `f` makes of it.
    pub fn transform(&self, f: &dyn Fn(ScalarExpr) -> ScalarExpr) -> ScalarExpr {
        f(self.map_children(&mut |part| part.transform(f)))
    }
    /// The expression over renumbered columns.
    pub fn map_columns(&self, f: &dyn Fn(usize) -> usize) -> ScalarExpr {
        self.transform(&|expr| match expr {
            ScalarExpr::Column { index, data_type } => ScalarExpr::Column { index: f(index), data_type },
            other => other,
        })
    }
    /// The expression with column `i` replaced by `with[i]`.
    pub fn substitute(&self, with: &[ScalarExpr]) -> ScalarExpr {
        self.transform(&|expr| match expr {
            ScalarExpr::Column { index, .. } => with[index].clone(),
            other => other,
        })
    }
}
