//! How functions are called, for the help of errors: our own, and those whose signatures say little.

/// By name in small letters; no form has parentheses inside.
const FORMS: &[(&str, &str)] = &[
    ("arg_max", "ARG_MAX(value, by)"),
    ("arg_min", "ARG_MIN(value, by)"),
    ("avg", "AVG(number)"),
    ("bitmap_and", "BITMAP_AND(bitmap, bitmap)"),
    ("bitmap_and_cardinality", "BITMAP_AND_CARDINALITY(bitmap, bitmap)"),
    ("bitmap_andnot", "BITMAP_ANDNOT(bitmap, bitmap)"),
    ("bitmap_andnot_cardinality", "BITMAP_ANDNOT_CARDINALITY(bitmap, bitmap)"),
    ("bitmap_build", "BITMAP_BUILD(array of integers)"),
    ("bitmap_contains", "BITMAP_CONTAINS(bitmap, integer)"),
    ("bitmap_count", "BITMAP_COUNT(bitmap)"),
    ("bitmap_has_all", "BITMAP_HAS_ALL(bitmap, bitmap)"),
    ("bitmap_has_any", "BITMAP_HAS_ANY(bitmap, bitmap)"),
    ("bitmap_max", "BITMAP_MAX(bitmap)"),
    ("bitmap_min", "BITMAP_MIN(bitmap)"),
    ("bitmap_or", "BITMAP_OR(bitmap, bitmap)"),
    ("bitmap_or_cardinality", "BITMAP_OR_CARDINALITY(bitmap, bitmap)"),
    ("bitmap_to_array", "BITMAP_TO_ARRAY(bitmap)"),
    ("bitmap_to_string", "BITMAP_TO_STRING(bitmap)"),
    ("bitmap_xor", "BITMAP_XOR(bitmap, bitmap)"),
    ("bitmap_xor_cardinality", "BITMAP_XOR_CARDINALITY(bitmap, bitmap)"),
    ("coalesce", "COALESCE(value, value, ..)"),
    ("concat", "CONCAT(text, text, ..)"),
    ("date_format", "DATE_FORMAT(timestamp, 'yyyy-MM-dd')"),
    ("date_trunc", "DATE_TRUNC('day', timestamp)"),
    ("datediff", "DATEDIFF(later date, earlier date)"),
    ("first_value", "FIRST_VALUE(value ORDER BY ..)"),
    ("from_unixtime", "FROM_UNIXTIME(seconds), FROM_UNIXTIME(seconds, format)"),
    ("group_bitmap", "GROUP_BITMAP(integer)"),
    ("group_bitmap_and", "GROUP_BITMAP_AND(bitmap)"),
    ("group_bitmap_and_state", "GROUP_BITMAP_AND_STATE(bitmap)"),
    ("group_bitmap_or", "GROUP_BITMAP_OR(bitmap)"),
    ("group_bitmap_or_state", "GROUP_BITMAP_OR_STATE(bitmap)"),
    ("group_bitmap_state", "GROUP_BITMAP_STATE(integer)"),
    ("group_bitmap_xor", "GROUP_BITMAP_XOR(bitmap)"),
    ("group_bitmap_xor_state", "GROUP_BITMAP_XOR_STATE(bitmap)"),
    ("if", "IF(condition, then, otherwise)"),
    ("last_value", "LAST_VALUE(value ORDER BY ..)"),
    ("lpad", "LPAD(text, length), LPAD(text, length, fill)"),
    ("max", "MAX(value)"),
    ("min", "MIN(value)"),
    ("nullif", "NULLIF(value, value)"),
    ("round", "ROUND(number), ROUND(number, digits)"),
    ("rpad", "RPAD(text, length), RPAD(text, length, fill)"),
    ("substr", "SUBSTR(text, start), SUBSTR(text, start, length)"),
    ("sum", "SUM(number)"),
    ("to_bitmap", "TO_BITMAP(integer)"),
    ("to_timestamp_ltz", "TO_TIMESTAMP_LTZ(number), TO_TIMESTAMP_LTZ(milliseconds, 3)"),
    ("unix_timestamp", "UNIX_TIMESTAMP(), UNIX_TIMESTAMP(timestamp), UNIX_TIMESTAMP(text, format)"),
];

/// How the function is written; None where nothing is known of it.
pub(super) fn form_of(name: &str) -> Option<String> {
    let form = FORMS.binary_search_by_key(&name.to_lowercase().as_str(), |(known, _)| known).ok()?;
    Some(FORMS.get(form)?.1.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order() {
        assert!(FORMS.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(form_of("BITMAP_COUNT").as_deref(), Some("BITMAP_COUNT(bitmap)"));
        assert_eq!(form_of("no_such_function"), None);
    }
}
