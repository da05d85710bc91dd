#!/bin/sh
# SPDX-License-Identifier: MIT
# -rtr, end to end: weights that were copied into the order of single tokens give the same logits, as
# far as files save them, the row says how much was copied, and kernel-bench checks and times the products.
. tests/cli/common.sh

yes 'a few words of a text that is long enough' | head -40 >"$tmp/text"

# One token after the other, and at once: logits, and where it ran.
logits() { # FILE -ub OPTIONS...
    out=$1 ub=$2
    shift 2
    "$GGAUGE" perplexity -m "$tmp/m.gguf" -f "$tmp/text" -c 32 --chunks 2 -ub "$ub" -t 2 --kl-divergence-base "$out" \
        --csv "$out.csv" "$@" >"$tmp/out" 2>"$tmp/err" || { sed 's/^/# /' "$tmp/err"; return 1; }
}

says() { grep -q "$2" "$1.csv"; }

shape="--arch llama --n-vocab 3000 --n-embd 256 --n-ff 512 --n-layer 2 --n-head 4 --n-head-kv 2"
for type in iq2_kt iq3_kt iq4_kt q4_0; do
    # shellcheck disable=SC2086
    "$GGAUGE" synth $shape --type $type -s 5 -o "$tmp/m.gguf" >"$tmp/out" 2>&1
    result $? "a model of $type"
    for ub in 1 32; do
        rm -f "$tmp"/plain* "$tmp"/packed*
        logits "$tmp/plain" $ub && logits "$tmp/packed" $ub -rtr && cmp "$tmp/plain" "$tmp/packed"
        result $? "$type, -ub $ub: the same saved logits"
    done
    says "$tmp/packed" 'weights repacked\|no weights to repack' && ! says "$tmp/plain" 'repack'
    result $? "$type: the row says so"
    # The first graph to run is the one that was laid out before there were copies.
    "$GGAUGE" bench -m "$tmp/m.gguf" -p 0 -n 2 -ub 1 -r 1 -t 2 -rtr 0,1 >"$tmp/out" 2>"$tmp/err" &&
        grep -q "| *rtr |" "$tmp/out"
    result $? "$type: bench -ub 1"
    if [ $type != q4_0 ] && "$GGAUGE" types 2>&1 | grep -q '^This machine runs:.* avx512'; then
        says "$tmp/packed" '[0-9] MiB of weights repacked'
        result $? "$type: there is a copy"
        "$GGAUGE" compare -m "$tmp/m.gguf" -f "$tmp/text" --a "avx512 -t 1" --b avx512 -c 32 --chunks 2 --matrix \
            --matrix-ub 1 --matrix-ctx 32 --matrix-kv f16 --matrix-backends avx512 --out "$tmp/$type" \
            >"$tmp/out" 2>"$tmp/err"
        grep -q ',avx512 -rtr,1,PASS,NONE,2,0,0,0,' "$tmp/$type/matrix.csv"
        result $? "$type: the matrix has a cell for it"
    fi
done
grep -q '^note: -rtr 1 changes nothing: .* has no copies for weights of q4_0$' "$tmp/err"
result $? "bench says that -rtr changes nothing"
says "$tmp/packed" 'no weights to repack'
result $? "types that have no such order are left alone"

"$GGAUGE" kernel-bench --op packed --list >"$tmp/list" 2>"$tmp/err"
if grep -q 'packed iq3_kt@avx512' "$tmp/list"; then
    "$GGAUGE" kernel-bench --op packed --n 512 --n-rows 40 --cold-mib 2 --seconds 0 >"$tmp/out" 2>"$tmp/err"
    [ $? -eq 0 ] && grep -q '^| packed iq4_kt@avx512 ' "$tmp/out" && grep -q '3 passed, 0 failed' "$tmp/err"
    result $? "kernel-bench"
else
    echo "ok - kernel-bench # SKIP no column here has packed products"
fi
exit $failed
