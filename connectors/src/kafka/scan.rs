//! What is read: which topics, from where on, and up to where.
//!
//! The options and their values are those of Flink. Two defaults differ, because a table here is all that its topic holds:
//! without `scan.startup.mode` a topic is read from its beginning, and `group-offsets` without a committed offset is an
//! error unless `properties.auto.offset.reset` says what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;

use crate::error::Result;
use crate::options::Options;

/// How often new partitions are looked for.
const DISCOVERY: Duration = Duration::from_secs(5 * 60);

/// The topics of a table.
#[derive(Clone, Debug)]
pub enum Topics {
    /// These.
    List(Vec<String>),
    /// Those whose whole name a pattern matches.
    Pattern(Regex),
}

impl Topics {
    /// The topics that `topic` (several with `;` between) or `topic-pattern` name.
    ///
    /// # Errors
    /// Neither or both are there; a pattern that is none.
    pub fn from_options(options: &Options) -> Result<Topics> {
        match (options.get("topic"), options.get("topic-pattern")) {
            (Some(_), Some(pattern)) => {
                Err(options.invalid("topic-pattern", pattern, "either 'topic' or 'topic-pattern', not both"))
            }
            (None, Some(pattern)) => match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(regex) => Ok(Topics::Pattern(regex)),
                Err(_) => Err(options.invalid("topic-pattern", pattern, "a regular expression")),
            },
            (_, None) => {
                let list = options.require("topic")?;
                let names: Vec<String> = list.split(';').map(|name| name.trim().to_owned()).collect();
                if names.iter().any(String::is_empty) {
                    return Err(options.invalid("topic", list, "names of topics, separated by ;"));
                }
                Ok(Topics::List(names))
            }
        }
    }
    /// Whether a topic is one of them.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Topics::List(names) => names.iter().any(|name| name == topic),
            Topics::Pattern(regex) => regex.is_match(topic),
        }
    }
    /// The topics that it names; those that a pattern matches are among others.
    pub fn names(&self) -> &[String] {
        match self {
            Topics::List(names) => names,
            Topics::Pattern(_) => &[],
        }
    }
}

/// Where reading begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Startup {
    Earliest,
    Latest,
    Group,
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// By partition; others begin with their earliest record.
    Offsets(BTreeMap<i32, i64>),
}
/// Where reading ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Never,
    /// At the records that are there when reading begins.
    Latest,
    Group,
    /// Before the first record that is not older, in milliseconds since 1970.
    Timestamp(i64),
    /// Before these, by partition; others end with what is there when reading begins.
    Offsets(BTreeMap<i32, i64>),
}

/// From where to where topics are read. Tables whose scans are equal are read together, in the order of their records'
/// timestamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub(crate) startup: Startup,
    pub(crate) bound: Bound,
    /// How often new partitions are looked for; None: never.
    pub(crate) discovery: Option<Duration>,
}

impl Scan {
    /// What the options `scan.*` say.
    ///
    /// # Errors
    /// A mode that there is not; a mode without what it needs, or the other way round.
    pub fn from_options(options: &Options) -> Result<Scan> {
        let startup = match options.get("scan.startup.mode").unwrap_or("earliest-offset") {
            "earliest-offset" => Startup::Earliest,
            "latest-offset" => Startup::Latest,
            "group-offsets" => Startup::Group,
            "timestamp" => Startup::Timestamp(millis(options, "scan.startup.timestamp-millis")?),
            "specific-offsets" => Startup::Offsets(offsets(options, "scan.startup.specific-offsets")?),
            other => {
                let known = "earliest-offset, latest-offset, group-offsets, timestamp or specific-offsets";
                return Err(options.invalid("scan.startup.mode", other, known));
            }
        };
        let bound = match options.get("scan.bounded.mode").unwrap_or("unbounded") {
            "unbounded" => Bound::Never,
            "latest-offset" => Bound::Latest,
            "group-offsets" => Bound::Group,
            "timestamp" => Bound::Timestamp(millis(options, "scan.bounded.timestamp-millis")?),
            "specific-offsets" => Bound::Offsets(offsets(options, "scan.bounded.specific-offsets")?),
            other => {
                let known = "unbounded, latest-offset, group-offsets, timestamp or specific-offsets";
                return Err(options.invalid("scan.bounded.mode", other, known));
            }
        };
        if startup == Startup::Group || bound == Bound::Group {
            options.require("properties.group.id")?;
        }
        for (detail, mode, value) in [
            ("scan.startup.timestamp-millis", "scan.startup.mode", "timestamp"),
            ("scan.startup.specific-offsets", "scan.startup.mode", "specific-offsets"),
            ("scan.bounded.timestamp-millis", "scan.bounded.mode", "timestamp"),
            ("scan.bounded.specific-offsets", "scan.bounded.mode", "specific-offsets"),
        ] {
            if let Some(given) = options.get(detail).filter(|_| options.get(mode) != Some(value)) {
                return Err(options.invalid(detail, given, &format!("'{mode}' = '{value}' beside it")));
            }
        }
        let discovery = options.duration("scan.topic-partition-discovery.interval")?.unwrap_or(DISCOVERY);
        Ok(Scan { startup, bound, discovery: (!discovery.is_zero()).then_some(discovery) })
    }
    /// Whether reading ends by itself.
    pub fn is_bounded(&self) -> bool {
        self.bound != Bound::Never
    }
}

fn millis(options: &Options, name: &str) -> Result<i64> {
    let value = options.require(name)?;
    value.parse().map_err(|_| options.invalid(name, value, "milliseconds since 1970"))
}
/// `partition:0,offset:42;partition:1,offset:300`.
fn offsets(options: &Options, name: &str) -> Result<BTreeMap<i32, i64>> {
    let value = options.require(name)?;
    let pair = |part: &str| {
        let (partition, offset) = part.trim().split_once(',')?;
        let partition = partition.trim().strip_prefix("partition:")?.trim().parse().ok()?;
        let offset: i64 = offset.trim().strip_prefix("offset:")?.trim().parse().ok()?;
        (offset >= 0).then_some((partition, offset))
    };
    let pairs: Option<BTreeMap<i32, i64>> = value.split(';').map(pair).collect();
    pairs.ok_or_else(|| options.invalid(name, value, "offsets as in partition:0,offset:42;partition:1,offset:300"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(values: &[(&str, &str)]) -> Options {
        Options::new(values.iter().copied())
    }
    fn scan(values: &[(&str, &str)]) -> Scan {
        Scan::from_options(&options(values)).expect("a scan")
    }

    #[test]
    fn topics_are_listed_or_matched_as_a_whole() {
        let list = Topics::from_options(&options(&[("topic", "a; b")])).expect("topics");
        assert_eq!((list.matches("a"), list.matches("b"), list.matches("a; b")), (true, true, false));
        let pattern = Topics::from_options(&options(&[("topic-pattern", "a|eu-.*")])).expect("topics");
        assert_eq!(["a", "ab", "eu-x", "x-eu-"].map(|topic| pattern.matches(topic)), [true, false, true, false]);
        for wrong in [&[("topic", "a"), ("topic-pattern", "b")][..], &[("topic-pattern", "(")], &[("topic", "a;;b")], &[]] {
            assert!(Topics::from_options(&options(wrong)).is_err(), "{wrong:?}");
        }
    }
    #[test]
    fn modes_take_what_belongs_to_them() {
        let plain = scan(&[]);
        assert_eq!((&plain.startup, &plain.bound, plain.discovery), (&Startup::Earliest, &Bound::Never, Some(DISCOVERY)));
        let specific = scan(&[
            ("scan.startup.mode", "specific-offsets"),
            ("scan.startup.specific-offsets", "partition:0,offset:42; partition:1, offset:300"),
            ("scan.bounded.mode", "timestamp"),
            ("scan.bounded.timestamp-millis", "7"),
            ("scan.topic-partition-discovery.interval", "0 s"),
        ]);
        assert_eq!(specific.startup, Startup::Offsets(BTreeMap::from([(0, 42), (1, 300)])));
        assert_eq!((specific.bound, specific.discovery), (Bound::Timestamp(7), None));
        for wrong in [
            &[("scan.startup.mode", "earliest")][..],
            &[("scan.startup.mode", "timestamp")],
            &[("scan.startup.timestamp-millis", "7")],
            &[("scan.startup.mode", "group-offsets")],
            &[("scan.bounded.mode", "specific-offsets"), ("scan.bounded.specific-offsets", "0:42")],
            &[("scan.bounded.mode", "specific-offsets"), ("scan.bounded.specific-offsets", "partition:0,offset:-2")],
        ] {
            assert!(Scan::from_options(&options(wrong)).is_err(), "{wrong:?}");
        }
    }
}
