#!/bin/sh
# SPDX-License-Identifier: MIT
# The main job (`make bench`): does the best CPU column agree with ref (and cuda with every CPU column),
# perplexity and a sweep of every model, products with weights of their types as shares of what this
# machine can do, the charts and one summary. The verdicts stand first in it.
#
#   MODELS="a.gguf b.gguf"  instead of the default models,    TEXT=file  instead of wiki.test.raw
#                           words: no blanks in their names
#   CHUNKS=20               only the first chunks             SWEEP_CTX=4096, REPEATS=6
#   KERNELS="--no-time"     other options for kernel-bench
#   FLAGS="-t 8 ..."        options for every run             OUT=dir, RUNS=dir  where results go
#
# Exit: 0; 1 if a comparison or a kernel is a FAIL; 3 if one, or another part, could not be made. Either way
# only after everything else has run and is written. UNDECIDED and MISTRUSTED are said, and are no failure.
set -e
cd "$(dirname "$0")/.."
GGAUGE=${GGAUGE:-build/ggauge}
MODELS=${MODELS:-$(ls datasets/models/*.gguf)}
out=${OUT:-results/latest}
runs=${RUNS:-results/runs}
stamp=$(mktemp)
verdicts=$(mktemp)
trap 'rm -f "$stamp" "$stamp.new" "$verdicts"' EXIT
status=0

# note RC: what the exit code of a part means for that of the whole.
note() {
    case $1 in
    0 | 125) ;;
    1) status=1 ;;
    *) [ $status -ne 0 ] || status=3 ;;
    esac
}

# part WHAT COMMAND...: if it fails, the summary says so, and the rest goes on.
part() {
    what=$1 rc=0
    shift
    "$@" || rc=$?
    [ $rc -eq 0 ] || echo "bench: $what: exit $rc" >>"$verdicts"
    note $rc
}

# compare MODEL NAME A B: files in $out/compare-NAME, a line for the summary. 96 chunks decide most pairs
# and are half a minute of ref on two cores.
compare() {
    echo "== $2: $3 against $4"
    rc=0
    "$GGAUGE" compare -m "$1" -f "$TEXT" -c 512 --chunks "${CHUNKS:-96}" --a "$3" --b "$4" --results "$runs" \
        --out "$out/compare-$2" $FLAGS >"$out/compare-$2.txt" || rc=$?
    verdict=$(sed -n 's/^verdict *//p' "$out/compare-$2.txt")
    [ -n "$verdict" ] || verdict="no verdict (exit $rc)"
    echo "$verdict"
    echo "bench: $2, $3 against $4: $verdict" >>"$verdicts"
    note $rc
}

[ -n "$TEXT" ] || TEXT=$(.ci/text.sh bench)
mkdir -p "$out" "$runs"
columns=$("$GGAUGE" types 2>&1 >/dev/null | sed -n 's/^This machine runs: *//p')
case " $columns " in
*" cuda "*) cpu_columns=$(echo " $columns " | sed 's/ cuda / /') ;;
*) cpu_columns= ;;
esac
for m in $MODELS; do
    name=$(basename "$m" .gguf)
    compare "$m" "$name" ref best
    for c in $cpu_columns; do compare "$m" "$name-$c-cuda" "$c" cuda; done
    echo "== $name: perplexity of $(basename "$TEXT")"
    part "$name, perplexity" "$GGAUGE" perplexity -m "$m" -f "$TEXT" -c 512 --chunks "${CHUNKS:--1}" \
        --results "$runs" $FLAGS >"$out/$name.ppl.txt"
    grep -A1 'Final estimate' "$out/$name.ppl.txt" || :
    echo "== $name: sweep"
    part "$name, sweep" "$GGAUGE" sweep-bench -m "$m" -c "${SWEEP_CTX:-4096}" -ub 512 -r "${REPEATS:-6}" \
        --results "$runs" $FLAGS >"$out/$name.sweep.md"
    cat "$out/$name.sweep.md"
done
types=$(for m in $MODELS; do "$GGAUGE" inspect -m "$m" --no-tensors || :; done |
    sed -n 's/^type \([^:]*\): .*/\1/p' | grep -v '^f32$' | sort -u | paste -sd, -)
if [ -n "$types" ]; then
    echo "== kernels: $types"
    fast=$(echo " $columns " | sed 's/ ref / /' | xargs | tr ' ' ,)
    part kernels "$GGAUGE" kernel-bench --op mul_mat --type "$types" --n-tok 1,512 --results "$runs" \
        --backend "${fast:-ref}" ${KERNELS:---seconds 0.2} >"$out/kernels.md"
    cat "$out/kernels.md"
fi
part history "$GGAUGE" history --runs "$runs" --db "$(dirname "$runs")/history.sqlite"
# A name of a folder may have blanks. Of the report's exit code xargs makes 123.
find "$runs" -name '*.csv' -newer "$stamp" -print0 | sort -z >"$stamp.new"
part report xargs -0 -r -a "$stamp.new" plots/report.py --out "$out" --csv
echo
cat "$verdicts"
[ -n "$cpu_columns" ] || echo "bench: no card that cuda could run on: the CPU columns were not compared with it"
echo "bench: the summary is $out/README.md, its rows are in $runs, the charts beside it:"
ls "$out"/*.svg 2>/dev/null || echo "none"
exit $status
