#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every seeded fault (kernels/base/fault.h) against a healthy run: the perplexity of both, with the options
under which the fault shows, whether it changes nothing where it should hide, and what compare says of a
healthy and a faulty arm. A fault without effect, one that does not hide, one that compare takes for healthy or
blames on another cell is an exit code of 1.

usage: faults.py GGAUGE MODELS_DIR TEXT [--check]     GGAUGE: of `make faults`
                                                     --check: TAP, no compare, no results/faults.csv

Columns of results/faults.csv: those of `ggauge types --faults`; ppl, ppl_fault and their ratio; what the
faulty run ended with if not with a perplexity; of compare the verdict, its reason, the chunks and seconds
to it, and the cell that it names."""
import csv
import functools
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "faults.csv"
CHUNKS = 24  # of compare at most; what the mean has not told apart by then, the operations must


def catalogue(ggauge):
    out = subprocess.run([ggauge, "types", "--faults"], check=True, capture_output=True, text=True)
    return list(csv.DictReader(out.stdout.splitlines(), delimiter="\t"))


class Runs:
    def __init__(self, ggauge, models, text):
        self.ggauge, self.models, self.text = ggauge, models, text

    @functools.lru_cache(maxsize=None)
    def ppl(self, model, options, fault=None):
        """(perplexity with all digits, "") or ("", last line of the error)"""
        with tempfile.TemporaryDirectory() as tmp:
            rows = pathlib.Path(tmp) / "rows.csv"
            command = [self.ggauge, "perplexity", "-m", f"{self.models}/{model}.gguf", "-f", self.text,
                       "--backend", "avx2", "--csv", str(rows), *options.split()]
            run = subprocess.run(command + (["--fault", fault] if fault else []), text=True,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if run.returncode:
                return "", run.stderr.strip().splitlines()[-1].removeprefix("error: ")
            with rows.open() as f:
                row = next(r for r in csv.DictReader(f) if r["metric"] == "ppl")
        named = f"FAULT:{fault}" in row["cells"] and f'"fault":"{fault}"' in row["settings"]
        if named if not fault else not named:
            raise SystemExit(f"{fault}: the row does not name the fault of its arm")
        return row["value"], ""

    def compare(self, model, options, fault):
        """What compare says of a healthy arm A and a faulty arm B."""
        with tempfile.TemporaryDirectory() as tmp:
            words = options.split()
            words[words.index("--chunks") + 1] = str(CHUNKS)
            command = [self.ggauge, "compare", "-m", f"{self.models}/{model}.gguf", "-f", self.text, "--a",
                       "avx2", "--b", f"avx2 --fault {fault}", "--out", tmp, "--floor-file", f"{tmp}/floors"]
            run = subprocess.run(command + words, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            summary = json.loads((pathlib.Path(tmp) / "summary.json").read_text())
        named = re.search(r"^First wrong operation: .*, cell (\S+):", run.stdout, re.M)
        return {"verdict": summary["verdict"], "reason": summary["reason"], "chunks": summary["chunks"],
                "seconds": f"{summary['seconds_to_verdict']:.2f}", "named": named[1] if named else ""}


def measure(runs, f):
    healthy, error = runs.ppl(f["model"], f["options"])
    if error:
        raise SystemExit(f"{f['model']} {f['options']}: {error}")
    faulty, ended = runs.ppl(f["model"], f["options"], f["fault"])
    shows = faulty != healthy
    hides = not f["hidden"] or (runs.ppl(f["model"], f["hidden"]) ==
                                runs.ppl(f["model"], f["hidden"], f["fault"]))
    ratio = f"{float(faulty) / float(healthy):.6f}" if faulty else ""
    return {**f, "ppl": healthy and f"{float(healthy):.6f}", "ppl_fault": faulty and f"{float(faulty):.6f}",
            "ratio": ratio, "ended": ended}, shows, hides


def main():
    args = [a for a in sys.argv[1:] if a != "--check"]
    check = len(args) < len(sys.argv) - 1
    runs, bad, rows = Runs(*args), 0, []
    for f in catalogue(args[0]):
        if not f["options"]:  # shown by tests/unit/test_fault.c
            rows.append(f)
            continue
        row, shows, hides = measure(runs, f)
        rows.append(row)
        found = True
        if not check:
            row.update(runs.compare(f["model"], f["options"], f["fault"]))
            found = row["verdict"] in ("FAIL", "MISTRUSTED") and row["named"] == f["cell"]
        ok = shows and hides and found
        bad += not ok
        print(f"{'ok' if ok else 'not ok'} - {f['fault']}: {row['ppl']} -> "
              f"{row['ppl_fault'] or row['ended']} {row['ratio']}"
              f"{'' if shows else ', NO EFFECT'}{'' if hides else ', shows where it should hide: ' + f['hidden']}"
              f"{'' if check else ', compare: {verdict} {reason} {chunks} {named}'.format(**row)}", flush=True)
    if not check:
        with OUT.open("w", newline="") as out:
            fields = [*catalogue(args[0])[0], "ppl", "ppl_fault", "ratio", "ended", "verdict", "reason", "chunks",
                      "seconds", "named"]
            w = csv.DictWriter(out, fields, restval="", lineterminator="\n")
            w.writeheader()
            w.writerows(rows)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
