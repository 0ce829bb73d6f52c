//! Readers: a table's records are decoded into commands and dead letters.

use std::collections::BTreeMap;

use deltaworks_connectors::decode::{DeadLetter, Decoded, Decoder, TableFormat, TopicFilter};
use deltaworks_connectors::kafka::Topics;
use deltaworks_connectors::kafka::letters::errors_topic;
use deltaworks_connectors::ordered::OrderedFiles;
use deltaworks_connectors::record::Records;
use deltaworks_connectors::source::ReadState;
use deltaworks_dataflow::host::{InputBatch, InputId};

use crate::catalog::Table;
use crate::clock::Clock;
use crate::copy::{Filled, filled_at, widen};
use crate::error::EngineError;
use crate::letters::Outbox;

type Result<T> = std::result::Result<T, EngineError>;

/// A table that reads from a source.
pub(crate) struct Reader {
    pub(crate) name: String,
    pub(crate) decoder: Box<dyn Decoder>,
    pub(crate) topics: TopicFilter,
    /// What its topics are called, where new ones may come.
    pub(crate) wanted: Option<Topics>,
    pub(crate) input: InputId,
    pub(crate) errors_input: InputId,
    pub(crate) errors_fail: bool,
    /// Dead letters for its `'errors.topic'`; None where it names none.
    pub(crate) outbox: Option<Outbox>,
    /// Its lane of ordered files.
    pub(crate) lane: usize,
    /// Where the columns come from when a source delivers only some of them.
    pub(crate) filled: Option<Vec<Filled>>,
}

/// What was read, for the report at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) records: u64,
    pub(crate) ignored: u64,
    /// Dead letters by table.
    pub(crate) dead: BTreeMap<String, u64>,
    /// Files that changed after they were read, by table.
    pub(crate) changed_files: BTreeMap<String, u64>,
}

impl Reader {
    pub(crate) fn new(name: &str, table: &Table, format: &TableFormat, topics: TopicFilter) -> Result<Self> {
        let to_topic = table.connector.as_ref().map_or(Ok(None), errors_topic)?.is_some();
        Ok(Reader {
            name: name.to_string(),
            decoder: format.decoder()?,
            topics,
            wanted: None,
            input: table.input,
            errors_input: table.errors_input,
            errors_fail: table.errors_fail,
            outbox: to_topic.then(|| Outbox { table: name.to_string(), letters: Vec::new() }),
            lane: 0,
            filled: None,
        })
    }
    /// Takes in that a source has more topics than before.
    pub(crate) fn meet(&mut self, topics: &[String]) {
        if let Some(wanted) = &self.wanted {
            self.topics = TopicFilter::new(topics, |topic| wanted.matches(topic));
        }
    }
    /// Decodes records into the inputs of the table and its dead letters.
    pub(crate) fn decode(
        &mut self,
        records: &Records,
        (seen_at, timezone): (i64, chrono_tz::Tz),
        progress: &mut Progress,
        batches: &mut Vec<(InputId, InputBatch)>,
    ) -> Result<()> {
        let mut decoded = Decoded::default();
        self.decoder.decode(records, &self.topics, &mut decoded);
        if let Some(filled) = &self.filled {
            let filled = filled_at(filled, seen_at, timezone);
            decoded.commands.iter_mut().for_each(|command| command.row = widen(&command.row, &filled));
        }
        self.deliver(decoded, seen_at, progress, batches)
    }
    /// What is to go to its `'errors.topic'` since this was asked last.
    pub(crate) fn take_letters(&mut self) -> Option<Outbox> {
        let outbox = self.outbox.as_mut().filter(|outbox| !outbox.letters.is_empty())?;
        Some(Outbox { table: outbox.table.clone(), letters: std::mem::take(&mut outbox.letters) })
    }
    fn deliver(
        &mut self,
        decoded: Decoded,
        seen_at: i64,
        progress: &mut Progress,
        batches: &mut Vec<(InputId, InputBatch)>,
    ) -> Result<()> {
        progress.ignored += decoded.ignored;
        if !decoded.dead.is_empty() {
            if self.errors_fail {
                return Err(failure(&self.name, &decoded.dead[0]));
            }
            *progress.dead.entry(self.name.clone()).or_default() += decoded.dead.len() as u64;
            let letters = decoded.dead.iter().map(|letter| (letter.to_row(seen_at), 1)).collect();
            batches.push((self.errors_input, InputBatch::Updates(letters)));
            if let Some(outbox) = &mut self.outbox {
                outbox.letters.extend(decoded.dead.into_iter().map(|letter| (seen_at, letter)));
            }
        }
        if !decoded.commands.is_empty() {
            batches.push((self.input, InputBatch::Commands(decoded.commands)));
        }
        Ok(())
    }
}
/// Reads and decodes one tick of ordered files.
pub(crate) fn read_ordered(
    files: &mut OrderedFiles,
    readers: &mut [Reader],
    commands_max: usize,
    clock: &mut Clock,
    progress: &mut Progress,
    batches: &mut Vec<(InputId, InputBatch)>,
) -> Result<ReadState> {
    let before = files.taken();
    let mut decoded: Vec<Decoded> = vec![Decoded::default(); files.lanes()];
    let mut decode = |lane: usize, records: &Records, out: &mut Decoded| {
        if let Some(reader) = readers.iter_mut().find(|reader| reader.lane == lane) {
            reader.decoder.decode(records, &reader.topics, out);
        }
    };
    let state = files.read(commands_max, &mut decode, &mut decoded)?;
    if let Some(latest) = decoded.iter().filter_map(Decoded::latest).max() {
        clock.saw_record(latest);
    }
    progress.records += files.taken() - before;
    let seen_at = clock.now();
    for reader in readers {
        reader.deliver(std::mem::take(&mut decoded[reader.lane]), seen_at, progress, batches)?;
    }
    Ok(state)
}
fn failure(table: &str, letter: &DeadLetter) -> EngineError {
    EngineError::new(
        format!(
            "could not decode a record of table \"{table}\": \"{}\" partition {} offset {}: {}",
            letter.source, letter.partition, letter.position, letter.reason
        ),
        format!("mend the record, or leave out 'errors' = 'fail' to collect such records in {table}$errors"),
    )
}
