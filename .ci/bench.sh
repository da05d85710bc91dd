#!/bin/sh
# SPDX-License-Identifier: MIT
# The main job (`make bench`): perplexity and a sweep of every model, the charts and one summary.
#
#   MODELS="a.gguf b.gguf"  instead of the default models     TEXT=file  instead of wiki.test.raw
#   CHUNKS=20               only the first chunks             SWEEP_CTX=4096, REPEATS=6
#   FLAGS="-t 8 ..."        options for every run
set -e
cd "$(dirname "$0")/.."
GGAUGE=${GGAUGE:-build/ggauge}
MODELS=${MODELS:-$(ls datasets/models/*.gguf)}
out=results/latest
stamp=$(mktemp)
trap 'rm -f "$stamp"' EXIT

if [ -z "$TEXT" ]; then
    if ! TEXT=$(datasets/fetch.sh wiki.test.raw 2>"$stamp"); then
        echo "bench: this runs on datasets/small/small.txt: $(tail -n 1 "$stamp")" >&2
        TEXT=datasets/small/small.txt
    fi
fi
mkdir -p "$out" results/runs
for m in $MODELS; do
    name=$(basename "$m" .gguf)
    echo "== $name: perplexity of $(basename "$TEXT")"
    "$GGAUGE" perplexity -m "$m" -f "$TEXT" -c 512 --chunks "${CHUNKS:--1}" --results results/runs $FLAGS \
        >"$out/$name.ppl.txt"
    grep -A1 'Final estimate' "$out/$name.ppl.txt"
    echo "== $name: sweep"
    "$GGAUGE" sweep-bench -m "$m" -c "${SWEEP_CTX:-4096}" -ub 512 -r "${REPEATS:-6}" --results results/runs $FLAGS |
        tee "$out/$name.sweep.md"
done
"$GGAUGE" history
runs=$(find results/runs -name '*.csv' -newer "$stamp" | sort)
plots/report.py --csv $runs --out "$out"
echo "bench: the summary is $out/README.md, its rows are in results/runs, the charts beside it:"
ls "$out"/*.svg
