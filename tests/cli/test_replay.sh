#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge replay: the capsules of the fuzz corpus (behind their first byte) are run again and judged.
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT

check() { # name, condition's status
    if [ "$2" -eq 0 ]; then echo "ok - $1"; else echo "not ok - $1"; fi
}

for f in tests/fuzz/corpus_capsule/*; do
    op=$(basename "$f")
    tail -c +2 "$f" >"$tmp/$op.gguf"
    "$GGAUGE" replay "$tmp/$op.gguf" --backend ref -t 2 >"$tmp/out" 2>&1 &&
        grep -q "op $op\$" "$tmp/out" && grep -q '(.*@ref) reproduced bit for bit' "$tmp/out" &&
        grep -q '^within its limit$' "$tmp/out"
    check "$op: arm A's bits again, within its limit" $?
    grep -q 'arm B .*not reproduced' "$tmp/out"
    check "$op: arm B's fault is no fault of ref" $?
done

"$GGAUGE" replay "$tmp/mul_mat.gguf" >"$tmp/out" 2>&1
check "without --backend: arm B's column, or the best one" $?
"$GGAUGE" replay >"$tmp/out" 2>&1
[ $? -eq 2 ] && grep -q 'needs a capsule' "$tmp/out"
check "no capsule is a usage error" $?
"$GGAUGE" replay datasets/models/tiny-qwen3-q8_0.gguf >"$tmp/out" 2>&1
[ $? -eq 3 ] && grep -q 'no capsule: capsule.version is missing' "$tmp/out"
check "a model is no capsule" $?
head -c 2000 "$tmp/mul_mat.gguf" >"$tmp/cut.gguf"
"$GGAUGE" replay "$tmp/cut.gguf" >"$tmp/out" 2>&1
[ $? -eq 3 ] && grep -q 'cut.gguf' "$tmp/out"
check "a capsule cut short is refused" $?
