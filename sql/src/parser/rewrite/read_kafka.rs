//! `READ_KAFKA(..)`: a topic as a table function.
//!
//! Arguments are `bootstrap_servers, topic, topic_pattern, group_id, starting_offsets, ending_offsets, starting_timestamp,
//! ending_timestamp, key_format, value_format, max_errors` and a `map('k', 'v', ..)` of client settings, by place or by name
//! (`topic => 'event'`). Empty strings count as left out.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Spanned as _, TableFactor, UnaryOperator,
    Value, VisitMut, VisitorMut,
};

use super::super::error::{ParseError, Position, Result};
use super::super::options::Options;
use super::super::statement::fold;
use super::{alias, finish, flow, is_called};

/// The arguments by place.
const ARGUMENTS: [&str; 11] = [
    "bootstrap_servers",
    "topic",
    "topic_pattern",
    "group_id",
    "starting_offsets",
    "ending_offsets",
    "starting_timestamp",
    "ending_timestamp",
    "key_format",
    "value_format",
    "max_errors",
];

const FORM: &str = "the form is READ_KAFKA('broker:9092', 'topic', 'topic pattern', 'group', '', '', '', '', 'raw', 'raw', 0, map('k', 'v'))";

/// A topic that a query reads.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaRead {
    /// The name that stands in the query now; the planner provides the table.
    pub table: String,
    /// The arguments that were given, by name, and the client settings.
    pub options: Options,
    /// Where the function stands.
    pub position: Position,
}

/// Takes every `READ_KAFKA(..)` out of a tree and puts a table `read_kafka$1`, `read_kafka$2`, .. in its place.
///
/// # Errors
///
/// Arguments that are no literals, unknown, given twice or too many.
pub fn take_kafka_reads(tree: &mut impl VisitMut) -> std::result::Result<Vec<KafkaRead>, ParseError> {
    let mut taken = Taken(Vec::new());
    finish(tree.visit(&mut taken))?;
    Ok(taken.0)
}

struct Taken(Vec<KafkaRead>);

impl VisitorMut for Taken {
    type Break = ParseError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<ParseError> {
        flow(self.take(factor))
    }
}

impl Taken {
    fn take(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { name, alias: given, args, .. } = factor else {
            return Ok(());
        };
        if !is_called(name, "read_kafka") {
            return Ok(());
        }
        let Some(arguments) = args.take() else {
            return Ok(());
        };
        let position = name.span().start.into();
        let table = format!("read_kafka${}", self.0.len() + 1);
        *name = ObjectName::from(vec![Ident::new(&table)]);
        given.get_or_insert_with(|| alias(Ident::new("read_kafka")));
        self.0.push(KafkaRead { table, options: options(&arguments.args, position)?, position });
        Ok(())
    }
}

fn options(arguments: &[FunctionArg], at: Position) -> Result<Options> {
    let mut options = Options::default();
    for (i, argument) in arguments.iter().enumerate() {
        let (name, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (ARGUMENTS.get(i).copied().map(String::from), value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => (Some(known(name)?), value),
            other => return Err(refuse(at, format!("unsupported argument \"{other}\" of READ_KAFKA"))),
        };
        if let Some(pairs) = map_entries(value) {
            settings(&pairs, &mut options, at)?;
            continue;
        }
        let at = place(value, at);
        let name = name.ok_or_else(|| refuse(at, "too many arguments of READ_KAFKA"))?;
        insert(&mut options, name, literal(value, at)?, at)?;
    }
    Ok(options)
}

fn known(name: &Ident) -> Result<String> {
    let folded = fold(name);
    if ARGUMENTS.contains(&folded.as_str()) || folded == "config" {
        return Ok(folded);
    }
    let message = format!("READ_KAFKA has no argument \"{folded}\"");
    Err(refuse(name.span.start.into(), message))
}

fn settings(pairs: &[&Expr], options: &mut Options, at: Position) -> Result<()> {
    for pair in pairs.chunks(2) {
        let [key, value] = pair else {
            return Err(refuse(at, "a map takes keys and values in turn"));
        };
        let (key, value) = (literal(key, at)?, literal(value, at)?);
        insert(options, key, value, at)?;
    }
    Ok(())
}

fn insert(options: &mut Options, name: String, value: String, at: Position) -> Result<()> {
    if value.is_empty() || options.insert(name.clone(), value) {
        return Ok(());
    }
    Err(refuse(at, format!("argument \"{name}\" is given twice")))
}

/// Returns keys and values of `map(k, v, ..)` or `MAP {k: v, ..}`.
fn map_entries(value: &Expr) -> Option<Vec<&Expr>> {
    match value {
        Expr::Map(map) => {
            let pairs = map.entries.iter().flat_map(|entry| [&*entry.key, &*entry.value]);
            Some(pairs.collect())
        }
        Expr::Function(function) if is_called(&function.name, "map") => {
            let FunctionArguments::List(list) = &function.args else {
                return None;
            };
            let parts = list.args.iter().map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(part)) => Some(part),
                _ => None,
            });
            parts.collect()
        }
        _ => None,
    }
}

fn literal(value: &Expr, at: Position) -> Result<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => return Ok(text.clone()),
            Value::Number(digits, _) => return Ok(digits.clone()),
            Value::Boolean(truth) => return Ok(truth.to_string()),
            _ => {}
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => return Ok(format!("-{}", literal(expr, at)?)),
        _ => {}
    }
    Err(refuse(place(value, at), format!("argument \"{value}\" of READ_KAFKA is no literal")))
}

fn place(value: &Expr, otherwise: Position) -> Position {
    let start = value.span().start;
    if start.line == 0 { otherwise } else { start.into() }
}

fn refuse(at: Position, message: impl Into<String>) -> ParseError {
    ParseError::new(at, message, FORM)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, check_error, run};

    fn options(text: &str) -> String {
        let reads = run(text).unwrap().1.kafka_reads;
        let lines = reads.iter().map(|read| format!("{} {}", read.table, read.options));
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn arguments_are_recorded_by_name() {
        let text = "SELECT r.value, k.key FROM READ_KAFKA('b:9092', 'conversions', '', 'group', '', '', '', '', 'raw', 'raw', 0, \
                    map('security.protocol', 'SASL_SSL')) r, read_kafka(topic => 't', starting_offsets => -2) k";
        check(text, "SELECT r.value, k.key FROM read_kafka$1 r, read_kafka$2 k");
        assert_eq!(
            options(text),
            "read_kafka$1 'bootstrap_servers' = 'b:9092', 'topic' = 'conversions', 'group_id' = 'group', 'key_format' = 'raw', \
             'value_format' = 'raw', 'max_errors' = '0', 'security.protocol' = 'SASL_SSL'; \
             read_kafka$2 'topic' = 't', 'starting_offsets' = '-2'"
        );
    }

    #[test]
    fn without_alias_columns_can_still_be_qualified() {
        check(
            "SELECT read_kafka.value FROM READ_KAFKA('b', 't', map())",
            "SELECT read_kafka.value FROM read_kafka$1 AS read_kafka",
        );
    }

    #[test]
    fn arguments_are_checked() {
        check_error("SELECT * FROM READ_KAFKA('b', lower('T'))", 31, "argument \"lower('T')\" of READ_KAFKA is no literal");
        check_error("SELECT * FROM READ_KAFKA(topik => 'b')", 26, "READ_KAFKA has no argument \"topik\"");
        check_error(
            "SELECT * FROM READ_KAFKA('b', bootstrap_servers => 'c')",
            52,
            "argument \"bootstrap_servers\" is given twice",
        );
        check_error(
            "SELECT * FROM READ_KAFKA('','','','','','','','','','','',map(),1)",
            65,
            "too many arguments of READ_KAFKA",
        );
        check_error("SELECT * FROM READ_KAFKA(map('k'))", 15, "a map takes keys and values in turn");
    }
}
