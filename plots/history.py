# SPDX-License-Identifier: MIT
"""history.py - open the results and choose rows from them.

The rows come from the SQLite history or straight from CSV files. Either way the caller gets a
connection with the view `selected`: the rows of table `result` (results/schema.sql) that pass its
filters, with row_no, which rises in the order in which the rows of a run were written. Python
standard library only; nothing here writes to the history.
"""

import argparse
import csv
import math
import os
import sqlite3
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCHEMA = os.path.join(ROOT, "results", "schema.sql")


class HistoryError(Exception):
    """The results cannot be read: what, where, what was expected."""


def columns(conn):
    """Names of the columns of table result, in order."""
    return [row[1] for row in conn.execute("PRAGMA table_info(result)")]


def empty(schema=SCHEMA):
    """A history in memory without any row."""
    try:
        with open(schema, encoding="utf-8") as f:
            script = f.read()
        conn = sqlite3.connect(":memory:")
        conn.executescript(script)
    except (OSError, sqlite3.Error) as e:
        raise HistoryError(f"{schema}: {e}") from e
    if "metric" not in columns(conn):
        raise HistoryError(f"{schema}: no table result with a column metric")
    return conn


def _add_csv(conn, path):
    known = set(columns(conn))
    with open(path, encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f)
        names = [n for n in reader.fieldnames or [] if n in known]
        if not {"run_id", "metric", "value"} <= set(names):
            raise HistoryError(
                f"{path}: not a result file, its first line lacks run_id, metric or value"
            )
        insert = f"INSERT INTO result ({','.join(names)}) VALUES ({','.join('?' * len(names))})"
        for row in reader:
            # A torn last line has fewer fields: DictReader fills None in.
            if row[reader.fieldnames[-1]] is not None:
                conn.execute(insert, [None if row[n] in ("", "nan") else row[n] for n in names])


def _open_db(path):
    if not os.path.isfile(path):
        raise HistoryError(f"{path}: no such file; `make history` builds it from results/runs")
    try:
        conn = sqlite3.connect(f"file:{os.path.abspath(path)}?mode=ro", uri=True)
        names = columns(conn)
    except sqlite3.Error as e:
        raise HistoryError(f"{path}: not a usable history: {e}") from e
    if "metric" not in names:
        raise HistoryError(f"{path}: not a usable history: it has no table result")
    return conn


def open_results(db=None, csvs=(), schema=SCHEMA):
    """The history DB, or the rows of CSV files if any are given."""
    if not csvs:
        return _open_db(db)
    conn = empty(schema)
    for path in csvs:
        try:
            _add_csv(conn, path)
        except (OSError, UnicodeDecodeError, csv.Error, sqlite3.Error) as e:
            raise HistoryError(f"{path}: {e}") from e
    conn.commit()
    return conn


def select(conn, runs=(), where=None, last=0):
    """Create the view `selected`; returns the number of its rows.

    runs: run_ids; where: an SQL condition on the fields of a row; last: only the newest N runs."""
    try:
        conn.execute("CREATE TEMP TABLE wanted_run (run_id TEXT)")
        conn.executemany("INSERT INTO wanted_run VALUES (?)", [(r,) for r in runs])
        if last > 0:
            conn.execute(
                "INSERT INTO wanted_run SELECT DISTINCT run_id FROM result "
                "ORDER BY run_id DESC LIMIT ?",
                (last,),
            )
        terms = [f"({where})"] if where else []
        if runs or last > 0:
            terms.append("run_id IN (SELECT run_id FROM temp.wanted_run)")
        conn.execute(
            "CREATE TEMP VIEW selected AS SELECT *, rowid AS row_no FROM result"
            + (" WHERE " + " AND ".join(terms) if terms else "")
        )
        missing = [
            r
            for r in runs
            if not conn.execute("SELECT 1 FROM result WHERE run_id = ? LIMIT 1", (r,)).fetchone()
        ]
        n_rows = conn.execute("SELECT COUNT(*) FROM selected").fetchone()[0]
    except sqlite3.Error as e:
        raise HistoryError(f"cannot select rows: {e}") from e
    if missing:
        raise HistoryError(f"no run {', '.join(missing)} in the results")
    return n_rows


def number(value):
    """A field as float; nan for what is absent or no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def add_arguments(parser):
    """The options that say which rows are wanted."""
    parser.add_argument(
        "--db",
        default=os.path.join(ROOT, "results", "history.sqlite"),
        help="SQLite history (default: results/history.sqlite)",
    )
    parser.add_argument(
        "--csv",
        nargs="+",
        default=[],
        metavar="FILE",
        help="read these CSV files instead of the history",
    )
    parser.add_argument("--schema", default=SCHEMA, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs="+", default=[], metavar="RUN_ID", help="only these runs")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="only the newest N runs")
    parser.add_argument(
        "--where",
        help="only rows that meet this SQL condition, " "e.g. \"backend = 'avx2' AND n_ctx = 512\"",
    )


def from_arguments(args):
    """Open and select as the options say."""
    conn = open_results(args.db, args.csv, args.schema)
    select(conn, args.run, args.where, args.last)
    return conn


def fail(program, error):
    """Say what is wrong and end with the exit code of the environment."""
    print(f"{program}: {error}", file=sys.stderr)
    return 3
