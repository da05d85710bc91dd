#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report.py - one Markdown page about some runs: OUT/README.md, with its charts beside it.

Verdicts of comparisons, headline, perplexity table, sweep tables in the form that people paste, kernels, charts, machine and
provenance; all from the rows that --run, --last and --where choose (see history.py). A part without
rows is left out. Exit codes as render.py.
"""

import argparse
import json
import math
import os
import shutil
import sys

import heat
import history
import labels
import render

TITLES = {
    "compare_ops": "Error of every operation, by layer",
    "compare_ratio": "Difference of two arms against chunks compared",
    "compare_tail": "How far apart single positions are",
    "ppl_bpw": "Perplexity against bits per weight",
    "ppl_running": "Running perplexity",
    "roofline": "Products and the roofline",
    "sweep_pp": "Prompt processing speed",
    "sweep_tg": "Token generation speed",
}
MAX_TROUBLE = 20  # kinds of rows that did not pass, listed before "and N more"


def query(conn, sql, args=()):
    cursor = conn.execute(sql, args)
    names = [d[0] for d in cursor.description]
    return [dict(zip(names, row)) for row in cursor]


def num(value, form="{:.4f}", absent="-"):
    """A number for a table; nan and inf are shown as such, only an empty field is absent."""
    return absent if value is None else form.format(history.number(value))


def text(value):
    """A cell of a table: nothing in it may end the cell or the line."""
    return str("" if value is None else value).replace("|", "\\|").replace("\n", " ")


def words(name):
    """A column of text: its head is the name of the field, or (head, field)."""
    head, field = name if isinstance(name, tuple) else (name, name)
    return head, "---", lambda r: text(r[field])


def figures(head, field, form):
    """A column of numbers."""
    return head, "---:", lambda r: num(r[field], form)


def table(columns, rows):
    """Markdown; a column is (head, rule below the head, function of a row)."""
    lines = [[c[0] for c in columns], [c[1] for c in columns]]
    lines += [[c[2](r) for c in columns] for r in rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


# ---- comparisons --------------------------------------------------------------------------------

COMPARE_SQL = """
SELECT c.*, COALESCE(c.verdict, 'unfinished') AS verdict, top.value AS same_top,
       tail.value AS d_p999, most.value AS d_max, a.value AS floor_a, b.value AS floor_b
FROM comparison AS c {joins}
WHERE EXISTS (SELECT 1 FROM selected AS s WHERE s.run_id = c.run_id AND s.model_fp IS c.model_fp
              AND s.backend IS c.backend AND s.arm_b IS c.arm_b AND s.settings IS c.settings)
ORDER BY CASE substr(c.verdict, 1, 4) WHEN 'FAIL' THEN 0 WHEN 'MIST' THEN 1 WHEN 'UNDE' THEN 2
         ELSE 3 END, c.model, c.bpw DESC, c.run_id"""
COMPARE_JOIN = """
LEFT JOIN selected AS {name} ON {name}.run_id = c.run_id AND {name}.model_fp IS c.model_fp
     AND {name}.backend IS c.backend AND {name}.arm_b IS c.arm_b AND {name}.settings IS c.settings
     AND {name}.metric = '{metric}' AND {name}.subject = '{subject}'"""
COMPARE_ROWS = (
    ("top", "top1", "run"),
    ("tail", "d_abs", "p99.9"),
    ("most", "d_abs", "max"),
    ("a", "floor_d_max", "arm A"),
    ("b", "floor_d_max", "arm B"),
)
COMPARE_KEY = ("run_id", "model_fp", "backend", "arm_b", "settings")
COMPARE_OPS = f"""
SELECT {", ".join(COMPARE_KEY)}, subject, value FROM selected
WHERE test = 'compare' AND metric = 'op_error' ORDER BY row_no"""


def load_comparisons(conn):
    """The comparisons, the worst verdict first, each with its worst operation."""
    joins = "".join(COMPARE_JOIN.format(name=n, metric=m, subject=s) for n, m, s in COMPARE_ROWS)
    rows = query(conn, COMPARE_SQL.format(joins=joins))
    ops = {}  # found by what was read: text that is not UTF-8 could not be asked for
    for *key, node, value in conn.execute(COMPARE_OPS):
        ops.setdefault(tuple(key), []).append((node, history.number(value)))
    for r in rows:
        nodes = ops.get(tuple(r[f] for f in COMPARE_KEY))
        r["worst_op"] = heat.worst_text(nodes) if nodes else "-"
    return rows


def verdict_text(row):
    """ "FAIL (MEAN)" of "FAIL MEAN"."""
    verdict, _, reason = row["verdict"].partition(" ")
    return text(verdict + (f" ({reason})" if reason else ""))


def ratio_text(row):
    if row["ci_low"] is None or row["ci_high"] is None:
        return num(row["ln_ratio"], "{:+.5f}")
    low, high = (num(row[f], "{:+.5f}") for f in ("ci_low", "ci_high"))
    return f"{num(row['ln_ratio'], '{:+.5f}')} in [{low}, {high}]"


def percent(row):
    return "-" if row["same_top"] is None else f"{100 * history.number(row['same_top']):.2f} %"


COMPARE_COLUMNS = (
    ("verdict", "---", lambda r: f"**{verdict_text(r)}**"),
    words("model"),
    words(("quant", "qtype")),
    words("arms"),
    ("ln(PPL_B/PPL_A)", "---:", ratio_text),
    figures("margin", "margin", "{:g}"),
    figures("chunks", "chunks", "{:.0f}"),
    ("same top", "---:", percent),
    figures("\\|d nll\\| 99.9 %", "d_p999", "{:.3g}"),
    figures("max", "d_max", "{:.3g}"),
    ("floor A, B", "---:", lambda r: ", ".join(num(r[f], "{:.3g}") for f in ("floor_a", "floor_b"))),
    ("worst operation of B", "---", lambda r: text(r["worst_op"])),
)


def compare_section(rows):
    """First of all: do the arms agree?"""
    if not rows:
        return []
    return [
        "## Verdict",
        "",
        *table(COMPARE_COLUMNS, rows),
        "PASS: the interval, which holds at every look, lies inside of the margin, no position and "
        "no operation that was examined is off its limits, and both arms repeat themselves with other batches and "
        "threads (floor: largest difference of an arm from itself). UNDECIDED: more chunks would "
        "tell.",
        "",
    ]


# ---- perplexity ---------------------------------------------------------------------------------

PPL_SQL = """
SELECT p.run_id, p.engine, COALESCE(NULLIF(p.engine_commit, ''), p.commit_id) AS "commit",
       p.model, p.model_fp, p.qtype, p.bpw, p.backend, p.text, p.n_ctx, p.status,
       p.value AS ppl, se.value AS se, bytes.value AS bytes, tps.value AS tps,
       COALESCE((SELECT NULLIF(COUNT(*), 0) FROM selected AS c WHERE c.run_id = p.run_id
        AND c.model_fp IS p.model_fp AND c.backend IS p.backend
        AND c.metric = 'ppl_running'), NULLIF(p.n_rep, 0)) AS chunks
FROM selected AS p {joins}
WHERE p.metric = 'ppl' AND p.test = 'perplexity'
ORDER BY p.text, p.n_ctx, p.model, p.backend, p.bpw DESC, p.run_id"""
PPL_JOIN = """
LEFT JOIN selected AS {name} ON {name}.run_id = p.run_id AND {name}.model_fp IS p.model_fp
     AND {name}.backend IS p.backend AND {name}.test = p.test AND {name}.subject IS p.subject
     AND {name}.metric = '{metric}'"""


def is_pass(row):
    return (row["status"] or "PASS").startswith("PASS")


def load_ppl(conn):
    """Perplexities, each with its ratio to the best of what may be compared with it."""
    joins = "".join(
        PPL_JOIN.format(name=n, metric=m)
        for n, m in (("se", "ppl_se_token"), ("bytes", "model_bytes"), ("tps", "eval_tps"))
    )
    rows = query(conn, PPL_SQL.format(joins=joins))
    best = {}
    for r in rows:
        r["group"] = (r["model"], r["text"], r["n_ctx"], r["chunks"])
        value = history.number(r["ppl"])
        if math.isfinite(value) and value > 0:  # 0 is no perplexity, and nothing to divide by
            best[r["group"]] = min(best.get(r["group"], math.inf), value)
    for r in rows:
        r["ratio"] = history.number(r["ppl"]) / best.get(r["group"], math.nan)
    return rows


def ppl_text(row):
    error = "" if row["se"] is None else f" +/- {num(row['se'], '{:.5f}')}"
    return num(row["ppl"]) + error


def build_text(row):
    return text(f"{row['engine'] or ''} {labels.write_field('commit', row['commit'])}".strip())


PPL_COLUMNS = (
    words("model"),
    words(("quant", "qtype")),
    ("MiB", "---:", lambda r: num(r["bytes"] and r["bytes"] / 2**20, "{:.2f}")),
    figures("bpw", "bpw", "{:.3f}"),
    words("backend"),
    ("build", "---", build_text),
    words("text"),
    figures("-c", "n_ctx", "{:.0f}"),
    figures("chunks", "chunks", "{:.0f}"),
    ("PPL", "---:", ppl_text),
    figures("ratio", "ratio", "{:.4f}"),
    figures("tokens/s", "tps", "{:.1f}"),
    ("status", "---", lambda r: text((r["status"] or "").partition(" ")[0])),
)


def ppl_section(rows):
    if not rows:
        return []
    return [
        "## Perplexity",
        "",
        "Ratio: to the best of the same model, text, context and number of chunks. The error is "
        "one standard error, tokens taken as independent, as llama-perplexity prints it.",
        "",
        *table(PPL_COLUMNS, rows),
    ]


# ---- speed --------------------------------------------------------------------------------------

SWEEP_SQL = """
SELECT run_id, engine, model, qtype, backend, placement, n_threads, n_ubatch, type_k, type_v, host,
       COALESCE(NULLIF(engine_commit, ''), commit_id) AS "commit", model_fp, n_pp, n_tg, n_kv,
       MAX(CASE WHEN metric = 'pp_s' THEN value END) AS pp_s,
       MAX(CASE WHEN metric = 'pp_tps' THEN value END) AS pp_tps,
       MAX(CASE WHEN metric = 'tg_s' THEN value END) AS tg_s,
       MAX(CASE WHEN metric = 'tg_tps' THEN value END) AS tg_tps,
       MAX(n_rep) AS n_rep
FROM selected
WHERE test = 'sweep-bench' AND metric IN ('pp_s', 'pp_tps', 'tg_s', 'tg_tps')
GROUP BY run_id, model_fp, backend, n_threads, n_ubatch, n_pp, n_tg, n_kv
ORDER BY model, bpw DESC, backend, n_ubatch, run_id, n_kv"""
SWEEP_FIELDS = (
    "engine",
    "model",
    "qtype",
    "backend",
    "placement",
    "n_threads",
    "n_ubatch",
    "type_k",
    "type_v",
    "commit",
    "host",
)
SWEEP_HEAD = (
    "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
    "|-------|--------|--------|----------|----------|----------|----------|"
)


def load_sweeps(conn):
    """[(what it is, its rows by depth)], one for each sweep."""
    sweeps = {}
    for r in query(conn, SWEEP_SQL):
        key = tuple(r[f] for f in ("run_id", "model_fp", "backend", "n_threads", "n_ubatch"))
        sweeps.setdefault(key, []).append(r)
    found = list(sweeps.values())
    names, common = labels.distinguish(
        [{f: s[0][f] for f in SWEEP_FIELDS} for s in found], always=("model", "qtype", "backend")
    )
    return list(zip(names, found)), common


def sweep_section(sweeps, common):
    if not sweeps:
        return []
    out = ["## Speed at increasing depth", "", common + ".", ""]
    for name, rows in sweeps:
        repeats = rows[0]["n_rep"]
        out += [
            f"**{name}**" + (f", median of {repeats}" if repeats and repeats > 1 else ""),
            "",
            SWEEP_HEAD,
        ]
        for r in rows:
            counts = (num(r[f], "{:.0f}") for f in ("n_pp", "n_tg", "n_kv"))
            times = (
                num(r[f], p)
                for f, p in (
                    ("pp_s", "{:.3f}"),
                    ("pp_tps", "{:.2f}"),
                    ("tg_s", "{:.3f}"),
                    ("tg_tps", "{:.2f}"),
                )
            )
            out.append(
                "|{:>6} | {:>6} | {:>6} | {:>8} | {:>8} | {:>8} | {:>8} |".format(*counts, *times)
            )
        out.append("")
    return out


def bench_name(row):
    n = row["n_pp"] if row["metric"] == "pp_tps" else row["n_tg"]
    return f"{row['metric'][:2]}{n}" + (f" @ d{row['n_kv']}" if row["n_kv"] else "")


def interval_text(row):
    """Low to high and what it covers: few repeats cannot give 95 %, their rows say what they do."""
    if row["ci_low"] is None or row["ci_high"] is None:
        return "-"
    try:
        coverage = json.loads(row["settings"] or "{}").get("interval_coverage")
    except (ValueError, AttributeError):
        coverage = None
    covers = f" ({100 * coverage:.1f} %)" if isinstance(coverage, (int, float)) else ""
    return " to ".join(num(row[f], "{:.2f}") for f in ("ci_low", "ci_high")) + covers


BENCH_COLUMNS = (
    words("model"),
    words(("quant", "qtype")),
    words("backend"),
    figures("threads", "n_threads", "{:.0f}"),
    ("test", "---:", bench_name),
    figures("t/s", "value", "{:.2f}"),
    ("interval", "---:", interval_text),
    figures("repeats", "n_rep", "{:.0f}"),
)


def bench_section(conn):
    rows = query(
        conn,
        """
        SELECT model, qtype, backend, n_threads, metric, n_pp, n_tg, n_kv, value, ci_low, ci_high,
               n_rep, settings
        FROM selected WHERE test = 'bench' AND metric IN ('pp_tps', 'tg_tps')
              AND COALESCE(subject, '') NOT LIKE '% rep %'
        ORDER BY model, bpw DESC, backend, n_kv, metric, run_id""",
    )
    return ["## Bench", "", *table(BENCH_COLUMNS, rows)] if rows else []


# ---- verdict, charts, provenance ----------------------------------------------------------------


def headline(ppl, sweeps, trouble, n_rows):
    """What one would say in a sentence or two."""
    out = []
    good = [r for r in ppl if math.isfinite(history.number(r["ppl"])) and is_pass(r)]
    best_of = {r["group"]: r for r in reversed(good) if r["ratio"] == 1}
    for best in list(best_of.values())[:3]:
        line = f"{text(best['model'])}: PPL {num(best['ppl'])} with {text(best['qtype'])}"
        others = [r for r in good if r["group"] == best["group"] and r is not best]
        line += "".join(
            f"; {text(r['qtype'])} {text(r['backend'])} {(r['ratio'] - 1) * 100:+.2f} %"
            for r in others[:6]
        )
        out.append(line + ".")
    if sweeps:
        name, rows = max(sweeps, key=lambda s: history.number(s[1][0]["pp_tps"] or 0))
        first, last = rows[0], rows[-1]
        out.append(
            f"Fastest sweep ({name}): PP {num(first['pp_tps'], '{:.0f}')} and TG "
            f"{num(first['tg_tps'], '{:.1f}')} tokens/s at depth {first['n_kv']}, "
            f"{num(last['pp_tps'], '{:.0f}')} and {num(last['tg_tps'], '{:.1f}')} at depth "
            f"{last['n_kv']}."
        )
    n_bad = sum(r["n"] for r in trouble)
    verdict = f"{n_bad} of {n_rows} values did not pass." if n_bad else f"None of {n_rows} values failed."
    return [f"**{verdict}** " + " ".join(out), ""]


TROUBLE_COLUMNS = (
    words("status"),
    words("test"),
    words("model"),
    words(("quant", "qtype")),
    words("backend"),
    words("metrics"),
    figures("values", "n", "{:.0f}"),
)


KERNEL_SQL = """
SELECT s.run_id, s.subject, s.backend, s.qtype, s.n_ubatch, s.n_kv, s.n_threads, MAX(s.settings) AS settings,
       MAX(CASE WHEN metric = 'kernel_us' THEN value END) AS us,
       MAX(CASE WHEN metric = 'kernel_gbs' THEN value END) AS gbs,
       MAX(CASE WHEN metric = 'kernel_gmacs' THEN value END) AS gmacs,
       MAX(CASE WHEN metric = 'kernel_roof' THEN value END) AS roof,
       MAX(CASE WHEN metric = 'kernel_nmse' THEN value END) AS nmse,
       MAX(CASE WHEN metric = 'gpu_sm_mhz' THEN value END) AS sm_mhz,
       (SELECT MAX(p.value) FROM selected AS p WHERE p.run_id = s.run_id AND p.metric = 'peak_gbs'
        AND p.subject = 'read' AND p.backend = s.backend AND p.n_threads = s.n_threads) AS peak_gbs
FROM selected AS s WHERE test = 'kernel-bench'
GROUP BY s.run_id, s.subject, s.backend, s.n_ubatch, s.n_kv, s.n_threads
HAVING us IS NOT NULL
ORDER BY s.backend, s.qtype IS NULL, s.qtype, s.subject, s.n_threads, s.n_kv, s.n_ubatch, s.run_id"""
PEAK_SQL = """
SELECT backend, subject, n_threads, metric, MAX(value) AS value
FROM selected WHERE test = 'kernel-bench'
  AND (metric = 'peak_gmacs' OR metric = 'peak_gbs' AND subject = 'read')
GROUP BY backend, subject, n_threads, metric ORDER BY backend, metric, subject, n_threads"""
NO_THREADS = (0, None)  # of a device
KERNEL_COLUMNS = (
    words(("cell", "subject")),
    words(("weights", "shape")),
    figures("tokens", "n_ubatch", "{:.0f}"),
    figures("depth", "n_kv", "{:.0f}"),
    ("threads", "---:", lambda r: "-" if r["n_threads"] in NO_THREADS else num(r["n_threads"], "{:.0f}")),
    figures("us", "us", "{:.2f}"),
    figures("GB/s", "gbs", "{:.1f}"),
    figures("% of reading", "of_reading", "{:.1f}"),
    figures("G MAC/s", "gmacs", "{:.0f}"),
    figures("roof %", "roof", "{:.1f}"),
    figures("SM MHz", "sm_mhz", "{:.0f}"),
    figures("weights/clock/SM", "per_clock", "{:.2f}"),
    figures("NMSE", "nmse", "{:.0e}"),
)


def setting(row, name):
    try:
        return json.loads(row["settings"] or "{}").get(name)
    except (ValueError, AttributeError):
        return None


def shape(row):
    """Rows and row length of a product's weights; attention has a type of its caches."""
    n_rows, n = setting(row, "n_rows"), setting(row, "n")
    return f"{n_rows} x {n}" if n_rows and n and row["qtype"] is not None and row["n_kv"] is None else None


def per_clock(row):
    """Weights that an SM of a card multiplies with in one clock, for each token of the call."""
    n_sm = setting(row, "n_sm")
    if not n_sm or not row["sm_mhz"] or row["qtype"] is None or row["gmacs"] is None:
        return None
    return row["gmacs"] * 1e3 / (row["n_ubatch"] * n_sm * row["sm_mhz"])


def peak_text(row):
    unit = "GB/s" if row["metric"] == "peak_gbs" else "G MAC/s"
    name = f"{row['subject']}@{row['backend']}" if row["metric"] == "peak_gbs" else row["subject"]
    threads = "" if row["n_threads"] in NO_THREADS else f" with {row['n_threads']} threads"
    return f"{name} {row['value']:.0f} {unit}{threads}"


def kernel_section(conn):
    """Every timed cell, beside what its machine or card can do."""
    rows = query(conn, KERNEL_SQL)
    if not rows:
        return []
    for r in rows:
        r["of_reading"] = 100 * r["gbs"] / r["peak_gbs"] if r["peak_gbs"] else None
        r["per_clock"] = per_clock(r)
        r["shape"] = shape(r)
    if len({r["shape"] for r in rows if r["shape"]}) < 2:
        for r in rows:
            r["shape"] = None
    used = [c for c in KERNEL_COLUMNS if any(c[2](r) != "-" for r in rows)]
    peaks = [peak_text(r) for r in query(conn, PEAK_SQL)]
    return [
        "## Kernels",
        "",
        "Roof: the longer of the bytes at the speed of reading (of a card: copying) and the "
        "multiply-adds at their peak, both measured in the same run.",
        "",
        *([text("Peaks: " + "; ".join(peaks) + "."), ""] if peaks else []),
        *table(used, rows),
    ]


CARD_SQL = """
SELECT model, qtype, backend, test, subject, n_kv,
       MAX(CASE WHEN metric = 'gpu_sm_mhz' THEN value END) AS sm_mhz,
       MAX(CASE WHEN metric = 'gpu_w' THEN value END) AS watts,
       MAX(CASE WHEN metric = 'gpu_jpt' THEN value WHEN metric = 'gpu_jpt_power' THEN value END) AS jpt
FROM selected WHERE metric IN ('gpu_sm_mhz', 'gpu_w', 'gpu_jpt', 'gpu_jpt_power') AND test = 'sweep-bench'
GROUP BY run_id, model_fp, backend, test, subject, n_kv
HAVING watts IS NOT NULL OR jpt IS NOT NULL
ORDER BY model, bpw DESC, subject, run_id, n_kv"""
CARD_COLUMNS = (
    words("model"),
    words(("quant", "qtype")),
    words(("part", "subject")),
    figures("N_KV", "n_kv", "{:.0f}"),
    figures("SM MHz", "sm_mhz", "{:.0f}"),
    figures("W", "watts", "{:.0f}"),
    figures("J/token", "jpt", "{:.3g}"),
)


def card_section(conn):
    """What cards drew, where a part was long enough to tell."""
    rows = query(conn, CARD_SQL)
    return ["## Power of the card", "", *table(CARD_COLUMNS, rows)] if rows else []


def trouble_section(trouble):
    if not trouble:
        return []
    more = len(trouble) - MAX_TROUBLE
    out = ["## Did not pass", "", *table(TROUBLE_COLUMNS, trouble[:MAX_TROUBLE])]
    return out + ([f"and {more} more.", ""] if more > 0 else [])


def chart_section(conn, out_dir, failures):
    """Draw every chart and embed those that have data; what went wrong is added to failures."""
    if not shutil.which("gnuplot"):
        return ["## Charts", "", "Not drawn: gnuplot is not installed.", ""]
    out = ["## Charts", ""]
    for chart in render.chart_names():
        try:
            if render.render_chart(conn, chart, out_dir):
                out += [f"![{TITLES.get(chart, chart)}]({chart}.svg)", ""]
            else:
                print(f"{chart}: no data, skipped")
        except render.DrawError as e:
            failures.append(str(e))
            out += [f"{chart} could not be drawn.", ""]
    return out if len(out) > 2 else []


RUN_COLUMNS = (
    words(("run", "run_id")),
    words(("time (UTC)", "time_utc")),
    ("build", "---", lambda r: build_text(r) + (" + changes" if r["dirty"] else "")),
    words(("test", "tests")),
    words(("model", "models")),
    words(("quant", "qtypes")),
    words(("fingerprint", "fingerprints")),
    words(("cells that ran", "cells")),
    figures("load", "load1", "{:.2f}"),
    figures("values", "n", "{:.0f}"),
)
RUN_SQL = """
SELECT run_id, MAX(time_utc) AS time_utc, engine,
       COALESCE(NULLIF(engine_commit, ''), commit_id) AS "commit", MAX(dirty) AS dirty,
       GROUP_CONCAT(DISTINCT test) AS tests, GROUP_CONCAT(DISTINCT model) AS models,
       GROUP_CONCAT(DISTINCT qtype) AS qtypes, GROUP_CONCAT(DISTINCT model_fp) AS fingerprints,
       GROUP_CONCAT(DISTINCT cells) AS cells, MAX(load1) AS load1, COUNT(*) AS n
FROM selected GROUP BY run_id, engine, engine_commit, commit_id ORDER BY run_id"""
MACHINE_SQL = """
SELECT DISTINCT host, cpu, n_cpus, mem_bytes, governor, cpu_features, gpu, driver, compiler, flags
FROM selected ORDER BY host"""


def machine_text(row):
    """One machine in a line, of what is known about it."""
    known = dict(row)
    if row["mem_bytes"]:
        known["mem_bytes"] = f"{row['mem_bytes'] / 2**30:.1f} GiB"
    if row["n_cpus"]:
        known["n_cpus"] = f"{row['n_cpus']} processors"
    if row["governor"]:
        known["governor"] = f"governor {row['governor']}"
    return ", ".join(text(v) for v in known.values() if v)


def provenance_section(conn):
    machines = [m for m in map(machine_text, query(conn, MACHINE_SQL)) if m]
    return [
        "## Machine and provenance",
        "",
        *(f"- {m}" for m in machines),
        *([""] if machines else []),
        *table(RUN_COLUMNS, query(conn, RUN_SQL)),
    ]


def write_report(conn, out_dir, title, failures):
    """Write the page; returns its path, or None if there are no rows."""
    if conn.execute("SELECT COUNT(*) FROM selected").fetchone()[0] == 0:
        print("no rows, nothing to report")
        return None
    # A comparison has one verdict, which its section tells; its rows are not counted again.
    others = "test IS NOT 'compare'"
    n_rows = conn.execute(f"SELECT COUNT(*) FROM selected WHERE {others}").fetchone()[0]
    ppl, (sweeps, common) = load_ppl(conn), load_sweeps(conn)
    trouble = query(
        conn,
        f"""
        SELECT status, test, model, qtype, backend, GROUP_CONCAT(DISTINCT metric) AS metrics,
               COUNT(*) AS n
        FROM selected WHERE status IS NOT NULL AND status NOT LIKE 'PASS%' AND {others}
        GROUP BY status, test, model, qtype, backend ORDER BY status""",
    )
    os.makedirs(out_dir, exist_ok=True)
    lines = [
        f"# {title}",
        "",
        *compare_section(load_comparisons(conn)),
        *(headline(ppl, sweeps, trouble, n_rows) if n_rows else []),
        *trouble_section(trouble),
        *ppl_section(ppl),
        *sweep_section(sweeps, common),
        *card_section(conn),
        *bench_section(conn),
        *kernel_section(conn),
        *chart_section(conn, out_dir, failures),
        *provenance_section(conn),
    ]
    path = os.path.join(out_dir, "README.md")
    with open(path + ".part", "w", encoding="utf-8") as f:
        f.write("\n".join(lines).rstrip() + "\n")
    os.replace(path + ".part", path)
    return path


def main():
    parser = argparse.ArgumentParser(description="Write a Markdown report about some runs.")
    history.add_arguments(parser)
    parser.add_argument(
        "--out", default=os.path.join(history.ROOT, "results", "latest"), metavar="DIR"
    )
    parser.add_argument("--title", default="ggauge results")
    args = parser.parse_args()
    failures = []
    try:
        path = write_report(history.from_arguments(args), args.out, args.title, failures)
    except (OSError, history.sqlite3.Error, history.HistoryError) as e:
        return history.fail("report.py", e)
    if path:
        print(path)
    for failure in failures:
        history.fail("report.py", failure)
    return 3 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
