#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What ptxas says of every kernel, as results/cuda_ptxas.csv (`make cuda-report`): registers, stack, spills
and static shared memory for each kind of card. A kernel that spills is an exit code of 1.

usage: ptxas.py FILE.ptxas ..."""
import csv
import pathlib
import re
import subprocess
import sys

OUT = pathlib.Path(__file__).resolve().parent.parent / "results" / "cuda_ptxas.csv"


def kernels(path):
    name = arch = frame = None
    for line in path.read_text().splitlines():
        if m := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            name, arch, frame = m[1], m[2], (0, 0, 0)
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            frame = tuple(map(int, m.groups()))
        elif (m := re.search(r"Used (\d+) registers", line)) and name:
            yield path.name.removesuffix(".cu.ptxas"), name, arch, int(m[1]), *frame
            name = None


def main():
    rows = [row for f in sys.argv[1:] for row in kernels(pathlib.Path(f))]
    names = subprocess.run(["c++filt"], input="\n".join(r[1] for r in rows), text=True, capture_output=True,
                           check=True).stdout.splitlines()
    table = sorted((r[0], re.sub(r"^void |\(.*\)$", "", n), *r[2:]) for r, n in zip(rows, names))
    with OUT.open("w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["file", "kernel", "arch", "registers", "stack_bytes", "spill_store_bytes", "spill_load_bytes"])
        w.writerows(table)
    spilled = [r for r in table if r[5] or r[6]]
    for r in spilled:
        print(f"{r[1]} spills on {r[2]}: {r[5]} bytes stored, {r[6]} loaded")
    print(f"ptxas: {len(table)} kernels, {len(spilled)} spill")
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
