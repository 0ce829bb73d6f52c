#!/usr/bin/env python3
"""The expected answers of the tests, computed outside the engine: with DuckDB, and in plain Python where order matters.

    oracle.py first_touch [TOPICS] [--out DIR] [--tick-records N] [--check]
        The tables of jobs/first_touch from its recorded topics, into DIR/<table>.jsonl
        (TOPICS: jobs/first_touch/topics, DIR: jobs/first_touch/expected).
    oracle.py uplift|customer_360 [TOPICS] [--out DIR] [--check]
        The same for the other two jobs.
    oracle.py slt [FILE|FOLDER ..] [--check]
        The answers of the .slt files, in place (default: tests/slt).

With --check nothing is written; differences are printed and the exit code is 1. Needs Python 3.11 and `pip install duckdb`.
How .slt files are translated for DuckDB, and what the comments in them mean to this script, is said at `class SltFile`.
"""
import argparse
import base64
import datetime
import decimal
import difflib
import json
import math
import os
import re
import sys

import duckdb

import job_oracles

HERE = os.path.dirname(os.path.abspath(__file__))
WEEK_MS = 7 * 24 * 3600 * 1000


# ---- values as the engine prints them -------------------------------------------------------------------------------

class Raw(str):
    """A text that goes into JSON without quotes."""


def interval_text(value):
    """An INTERVAL DAY TO SECOND in ISO 8601, parts that are zero left out: P3DT4H5M6.789S, PT0S."""
    micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    sign, micros = ("-" if micros < 0 else ""), abs(micros)
    seconds, micros = divmod(micros, 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    second_text = str(seconds) + (f".{micros:06}".rstrip("0") if micros else "")
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M")) if n) + (f"{second_text}S" if seconds or micros else "")
    date = f"{days}D" if days else ""
    return f"{sign}P{date}{'T' + time if time else ''}" if date or time else "PT0S"


def timestamp_text(value):
    text = value.strftime("%Y-%m-%d %H:%M:%S")
    return text + (f".{value.microsecond:06}".rstrip("0") if value.microsecond else "")


def double_text(value):
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(0.0 if value == 0 else value)


def json_value(value):
    if value is None:
        return "null"
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, decimal.Decimal)):
        return format(value, "f") if isinstance(value, decimal.Decimal) else str(value)
    if isinstance(value, float):
        text = double_text(value)
        return text if text[-1].isdigit() else f'"{text}"'
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(json_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{json_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(value_text(value), ensure_ascii=False)


def value_text(value):
    """A value as one cell of an .slt answer: as in JSON, without the quotes."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return value if value else "(empty)"
    if isinstance(value, datetime.datetime):
        return timestamp_text(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return interval_text(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return double_text(value)
    return json_value(value)


# ---- recorded topics ------------------------------------------------------------------------------------------------

def read_recording(folder, topics):
    """Returns the records as (timestamp, topic, partition, offset, key, value), in the order in which a replay takes them:
    of the partitions' next records, the one with the smallest (timestamp, topic, partition)."""
    partitions = {}
    for topic in topics:
        for name in os.listdir(os.path.join(folder, topic)):
            with open(os.path.join(folder, topic, name), encoding="utf-8") as f:
                records = [json.loads(line, parse_float=decimal.Decimal) for line in f]
            partitions[topic, int(name.split(".")[0])] = records
    heads, merged = {p: 0 for p in partitions}, []
    while heads:
        topic, partition = min(heads, key=lambda p: (partitions[p][heads[p]]["timestamp"], p))
        r = partitions[topic, partition][heads[topic, partition]]
        merged.append((r["timestamp"], topic, partition, r["offset"], r["key"], r["value"]))
        heads[topic, partition] += 1
        if heads[topic, partition] == len(partitions[topic, partition]):
            del heads[topic, partition]
    return merged


# ---- jobs/first_touch -----------------------------------------------------------------------------------------------

KEYS = {"event": "event_id", "sale_order": "order_id", "customer": "customer_id", "campaign": "id"}

COLUMNS = ["order_id", "customer_id", "order_timestamp", "total_amount", "customer_segment", "customer_acquisition_channel",
           "first_touch_event_id", "first_touch_timestamp", "first_touch_event_type", "first_touch_campaign_name",
           "delta_first_touch_to_order"]


def fold(table, topic, timestamp, key, value):
    """One record into its table: last_row, and for events first_row with deletes allowed."""
    key = int(key) if topic == "campaign" else key
    if value is None:
        table.pop(key, None)
    elif topic == "event":
        table.setdefault(key, dict(value, arrived_at=timestamp))
    else:
        table[key] = value


def as_time(millis):
    return None if millis is None else datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=millis)


def as_int(text):
    """CAST(text AS INT), NULL where it fails."""
    return int(text) if text is not None and re.fullmatch(r"\s*[+-]?\d+\s*", text) else None


def mart_row(order, segment, channel, touch, campaign_name):
    touch_ts = touch and touch["event_ts"]
    order_ts = order["order_ts"]
    return dict(zip(COLUMNS, [
        order["order_id"], order["customer_id"], as_time(order_ts), order["total_amount"], segment, channel,
        touch and touch["event_id"], as_time(touch_ts), touch and touch["event_type"], campaign_name,
        touch and datetime.timedelta(milliseconds=order_ts - touch_ts)]))


def frozen_mart(records, tick_records):
    """mart_order_first_touch_frozen, tick by tick.

    A tick is one instant: its commands are folded into the tables first, in their order, and only the net change of a table
    goes on. So an event that comes and goes within a tick was never there for the tables behind it, and an order of a tick
    sees every event and customer of the same tick, also those that arrived after it.
    """
    tables = {topic: {} for topic in KEYS}
    first_event, frozen = {}, {}
    for begin in range(0, len(records), tick_records):
        before = {topic: dict(tables[topic]) for topic in ("event", "sale_order")}
        for timestamp, topic, _, _, key, value in records[begin:begin + tick_records]:
            fold(tables[topic], topic, timestamp, key, value)
        # customer_first_event: first_row by arrival, deletes ignored.
        arrived = [e for k, e in tables["event"].items() if before["event"].get(k) != e and e["customer_id"] is not None]
        for e in sorted(arrived, key=lambda e: (e["arrived_at"], e["event_id"])):
            first_event.setdefault(e["customer_id"], e)
        # customer_first_touch: both sides at this tick; an order that is new or changed looks into it once.
        for order_id in before["sale_order"].keys() | tables["sale_order"].keys():
            order = tables["sale_order"].get(order_id)
            if order is None:
                frozen.pop(order_id, None)
            elif before["sale_order"].get(order_id) != order:
                customer = tables["customer"].get(order["customer_id"])
                touch = first_event.get(order["customer_id"]) if customer else None
                segment, channel = (customer["segment"], customer["acquisition_channel"]) if touch else (None, None)
                if touch and not order["order_ts"] - WEEK_MS <= touch["event_ts"] <= order["order_ts"]:
                    touch = None
                campaign = touch and tables["campaign"].get(as_int(touch["campaign_id"]))
                frozen[order_id] = mart_row(order, segment, channel, touch, campaign and campaign["name"])
    return [frozen[k] for k in sorted(frozen)]


def exact_mart(records):
    """mart_order_first_touch: the tables folded to their end, then one query of DuckDB, in another shape than the job's."""
    tables = {topic: {} for topic in KEYS}
    for timestamp, topic, _, _, key, value in records:
        fold(tables[topic], topic, timestamp, key, value)
    db = duckdb.connect()
    db.execute("CREATE TABLE event (event_id VARCHAR, customer_id VARCHAR, event_type VARCHAR, campaign_id VARCHAR, event_ts BIGINT)")
    db.execute("CREATE TABLE sale_order (order_id VARCHAR, customer_id VARCHAR, total_amount DECIMAL(10, 2), order_ts BIGINT)")
    db.execute("CREATE TABLE customer (customer_id VARCHAR, segment VARCHAR, acquisition_channel VARCHAR)")
    db.execute("CREATE TABLE campaign (id INTEGER, name VARCHAR)")
    for topic in KEYS:
        names = [d[0] for d in db.execute(f"SELECT * FROM {topic}").description]
        rows = [[row[n] for n in names] for row in tables[topic].values()]
        if rows:
            db.executemany(f"INSERT INTO {topic} VALUES ({', '.join('?' * len(names))})", rows)
    result = db.execute(f"""
        WITH touch AS (
          SELECT o.order_id, min((e.event_ts, e.event_id, e.event_type, e.campaign_id)) AS t
          FROM sale_order o, event e
          WHERE o.customer_id = e.customer_id AND o.order_ts - e.event_ts >= 0 AND o.order_ts - e.event_ts <= {WEEK_MS}
          GROUP BY o.order_id)
        SELECT o.order_id, o.customer_id, make_timestamp(o.order_ts * 1000), o.total_amount, c.segment, c.acquisition_channel,
               t[2], make_timestamp(t[1] * 1000), t[3], k.name, to_microseconds((o.order_ts - t[1]) * 1000)
        FROM sale_order o
        LEFT JOIN touch USING (order_id)
        LEFT JOIN customer c ON c.customer_id = o.customer_id
        LEFT JOIN campaign k ON k.id = TRY_CAST(t[4] AS INTEGER)
        ORDER BY o.order_id""").fetchall()
    return [dict(zip(COLUMNS, row)) for row in result]


def first_touch(topics, tick_records):
    """Returns file name -> text of the job's expected tables."""
    records = read_recording(topics, KEYS)
    tables = {"mart_order_first_touch": exact_mart(records), "mart_order_first_touch_frozen": frozen_mart(records, tick_records)}
    return {f"{name}.jsonl": "".join(json_value(row) + "\n" for row in rows) for name, rows in tables.items()}


OTHER_JOBS = {"uplift": (job_oracles.UPLIFT_TOPICS, job_oracles.uplift),
              "customer_360": (job_oracles.CUSTOMER_TOPICS, job_oracles.customer_360)}


def other_job(name, topics):
    """Returns file name -> text of the expected tables of a job whose tables do not depend on the ticks."""
    names, tables = OTHER_JOBS[name]
    lines = lambda rows: "".join(json_value(row) + "\n" for row in rows)
    return {f"{table}.jsonl": lines(rows) for table, rows in tables(read_recording(topics, names)).items()}


# ---- .slt files -----------------------------------------------------------------------------------------------------

class Record:
    """One record of an .slt file: its comment lines, its directive line, its SQL, its answer (queries)."""

    def __init__(self, lines):
        self.comments = []
        while lines and (lines[0].startswith("#") or lines[0].split()[0] in ("skipif", "onlyif")):
            self.comments.append(lines.pop(0))
        self.head = lines.pop(0) if lines else ""
        cut = lines.index("----") if "----" in lines else len(lines)
        self.sql, self.answer = "\n".join(lines[:cut]), lines[cut + 1:]

    def text(self):
        answer = ["----", *self.answer] if self.head.startswith("query") else []
        return "\n".join([*self.comments, *([self.head] if self.head else []), *([self.sql] if self.sql else []), *answer])

    def duckdb_sql(self):
        own = [c.removeprefix("# duckdb:").strip() for c in self.comments if c.startswith("# duckdb:")]
        return " ".join(own) if own else translate(self.sql)


class SltFile:
    """An .slt file, answered by DuckDB.

    Dynamic tables become views, so every answer is computed from the tables as they are at that point. Comments steer this:

    `# duckdb: SQL`        before a record: what DuckDB runs instead of it (several such lines make one statement)
    `# by hand: ..`        before a query: the answer is kept; the comment says how it comes about
    `# oracle: none`       anywhere: the whole file is by hand, DuckDB is not asked

    `statement error` records are not run. Rows are written tab-separated, NULL as NULL, the empty string as (empty), everything
    else as in JSON result sets without quotes; `rowsort` sorts them as text.
    """

    def __init__(self, text):
        self.records = [Record(block.split("\n")) for block in re.split(r"\n\n+", text.strip("\n"))]

    def answered(self):
        """Returns the file's text with the answers filled in."""
        if not any(c.startswith("# oracle: none") for r in self.records for c in r.comments):
            db = connect()
            keyed = {}
            for record in self.records:
                try:
                    self.run(db, record, keyed)
                except Exception as e:
                    raise SystemExit(f"{e}\n  in: {record.head}\n{record.duckdb_sql()}") from e
        return "\n\n".join(r.text() for r in self.records) + "\n"

    @staticmethod
    def run(db, record, keyed):
        sql = record.duckdb_sql()
        by_hand = any(c.startswith("# by hand:") for c in record.comments)
        if record.head.startswith("statement ok"):
            name = re.match(r"INSERT INTO (\w+)", sql)
            if name and keyed.get(name[1]):
                sql = sql.replace("INSERT INTO", "INSERT OR REPLACE INTO", 1)
            create = re.match(r"CREATE TABLE (\w+)", sql)
            if create:
                keyed[create[1]] = "PRIMARY KEY" in sql
            if sql:
                db.execute(sql)
        elif record.head.startswith("query") and not by_hand:
            result = db.execute(sql)
            types = "".join(map(type_letter, result.description))
            rows = ["\t".join(map(value_text, row)) for row in result.fetchall()]
            words = [w for w in record.head.split()[1:] if w in ("rowsort", "nosort")]
            record.head = " ".join(["query", types, *words])
            record.answer = sorted(rows, key=lambda r: r.split("\t")) if "rowsort" in words else rows


def connect():
    """A DuckDB with the engine's meanings where a setting or a macro can give them."""
    db = duckdb.connect()
    for statement in (
        "SET integer_division = true",
        "SET default_null_order = 'nulls_last_on_asc_first_on_desc'",
        "SET ieee_floating_point_ops = false",
        "SET error_on_division_by_zero = false",
        "CREATE MACRO datediff(ending, start) AS date_diff('day', CAST(start AS DATE), CAST(ending AS DATE))",
        "CREATE MACRO concat(a) AS a, (a, b) AS a || b, (a, b, c) AS a || b || c, (a, b, c, d) AS a || b || c || d",
        "CREATE MACRO to_date(s) AS TRY_CAST(s AS DATE)",
    ):
        db.execute(statement)
    return db


def identity(call):
    """IDENTITY(links[, id_a, id_b, first_seen]) as a query: everybody whom a walk over the links reaches, and the oldest of them."""
    links, *columns = [argument.strip() for argument in call[1].split(",")]
    columns = ", ".join(columns or ["id_a", "id_b", "first_seen"])
    return f"""(WITH RECURSIVE link(a, b, seen) AS (SELECT {columns} FROM {links}),
        edge(a, b) AS (SELECT a, b FROM link WHERE b IS NOT NULL UNION SELECT b, a FROM link WHERE a IS NOT NULL),
        sight(id, seen) AS (SELECT a, seen FROM link UNION ALL SELECT b, seen FROM link),
        member(id, seen) AS (SELECT id, MIN(seen) FROM sight WHERE id IS NOT NULL GROUP BY id),
        reached(id, other) AS (SELECT id, id FROM member UNION SELECT r.id, e.b FROM reached r JOIN edge e ON r.other = e.a)
        SELECT r.id, first(r.other ORDER BY m.seen NULLS LAST, r.other) AS one_id
        FROM reached r JOIN member m ON m.id = r.other GROUP BY r.id)"""


def translate(sql):
    """The engine's SQL in DuckDB's words."""
    sql = re.sub(r"\bIDENTITY\(([^()]*)\)", identity, sql)
    sql = re.sub(r"\bCREATE (?:DYNAMIC|MATERIALIZED) TABLE\b", "CREATE VIEW", sql)
    sql = re.sub(r"\bDROP (?:DYNAMIC|MATERIALIZED) TABLE\b", "DROP VIEW", sql)
    sql = re.sub(r"\bFRESHNESS = INTERVAL '\d+' \w+\s*", "", sql)
    sql = re.sub(r"\s*\bNOT ENFORCED\b", "", sql)
    sql = re.sub(r"(?<!TRY_)\bCAST\(", "TRY_CAST(", sql)
    sql = re.sub(r"\b(FIRST|LAST)_VALUE\((?=[^()]*ORDER BY)", lambda m: m[1].lower() + "(", sql)
    return sql


def type_letter(column):
    name = str(column[1])
    if name.startswith("DECIMAL") or name in ("DOUBLE", "FLOAT"):
        return "R"
    if name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"):
        return "I"
    return {"VARCHAR": "T", "BOOLEAN": "B", "DATE": "D", "TIMESTAMP": "P", "TIMESTAMP_MS": "P"}.get(name, "?")


def slt_files(paths):
    for path in paths or [os.path.join(HERE, "slt")]:
        if os.path.isdir(path):
            for folder, _, names in sorted(os.walk(path)):
                yield from (os.path.join(folder, n) for n in sorted(names) if n.endswith(".slt"))
        else:
            yield path


# ---- command line ---------------------------------------------------------------------------------------------------

def settle(path, text, check):
    """Writes the text, or with `check` prints how the file differs. Returns whether the file was right already."""
    old = open(path, encoding="utf-8").read() if os.path.exists(path) else ""
    if old == text:
        return True
    if check:
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), text.splitlines(True), path, "oracle"))
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return False


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = args.add_subparsers(dest="what", required=True)
    touch = sub.add_parser("first_touch")
    touch.add_argument("topics", nargs="?", default=os.path.join(HERE, "../jobs/first_touch/topics"))
    touch.add_argument("--out", default=os.path.join(HERE, "../jobs/first_touch/expected"))
    touch.add_argument("--tick-records", type=int, default=8192)
    touch.add_argument("--check", action="store_true")
    for name in OTHER_JOBS:
        job = sub.add_parser(name)
        job.add_argument("topics", nargs="?", default=os.path.join(HERE, f"../jobs/{name}/topics"))
        job.add_argument("--out", default=os.path.join(HERE, f"../jobs/{name}/expected"))
        job.add_argument("--check", action="store_true")
    slt = sub.add_parser("slt")
    slt.add_argument("paths", nargs="*")
    slt.add_argument("--check", action="store_true")
    args = args.parse_args()
    right = True
    if args.what == "slt":
        for path in slt_files(args.paths):
            try:
                right &= settle(path, SltFile(open(path, encoding="utf-8").read()).answered(), args.check)
            except SystemExit as e:
                raise SystemExit(f"{path}: {e}") from e
        sys.exit(1 if args.check and not right else 0)
    files = first_touch(args.topics, args.tick_records) if args.what == "first_touch" else other_job(args.what, args.topics)
    for name, text in files.items():
        right &= settle(os.path.normpath(os.path.join(args.out, name)), text, args.check)
    sys.exit(1 if args.check and not right else 0)


if __name__ == "__main__":
    main()
