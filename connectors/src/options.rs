//! What stands behind WITH: options by name, checked against what their connector knows, with secrets masked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result};

/// The options of a table, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    values: BTreeMap<String, String>,
}

/// Options that every table may have.
const TABLE_OPTIONS: &[&str] = &[
    "connector",
    "errors",
    "errors.retention",
    "errors.retention.bytes",
    "errors.record-bytes-max",
    "changelog.mode",
    "table.*",
    "fields.*",
];
/// Which formats a table has, and what files say of theirs.
const FORMAT_OPTIONS: &[&str] =
    &["format", "key.format", "value.format", "header", "sep", "delimiter", "quote", "nullValue", "timestampFormat"];
/// Options of one format. They also stand behind `key.` and `value.`, for that part of a record alone.
const PART_OPTIONS: &[&str] = &[
    "json.ignore-parse-errors",
    "json.fail-on-missing-field",
    "json.timestamp-format.standard",
    "json.map-null-key.mode",
    "json.map-null-key.literal",
    "debezium-json.schema-include",
    "debezium-json.ignore-parse-errors",
    "debezium-json.timestamp-format.standard",
    "debezium-json.timestamp-unit",
    "debezium-json.decimal",
    "csv.*",
    "avro-confluent.url",
    "avro-confluent.subject",
    "avro-confluent.basic-auth.credentials-source",
    "avro-confluent.basic-auth.user-info",
    "debezium-avro-confluent.url",
    "debezium-avro-confluent.subject",
    "debezium-avro-confluent.basic-auth.credentials-source",
    "debezium-avro-confluent.basic-auth.user-info",
];
/// Options of topics.
const KAFKA_OPTIONS: &[&str] = &[
    "topic",
    "key.fields",
    "key.fields-prefix",
    "value.fields-include",
    "topic-pattern",
    "errors.topic",
    "properties.*",
    "scan.startup.mode",
    "scan.startup.timestamp-millis",
    "scan.startup.specific-offsets",
    "scan.bounded.mode",
    "scan.bounded.timestamp-millis",
    "scan.bounded.specific-offsets",
    "scan.topic-partition-discovery.interval",
    "sink.*",
];
/// What each connector knows beside them.
const CONNECTORS: &[(&str, &[&str])] = &[
    ("kafka", KAFKA_OPTIONS),
    ("upsert-kafka", KAFKA_OPTIONS),
    ("filesystem", &["path", "source.*", "scan.timestamp-column", "sink.*"]),
    ("stdout", &["sink.*"]),
    ("print", &["print-identifier", "standard-error", "sink.*"]),
    ("blackhole", &["sink.*"]),
];

/// The connectors there are, for messages.
pub(crate) fn connector_names() -> String {
    CONNECTORS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl Options {
    /// Options of the given names and values.
    pub fn new<N: Into<String>, V: Into<String>>(values: impl IntoIterator<Item = (N, V)>) -> Self {
        Options { values: values.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
    /// All options, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
    /// The first of several names that is set, with its value.
    pub fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &str)> {
        names.iter().find_map(|name| self.get(name).map(|value| (*name, value)))
    }
    /// The connector, if the table has one.
    pub fn connector(&self) -> Option<&str> {
        self.get("connector")
    }
    /// The format of values: `value.format` or `format`, JSON without either.
    pub fn format(&self) -> &str {
        self.first(&["value.format", "format"]).map_or("json", |(_, value)| value)
    }
    /// The options as the format of values sees them: `value.json.x` is `json.x`, and wins over it.
    pub fn of_value(&self) -> Options {
        Options { values: self.values.clone().into_iter().chain(self.behind("value.")).collect() }
    }
    /// The options as the format of keys sees them: `key.json.x` is `json.x`; what stands there without it is the value's.
    pub fn of_key(&self) -> Options {
        Options { values: self.behind("key.").collect() }
    }
    /// The same options and more, which win.
    #[cfg(feature = "avro")]
    pub(crate) fn with(mut self, more: impl IntoIterator<Item = (String, String)>) -> Options {
        self.values.extend(more);
        self
    }
    fn behind(&self, part: &str) -> impl Iterator<Item = (String, String)> {
        let named = move |(name, value): (&String, &String)| {
            let name = name.strip_prefix(part).filter(|name| is_part_option(name))?;
            Some((name.to_owned(), value.clone()))
        };
        self.values.iter().filter_map(named)
    }
    /// The value of an option that has to be there.
    ///
    /// # Errors
    /// It is not.
    pub fn require(&self, name: &str) -> Result<&str> {
        let connector = || self.connector().unwrap_or_default().to_owned();
        self.get(name).ok_or_else(|| Error::MissingOption { name: name.to_owned(), connector: connector() })
    }
    /// A truth value; `default` where the option is not set.
    ///
    /// # Errors
    /// It is neither true nor false.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(self.invalid(name, value, "true or false")),
        }
    }
    /// A duration such as `5 s`, `100ms` or `90 d`.
    ///
    /// # Errors
    /// It is written differently.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || self.invalid(name, value, "a duration such as 5 s, 100 ms, 10 min, 1 h or 90 d");
        parse_duration(value).map(Some).ok_or_else(wrong)
    }
    /// A number of bytes such as `64 kb`, `4 MiB` or `1 GiB`.
    ///
    /// # Errors
    /// It is written differently.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || self.invalid(name, value, "a size such as 1024, 64 kb, 4 mb or 1 gb");
        parse_size(value).map(Some).ok_or_else(wrong)
    }
    /// Checks that the connector exists and knows every option. A table without a connector is not for us to check.
    ///
    /// # Errors
    /// Names the connector or option, and those that there are.
    pub fn check(&self) -> Result<()> {
        let Some(connector) = self.connector() else { return Ok(()) };
        let Some((_, own)) = CONNECTORS.iter().find(|(name, _)| *name == connector) else {
            return Err(Error::UnknownConnector { name: connector.to_owned() });
        };
        let known = || own.iter().chain(TABLE_OPTIONS).chain(FORMAT_OPTIONS).chain(PART_OPTIONS);
        let is_known = |name: &str| {
            let part = name.strip_prefix("value.").or_else(|| name.strip_prefix("key."));
            known().any(|pattern| matches(pattern, name)) || part.is_some_and(is_part_option)
        };
        match self.values.keys().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(Error::UnknownOption {
                name: name.clone(),
                connector: connector.to_owned(),
                known: known().copied().collect::<Vec<_>>().join(", "),
            }),
        }
    }
    /// Checks that every option is one of a format, as those of COPY INTO are.
    ///
    /// # Errors
    /// Names the option, and those that there are.
    pub fn check_format(&self) -> Result<()> {
        match self.values.keys().find(|name| !FORMAT_OPTIONS.iter().any(|pattern| matches(pattern, name))) {
            None => Ok(()),
            Some(name) => Err(Error::UnknownOption {
                name: name.clone(),
                connector: "filesystem".to_owned(),
                known: FORMAT_OPTIONS.join(", "),
            }),
        }
    }
    /// The error of a value that an option cannot have; a secret is masked.
    pub fn invalid(&self, name: &str, value: &str, expected: &str) -> Error {
        let value = format!("\"{}\"", masked(name, value));
        Error::InvalidOption { name: name.to_owned(), value, expected: expected.to_owned() }
    }
    /// All options with secrets masked, e.g. for SHOW CREATE TABLE.
    pub fn masked(&self) -> Vec<(String, String)> {
        self.iter().map(|(name, value)| (name.to_owned(), masked(name, value).to_owned())).collect()
    }
}
fn is_part_option(name: &str) -> bool {
    PART_OPTIONS.iter().any(|pattern| matches(pattern, name))
}
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// What may be printed of an option's value: `***` for passwords, secrets, tokens, keys and all of `sasl.*`.
pub fn masked<'v>(name: &str, value: &'v str) -> &'v str {
    if is_secret(name) { "***" } else { value }
}
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if name.ends_with("user-info") {
        return true;
    }
    // How keys of records are written is no secret; neither are options of columns that are called so.
    if name.ends_with("credentials-source")
        || name.starts_with("key.")
        || name.starts_with("fields.")
        || name.contains("map-null-key")
    {
        return false;
    }
    name.split(['.', '-', '_']).any(|word| {
        matches!(word, "key" | "apikey" | "jaas" | "sasl" | "credentials")
            || ["password", "passwd", "secret", "token"].iter().any(|secret| word.contains(secret))
    })
}

/// A number and a unit, with or without a space between.
fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..end].parse().ok()?, text[end..].trim().to_ascii_lowercase()))
}
/// Reads a duration such as `5 s` or `90 days`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis = match unit.as_str() {
        "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        "w" | "week" | "weeks" => 604_800_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}
/// Reads a number of bytes such as `64 kb`; units are powers of 1024.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit.as_str() {
        "" | "b" | "bytes" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_options_are_named() {
        let options = Options::new([("connector", "filesystem"), ("path", "x"), ("pth", "y")]);
        let error = options.check().expect_err("an unknown option");
        assert_eq!(error.to_string(), "unknown option \"pth\" of connector \"filesystem\"");
        assert!(error.help().starts_with("options are path, source.*, scan.timestamp-column, sink.*, connector, errors"));
        let error = Options::new([("connector", "kafkaa")]).check().expect_err("an unknown connector");
        assert_eq!(error.to_string(), "unknown connector \"kafkaa\"");
        assert_eq!(error.help(), "connectors are kafka, upsert-kafka, filesystem, stdout, print, blackhole");
        let error = Options::new([("header", "true"), ("heading", "true")]).check_format().expect_err("an unknown option");
        assert_eq!(error.to_string(), "unknown option \"heading\" of connector \"filesystem\"");
        let kafka = [
            ("connector", "kafka"),
            ("topic", "event"),
            ("properties.bootstrap.servers", "b:9092"),
            ("scan.startup.mode", "earliest-offset"),
            ("scan.bounded.mode", "latest-offset"),
            ("format", "json"),
            ("key.format", "raw"),
            ("table.merge-engine", "first_row"),
            ("fields.a.agg", "sum"),
            ("errors", "fail"),
            ("errors.topic", "dead"),
            ("errors.retention.bytes", "1 gb"),
            ("json.ignore-parse-errors", "true"),
        ];
        assert!(Options::new(kafka).check().is_ok());
    }

    #[test]
    fn values_are_read() {
        let options =
            Options::new([("a", "5 s"), ("b", "90d"), ("c", "64 KB"), ("d", "TRUE"), ("e", "x"), ("connector", "kafka")]);
        assert_eq!(options.duration("a").expect("a duration"), Some(Duration::from_secs(5)));
        assert_eq!(options.duration("b").expect("a duration"), Some(Duration::from_secs(90 * 86400)));
        assert_eq!(options.size("c").expect("a size"), Some(65536));
        assert!(options.boolean("d", false).expect("a truth value"));
        assert_eq!(options.boolean("e", false).expect_err("no boolean").to_string(), "invalid value \"x\" of option \"e\"");
        assert_eq!(
            options.duration("e").expect_err("no duration").help(),
            "expected a duration such as 5 s, 100 ms, 10 min, 1 h or 90 d"
        );
        assert!(options.size("e").is_err());
        assert_eq!(
            options.require("path").expect_err("no path").to_string(),
            "missing option \"path\" of connector \"kafka\""
        );
        assert_eq!(parse_size("99999999999 tb"), None);
    }

    #[test]
    fn options_of_a_format_may_be_those_of_keys_or_values() {
        let options = Options::new([
            ("connector", "kafka"),
            ("json.ignore-parse-errors", "false"),
            ("value.json.ignore-parse-errors", "true"),
            ("value.csv.field-delimiter", ";"),
            ("key.csv.field-delimiter", "|"),
            ("key.fields", "a;b"),
        ]);
        options.check().expect("options");
        let (value, key) = (options.of_value(), options.of_key());
        assert_eq!(value.get("json.ignore-parse-errors"), Some("true"));
        assert_eq!((value.get("csv.field-delimiter"), value.get("key.fields")), (Some(";"), Some("a;b")));
        assert_eq!(key.iter().collect::<Vec<_>>(), [("csv.field-delimiter", "|")]);
        for unknown in ["value.json.ignore-parse-error", "key.value.csv.x", "value.topic", "key.csv"] {
            let error = Options::new([("connector", "kafka"), (unknown, "x")]).check().expect_err(unknown);
            assert_eq!(error.to_string(), format!("unknown option \"{unknown}\" of connector \"kafka\""));
        }
        let error = Options::new([("connector", "filesystem"), ("key.fields", "a")]).check().expect_err("no keys in files");
        assert_eq!(error.to_string(), "unknown option \"key.fields\" of connector \"filesystem\"");
    }

    #[test]
    fn secrets_are_masked() {
        for name in [
            "properties.sasl.jaas.config",
            "ssl.keystore.password",
            "api.key",
            "x.access-token",
            "client_secret",
            "sasl.mechanism",
            "token",
            "key.avro-confluent.basic-auth.user-info",
        ] {
            assert_eq!(masked(name, "v"), "***", "{name}");
        }
        for name in [
            "key.format",
            "key.fields",
            "topic",
            "ssl.keystore.location",
            "fields.key.agg",
            "avro-confluent.basic-auth.credentials-source",
        ] {
            assert_eq!(masked(name, "v"), "v", "{name}");
        }
        let options = Options::new([("password", "p")]);
        assert_eq!(options.masked(), vec![("password".to_owned(), "***".to_owned())]);
        assert_eq!(options.invalid("password", "p", "q").to_string(), "invalid value \"***\" of option \"password\"");
    }
}
