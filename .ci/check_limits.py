#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The limits of cells (harness/measure/limits_table.h) against the distributions they come from
(results/limits.csv): a limit without a distribution, or one that is not the stated multiple of the largest
measured error, fails. Cells nobody has measured are listed; they have a loose limit.

usage: check_limits.py [--merge NEW.csv]
--merge: take over the cells of NEW.csv (ggauge limits -o NEW.csv), keep the others, write the table. What is
no whole table of at least the columns kept is refused, and both files stay as they were.
Exit: 0; 1 something does not fit, or is refused; 2 usage."""
import csv
import io
import math
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CSV = ROOT / "results" / "limits.csv"
TABLE = ROOT / "harness" / "measure" / "limits_table.h"
HEADER = ROOT / "harness" / "measure" / "limits.h"
COLUMNS = ["ref", "avx2", "avx512", "amx", "amx_requant", "cuda"]
NUMBERS = ["max_rel", "max_row_nmse", "limit_max_rel", "limit_row_nmse"]


def constants() -> dict[str, float]:
    return {k: float(v) for k, v in re.findall(r"#define (LIMIT_\w+) ([\d.e+-]+)", HEADER.read_text())}


def read(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """The row of each cell; all of them have the same columns."""
    rows, line = {}, 1
    try:
        with open(path, newline="") as f:
            reader = csv.DictReader(f, strict=True)
            for row in reader:
                line = reader.line_num
                if None in row or None in row.values():
                    sys.exit(f"{path}:{line}: not {len(reader.fieldnames)} fields as in the header")
                if ("@" not in row["cell"] or int(row["n"]) < 1
                        or not all(math.isfinite(float(row[c])) for c in NUMBERS)):
                    sys.exit(f"{path}:{line}: {row['cell']}: not a measured cell")
                rows[row["cell"]] = row
    except KeyError as e:
        sys.exit(f"{path}: not a table of limits: no column {e}")
    except (ValueError, csv.Error) as e:
        sys.exit(f"{path}:{line}: {e}")
    except OSError as e:
        sys.exit(str(e))
    if not rows:
        sys.exit(f"{path}: no cell in it")
    return rows


def table() -> dict[str, tuple[str, str]]:
    return {c: (rel, nmse)
            for c, rel, nmse in re.findall(r'X\("([^"]+)", *([^,]+), *([^)]+)\)', TABLE.read_text())}


def order(cell: str) -> tuple[int, str]:
    name, column = cell.rsplit("@", 1)
    return COLUMNS.index(column) if column in COLUMNS else 99, name


def replace(path: pathlib.Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def merge(new: str) -> None:
    rows, added = read(CSV) if CSV.exists() else {}, read(pathlib.Path(new))
    columns = list(next(iter(added.values())))
    lost = [c for c in next(iter(rows.values()), {}) if c not in columns]
    if lost:
        sys.exit(f"{new}: no column {', '.join(lost)}, which {CSV} has: of an older ggauge?")
    # ref is measured beside every column: its larger sample stays
    rows.update((c, r) for c, r in added.items()
                if not (c.endswith("@ref") and c in rows and int(rows[c]["n"]) > int(r["n"])))
    cells = sorted(rows, key=order)
    text = io.StringIO()
    # rows of before a column was added have nothing in it
    w = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    w.writeheader()
    w.writerows(rows[c] for c in cells)
    lines = [f'    X("{c}", {rows[c]["limit_max_rel"]}, {rows[c]["limit_row_nmse"]})' for c in cells]
    body = " \\\n".join(f"{line:<98}" for line in lines[:-1]) + (" \\\n" if lines[:-1] else "") + lines[-1]
    replace(CSV, text.getvalue())
    replace(TABLE, f"""/* SPDX-License-Identifier: MIT
 * limits_table.h - written by `make limits` from results/limits.csv; not by hand. */
#ifndef GGAUGE_LIMITS_TABLE_H
#define GGAUGE_LIMITS_TABLE_H

/*    cell, max_rel, row_nmse */
{"#define LIMIT_LIST(X)":<98} \\
{body}

#endif
""")


def cells_of_tables() -> set[str]:
    cells = set()
    for header, macro, column_less in (("qtype.h", "QTYPE_LIST", {"f64", "i32", "q8_2_x4", "q8_k_tile"}),
                                       ("op.h", "OP_LIST", {"mul_mat"})):
        text = (ROOT / "kernels" / header).read_text()
        body = re.search(rf"#define {macro}\(X\)(.*?)\n\n", text, re.S)[1]
        for row in re.findall(r"X\(([^)]*)\)", body):
            parts = [p.strip() for p in row.split(",")]
            if parts[0] in column_less:
                continue
            for column, cell in zip(COLUMNS, parts[-6:]):
                weight = header == "qtype.h"
                if cell == "Y" and not (weight and column == "ref"):
                    cells.add(f"{parts[0]}@{column}")
    return cells


def check() -> int:
    problems, k, rows, limits = [], constants(), read(CSV), table()
    for cell, (rel, nmse) in limits.items():
        row = rows.get(cell)
        if not row or int(row["n"]) < 1 or not row["p99.9"]:
            problems.append(f"{cell}: a limit, but no distribution in results/limits.csv")
            continue
        for what, stated, largest, multiple, floor in (
                ("max_rel", rel, row["max_rel"], "LIMIT_MULTIPLE", "LIMIT_FLOOR_REL"),
                ("row_nmse", nmse, row["max_row_nmse"], "LIMIT_MULTIPLE_NMSE", "LIMIT_FLOOR_NMSE")):
            want = max(k[multiple] * float(largest), k[floor])
            # rounded up to two digits: at most 10 % above, never below
            if not want * (1 - 1e-6) <= float(stated) <= want * 1.1 * (1 + 1e-6):
                problems.append(f"{cell}: {what} {stated} is not {k[multiple]:g} times {largest} "
                                f"(at least {k[floor]:g})")
            if not math.isclose(float(stated), float(row[f"limit_{what}"]), rel_tol=1e-9):
                problems.append(f"{cell}: {what} is {stated} in the table, {row[f'limit_{what}']} in the CSV")
    problems += [f"{c}: measured, but without a limit" for c in rows if c not in limits]
    print("\n".join(problems) if problems else f"limits: {len(limits)} as measured")
    missing = sorted(cells_of_tables() - set(limits), key=order)
    if missing:
        print(f"limits: not measured yet, `make limits` on such a machine: {' '.join(missing)}")
    return 1 if problems else 0


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--merge":
        merge(sys.argv[2])
    elif len(sys.argv) > 1:
        print("usage: check_limits.py [--merge NEW.csv]", file=sys.stderr)
        return 2
    return check()


if __name__ == "__main__":
    sys.exit(main())
