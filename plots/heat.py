# SPDX-License-Identifier: MIT
"""heat.py - lay out heat maps of nodes: a column per layer, a row per operation in run order.

A node is named "NAME-LAYER/OCCURRENCE" ("cache_k_lLAYER" for the cache), or "NAME/OCCURRENCE" outside
of the layers, which have the first column. Several maps stand side by side if they are narrow, below each other otherwise.
Everything is in pixels of the canvas, y upwards. Python standard library only.
"""

import math
import re

import labels

CELL_H = 15
CELL_W = (5, 44)  # at least, at most
SIDE_BY_SIDE_W = 14  # cells must stay this wide for two maps in a row
HEAD_H, FOOT_H, GAP = 24, 22, 14  # of one map
HEAD_GLYPH_W = 6.7  # a mean character of a whole sentence
APART = 5  # between what is outside of the layers and the first of them
TOP, BOTTOM, EDGE = 52, 76, 24  # of the canvas
COOLEST, HOTTEST = 1e-5, 1e2  # what the colours tell apart
OUTSIDE = -1


class Map:
    """The cells of one comparison: {(operation, layer): heat}, nan for what is not finite."""

    def __init__(self, head, nodes):
        self.head, self.ops, self.cells = head, [], {}
        before = None
        for node, heat in nodes:
            op, layer = split(node)
            if op not in self.ops:  # an operation of some layers only stands behind its predecessor
                self.ops.insert(self.ops.index(before) + 1 if before in self.ops else 0, op)
            self.cells[op, layer] = heat
            before = op
        self.layers = sorted({layer for _, layer in self.cells})


def split(node):
    """("ffn_out", 3) of "ffn_out-3/0"; a later occurrence is an operation of its own."""
    parts = re.fullmatch(r"(.*?)(?:(?:-|(?<=cache_[kv])_l)(\d+))?(?:/(\d+))?", node, re.S)
    name, layer, occurrence = parts.groups()
    number = int(occurrence or 0)
    return name + (f" #{number + 1}" if number else ""), OUTSIDE if layer is None else int(layer)


def hottest(nodes):
    """The worst node and its heat; what is not finite is worse than anything."""
    return max(nodes, key=lambda n: math.inf if math.isnan(n[1]) else n[1])


def worst_text(nodes):
    """ "ffn_out-3, 0.5 × limit": the worst node in words."""
    node, heat = hottest(nodes)
    how = "not finite" if math.isnan(heat) else f"{heat:.2g} × limit"
    return f"{re.sub('/0$', '', node)}, {how}"


class Layout:
    """Blocks of texts and cells for gnuplot, filled map by map."""

    def __init__(self, maps, width):
        self.maps, self.width = maps, width
        self.names_w = labels.GLYPH_W * max(len(op) for m in maps for op in m.ops) + 6
        widest = max(len(m.layers) for m in maps)
        half = (width - 2 * EDGE - GAP) / 2
        self.per_row = 2 if len(maps) > 1 and half - self.names_w >= SIDE_BY_SIDE_W * widest else 1
        self.map_w = half if self.per_row == 2 else width - 2 * EDGE
        self.rows = [maps[i : i + self.per_row] for i in range(0, len(maps), self.per_row)]
        self.height = TOP + BOTTOM + sum(map(self.row_h, self.rows))
        self.cells, self.broken = [], []
        self.op_texts, self.layer_texts, self.heads, self.values = [], [], [], []
        top = self.height - TOP
        for row in self.rows:
            for k, m in enumerate(row):
                self.put(m, EDGE + k * (self.map_w + GAP), top)
            top -= self.row_h(row)

    @staticmethod
    def row_h(row):
        return HEAD_H + FOOT_H + CELL_H * max(len(m.ops) for m in row)

    def put(self, m, left, top):
        room = (self.map_w - self.names_w - APART) / len(m.layers)
        w, x0 = min(max(room, CELL_W[0]), CELL_W[1]), left + self.names_w
        apart = APART if m.layers[0] == OUTSIDE else 0
        at = {v: x0 + w * k + (0 if v == OUTSIDE else apart) for k, v in enumerate(m.layers)}
        limit = int(self.map_w / HEAD_GLYPH_W)
        self.heads.append((left, top - HEAD_H / 2, labels.shorten(m.head, limit)))
        for i, op in enumerate(m.ops):
            self.op_texts.append((x0 - 6, self.middle(top, i), op))
        for (op, layer), heat in m.cells.items():
            self.put_cell(at[layer], self.middle(top, m.ops.index(op)), w, heat)
        step = next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 100, 1000) if s * w >= 20)
        foot = top - HEAD_H - CELL_H * len(m.ops) - 9
        for layer in m.layers:
            if layer == OUTSIDE or layer % step == 0:
                self.layer_texts.append((at[layer] + w / 2, foot, "–" if layer < 0 else layer))

    def middle(self, top, i):
        return top - HEAD_H - CELL_H * (i + 0.5)

    def put_cell(self, x, y, w, heat):
        gap = 0.5 if w > 8 else 0.25
        h = CELL_H / 2 - 0.5
        box = (x + w / 2, y, x + gap, x + w - gap, y - h, y + h)
        if math.isnan(heat):
            self.broken.append(box)
            return
        self.cells.append((*box, math.log10(min(max(heat, COOLEST), HOTTEST))))
        if heat > 1 and w >= 26:
            self.values.append((box[0], y, f"{heat:.1f}" if heat < 99.5 else ">99"))

    def blocks(self):
        """The data file's blocks. gnuplot skips none that has a point, so each has one."""
        nothing = {6: (0,) * 6, 7: (0,) * 7, 3: (0, 0, "")}
        for rows, n in (
            (self.cells, 7),
            (self.broken, 6),
            (self.op_texts, 3),
            (self.layer_texts, 3),
            (self.heads, 3),
            (self.values, 3),
        ):
            yield rows or [nothing[n]]


def write_data(path, chart, layout, named):
    """named: [(name of a map, its nodes)], written as comments, so that the values can be read."""

    def cell(v):
        return f"{v:.6g}" if isinstance(v, float) else f'"{v}"' if isinstance(v, str) else str(v)

    with open(path, "w", encoding="utf-8") as f:
        f.write(f"# {chart}\n")
        for name, nodes in named:
            f.write(f"# {name}\n" + "".join(f"#   {n} {h:.6g}\n" for n, h in nodes))
        f.write(
            "\n\n\n".join(
                "\n".join(" ".join(map(cell, row)) for row in block) for block in layout.blocks()
            )
            + "\n"
        )
