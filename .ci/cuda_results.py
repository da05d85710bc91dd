#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What make cuda-check found, as results/cuda: small enough to be kept, with a page and charts.

usage: cuda_results.py [FOUND [KEPT]]     default: results/runs/cuda results/cuda

Result rows lose those of single chunks, of which a text has hundreds; the rest is as it was written, those of
compare-*.csv one after the other:
  kernels.csv kernels-ffn.csv sweep.csv serial.csv cells.csv ppl.csv compare.csv    rows (results/schema.sql)
  limits.csv faults.csv summary.csv                                errors of cells, seeded faults, steps
  facts.txt                                                        what the driver says of the card
KEPT/README.md and its charts are plots/report.py's, from the rows, and the steps. limits.csv becomes limits by
`.ci/check_limits.py --merge KEPT/limits.csv`. Rows are read as plots/ does, but a torn last line is refused
as well: what is kept is whole. Exit: 0; 1 a step of the check failed; 2 nothing there; 3 rows are refused,
or their page could not be made."""
import csv
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plots"))
import history  # noqa: E402

ROWS = ("kernels.csv", "kernels-ffn.csv", "sweep.csv", "ppl.csv", "compare.csv", "cells.csv", "serial.csv")
REPORTED = ROWS[:5]  # cells are many and not timed, serial is a curve beside the same curve
AS_THEY_ARE = {"limits.csv": "limits.csv", "faults_cuda.csv": "faults.csv", "summary.csv": "summary.csv",
               "facts.txt": "facts.txt"}


def refuse(message: str) -> None:
    raise history.HistoryError(message)


def read_rows(found: list[pathlib.Path]) -> list[dict[str, str]]:
    """The rows of these files without those of single chunks."""
    conn, rows = history.empty(), []
    for path in found:
        for line, r in history.csv_rows(conn, path, torn=refuse):
            if r.get("subject", "").startswith("chunk"):
                continue
            if r.get("backend") == "cuda" and not (r.get("gpu") and r.get("driver")):
                refuse(f"{path}:{line}: a row of the cuda column does not name its card and driver")
            rows.append(r)
    return rows


def keep_rows(rows: list[dict[str, str]], kept: pathlib.Path) -> None:
    with open(kept, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, history.columns(history.empty()), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def add_steps(page: pathlib.Path, summary: pathlib.Path) -> list[str]:
    """Adds a table of the steps; returns those that did not pass."""
    with open(summary, newline="") as f:
        steps = list(csv.DictReader(f))
    lines = ["", "## Steps of make cuda-check", "", "| step | | seconds |", "| --- | --- | ---: |"]
    lines += [f"| {s['step']} | {s['status']} | {s['seconds']} |" for s in steps]
    with open(page, "a", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    return [f"{s['step']}: {s['status']}" for s in steps if s["status"] != "PASS"]


def main() -> int:
    found = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "results/runs/cuda")
    kept = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "results/cuda")
    if not (found / "summary.csv").exists():
        print(f"{found}: no summary.csv; run make cuda-check, or copy here what cuda_check.sh left", file=sys.stderr)
        return 2
    rows = {}
    try:
        for name in ROWS:
            # verdicts are written by several runs at once, each to a file of its own
            parts = sorted(found.glob(name.replace(".", "-*.", 1) if name == "compare.csv" else name))
            if parts:
                rows[name] = read_rows(parts)
    except (OSError, history.HistoryError) as e:
        return history.fail("cuda_results.py", e)
    kept.mkdir(parents=True, exist_ok=True)
    for name in rows:
        keep_rows(rows[name], kept / name)
    for name, to in AS_THEY_ARE.items():
        if (found / name).exists():
            (kept / to).write_bytes((found / name).read_bytes())
    reported = [str(kept / n) for n in REPORTED if (kept / n).exists()]
    page = subprocess.run([ROOT / "plots/report.py", "--csv", *reported, "--out", kept, "--title",
                           "The cuda column on a card"])
    if page.returncode:
        return page.returncode
    failed = add_steps(kept / "README.md", kept / "summary.csv")
    print("\n".join(failed) if failed else "every step passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
