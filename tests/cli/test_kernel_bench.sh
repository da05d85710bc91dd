#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge kernel-bench, end to end: filters, the table, result rows, a failing check, and refusals.
. tests/cli/common.sh

refused() { # NAME EXIT TEXT ARGUMENTS...
    name=$1 want=$2 text=$3
    shift 3
    "$GGAUGE" kernel-bench "$@" >"$tmp/out" 2>"$tmp/err"
    got=$?
    [ $got -eq "$want" ] && grep -qF -- "$text" "$tmp/err" && [ "$(wc -l <"$tmp/err")" -eq 1 ]
    status=$?
    [ $status -eq 0 ] || { echo "# exit $got:"; sed 's/^/# /' "$tmp/err"; }
    result $status "$name"
}

refused "an unknown type" 2 "no type 'q9'" --type q9
refused "an unknown op" 2 "no op 'mul'" --op mul
refused "an unknown column" 2 "no column 'sse'" --backend sse
refused "a column that cannot run here" 3 "cuda cannot run here" --backend cuda
refused "nothing passes" 2 "no cell passes" --backend ref --type q4_0 --op quantize
refused "heads that do not fit" 2 "5 heads cannot share 2" --n-head 5 --n-head-kv 2

"$GGAUGE" kernel-bench --list --backend ref >"$tmp/list" 2>"$tmp/err"
[ $? -eq 0 ] && grep -q '^attn  *attn q8_0@ref  *tokens 512 depth 4096$' "$tmp/list" &&
    grep -q '^dequant  *dequant iq4_kt@ref$' "$tmp/list" && grep -q '^mul_mat  *iq4_kt@ref  *tokens 8$' "$tmp/list"
result $? "--list"

small="--n 256 --n-rows 40 --n-head 4 --n-head-kv 2 --n-embd-head 64 --n-ff 96 --n-vocab 500"
small="$small --cold-mib 2 --seconds 0 --n-tok 1,5 -d 30"
# shellcheck disable=SC2086
"$GGAUGE" kernel-bench $small --backend ref --type q4_0,f16 -t 1,2 --csv "$tmp/k.csv" >"$tmp/out" 2>"$tmp/err"
result $? "cells of ref"
grep -q '^| q4_0@ref .*|  *5 |.*|  *2 |' "$tmp/out" && grep -q '^| attn f16@ref .*|  *30 |' "$tmp/out" &&
    grep -q '^| dequant f16@ref' "$tmp/out" && ! grep -q 'iq4_kt' "$tmp/out"
result $? "the table holds what was asked for"
grep -q 'are not cold' "$tmp/err" || grep -q ' 0 failed' "$tmp/err"
result $? "what is not cold is told"
if command -v python3 >/dev/null; then
    python3 - "$tmp/k.csv" <<'PY'
import csv, json, sys
rows = list(csv.DictReader(open(sys.argv[1])))
assert all(r["test"] == "kernel-bench" and r["status"] == "PASS" for r in rows)
def of(subject, metric, **fields):
    return [r for r in rows if r["subject"] == subject and r["metric"] == metric
            and all(r[k] == v for k, v in fields.items())]
product = of("q4_0@ref", "kernel_gmacs", n_ubatch="5", n_threads="2")
assert len(product) == 1 and product[0]["qtype"] == "q4_0" and product[0]["backend"] == "ref"
us = of("q4_0@ref", "kernel_us", n_ubatch="5", n_threads="2")[0]
macs = 256 * 40 * 5
assert abs(float(product[0]["value"]) - macs / float(us["value"]) * 1e-3) < 1e-9
assert float(us["ci_low"]) <= float(us["value"]) <= float(us["ci_high"]) and int(us["n_rep"]) >= 6
gbs = of("q4_0@ref", "kernel_gbs", n_ubatch="1", n_threads="1")[0]
us1 = of("q4_0@ref", "kernel_us", n_ubatch="1", n_threads="1")[0]
# 18 bytes for 32 weights; copies begin on cache lines
assert abs(float(gbs["value"]) * float(us1["value"]) * 1e3 - 256 * 40 / 32 * 18) < 64
attn = of("attn f16@ref", "kernel_us", n_kv="30", n_ubatch="1", n_threads="1")
assert len(attn) == 1 and attn[0]["type_k"] == "f16" and attn[0]["qtype"] == ""
assert json.loads(us["settings"])["cold_bytes"] == 2 << 20
assert of("read", "peak_gbs") and float(of("read", "peak_gbs")[0]["value"]) > 0
PY
    result $? "result rows"
else
    echo "ok - result rows # SKIP no python3"
fi

# shellcheck disable=SC2086
"$GGAUGE" kernel-bench $small --no-time --type q8_0,q8_2_x4 >"$tmp/out" 2>"$tmp/err"
result $? "every column of this machine is right"
if "$GGAUGE" types 2>&1 >/dev/null | grep -q avx2; then
    # shellcheck disable=SC2086
    "$GGAUGE" kernel-bench $small --backend avx2 --type iq4_kt --op mul_mat --tolerance 0 --csv "$tmp/f.csv" \
        >"$tmp/out" 2>"$tmp/err"
    [ $? -eq 1 ] && grep -q 'FAIL: NMSE .*promised 0' "$tmp/out" && grep -q '2 failed' "$tmp/err" &&
        grep -q 'FAIL NMSE' "$tmp/f.csv" && ! grep -q kernel_us "$tmp/f.csv"
    result $? "a cell that is wrong is told, not timed, exit 1"
    # shellcheck disable=SC2086
    "$GGAUGE" kernel-bench $small --n 96 --backend avx2 --type iq4_kt,q4_0 --op mul_mat --no-time >"$tmp/out" 2>"$tmp/err"
    [ $? -eq 0 ] && grep -q 'skipped: iq4_kt@avx2: rows of 96' "$tmp/err" && grep -q 'q4_0@avx2' "$tmp/out"
    result $? "a type whose blocks do not fit is skipped with a word"
else
    echo "ok - checks of avx2 # SKIP this machine has no AVX2"
fi
refused "a full disk" 3 "No space left" --backend ref --type f16 --op dequant --no-time --csv /dev/full
exit $failed
