#!/bin/sh
# SPDX-License-Identifier: MIT
# Everything that a machine with a card needs to check the cuda column, in one folder: the program, the
# plug-in, tests, libraries that a bare machine lacks, models and a text. `make cuda-bundle`.
#
# usage: cuda_bundle.sh OUT BUILD TESTS SHARED
set -e
cd "$(dirname "$0")/.."
out=$1 build=$2 tests=$3 shared=$4
[ -f "$build/libggauge-cuda.so" ] || { echo "cuda-bundle: no plug-in: make cuda needs nvcc" >&2; exit 3; }
rm -rf "$out"
mkdir -p "$out/faults" "$out/tests" "$out/lib" "$out/models"
cp "$build/ggauge" "$build/libggauge-cuda.so" "$out/"
cp "$build/faults/ggauge" "$build/faults/libggauge-cuda.so" .ci/faults.py "$out/faults/"
for t in test_cuda test_fuse test_ops test_op_attn; do cp "$tests/$t" "$out/tests/"; done
# libc and its parts belong to the machine
ldd "$out/ggauge" "$out"/tests/* | awk '$3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*)\.so' | while read -r lib; do cp -L "$lib" "$out/lib/"; done
for m in qwen3-iq4_kt qwen3-q8_0 qwen3-iq3_kt qwen3-iq2_kt qwen3-q4_0 qwen3-f16 llama-iq4_kt; do
    f=$shared/models/tiny-$m.gguf
    [ -f "$f" ] || f=datasets/models/tiny-$m.gguf
    [ ! -f "$f" ] || cp "$f" "$out/models/"
done
text=$shared/datasets/wiki.test.raw
[ -f "$text" ] || text=$(.ci/text.sh cuda-bundle)
cp "$text" "$out/text"
cp .ci/cuda_check.sh "$out/"
du -sh "$out"
