#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every seeded fault (kernels/base/fault.h) of a column against a healthy run: the perplexity of both, with the
options under which the fault shows, whether it changes nothing where it should hide, and what compare says of a
healthy arm, avx2, and a faulty one. A fault without effect, one that does not hide, one that compare takes for
healthy or blames on another cell is an exit code of 1.

usage: faults.py GGAUGE MODELS_DIR TEXT [options]     GGAUGE: of `make faults`
    --backend COLUMN    whose faults (default avx2)
    --only A,B,...      these alone, and no file of results unless --out names one
    --check             no compare and no file of results: what the perplexities show
    --out FILE          instead of results/faults.csv (of avx2) or results/faults_COLUMN.csv
    --jobs N            faults at a time (default 1)
    --chunks N          of compare at most (default 24)

Columns of the results: those of `ggauge types --faults`; ppl, ppl_fault and their ratio; what the
faulty run ended with if not with a perplexity; of compare the verdict, its reason, the chunks and seconds
to it, and the cell that it names."""
import argparse
import concurrent.futures
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent


def catalogue(ggauge, backend):
    out = subprocess.run([ggauge, "types", "--faults", "--backend", backend], check=True, capture_output=True,
                         text=True)
    return list(csv.DictReader(out.stdout.splitlines(), delimiter="\t"))


class Runs:
    def __init__(self, args):
        self.ggauge, self.models, self.text = args.ggauge, args.models, args.text
        self.backend, self.chunks = args.backend, args.chunks
        self.threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)  # which change no bit
        self.healthy, self.lock = {}, threading.Lock()

    def words(self, options):
        return options.split() + ([] if "-t " in options else ["-t", str(self.threads)])

    def ppl(self, model, options, fault=None):
        """(perplexity with all digits, "") or ("", last line of the error); of a healthy arm once"""
        if fault:
            return self.run(model, options, fault)
        with self.lock:
            mine = (model, options) not in self.healthy
            known = self.healthy.setdefault((model, options), concurrent.futures.Future())
        if mine:
            try:
                known.set_result(self.run(model, options, None))
            except BaseException as e:
                known.set_exception(e)
        return known.result()

    def run(self, model, options, fault):
        with tempfile.TemporaryDirectory() as tmp:
            rows = pathlib.Path(tmp) / "rows.csv"
            command = [self.ggauge, "perplexity", "-m", f"{self.models}/{model}.gguf", "-f", self.text,
                       "--backend", self.backend, "--csv", str(rows), *self.words(options)]
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
        """What compare says of a healthy arm A and a faulty arm B. What the mean has not told apart when the
        chunks are over, the operations must."""
        with tempfile.TemporaryDirectory() as tmp:
            words = self.words(options)
            words[words.index("--chunks") + 1] = str(self.chunks)
            command = [self.ggauge, "compare", "-m", f"{self.models}/{model}.gguf", "-f", self.text, "--a",
                       "avx2", "--b", f"{self.backend} --fault {fault}", "--out", tmp, "--floor-file", f"{tmp}/floors"]
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
    shows = faulty != healthy and (faulty or ended.startswith("verdict "))
    hides = not f["hidden"] or (runs.ppl(f["model"], f["hidden"]) ==
                                runs.ppl(f["model"], f["hidden"], f["fault"]))
    ratio = f"{float(faulty) / float(healthy):.6f}" if faulty else ""
    return {**f, "ppl": healthy and f"{float(healthy):.6f}", "ppl_fault": faulty and f"{float(faulty):.6f}",
            "ratio": ratio, "ended": ended}, shows, hides


def judge(runs, f, check):
    """(row of the results, whether it is as it should be, a line for the reader)"""
    if not f["options"]:  # shown by tests/unit/test_fault.c
        return f, True, ""
    row, shows, hides = measure(runs, f)
    found = True
    if not check:
        row.update(runs.compare(f["model"], f["options"], f["fault"]))
        found = row["verdict"] in ("FAIL", "MISTRUSTED") and row["named"] == f["cell"]
    ok = shows and hides and found
    return row, ok, (
        f"{'ok' if ok else 'not ok'} - {f['fault']}: {row['ppl']} -> {row['ppl_fault'] or row['ended']} {row['ratio']}"
        f"{'' if shows else ', NO EFFECT'}{'' if hides else ', shows where it should hide: ' + f['hidden']}"
        f"{'' if check else ', compare: {verdict} {reason} {chunks} {named}'.format(**row)}")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ggauge", "models", "text"):
        p.add_argument(name)
    p.add_argument("--backend", default="avx2")
    p.add_argument("--only", default="")
    p.add_argument("--check", action="store_true")
    p.add_argument("--out", type=pathlib.Path)
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--chunks", type=int, default=24)
    return p.parse_args()


def main():
    args = arguments()
    runs, faults = Runs(args), catalogue(args.ggauge, args.backend)
    fields = [*faults[0], "ppl", "ppl_fault", "ratio", "ended", "verdict", "reason", "chunks", "seconds", "named"]
    if args.only:
        unknown = set(args.only.split(",")) - {f["fault"] for f in faults}
        if unknown:
            raise SystemExit(f"{args.backend} has no fault {' '.join(sorted(unknown))}")
        faults = [f for f in faults if f["fault"] in args.only.split(",")]
    bad, rows = 0, []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for row, ok, line in pool.map(lambda f: judge(runs, f, args.check), faults):
            rows.append(row)
            bad += not ok
            if line:
                print(line, flush=True)
    out = args.out
    if not out and not args.check and not args.only:
        out = ROOT / "results" / ("faults.csv" if args.backend == "avx2" else f"faults_{args.backend}.csv")
    if out:
        with out.open("w", newline="") as f:
            w = csv.DictWriter(f, fields, restval="", lineterminator="\n")
            w.writeheader()
            w.writerows(rows)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
