# SPDX-License-Identifier: MIT
"""history.py - open the results and choose rows from them.

The rows come from the SQLite history or straight from CSV files. Either way the caller gets a
connection with the view `selected`: the rows of table `result` (results/schema.sql) that pass its
filters, with row_no, which rises in the order in which the rows of a run were written. Python
standard library only; nothing here writes to the history.

A CSV file gives the same rows as through the history: what `ggauge history` refuses is refused here,
with its words (harness/result/row_file.c, history.c). Names of files need not be UTF-8: a byte that
is none is shown as \\xNN.
"""

import argparse
import csv
import math
import os
import sqlite3
import sys

ANY_BYTES = "backslashreplace"  # one odd name must not stop every chart
RECORD_MAX = 1 << 20  # bytes, CSV_RECORD_MAX of harness/result/csv.h
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


def warn(message):
    """What is worth a word, but stops nothing."""
    print(f"warning: {message}", file=sys.stderr)


def _records(path):
    """(line, fields, whether it ends as a line) of each record; None for fields it ends inside."""
    n_read, last, at_end = 0, "", False
    csv.field_size_limit(RECORD_MAX)
    with open(path, encoding="utf-8", errors=ANY_BYTES, newline="\n") as f:

        def lines():
            nonlocal n_read, last, at_end
            for last in f:
                n_read += 1
                if "\0" in last:
                    raise HistoryError(f"{path}:{n_read}: NUL byte, this is not a text file")
                yield last
            at_end = True

        line, reader = 1, csv.reader(lines(), strict=True)
        try:
            for fields in reader:
                yield line, fields, last.endswith("\n")
                line = n_read + 1
        except csv.Error as e:
            if not at_end:
                raise HistoryError(f"{path}:{n_read}: {e}") from e
            if n_read > line:
                raise HistoryError(f"{path}:{line}: a quote is opened and never closed") from e
            yield line, None, False


def _check_header(path, names, known):
    twice = [n for n in known if names.count(n) > 1]
    if twice:
        raise HistoryError(f"{path}:1: column '{twice[0]}' is there twice")
    missing = [n for n in ("schema", "run_id", "metric", "value") if n not in names]
    if missing:
        raise HistoryError(f"{path}:1: not a result file, it has no column '{missing[0]}'")


def csv_rows(conn, path, torn=warn):
    """(line, {column: text}) for each row of a result file, in the columns of conn's table result.

    Only a last line may be torn, as a killed run leaves it: it is left out, and torn is told."""
    known, schema = columns(conn), conn.execute("PRAGMA user_version").fetchone()[0]
    names = bad = None
    for line, fields, whole in _records(path):
        if bad:
            raise HistoryError(bad)
        if not whole:
            bad = f"{path}:{line}: a line without its end"
        elif names is None:
            names = fields
            _check_header(path, names, known)
        elif len(fields) != len(names):
            bad = f"{path}:{line}: {len(fields)} fields, expected {len(names)} as in the header"
        else:
            row = {n: v for n, v in zip(names, fields) if n in known}
            if row["schema"] != str(schema):
                raise HistoryError(
                    f"{path}:{line}: row of schema '{row['schema']:.20}', expected schema {schema}"
                )
            yield line, row
    if bad:
        torn(f"{path}:{line}: the last line is torn and ignored; the run was cut short")


def _value(name, kind, text):
    """A field as SQLite keeps it: empty is NULL, and so is a nan, which SQLite does not know."""
    if text == "" or (kind == "REAL" and text == "nan"):
        return None
    if kind == "TEXT":
        return text
    try:
        value = int(text) if kind == "INTEGER" else float(text)
        if value == value and "_" not in text:  # Python reads 1_000
            return value
    except ValueError:
        pass
    expected = "an integer" if kind == "INTEGER" else "a number"
    raise ValueError(f"{name}: expected {expected}, found '{text:.40}'")


def _add_csv(conn, path):
    """A run is replaced as a whole: a file that is named twice counts once."""
    kinds = {row[1]: row[2] for row in conn.execute("PRAGMA table_info(result)")}
    insert = f"INSERT INTO result ({','.join(kinds)}) VALUES ({','.join('?' * len(kinds))})"
    seen = set()
    for line, row in csv_rows(conn, path):
        run_id = row["run_id"]
        if run_id not in seen:
            seen.add(run_id)
            n_old = conn.execute("DELETE FROM result WHERE run_id = ?", (run_id,)).rowcount
            if n_old:
                warn(f"{path}: {n_old} rows of run {run_id} are replaced")
        try:
            conn.execute(insert, [_value(n, k, row.get(n, "")) for n, k in kinds.items()])
        except (ValueError, OverflowError, sqlite3.Error) as e:
            raise HistoryError(f"{path}:{line}: {e}") from e


def _open_db(path):
    if not os.path.isfile(path):
        raise HistoryError(f"{path}: no such file; `make history` builds it from results/runs")
    try:
        conn = sqlite3.connect(f"file:{os.path.abspath(path)}?mode=ro", uri=True)
        conn.text_factory = lambda text: text.decode("utf-8", ANY_BYTES)
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
        except (OSError, sqlite3.Error) as e:
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
