//! Tables whose rows leave with age, against a naive table that looks at every row after every command.

use super::*;
use crate::retention::keyless_aging;
use crate::testing::{Change, Multiset, Pair, Random, Script, add as add_row, check, fields, ints};
use deltaworks_dataflow::{KeyedCollection, Position};
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};

const SPAN: i64 = 6_000;
const KINDS: &[CommandKind] = &[CommandKind::Upsert, CommandKind::Upsert, CommandKind::Upsert, CommandKind::Retract];

/// A decoded row of integers: key, time (microseconds), value.
type Fields = Vec<Option<i64>>;

/// Commands in the order of their timestamps, which are the clock, cut into ticks by chance; `once_in` says how often. A
/// change's key holds timestamp, offset and kind.
fn script(seed: u64, cuts: u64, keyed: bool) -> Script {
    let (mut random, mut cut) = (Random::new(seed), Random::new(seed + 1000 * cuts));
    let mut script = Script { inputs: 1, ticks: 1, changes: Vec::new() };
    let mut timestamp = 1;
    let mut sent: Vec<Row> = Vec::new();
    for offset in 0..70 {
        timestamp += if random.once_in(9) { 5 } else { random.below(2) as i64 };
        let kind = random.below(KINDS.len() as u64) as usize;
        let most = if random.once_in(5) { 12 } else { 3 };
        let late = 1000 * random.below(most) as i64;
        let own = (!random.once_in(6)).then_some(1000 * timestamp - late);
        let mut row = ints(&[Some(random.below(4) as i64), own, Some(random.below(3) as i64)]);
        if !keyed && KINDS[kind] == CommandKind::Retract {
            // Taken back is what was sent, whether it is still there or not.
            let Some(earlier) = (!sent.is_empty()).then(|| sent.swap_remove(random.below(sent.len() as u64) as usize))
            else {
                continue;
            };
            row = earlier;
        } else {
            sent.push(row.clone());
        }
        let position = ints(&[Some(timestamp), Some(offset), Some(kind as i64)]);
        script.changes.push(Change { input: 0, row: (position, row), time: script.ticks - 1, diff: 1 });
        if cut.once_in(cuts) {
            script.ticks += 1 + cut.below(2);
        }
    }
    script
}
fn decode(row: &(Row, Row)) -> Command {
    let position = fields(&row.0);
    let number = |index: usize| position[index].unwrap();
    let position = Position { timestamp: number(0), offset: number(1) as u64, ..Position::default() };
    Command { position, kind: KINDS[number(2) as usize], row: row.1.clone() }
}

/// The commands, and the clock: the largest timestamp of each tick.
fn inputs<'s>(input: KeyedCollection<'s>) -> (StreamVec<'s, Time, Command>, StreamVec<'s, Time, i64>) {
    let commands = input.inner.unary(Pipeline, "AsCommands", move |_, _| {
        move |input, output| {
            input.for_each(|capability, updates| {
                for (row, time, _) in updates.drain(..) {
                    output.session(&capability.delayed(&time, 0)).give(decode(&row));
                }
            });
        }
    });
    let clock = commands.clone().unary(Pipeline, "Clock", move |_, _| {
        move |input, output| {
            input.for_each(|capability, commands: &mut Vec<Command>| {
                let newest = commands.drain(..).map(|command| command.position.timestamp * 1000).max();
                output.session(&capability).give_iterator(newest.into_iter());
            });
        }
    });
    (commands, clock.broadcast())
}

/// The instants at which the naive table meets its commands: their own, or always the same.
type Instant = fn(i64) -> i64;

/// Rows of the naive table with their times, oldest first.
struct Naive<'a> {
    retention: &'a Retention,
    rows: Vec<(Fields, i64)>,
}
impl Naive<'_> {
    fn expire(&mut self, now: i64) {
        self.rows.retain(|(_, time)| now - time <= self.retention.span);
    }
    fn time(&self, row: &Fields, timestamp: i64) -> i64 {
        self.retention.column.and_then(|column| row[column]).unwrap_or(timestamp * 1000)
    }
    fn fold(&mut self, engine: &Engine, command: &Command) {
        let row = fields(&command.row);
        let time = self.time(&row, command.position.timestamp);
        let old = self.rows.iter().position(|(other, _)| other[0] == row[0]);
        let keeps = |old: &Fields| match engine {
            Engine::FirstRow => true,
            Engine::Versioned { version } => old[*version] > row[*version],
            _ => false,
        };
        match (command.kind, old) {
            (CommandKind::Upsert, Some(old)) if keeps(&self.rows[old].0) => {}
            (CommandKind::Upsert, old) => {
                old.map(|old| self.rows.remove(old));
                self.rows.push((row, time));
            }
            (_, Some(old)) if matches!(engine, Engine::Versioned { .. }) && keeps(&self.rows[old].0) => {}
            (_, Some(old)) => {
                self.rows.remove(old);
            }
            (_, None) => {}
        }
    }
    fn fold_keyless(&mut self, command: &Command) {
        let row = fields(&command.row);
        if command.kind == CommandKind::Upsert {
            self.rows.push((row.clone(), self.time(&row, command.position.timestamp)));
            return;
        }
        let mut same: Vec<usize> = (0..self.rows.len()).filter(|index| self.rows[*index].0 == row).collect();
        same.sort_by_key(|index| self.rows[*index].1);
        if let Some(oldest) = same.first() {
            self.rows.remove(*oldest);
        }
    }
}
fn expected(held: &[Multiset<Pair>], retention: &Retention, engine: Option<&Engine>, instant: Instant) -> Multiset<Row> {
    let mut commands: Vec<Command> = held[0].keys().map(decode).collect();
    commands.sort();
    let mut naive = Naive { retention, rows: Vec::new() };
    for command in &commands {
        let now = instant(command.position.timestamp * 1000);
        naive.expire(now);
        match engine {
            Some(engine) => naive.fold(engine, command),
            None => naive.fold_keyless(command),
        }
        naive.expire(now);
    }
    let mut rows = Multiset::new();
    naive.rows.iter().for_each(|(row, _)| add_row(&mut rows, ints(row), 1));
    rows
}
/// Checks every tick of every cut; so two cuts of the same commands end alike.
fn check_all(engine: Option<Engine>, column: Option<usize>, fixed: bool) {
    let retention = Retention { span: SPAN, column, record_clock: !fixed };
    let instant: Instant = if fixed { |_| 30_000 } else { |own| own };
    for seed in 0..10 {
        for cuts in [1, 4, 15, 1000] {
            let script = script(seed, cuts, engine.is_some());
            let (ours, theirs) = ((engine.clone(), retention.clone()), (engine.clone(), retention.clone()));
            check(
                [1, 2, 4][seed as usize % 3],
                seed,
                &script,
                move |mut collections| {
                    let (commands, clock) = inputs(collections.remove(0));
                    let clock = if fixed { clock.map_in_place(|value| *value = 30_000) } else { clock };
                    let (engine, retention) = ours.clone();
                    match engine {
                        None => keyless_aging(commands, clock, retention, Rc::default(), "Aging").0,
                        Some(engine) => {
                            let spec = MergeSpec::new(vec![0], engine, DeleteBehavior::Allow);
                            let spec = MergeSpec { retention: Some(retention), ..spec };
                            merge_aging(commands, clock, spec, Rc::default(), Rc::default(), "Aging").0
                        }
                    }
                },
                move |held| expected(held, &theirs.1, theirs.0.as_ref(), instant),
            );
        }
    }
}
#[test]
fn keyed_rows_leave_by_their_column() {
    for engine in [Engine::LastRow, Engine::FirstRow, Engine::Versioned { version: 2 }] {
        check_all(Some(engine.clone()), Some(1), false);
        check_all(Some(engine), Some(1), true);
    }
}
#[test]
fn keyed_rows_leave_by_arrival() {
    for engine in [Engine::LastRow, Engine::FirstRow, Engine::Versioned { version: 2 }] {
        check_all(Some(engine.clone()), None, false);
        check_all(Some(engine), None, true);
    }
}
#[test]
fn keyless_rows_leave() {
    for column in [Some(1), None] {
        check_all(None, column, false);
        check_all(None, column, true);
    }
}

#[test]
fn what_is_too_old_on_arrival_is_counted() {
    let counters = Rc::new(MergeCounters::default());
    let retention = Retention { span: 10, column: Some(1), record_clock: false };
    let spec = MergeSpec::new(vec![0], Engine::LastRow, DeleteBehavior::Allow);
    let mut table = Table::new(&MergeSpec { retention: Some(retention), ..spec }, Rc::clone(&counters));
    let upsert = |offset: u64, row: &[i64]| Command {
        position: Position { offset, ..Position::default() },
        kind: CommandKind::Upsert,
        row: ints(&row.iter().map(|value| Some(*value)).collect::<Vec<_>>()),
    };
    let mut changes = Vec::new();
    let mut tick = |now: i64, commands: Vec<Command>| {
        table.begin_tick(Some(now));
        table.fold_tick(commands, |row, diff| changes.push((fields(&row), diff)));
        table.expire(&mut |row, diff| changes.push((fields(&row), diff)));
        std::mem::take(&mut changes)
    };
    let (old, new) = (vec![Some(1), Some(89)], vec![Some(2), Some(90)]);
    assert_eq!(tick(100, vec![upsert(1, &[1, 89]), upsert(2, &[2, 90])]), [(new.clone(), 1)]);
    assert_eq!((counters.expired.get(), old), (1, vec![Some(1), Some(89)]));
    // A clock that stands still or goes back takes nothing away.
    assert_eq!(tick(99, Vec::new()), []);
    assert_eq!(tick(101, Vec::new()), [(new, -1)]);
    assert_eq!((counters.expired.get(), tick(102, vec![upsert(3, &[2, 95])]).len()), (1, 1));
}
#[test]
fn a_key_that_comes_and_goes_takes_no_space() {
    let retention = Retention { span: 1_000_000, column: None, record_clock: false };
    let spec = MergeSpec::new(vec![0], Engine::LastRow, DeleteBehavior::Allow);
    let mut table = Table::new(&MergeSpec { retention: Some(retention), ..spec }, Rc::default());
    for now in 0..1000 {
        let command = |kind, offset| Command {
            position: Position { offset, ..Position::default() },
            kind,
            row: ints(&[Some(1), Some(now)]),
        };
        table.begin_tick(Some(now / 100));
        table.fold_tick(vec![command(CommandKind::Upsert, 1)], |_, _| {});
        table.fold_tick(vec![command(CommandKind::Retract, 2)], |_, _| {});
    }
    assert!(table.scheduled() < 40, "{}", table.scheduled());
}
