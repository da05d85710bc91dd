#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare healthy arms with each other, many times (`make aa`): micro-batches, batches, threads, cache types,
contexts, columns, models and texts vary, each within what the arms promise. Every verdict but PASS and UNDECIDED is
an alarm, and an exit code of 1.

usage: aa.py GGAUGE TEXT N MODEL...     writes results/aa.csv, once all N are done; run k depends on k alone"""
import concurrent.futures
import csv
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "aa.csv"
FIELDS = ["run", "kind", "model", "n_ctx", "arm_a", "arm_b", "text_at", "seed", "verdict", "reason", "chunks", "positions",
          "ln_ratio", "d_abs_p999", "wide_flips", "seconds"]
UBATCHES = [1, 2, 3, 5, 8, 16, 17, 31, 33, 64, 100, 128, 512]
BATCHES = [64, 200, 512, 2048]
CACHES = ["f16", "f16", "f32", "q8_0"]


class Runs:
    def __init__(self, ggauge, text, models, tmp):
        self.ggauge, self.models, self.tmp = ggauge, models, tmp
        self.text = pathlib.Path(text).read_bytes()
        self.columns = [c for c in ("ref", "avx2", "avx512", "amx") if self.works(c)]

    def works(self, column):
        """Whether a model runs on the column here."""
        text = pathlib.Path(self.tmp) / "probe.txt"
        text.write_bytes(self.text[:4000])
        run = subprocess.run([self.ggauge, "perplexity", "-m", self.models[0], "-f", str(text), "-c", "16",
                              "--chunks", "1", "--backend", column], capture_output=True)
        return run.returncode == 0

    def plan(self, k):
        r = random.Random(k)
        kind = r.choice(["shape", "shape", "worker", "column"] if len(self.columns) > 1 else ["shape", "worker"])
        fast = self.columns[1:] or self.columns
        n_ctx = r.choice([64, 128, 128, 256] if kind == "column" else [32, 32, 32, 64, 64, 64, 128, 128, 256, 512])
        n_bytes = 14 * n_ctx * 12  # 12 chunks and more: a token is 4 bytes or so, and the first is dropped
        at = r.randrange(max(1, len(self.text) - n_bytes))
        cache = f"-ctk {r.choice(CACHES)} -ctv {r.choice(CACHES)}"

        def shape(column):
            return f"{column} -ub {r.choice(UBATCHES)} -b {r.choice(BATCHES)} -t {r.randint(1, 4)} {cache}"
        a = "ref -ub 128 " + cache if kind == "column" and r.random() < 0.5 else shape(r.choice(fast))
        column_a = a.split()[0]
        if kind == "column":
            b = shape(r.choice([c for c in fast if c != column_a] or fast))
        else:
            b = ("worker " if kind == "worker" else "") + shape(column_a)
        return {"run": k, "kind": kind, "model": r.choice(self.models), "n_ctx": n_ctx, "arm_a": a, "arm_b": b,
                "text_at": at, "seed": r.randrange(1, 1 << 20)}, self.text[at:at + n_bytes]

    def measure(self, k):
        p, text = self.plan(k)
        out = pathlib.Path(self.tmp) / f"run{k}"
        out.mkdir()
        (out / "text").write_bytes(text.decode("utf-8", "ignore").encode())
        t0 = time.time()
        run = subprocess.run([self.ggauge, "compare", "-m", p["model"], "-f", str(out / "text"), "-c", str(p["n_ctx"]),
                              "--chunks", "12", "--seed", str(p["seed"]), "--a", p["arm_a"], "--b", p["arm_b"], "--out", str(out)],
                             capture_output=True, text=True, env={**os.environ, "XDG_CACHE_HOME": self.tmp})
        p["seconds"] = f"{time.time() - t0:.2f}"
        p["model"] = pathlib.Path(p["model"]).stem
        if not (out / "summary.json").exists():
            return {**p, "verdict": "ERROR", "reason": run.stderr.strip()[-200:]}
        s = json.loads((out / "summary.json").read_text())
        for f in out.iterdir():
            f.unlink()
        return {**p, "verdict": s["verdict"], "reason": "" if s["reason"] == "NONE" else s["reason"],
                "chunks": s["chunks"], "positions": s["positions"], "ln_ratio": s["ln_ratio"],
                "d_abs_p999": s["d_abs_p999"], "wide_flips": s["wide_flips"]}


def usage(why):
    print(f"aa: {why}\nusage: aa.py GGAUGE TEXT N MODEL...", file=sys.stderr)
    return 2


def main():
    if len(sys.argv) < 5:
        return usage("no model")
    ggauge, text = sys.argv[1:3]
    n = int(sys.argv[3]) if sys.argv[3].isdecimal() else 0
    if n < 1:
        return usage(f"expected a number of comparisons, found '{sys.argv[3]}'")
    count, rows = {}, []
    with tempfile.TemporaryDirectory() as tmp, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = Runs(ggauge, text, sys.argv[4:], tmp)
        if not runs.columns:
            return usage(f"{ggauge} runs {sys.argv[4]} on no column")
        for row in pool.map(runs.measure, range(n)):
            rows.append(row)
            key = (row["kind"], row["verdict"])
            count[key] = count.get(key, 0) + 1
            if row["verdict"] not in ("PASS", "UNDECIDED"):
                print(f"alarm: {row}", flush=True)
            if len(rows) % 100 == 0:
                print(f"aa: {len(rows)} of {n}", flush=True)
    part = OUT.with_name(OUT.name + ".part")
    with part.open("w", newline="") as f:
        w = csv.DictWriter(f, FIELDS, lineterminator="\n", extrasaction="ignore")
        w.writeheader()
        w.writerows(rows)
    os.replace(part, OUT)
    for (kind, verdict), c in sorted(count.items()):
        print(f"{kind:7} {verdict:10} {c:5}")
    alarms = sum(c for (_, v), c in count.items() if v not in ("PASS", "UNDECIDED"))
    print(f"aa: {n} comparisons of healthy arms, {alarms} alarms")
    return alarms > 0


if __name__ == "__main__":
    sys.exit(main())
