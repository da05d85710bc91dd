# SPDX-License-Identifier: MIT
"""labels.py - short names for curves, and places for the names of points.

A curve is named by what sets it apart from the others of its chart; what all share goes into the
subtitle. Python standard library only.
"""

import re

# How a field is written: the options of the command line where there is one. Default: "{}".
FORMATS = {
    "n_ctx": "-c {}",
    "n_ubatch": "-ub {}",
    "n_threads": "-t {}",
    "type_k": "-ctk {}",
    "type_v": "-ctv {}",
    "n_pp": "PP {}",
    "n_tg": "TG {}",
    "chunks": "{} chunks",
}
MAX_LABEL = 88  # characters that fit into a legend line of its own
MAX_SUBTITLE = 108  # characters that fit above the chart
GLYPH_W, GLYPH_H = 7.4, 15  # pixels, a mean character of the charts' font


def shorten(text, limit):
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def write_field(name, value):
    if value is None or value in ("", "unknown"):
        return ""
    text = str(value)
    if re.fullmatch(r"[0-9a-f]{40}", text):
        text = text[:7]
    return FORMATS.get(name, "{}").format(text)


def varying(items):
    """The fields in which items, a list of {field: value}, differ."""
    return [f for f in (items[0] if items else ()) if len({it[f] for it in items}) > 1]


def write(item, fields, separator=", "):
    return separator.join(filter(None, (write_field(f, item[f]) for f in fields if f in item)))


def distinguish(items, always=()):
    """Returns a name for each item by what sets it apart, and what all share.

    always: fields to name the items by when nothing sets them apart."""
    differ = varying(items)
    names = [write(it, differ or always) for it in items]
    for name in {n for n in names if names.count(n) > 1}:
        same = [i for i, n in enumerate(names) if n == name]
        for k, i in enumerate(same, 1):
            names[i] = f"{name} #{k}".strip()
    common = write(items[0], [f for f in items[0] if f not in differ]) if items else ""
    return [shorten(n, MAX_LABEL) for n in names], common


def _overlap(a, b):
    """Common area of two rectangles (x0, y0, x1, y1)."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    return w * h if w > 0 and h > 0 else 0.0


def _candidates(x, y, w):
    """Rectangles around a point, the best place first; rings further out come later."""
    for ring in range(6):
        d, v = 9 + 14 * ring, 14 + 16 * ring
        for dx, dy in (
            (d, 0),
            (d, v),
            (d, -v),
            (-w / 2, v),
            (-w / 2, -v),
            (-d - w, 0),
            (-d - w, v),
            (-d - w, -v),
            (9, v),
            (9, -v),
            (-9 - w, v),
            (-9 - w, -v),
        ):
            yield ring, (x + dx, y + dy - GLYPH_H / 2, x + dx + w, y + dy + GLYPH_H / 2)


def _lead(point, box):
    """Where a line from the point to its text ends; the point itself if the text is near."""
    x, y = point
    mid = (box[1] + box[3]) / 2
    near = min(max(x, box[0] - 3), box[2] + 3)
    edge = mid if near != x else (box[1] if mid > y else box[3])
    return (near, edge) if abs(near - x) + abs(edge - y) > 14 else point


def _crosses(start, end, box):
    """Whether the line from start to end touches the rectangle."""
    for k in range(1, 12 if start != end else 0):
        x, y = (a + (b - a) * k / 12 for a, b in zip(start, end))
        if box[0] <= x <= box[2] and box[1] <= y <= box[3]:
            return True
    return False


def _cost(i, box, points, boxes, marks, frame):
    """How bad this place is for text i: what it covers, what its line crosses, what is cut off."""
    cut_off = 1 - _overlap(box, frame) / ((box[2] - box[0]) * GLYPH_H)
    lead = _lead(points[i], box)
    cost = 20000 * cut_off
    for m in marks:
        cost += _overlap(box, m)
        if not m[0] - 6 <= points[i][0] <= m[2] + 6:  # not the point's own mark or bar
            cost += 300 * _crosses(points[i], lead, m)
    for k, other in enumerate(boxes):
        if k != i and other:
            cost += 3 * _overlap(box, other) + 400 * (
                _crosses(points[i], lead, other) + _crosses(points[k], _lead(points[k], other), box)
            )
    return cost


def place(points, texts, obstacles, frame):
    """Where to write each text so that it covers no point, no obstacle and no other text.

    points: pixel positions; obstacles, frame: pixel rectangles. Returns for each (x, y of the
    middle of one edge, x, y where a line from the point should end, 1 for the left edge or -1).
    """
    marks = [(x - 6, y - 6, x + 6, y + 6) for x, y in points] + list(obstacles)
    boxes = [None] * len(points)
    for _ in range(3):  # later rounds can use the room that others have left
        for i, (x, y) in enumerate(points):
            choices = list(_candidates(x, y, GLYPH_W * max(1, len(texts[i]))))
            costs = [
                _cost(i, box, points, boxes, marks, frame) + 12 * ring + 0.1 * order
                for order, (ring, box) in enumerate(choices)
            ]
            boxes[i] = choices[costs.index(min(costs))][1]
    result = []
    for point, box in zip(points, boxes):
        side = -1 if box[2] < point[0] else 1
        result.append(
            (box[0] if side > 0 else box[2], (box[1] + box[3]) / 2, *_lead(point, box), side)
        )
    return result
