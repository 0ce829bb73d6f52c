//! The workload's files, merged by time as every peer is fed.
//!
//! All campaigns come first. Of the next customer (by `last_purchase_ts`), event (by `event_ts`) and order (by `order_ts`)
//! the one with the smallest time is taken; at one time in this order. A file is never reordered: a late line holds its
//! place and is taken as soon as it is the next of its file.

use memchr::{memchr, memrchr};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::Result;

/// The topics, in the order in which they are taken at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Campaigns.
    Campaign,
    /// Versions of customers.
    Customer,
    /// Events.
    Event,
    /// Orders.
    Order,
}

impl Topic {
    /// All topics.
    pub const ALL: [Topic; 4] = [Topic::Campaign, Topic::Customer, Topic::Event, Topic::Order];
    /// The topic's name, also that of its file.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Campaign => "campaign",
            Topic::Customer => "customer",
            Topic::Event => "event",
            Topic::Order => "sale_order",
        }
    }
}

/// In which order the topics are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequence {
    /// By time.
    #[default]
    ByTime,
    /// All orders before all events: every event is late.
    OrdersFirst,
}

impl Sequence {
    /// The time that decides when a record of the topic with time `time` is taken.
    pub fn time(self, topic: Topic, time: i64) -> i64 {
        const YEAR_MS: i64 = 365 * 86_400_000;
        match (self, topic) {
            (_, Topic::Campaign) => 0,
            (Sequence::OrdersFirst, Topic::Order) => time - YEAR_MS,
            _ => time,
        }
    }
}

/// The lines of a file, through one buffer.
pub struct Lines {
    file: File,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    ended: bool,
    current: Range<usize>,
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &Path) -> Result<Lines> {
        let file = File::open(path).map_err(|error| format!("could not open \"{}\": {error}", path.display()))?;
        Ok(Lines { file, buffer: vec![0; 1 << 18], at: 0, end: 0, ended: false, current: 0..0 })
    }
    /// The next line, without its end.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        let mut searched = 0;
        loop {
            if let Some(length) = memchr(b'\n', &self.buffer[self.at + searched..self.end]) {
                self.current = self.at..self.at + searched + length;
                self.at = self.current.end + 1;
                return Ok(Some(self.current_line()));
            }
            if self.ended {
                self.current = self.at..self.end;
                self.at = self.end;
                return Ok(if self.current.is_empty() { None } else { Some(self.current_line()) });
            }
            searched = self.end - self.at;
            self.fill()?;
        }
    }
    /// The line that [`next_line`](Self::next_line) returned last.
    pub fn current_line(&self) -> &[u8] {
        &self.buffer[self.current.clone()]
    }
    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        let size = self.file.read(&mut self.buffer[self.end..])?;
        self.ended = size == 0;
        self.end += size;
        Ok(())
    }
}

/// The four files as one sequence of lines.
///
/// The time of a record must be the last field of its line: it is read from there, so that nothing is parsed twice.
pub struct Merged {
    files: [Lines; 4],
    /// The times of the files' current lines.
    times: [Option<i64>; 4],
    sequence: Sequence,
    /// The topic whose current line was handed out last.
    taken: Option<Topic>,
}

impl Merged {
    /// Opens the files `DIR/<topic>.ndjson`.
    ///
    /// # Errors
    /// Where one cannot be read, or a line does not end in its time.
    pub fn open(dir: &Path, sequence: Sequence) -> Result<Merged> {
        let open = |topic: Topic| Lines::open(&dir.join(format!("{}.ndjson", topic.name())));
        let [campaign, customer, event, order] = Topic::ALL.map(open);
        let files = [campaign?, customer?, event?, order?];
        let mut merged = Merged { files, times: [None; 4], sequence, taken: None };
        for topic in Topic::ALL {
            merged.advance(topic)?;
        }
        Ok(merged)
    }
    fn advance(&mut self, topic: Topic) -> Result<()> {
        self.times[topic as usize] = match self.files[topic as usize].next_line()? {
            None => None,
            Some(_) if topic == Topic::Campaign => Some(0),
            Some(line) => Some(self.sequence.time(topic, last_number(line).ok_or_else(|| timeless(topic, line))?)),
        };
        Ok(())
    }
    /// The next line of all files, its topic, and the time that it was merged by.
    ///
    /// # Errors
    /// Where a file cannot be read, or a line does not end in its time.
    pub fn next_record(&mut self) -> Result<Option<(Topic, i64, &[u8])>> {
        if let Some(topic) = self.taken.take() {
            self.advance(topic)?;
        }
        let heads = Topic::ALL.into_iter().zip(self.times);
        let first = heads.filter_map(|(topic, time)| time.map(|time| (topic != Topic::Campaign, time, topic))).min();
        let Some((_, time, topic)) = first else { return Ok(None) };
        self.taken = Some(topic);
        Ok(Some((topic, time, self.files[topic as usize].current_line())))
    }
}

/// The number of a JSON object's last field.
fn last_number(line: &[u8]) -> Option<i64> {
    let colon = memrchr(b':', line)?;
    std::str::from_utf8(line.get(colon + 1..)?).ok()?.trim_end_matches('}').trim().parse().ok()
}
fn timeless(topic: Topic, line: &[u8]) -> String {
    format!("a line of \"{}\" does not end in its time: {}", topic.name(), String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_merged_by_the_times_of_their_next_lines() {
        let dir = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| std::fs::write(dir.path().join(format!("{name}.ndjson")), text).expect("a file");
        write("campaign", "{\"i\":9}\n{\"i\":8}");
        write("customer", "{\"a\":1,\"t\":3}\n{\"t\":5}\n");
        write("event", "{\"t\":3}\n{\"t\": 7 }\n{\"t\":1}\n");
        write("sale_order", "{\"t\":5}\n");
        let read = |sequence| {
            let mut merged = Merged::open(dir.path(), sequence).expect("files");
            let mut text = String::new();
            while let Some((topic, _, line)) = merged.next_record().expect("a record") {
                text += &format!("{}{} ", &topic.name()[..2], last_number(line).expect("a number"));
            }
            text
        };
        assert_eq!(read(Sequence::ByTime), "ca9 ca8 cu3 ev3 cu5 sa5 ev7 ev1 ");
        assert_eq!(read(Sequence::OrdersFirst), "ca9 ca8 sa5 cu3 ev3 cu5 ev7 ev1 ");
        write("event", "{\"t\":\"x\"}");
        assert!(Merged::open(dir.path(), Sequence::ByTime).is_err());
    }

    #[test]
    fn long_lines_and_a_missing_last_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lines");
        let long = "x".repeat(600_000);
        std::fs::write(&path, format!("a\n{long}\n\nb")).expect("a file");
        let mut lines = Lines::open(&path).expect("a file");
        let mut sizes = Vec::new();
        while let Some(line) = lines.next_line().expect("a line") {
            sizes.push(line.len());
        }
        assert_eq!(sizes, [1, 600_000, 0, 1]);
    }
}
