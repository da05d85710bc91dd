#!/bin/sh
# SPDX-License-Identifier: MIT
# Whole models: perplexity against the peer and against exactly dequantised weights (where the shared
# models are at hand), columns against ref, and what may not change a digit.
shared=../shared/models
wiki=../shared/datasets/wiki.test.raw
small=datasets/small/small.txt
q8=datasets/models/tiny-qwen3-q8_0.gguf
kt=datasets/models/tiny-qwen3-iq4_kt.gguf
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT

check() { # name, condition's status
    if [ "$2" -eq 0 ]; then echo "ok - $1"; else echo "not ok - $1"; fi
}

ppl() { # options...: the run's perplexity to all digits
    rm -f "$tmp/rows.csv"
    "$GGAUGE" perplexity -c 512 --csv "$tmp/rows.csv" "$@" >"$tmp/out" 2>"$tmp/err" || cat "$tmp/err" >&2
    python3 -c 'import csv, sys
print(next(r["value"] for r in csv.DictReader(open(sys.argv[1])) if r["metric"] == "ppl"))' "$tmp/rows.csv"
}

near() { # got, expected, percent
    python3 -c 'import sys
got, want, limit = map(float, sys.argv[1:])
d = 100 * abs(got / want - 1)
print(f"# {got:.6f} against {want:.6f}: {d:.4f} % of {limit} %")
sys.exit(not d <= limit)' "$@"
}

# Columns against ref with the same rounding: of activations, and of weights where amx and amx_requant round them.
for m in "$q8" "$kt"; do
    for column in avx2 avx512 amx amx_requant; do
        limit=0.01
        name="$(basename "$m" .gguf): $column within $limit % of ref with the same rounding"
        if ! "$GGAUGE" types 2>&1 >/dev/null | grep -qw "$column"; then
            echo "ok - $name # SKIP this machine does not run $column"
            continue
        fi
        same=$(ppl -m "$m" -f "$small" --chunks 4 --backend ref --act-like $column)
        fast=$(ppl -m "$m" -f "$small" --chunks 4 --backend $column)
        near "$fast" "$same" $limit
        check "$name" $?
    done
done

# Logits, as the file of saved logits has them: bit for bit the same for any number of threads and any
# cut of the batch.
logits() {
    "$GGAUGE" perplexity -m "$kt" -f "$small" -c 512 --chunks 4 --kl-divergence-base "$@" >/dev/null 2>&1
}
logits "$tmp/base" -t 1
for o in "-t 2" "-t 3" "-ub 1" "-ub 7" "-ub 64" "-b 512" "-b 300 -ub 33"; do
    logits "$tmp/other" $o
    cmp -s "$tmp/base" "$tmp/other"
    check "the same logits with $o as on one thread with -b 2048 -ub 512" $?
    rm -f "$tmp/other"
done

# KV cache types, on ref: on other columns the noise of 8-bit activations would hide the difference.
f32=$(ppl -m "$q8" -f "$small" --chunks 4 --backend ref -ctk f32 -ctv f32)
near "$(ppl -m "$q8" -f "$small" --chunks 4 --backend ref)" "$f32" 0.01
check "F16 cache within 0.01 % of F32" $?
near "$(ppl -m "$q8" -f "$small" --chunks 4 --backend ref -ctk q8_0 -ctv q8_0)" "$f32" 0.2
check "Q8_0 cache within 0.2 % of F32" $?

# The shared models: 20 chunks of wiki.test.raw. exact = the same weights dequantised, all in F32.
golden() { # model, exact, limit in percent, options
    model=$1 exact=$2 limit=$3
    shift 3
    name="$model within $limit % of exact weights${*:+ }$*"
    if [ -n "$QUICK" ]; then
        echo "ok - $name # SKIP not with QUICK=1"
        return
    fi
    if [ ! -f "$shared/$model.gguf" ] || [ ! -f "$wiki" ]; then
        echo "ok - $name # SKIP no $model in ../shared"
        return
    fi
    near "$(ppl -m "$shared/$model.gguf" -f "$wiki" --chunks 20 "$@")" "$exact" "$limit"
    check "$name" $?
}
golden tiny-qwen3-f16 77.1960 0.01 --backend ref
golden tiny-qwen3-iq3_kt 85.7037 0.01 --backend ref
golden tiny-qwen3-f16 77.1960 0.02
golden tiny-qwen3-q8_0 77.1948 0.15
golden tiny-qwen3-q4_0 79.2785 0.15
golden tiny-qwen3-iq4_kt 79.7873 0.15
golden tiny-qwen3-iq3_kt 85.7037 0.15
golden tiny-qwen3-iq2_kt 124.3521 0.15
golden tiny-llama-f16 70.1387 0.02
golden tiny-llama-iq4_kt 70.6557 0.15
