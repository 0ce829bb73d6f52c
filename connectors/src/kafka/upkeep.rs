//! What a fetching thread looks after beside records: brokers that go and come, topics that go, come and grow, offsets that
//! are not there, and the group's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::EVENTS;
use super::fetch::{Fetcher, Reading, broken};
use super::shared::Standing;
use super::topics::{self, Span};
use crate::error::{Error, Result};

/// How long a question to the broker may block fetching.
const QUESTION: Duration = Duration::from_secs(3);

impl Fetcher {
    /// A partition cannot be fetched.
    pub(super) fn lost(&mut self, index: usize, error: &KafkaError) -> Result<()> {
        self.refused(error)?;
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => self.restore(index, true),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId) => {
                self.set_gone(index);
                Ok(())
            }
            // A connection that broke: the client makes another.
            _ => Ok(()),
        }
    }
    fn set_gone(&mut self, index: usize) {
        let reading = &mut self.readings[index];
        if std::mem::replace(&mut reading.gone, true) {
            return;
        }
        let name = reading.topic.clone();
        let mut state = self.shared.lock();
        let inbox = &mut state.inboxes[index];
        // It may come back, but nobody has to wait for it.
        (inbox.note, inbox.at.target) = ("not there".to_owned(), 0);
        drop(state);
        let first = self.readings.iter().filter(|other| other.gone && other.topic == name).count() == 1;
        if first {
            self.say(format!("warning: topic \"{name}\" is not there any more; it is waited for"));
        }
    }
    /// An error that no patience mends.
    pub(super) fn refused(&self, error: &KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
                Err(broken(&format!("read from Kafka at \"{}\"", self.connection.brokers()), error))
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(broken("go on reading from Kafka", error)),
            _ => Ok(()),
        }
    }
    /// Takes in that topics went and others of their names came.
    fn hear_of_others(&mut self) {
        let anew = self.watch.made_anew();
        for reading in self.readings.iter_mut().filter(|reading| anew.contains(&reading.topic)) {
            reading.another = true;
        }
    }
    /// Reads from their beginning topics that were made anew and did not go unseen.
    pub(super) fn begin_anew(&mut self) -> Result<()> {
        self.hear_of_others();
        for index in 0..self.readings.len() {
            let Reading { another, gone, queue, .. } = &self.readings[index];
            if *another && !gone && queue.is_some() {
                self.restore(index, false)?;
            }
        }
        Ok(())
    }
    /// Finds where a partition goes on that was gone, or whose next offset the broker did not have.
    fn restore(&mut self, index: usize, out_of_range: bool) -> Result<()> {
        let (topic, partition) = (self.readings[index].topic.clone(), self.readings[index].partition);
        // Asked first, so that the client knows which topic of that name it is, and does not tell it later.
        let known = self.consumer.fetch_metadata(Some(&topic), QUESTION);
        self.hear_of_others();
        let log = known.and_then(|_| self.consumer.fetch_watermarks(&topic, partition, QUESTION));
        let Ok((low, high)) = log else {
            // Looked at again with everybody's health; by then more may have come.
            self.readings[index].another |= out_of_range;
            self.set_gone(index);
            return Ok(());
        };
        let next = self.readings[index].next;
        let another = std::mem::take(&mut self.readings[index].another) || next > high;
        self.readings[index].gone = false;
        let note = if next >= low && !another && !out_of_range {
            String::new()
        } else if self.readings[index].stop.is_some() {
            return Err(Error::Kafka {
                action: format!("read topic \"{topic}\" partition {partition} to the end that it had"),
                reason: format!("it holds offsets {low} to {high} now, and {next} was next"),
            });
        } else if another || next >= low {
            self.say(format!(
                "warning: topic \"{topic}\" partition {partition} was made anew: offset {next}, which was next, is not of the log \
                 that was read; it is read from its beginning"
            ));
            format!("made anew, read from offset {low}")
        } else {
            self.say(format!(
                "warning: topic \"{topic}\" partition {partition} lost offsets {next} to {low} to its retention before they were read"
            ));
            format!("lost offsets {next} to {low}")
        };
        if !note.is_empty() {
            self.readings[index].next = low;
        }
        let reading = &mut self.readings[index];
        let next = reading.next;
        (reading.through, reading.at_end) = (next, false);
        let mut state = self.shared.lock();
        let inbox = &mut state.inboxes[index];
        // A backlog that lost its beginning is still one.
        let target = if inbox.at.is_behind() { high } else { 0 };
        inbox.at = Standing { next, target, high, at_end: false, ..inbox.at };
        inbox.note = note;
        drop(state);
        self.unassign(index);
        self.assign(index)
    }

    /// Says that brokers went or came.
    pub(super) fn look_at_brokers(&mut self) {
        let (unreachable, brokers) = (self.watch.unreachable(), self.connection.brokers());
        match &unreachable {
            Some(reason) if !self.away => {
                self.say(format!("warning: Kafka at \"{brokers}\" does not answer: {reason}; trying on"));
            }
            None if self.away => self.say(format!("warning: Kafka at \"{brokers}\" answers again")),
            _ => {}
        }
        self.away = unreachable.is_some();
        self.shared.lock().away = self.away;
    }
    /// Looks after brokers, and topics that are waited for.
    pub(super) fn health(&mut self) {
        for _ in 0..EVENTS {
            // What it has to say, the other says too.
            drop(self.asks.poll(Duration::ZERO));
        }
        self.look_at_brokers();
        let mut state = self.shared.lock();
        for (reading, inbox) in self.readings.iter().zip(&mut state.inboxes) {
            if let Some(end) = self.watch.end_of(&reading.topic, reading.partition) {
                inbox.at.high = end.max(reading.next);
            }
        }
        drop(state);
        if !self.away {
            self.look_at_topics();
        }
    }
    /// Asks whether topics are there: those that are waited for, and of the others one each time. The client does not say
    /// that a topic went while another of its name came, and would go on in the middle of that one.
    fn look_at_topics(&mut self) {
        let topics: BTreeSet<String> = self.readings.iter().map(|reading| reading.topic.clone()).collect();
        self.turn = (self.turn + 1) % topics.len().max(1);
        for (turn, topic) in topics.into_iter().enumerate() {
            let of: Vec<usize> = (0..self.readings.len()).filter(|index| self.readings[*index].topic == topic).collect();
            let waited_for = of.iter().any(|index| self.readings[*index].gone || self.readings[*index].missing);
            if turn != self.turn && !waited_for {
                continue;
            }
            let Ok(metadata) = self.asks.fetch_metadata(Some(&topic), QUESTION) else { continue };
            let there = metadata.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty());
            for index in of {
                if there {
                    self.readings[index].missing = false;
                    if self.readings[index].gone
                        && let Err(failure) = self.restore(index, false)
                    {
                        self.shared.lock().failure = Some(failure);
                    }
                } else if std::mem::replace(&mut self.readings[index].missing, true) {
                    // Twice in a row: no broker that has just started and does not know its topics yet.
                    self.readings[index].another = true;
                    self.set_gone(index);
                }
            }
        }
    }
    /// What the broker has now is what the reader waits for.
    pub(super) fn retarget(&mut self) {
        let partitions: Vec<(&str, i32)> = self.readings.iter().map(|r| (r.topic.as_str(), r.partition)).collect();
        // Where there is no answer, it is asked again in the next round.
        let Ok(ends) = topics::ends(&self.asks, &partitions, QUESTION) else { return };
        if ends.iter().zip(&self.readings).any(|(end, reading)| end.is_none() && !reading.gone) {
            return;
        }
        let mut again = Vec::new();
        let mut state = self.shared.lock();
        for (index, (inbox, reading)) in state.inboxes.iter_mut().zip(&mut self.readings).enumerate() {
            let end = ends[index].unwrap_or_default();
            inbox.at.high = inbox.at.high.max(end);
            if reading.stop.is_none() && !reading.gone && end > reading.next && end > reading.through {
                inbox.at.target = end;
                // Markers of transactions alone may lie there: the client says once that it is at the end, and is made to say it
                // again.
                if reading.at_end {
                    again.push(index);
                }
                (inbox.at.at_end, reading.at_end) = (false, false);
            }
        }
        state.retarget = false;
        drop(state);
        for index in again {
            self.unassign(index);
            if let Err(failure) = self.assign(index) {
                self.shared.lock().failure = Some(failure);
            }
        }
        self.shared.arrived.ring();
    }
    /// Looks for topics and partitions that are new.
    pub(super) fn discover(&mut self) -> Result<()> {
        let Ok(found) = topics::find_now(&self.asks, &self.wanted, QUESTION) else { return Ok(()) };
        let known: BTreeSet<(String, i32)> = self.readings.iter().map(|r| (r.topic.clone(), r.partition)).collect();
        for (topic, partitions) in found {
            let new: Vec<i32> = partitions.into_iter().filter(|p| !known.contains(&(topic.clone(), *p))).collect();
            if new.is_empty() {
                continue;
            }
            let names = new.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
            self.say(format!("warning: topic \"{topic}\" has a new partition {names}; it is read from its beginning"));
            for partition in new {
                let span = Span { start: 0, stop: None, high: 0 };
                self.add(topic.clone(), partition, span, "added while reading".to_owned())?;
            }
        }
        Ok(())
    }
    /// Writes down in the group how far records are done with. A run that begins at the group's offsets has the rest.
    pub(super) fn commit(&mut self) {
        self.committed_at = Instant::now();
        let Some(group) = self.connection.group().filter(|_| !self.away) else { return };
        self.look_at_commit(group);
        let taken = self.shared.lock().taken.clone();
        if taken == self.committed {
            return;
        }
        // One that fails is made up for by the next.
        if self.offsets(&taken).is_some_and(|list| self.consumer.commit(&list, CommitMode::Async).is_ok()) {
            self.committed = taken;
        }
    }
    /// The partitions at these offsets, in the order in which they are read.
    fn offsets(&self, offsets: &[i64]) -> Option<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (reading, offset) in self.readings.iter().zip(offsets) {
            list.add_partition_offset(&reading.topic, reading.partition, Offset::Offset(*offset)).ok()?;
        }
        Some(list)
    }
    /// Looks whether the group took what was committed last: where it has members, it listens to them alone, and the client does not
    /// tell.
    fn look_at_commit(&self, group: &str) {
        let Some(list) = self.offsets(&self.committed).filter(|_| !self.committed.is_empty()) else { return };
        let Ok(noted) = self.asks.committed_offsets(list.clone(), QUESTION) else { return };
        let taken = list.elements().iter().all(|told| {
            let noted = noted.find_partition(told.topic(), told.partition()).map(|noted| noted.offset());
            matches!((noted, told.offset()), (Some(Offset::Offset(noted)), Offset::Offset(told)) if noted >= told)
        });
        let known = std::mem::replace(&mut self.shared.lock().uncommitted, !taken);
        if !taken && !known {
            self.say(format!(
                "warning: group \"{group}\" does not take the offsets up to which its topics are read: it has other members, which \
                 decide them; reading goes on"
            ));
        }
    }
    pub(super) fn say(&self, news: String) {
        self.shared.lock().news.push(news);
        self.shared.arrived.ring();
    }
}
