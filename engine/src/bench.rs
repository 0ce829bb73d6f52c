//! Measuring a job: how long single changes, and days that pass, take while everything that came before is held.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use deltaworks_dataflow::Command;
use deltaworks_dataflow::host::{InputBatch, InputId};

use crate::error::EngineError;
use crate::query::short;
use crate::script::Engine;
use crate::ticks;

type Result<T> = std::result::Result<T, EngineError>;
/// What goes to the inputs of one tick.
type Batches = Vec<(InputId, InputBatch)>;

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// What is to be measured of a job once its sources have ended, or almost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measuring {
    /// How many of the last records are given one by one.
    pub single: usize,
    /// How many days the clock is moved on, one by one.
    pub days: usize,
}

/// What was measured of a job.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Records read.
    pub records: u64,
    /// Ticks that they were cut into.
    pub ticks: u64,
    /// By table, how long each single change took, from the input to the completion of its tick on all workers.
    pub single: BTreeMap<String, Vec<Duration>>,
    /// How long each day took that passed, the same way.
    pub days: Vec<Duration>,
}

impl Engine {
    /// Runs a script as [`run_script`](Engine::run_script) does, but gives the last records of its sources to the workers one by
    /// one, each as a tick of its own that is waited for, and then lets days pass in the same way.
    ///
    /// # Errors
    /// The first statement, source or sink that fails.
    pub fn bench_script(&mut self, text: &str, file: &str, measuring: Measuring) -> Result<Figures> {
        self.measuring = measuring;
        self.run_script(text, file)?;
        self.figures.records = self.sources.progress.records;
        self.figures.ticks = self.host.next_tick() - 1;
        Ok(std::mem::take(&mut self.figures))
    }
    /// Reads the started sources to their end, and keeps back what is to be measured.
    pub(crate) fn drain_measuring(&mut self) -> Result<()> {
        let mut last = Vec::new();
        while !self.sources.ended() && !self.sources.idle() && !self.stopped() {
            let next = self.sources.read(&self.options, &mut self.clock, self.timezone, self.host.workers())?;
            // Sources say that they have ended one read late: then the last one had nothing.
            if self.sources.is_held_up() {
                self.sources.wait(Duration::from_millis(50));
            } else if !next.is_empty() {
                self.send_tick(std::mem::replace(&mut last, next))?;
            }
        }
        let (rest, single) = split(last, self.measuring.single);
        let tick = self.send_tick(rest)?;
        self.note_letters(tick);
        self.settle()?;
        let names: BTreeMap<InputId, String> = self
            .catalog
            .entries
            .iter()
            .filter_map(|(name, entry)| entry.table().map(|table| (table.input, short(name).to_string())))
            .collect();
        for (input, command) in single {
            let begin = Instant::now();
            let tick = ticks::send(&mut self.host, vec![(input, InputBatch::Commands(vec![command]))], &[])?;
            self.host.wait_complete(tick)?;
            let name = names.get(&input).cloned().unwrap_or_default();
            self.figures.single.entry(name).or_default().push(begin.elapsed());
            self.write_sinks()?;
        }
        for _ in 0..self.measuring.days {
            self.clock.advance(DAY);
            let begin = Instant::now();
            let tick = self.send_tick(Vec::new())?;
            self.host.wait_complete(tick)?;
            self.figures.days.push(begin.elapsed());
            self.write_sinks()?;
        }
        Ok(())
    }
}

/// The last `count` commands of a tick in the order of arrival, and everything before them.
fn split(batches: Batches, count: usize) -> (Batches, Vec<(InputId, Command)>) {
    let (mut rest, mut commands) = (Vec::new(), Vec::new());
    for (input, batch) in batches {
        match batch {
            InputBatch::Commands(list) => commands.extend(list.into_iter().map(|command| (input, command))),
            other => rest.push((input, other)),
        }
    }
    commands.sort_by_key(|(_, command)| command.position);
    let single = commands.split_off(commands.len().saturating_sub(count));
    let mut before: BTreeMap<InputId, Vec<Command>> = BTreeMap::new();
    for (input, command) in commands {
        before.entry(input).or_default().push(command);
    }
    rest.extend(before.into_iter().map(|(input, list)| (input, InputBatch::Commands(list))));
    (rest, single)
}
