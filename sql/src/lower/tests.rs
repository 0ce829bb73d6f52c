//! Plans of queries over empty tables, as EXPLAIN shows them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, ViewTable};
use deltaworks_dataflow::{Column, Schema};

use super::{JoinStrategy, Lowered, PlanSettings, TableFacts, TableInfo, lower_query};
use crate::error::SqlError;
use crate::explain::{ExplainRow, explain};
use crate::optimize::unique_keys;
use crate::parser::{Body, LOOKUP_SUFFIX, Name, Statement, parse_script, rewrite, substitute};
use crate::plan::{JoinKind, Node, Plan};
use crate::session::Session;

/// The rewriting of a deep plan needs more stack than a test's thread has in an unoptimised build.
fn with_stack<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, f).unwrap();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[derive(Default)]
struct Tables(BTreeMap<String, TableFacts>);

impl TableInfo for Tables {
    fn table(&self, name: &str) -> Option<TableFacts> {
        self.0.get(name).cloned()
    }
}

struct Catalog {
    session: Session,
    tables: Tables,
    settings: PlanSettings,
}

impl Catalog {
    fn new(script: &str) -> Catalog {
        let session = Session::new(chrono_tz::UTC).unwrap();
        let mut catalog = Catalog { session, tables: Tables::default(), settings: PlanSettings::default() };
        catalog.run(script);
        catalog
    }

    /// Runs the definitions of a script; returns what its continuous queries became.
    fn run(&mut self, script: &str) -> Vec<(String, Result<Lowered, SqlError>)> {
        let mut lowered = Vec::new();
        for statement in parse_script(script).unwrap() {
            match statement.node {
                Statement::CreateSchema { name, .. } => self.session.create_schema(&name.to_string()).unwrap(),
                Statement::CreateTable(table) => {
                    let columns = table.schema.columns.iter().map(|column| {
                        let data_type = self.session.sql_type(column.data_type.as_ref().unwrap()).unwrap();
                        Column { name: column.name.clone(), data_type, nullable: true }
                    });
                    let schema = Schema::new(columns.collect());
                    let key = table.schema.primary_key.iter().map(|name| schema.index_of(name).unwrap()).collect();
                    self.add(&table.name, schema, key);
                }
                Statement::CreateView(view) => {
                    let plan = self.logical(&view.body).unwrap();
                    self.session.register_table(&view.name, Arc::new(ViewTable::new(plan, None))).unwrap();
                }
                Statement::CreateDynamicTable(table) => {
                    let result = self.lower(&table.body);
                    if let Ok(result) = &result {
                        let key = unique_keys(&result.plan, &self.tables).into_iter().next().unwrap_or_default();
                        self.add(&table.name, result.plan.schema.clone(), key);
                    }
                    lowered.push((table.name.to_string(), result));
                }
                Statement::Insert(insert) => {
                    let result = self.lower(&insert.body);
                    lowered.push((insert.table.to_string(), result));
                }
                _ => {}
            }
        }
        lowered
    }

    fn add(&mut self, name: &Name, mut schema: Schema, primary_key: Vec<usize>) {
        for (index, column) in schema.columns.iter_mut().enumerate() {
            column.nullable = !primary_key.contains(&index);
        }
        let table =
            || -> Arc<dyn TableProvider> { Arc::new(MemTable::try_new(Arc::new(schema.to_arrow()), vec![vec![]]).unwrap()) };
        let mut lookup = name.parts().to_vec();
        if let Some(last) = lookup.last_mut() {
            last.push_str(LOOKUP_SUFFIX);
        }
        self.session.register_table(name, table()).unwrap();
        self.session.register_table(&Name::new(lookup), table()).unwrap();
        let keyed = !primary_key.is_empty();
        let facts = TableFacts {
            name: name.to_string(),
            schema,
            primary_key,
            single_row: false,
            append_only: !keyed,
            retained: !name.object().ends_with("_stream"),
            bounded: keyed,
            arranged: keyed,
            row_estimate: None,
            in_chunks: Vec::new(),
        };
        self.tables.0.insert(name.to_string(), facts);
    }

    fn logical(&self, body: &Body) -> Result<datafusion::logical_expr::LogicalPlan, SqlError> {
        let mut query = body.query.clone();
        rewrite(&mut query)?;
        super::check_query(&query)?;
        self.session.logical_plan(&query)
    }

    fn lower(&self, body: &Body) -> Result<Lowered, SqlError> {
        let settings = PlanSettings { hints: body.hints.clone(), ..self.settings.clone() };
        let plan = self.session.optimize_for_stream(self.logical(body)?)?;
        lower_query(&plan, &self.tables, &settings)
    }

    fn query(&self, text: &str) -> Result<Lowered, SqlError> {
        match parse_script(text).unwrap().remove(0).node {
            Statement::Query(body) => self.lower(&body),
            other => panic!("no query: {other:?}"),
        }
    }

    fn rows(&self, plan: &Plan) -> Vec<ExplainRow> {
        explain(plan, &self.tables)
    }

    /// Operators with their details, indented.
    fn tree(&self, plan: &Plan) -> String {
        fn write(rows: &[ExplainRow], parent: Option<i32>, depth: usize, out: &mut String) {
            for row in rows.iter().filter(|row| row.parent == parent) {
                writeln!(out, "{:depth$}{} {}", "", row.operator, row.detail).unwrap();
                write(rows, Some(row.id), depth + 2, out);
            }
        }
        let mut out = String::new();
        write(&self.rows(plan), None, 0, &mut out);
        out
    }
}

const FIRST_TOUCH: &str = "
    CREATE TABLE event (event_id STRING, customer_id STRING, event_type STRING, campaign_id STRING, event_ts BIGINT,
        PRIMARY KEY (event_id) NOT ENFORCED);
    CREATE TABLE sale_order (order_id STRING, customer_id STRING, total_amount DECIMAL(10, 2), order_ts BIGINT,
        PRIMARY KEY (order_id) NOT ENFORCED);
    CREATE TABLE customer (customer_id STRING, email STRING, segment STRING, last_purchase_ts BIGINT,
        PRIMARY KEY (customer_id) NOT ENFORCED);
    CREATE TABLE campaign (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED);
    CREATE TABLE customer_tag (customer_id STRING, tag STRING, PRIMARY KEY (customer_id) NOT ENFORCED);
    CREATE TABLE click (customer_id STRING, page STRING, at TIMESTAMP, on_day DATE, amount INT);
    CREATE TABLE click_stream (customer_id STRING, page STRING);
    CREATE TABLE visit (visit_id STRING, customer_id STRING, at TIMESTAMP, PRIMARY KEY (visit_id) NOT ENFORCED);
";

#[track_caller]
fn check(query: &str, expected: &str) {
    let (found, warnings) = with_stack(|| {
        let catalog = Catalog::new(FIRST_TOUCH);
        let lowered = catalog.query(query).unwrap();
        validate(&lowered.plan);
        (catalog.tree(&lowered.plan), lowered.warnings)
    });
    let found = warnings.iter().fold(found, |found, warning| format!("{found}warning: {warning}\n"));
    let margin = expected.lines().find(|line| !line.trim().is_empty()).map_or(0, |l| l.len() - l.trim_start().len());
    let wanted: Vec<&str> = expected.lines().filter(|l| !l.trim().is_empty()).map(|l| &l[margin..]).collect();
    assert_eq!(found.trim_end(), wanted.join("\n"), "\n{found}");
}

#[track_caller]
fn check_error(query: &str, message: &str) -> SqlError {
    let error = with_stack(|| Catalog::new(FIRST_TOUCH).query(query).unwrap_err());
    assert_eq!(error.message, message);
    assert!(!error.help.is_empty());
    error
}

/// What every plan must satisfy: columns exist and have the types that expressions say.
#[track_caller]
fn validate(plan: &Plan) {
    plan.walk(&mut |node| {
        let inputs = node.inputs();
        let types = |plans: &[&Plan]| plans.iter().flat_map(|p| p.schema.types()).collect::<Vec<_>>();
        let over = |expression: &crate::expr::ScalarExpr, types: &[deltaworks_dataflow::DataType]| {
            assert!(!expression.any(&|e| matches!(e, crate::expr::ScalarExpr::Clock(_))), "clock in {expression}");
            assert!(
                !expression.any(&|e| match e {
                    crate::expr::ScalarExpr::Column { index, data_type } => types.get(*index) != Some(data_type),
                    _ => false,
                }),
                "{expression} over {types:?} in {node:?}"
            );
        };
        match &node.node {
            Node::Project { expressions, .. } => {
                assert_eq!(expressions.len(), node.schema.len());
                for (expression, data_type) in expressions.iter().zip(node.schema.types()) {
                    over(expression, &types(&inputs));
                    assert_eq!(expression.data_type(), data_type);
                }
            }
            Node::Filter { predicate, .. } => over(predicate, &types(&inputs)),
            Node::TemporalFilter { lower, upper, .. } => {
                lower.iter().chain(upper).for_each(|e| over(e, &types(&inputs)));
            }
            Node::Union { .. } => inputs.iter().for_each(|input| assert_eq!(input.schema.types(), node.schema.types())),
            Node::Join(join) => {
                join.left_keys.iter().for_each(|e| over(e, &join.left.schema.types()));
                join.right_keys.iter().for_each(|e| over(e, &join.right.schema.types()));
                join.residual.iter().for_each(|e| over(e, &types(&inputs)));
                let one_sided = matches!(join.kind, JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti);
                let expected = if one_sided { join.left.schema.types() } else { types(&inputs) };
                assert_eq!(node.schema.types(), expected);
                assert!(!join.reason.is_empty());
            }
            Node::DeltaJoin(join) => {
                assert_eq!(node.schema.types(), types(&inputs));
                for hop in join.paths.iter().flatten() {
                    hop.source_keys.iter().for_each(|e| over(e, &types(&inputs)));
                    hop.target_keys.iter().for_each(|e| over(e, &join.inputs[hop.input].schema.types()));
                }
            }
            Node::Lookback(lookback) => {
                assert_eq!(node.schema.types(), types(&inputs));
                let left = lookback.left_keys.iter().chain([&lookback.left_time]);
                left.for_each(|e| over(e, &lookback.left.schema.types()));
                let ties = lookback.tie_breakers.iter().map(|key| &key.expression);
                let right = lookback.right_keys.iter().chain([&lookback.right_time]).chain(ties);
                right.for_each(|e| over(e, &lookback.right.schema.types()));
            }
            Node::Aggregate(aggregate) => {
                assert_eq!(node.schema.len(), aggregate.keys.len() + aggregate.aggregates.len());
                aggregate.keys.iter().for_each(|e| over(e, &types(&inputs)));
                aggregate.aggregates.iter().flat_map(|c| c.expressions()).for_each(|e| over(e, &types(&inputs)));
            }
            Node::TopK(top_k) => {
                assert_eq!(node.schema.len(), top_k.input.schema.len() + usize::from(top_k.emit_rank));
                top_k.partition.iter().for_each(|e| over(e, &types(&inputs)));
                top_k.order.iter().for_each(|k| over(&k.expression, &types(&inputs)));
            }
            _ => {}
        }
    });
}

#[test]
fn the_first_touch_of_an_order_is_one_seek() {
    check(
        "SELECT order_id, total_amount, event_id, event_ts FROM (
            SELECT o.order_id, o.total_amount, e.event_id, e.event_ts,
                ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts, e.event_id) AS touch
            FROM sale_order AS o LEFT JOIN event AS e
                ON e.customer_id = o.customer_id AND e.event_ts BETWEEN o.order_ts - 604800000 AND o.order_ts) AS touches
         WHERE touch = 1",
        "
        project order_id, total_amount, event_id, event_ts
          lookback_join left, first by (event_ts, event_id) of customer_id = customer_id with event_ts BETWEEN order_ts - 604800000 AND order_ts
            table sale_order (order_id, customer_id, total_amount, order_ts)
            table event (event_id, customer_id, event_ts)",
    );
}

#[test]
fn a_struct_of_time_and_more_is_a_lookback() {
    check(
        "SELECT o.order_id, MIN(STRUCT(e.event_ts, e.event_id, e.event_type)) AS f FROM sale_order o JOIN event e
            ON e.customer_id = o.customer_id AND e.event_ts BETWEEN o.order_ts - 7 AND o.order_ts GROUP BY o.order_id",
        "
        project order_id, struct(event_ts, event_id, event_type) AS f
          lookback_join inner, first by (event_ts, event_id) of customer_id = customer_id with event_ts BETWEEN order_ts - 7 AND order_ts
            table sale_order (order_id, customer_id, order_ts)
            table event (event_id, customer_id, event_type, event_ts)",
    );
}

/// Whatever the directions, the order begins with the time.
#[test]
fn an_order_that_changes_direction_is_a_lookback() {
    for (order, text) in [
        ("e.event_ts, e.event_type DESC, e.event_id", "first by (event_ts, event_type DESC, event_id)"),
        ("e.event_ts DESC, e.event_id", "last by (event_ts, event_id ASC)"),
        ("e.event_ts DESC, e.event_id DESC", "last by (event_ts, event_id)"),
    ] {
        let query = format!(
            "SELECT order_id, event_id, event_type FROM (
                SELECT o.order_id, e.event_id, e.event_type, ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY {order}) AS n
                FROM sale_order AS o JOIN event AS e ON e.customer_id = o.customer_id
                    AND e.event_ts BETWEEN o.order_ts - 7 AND o.order_ts) AS t WHERE n = 1"
        );
        check(
            &query,
            &format!(
                "
        project order_id, event_id, event_type
          lookback_join inner, {text} of customer_id = customer_id with event_ts BETWEEN order_ts - 7 AND order_ts
            table sale_order (order_id, customer_id, order_ts)
            table event (event_id, customer_id, event_type, event_ts)"
            ),
        );
    }
}

/// Each value breaks ties of its own aggregate, so two of them need two seeks; MIN(time) goes along with either.
#[test]
fn arg_min_by_the_time_is_a_lookback() {
    check(
        "SELECT o.order_id, ARG_MIN(e.event_id, e.event_ts) AS id, MIN(e.event_ts) AS ts, ARG_MIN(e.event_type, e.event_ts) t
         FROM sale_order o LEFT JOIN event e
            ON e.customer_id = o.customer_id AND o.order_ts - e.event_ts <= 7 AND e.event_ts < o.order_ts GROUP BY o.order_id",
        "
        project order_id, event_id AS id, event_ts AS ts, event_type AS t
          lookback_join left, first by (event_ts, event_type) of customer_id = customer_id with event_ts BETWEEN order_ts - 7 AND order_ts - 1
            project order_id, customer_id, order_ts, event_id, event_ts
              lookback_join left, first by (event_ts, event_id) of customer_id = customer_id with event_ts BETWEEN order_ts - 7 AND order_ts - 1
                table sale_order (order_id, customer_id, order_ts)
                table event (event_id, customer_id, event_ts)
            table event (customer_id, event_type, event_ts)",
    );
}

/// The order names the event's key: no ties are left, both values come from one row, and the sides are swapped.
#[test]
fn first_values_of_one_order_are_one_lookback() {
    check(
        "SELECT o.order_id, FIRST_VALUE(e.event_id ORDER BY e.event_ts, e.event_id) AS id,
            FIRST_VALUE(e.event_type ORDER BY e.event_ts, e.event_id) AS t
         FROM event e JOIN sale_order o
            ON e.customer_id = o.customer_id AND e.event_ts >= o.order_ts - 7 AND e.event_ts <= o.order_ts
         WHERE e.event_type = 'click' GROUP BY o.order_id",
        "
        project order_id, event_id AS id, event_type AS t
          lookback_join inner, first by (event_ts, event_id) of customer_id = customer_id with event_ts BETWEEN order_ts - 7 AND order_ts
            table sale_order (order_id, customer_id, order_ts)
            filter event_type = 'click'
              table event (event_id, customer_id, event_type, event_ts)",
    );
}

#[test]
fn the_newest_event_before_is_a_lookback_without_a_first_bound() {
    check(
        "SELECT order_id, event_id FROM (SELECT o.order_id, e.event_id,
            ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts DESC, e.event_id DESC) rn
            FROM sale_order o JOIN event e ON e.customer_id = o.customer_id WHERE e.event_ts <= o.order_ts) WHERE rn = 1",
        "
        project order_id, event_id
          lookback_join inner, last by (event_ts, event_id) of customer_id = customer_id with event_ts <= order_ts
            table sale_order (order_id, customer_id, order_ts)
            table event (event_id, customer_id, event_ts)",
    );
}

#[test]
fn timestamps_and_intervals_make_a_lookback() {
    check(
        "SELECT v.visit_id, MAX(c.at) AS m FROM visit v LEFT JOIN click c ON c.customer_id = v.customer_id
            AND c.at BETWEEN v.at - INTERVAL '30' MINUTE AND v.at AND c.page = 'x' GROUP BY v.visit_id",
        "
        project visit_id, at AS m
          lookback_join left, last by (at) of customer_id = customer_id with at BETWEEN at - 1800000000 AND at
            table visit (visit_id, customer_id, at)
            project customer_id, at
              filter page = 'x'
                source click (customer_id, page, at)",
    );
}

#[test]
fn a_condition_on_the_left_side_takes_its_time_away() {
    check(
        "SELECT order_id, event_id FROM (SELECT o.order_id, e.event_id,
            ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts, e.event_id) rn
            FROM sale_order o LEFT JOIN event e ON e.customer_id = o.customer_id
                AND e.event_ts BETWEEN o.order_ts - 7 AND o.order_ts AND o.total_amount > 3) WHERE rn = 1",
        "
        project order_id, event_id
          lookback_join left, first by (event_ts, event_id) of customer_id = customer_id with event_ts BETWEEN CASE WHEN total_amount > 3.00 THEN order_ts END - 7 AND CASE WHEN total_amount > 3.00 THEN order_ts END
            table sale_order (order_id, customer_id, total_amount, order_ts)
            table event (event_id, customer_id, event_ts)",
    );
}

#[track_caller]
fn check_reason(query: &str, reason: &str) {
    let reasons = with_stack(|| {
        let catalog = Catalog::new(FIRST_TOUCH);
        let lowered = catalog.query(query).unwrap();
        catalog.rows(&lowered.plan).into_iter().map(|row| row.reason).collect::<Vec<_>>()
    });
    assert!(reasons.iter().any(|found| found == reason), "{reasons:?}");
}

#[test]
fn what_is_nearly_a_lookback_says_why_it_is_none() {
    let first = |partition: &str, order: &str, on: &str| {
        format!(
            "SELECT * FROM (SELECT o.customer_id, e.event_id, ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY {order}) n
             FROM sale_order o JOIN event e ON e.customer_id = o.customer_id AND {on}) WHERE n = 1"
        )
    };
    let range = "e.event_ts BETWEEN o.order_ts - 7 AND o.order_ts";
    let reason = |query: String, reason: &str| check_reason(&query, &format!("no lookback join: {reason}"));
    reason(first("o.customer_id", "e.event_ts", range), "the partition is not a unique key of the left side");
    reason(first("o.order_id", "e.event_id", range), "the order does not begin with the time of the range");
    reason(
        first("o.order_id", "e.event_ts", &format!("{range} AND e.event_type < o.order_id")),
        "the condition \"event_type < order_id\" is no range of time",
    );
    check_reason(
        "SELECT o.order_id, MIN(e.event_ts), COUNT(*) FROM sale_order o LEFT JOIN event e ON e.customer_id = o.customer_id
            AND e.event_ts BETWEEN o.order_ts - 7 AND o.order_ts GROUP BY o.order_id",
        "no lookback join: COUNT needs all matches",
    );
}

#[test]
fn a_filter_on_a_rank_cuts_the_ranking() {
    check(
        "SELECT customer_id, page, n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY customer_id ORDER BY at DESC) AS n
            FROM click) WHERE n <= 3 AND n > 1 AND page <> 'x'",
        "
        project customer_id, page, row_number AS n
          filter page <> 'x'
            top_k ROW_NUMBER in 2..3 BY customer_id ORDER BY at DESC
              source click (customer_id, page, at)",
    );
}

#[test]
fn other_windows_are_computed_anew() {
    check(
        "SELECT customer_id, RANK() OVER (PARTITION BY customer_id ORDER BY at DESC) AS n,
            SUM(amount) OVER (PARTITION BY customer_id ORDER BY at) s FROM click",
        "
        project customer_id, rank AS n, sum AS s
          aggregate sum(amount) PARTITION BY [customer_id] ORDER BY [at ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            top_k RANK BY customer_id ORDER BY at DESC
              source click (customer_id, at, amount)",
    );
}

#[test]
fn order_and_limit() {
    check(
        "SELECT page FROM click ORDER BY at DESC LIMIT 5 OFFSET 2",
        "
        project page
          top_k ROW_NUMBER in 3..7 ORDER BY at DESC
            source click (page, at)",
    );
    check(
        "SELECT page FROM click ORDER BY at",
        "
        source click (page)
        warning: ORDER BY without LIMIT has no meaning in a continuous query and is left out",
    );
}

#[test]
fn distinct_on_is_the_first_row_of_each_partition() {
    check(
        "SELECT DISTINCT ON (customer_id) customer_id, page, at FROM click ORDER BY customer_id, at DESC",
        "
        top_k ROW_NUMBER = 1 BY customer_id ORDER BY at DESC
          source click (customer_id, page, at)",
    );
}

#[test]
fn comparisons_with_the_clock_schedule_rows() {
    check(
        "SELECT customer_id FROM click WHERE at > NOW() - INTERVAL '7' DAY AND page = 'a'
            AND DATEDIFF(CURRENT_DATE, on_day) <= 30",
        "
        project customer_id
          temporal_filter until CAST(on_day AS TIMESTAMP) + INTERVAL 'P31D'
            temporal_filter until at + INTERVAL 'P7D'
              filter page = 'a'
                source click (customer_id, page, at, on_day)",
    );
}

#[test]
fn the_clock_is_met_as_late_as_possible() {
    check(
        "SELECT customer_id, DATEDIFF(CURRENT_DATE, MAX(on_day)) AS d, COUNT(*) AS c FROM click GROUP BY customer_id",
        "
        project customer_id, DATEDIFF(current_date, max(click.on_day)) AS d, count(Int64(1)) AS c
          linear_join inner, every pair
            aggregate MAX(on_day), COUNT(*) BY customer_id
              source click (customer_id, on_day)
            source clock (current_date)",
    );
    check(
        "SELECT customer_id, NOW() AS n FROM click",
        "
        linear_join inner, every pair
          source click (customer_id)
          source clock (now)
        warning: NOW() reaches every row of \"click\": each tick of the clock changes all of them; compare a column with NOW() in WHERE, or aggregate first",
    );
}

#[test]
fn delta_joins_where_they_are_cheaper_or_asked_for() {
    check(
        "SELECT c.segment, t.tag, o.order_id FROM customer c JOIN customer_tag t ON t.customer_id = c.customer_id
            JOIN sale_order o ON o.customer_id = c.customer_id WHERE o.total_amount > 5",
        "
        project segment, tag, order_id
          delta_join 0 -> 1 by (customer_id) -> 2 by (customer_id); 1 -> 0 by (customer_id) -> 2 by (customer_id); 2 -> 0 by (customer_id) -> 1 by (customer_id)
            table customer (customer_id, segment)
            table customer_tag (customer_id, tag)
            project order_id, customer_id
              filter total_amount > 5.00
                table sale_order (order_id, customer_id, total_amount)",
    );
    check(
        "SELECT /*+ DELTA_JOIN */ c.segment, t.tag FROM customer c JOIN customer_tag t ON t.customer_id = c.customer_id",
        "
        project segment, tag
          delta_join 0 -> 1 by (customer_id); 1 -> 0 by (customer_id)
            table customer (customer_id, segment)
            table customer_tag (customer_id, tag)",
    );
    check(
        "SELECT /*+ DELTA_JOIN */ segment FROM customer",
        "
        table customer (segment)
        warning: no delta join: the query has no inner join of tables by equal keys",
    );
    check_reason(
        "SELECT c.customer_id, e.event_id, k.name FROM event e JOIN customer c ON c.customer_id = e.customer_id
            JOIN campaign k ON k.id = CAST(e.campaign_id AS INT)",
        "no delta join: 2 indexes would have to be made for it, no more than one is worth it",
    );
}

#[test]
fn a_forced_strategy_wins() {
    let tree = with_stack(|| {
        let mut catalog = Catalog::new(FIRST_TOUCH);
        let star = "SELECT c.segment, t.tag, o.order_id FROM customer c JOIN customer_tag t ON t.customer_id = c.customer_id
            JOIN sale_order o ON o.customer_id = c.customer_id";
        catalog.settings.join_strategy = JoinStrategy::Linear;
        catalog.tree(&catalog.query(star).unwrap().plan)
    });
    assert!(!tree.contains("delta_join") && tree.matches("linear_join").count() == 2, "{tree}");
}

#[test]
fn outer_joins() {
    check(
        "SELECT o.order_id, c.segment FROM customer c RIGHT JOIN sale_order o
            ON c.customer_id = o.customer_id AND c.segment = 'a'",
        "
        project order_id, segment
          outer_join left ON customer_id = customer_id
            table sale_order (order_id, customer_id)
            filter segment = 'a'
              table customer (customer_id, segment)",
    );
    check(
        "SELECT o.order_id, c.segment FROM customer c FULL JOIN sale_order o ON c.customer_id = o.customer_id",
        "
        project order_id, segment
          outer_join full ON customer_id = customer_id
            table customer (customer_id, segment)
            table sale_order (order_id, customer_id)",
    );
}

#[test]
fn semi_and_anti_joins() {
    check(
        "SELECT order_id FROM sale_order WHERE customer_id IN (SELECT customer_id FROM click)
            AND NOT EXISTS (SELECT 1 FROM event e WHERE e.customer_id = sale_order.customer_id)",
        "
        project order_id
          anti_join anti ON customer_id = customer_id
            semi_join semi ON customer_id = customer_id
              table sale_order (order_id, customer_id)
              source click (customer_id)
            table event (customer_id)",
    );
    check(
        "SELECT order_id FROM sale_order WHERE customer_id NOT IN (SELECT customer_id FROM click)",
        "
        project order_id
          anti_join null-aware anti ON customer_id = customer_id
            table sale_order (order_id, customer_id)
            source click (customer_id)",
    );
    check(
        "SELECT order_id FROM sale_order WHERE customer_id IN (SELECT customer_id FROM click) OR total_amount > 3",
        "
        project order_id
          filter mark OR (total_amount > 3.00)
            union 2 inputs
              project order_id, total_amount, TRUE AS mark
                semi_join semi ON customer_id = customer_id
                  table sale_order (order_id, customer_id, total_amount)
                  source click (customer_id)
              project order_id, total_amount, FALSE AS mark
                anti_join anti ON customer_id = customer_id
                  table sale_order (order_id, customer_id, total_amount)
                  source click (customer_id)",
    );
    check(
        "SELECT customer_id FROM click EXCEPT SELECT customer_id FROM customer",
        "
        anti_join anti ON customer_id IS NOT DISTINCT FROM customer_id
          distinct customer_id
            source click (customer_id)
          table customer (customer_id)",
    );
}

#[test]
fn a_scalar_subquery_has_at_most_one_row() {
    check(
        "SELECT (SELECT name FROM campaign WHERE id = 3) a, (SELECT name FROM campaign) b",
        "
        outer_join left, every pair
          outer_join left, every pair
            source 1 fixed rows
            project name
              filter id = 3
                table campaign (id, name)
          project CASE WHEN rows <= 1 THEN name WHEN CAST('a scalar subquery gave several rows' AS BIGINT) IS NULL THEN NULL END AS name
            aggregate MIN(name), COUNT(*)
              table campaign (name)",
    );
}

#[test]
fn joins_without_keys_are_limited_unless_one_side_is_a_row() {
    check_reason(
        "SELECT a.customer_id FROM click a JOIN click b ON a.amount < b.amount",
        "no keys: every pair is a candidate; the smaller side may have 10000 rows; grows with table \"click\"",
    );
    check_reason(
        "SELECT a.customer_id, n FROM customer a CROSS JOIN (SELECT COUNT(*) AS n FROM customer) b",
        "one side has at most one row",
    );
}

#[test]
fn lookup_joins() {
    let lowered = with_stack(|| {
        let catalog = Catalog::new(FIRST_TOUCH);
        let lowered = catalog.query(
            "SELECT o.order_id, UPPER(f.segment) AS s, o.total_amount FROM sale_order o
                LEFT JOIN customer FOR SYSTEM_TIME AS OF PROCTIME() AS f ON f.customer_id = o.customer_id",
        );
        lowered.unwrap()
    });
    let lookup = lowered.lookup.unwrap();
    assert_eq!((lookup.left_columns, lookup.append_only), (vec![0, 2], false));
    check_error(
        "SELECT o.order_id, f.segment FROM sale_order o
            JOIN customer FOR SYSTEM_TIME AS OF PROCTIME() AS f ON f.segment = o.customer_id",
        "table \"customer\" is looked up, but not by its full PRIMARY KEY",
    );
    check_error(
        "SELECT o.order_id, f.page FROM sale_order o
            JOIN click FOR SYSTEM_TIME AS OF PROCTIME() AS f ON f.customer_id = o.customer_id",
        "table \"click\" cannot be looked up: it has no PRIMARY KEY",
    );
    check_error(
        "SELECT o.order_id, f.segment FROM sale_order o
            FULL JOIN customer FOR SYSTEM_TIME AS OF PROCTIME() AS f ON f.customer_id = o.customer_id",
        "table \"customer\" cannot be looked up here",
    );
    check_error(
        "SELECT f.segment, COUNT(*) FROM sale_order o
            JOIN customer FOR SYSTEM_TIME AS OF PROCTIME() AS f ON f.customer_id = o.customer_id GROUP BY f.segment",
        "a lookup join over rows that change cannot be joined or aggregated further",
    );
}

#[test]
fn grouping_sets_are_a_union() {
    check(
        "SELECT customer_id, page, COUNT(*) AS n FROM click GROUP BY ROLLUP (customer_id, page)",
        "
        union 3 inputs
          aggregate COUNT(*) BY customer_id, page
            source click (customer_id, page)
          project customer_id, NULL AS page, count(Int64(1))
            aggregate COUNT(*) BY customer_id
              source click (customer_id)
          project NULL AS customer_id, NULL AS page, count(Int64(1))
            aggregate COUNT(*)
              source click ()",
    );
}

#[test]
fn values_and_unnest() {
    check("SELECT * FROM (VALUES (1, 'a'), (2, NULL)) v(x, y)", "source 2 fixed rows");
    let tree = with_stack(|| {
        let catalog = Catalog::new(FIRST_TOUCH);
        let lowered = catalog.query("SELECT unnest(make_array(customer_id, page)) u, amount FROM click").unwrap();
        validate(&lowered.plan);
        catalog.tree(&lowered.plan)
    });
    assert!(tree.starts_with("project element AS u, amount\n  unnest "), "{tree}");
}

#[test]
fn distinct_over_a_key_does_nothing() {
    check("SELECT DISTINCT customer_id, segment FROM customer", "table customer (customer_id, segment)");
}

#[test]
fn what_cannot_be_kept_up_to_date_is_refused_with_its_place() {
    let place = |query: &str, message: &str| check_error(query, message).position;
    assert_eq!(place("SELECT random() FROM click", "function \"random\" cannot be kept up to date"), Some((1, 8)));
    assert_eq!(
        place("SELECT a,\n approx_distinct(page) FROM click", "function \"approx_distinct\" cannot be kept up to date"),
        Some((2, 2))
    );
    check_error(
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
        "recursive query \"r\" cannot be kept up to date",
    );
    check_error(
        "SELECT c.page FROM click c JOIN click_stream s ON c.customer_id = s.customer_id",
        "the join needs the rows of table \"click_stream\", which keeps none",
    );
}

/// The job of the documents: its exact mart seeks once per order, its frozen mart looks up.
#[test]
fn the_first_touch_job() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../jobs/first_touch/job.sql");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: {path} is missing");
        return;
    };
    with_stack(|| {
        let mut catalog = Catalog::new("");
        let results = catalog.run(&substitute(&text, &|_| None).unwrap());
        let mut operators = BTreeMap::new();
        for (target, result) in results {
            let lowered = result.unwrap_or_else(|error| panic!("{target}: {error}"));
            validate(&lowered.plan);
            let used: Vec<&str> = catalog.rows(&lowered.plan).iter().map(|row| row.operator).collect();
            operators.insert(target, used.into_iter().filter(|operator| operator.ends_with("_join")).collect::<Vec<_>>());
        }
        assert_eq!(operators["mart_order_first_touch"], ["outer_join", "outer_join", "lookback_join"]);
        assert_eq!(operators["mart_order_first_touch_frozen"], ["lookup_join", "lookup_join"]);
        assert_eq!(operators["customer_first_touch"], ["delta_join"]);
    });
}

/// Every dynamic table of the documents is lowered.
#[test]
fn the_dynamic_tables_of_the_documents() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/mission/statements");
    let Ok(entries) = std::fs::read_dir(folder) else {
        println!("skipped: {folder} is missing");
        return;
    };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // Definitions that are not printed there come first.
    files.sort_by_key(|file| (!file.to_string_lossy().contains("not_printed"), file.clone()));
    with_stack(|| {
        let mut catalog = Catalog::new("");
        let mut lowered = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let defines = |s: &Statement| {
                matches!(s, Statement::CreateSchema { .. } | Statement::CreateTable(_) | Statement::CreateDynamicTable(_))
            };
            if !parse_script(&text).unwrap().iter().all(|statement| defines(&statement.node)) {
                continue;
            }
            for (target, result) in catalog.run(&text) {
                let plan = result.unwrap_or_else(|error| panic!("{target}: {error}")).plan;
                validate(&plan);
                lowered += 1;
            }
        }
        assert!(lowered >= 5, "{lowered}");
    });
}

/// Queries whose answer does not depend on how ties are broken.
const EQUIVALENT: [&str; 23] = [
    "SELECT order_id, event_id, touch FROM (SELECT o.order_id, e.event_id,
        ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts, e.event_id) AS touch
        FROM sale_order AS o LEFT JOIN event AS e ON e.customer_id = o.customer_id
        AND e.event_ts BETWEEN o.order_ts - 3 AND o.order_ts) WHERE touch = 1",
    "SELECT order_id, event_id FROM (SELECT o.order_id, e.event_id,
        ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts DESC, e.event_id DESC) AS touch
        FROM event AS e JOIN sale_order AS o ON e.customer_id = o.customer_id
        AND o.order_ts + 1 > e.event_ts AND o.order_ts - e.event_ts < 4) WHERE touch = 1",
    "SELECT order_id, event_id FROM (SELECT o.order_id, e.event_id,
        ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts, e.event_id) AS touch
        FROM sale_order AS o LEFT JOIN event AS e ON e.customer_id = o.customer_id
        AND e.event_ts > o.order_ts AND e.event_type = 'a' AND o.order_ts > 4) WHERE touch = 1",
    "SELECT order_id, event_id FROM (SELECT o.order_id, e.event_id,
        ROW_NUMBER() OVER (PARTITION BY o.order_id ORDER BY e.event_ts, e.event_id) AS touch
        FROM sale_order AS o JOIN click AS k ON k.customer_id = o.customer_id JOIN event AS e ON e.customer_id = o.customer_id
        AND e.event_ts BETWEEN o.order_ts - 3 AND o.order_ts) WHERE touch = 1",
    "SELECT o.order_id, MIN(STRUCT(e.event_ts, e.event_id)) AS f, MAX(e.event_ts) AS m FROM sale_order o JOIN event e
        ON e.customer_id = o.customer_id AND e.event_ts BETWEEN o.order_ts - 3 AND o.order_ts GROUP BY o.order_id",
    "SELECT o.order_id, MIN(e.event_ts) AS t, ARG_MIN(e.event_type, e.event_ts) AS a, ARG_MIN(COALESCE(e.event_id, '-'), e.event_ts) AS b
        FROM sale_order o LEFT JOIN event e
        ON e.customer_id = o.customer_id AND e.event_ts BETWEEN o.order_ts - 3 AND o.order_ts + 1 GROUP BY o.order_id",
    "SELECT o.order_id, FIRST_VALUE(e.event_type ORDER BY e.event_ts, e.event_id) AS t, COUNT(*) AS n FROM sale_order o
        JOIN event e ON e.customer_id = o.customer_id AND e.event_ts <= o.order_ts GROUP BY o.order_id",
    "SELECT o.order_id, FIRST_VALUE(e.event_type ORDER BY e.event_ts, e.event_id) AS t FROM sale_order o
        JOIN event e ON e.customer_id = o.customer_id AND e.event_ts <= o.order_ts GROUP BY o.order_id, o.customer_id",
    "SELECT v.visit_id, MAX(c.at) AS m FROM visit v LEFT JOIN click c ON c.customer_id = v.customer_id
        AND c.at BETWEEN v.at - INTERVAL '2' DAY AND v.at GROUP BY v.visit_id",
    "SELECT customer_id, amount, n FROM (SELECT customer_id, amount,
        RANK() OVER (PARTITION BY customer_id ORDER BY amount DESC) AS n FROM click) WHERE n > 1 AND n <= 3 AND amount <> 2",
    "SELECT customer_id, amount FROM (SELECT customer_id, amount,
        DENSE_RANK() OVER (PARTITION BY customer_id ORDER BY amount) AS n FROM click) WHERE n = 2",
    "SELECT c.segment, t.tag, o.order_id FROM customer c JOIN customer_tag t ON t.customer_id = c.customer_id
        JOIN sale_order o ON o.customer_id = c.customer_id WHERE o.order_ts > 3",
    "SELECT /*+ DELTA_JOIN */ e.event_id, c.segment, k.name FROM event e JOIN customer c ON c.customer_id = e.customer_id
        JOIN campaign k ON k.id = CAST(e.campaign_id AS INT) AND k.name <> c.segment",
    "SELECT /*+ DELTA_JOIN */ a.order_id AS x, b.order_id AS y, c.segment FROM sale_order a
        JOIN sale_order b ON a.customer_id = b.customer_id AND a.order_ts = b.order_ts
        JOIN customer c ON c.customer_id = b.customer_id AND c.last_purchase_ts = a.order_ts",
    "SELECT o.order_id, c.segment, k.name FROM sale_order o LEFT JOIN customer c ON c.customer_id = o.customer_id
        LEFT JOIN campaign k ON k.id = c.last_purchase_ts",
    "SELECT o.order_id, c.segment FROM customer c FULL JOIN sale_order o ON c.customer_id = o.customer_id",
    "SELECT o.order_id, c.segment FROM customer c RIGHT JOIN sale_order o ON c.customer_id = o.customer_id AND c.segment = 'a'",
    "SELECT order_id FROM sale_order WHERE customer_id IN (SELECT customer_id FROM click) OR order_ts > 4",
    "SELECT order_id FROM sale_order WHERE customer_id NOT IN (SELECT customer_id FROM click WHERE amount > 1)",
    "SELECT customer_id FROM click EXCEPT SELECT customer_id FROM customer",
    "SELECT customer_id, page, COUNT(*) AS n, MAX(amount) AS m FROM click GROUP BY CUBE (customer_id, page)",
    "SELECT customer_id, DATEDIFF(CURRENT_DATE, MAX(on_day)) AS d FROM click WHERE at > NOW() - INTERVAL '3' DAY
        AND on_day < CURRENT_DATE GROUP BY customer_id",
    "SELECT customer_id, (SELECT COUNT(*) FROM event e WHERE e.customer_id = c.customer_id) AS n,
        (SELECT MIN(name) FROM campaign) AS k FROM customer c",
];

mod equivalence {
    use super::super::Lowering;
    use super::super::reference::{Fields, World};
    use super::*;
    use deltaworks_dataflow::Datum;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    const DAY: i64 = 86_400_000_000;

    fn text(letter: u8) -> Datum<'static> {
        if letter == 0 { Datum::Null } else { Datum::str(char::from(b'a' - 1 + letter).to_string()) }
    }

    /// Small values, so that rows meet; a key counts the rows.
    fn row(table: &str, at: usize, v: &[u8]) -> Fields {
        let id = || Datum::str(format!("{table}{at}"));
        let number = |v: u8| if v == 0 { Datum::Null } else { Datum::Int(i64::from(v)) };
        let times = |v: u8, unit: i64| if v == 0 { Datum::Null } else { Datum::Int(i64::from(v) * unit) };
        match table {
            "event" => vec![id(), text(v[0]), text(v[1]), Datum::str(v[2].to_string()), number(v[3])],
            "sale_order" => vec![id(), text(v[0]), Datum::Decimal(i128::from(v[1]) * 100), number(v[3])],
            "customer" => vec![text(at as u8 + 1), Datum::Null, text(v[1]), number(v[3])],
            "customer_tag" => vec![text(at as u8 + 1), text(v[1])],
            "campaign" => vec![Datum::Int(at as i64), text(v[1])],
            "click" => vec![text(v[0]), text(v[1]), times(v[3], DAY / 2), times(v[2], 1), number(v[3])],
            "visit" => vec![id(), text(v[0]), times(v[3], DAY)],
            _ => Vec::new(),
        }
    }

    fn world() -> impl Strategy<Value = World> {
        let rows = |most: usize| proptest::collection::vec(proptest::array::uniform4(0u8..4), 0..=most);
        let keyed = (rows(3), rows(3), rows(3));
        (rows(7), rows(4), keyed, rows(6), rows(4), 0..5 * DAY).prop_map(|(event, order, keyed, click, visit, now)| {
            let mut tables = BTreeMap::new();
            let (customer, tag, campaign) = keyed;
            let all = [("event", event), ("sale_order", order), ("customer", customer), ("customer_tag", tag)];
            for (name, rows) in all.into_iter().chain([("campaign", campaign), ("click", click), ("visit", visit)]) {
                let rows = rows.iter().enumerate().map(|(at, values)| row(name, at, values));
                tables.insert(name.to_string(), rows.collect());
            }
            World { tables, now }
        })
    }

    fn sorted(mut rows: Vec<Fields>) -> Vec<Fields> {
        rows.sort();
        rows
    }

    /// No two rows agree on columns that are said to be unique, at any node.
    fn check_unique(plan: &Plan, world: &World, tables: &Tables) {
        plan.walk(&mut |node| {
            let rows = world.rows(node);
            for set in crate::lower::unique::unique_columns(node, tables) {
                let values = sorted(rows.iter().map(|row| set.iter().map(|c| row[*c].clone()).collect()).collect());
                assert!(values.windows(2).all(|pair| pair[0] != pair[1]), "{set:?} of {node:?}");
            }
        });
    }

    /// What optimisation makes of a plan gives the same rows as the plan.
    #[test]
    fn optimised_plans_mean_the_same() {
        with_stack(|| {
            let catalog = Catalog::new(FIRST_TOUCH);
            for query in EQUIVALENT {
                let Statement::Query(body) = parse_script(query).unwrap().remove(0).node else { panic!() };
                let logical = catalog.session.optimize_for_stream(catalog.logical(&body).unwrap()).unwrap();
                let mut lowering = Lowering { tables: &catalog.tables, warnings: Vec::new() };
                let plain = lowering.plan(&logical).unwrap();
                let optimised = catalog.lower(&body).unwrap().plan;
                validate(&optimised);
                let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
                let result = runner.run(&world(), |world| {
                    check_unique(&plain, &world, &catalog.tables);
                    check_unique(&optimised, &world, &catalog.tables);
                    prop_assert_eq!(
                        sorted(world.rows(&plain)),
                        sorted(world.rows(&optimised)),
                        "{}",
                        catalog.tree(&optimised)
                    );
                    Ok(())
                });
                if let Err(error) = result {
                    panic!("{query}: {error}");
                }
            }
        });
    }
}
