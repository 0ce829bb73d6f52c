//! The planner's errors in our words: what is wrong by name, in our types, and what to write instead.

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use super::SqlError;
use super::wording::{between, in_our_types, lower_first, unqualified};

/// What DataFusion puts before its messages.
const PREFIXES: [&str; 6] = [
    "Error during planning: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "Execution error: ",
    "SQL error: ",
    "Invalid input plan passed to Analyzer\ncaused by\n",
];
/// Functions that exist, but only with OVER.
const WINDOW_FUNCTIONS: [&str; 9] =
    ["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "nth_value"];

/// An error of the planner. Its place is added by the caller, where DataFusion knows it.
pub(super) fn translated(error: &DataFusionError) -> SqlError {
    if let DataFusionError::SchemaError(inner, _) = error {
        return schema_error(inner);
    }
    let text = error.strip_backtrace();
    let text = without_prefix(&text);
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    RULES.iter().find_map(|rule| rule(&flat)).unwrap_or_else(|| as_it_is(&flat))
}
fn without_prefix(text: &str) -> &str {
    let mut text = text;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    text
}

fn schema_error(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error = unknown_column(field, valid_fields);
            match field.spans.first() {
                Some(span) => error.at(span.start.line as usize, span.start.column as usize),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            let name = &field.name;
            SqlError::new(
                format!("column \"{name}\" is ambiguous: more than one table has it"),
                format!("say whose it is: table.{name}"),
            )
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new(format!("two columns are called \"{name}\""), "give one of them another name with AS")
        }
    }
}
fn unknown_column(field: &Column, valid: &[Column]) -> SqlError {
    let message = format!("column \"{}\" does not exist", field.flat_name());
    let mut names: Vec<String> = Vec::new();
    for column in valid {
        // One of several tables that have it is named with its table.
        let several = valid.iter().filter(|other| other.name == column.name).count() > 1;
        let name = if several { column.flat_name() } else { column.name.clone() };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let there = names.join(", ");
    if names.is_empty() {
        return SqlError::new(message, "there are no columns here: a text is written in single quotes");
    }
    match closest(&field.name, &names) {
        Some(close) => SqlError::new(message, format!("did you mean {close}? The columns are {there}")),
        None => SqlError::new(message, format!("the columns are {there}")),
    }
}
/// The name that is most like the one written, if any is much like it.
pub fn closest<'a>(written: &str, names: &'a [String]) -> Option<&'a str> {
    use datafusion::common::utils::datafusion_strsim::normalized_levenshtein;
    let bare = |name: &'a String| name.rsplit('.').next().unwrap_or(name);
    let likeness = |name: &&'a String| normalized_levenshtein(&written.to_lowercase(), &bare(name).to_lowercase());
    let best = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= 0.5).then_some(best)
}

type Rule = fn(&str) -> Option<SqlError>;
/// From the text of a message; the first that knows it has it.
const RULES: &[Rule] = &[
    unknown_function,
    wrong_count,
    wrong_arguments,
    arithmetic,
    not_grouped,
    having,
    condition,
    set_operation,
    subquery_columns,
    nested_aggregates,
    unary,
    limit,
    no_fields,
    unknown_type,
    substring,
    subquery_place,
];

fn unknown_function(text: &str) -> Option<SqlError> {
    let name = between(text, "Invalid function '", "'")?;
    if WINDOW_FUNCTIONS.contains(&name.to_lowercase().as_str()) {
        let help = format!("write {}(..) OVER (PARTITION BY .. ORDER BY ..)", name.to_uppercase());
        return Some(SqlError::new(format!("function \"{name}\" needs a window"), help));
    }
    let help = match between(text, "Did you mean '", "'") {
        Some(close) => format!("did you mean {close}? CREATE FUNCTION makes one of your own"),
        None => "CREATE FUNCTION makes one of your own".to_string(),
    };
    Some(SqlError::new(format!("function \"{name}\" does not exist"), help))
}
/// The call that no signature fits: the function's name, and the types that it was given.
fn call(text: &str) -> Option<(String, String)> {
    let call = between(text, "No function matches the given name and argument types '", "'.")?;
    let (name, rest) = call.split_once('(')?;
    let types = rest.strip_suffix(')').unwrap_or(rest);
    Some((name.to_string(), in_our_types(types)))
}
/// The signatures that there are, where they say anything.
fn candidates(text: &str) -> Option<String> {
    let (_, list) = text.split_once("Candidate functions: ")?;
    if list.contains("UserDefined") || list.contains("Any") {
        return None;
    }
    let list = in_our_types(list).replace(") ", "), ").replace("Numeric(1)", "number").replace("String", "STRING");
    Some(list.replace("Integer", "integer").replace("Numeric", "number").trim_end_matches('.').to_string())
}
fn wrong_count(text: &str) -> Option<SqlError> {
    let (name, _) = call(text)?;
    let given = between(text, "arguments but received ", " ").map(|count| count.trim_end_matches('.'));
    let called = between(text, " was called with ", " ");
    let message = match (between(text, " expects ", " arguments"), given, called) {
        (Some(wanted), Some(given), _) => {
            format!("function \"{name}\" takes {wanted} argument{}, not {given}", if wanted == "1" { "" } else { "s" })
        }
        (_, _, Some(called)) => format!("function \"{name}\" does not take {called} arguments"),
        _ if text.contains("does not support zero arguments") => format!("function \"{name}\" is called without arguments"),
        _ => return None,
    };
    Some(SqlError::new(message, takes(text)))
}
fn takes(text: &str) -> String {
    candidates(text).map_or("look up its arguments in the list of functions".into(), |list| format!("there is {list}"))
}
fn wrong_arguments(text: &str) -> Option<SqlError> {
    let (name, types) = call(text)?;
    let help = match candidates(text) {
        Some(list) => format!("cast the arguments, e.g. CAST(x AS DOUBLE); there is {list}"),
        None if types.is_empty() => "give it arguments".to_string(),
        None => "cast the arguments to types that it takes, e.g. CAST(x AS DOUBLE)".to_string(),
    };
    Some(SqlError::new(format!("function \"{name}\" does not take ({types})"), help))
}
fn arithmetic(text: &str) -> Option<SqlError> {
    let types = in_our_types(between(text, "Cannot coerce arithmetic expression ", " to valid types")?);
    Some(SqlError::new(
        format!("there is no {types}"),
        "cast one side so that both go together, e.g. CAST(x AS INT); to move a time add an INTERVAL '1' DAY",
    ))
}
fn not_grouped(text: &str) -> Option<SqlError> {
    if !text.contains("must appear in the GROUP BY clause") {
        return None;
    }
    let name = unqualified(between(text, "column \"", "\"")?);
    Some(SqlError::new(
        format!("column \"{name}\" is neither in GROUP BY nor inside an aggregate"),
        format!("add {name} to GROUP BY, or take one value of each group, e.g. MAX({name})"),
    ))
}
fn having(text: &str) -> Option<SqlError> {
    text.starts_with("HAVING clause references: ")
        .then(|| SqlError::new("HAVING without groups", "filter rows with WHERE; HAVING filters the groups of a GROUP BY"))
}
fn condition(text: &str) -> Option<SqlError> {
    let condition = between(text, "Cannot create filter with non-boolean predicate '", "' returning ")?;
    let (_, data_type) = text.split_once("' returning ")?;
    let (condition, data_type) = (unqualified(&in_our_types(condition)), in_our_types(data_type));
    Some(SqlError::new(
        format!("the condition {condition} is {data_type}, not BOOLEAN"),
        format!("compare it, e.g. {condition} = .., or ask {condition} IS NOT NULL"),
    ))
}
fn set_operation(text: &str) -> Option<SqlError> {
    let name = text.strip_suffix(" queries have different number of columns")?;
    Some(SqlError::new(
        format!("the two sides of {name} have different numbers of columns"),
        "select as many columns on both sides; NULL AS name fills a gap",
    ))
}
fn subquery_columns(text: &str) -> Option<SqlError> {
    let columns = text.strip_prefix("Too many columns! The subquery should only return one column: ")?;
    Some(SqlError::new(
        format!("a subquery that stands for a value gives one column, this one gives {}", unqualified(columns)),
        "select one of them",
    ))
}
fn nested_aggregates(text: &str) -> Option<SqlError> {
    let inner = between(text, "Aggregate function calls cannot be nested: '", "'")?;
    Some(SqlError::new(
        format!("aggregate {} stands inside another aggregate", unqualified(&in_our_types(inner))),
        "compute the inner one in a subquery with its own GROUP BY",
    ))
}
fn unary(text: &str) -> Option<SqlError> {
    if let Some((_, data_type)) = text.split_once("Unary operator 'NOT' requires a boolean expression, got ") {
        return Some(SqlError::new(
            format!("NOT takes a BOOLEAN, not {}", in_our_types(data_type)),
            "compare first: NOT (a = b)",
        ));
    }
    text.starts_with("Unary operator '").then(|| {
        let operator = between(text, "Unary operator '", "'").unwrap_or("-");
        SqlError::new(format!("{operator} takes a number or an interval"), "cast the value first, e.g. -CAST(x AS DOUBLE)")
    })
}
fn limit(text: &str) -> Option<SqlError> {
    let (name, data_type) = text.strip_prefix("Expected ")?.split_once(" to be an integer or null, but got ")?;
    Some(SqlError::new(format!("{name} takes a whole number, not {}", in_our_types(data_type)), format!("write {name} 10")))
}
fn no_fields(text: &str) -> Option<SqlError> {
    let data_type = between(text, "Cannot access field at argument 1: type ", " is not Struct")?;
    Some(SqlError::new(format!("{} has no fields", in_our_types(data_type)), "only a STRUCT has fields: x['name']"))
}
fn unknown_type(text: &str) -> Option<SqlError> {
    let name = text.strip_prefix("Unsupported SQL type ")?;
    Some(crate::session::unknown_type(&name))
}
fn substring(text: &str) -> Option<SqlError> {
    text.contains("Substring without for/from is not valid").then(|| {
        SqlError::new(
            "function \"substr\" takes a text and where to begin",
            "write SUBSTR(text, start) or SUBSTR(text, start, length)",
        )
    })
}
/// A message that no rule knows: its first sentence, and the rest as the help.
fn subquery_place(text: &str) -> Option<SqlError> {
    let rest = between(text, "does not support logical expression ", "(")?;
    let what = match rest {
        "InSubquery" => "IN with a subquery",
        "Exists" => "EXISTS",
        "OuterReferenceColumn" | "ScalarSubquery" => "a subquery that reads columns outside it",
        _ => return None,
    };
    Some(SqlError::new(format!("{what} cannot stand here"), "use it in WHERE, with AND, OR and NOT, or join the subquery"))
}
fn as_it_is(text: &str) -> SqlError {
    let text = in_our_types(text);
    let (message, help) = text.split_once(". ").unwrap_or((&text, "rewrite the expression that the message names"));
    SqlError::new(lower_first(message.trim_end_matches('.')), lower_first(help.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, message: &str, help: &str) {
        let error = translated(&DataFusionError::Plan(text.into()));
        assert_eq!((error.message.as_str(), error.help.as_str()), (message, help));
    }

    #[test]
    fn messages_of_the_planner() {
        check("No such thing. Did you mean x?", "no such thing", "did you mean x?");
        check(
            "Cannot coerce arithmetic expression Int32 + Utf8 to valid types",
            "there is no INT + STRING",
            ARITHMETIC_HELP,
        );
        check(
            "Function 'lower' expects 1 arguments but received 2 No function matches the given name and argument types \
             'lower(Int32, Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tlower(String)",
            "function \"lower\" takes 1 argument, not 2",
            "there is lower(STRING)",
        );
        check(
            "Physical plan does not support logical expression InSubquery(InSubquery { expr: Column(..) })",
            "IN with a subquery cannot stand here",
            "use it in WHERE, with AND, OR and NOT, or join the subquery",
        );
        check(
            "Invalid function 'row_number'",
            "function \"row_number\" needs a window",
            "write ROW_NUMBER(..) OVER (PARTITION BY .. ORDER BY ..)",
        );
        check(
            "something is wrong with Int64(1)",
            "something is wrong with 1",
            "rewrite the expression that the message names",
        );
    }
    const ARITHMETIC_HELP: &str =
        "cast one side so that both go together, e.g. CAST(x AS INT); to move a time add an INTERVAL '1' DAY";

    #[test]
    fn the_closest_name() {
        let names = ["customer_id".to_string(), "t.amount".to_string()];
        assert_eq!(closest("custmer_id", &names), Some("customer_id"));
        assert_eq!(closest("amont", &names), Some("t.amount"));
        assert_eq!(closest("zzz", &names), None);
    }
}
