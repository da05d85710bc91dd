#!/bin/sh
# SPDX-License-Identifier: MIT
# make bench: a FAIL decides its exit code after everything else has run, UNDECIDED does not, and
# cuda is compared where it runs. The program is the real one, but for the verdicts and the columns
# that a test wants.
set -u
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
real=$GGAUGE
model=datasets/models/tiny-qwen3-iq4_kt.gguf

check() { # check NAME: turns the status of the command before it into a TAP line
    status=$?
    if [ $status -eq 0 ]; then echo "ok - $1"; else
        echo "not ok - $1"
        sed 's/^/# /' "$tmp/out"
    fi
}
has() { grep -qF -- "$2" "$1"; }
if ! command -v gnuplot >/dev/null 2>&1 || ! python3 -c 'import sqlite3' 2>/dev/null; then
    echo "ok - make bench # SKIP gnuplot or python3 with sqlite3 is not installed"
    exit 0
fi
export PYTHONDONTWRITEBYTECODE=1
cat >"$tmp/ggauge" <<'EOF2'
#!/bin/sh
case $1 in
types) echo "This machine runs: $COLUMNS" >&2 ;;
compare)
    case " $* " in
    *" cuda "*) echo "$*" >>"$CALLS"; exit 0 ;;
    *) [ -z "$VERDICT" ] || echo "verdict           $VERDICT: as the test wants it" ;;
    esac
    exit "$STATUS" ;;
kernel-bench)
    echo "$*" >>"$CALLS"
    exit "$KERNEL_STATUS" ;;
*) exec "$REAL" "$@" ;;
esac
EOF2
chmod +x "$tmp/ggauge"
bench() { # bench NAME STATUS VERDICT COLUMNS [KERNEL_STATUS]: in a folder of its own
    GGAUGE=$tmp/ggauge REAL=$real CALLS=$tmp/$1.calls STATUS=$2 VERDICT=$3 COLUMNS=$4 KERNEL_STATUS=${5:-0} \
        MODELS=${models:-$model} TEXT=datasets/small/small.txt CHUNKS=1 REPEATS=1 SWEEP_CTX=640 \
        OUT=$tmp/$1 RUNS=$tmp/$1.runs FLAGS= \
        .ci/bench.sh >"$tmp/out" 2>&1
}

bench fail 1 "FAIL (MEAN)" "ref avx2"
[ $? -eq 1 ] && has "$tmp/out" "tiny-qwen3-iq4_kt, ref against best: FAIL (MEAN): as the test wants it" &&
    [ -s "$tmp/fail/sweep_tg.svg" ] && has "$tmp/fail/README.md" "## Speed" && [ -s "$tmp/history.sqlite" ]
check "FAIL: exit 1, everything else has run and is written"
has "$tmp/out" "no card that cuda could run on"
check "no card: said"
bench undecided 125 UNDECIDED "ref avx2 cuda"
[ $? -eq 0 ] && has "$tmp/out" "ref against best: UNDECIDED: as"
check "UNDECIDED: said, exit 0"
[ "$(grep -c -- --a "$tmp/undecided.calls")" -eq 2 ] && has "$tmp/undecided.calls" "--a ref --b cuda" &&
    has "$tmp/undecided.calls" "--a avx2 --b cuda" && has "$tmp/out" "tiny-qwen3-iq4_kt-avx2-cuda, avx2 against cuda"
check "with a card every CPU column is compared with it"
bench broken 3 "" "ref avx2"
[ $? -eq 3 ] && has "$tmp/out" "ref against best: no verdict (exit 3)" && [ -s "$tmp/broken/README.md" ]
check "a comparison that could not be made: exit 3, the rest is written"

bench kernel 0 PASS "ref avx2" 1
[ $? -eq 1 ] && has "$tmp/kernel.calls" "--type iq4_kt --n-tok 1,512" && has "$tmp/kernel.calls" "--backend avx2" && [ -s "$tmp/kernel/README.md" ]
check "a kernel outside of its limit: exit 1, everything else is written"

models="$tmp/absent.gguf $model"
bench first 0 PASS "ref avx2"
[ $? -eq 3 ] && has "$tmp/out" "bench: absent, perplexity: exit 3" && has "$tmp/out" "bench: absent, sweep: exit 3" &&
    has "$tmp/first/tiny-qwen3-iq4_kt.ppl.txt" "Final estimate" && has "$tmp/first/README.md" "## Speed" &&
    has "$tmp/first.calls" "--type iq4_kt"
check "the first model is not there: exit 3, the others are measured"
models=$tmp/absent.gguf
bench nothing 3 "" "ref avx2"
[ $? -eq 3 ] && has "$tmp/out" "bench: the summary is" && ! has "$tmp/out" "bench: report"
check "no model is there: exit 3, to the end"
models=
mkdir "$tmp/broken rows.runs" && printf 'schema,run_id,metric,value\n1,r,ppl,nine\n' >"$tmp/broken rows.runs/old.csv"
touch -d 2000-01-01 "$tmp/broken rows.runs/old.csv"
bench "broken rows" 0 PASS "ref avx2"
[ $? -eq 3 ] && has "$tmp/out" "bench: history: exit 3" && has "$tmp/broken rows/README.md" "## Speed" &&
    [ -s "$tmp/broken rows/sweep_tg.svg" ]
check "a broken file of an older run: exit 3, the report is written, in folders with blanks"

# A machine without gnuplot: every other program is there.
mkdir "$tmp/bin"
for dir in $(echo "$PATH" | tr : ' '); do
    for f in "$dir"/*; do
        case $f in */gnuplot*) continue ;; esac
        if [ -f "$f" ] && [ ! -e "$tmp/bin/${f##*/}" ]; then ln -s "$f" "$tmp/bin"; fi
    done
done
path=$PATH
PATH=$tmp/bin
bench plain 0 PASS "ref avx2" 1
[ $? -eq 1 ] && has "$tmp/out" "bench: kernels: exit 1" && has "$tmp/plain/README.md" "gnuplot is not installed" &&
    has "$tmp/plain/README.md" "## Speed"
check "without gnuplot a kernel outside of its limit is exit 1 as well"
PATH=$path

# The real verdict. One chunk cannot decide by the mean.
MODELS=$model TEXT=datasets/small/small.txt CHUNKS=1 REPEATS=1 SWEEP_CTX=640 OUT=$tmp/real \
    RUNS=$tmp/real.runs FLAGS= KERNELS="--seconds 0.01 --n 256 --n-rows 64" .ci/bench.sh >"$tmp/out" 2>&1
[ $? -eq 0 ] && has "$tmp/out" "ref against best: UNDECIDED: " &&
    sed -n 7p "$tmp/real/README.md" | grep -qF "| **UNDECIDED** | tiny-qwen3 | iq4_kt | ref against" &&
    [ -s "$tmp/real/compare-tiny-qwen3-iq4_kt/report.md" ] && [ -s "$tmp/real/compare_ratio.svg" ] &&
    grep -q "iq4_kt@" "$tmp/real/kernels.md" && [ -s "$tmp/real/roofline.svg" ]
check "the real program: verdict, report, charts, kernels"

make -s --no-print-directory compare >"$tmp/out" 2>&1
[ $? -eq 2 ] && has "$tmp/out" "make compare M=file.gguf"
check "make compare without a model says what it needs"
make -n --no-print-directory compare M=a.gguf A=avx2 B="avx2 -ub 17" O="$tmp/o" >"$tmp/out" 2>&1
has "$tmp/out" '--a "avx2"' && has "$tmp/out" '--b "avx2 -ub 17"' && ! has "$tmp/out" "mkdir -p avx2"
check "make compare: A and B are arms, and B is not where it builds"
