#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tables of cells against the symbols of the library: a Y without its symbol, a symbol without its
Y, or a weight type without a golden vector fails. usage: check_cells.py LIBGGAUGE.A"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS = ["ref", "avx2", "avx512", "amx", "amx_requant", "cuda"]


def rows(header: str, macro: str) -> dict[str, list[str]]:
    text = (ROOT / "kernels" / header).read_text()
    body = re.search(rf"#define {macro}\(X\)(.*?)\n\n", text, re.S)[1]
    table = {}
    for row in re.findall(r"X\(([^)]*)\)", body):
        cells = [c.strip() for c in row.split(",")]
        table[cells[0]] = cells[-6:]
    return table


def main() -> int:
    problems = []
    out = subprocess.run(["nm", "--defined-only", sys.argv[1]], capture_output=True, text=True,
                         check=True).stdout
    symbols = set(re.findall(r"^\S+ [RDd] (\w+)$", out, re.M))
    expected = set()
    types, ops = rows("qtype.h", "QTYPE_LIST"), rows("op.h", "OP_LIST")
    peaks = rows("peak_cell.h", "PEAK_LIST")
    for prefix, table in (("", types), ("op_", ops), ("peak_", peaks)):
        for name, cells in table.items():
            for column, cell in zip(COLUMNS, cells):
                symbol = f"{prefix}{name}_{column}"
                if cell == "Y":
                    expected.add(symbol)
                    if symbol not in symbols:
                        problems.append(f"{name}: column {column} says Y, but there is no {symbol}")
    pattern = re.compile(r"(op_|peak_)?(" + "|".join([*types, *ops, *peaks]) + r")_(" + "|".join(COLUMNS) + ")$")
    for symbol in sorted(symbols - expected):
        if pattern.match(symbol):
            problems.append(f"{symbol} exists, but the table does not say Y")
    golden = {f.name.split(".")[0] for f in (ROOT / "tests" / "golden").rglob("*.bin")}
    for name, cells in types.items():
        if cells[0] == "Y" and name != "f32" and not {name, "act_" + name} & golden:
            problems.append(f"{name}: no golden vector in tests/golden")
    print("\n".join(problems) if problems else f"cells: {len(expected)} as the tables say")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
