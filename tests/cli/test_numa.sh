#!/bin/sh
# SPDX-License-Identifier: MIT
# --numa end to end on this machine, however many nodes it has: not a bit of any result changes, rows say
# where things ran, and what cannot be is one error. No test looks at how long anything took.
cd "$(dirname "$0")/../.." || exit 3
GGAUGE=${GGAUGE:-build/ggauge}
model=datasets/models/tiny-qwen3-q8_0.gguf
text=datasets/small/small.txt
if [ ! -f $model ] || [ ! -f $text ]; then
    echo "ok - --numa # SKIP $model or $text is not here"
    exit 0
fi
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT

check() { # NAME COMMAND...: the command must succeed
    name=$1
    shift
    if "$@" >"$tmp/check" 2>&1; then echo "ok - $name"; else
        echo "not ok - $name"
        sed 's/^/# /' "$tmp/check" "$tmp/out" "$tmp/err" 2>/dev/null | head -n 40
    fi
}
refused() { # NAME EXIT WORDS ARGS...: nothing on stdout, one error line with WORDS
    name=$1 want=$2 words=$3
    shift 3
    "$GGAUGE" "$@" >"$tmp/out" 2>"$tmp/err"
    got=$?
    [ $got -eq "$want" ] && [ ! -s "$tmp/out" ] && grep -qF -e "$words" "$tmp/err" && [ "$(wc -l <"$tmp/err")" -eq 1 ]
    check "$name" test $? -eq 0
}
logits() { # NAME ARGS...: log-probabilities of a few chunks in $tmp/NAME
    "$GGAUGE" perplexity -m $model -f $text -c 64 --chunks 6 --kl-divergence-base "$tmp/$1" --csv "$tmp/$1.csv" \
        $2 >"$tmp/out" 2>"$tmp/err"
}

what="expected one of distribute|isolate|numactl, not 'all'"
refused "a mode that is none: perplexity" 2 "$what" perplexity -m $model -f $text --numa all
refused "... bench" 2 "$what" bench -m $model --numa all
refused "... sweep-bench" 2 "$what" sweep-bench -m $model --numa=all
refused "... compare" 2 "$what" compare -m $model -f $text --a ref --b ref --numa all
refused "... one of its arms" 2 "$what" compare -m $model -f $text --a ref --b "ref --numa all"
refused "... kernel-bench" 2 "$what" kernel-bench --numa all
refused "no mode" 2 "--numa needs a value" perplexity -m $model -f $text --numa
"$GGAUGE" perplexity --help >"$tmp/out"
check "--help" grep -q -e '--numa MODE .*: distribute|isolate|numactl$' "$tmp/out"

logits plain "-t 2"
check "without" test -s "$tmp/plain"
"$GGAUGE" perplexity -m $model -f $text -c 64 --chunks 1 --numa isolate >"$tmp/out" 2>"$tmp/err"
if [ $? -eq 3 ] && grep -q 'needs hwloc' "$tmp/err"; then
    refused "built without hwloc: one error" 3 "--numa needs hwloc" bench -m $model -p 8 -n 0 --numa numactl
    refused "... kernel-bench" 3 "--numa needs hwloc" kernel-bench --numa isolate --op add
    echo "ok - --numa # SKIP this program was built without hwloc"
    exit 0
fi
for mode in distribute isolate numactl; do
    for t in 1 2 5 ""; do
        logits "$mode$t" "--numa $mode ${t:+-t $t} -thp"
        check "$mode, ${t:-all} threads: the same bits" cmp "$tmp/plain" "$tmp/$mode$t"
    done
    check "$mode: rows say it" grep -qE ",\"CPU, numa $mode: [0-9]+ processors? of [0-9]+ nodes?(, weights[a-z ]*)?\"," \
        "$tmp/$mode.csv"
done
logits distribute "--numa isolate -t 1 --resume --chunks 7"
check "rows go on only where they ran" grep -q '^error: .*cannot go on from these chunks: placement is' "$tmp/err"
logits distribute "--numa distribute -t 3 -thp --resume"
check "... with other threads, too" cmp "$tmp/plain" "$tmp/distribute"
check "without it rows say nothing of it" sh -c "grep -q ',CPU,' '$tmp/plain.csv' && ! grep -q numa '$tmp/plain.csv'"

if command -v taskset >/dev/null; then
    cpu=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')
    for mode in distribute isolate numactl; do
        taskset -c "$cpu" "$GGAUGE" perplexity -m $model -f $text -c 64 --chunks 1 --numa $mode \
            --csv "$tmp/one-$mode.csv" >"$tmp/out" 2>"$tmp/err"
        check "$mode: not outside of what taskset allows" grep -q "numa $mode: 1 processor of " "$tmp/one-$mode.csv"
    done
else
    echo "ok - taskset # SKIP it is not installed"
fi

"$GGAUGE" bench -m $model -p 8 -n 2 -r 1 -t 1,3 --numa distribute --csv "$tmp/b.csv" >"$tmp/out" 2>"$tmp/err"
check "bench" sh -c "[ $? -eq 0 ] && grep -q '\"CPU, numa distribute: .*,bench,' '$tmp/b.csv'"
"$GGAUGE" sweep-bench -m $model -c 32 -npp 16 -ntg 2 -r 1 --numa isolate --csv "$tmp/s.csv" >"$tmp/out" 2>"$tmp/err"
check "sweep-bench" sh -c "[ $? -eq 0 ] && grep -q '\"CPU, numa isolate: .*,sweep-bench,' '$tmp/s.csv'"
"$GGAUGE" kernel-bench --numa distribute --backend ref --type q4_0 --op mul_mat --n 256 --n-rows 40 --n-tok 5 \
    --cold-mib 8 --seconds 0 --csv "$tmp/k.csv" >"$tmp/out" 2>"$tmp/err"
check "kernel-bench" sh -c "[ $? -eq 0 ] && grep -q ',numa distribute: .*,kernel-bench,' '$tmp/k.csv'"
"$GGAUGE" compare -m $model -f $text -c 64 --chunks 8 --no-ops --floor-file "$tmp/floors" --out "$tmp/dir" \
    --a ref --b "worker ref --numa distribute" -t 2 >"$tmp/out" 2>"$tmp/err"
check "compare: an arm elsewhere has it, and the same bits" sh -c "[ $? -eq 0 ] && grep -q 'max 0\$' '$tmp/out' &&
    grep -q '^arm B .*ref -t 2 .* numa distribute ' '$tmp/out' && ! grep -q '^arm A .* numa' '$tmp/out'"
