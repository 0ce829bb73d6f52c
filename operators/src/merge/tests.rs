//! Merge engines against naive folds of everything that arrived.

use super::*;
use crate::testing::{Change, Multiset, Random, Script, add as add_row, check, fields, ints, run};
use deltaworks_dataflow::{DataType, Datum, KeyedCollection, Position};
use std::collections::BTreeMap;
use timely::dataflow::operators::generic::operator::Operator;

/// A decoded row of integers: key, then three columns.
type Fields = Vec<Option<i64>>;

/// Random commands over few keys and values from three partitions. The key of a change holds tick, position and kind.
fn commands(seed: u64, key: &[usize], kinds: &[CommandKind]) -> Script {
    let mut random = Random::new(seed);
    let mut script = Script { inputs: 1, ticks: 12, changes: Vec::new() };
    let mut offset = 0;
    for tick in 0..script.ticks {
        for _ in 0..random.below(12) {
            offset += 1;
            let (timestamp, partition) = (random.below(3) as i64, random.below(3) as i64);
            let kind = if random.once_in(4) { random.below(kinds.len() as u64) } else { 0 };
            let mut row: Fields =
                (0..4).map(|_| if random.once_in(4) { None } else { Some(random.below(4) as i64) }).collect();
            for column in key {
                row[*column] = Some(random.below(3) as i64);
            }
            if kinds[kind as usize] == CommandKind::Delete {
                row = key.iter().map(|column| row[*column]).collect();
            }
            let position = [tick as i64, timestamp, partition, offset, kind as i64].map(Some);
            script.changes.push(Change { input: 0, row: (ints(&position), ints(&row)), time: tick, diff: 1 });
        }
    }
    script
}
fn decode(row: &(Row, Row), kinds: &[CommandKind]) -> (Option<i64>, Command) {
    let position = fields(&row.0);
    let number = |index: usize| position[index].unwrap();
    let kind = kinds[number(4) as usize];
    let position = Position { timestamp: number(1), source: 0, partition: number(2) as u32, offset: number(3) as u64 };
    (Some(number(0)), Command { position, kind, row: row.1.clone() })
}
/// The commands as a stream, each at its tick.
fn as_commands<'s>(input: KeyedCollection<'s>, kinds: &'static [CommandKind]) -> StreamVec<'s, Time, Command> {
    input.inner.unary(Pipeline, "AsCommands", move |_, _| {
        move |input, output| {
            input.for_each(|capability, updates| {
                for (row, time, _) in updates.drain(..) {
                    output.session(&capability.delayed(&time, 0)).give(decode(&row, kinds).1);
                }
            });
        }
    })
}

const ALL: &[CommandKind] = &[CommandKind::Upsert, CommandKind::Delete, CommandKind::Retract];

/// A naive engine: the row, or its state, after a command.
type Reference = fn(Option<Fields>, CommandKind, Fields) -> Option<Fields>;

fn expected(
    held: &[Multiset<(Row, Row)>],
    spec: &MergeSpec,
    fold: Reference,
    show: fn(&Fields) -> Option<Fields>,
) -> Multiset<Row> {
    let mut commands: Vec<(Option<i64>, Command)> = held[0].keys().map(|row| decode(row, ALL)).collect();
    commands.sort_by_key(|(tick, command)| (*tick, command.position));
    let mut table: BTreeMap<Fields, Fields> = BTreeMap::new();
    for (_, command) in commands {
        let row = fields(&command.row);
        let key = if command.kind == CommandKind::Delete { row.clone() } else { spec.key.iter().map(|c| row[*c]).collect() };
        let is_delete = command.kind != CommandKind::Upsert;
        let subtracts = matches!(spec.engine, Engine::Aggregation(_)) && command.kind == CommandKind::Retract;
        if is_delete && !subtracts && spec.delete != DeleteBehavior::Allow {
            continue;
        }
        match fold(table.remove(&key), command.kind, row) {
            Some(row) => table.insert(key, row),
            None => None,
        };
    }
    let mut rows = Multiset::new();
    table.values().filter_map(show).for_each(|row| add_row(&mut rows, ints(&row), 1));
    rows
}

fn check_engine(spec: MergeSpec, fold: Reference, show: fn(&Fields) -> Option<Fields>) {
    for seed in 0..12 {
        let workers = [1, 1, 2, 4][seed as usize % 4];
        let script = commands(seed, &spec.key, ALL);
        let (ours, theirs) = (spec.clone(), spec.clone());
        check(
            workers,
            seed,
            &script,
            move |mut inputs| merge(as_commands(inputs.remove(0), ALL), ours.clone(), Rc::default(), "Merge").0,
            move |held| expected(held, &theirs, fold, show),
        );
    }
}
fn check_keys(engine: Engine, delete: DeleteBehavior, fold: Reference) {
    for key in [vec![0], vec![1, 2], vec![3, 0]] {
        check_engine(MergeSpec::new(key, engine.clone(), delete), fold, |row| Some(row.clone()));
    }
}

#[test]
fn last_row_is_the_last() {
    check_keys(Engine::LastRow, DeleteBehavior::Allow, |_, kind, row| (kind == CommandKind::Upsert).then_some(row));
}

fn first(old: Option<Fields>, kind: CommandKind, row: Fields) -> Option<Fields> {
    if kind == CommandKind::Upsert { old.or(Some(row)) } else { None }
}
#[test]
fn first_row_is_the_first() {
    check_keys(Engine::FirstRow, DeleteBehavior::Ignore, first);
    check_keys(Engine::FirstRow, DeleteBehavior::Disable, first);
    check_keys(Engine::FirstRow, DeleteBehavior::Allow, first);
    let full = MergeSpec { keys_only: false, ..MergeSpec::new(vec![0], Engine::FirstRow, DeleteBehavior::Ignore) };
    check_engine(full, first, |row| Some(row.clone()));
}
#[test]
fn first_row_by_a_column_is_the_earliest() {
    fn earliest(old: Option<Fields>, kind: CommandKind, row: Fields) -> Option<Fields> {
        let order =
            |row: &Fields| (row[2].unwrap_or(i64::MAX), row.iter().map(|v| v.unwrap_or(i64::MAX)).collect::<Vec<_>>());
        match old {
            _ if kind != CommandKind::Upsert => None,
            Some(old) if order(&old) <= order(&row) => Some(old),
            _ => Some(row),
        }
    }
    for delete in [DeleteBehavior::Allow, DeleteBehavior::Ignore] {
        check_engine(MergeSpec::new(vec![0], Engine::FirstRowBy { order: 2 }, delete), earliest, |row| Some(row.clone()));
    }
}
#[test]
fn versioned_keeps_the_largest_version() {
    fn newest(old: Option<Fields>, kind: CommandKind, row: Fields) -> Option<Fields> {
        match (old, kind) {
            (old, CommandKind::Merge) => old,
            (_, CommandKind::Delete) | (None, CommandKind::Retract) => None,
            (Some(old), _) if row[2] < old[2] => Some(old),
            (_, CommandKind::Retract) => None,
            (_, CommandKind::Upsert) => Some(row),
        }
    }
    check_engine(MergeSpec::new(vec![0], Engine::Versioned { version: 2 }, DeleteBehavior::Allow), newest, |row| {
        Some(row.clone())
    });
}
#[test]
fn partial_update_keeps_what_is_not_given() {
    check_keys(Engine::PartialUpdate, DeleteBehavior::Allow, |old, kind, row| match (old, kind) {
        (Some(old), CommandKind::Upsert) => Some(row.iter().zip(old).map(|(new, old)| new.or(old)).collect()),
        (None, CommandKind::Upsert) => Some(row),
        _ => None,
    });
}

fn aggregation(aggregates: [ColumnAggregate; 3]) -> Engine {
    let column = |aggregate| AggregatedColumn { aggregate, data_type: DataType::BigInt };
    Engine::Aggregation([ColumnAggregate::Key].into_iter().chain(aggregates).map(column).collect())
}
#[test]
fn aggregation_subtracts() {
    // The state: key, rows, and per column sum and count.
    fn fold(old: Option<Fields>, kind: CommandKind, row: Fields) -> Option<Fields> {
        if kind == CommandKind::Delete {
            return None;
        }
        let diff = if kind == CommandKind::Upsert { 1 } else { -1 };
        let mut state = old.unwrap_or_else(|| vec![row[0], Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0)]);
        let add = |slot: &mut Option<i64>, value: i64| *slot = slot.map(|old| old + diff * value);
        add(&mut state[1], 1);
        for column in 0..3 {
            if let Some(value) = row[column + 1] {
                add(&mut state[2 + 2 * column], value);
                add(&mut state[3 + 2 * column], 1);
            }
        }
        Some(state)
    }
    fn show(state: &Fields) -> Option<Fields> {
        let value = |index: usize| state[index].unwrap();
        let (sum, average) = (
            (value(3) != 0).then_some(value(2)),
            (value(7) != 0).then(|| (value(6) as f64 / value(7) as f64).round() as i64),
        );
        (value(1) > 0).then(|| vec![state[0], sum, state[5], average])
    }
    let engine = aggregation([ColumnAggregate::Sum, ColumnAggregate::Count, ColumnAggregate::Avg]);
    check_engine(MergeSpec::new(vec![0], engine.clone(), DeleteBehavior::Allow), fold, show);
    check_engine(MergeSpec::new(vec![0], engine, DeleteBehavior::Ignore), fold, show);
}
#[test]
fn aggregation_chooses() {
    fn fold(old: Option<Fields>, kind: CommandKind, row: Fields) -> Option<Fields> {
        match (old, kind) {
            (old, CommandKind::Retract) => old,
            (_, CommandKind::Delete) => None,
            (None, _) => Some(row),
            (Some(old), _) => {
                let least = |a: Option<i64>, b: Option<i64>| [a, b].into_iter().flatten().min();
                Some(vec![old[0], least(old[1], row[1]), old[2].max(row[2]), row[3].or(old[3])])
            }
        }
    }
    let engine = aggregation([ColumnAggregate::Min, ColumnAggregate::Max, ColumnAggregate::LastNonNull]);
    check_engine(MergeSpec::new(vec![0], engine, DeleteBehavior::Allow), fold, |row| Some(row.clone()));
    let first = |old: Option<Fields>, kind: CommandKind, row: Fields| match (old, kind) {
        (old, CommandKind::Retract) => old,
        (_, CommandKind::Delete) => None,
        (None, _) => Some(row),
        (Some(old), _) => Some(vec![old[0], old[1], old[2].or(row[2]), row[3]]),
    };
    let engine = aggregation([ColumnAggregate::First, ColumnAggregate::FirstNonNull, ColumnAggregate::Last]);
    check_engine(MergeSpec::new(vec![0], engine, DeleteBehavior::Allow), first, |row| Some(row.clone()));
}

/// The number v stands for the bitmap {v, 70000 v}, whose ids may lie in two chunks, and 3 for the empty one.
#[test]
fn aggregation_unites_bitmaps() {
    let members = |v: i64| if v == 3 { vec![] } else { vec![v as u64, 70_000 * v as u64] };
    let column = |aggregate, data_type| AggregatedColumn { aggregate, data_type };
    let columns = vec![column(ColumnAggregate::Key, DataType::BigInt), column(ColumnAggregate::Bitmap, DataType::Bitmap)];
    let spec = MergeSpec::new(vec![0], Engine::Aggregation(columns), DeleteBehavior::Allow);
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut table = Table::new(&spec, Rc::default());
        let mut united: BTreeMap<i64, Option<std::collections::BTreeSet<u64>>> = BTreeMap::new();
        let mut shown = Multiset::new();
        for offset in 0..60 {
            let key = random.below(3) as i64;
            let value = if random.once_in(4) { None } else { Some(random.below(4) as i64) };
            let bitmap = value.map_or(Datum::Null, |v| deltaworks_dataflow::bitmap::from_members(members(v)));
            let delete = random.once_in(10);
            let (kind, row) = match delete {
                true => (CommandKind::Delete, Row::pack([Datum::Int(key)])),
                false => (CommandKind::Upsert, Row::pack([Datum::Int(key), bitmap])),
            };
            let position = Position { offset, ..Position::default() };
            table.fold_tick(vec![Command { position, kind, row }], |row, diff| add_row(&mut shown, row, diff));
            match (delete, value) {
                (true, _) => drop(united.remove(&key)),
                (false, None) => drop(united.entry(key).or_default()),
                (false, Some(v)) => united.entry(key).or_default().get_or_insert_default().extend(members(v)),
            }
            let mut expected = Multiset::new();
            for (key, ids) in &united {
                let ids = ids.clone().map_or(Datum::Null, deltaworks_dataflow::bitmap::from_members);
                add_row(&mut expected, Row::pack([Datum::Int(*key), ids]), 1);
            }
            assert_eq!(shown, expected, "seed {seed}, command {offset}");
        }
    }
}
#[test]
fn a_bitmap_that_is_taken_back_is_rejected() {
    let columns = [(ColumnAggregate::Key, DataType::BigInt), (ColumnAggregate::Bitmap, DataType::Bitmap)];
    let columns = columns.map(|(aggregate, data_type)| AggregatedColumn { aggregate, data_type }).to_vec();
    let mut table =
        Table::new(&MergeSpec::new(vec![0], Engine::Aggregation(columns), DeleteBehavior::Ignore), Rc::default());
    let row = Row::pack([Datum::Int(7), deltaworks_dataflow::bitmap::from_members([1])]);
    let command = |offset, kind| Command { position: Position { offset, ..Position::default() }, kind, row: row.clone() };
    let mut changes = 0;
    table.fold_tick(vec![command(0, CommandKind::Upsert), command(1, CommandKind::Retract)], |_, _| changes += 1);
    assert_eq!((changes, table.take_rejected().count()), (1, 1));
}

fn upsert(partition: u32, offset: u64, row: &[i64]) -> Command {
    let row: Fields = row.iter().map(|value| Some(*value)).collect();
    let position = Position { timestamp: 0, source: 0, partition, offset };
    Command { position, kind: CommandKind::Upsert, row: ints(&row) }
}
fn fold(table: &mut Table, commands: Vec<Command>) -> Vec<(Fields, i64)> {
    let mut changes = Vec::new();
    table.fold_tick(commands, |row, diff| changes.push((fields(&row), diff)));
    changes
}

#[test]
fn one_change_per_key_and_tick() {
    let counters = Rc::new(MergeCounters::default());
    let spec = MergeSpec::new(vec![0], Engine::LastRow, DeleteBehavior::Allow);
    let mut table = Table::new(&spec, counters.clone());
    // The later partition's command arrives first.
    let changes = fold(&mut table, vec![upsert(1, 0, &[7, 1]), upsert(0, 0, &[7, 2]), upsert(0, 1, &[7, 3])]);
    assert_eq!(changes, [(vec![Some(7), Some(1)], 1)]);
    assert_eq!(counters.mixed_partitions.get(), 1);
    let delete = Command { kind: CommandKind::Delete, ..upsert(0, 2, &[7]) };
    assert_eq!(fold(&mut table, vec![delete.clone(), upsert(0, 3, &[7, 1])]), []);
    assert_eq!(
        fold(&mut table, vec![upsert(0, 4, &[7, 5]), delete]),
        [(vec![Some(7), Some(1)], -1), (vec![Some(7), Some(5)], 1)]
    );
    // Commands of one record keep their order: first the old image, then the new one.
    let retract = Command { kind: CommandKind::Retract, ..upsert(0, 9, &[7, 5]) };
    let changes = fold(&mut table, vec![upsert(0, 11, &[8, 0]), retract, upsert(0, 9, &[7, 6])]);
    assert_eq!(changes.len(), 3);
    assert!(changes.contains(&(vec![Some(7), Some(6)], 1)));
}

#[test]
fn where_ticks_end_does_not_matter() {
    let engines = [
        Engine::LastRow,
        Engine::FirstRow,
        Engine::FirstRowBy { order: 1 },
        Engine::Versioned { version: 2 },
        Engine::PartialUpdate,
    ];
    for (seed, engine) in (0..).zip(engines.into_iter().cycle().take(50)) {
        let spec = MergeSpec::new(vec![0], engine, DeleteBehavior::Allow);
        let script = commands(seed, &spec.key, ALL);
        let commands: Vec<Command> = script.changes.iter().map(|change| decode(&change.row, ALL).1).collect();
        let commands: Vec<Command> = (0..)
            .zip(commands)
            .map(|(offset, command)| Command { position: Position { offset, ..Position::default() }, ..command })
            .collect();
        let mut random = Random::new(seed + 1000);
        let (mut once, mut often) = (Table::new(&spec, Rc::default()), Table::new(&spec, Rc::default()));
        let (mut whole, mut cut) = (Multiset::new(), Multiset::new());
        once.fold_tick(commands.clone(), |row, diff| add_row(&mut whole, row, diff));
        let mut rest = &commands[..];
        while !rest.is_empty() {
            let (mut tick, after) = {
                let (a, b) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
                (a.to_vec(), b)
            };
            tick.reverse();
            often.fold_tick(tick, |row, diff| add_row(&mut cut, row, diff));
            rest = after;
        }
        assert_eq!(whole, cut, "seed {seed}");
    }
}

#[test]
fn what_is_not_applied_is_counted_or_rejected() {
    let counters = Rc::new(MergeCounters::default());
    let delete = Command { kind: CommandKind::Delete, ..upsert(0, 1, &[7]) };
    let mut ignoring = Table::new(&MergeSpec::new(vec![0], Engine::FirstRow, DeleteBehavior::Ignore), counters.clone());
    fold(&mut ignoring, vec![upsert(0, 0, &[7, 1]), delete.clone(), upsert(0, 2, &[7, 2])]);
    assert_eq!((counters.ignored_deletes.get(), counters.ignored_rows.get()), (1, 1));
    let mut refusing = Table::new(&MergeSpec::new(vec![0], Engine::LastRow, DeleteBehavior::Disable), counters.clone());
    fold(&mut refusing, vec![upsert(0, 0, &[7, 1]), delete.clone()]);
    let rejected: Vec<Rejected> = refusing.take_rejected().collect();
    assert_eq!(rejected.into_iter().map(|rejected| rejected.0).collect::<Vec<_>>(), [delete]);
    let retract = Command { kind: CommandKind::Retract, ..upsert(0, 9, &[7, 1, 1, 1]) };
    let maxima = aggregation([ColumnAggregate::Max; 3]);
    let mut maxima = Table::new(&MergeSpec::new(vec![0], maxima, DeleteBehavior::Ignore), counters.clone());
    assert_eq!(fold(&mut maxima, vec![upsert(0, 0, &[7, 1, 1, 1]), retract]).len(), 1);
    assert_eq!(maxima.take_rejected().count(), 1);
    assert_eq!(counters.rejected.get(), 2);
}

#[test]
fn float_sums_return() {
    let float = |aggregate| AggregatedColumn { aggregate, data_type: DataType::Double };
    let columns = vec![float(ColumnAggregate::Key), float(ColumnAggregate::Sum), float(ColumnAggregate::Avg)];
    let mut table =
        Table::new(&MergeSpec::new(vec![0], Engine::Aggregation(columns), DeleteBehavior::Ignore), Rc::default());
    let row = |value: f64| Row::pack([Datum::Float(1.0), Datum::Float(value), Datum::Float(value)]);
    let mut shown = Vec::new();
    for (offset, (value, kind)) in [
        (0.1, CommandKind::Upsert),
        (1e300, CommandKind::Upsert),
        (f64::NAN, CommandKind::Upsert),
        (f64::NAN, CommandKind::Retract),
        (1e300, CommandKind::Retract),
    ]
    .into_iter()
    .enumerate()
    {
        let position = Position { offset: offset as u64, ..Position::default() };
        table.fold_tick(vec![Command { position, kind, row: row(value) }], |row, diff| shown.push((row, diff)));
    }
    assert_eq!(shown.last(), Some(&(row(0.1), 1)));
}

#[test]
fn keys_of_one_hash_are_told_apart() {
    // Sorting by hash alone leaves the keys mixed; the order of folding is then made by key.
    let table = Table::new(&MergeSpec::new(vec![0], Engine::LastRow, DeleteBehavior::Allow), Rc::default());
    let commands: Vec<Command> =
        [1, 2, 1, 2, 1].iter().zip(0..).map(|(key, offset)| upsert(0, offset, &[*key, 0])).collect();
    let mut order: Vec<(u64, u32)> = (0..5).map(|index| (9, index)).collect();
    table.separate_keys(&commands, &mut order);
    assert_eq!(order.iter().map(|member| member.1).collect::<Vec<_>>(), [0, 2, 4, 1, 3]);
}

#[test]
fn keyless_tables_insert_and_take_back() {
    for seed in 0..10 {
        let script = commands(seed, &[0], ALL);
        let workers = [1, 2][seed as usize % 2];
        check(
            workers,
            seed,
            &script,
            |mut inputs| keyless(as_commands(inputs.remove(0), ALL)).0,
            |held| {
                let mut rows = Multiset::new();
                for row in held[0].keys() {
                    match decode(row, ALL).1.kind {
                        CommandKind::Upsert => add_row(&mut rows, row.1.clone(), 1),
                        CommandKind::Merge => {}
                        CommandKind::Retract => add_row(&mut rows, row.1.clone(), -1),
                        CommandKind::Delete => {}
                    }
                }
                rows
            },
        );
        let rejected =
            run(workers, seed, &script, |mut inputs| rejected_rows(keyless(as_commands(inputs.remove(0), ALL)).1));
        let deletes = script.changes.iter().filter(|change| decode(&change.row, ALL).1.kind == CommandKind::Delete).count();
        assert_eq!(rejected.len(), deletes);
    }
}
fn rejected_rows<'s>(rejected: StreamVec<'s, Time, Rejected>) -> Collection<'s> {
    let rows = rejected.unary(Pipeline, "RejectedRows", |_, _| {
        |input, output| {
            input.for_each(|capability, data| {
                let time = *capability.time();
                output
                    .session(&capability)
                    .give_iterator(data.drain(..).map(|rejected: Rejected| (rejected.0.row, time, 1)));
            });
        }
    });
    rows.as_collection()
}
