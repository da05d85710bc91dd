#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measure every figure of results/golden.csv again (`make golden`): perplexities of the shared models on
wiki.test.raw against the peer's and against the exactly dequantised weights. A figure outside of its
limit is an exit code of 1; a change shows in the diff of the table.

usage: golden.py GGAUGE MODELS_DIR TEXT [--quick]      --quick: only the 20-chunk figures"""
import csv
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "golden.csv"
FIELDS = ["model", "model_fp", "text_fp", "n_ctx", "chunks", "column", "act_like", "ppl",
          "ppl_se_token", "ppl_se_chunk", "against", "expected", "diff_percent", "limit_percent",
          "status"]

# Whole text, -c 512: ik_llama.cpp 8337e4cd, CPU build, 2 threads.
PEER_WHOLE = {
    "tiny-qwen3-f16": 70.3890, "tiny-qwen3-q8_0": 70.4053, "tiny-qwen3-q4_0": 72.1731,
    "tiny-qwen3-iq4_kt": 72.6279, "tiny-qwen3-iq3_kt": 78.7297, "tiny-qwen3-iq2_kt": 120.5813,
    "tiny-llama-f16": 69.4518,
}
# 20 chunks: the same weights dequantised to F32 and computed in F32 (compute-time gains applied).
EXACT_20 = {
    "tiny-qwen3-f16": 77.1960, "tiny-qwen3-q8_0": 77.1948, "tiny-qwen3-q4_0": 79.2785,
    "tiny-qwen3-iq4_kt": 79.7873, "tiny-qwen3-iq3_kt": 85.7037, "tiny-qwen3-iq2_kt": 124.3521,
    "tiny-llama-f16": 70.1387, "tiny-llama-iq4_kt": 70.6557,
}


def measure(ggauge, model, text, chunks, column, act_like=""):
    with tempfile.TemporaryDirectory() as tmp:
        rows = pathlib.Path(tmp) / "rows.csv"
        command = [ggauge, "perplexity", "-m", str(model), "-f", text, "-c", "512", "--chunks",
                   str(chunks), "--backend", column, "--csv", str(rows)]
        if act_like:
            command += ["--act-like", act_like]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with rows.open() as f:
            run = [r for r in csv.DictReader(f) if r["subject"] == "run"]
        n_chunks = sum(1 for r in csv.DictReader(rows.open()) if r["metric"] == "nll_sum")
    value = {r["metric"]: float(r["value"]) for r in run if r["value"]}
    return {"model": model.stem, "model_fp": run[0]["model_fp"], "text_fp": run[0]["text_fp"],
            "n_ctx": 512, "chunks": n_chunks, "column": column, "act_like": act_like,
            "ppl": value["ppl"], "ppl_se_token": value["ppl_se_token"],
            "ppl_se_chunk": value["ppl_se_chunk"]}


def judge(row, against, expected, limit, decimals=4):
    diff = 100 * (row["ppl"] / expected - 1)
    row.update(against=against, expected=f"{expected:.{decimals}f}", diff_percent=f"{diff:+.4f}",
               limit_percent=limit, status="PASS" if abs(diff) <= limit else "FAIL")
    row["ppl"] = f"{row['ppl']:.6f}"
    for k in ("ppl_se_token", "ppl_se_chunk"):
        row[k] = f"{row[k]:.5f}"
    print(f"{row['model']:20} {row['chunks']:4} chunks {row['column']:5} {row['act_like']:5} "
          f"{row['ppl']:>11} {against:>16} {row['expected']:>11} {row['diff_percent']:>8} % "
          f"(limit {limit}) {row['status']}", flush=True)
    return row


def main():
    ggauge, models, text = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    column = "avx2"  # not the best one of this machine: the table is the same on every runner
    table = []
    for name, exact in EXACT_20.items():
        path = models / f"{name}.gguf"
        table.append(judge(measure(ggauge, path, text, 20, "ref"), "exact weights", exact, 0.01))
        fast = measure(ggauge, path, text, 20, column)
        same = measure(ggauge, path, text, 20, "ref", column)
        table.append(judge(dict(fast), "exact weights", exact, 0.15))
        table.append(judge(fast, f"ref as {column}", same["ppl"], 0.01, 6))
    for name, peer in PEER_WHOLE.items() if "--quick" not in sys.argv else ():
        limit = 0.05 if name.endswith("f16") else 0.3
        row = measure(ggauge, models / f"{name}.gguf", text, -1, column)
        table.append(judge(row, "ik_llama.cpp", peer, limit))
    if "--quick" not in sys.argv:
        with OUT.open("w", newline="") as f:
            w = csv.DictWriter(f, FIELDS, lineterminator="\n")
            w.writeheader()
            w.writerows(table)
    failed = sum(r["status"] != "PASS" for r in table)
    print(f"golden: {len(table) - failed} within their limits, {failed} outside")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
