//! The host with small dataflows: ticks, reads, feeds, what is dropped, what panics.

use timely::dataflow::StreamVec;

use super::*;

use crate::arrange::collection;
use crate::arrange::{arrange, as_rows};
use crate::row::Datum;

fn row(values: &[i64]) -> Row {
    Row::pack(values.iter().map(|v| Datum::Int(*v)))
}
fn updates(rows: &[(i64, Diff)]) -> InputBatch {
    InputBatch::Updates(rows.iter().map(|(v, d)| (row(&[*v]), *d)).collect())
}
/// Input 1, arranged by its row under the name "t".
fn table() -> Arc<BuildFn> {
    Arc::new(|build: &mut Build<'_, '_>| {
        let rows = build.updates(1);
        let arranged = arrange(rows.map(|row| (row, Row::default())), "t");
        build.export("t", &arranged);
    })
}
fn contents(host: &Host, trace: &str) -> Vec<(Row, Diff)> {
    let mut rows = Vec::new();
    host.read(trace, host.complete(), |chunk| rows.extend(chunk.into_iter().map(|(k, _, d)| (k, d)))).expect("a read");
    rows.sort();
    rows
}

#[test]
fn dataflows_share_traces_and_are_dropped_while_others_run() {
    for workers in [1, 2, 4] {
        let mut host = Host::start(workers).expect("a host");
        host.install("base", table());
        host.tick(vec![vec![(1, updates(&[(1, 1), (2, 1)]))]]);
        host.install(
            "copy",
            Arc::new(|build: &mut Build<'_, '_>| {
                let rows = as_rows(build.import("t"), |key, _| Row::from_bytes(key));
                let arranged = arrange(rows.map(|row| (row, Row::default())), "u");
                build.export("u", &arranged);
            }),
        );
        let tick = host.tick(vec![vec![(1, updates(&[(2, -1), (3, 2)]))]]);
        host.wait_complete(tick).expect("complete");
        let expected = vec![(row(&[1]), 1), (row(&[3]), 2)];
        assert_eq!(contents(&host, "t"), expected);
        assert_eq!(contents(&host, "u"), expected);
        host.drop_dataflow("copy");
        let tick = host.tick(vec![vec![(1, updates(&[(3, -2)]))]]);
        host.wait_complete(tick).expect("complete");
        assert_eq!(contents(&host, "t"), vec![(row(&[1]), 1)]);
        assert_eq!(contents(&host, "u"), vec![]);
        host.stop().expect("a clean stop");
    }
}

#[test]
fn a_later_dataflow_feeds_a_table_of_an_earlier_one() {
    use crate::command::{CommandKind, Position};
    use timely::dataflow::operators::vec::Map;
    for workers in [1, 2] {
        let mut host = Host::start(workers).expect("a host");
        host.install("base", table());
        host.install(
            "target",
            Arc::new(|build: &mut Build<'_, '_>| {
                let commands = build.fed("v");
                let rows = collection(commands.map_in_time());
                let arranged = arrange(rows.map(|row| (row, Row::default())), "v");
                build.export("v", &arranged);
            }),
        );
        host.tick(vec![vec![(1, updates(&[(1, 1)]))]]);
        host.install(
            "insert",
            Arc::new(|build: &mut Build<'_, '_>| {
                let rows = as_rows(build.import("t"), |key, _| Row::from_bytes(key));
                let command = |(row, _, _)| Command { position: Position::default(), kind: CommandKind::Upsert, row };
                build.feed("v", rows.inner.map(command));
            }),
        );
        let tick = host.tick(vec![vec![(1, updates(&[(2, 1)]))]]);
        host.wait_complete(tick).expect("complete");
        assert_eq!(contents(&host, "v"), vec![(row(&[1]), 1), (row(&[2]), 1)]);
    }
}

#[test]
fn an_alarm_is_an_error_of_the_run_and_the_threads_end() {
    let mut host = Host::start(2).expect("a host");
    host.install(
        "limited",
        Arc::new(|build: &mut Build<'_, '_>| {
            let alarm = build.alarm();
            let rows = build.updates(1).map(move |row| {
                alarm.limit("too many".into(), "have fewer".into());
                row
            });
            build.watch(rows.inner);
        }),
    );
    let tick = host.tick(vec![vec![(1, updates(&[(1, 1)]))]]);
    while host.complete() < tick {
        std::thread::yield_now();
    }
    let error = host.wait_complete(tick).expect_err("a failure");
    assert!(matches!(&error, HostError::Limit { help, .. } if help == "have fewer"), "{error:?}");
    assert_eq!(host.stop().expect_err("the same").to_string(), "too many");
}

#[test]
fn a_panic_of_a_worker_is_an_error_of_the_run() {
    let mut host = Host::start(2).expect("a host");
    host.install(
        "bad",
        Arc::new(|build: &mut Build<'_, '_>| {
            let rows = build.updates(1).map(|row| if row.len() > 1 { panic!("seven") } else { row });
            build.watch(rows.inner);
        }),
    );
    let tick = host.tick(vec![vec![(1, updates(&[(700, 1)]))]]);
    let error = host.wait_complete(tick).expect_err("a failure");
    assert_eq!(error.to_string(), "a worker thread failed: seven");
}

trait MapInTime<'s> {
    fn map_in_time(self) -> StreamVec<'s, Time, (Row, Time, Diff)>;
}
impl<'s> MapInTime<'s> for StreamVec<'s, Time, Command> {
    fn map_in_time(self) -> StreamVec<'s, Time, (Row, Time, Diff)> {
        use timely::dataflow::channels::pact::Pipeline;
        use timely::dataflow::operators::generic::Operator;
        self.unary(Pipeline, "Timed", |_, _| {
            |input, output| {
                input.for_each(|capability, data| {
                    let time = *capability.time();
                    output.session(&capability).give_iterator(data.drain(..).map(|c| (c.row, time, 1)));
                });
            }
        })
    }
}
