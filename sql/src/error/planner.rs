//! The planner's errors in our words: what is wrong by name, in our types, and what to write instead.

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use super::SqlError;
use super::forms::form_of;
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
    // What is called $.. a statement has added for itself.
    let valid: Vec<&Column> = valid.iter().filter(|column| !column.name.starts_with('$')).collect();
    for column in &valid {
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
    external_call,
    unknown_function,
    own_signature,
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
    subquery_rows,
    no_array,
    unknown_qualifier,
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
/// A call of an external function that nobody answered.
fn external_call(text: &str) -> Option<SqlError> {
    let name = between(text, "external function \"", "\"")?;
    text.starts_with(&format!("external function \"{name}\" failed: ")).then(|| {
        SqlError::new(
            text,
            "see that the service behind its API connection answers; URL, TIMEOUT and RETRIES stand in CREATE API CONNECTION",
        )
    })
}
/// A function of our own says itself what it takes, and may add a help behind a full stop.
fn own_signature(text: &str) -> Option<SqlError> {
    let own = between(text, " user-defined coercion failed with: ", " No function matches")?;
    let own = without_prefix(own).trim_end_matches('.');
    let name = own.strip_prefix("external ").unwrap_or(own).strip_prefix("function \"")?.split('"').next()?;
    let (_, types) = call(text)?;
    let (message, help) = own.split_once(". ").unwrap_or((own, ""));
    let message = if types.is_empty() { without_arguments(name) } else { in_our_types(message) };
    let help = if help.is_empty() { fitting(name, &types, text) } else { help.to_string() };
    Some(SqlError::new(message, help))
}
fn without_arguments(name: &str) -> String {
    format!("function \"{name}\" is called without arguments")
}
/// What to write instead of a call with arguments of these types.
fn fitting(name: &str, types: &str, text: &str) -> String {
    match forms(name, text) {
        Some(forms) if takes_as_many(&forms, types) => {
            format!("cast the arguments, e.g. CAST(x AS BIGINT); there is {forms}")
        }
        Some(forms) => format!("write {forms}"),
        None => "give it other arguments".to_string(),
    }
}
/// How the function is written, as far as that is known.
fn forms(name: &str, text: &str) -> Option<String> {
    form_of(name).or_else(|| candidates(text))
}
/// Whether one of the forms has as many arguments as there are types.
fn takes_as_many(forms: &str, types: &str) -> bool {
    let count = |list: &str| if list.is_empty() { 0 } else { list.split(", ").count() };
    let arguments = forms.split(')').filter_map(|form| form.split_once('(')).map(|(_, arguments)| arguments);
    let fits = |arguments: &str| (arguments.ends_with(", ..") && !types.is_empty()) || count(arguments) == count(types);
    arguments.into_iter().any(fits)
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
    let list = in_our_types(list).replace("Numeric(1)", "number").replace("String", "STRING");
    let list = list.replace("Integer", "integer").replace("Numeric", "number").replace("Timestamp", "TIMESTAMP");
    let mut forms: Vec<&str> = Vec::new();
    for form in list.trim_end_matches('.').split_inclusive(')').map(str::trim) {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    Some(forms.join(", "))
}
fn wrong_count(text: &str) -> Option<SqlError> {
    let (name, types) = call(text)?;
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let given = text.split_once("arguments but received ").map(|(_, rest)| digits(rest));
    let called = between(text, " was called with ", " ");
    let message = match (between(text, " expects ", " arguments"), given, called) {
        // Of several forms the planner names the last that does not fit.
        _ if forms(&name, text).is_some_and(|forms| takes_as_many(&forms, &types)) => return None,
        (Some(wanted), Some(given), _) => {
            format!("function \"{name}\" takes {wanted} argument{}, not {given}", if wanted == "1" { "" } else { "s" })
        }
        (_, _, Some(called)) => format!("function \"{name}\" does not take {called} arguments"),
        _ if text.contains("does not support zero arguments") => without_arguments(&name),
        _ => return None,
    };
    Some(SqlError::new(message, fitting(&name, &types, text)))
}
fn wrong_arguments(text: &str) -> Option<SqlError> {
    let (name, types) = call(text)?;
    let message =
        if types.is_empty() { without_arguments(&name) } else { format!("function \"{name}\" does not take ({types})") };
    Some(SqlError::new(message, fitting(&name, &types, text)))
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
fn subquery_rows(text: &str) -> Option<SqlError> {
    let help = "take one of its rows, e.g. with SELECT MAX(..), or join the subquery";
    let lower = text.to_lowercase();
    if lower.starts_with("correlated scalar subquery must be aggregated") {
        let message = "a correlated subquery that stands for a value has to be an aggregate, so that it gives one row";
        return Some(SqlError::new(message, help));
    }
    lower
        .contains("scalar subquery returned more than one row")
        .then(|| SqlError::new("a subquery that stands for a value gave several rows", help))
}
fn no_array(text: &str) -> Option<SqlError> {
    text.starts_with("unnest() can only be applied to array").then(|| {
        SqlError::new(
            "EXPLODE and UNNEST take an array",
            "make one, e.g. BITMAP_TO_ARRAY(bitmap) or STRING_TO_ARRAY(text, ',')",
        )
    })
}
fn unknown_qualifier(text: &str) -> Option<SqlError> {
    let name = text.strip_prefix("Invalid qualifier ")?;
    Some(SqlError::new(format!("there is no \"{name}\" in FROM"), "a table that has an alias there goes by it alone"))
}
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
/// A message that no rule knows: its first sentence, and the rest as the help.
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
            "write lower(STRING)",
        );
        check(
            "Execution error: Function 'f' user-defined coercion failed with: Error during planning: external function \"f\" takes \
             (INT), not (STRING). write f(INT). No function matches the given name and argument types 'f(Utf8)'. You might need \
             to add explicit type casts.\n\tCandidate functions:\n\tf(UserDefined)",
            "external function \"f\" takes (INT), not (STRING)",
            "write f(INT)",
        );
        check(
            "Function 'round' expects 2 arguments but received 1. No function matches the given name and argument types \
             'round(Utf8)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tround(Integer)\n\tround(Integer, Int64)",
            "function \"round\" does not take (STRING)",
            "cast the arguments, e.g. CAST(x AS BIGINT); there is ROUND(number), ROUND(number, digits)",
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
