//! Numbers: `1.5` is a DECIMAL, `1e3` a DOUBLE.

use std::convert::Infallible;
use std::ops::ControlFlow;

use sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value, VisitMut, VisitorMut};

/// Writes numbers with an exponent as casts: the planner reads all others as integers and decimals.
pub(super) fn approximate_numbers(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Exponents);
}

struct Exponents;

impl VisitorMut for Exponents {
    type Break = Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        let Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        if let Value::Number(digits, _) = &value.value
            && digits.contains(['e', 'E'])
        {
            let text = Value::SingleQuotedString(digits.clone()).with_span(value.span);
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(Expr::Value(text)),
                data_type: DataType::Double(ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }
}
