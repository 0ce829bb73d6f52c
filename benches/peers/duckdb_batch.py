#!/usr/bin/env python3
"""duckdb_batch.py SQL DATA [HASH]: recomputes a query from nothing with DuckDB, on one thread.

SQL is a file of CREATE TABLE statements and one query behind them. Each table is filled from DATA/<table>.ndjson or
DATA/<table>.parquet. With HASH it fails unless the answer's hash is this one. Needs the package duckdb.
"""
import hashlib
import os
import resource
import sys
import time

begin = time.time()
import duckdb


def main():
    path, data, expected = sys.argv[1], sys.argv[2], (sys.argv + [None])[3]
    *tables, query = open(path).read().split(";\n")
    session = duckdb.connect()
    session.execute("SET threads = 1")
    records = 0
    for table in tables:
        session.execute(table)
    for (name,) in session.execute("SELECT table_name FROM duckdb_tables()").fetchall():
        parquet = f"{data}/{name}.parquet"
        if os.path.exists(parquet):
            session.execute(f"INSERT INTO \"{name}\" SELECT * FROM read_parquet('{parquet}')")
        else:
            columns = session.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [name]
            ).fetchall()
            types = ", ".join(f"{column}: '{data_type}'" for column, data_type in columns)
            session.execute(
                f"INSERT INTO \"{name}\" SELECT * FROM read_json('{data}/{name}.ndjson',"
                f" format = 'newline_delimited', columns = {{{types}}})"
            )
        records += session.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]
    loaded = time.time() - begin
    rows = session.execute(query).fetchall()
    wall, used = time.time() - begin, resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    lines = sorted("|".join("" if value is None else str(value) for value in row) for row in rows)
    answer = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    print(
        f"duckdb_batch: wall_s={wall:.3f} cpu_s={cpu:.3f} peak_mb={used.ru_maxrss / 1024:.0f} records={records}"
        f" rec/s={records / wall:.0f} rec/cpu_s={records / cpu:.0f} load_s={loaded:.3f} rows={len(rows)} answer={answer}"
    )
    if expected not in (None, answer):
        sys.exit(f"the answer is {answer}, not {expected}")


main()
