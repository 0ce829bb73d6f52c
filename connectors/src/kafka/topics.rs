//! Which partitions there are, and where reading them begins and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Watch, connect, settled};
use super::fetch::broken;
use super::scan::{Bound, Scan, Startup, Topics};
use crate::error::{Error, Result};

/// How long a topic may take to be known everywhere after it was made.
const SETTLING: Duration = Duration::from_secs(2);
/// Topics that an error names.
const NAMED: usize = 10;

/// Topics and their partitions, both in order.
pub(super) type Found = BTreeMap<String, Vec<i32>>;

/// Where a partition is read.
pub(super) struct Span {
    /// The first offset.
    pub(super) start: i64,
    /// The offset before which reading ends, and whether the log is that long.
    pub(super) stop: Option<(i64, bool)>,
    /// The offset after the last record that is there.
    pub(super) high: i64,
}

/// The partitions of the topics that are wanted. This is the first that is asked of the brokers.
///
/// # Errors
/// No broker answers; a topic that is not there; a pattern that matches none.
pub(super) fn find(connection: &Connection, consumer: &BaseConsumer<Watch>, wanted: &[Topics]) -> Result<Found> {
    let start = Instant::now();
    loop {
        let metadata = ask(wanted).map(|topic| connect(connection, consumer, topic)).collect::<Result<Vec<_>>>()?;
        let (found, missing) = collect(wanted, &metadata);
        if let Some((topic, code)) = missing.iter().find(|(_, code)| *code != RDKafkaErrorCode::UnknownTopicOrPartition) {
            return Err(broken(&format!("read topic \"{topic}\""), &KafkaError::MetadataFetch(*code)));
        }
        let Some((topic, _)) = missing.into_iter().next() else { return Ok(found) };
        if start.elapsed() >= SETTLING {
            let all = connect(connection, consumer, None)?;
            let names = all.topics().iter().map(|topic| topic.name()).filter(|name| !name.starts_with("__"));
            let known: BTreeSet<String> = names.map(str::to_owned).collect();
            let known = known.into_iter().take(NAMED).collect();
            return Err(Error::UnknownTopic { topic, brokers: connection.brokers().to_owned(), known });
        }
        consumer.context().pause()?;
    }
}
/// The same later, without waiting for anything.
pub(super) fn find_now(
    consumer: &BaseConsumer<Watch>,
    wanted: &[Topics],
    patience: Duration,
) -> std::result::Result<Found, KafkaError> {
    let metadata =
        ask(wanted).map(|topic| consumer.fetch_metadata(topic, patience)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(collect(wanted, &metadata).0)
}
/// The offsets after the last records of partitions, in one question; None where a partition does not say.
pub(super) fn ends(
    consumer: &BaseConsumer<Watch>,
    partitions: &[(&str, i32)],
    patience: Duration,
) -> std::result::Result<Vec<Option<i64>>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let answered = consumer.offsets_for_times(list, patience)?;
    let end = |(topic, partition): &(&str, i32)| {
        let answer = answered.find_partition(topic, *partition).filter(|answer| answer.error().is_ok());
        match answer.map(|answer| answer.offset()) {
            Some(Offset::Offset(end)) => Some(end),
            // Brokers that do not answer so are asked one by one.
            Some(_) => consumer.fetch_watermarks(topic, *partition, patience).ok().map(|(_, end)| end),
            None => None,
        }
    };
    Ok(partitions.iter().map(end).collect())
}
/// The topics to ask for, one by one; a pattern needs all.
fn ask(wanted: &[Topics]) -> impl Iterator<Item = Option<&str>> {
    let all = wanted.iter().any(|topics| matches!(topics, Topics::Pattern(_)));
    let names: BTreeSet<&str> = wanted.iter().flat_map(|topics| topics.names()).map(String::as_str).collect();
    all.then_some(None).into_iter().chain(names.into_iter().filter(move |_| !all).map(Some))
}
/// What is there of what is wanted, and what is not, with the reason.
fn collect(wanted: &[Topics], answers: &[Metadata]) -> (Found, Vec<(String, RDKafkaErrorCode)>) {
    let (mut found, mut errors) = (Found::new(), BTreeMap::new());
    for topic in answers.iter().flat_map(|metadata| metadata.topics()) {
        let name = topic.name();
        // Topics that begin so are Kafka's own: only who names them has them.
        let own = name.starts_with("__") && !wanted.iter().any(|topics| topics.names().iter().any(|other| other == name));
        if own || !wanted.iter().any(|topics| topics.matches(name)) {
            continue;
        }
        if let Some(error) = topic.error() {
            errors.insert(name.to_owned(), RDKafkaErrorCode::from(error));
        }
        let mut partitions: Vec<i32> = topic.partitions().iter().map(|partition| partition.id()).collect();
        partitions.sort_unstable();
        if !partitions.is_empty() {
            found.insert(name.to_owned(), partitions);
        }
    }
    let unknown = RDKafkaErrorCode::UnknownTopicOrPartition;
    let reason = |name: &str| errors.get(name).copied().unwrap_or(unknown);
    let mut missing = Vec::new();
    for topics in wanted {
        match topics {
            Topics::List(names) => {
                let absent = names.iter().filter(|name| !found.contains_key(*name));
                missing.extend(absent.map(|name| (name.clone(), reason(name))));
            }
            Topics::Pattern(regex) if !found.keys().any(|name| regex.is_match(name)) => {
                missing.push((regex.as_str().to_owned(), unknown));
            }
            Topics::Pattern(_) => {}
        }
    }
    (found, missing)
}

/// Where reading begins and ends, in the order of the partitions.
///
/// # Errors
/// Brokers that do not say; offsets that cannot be.
pub(super) fn spans(
    connection: &Connection,
    consumer: &BaseConsumer<Watch>,
    scan: &Scan,
    partitions: &[(String, i32)],
) -> Result<Vec<Span>> {
    let questions = Questions { connection, consumer, partitions };
    let logs = questions.logs()?;
    let starts = questions.starts(&scan.startup, &logs)?;
    let stops = questions.stops(&scan.bound, &logs)?;
    let span = |((start, stop), (_, high)): ((i64, Option<i64>), &(i64, i64))| {
        let stop = stop.map(|stop| (stop, stop <= *high));
        Span { start, stop, high: *high }
    };
    Ok(starts.into_iter().zip(stops).zip(&logs).map(span).collect())
}

struct Questions<'a> {
    connection: &'a Connection,
    consumer: &'a BaseConsumer<Watch>,
    partitions: &'a [(String, i32)],
}
impl Questions<'_> {
    /// The first offset of each partition and the one after the last.
    fn logs(&self) -> Result<Vec<(i64, i64)>> {
        let log = |(topic, partition): &(String, i32)| {
            let action = || format!("ask for the offsets of topic \"{topic}\" partition {partition}");
            settled(self.consumer, action, |patience| self.consumer.fetch_watermarks(topic, *partition, patience))
        };
        self.partitions.iter().map(log).collect()
    }
    fn starts(&self, startup: &Startup, logs: &[(i64, i64)]) -> Result<Vec<i64>> {
        let earliest = logs.iter().map(|(low, _)| *low);
        let latest = logs.iter().map(|(_, high)| *high);
        match startup {
            Startup::Earliest => Ok(earliest.collect()),
            Startup::Latest => Ok(latest.collect()),
            Startup::Timestamp(millis) => {
                Ok(self.at(*millis)?.into_iter().zip(latest).map(|(at, high)| at.unwrap_or(high)).collect())
            }
            Startup::Offsets(offsets) => {
                self.check_named("scan.startup.specific-offsets", offsets)?;
                let start = |((topic, partition), (low, high)): (&(String, i32), &(i64, i64))| {
                    let start = offsets.get(partition).copied().unwrap_or(*low);
                    if (*low..=*high).contains(&start) {
                        return Ok(start);
                    }
                    let action = format!("begin to read topic \"{topic}\" partition {partition} at offset {start}");
                    Err(Error::Kafka { action, reason: format!("it holds offsets {low} to {high}") })
                };
                self.partitions.iter().zip(logs).map(start).collect()
            }
            Startup::Group => {
                let of_group = self.partitions.iter().zip(self.committed()?).zip(logs);
                of_group.map(|((partition, at), log)| self.group_start(partition, at, *log)).collect()
            }
        }
    }
    /// Where reading a partition begins whose group has committed `at`.
    fn group_start(&self, (topic, partition): &(String, i32), at: Option<i64>, (low, high): (i64, i64)) -> Result<i64> {
        match (at, self.connection.get("auto.offset.reset").unwrap_or_default()) {
            (Some(at), _) if (low..=high).contains(&at) => Ok(at),
            // Without one, or with one that retention or another topic of that name took.
            (_, "earliest" | "smallest" | "beginning") => Ok(low),
            (_, "latest" | "largest" | "end") => Ok(high),
            (Some(at), _) => {
                let action = format!("begin to read topic \"{topic}\" partition {partition} at offset {at}");
                let reason = format!(
                    "which is the group's: it holds offsets {low} to {high}, and 'properties.auto.offset.reset' does not say where else"
                );
                Err(Error::Kafka { action, reason })
            }
            (None, _) => Err(Error::NoCommittedOffset {
                group: self.connection.group().unwrap_or_default().to_owned(),
                topic: topic.clone(),
                partition: *partition,
            }),
        }
    }
    fn stops(&self, bound: &Bound, logs: &[(i64, i64)]) -> Result<Vec<Option<i64>>> {
        let latest = logs.iter().map(|(_, high)| *high);
        let or_latest =
            |at: Vec<Option<i64>>| at.into_iter().zip(latest.clone()).map(|(at, high)| Some(at.unwrap_or(high))).collect();
        Ok(match bound {
            Bound::Never => vec![None; logs.len()],
            Bound::Latest => latest.map(Some).collect(),
            Bound::Timestamp(millis) => or_latest(self.at(*millis)?),
            Bound::Group => or_latest(self.committed()?),
            Bound::Offsets(offsets) => {
                self.check_named("scan.bounded.specific-offsets", offsets)?;
                or_latest(self.partitions.iter().map(|(_, partition)| offsets.get(partition).copied()).collect())
            }
        })
    }
    /// Offsets of partitions that there are not would be passed over.
    fn check_named(&self, option: &'static str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let there: BTreeSet<i32> = self.partitions.iter().map(|(_, partition)| *partition).collect();
        match offsets.keys().find(|partition| !there.contains(partition)) {
            None => Ok(()),
            Some(partition) => Err(Error::UnknownPartition { option, partition: *partition, partitions: there.len() }),
        }
    }
    /// The offsets of the first records that are not older than so many milliseconds since 1970.
    fn at(&self, millis: i64) -> Result<Vec<Option<i64>>> {
        self.ask("ask for offsets by time", Offset::Offset(millis), |list, patience| {
            self.consumer.offsets_for_times(list, patience)
        })
    }
    fn committed(&self) -> Result<Vec<Option<i64>>> {
        let action = format!("ask for the offsets of group \"{}\"", self.connection.group().unwrap_or_default());
        self.ask(&action, Offset::Invalid, |list, patience| self.consumer.committed_offsets(list, patience))
    }
    fn ask(
        &self,
        action: &str,
        offset: Offset,
        answer: impl Fn(TopicPartitionList, Duration) -> std::result::Result<TopicPartitionList, KafkaError>,
    ) -> Result<Vec<Option<i64>>> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in self.partitions {
            list.add_partition_offset(topic, *partition, offset).map_err(|error| broken(action, &error))?;
        }
        let answered = settled(self.consumer, || action.to_owned(), |patience| answer(list.clone(), patience))?;
        let offset = |(topic, partition): &(String, i32)| {
            let element = answered.find_partition(topic, *partition);
            match element.map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => Some(offset),
                _ => None,
            }
        };
        Ok(self.partitions.iter().map(offset).collect())
    }
}
