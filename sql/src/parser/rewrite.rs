//! Rewrites of queries: what our dialect has and DataFusion does not plan is put in its words, or taken out and recorded.
//!
//! | written | rewritten | file |
//! |---|---|---|
//! | `FROM f t LATERAL VIEW EXPLODE(x) v AS c` | `FROM (SELECT *, unnest(x) AS c FROM f t) AS t` | `rewrite/lateral_view.rs` |
//! | `FROM t CROSS JOIN UNNEST(t.x) AS v (c)` | the same | `rewrite/unnest.rs` |
//! | `JOIN t FOR SYSTEM_TIME AS OF PROCTIME() AS a` | `JOIN t$lookup AS a`, recorded | `rewrite/lookup.rs` |
//! | `FROM READ_KAFKA('broker', 'topic', ..)` | `FROM read_kafka$1 AS read_kafka`, recorded | `rewrite/read_kafka.rs` |
//! | `x > ALL (SELECT x FROM t)` | `x > ALL (SELECT x AS "$compared" FROM t)` | `rewrite/any_all.rs` |
//! | `COUNT(DISTINCT a, b)` | `COUNT(DISTINCT CASE WHEN a IS NOT NULL AND b IS NOT NULL THEN struct of a, b END)` | `rewrite/count_distinct.rs` |
//! | `SELECT a, a`, `SELECT SUM(x), SUM(CAST(x AS BIGINT))` | columns with names of their own | `rewrite/name_apart.rs` |

mod any_all;
mod count_distinct;
mod lateral_view;
mod lookup;
mod name_apart;
mod read_kafka;
mod unnest;

use std::ops::ControlFlow;

use sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, SetExpr, SetOperator, SetQuantifier, Spanned as _, TableAlias, VisitMut,
    VisitorMut,
};

pub use count_distinct::merge_distinct_counts;
pub use lateral_view::explode_lateral_views;
pub use lookup::{LOOKUP_SUFFIX, Lookup, take_lookups};
pub use name_apart::{CAST_MARK, marked_name, name_apart, shown_name};
pub use read_kafka::{KafkaRead, take_kafka_reads};

use super::error::{ParseError, Result};

/// What the rewrites took out of a tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rewritten {
    /// Tables that are looked up.
    pub lookups: Vec<Lookup>,
    /// Topics that are read.
    pub kafka_reads: Vec<KafkaRead>,
}

/// Applies all rewrites to a query, or to an `UPDATE`, `DELETE` or `MERGE`.
///
/// # Errors
///
/// Forms of these clauses that are not ours, with their place.
pub fn rewrite(tree: &mut impl VisitMut) -> std::result::Result<Rewritten, ParseError> {
    // Lookups go first: whether they stand in a join is seen before lateral views wrap relations.
    let lookups = take_lookups(tree)?;
    let kafka_reads = take_kafka_reads(tree)?;
    explode_lateral_views(tree)?;
    refuse_multisets(tree)?;
    any_all::name_compared(tree);
    merge_distinct_counts(tree);
    name_apart(tree);
    Ok(Rewritten { lookups, kafka_reads })
}

/// Refuses EXCEPT ALL and INTERSECT ALL: the planner makes semi and anti joins of them, which do not count.
fn refuse_multisets(tree: &mut impl VisitMut) -> Result<()> {
    struct SetOperations;
    impl VisitorMut for SetOperations {
        type Break = ParseError;
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<ParseError> {
            flow(check_sets(&query.body))
        }
    }
    fn check_sets(set: &SetExpr) -> Result<()> {
        let SetExpr::SetOperation { op, set_quantifier, left, right } = set else { return Ok(()) };
        if *op != SetOperator::Union && matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName) {
            let message = format!("{op} ALL is not supported");
            let help =
                format!("use {op}, or number the equal rows with ROW_NUMBER() OVER (PARTITION BY ..) and compare those too");
            return Err(ParseError::new(left.span().start.into(), message, help));
        }
        check_sets(left)?;
        check_sets(right)
    }
    finish(tree.visit(&mut SetOperations))
}

/// Turns a result into what a visitor returns.
fn flow(result: Result<()>) -> ControlFlow<ParseError> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// Turns what a visit returned into a result.
fn finish(flow: ControlFlow<ParseError>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn alias(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: Vec::new(), at: None }
}

/// Returns the identifier of the object that a name stands for.
fn last_ident(name: &ObjectName) -> Option<&Ident> {
    name.0.last().and_then(ObjectNamePart::as_ident)
}

/// Returns whether a function is called this, in any case and without a schema.
fn is_called(name: &ObjectName, word: &str) -> bool {
    name.0.len() == 1 && last_ident(name).is_some_and(|ident| ident.value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::super::{Statement, parse_script};
    use super::*;

    pub(super) fn run(text: &str) -> Result<(String, Rewritten)> {
        let mut statements = parse_script(text)?;
        let Some(Statement::Query(body)) = statements.pop().map(|s| s.node) else {
            panic!("not a query: {text}");
        };
        let mut query = body.query;
        let rewritten = rewrite(&mut query)?;
        Ok((query.to_string(), rewritten))
    }

    #[track_caller]
    pub(super) fn check(text: &str, expected: &str) {
        let (query, _) = run(text).unwrap();
        assert_eq!(query, expected);
        // What comes out is ordinary SQL: it reads back, and a second pass finds nothing to do.
        assert_eq!(run(&query).unwrap().0, expected);
    }

    #[track_caller]
    pub(super) fn check_error(text: &str, column: usize, message: &str) {
        let error = run(text).unwrap_err();
        assert_eq!((error.column, error.message.as_str()), (column, message));
        assert!(!error.help.is_empty());
    }

    #[test]
    fn other_queries_stay_as_they_are() {
        check("SELECT a, COUNT(DISTINCT b) FROM t GROUP BY a", "SELECT a, COUNT(DISTINCT b) FROM t GROUP BY a");
    }

    #[test]
    fn rewrites_reach_into_each_other() {
        check(
            "SELECT COUNT(DISTINCT v.c, a) FROM (SELECT * FROM READ_KAFKA('b', 't')) t LATERAL VIEW EXPLODE(ids) v AS c",
            "SELECT COUNT(DISTINCT CASE WHEN t.c IS NOT NULL AND a IS NOT NULL THEN named_struct('c0', t.c, 'c1', a) END) \
             AS \"COUNT(DISTINCT t.c, a)\" FROM (SELECT *, unnest(ids) AS c FROM (SELECT * FROM read_kafka$1 AS read_kafka) t) AS t",
        );
    }
}
