#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""import_pr529.py - turn what pull request 529 of ik_llama.cpp reported into result rows.

Reads datasets/pr529/*.csv (transcribed by hand from the discussion), writes results/pr529/*.csv in
the columns of results/schema.sql. Numbers are copied as they were printed; what was not reported
stays empty, but for the bits per weight of a file whose size is known beside another one of the
same model. Run it again after a change of the schema.
"""

import csv
import json
import os
import re
import sys

import history

SOURCE = "https://github.com/ikawrakow/ik_llama.cpp/pull/529"
IN = os.path.join(history.ROOT, "datasets", "pr529")
OUT = os.path.join(history.ROOT, "results", "pr529")
ARCH = {"Qwen3-30B-A3B": "qwen3moe", "DeepSeek-R1-0528": "deepseek2", "Llama-3.1-8B": "llama"}
WRONG_RATIO = 1.5  # two runs of the same weights differ by less, or one of them is wrong


def base_row(run_id, model, qtype, test):
    return {
        "schema": 1,
        "run_id": run_id,
        "time_utc": "2025-06",
        "commit_id": "unknown",
        "engine": "ik_llama.cpp",
        "model": model,
        "arch": ARCH[model],
        "qtype": qtype,
        "test": test,
        "subject": "run",
        "n_rep": 1,
        "status": "PASS",
    }


def settings(**fields):
    return json.dumps({"source": SOURCE, **fields}, sort_keys=True, separators=(",", ":"))


def model_name(line):
    return line["model"].split(" (")[0]


def bits_per_weight(line, lines):
    """As reported, or by the size of another file of the same model: their ratio is that of bpw."""
    if line["bpw"]:
        return line["bpw"], "reported"
    for other in lines:
        if other["model"] == line["model"] and other["bpw"]:
            ratio = float(line["size_gib"]) / float(other["size_gib"])
            return f"{float(other['bpw']) * ratio:.3f}", "size"
    return "", "unknown"


def import_ppl(lines):
    best = {}
    for r in lines:
        key = (r["model"], r["recipe"])
        best[key] = min(best.get(key, float("inf")), float(r["ppl"]))
    for i, r in enumerate(lines, 1):
        # The first word of a recipe is its type; "unsloth" is who made the file.
        qtype = r["recipe"].removeprefix("unsloth ").split(" ")[0].lower()
        row = base_row(f"pr529-ppl-{i:02d}", model_name(r), qtype, "perplexity")
        ratio = float(r["ppl"]) / best[r["model"], r["recipe"]]
        if ratio > WRONG_RATIO:
            row["status"] = f"FAIL {ratio:.1f} times the PPL of the best run of the same weights"
        bpw, bpw_from = bits_per_weight(r, lines)
        row.update(
            engine_commit=r["build"],
            backend=r["backend"].lower(),
            bpw=bpw,
            text="wiki.test.raw",
            settings=settings(
                bpw_from=bpw_from, note=r["note"], recipe=r["recipe"], size_gib=float(r["size_gib"])
            ),
        )
        if r["note"].startswith("host"):
            row["host"] = r["note"].split(";")[0]
        if n_ctx := re.search(r"-c ([0-9]+)", r["note"]):
            row["n_ctx"] = n_ctx[1]
        yield from ppl_values(row, r)


def ppl_values(row, line):
    ppl, err = float(line["ppl"]), float(line["ppl_err"])
    half = 1.96 * err  # what llama-perplexity prints after +/- is one standard error
    yield {
        **row,
        "metric": "ppl",
        "value": line["ppl"],
        "ci_low": f"{ppl - half:.6g}",
        "ci_high": f"{ppl + half:.6g}",
    }
    yield {**row, "metric": "ppl_se_token", "value": line["ppl_err"]}
    yield {**row, "metric": "model_bytes", "value": round(float(line["size_gib"]) * 2**30)}
    if timing := re.search(r"([0-9.]+) ms / ([0-9]+) tokens", line["note"]):
        seconds = float(timing[1]) / 1000
        yield {**row, "metric": "eval_s", "value": f"{seconds:.8g}"}
        yield {**row, "metric": "eval_tps", "value": f"{int(timing[2]) / seconds:.6g}"}


def import_sweep(stem, lines):
    n_layers, n_ubatch = re.fullmatch(r"sweep-(\d+)exps-ub(\d+)", stem).groups()
    row = base_row(f"pr529-{stem}", "DeepSeek-R1-0528", "iq3_kt", "sweep-bench")
    row.update(
        engine_commit="PR529",
        backend="cuda",
        gpu="2 x RTX A6000",
        n_threads=24,
        n_ubatch=n_ubatch,
        placement=f"experts of {n_layers} layers on GPU",
        settings=settings(amb=512, fa=True, fmoe=True, mla=3),
    )
    for r in lines:
        row.update(n_pp=r["pp"], n_tg=r["tg"], n_kv=r["n_kv"])
        for metric, column in (
            ("pp_s", "t_pp_s"),
            ("pp_tps", "s_pp_tps"),
            ("tg_s", "t_tg_s"),
            ("tg_tps", "s_tg_tps"),
        ):
            yield {**row, "metric": metric, "value": r[column]}


def main():
    try:
        columns = history.columns(history.empty())
        os.makedirs(OUT, exist_ok=True)
        for file_name in sorted(os.listdir(IN)):
            stem, ext = os.path.splitext(file_name)
            if ext != ".csv":
                continue
            with open(os.path.join(IN, file_name), encoding="utf-8", newline="") as f:
                lines = list(csv.DictReader(f))
            rows = import_ppl(lines) if stem == "ppl" else import_sweep(stem, lines)
            path = os.path.join(OUT, file_name)
            with open(path, "w", encoding="utf-8", newline="") as f:
                out = csv.DictWriter(f, columns, restval="", lineterminator="\n")
                out.writeheader()
                out.writerows(rows)
            print(path)
    except (OSError, history.HistoryError) as e:
        return history.fail("import_pr529.py", e)
    return 0


if __name__ == "__main__":
    sys.exit(main())
