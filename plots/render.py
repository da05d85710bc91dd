#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""render.py - draw the charts: <chart>.sql asks the history, <chart>.gp draws SVG and PNG.

A chart is a pair of files of the same stem in this folder; there is no other registration. The
query reads the view `selected` and names its columns by what they are for:

    x, y, y_low, y_high   one point and its interval (y_low, y_high may be absent or NULL)
    label_FIELD           fields by which curves differ: rows with other values are another curve
    point_FIELD           fields by which the points of a curve differ; they are written beside it
    run_id, series_FIELD  also keep curves apart, without being written
    scale_y               0: the point does not count for the range of the y axis
    from_zero             1: the y axis begins at 0, unless all values are close to each other
    x_log                 1: the x axis is logarithmic
    y_mark                a level above and below 0 that the curve is to be read against
    name_FIELD            written behind the name of the curve, as its verdict
    node, heat            instead of x and y: a heat map for each curve (see heat.py)

The data go to OUT/<chart>.dat (blocks for gnuplot's `index`), so that they can be drawn again.
Exit codes: 0 drawn, or nothing to draw; 2 usage; 3 no gnuplot, unusable history, gnuplot failed.
"""

import argparse
import collections
import glob
import math
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys

import heat
import history
import labels

HERE = os.path.dirname(os.path.abspath(__file__))
FORMATS = ("svg", "png")
MAX_CURVES = 8  # as many as style.gp can tell apart
LOG_RATIO = 12  # beyond that a linear axis hides the small values
CANVAS_W, PLOT_H = 800, 350
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_X_AXIS = 88, 28, 58, 62
LEGEND_LINE_H = 18
BPW_TICS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)


class DrawError(history.HistoryError):
    """gnuplot failed on one chart; the others may still be drawn."""


Point = collections.namedtuple("Point", "x y low high fields scales")


class Curve:
    def __init__(self, run_id, fields):
        self.run_id, self.fields, self.points, self.name = run_id, fields, [], ""
        self.from_zero = self.x_log = False
        self.y_mark = math.nan
        self.says = ""
        self.nodes = []  # of a heat map: (node, heat)


def chart_names():
    """Every chart there is."""
    stems = (os.path.splitext(p)[0] for p in glob.glob(os.path.join(HERE, "*.sql")))
    return sorted(os.path.basename(s) for s in stems if os.path.exists(s + ".gp"))


def load_curves(conn, chart):
    """Run the query of a chart; curves in order of appearance."""
    path = os.path.join(HERE, chart + ".sql")
    try:
        with open(path, encoding="utf-8") as f:
            cursor = conn.execute(f.read())
        names = [d[0] for d in cursor.description]
        rows = [dict(zip(names, r)) for r in cursor]
    except (OSError, sqlite3.Error) as e:
        raise history.HistoryError(f"{path}: {e}") from e
    curves = {}
    for row in rows:
        fields = {n[6:]: v for n, v in row.items() if n.startswith("label_")}
        key = tuple(
            v for n, v in row.items() if n == "run_id" or n.startswith(("label_", "series_"))
        )
        curve = curves.setdefault(key, Curve(row.get("run_id") or "", fields))
        curve.from_zero, curve.x_log = row.get("from_zero") == 1, row.get("x_log") == 1
        curve.y_mark = history.number(row.get("y_mark"))
        curve.says = ", ".join(str(v) for n, v in row.items() if n.startswith("name_") and v)
        if "heat" in row:
            curve.nodes.append((str(row["node"]), history.number(row["heat"])))
            continue
        curve.points.append(
            Point(
                *(history.number(row.get(n)) for n in ("x", "y", "y_low", "y_high")),
                {n[6:]: v for n, v in row.items() if n.startswith("point_")},
                row.get("scale_y") != 0,
            )
        )
    return list(curves.values())


def is_drawn(point):
    """Whether a point has a place in the chart."""
    return math.isfinite(point.x) and math.isfinite(point.y)


def keep_newest(curves):
    """At most MAX_CURVES, by run_id, which begins with the time; the order stays."""
    newest = sorted(curves, key=lambda c: c.run_id, reverse=True)[:MAX_CURVES]
    return [c for c in curves if c in newest]


def log_tics(low, high):
    """Tics of a logarithmic axis, as gnuplot wants them."""
    steps = (1, 2, 5) if high / low < 3000 else (1,)
    tics = [m * 10**k for k in range(-12, 13) for m in steps]
    return ", ".join(f"{t:g}" for t in tics if low <= t <= high)


def y_axis(points, from_zero, marks):
    """(low, high, logarithmic, tics as gnuplot wants them) so that every value can be read."""
    scaling = [p for p in points if p.scales] or points
    low, high = min(p.y for p in scaling), max(p.y for p in scaling)
    bars = [(p.low, p.high) for p in scaling if math.isfinite(p.low) and math.isfinite(p.high)]
    if bars and len(scaling) < len(points):  # a curve that settles: its first bands may be cut
        widest = 4 * statistics.median(b[1] - b[0] for b in bars)
        bars = [b for b in bars if b[1] - b[0] <= widest]
    low = min([low] + [b[0] for b in bars] + [-m for m in marks])
    high = max([high] + [b[1] for b in bars] + marks)
    if low > 0 and high / low > LOG_RATIO:
        low, high = low / 1.3, high * 1.3
        return low, high, True, log_tics(low, high)
    if from_zero and 0 <= low < 0.5 * high:
        return 0.0, high * 1.06, False, ""
    pad = 0.08 * (high - low) or 0.02 * abs(high) or 1.0
    return low - pad, high + pad, False, ""


def x_axis(points, has_texts, x_log):
    """(low, high, logarithmic, tics)."""
    low, high = min(p.x for p in points), max(p.x for p in points)
    if x_log:
        low, high = low / 1.3, high * 1.3
        return low, high, True, log_tics(low, high)
    if has_texts and low > 0 and high / low > 3:  # sizes: the small ones lie close together
        low, high = low / 1.2, high * 1.2
        tics = ", ".join(str(t) for t in BPW_TICS if low <= t <= high)
        return low, high, True, tics
    if has_texts:  # room for what is written beside the outermost points
        pad = 0.12 * (high - low) or 0.25
        return low - pad, high + pad, False, ""
    return (0.0 if 0 < low < 0.5 * high else low), high if high > low else high + 1, False, ""


class Frame:
    """The plot area: pixels (y upwards) from data and back."""

    def __init__(self, x_range, x_log, y_range, y_log, legend_lines):
        self.log = (x_log, y_log)
        self.low = self._scaled(x_range[0], y_range[0])
        self.high = self._scaled(x_range[1], y_range[1])
        self.bottom = MARGIN_X_AXIS + 10 + LEGEND_LINE_H * legend_lines
        self.canvas_h = self.bottom + PLOT_H + MARGIN_TOP
        self.box = (MARGIN_LEFT, self.bottom, CANVAS_W - MARGIN_RIGHT, self.bottom + PLOT_H)

    def _scaled(self, *xy):
        return [math.log10(v) if is_log else v for v, is_log in zip(xy, self.log)]

    def pixel(self, x, y):
        return tuple(
            self.box[k]
            + (v - self.low[k]) / (self.high[k] - self.low[k]) * (self.box[k + 2] - self.box[k])
            for k, v in enumerate(self._scaled(x, y))
        )

    def value(self, *pixel):
        at = [
            self.low[k]
            + (v - self.box[k]) / (self.box[k + 2] - self.box[k]) * (self.high[k] - self.low[k])
            for k, v in enumerate(pixel)
        ]
        return tuple(10**v if is_log else v for v, is_log in zip(at, self.log))


def place_texts(curves, frame):
    """{id of a point: (text_x, text_y, lead_x, lead_y, side, text)}, and what all points share."""
    points = [p for c in curves for p in c.points if is_drawn(p)]
    differ = labels.varying([p.fields for p in points])
    texts = []
    for curve in curves:
        drawn = [p for p in curve.points if is_drawn(p)]
        apart = set(labels.varying([p.fields for p in drawn])) | (set(differ[:1]) or {"qtype"})
        texts += [labels.write(p.fields, [f for f in p.fields if f in apart], " ") for p in drawn]
    at = [frame.pixel(p.x, p.y) for p in points]
    bars = []
    for p, (x, _) in zip(points, at):
        if math.isfinite(p.low) and math.isfinite(p.high) and (p.low > 0 or not frame.log[1]):
            bars.append((x - 3, frame.pixel(p.x, p.low)[1], x + 3, frame.pixel(p.x, p.high)[1]))
    spots = labels.place(at, texts, bars, frame.box)
    common = labels.write(points[0].fields, [f for f in points[0].fields if f not in differ])
    return {
        id(p): (*frame.value(*s[:2]), *frame.value(*s[2:4]), s[4], text)
        for p, text, s in zip(points, texts, spots)
    }, common


def write_data(path, chart, curves, texts):
    """The .dat file: one block a curve, two blank lines between blocks, nan for what is absent."""

    def num(v):
        return f"{v:.10g}" if math.isfinite(v) else "nan"

    columns = "x y y_low y_high" + (" text_x text_y lead_x lead_y side text" if texts else "")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"# {chart}\n# columns: {columns}\n")
        for i, curve in enumerate(curves):
            f.write(("\n\n" if i else "") + f"# {i}: {curve.name}\n")
            for p in curve.points:
                cells = [num(p.x), num(p.y), num(p.low), num(p.high)]
                if id(p) in texts:
                    *where, text = texts[id(p)]
                    text = text.replace('"', "'")
                    cells += [num(v) for v in where] + [f'"{text}"']
                f.write(" ".join(cells) + "\n")


def quote(text):
    """A gnuplot string."""
    return "'" + str(text).replace("'", "''").replace("\n", " ") + "'"


def run_gnuplot(chart, fmt, out, variables, names):
    """Draw one picture; it appears only when complete."""
    part = out + ".part"
    lines = [f"{k} = {quote(v) if isinstance(v, str) else repr(v)}" for k, v in variables.items()]
    lines += [f"fmt = {quote(fmt)}", f"out = {quote(part)}", f"array name[{len(names)}]"]
    lines += [f"name[{i}] = {quote(n)}" for i, n in enumerate(names, 1)]
    lines += [
        f"load {quote(os.path.join(HERE, 'style.gp'))}",
        f"load {quote(os.path.join(HERE, chart + '.gp'))}",
        "set output",
    ]
    env = dict(os.environ, LC_ALL="C", LANG="C")
    done = subprocess.run(
        ["gnuplot", "-"],
        input="\n".join(lines) + "\n",
        text=True,
        check=False,
        encoding="utf-8",
        capture_output=True,
        env=env,
    )
    if done.returncode != 0 or not os.path.exists(part) or os.path.getsize(part) == 0:
        if os.path.exists(part):
            os.remove(part)
        raise DrawError(
            f"gnuplot failed on {chart}.gp (status {done.returncode}): {done.stderr.strip()}"
        )
    os.replace(part, out)


def name_curves(curves):
    """Give every curve its name; returns what all share."""
    names, common = labels.distinguish(
        [c.fields for c in curves], always=("model", "qtype", "backend")
    )
    for curve, name in zip(curves, names):
        curve.name = labels.shorten(": ".join(filter(None, (name, curve.says))), labels.MAX_LABEL)
    return common


def canvas(data, height, box, notes):
    """What every chart tells style.gp."""
    return {
        "data": data,
        "subtitle": labels.shorten("; ".join(filter(None, notes)), labels.MAX_SUBTITLE),
        "canvas_w": CANVAS_W,
        "canvas_h": height,
        "plot_left": box[0] / CANVAS_W,
        "plot_right": box[2] / CANVAS_W,
        "plot_bottom": box[1] / height,
        "plot_top": box[3] / height,
    }


def lay_out_curves(chart, curves, notes, out_dir):
    """Write the data of curves; returns the variables of style.gp."""
    points = [p for c in curves for p in c.points if is_drawn(p)]
    has_texts = bool(points[0].fields)
    legend_lines = math.ceil(len(curves) / (1 if max(len(c.name) for c in curves) > 42 else 2))
    marks = sorted({c.y_mark for c in curves if math.isfinite(c.y_mark)})
    y_lo, y_hi, y_log, y_tics = y_axis(points, curves[0].from_zero, marks)
    x_lo, x_hi, x_log, x_tics = x_axis(points, has_texts, curves[0].x_log)
    frame = Frame((x_lo, x_hi), x_log, (y_lo, y_hi), y_log, legend_lines)
    texts = {}
    if has_texts:
        texts, shared = place_texts(curves, frame)
        notes[0] = ", ".join(filter(None, (notes[0], shared)))
    data = os.path.join(out_dir, chart + ".dat")
    write_data(data, chart, curves, texts)
    has_bars = any(math.isfinite(p.low) and math.isfinite(p.high) for p in points)
    return {
        **canvas(data, frame.canvas_h, frame.box, notes),
        "n_series": len(curves),
        "legend_lines": legend_lines,
        "x_lo": x_lo,
        "x_hi": x_hi,
        "y_lo": y_lo,
        "y_hi": y_hi,
        "x_log": int(x_log),
        "x_tics": x_tics,
        "y_log": int(y_log),
        "y_tics": y_tics,
        "y_marks": " ".join(f"{m:.9g}" for m in marks),
        "bars": "; bars: 95 % interval" if has_bars else "",
    }


def lay_out_heat(chart, curves, notes, out_dir):
    """The same for heat maps, whose coordinates are the pixels of the canvas."""
    maps = [heat.Map(f"{c.name}; worst {heat.worst_text(c.nodes)}", c.nodes) for c in curves]
    layout = heat.Layout(maps, CANVAS_W)
    data = os.path.join(out_dir, chart + ".dat")
    heat.write_data(data, chart, layout, [(c.name, c.nodes) for c in curves])
    box = (heat.EDGE, 0, CANVAS_W - heat.EDGE, layout.height)
    return {
        **canvas(data, layout.height, box, notes),
        "legend_lines": 1,
        "x_lo": 0,
        "x_hi": CANVAS_W,
        "y_lo": 0,
        "y_hi": layout.height,
        "x_log": 0,
        "x_tics": "",
        "y_log": 0,
        "y_tics": "",
    }


def render_chart(conn, chart, out_dir, formats=FORMATS):
    """Draw one chart; returns the files written, or () if there is nothing to draw."""
    found = load_curves(conn, chart)
    n_bad = sum(not is_drawn(p) for c in found for p in c.points)
    found = [c for c in found if c.nodes or any(map(is_drawn, c.points))]
    curves = keep_newest(found)
    if not curves:
        return ()
    notes = [name_curves(curves)]
    if len(found) > len(curves):
        notes.append(f"newest {len(curves)} of {len(found)} curves")
    if n_bad:
        notes.append(f"{n_bad} values are not finite")
    os.makedirs(out_dir, exist_ok=True)
    lay_out = lay_out_heat if curves[0].nodes else lay_out_curves
    variables = lay_out(chart, curves, notes, out_dir)
    files = []
    for fmt in formats:
        files.append(os.path.join(out_dir, f"{chart}.{fmt}"))
        run_gnuplot(chart, fmt, files[-1], variables, [c.name for c in curves])
    return (*files, variables["data"])


def main():
    parser = argparse.ArgumentParser(description="Draw the charts of the results as SVG and PNG.")
    history.add_arguments(parser)
    parser.add_argument(
        "--out", default=os.path.join(history.ROOT, "results", "latest"), metavar="DIR"
    )
    parser.add_argument(
        "--charts",
        nargs="+",
        default=chart_names(),
        metavar="CHART",
        help="only these (all: " + " ".join(chart_names()) + ")",
    )
    args = parser.parse_args()
    unknown = set(args.charts) - set(chart_names())
    if unknown:
        parser.error(f"no chart {' '.join(sorted(unknown))}; there are: {' '.join(chart_names())}")
    if not shutil.which("gnuplot"):
        return history.fail(
            "render.py", "gnuplot is not installed (package gnuplot-nox); `make setup`"
        )
    try:
        conn = history.from_arguments(args)
        for chart in args.charts:
            files = render_chart(conn, chart, args.out)
            print("\n".join(files) if files else f"{chart}: no data, skipped")
    except (OSError, history.HistoryError) as e:
        return history.fail("render.py", e)
    return 0


if __name__ == "__main__":
    sys.exit(main())
