//! Renders tables: commands folded by a merge engine into rows.

use std::rc::Rc;
use std::sync::Arc;

use deltaworks_dataflow::arrange::collection;
use deltaworks_dataflow::row::{is_null_field, nth_field};
use deltaworks_dataflow::{Collection, Command, CommandKind, Datum, Diff, Row, Schema, Time};
use deltaworks_operators::letters::{Letters, count, letters};
use deltaworks_operators::merge::{MergeCounters, MergeSpec, Rejected, keyless, merge_aging, merge_with};
use deltaworks_operators::retention::{Retention, keyless_aging};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use super::Renderer;
use crate::expr::{Evaluator, ScalarExpr};

/// How rows that never entered a table are reported.
pub const EXPIRED: &str = "rows older than the retention when they arrived";

/// A table as the renderer needs it. Plain data.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Qualified name.
    pub name: String,
    /// All columns, computed ones included.
    pub schema: Schema,
    /// How commands fold; None for a table without a key.
    pub merge: Option<MergeSpec>,
    /// Where every column is computed over the columns that a source delivers; None where a source delivers all.
    pub computed: Option<Vec<ScalarExpr>>,
    /// The column that numbers the keys, which are all other columns; None in most tables.
    pub number: Option<usize>,
    /// How long rows of a table without a key are kept; of one with a key `merge` says so. None: until they are deleted.
    pub retention: Option<Retention>,
    /// The input on which statements and sources send commands.
    pub input: u32,
    /// The input on which updates of the dead-letter table come.
    pub errors_input: u32,
    /// How long dead letters are kept.
    pub letters: Letters,
    /// Whether anything reads the dead letters: only then are they held.
    pub letters_read: bool,
}

impl TableSpec {
    /// The name under which later dataflows feed the table: a table that is dropped and made anew is another one.
    pub fn feed(&self) -> String {
        format!("{}#{}", self.name, self.input)
    }
}

/// Takes out upserts that have NULL where the table may not. Sources and statements have checked theirs.
fn not_null<'s>(
    commands: StreamVec<'s, Time, Command>,
    spec: &TableSpec,
) -> (StreamVec<'s, Time, Command>, StreamVec<'s, Time, Rejected>) {
    let filled = |column: &usize| !spec.schema.columns[*column].nullable && spec.number != Some(*column);
    let required: Vec<usize> = (0..spec.schema.len()).filter(filled).collect();
    let breaks = move |command: &Command| {
        command.kind == CommandKind::Upsert && required.iter().any(|c| is_null_field(nth_field(&command.row, *c)))
    };
    let broken = breaks.clone();
    let rejected = commands.clone().flat_map(move |command| {
        broken(&command).then_some((command, "NULL in a column that is NOT NULL or part of the key"))
    });
    (commands.flat_map(move |command| (!breaks(&command)).then_some(command)), rejected)
}

impl<'s> Renderer<'_, '_, 's> {
    /// Renders a table fed by its input, by later dataflows, and by the inserts of this one, and defines it and its dead
    /// letters. Returns nothing: [`define`](Self::define) makes it readable.
    pub fn table(&mut self, spec: &TableSpec, inserts: Vec<StreamVec<'s, Time, Command>>) {
        let mut commands = self.build.commands(spec.input);
        if let Some(computed) = &spec.computed {
            commands = self.compute(commands, computed.clone(), &spec.schema);
        }
        let fed = self.build.fed(&spec.feed());
        let inserted = inserts.into_iter().fold(fed, |all, insert| all.concat(insert));
        let (inserted, broken) = not_null(inserted, spec);
        let all = commands.concat(inserted);
        let counters = Rc::new(MergeCounters::default());
        let shown = Rc::clone(&counters);
        self.build.observe(&format!("{} table", spec.name), move || counter_lines(&shown));
        let name = format!("Merge: {}", spec.name);
        let merges = self.build.shared(&spec.feed());
        let (rows, rejected) = match (&spec.merge, &spec.retention, spec.number) {
            (_, _, Some(place)) => self.numbered(all, place, counters, &name),
            (Some(merge_spec), _, _) if merge_spec.retention.is_some() => {
                let clock = self.clock();
                merge_aging(all, clock, merge_spec.clone(), counters, merges, &name)
            }
            (Some(merge_spec), _, _) => merge_with(all, merge_spec.clone(), counters, merges, &name),
            (None, Some(retention), _) => {
                let clock = self.clock();
                keyless_aging(all, clock, retention.clone(), counters, &name)
            }
            (None, None, _) => keyless(all),
        };
        self.define(&spec.name, rows);
        let letters = self.dead_letters(spec, rejected.concat(broken));
        self.define(&format!("{}$errors", spec.name), letters);
    }
    /// The computed columns of upserts and retractions; a delete holds only key columns, which a source delivers.
    fn compute(
        &mut self,
        commands: StreamVec<'s, Time, Command>,
        computed: Vec<ScalarExpr>,
        schema: &Schema,
    ) -> StreamVec<'s, Time, Command> {
        let name = |index: usize| {
            let place = computed.iter().position(|expression| expression.as_column() == Some(index));
            place.map_or_else(|| format!("#{index}"), |place| schema.columns[place].name.clone())
        };
        let mut evaluator = Evaluator::with_names(computed.clone(), Rc::clone(&self.errors), &name);
        let mut scratch = Vec::new();
        commands.map(move |command| {
            if command.kind == CommandKind::Delete {
                return command;
            }
            scratch.clear();
            evaluator.eval_row(&command.row, &mut scratch);
            Command { row: Row::from_bytes(&scratch), ..command }
        })
    }
    /// What sources and this table's merge engine rejected.
    fn dead_letters(&mut self, spec: &TableSpec, rejected: StreamVec<'s, Time, Rejected>) -> Collection<'s> {
        use timely::container::CapacityContainerBuilder;
        use timely::dataflow::channels::pact::Pipeline;
        use timely::dataflow::operators::generic::Operator;
        let (source, counts) = (spec.name.clone(), Arc::clone(&spec.letters.counts));
        let own = rejected.unary::<CapacityContainerBuilder<Vec<(Row, Time, Diff)>>, _, _, _>(
            Pipeline,
            "Rejected",
            move |_, _| {
                move |input, output| {
                    input.for_each(|capability, data| {
                        let time = *capability.time();
                        count(&counts.rejected, data.len() as u64);
                        let letter = |(command, reason)| (letter(&source, &command, reason), time, 1);
                        output.session(&capability).give_iterator(data.drain(..).map(letter));
                    });
                }
            },
        );
        let all = self.build.updates(spec.errors_input).concat(collection(own));
        if !spec.letters_read {
            return all;
        }
        let (clock, name) = (self.clock(), format!("Letters: {}", spec.name));
        letters(all, clock, spec.letters.clone(), LETTER_COLUMNS, &name)
    }
}

/// The columns of a dead-letter table.
const LETTER_COLUMNS: usize = 9;

/// A rejected command as a row of the dead-letter table, which notes itself when it came. Statements have no timestamp.
fn letter(source: &str, command: &Command, reason: &str) -> Row {
    let position = command.position;
    let timestamp = (position.timestamp > 0).then(|| position.timestamp.saturating_mul(1000));
    Row::pack([
        Datum::str(source),
        Datum::Int(position.partition.into()),
        Datum::Int(i64::try_from(position.offset).unwrap_or(i64::MAX)),
        timestamp.map_or(Datum::Null, Datum::Int),
        Datum::Null,
        Datum::Bytes(command.row.to_vec().into()),
        Datum::Null,
        Datum::str(reason),
        Datum::Null,
    ])
}
fn counter_lines(counters: &MergeCounters) -> Vec<(String, Diff, Vec<String>)> {
    let line = |what: &str, count: u64| (what.to_string(), i64::try_from(count).unwrap_or(i64::MAX), Vec::new());
    vec![
        line("deletes ignored", counters.ignored_deletes.get()),
        line("rows ignored", counters.ignored_rows.get()),
        line("keys seen from two partitions", counters.mixed_partitions.get()),
        line("source rows of a MERGE behind another of the same key and tick", counters.merged_again.get()),
        line(EXPIRED, counters.expired.get()),
    ]
}
