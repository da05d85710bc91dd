#!/bin/sh
# SPDX-License-Identifier: MIT
# sweep-bench and bench end to end on the small default model: formats, files, edge cases. No test
# looks at how long anything took.
cd "$(dirname "$0")/../.." || exit 3
. tests/cli/common.sh
need_model "sweep-bench and bench"

# refused NAME EXIT WORDS ARGS...: exit code, nothing on stdout, one error line with WORDS.
refused() {
    name=$1 want=$2 words=$3
    shift 3
    "$GGAUGE" "$@" >"$tmp/out" 2>"$tmp/err"
    got=$?
    if [ $got -eq "$want" ] && [ ! -s "$tmp/out" ] && [ "$(grep -c '^error: ' "$tmp/err")" -eq 1 ] &&
        grep -q -e "$words" "$tmp/err"; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        echo "# exit $got, expected $want and '$words'"
        sed 's/^/# /' "$tmp/out" "$tmp/err" | head -n 20
    fi
}
column() { # FILE NAME: a column of our CSV, the settings column being the only quoted one
    sed 's/"{[^}]*}"/-/' "$1" |
        awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; next } { print $c }'
}

# ---- sweep-bench
sweep="sweep-bench -m $model -t 2 -c 96 -ub 32 -ntg 4 -r 2"
"$GGAUGE" $sweep --csv "$tmp/s.csv" --jsonl "$tmp/s.jsonl" --md "$tmp/s.md" --results "$tmp/runs" \
    >"$tmp/out" 2>"$tmp/err"
check "sweep-bench runs" test $? -eq 0

cat >"$tmp/head" <<'EOF'
|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |
|-------|--------|--------|----------|----------|----------|----------|
EOF
head -n 2 "$tmp/out" >"$tmp/got"
check "the head is llama-sweep-bench's" cmp "$tmp/head" "$tmp/got"
row='^|    32 |      4 | *[0-9]* | *[0-9]*\.[0-9]\{3\} | *[0-9]*\.[0-9]\{2\} | *[0-9]*\.[0-9]\{3\} | *[0-9]*\.[0-9]\{2\} |$'
check "three rows in its format" test "$(tail -n +3 "$tmp/out" | grep -c "$row")" -eq 3
check "nothing but the table on stdout" test "$(wc -l <"$tmp/out")" -eq 5
check "depths 0, 32, 64" test "$(awk -F'|' 'NR > 2 { printf "%d ", $4 }' "$tmp/out")" = "0 32 64 "
check "the settings go to stderr" grep -q '^main: n_kv_max = 96, n_batch = 2048, n_ubatch = 32' "$tmp/err"
check "--md holds the same table" cmp "$tmp/out" "$tmp/s.md"
check "five rows of CSV a depth" test "$(column "$tmp/s.csv" metric | sort | uniq -c | awk '{ printf "%s=%s ", $2, $1 }')" = \
    "pp_s=3 pp_tps=3 rss_bytes=3 tg_s=3 tg_tps=3 "
check "CSV holds the depth" test "$(column "$tmp/s.csv" n_kv | sort -nu | tr '\n' ' ')" = "0 32 64 "
check "CSV holds repeats" test "$(column "$tmp/s.csv" n_rep | sort -u | tr -d '\n')" = "2"
check "--results writes the same rows" cmp "$tmp/s.csv" "$tmp"/runs/*.csv
check "three lines of JSON" test "$(grep -c '^{"n_kv_max": 96, .*"speed_tg": .*"samples_t_tg": \[.*\], .*}$' "$tmp/s.jsonl")" -eq 3

"$GGAUGE" $sweep -npp 48 -b 20 -ub 8 --intervals >"$tmp/out" 2>"$tmp/err"
check "a part larger than a batch" test "$(grep -c '^|    48 ' "$tmp/out")" -eq 2
check "--intervals says what they cover" grep -q 'S_PP 50 %' "$tmp/out"
"$GGAUGE" $sweep --output-format jsonl >"$tmp/out" 2>"$tmp/err"
check "--output-format jsonl" test "$(grep -vc '^{.*}$' "$tmp/out")" -eq 0
"$GGAUGE" sweep-bench --help >"$tmp/out" 2>"$tmp/err"
check "--help" grep -q -e '-ntg' "$tmp/out"

many='^warning: 512 threads on [0-9]* processors'
"$GGAUGE" sweep-bench -m "$model" -c 8 -npp 8 -ntg 1 -r 1 -tb 512 -t 1 >"$tmp/out" 2>"$tmp/err"
check "more threads than processors: a warning" grep -q "$many" "$tmp/err"
check "fewer: none" sh -c '"$@" 2>&1 >/dev/null | grep -c ^warning: | grep -qx 0' - \
    "$GGAUGE" sweep-bench -m "$model" -c 8 -npp 8 -ntg 1 -r 1 -t 1
"$GGAUGE" bench -m "$model" -p 0 -n 1 -r 1 -t 1,512 >"$tmp/out" 2>"$tmp/err"
check "bench warns too" grep -q "$many" "$tmp/err"

refused "-c smaller than a part" 2 "holds no step" sweep-bench -m "$model" -c 16 -npp 32
refused "-ntg larger than -c" 2 "holds no step" sweep-bench -m "$model" -c 16 -npp 8 -ntg 32
refused "no model given" 2 "-m FILE" sweep-bench -c 16
refused "no such model" 3 "nowhere.gguf" sweep-bench -m "$tmp/nowhere.gguf" -c 64 -npp 8
refused "-r 0" 2 "-r: 0 is outside" sweep-bench -m "$model" -r 0
refused "-npp with a word" 2 "-npp: expected a number" sweep-bench -m "$model" -npp many
refused "a context of 10^12" 2 "-c: 1000000000000 is outside" sweep-bench -m "$model" -c 1000000000000
refused "--jsonl over a model" 2 "does not hold lines of JSON; it is left alone" sweep-bench -m "$model" --jsonl "$model"
printf '1,2\n' >"$tmp/mine.csv"
refused "--md over somebody's table" 2 "does not hold a table" sweep-bench -m "$model" --md "$tmp/mine.csv"
check "... which stays" test "$(cat "$tmp/mine.csv")" = 1,2
refused "--csv and --jsonl into one file" 2 "does not hold lines of JSON" \
    sweep-bench -m "$model" --csv "$tmp/one" --jsonl "$tmp/one"
refused "--jsonl and --md into one file" 3 "is being written by another run" \
    sweep-bench -m "$model" --jsonl "$tmp/two" --md "$tmp/two"
if command -v flock >/dev/null; then
    printf '| mine |\n' >"$tmp/locked.md"
    flock "$tmp/locked.md" "$GGAUGE" $sweep --md "$tmp/locked.md" >"$tmp/out" 2>"$tmp/err"
    check "--md that another run writes: exit 3" test $? -eq 3
    check "... which stays" grep -qx '| mine |' "$tmp/locked.md"
fi
"$GGAUGE" $sweep --jsonl /dev/null --md /dev/null >"$tmp/out" 2>"$tmp/err"
check "a device is everybody's" test $? -eq 0
refused "limits over a model" 2 "does not hold limits" limits --models "$model" -f /dev/null -o "$model"
refused "-ts without a device" 2 "-ts: only --backend cuda" bench -m "$model" -ts 1,2
refused "--csv into nowhere" 3 "$tmp/no/where.csv" sweep-bench -m "$model" --csv "$tmp/no/where.csv"
if [ -w /dev/full ]; then
    "$GGAUGE" $sweep --md /dev/full >"$tmp/out" 2>"$tmp/err"
    check "a full disk is an error" test $? -eq 3
    check "and the message names the file" grep -q '^error: .*/dev/full' "$tmp/err"
fi

# Killed half-way: finished depths are whole in every file.
"$GGAUGE" sweep-bench -m "$model" -t 1 -npp 16 -ntg 1 -r 1 --csv "$tmp/k.csv" --jsonl "$tmp/k.jsonl" \
    --md "$tmp/k.md" >"$tmp/out" 2>"$tmp/err" &
pid=$!
i=0
while [ $i -lt 600 ] && [ "$(cat "$tmp/k.jsonl" 2>/dev/null | wc -l)" -lt 2 ]; do
    sleep 0.05
    i=$((i + 1))
done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
n=$(grep -c '^{.*}$' "$tmp/k.jsonl")
check "a killed sweep keeps its depths (JSONL)" test "$n" -ge 2
check "... in CSV" test "$(column "$tmp/k.csv" metric | grep -c '^tg_tps$')" -ge 2
check "... in Markdown" test "$(grep -c '^|    16 ' "$tmp/k.md")" -ge 1

# A scale that is not a number, somewhere in the last matrix.
cp "$model" "$tmp/nan.gguf"
chmod u+w "$tmp/nan.gguf"
printf '\377%.0s' $(seq 80) |
    dd of="$tmp/nan.gguf" bs=1 seek=$(($(wc -c <"$model") - 4096)) conv=notrunc 2>/dev/null
nan_refused() { # NAME ARGS...: exit 1, no table row, one error that names the model
    name=$1
    shift
    "$GGAUGE" "$@" -m "$tmp/nan.gguf" >"$tmp/out" 2>"$tmp/err"
    check "$name" sh -c "[ $? -eq 1 ] && ! grep -q '[0-9]' '$tmp/out' &&
        [ \$(grep -c '^error: warm-up: .*the logits of a random token are not finite' '$tmp/err') -eq 1 ]"
}
nan_refused "sweep-bench: NaN logits" sweep-bench -c 32 -npp 16 -ntg 2
nan_refused "... without a warm-up too" sweep-bench -c 32 -npp 16 -ntg 2 --no-warmup
nan_refused "bench: NaN logits" bench -p 8 -n 2
nan_refused "... without a warm-up too" bench -p 8 -n 2 --no-warmup

# ---- bench
bench="bench -m $model -r 2"
"$GGAUGE" $bench -t 2 -p 16 -n 2 -pg 8,2 -d 0 -d 24 --csv "$tmp/b.csv" >"$tmp/out" 2>"$tmp/err"
check "bench runs" test $? -eq 0
check "its columns" grep -q '^| model  *|       size |     params | backend    | threads |  *test |              t/s |$' "$tmp/out"
check "its tests in order" test "$(awk -F'|' 'NR > 2 && NF > 3 { gsub(/^ +| +$/, "", $7); printf "%s;", $7 }' "$tmp/out")" = \
    "pp16;tg2;pp8+tg2;pp16 @ d24;tg2 @ d24;pp8+tg2 @ d24;"
check "mean and deviation" test "$(grep -c ' [0-9]*\.[0-9][0-9] ± [0-9]*\.[0-9][0-9] |$' "$tmp/out")" -eq 6
check "the build line" grep -q '^build: [0-9a-z]* (0)$' "$tmp/out"
check "rows of bench" test "$(column "$tmp/b.csv" metric | sort | uniq -c | awk '{ printf "%s=%s ", $2, $1 }')" = \
    "eval_s=6 eval_tps=2 pp_s=6 pp_tps=2 rss_bytes=1 tg_s=6 tg_tps=2 "
check "a row of every repetition" test "$(column "$tmp/b.csv" subject | grep -c ' rep [12]$')" -eq 12
check "... one repeat each" test "$(sed 1d "$tmp/b.csv" | grep ' rep [12],' | grep -c ',1,PASS$')" -eq 12
check "memory is the run's" grep -q ',bench,run,.*,rss_bytes,' "$tmp/b.csv"

if command -v python3 >/dev/null && python3 -c 'import sqlite3' 2>/dev/null; then
    python3 plots/report.py --csv "$tmp/b.csv" --out "$tmp/report" >"$tmp/out" 2>"$tmp/err"
    check "the report takes results, not repetitions" test "$(grep -c '| \(pp16\|tg2\)' "$tmp/report/README.md")" -eq 4
    check "... and says what an interval covers" \
        test "$(grep -c ' to [0-9.]* (50.0 %) | 2 |$' "$tmp/report/README.md")" -eq 4
else
    echo "ok - bench in a report # SKIP no python3 with sqlite3"
fi

"$GGAUGE" $bench -t 2 -p 16 -n 2 -o csv >"$tmp/out" 2>"$tmp/err"
check "llama-bench's CSV" grep -q '^build_commit,build_number,cpu_info,.*,avg_ns,stddev_ns,avg_ts,stddev_ts$' "$tmp/out"
check "a line for every test" test "$(grep -c '^"' "$tmp/out")" -eq 2
if command -v python3 >/dev/null; then
    "$GGAUGE" $bench -t 2 -p 16 -n 2 -d 0,24 -ub 8 -ub 16 -ctk f16,q8_0 -o json >"$tmp/out" 2>"$tmp/err"
    check "JSON of a cross product" python3 -c "
import json, sys
t = json.load(open(sys.argv[1]))
assert len(t) == 16, len(t)
assert {(x['n_ubatch'], x['type_k']) for x in t} == {(u, k) for u in (8, 16) for k in ('f16', 'q8_0')}
assert all(len(x['samples_ns']) == 2 and x['avg_ts'] > 0 for x in t)" "$tmp/out"
else
    echo "ok - JSON of a cross product # SKIP no python3"
fi
"$GGAUGE" $bench -p 16 -n 0 -t 1,2 --csv "$tmp/two.csv" >"$tmp/out" 2>"$tmp/err"
check "memory of two engines: one row, without what differs" \
    test "$(grep ',rss_bytes,' "$tmp/two.csv" | grep -c ',bench,run,,16,,,,,2048,')" -eq 1
# Killed half-way: the repetitions so far are there.
"$GGAUGE" bench -m "$model" -t 1 -p 16 -n 1 -r 1000 --csv "$tmp/k2.csv" >"$tmp/out" 2>"$tmp/err" &
pid=$!
i=0
while [ $i -lt 600 ] && [ "$(cat "$tmp/k2.csv" 2>/dev/null | grep -c ' rep ')" -lt 4 ]; do
    sleep 0.05
    i=$((i + 1))
done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
check "a killed bench keeps its repetitions" test "$(column "$tmp/k2.csv" subject | grep -c '^pp16 rep ')" -ge 1
odd=$tmp/$(printf 'm\377.gguf')
if ln -s "$(realpath "$model")" "$odd" 2>/dev/null; then
    "$GGAUGE" bench -m "$odd" -t 2 -p 8 -n 0 -r 1 -o jsonl >"$tmp/out" 2>"$tmp/err"
    check "a model whose name is not UTF-8 is JSON still" grep -q '"model_filename": "[^"]*/m.ufffd\.gguf"' "$tmp/out"
fi
"$GGAUGE" $bench -t 2 -p 0 -n 2 -b 8 -o jsonl >"$tmp/out" 2>"$tmp/err"
check "-p 0 leaves the prompt out" test "$(grep -c '"n_prompt": 0, "n_gen": 2' "$tmp/out")" -eq 1
check "... and nothing else is measured" test "$(wc -l <"$tmp/out")" -eq 1

refused "a list that is too long" 2 "-n: the list has more than 4095 bytes" \
    bench -m "$model" -n 1 -n "$(head -c 4096 /dev/zero | tr '\0' 1)"
refused "nothing to measure" 2 "nothing to measure" bench -m "$model" -p 0 -n 0
refused "a list with a hole" 2 "-p: expected whole numbers" bench -m "$model" -p 1,,2
refused "a list with a word" 2 "-d: expected whole numbers" bench -m "$model" -d 0,deep
refused "a negative depth" 2 "-d: -1 is outside" bench -m "$model" -d -1
refused "a number that overflows" 2 "-n: 99999999999999999999 is outside" bench -m "$model" -n 99999999999999999999
refused "half a pair" 2 "-pg: expected pairs" bench -m "$model" -pg 8
refused "an unknown cache type" 2 "-ctk: expected f32, f16 or q8_0" bench -m "$model" -ctk q9
refused "no such model" 3 "nowhere.gguf" bench -m "$tmp/nowhere.gguf"
