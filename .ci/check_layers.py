#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What may include what: every #include "..." of kernels/ and harness/ against the table of layers."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# folder -> folders it may include, besides itself
TABLES = ["kernels"]  # kernels/*.h
LAYERS = {
    "kernels/base": [],
    "kernels": ["kernels/base"],
    "kernels/tmpl": ["kernels/base", "kernels"],
    "kernels/ref": ["kernels/base", "kernels", "kernels/tmpl"],
    "kernels/avx2": ["kernels/base", "kernels", "kernels/tmpl"],
    "kernels/avx512": ["kernels/base", "kernels", "kernels/tmpl"],
    "kernels/amx": ["kernels/base", "kernels", "kernels/tmpl", "kernels/avx512"],
    "kernels/amx_requant": ["kernels/base", "kernels", "kernels/tmpl", "kernels/avx512", "kernels/amx"],
    "kernels/cuda": ["kernels/base", "kernels", "kernels/tmpl"],
    "harness/stats": ["kernels/base"],
    "harness/gguf": ["kernels/base", "kernels"],
    "harness/tok": ["kernels/base", "kernels", "harness/gguf"],
    "harness/result": ["kernels/base", "kernels", "harness/stats"],
    "harness/model": ["kernels/base", "kernels", "harness/gguf"],
    "harness/exec": ["kernels/base", "kernels", "harness/gguf", "harness/model"],
    "harness/arm": ["kernels/base", "kernels", "harness/stats", "harness/gguf", "harness/tok",
                    "harness/result", "harness/model", "harness/exec"],
}
LAYERS["harness/worker"] = LAYERS["harness/arm"] + ["harness/arm"]
LAYERS["harness/measure"] = LAYERS["harness/arm"] + ["harness/arm"]
LAYERS["harness/quant"] = LAYERS["harness/measure"] + ["harness/measure"]
LAYERS["harness/cli"] = LAYERS["harness/quant"] + ["harness/quant"]

# of another engine, and of its configuration: only workers see them
ENGINE_HEADERS = ("llama.h", "ggml.h", "ggml-backend.h", "libllama_config.h")

# libraries and the only folders that may use them
LIBRARIES = {
    "pcre2.h": ["harness/tok", "harness/exec"],
    "sqlite3.h": ["harness/result"],
    "jansson.h": ["harness/result", "harness/measure", "harness/cli"],
    "xxhash.h": ["harness/gguf", "harness/tok", "harness/result"],
    "hwloc.h": ["harness/exec"],
    "immintrin.h": ["kernels/avx2", "kernels/avx512", "kernels/amx", "kernels/amx_requant"],
}


def folder_of_include(name: str, here: pathlib.Path) -> str | None:
    for base in (here.parent, ROOT / "kernels", ROOT / "harness"):
        f = base / name
        if f.exists():
            return str(f.resolve().parent.relative_to(ROOT))
    return None


def main() -> int:
    problems = []
    files = sorted(f for d in ("kernels", "harness") for f in (ROOT / d).rglob("*")
                   if f.suffix in (".c", ".h", ".cu", ".cuh"))
    for f in files:
        folder = str(f.parent.relative_to(ROOT))
        if folder not in LAYERS:
            problems.append(f"{f.relative_to(ROOT)}: folder {folder} has no layer")
            continue
        for n, line in enumerate(f.read_text().splitlines(), 1):
            where = f"{f.relative_to(ROOT)}:{n}"
            m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if m and m[1] != "emu.h":  # tests/cuda_emu stands in for the runtime of CUDA
                if m[1] in ENGINE_HEADERS and folder == "harness/worker":
                    continue
                target = folder_of_include(m[1], f)
                if target is None:
                    problems.append(f"{where}: {m[1]} not found")
                elif target != folder and target not in LAYERS[folder]:
                    problems.append(f"{where}: {folder} may not include {target}")
            m = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
            if m and m[1] in LIBRARIES and folder not in LIBRARIES[m[1]]:
                problems.append(f"{where}: {folder} may not use {m[1]}")
            if folder in ("harness/model", "harness/exec") and re.match(
                    r"\s*#\s*if.*__(AVX|AMX|CUDA)", line):
                problems.append(f"{where}: no #if on instruction sets here")
    names = {}
    for f in files:
        if f.name in names:
            problems.append(f"{f.relative_to(ROOT)} and {names[f.name]}: file names must be unique")
        names[f.name] = f.relative_to(ROOT)
    print("\n".join(problems) if problems else f"layers: {len(files)} files in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
