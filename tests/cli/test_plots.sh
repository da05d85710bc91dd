#!/bin/sh
# SPDX-License-Identifier: MIT
# plots/: from rows to data file, picture and report; empty and broken input.
set -u
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT

check() { # check NAME: turns the status of the command before it into a TAP line
    status=$?
    if [ $status -eq 0 ]; then echo "ok - $1"; else echo "not ok - $1"; sed 's/^/# /' "$tmp/err"; fi
}
if ! command -v python3 >/dev/null 2>&1 || ! python3 -c 'import sqlite3' 2>/dev/null; then
    echo "ok - charts and reports # SKIP python3 with sqlite3 is not installed"
    exit 0
fi
export PYTHONDONTWRITEBYTECODE=1
render() { python3 plots/render.py "$@" >"$tmp/stdout" 2>"$tmp/err"; }
report() { python3 plots/report.py "$@" >"$tmp/stdout" 2>"$tmp/err"; }
has() { grep -qF -- "$2" "$1"; }
# The pictures: there, not empty, of their kind, and their texts readable in the SVG.
drawn() {
    [ "$(wc -c <"$1.svg")" -gt 5000 ] && [ "$(wc -c <"$1.png")" -gt 5000 ] &&
        head -c 8 "$1.png" | grep -q PNG && has "$1.svg" '</svg>' && ! has "$1.svg" 'scale(0.00)'
}

# ---- rows of two quants: 12 chunks, a result, and a sweep with intervals; one value is not finite
head='schema,run_id,commit_id,engine,backend,model,model_fp,text,qtype,bpw,test,subject,n_ctx,n_pp,n_tg'
{
    echo "$head,n_ubatch,n_kv,metric,value,ci_low,ci_high,n_rep,status"
    for q in q8_0:8.5:70 iq4_kt:4.031:75; do
        echo "$q" | awk -F: '{
            row = "1,run-" $1 ",abc,ggauge,avx2,tiny,fp" $1 ",wiki.test.raw," $1 "," $2 ","
            for (c = 1; c <= 12; c++)
                print row "perplexity,chunk " c ",512,,,512,,ppl_running," $3 + 12 - c "," $3 - c \
                    "," $3 + 30 - c ",1,PASS"
            print row "perplexity,run,512,,,512,,ppl," $3 + 0.125 "," $3 - 1 "," $3 + 1 ",1,PASS"
            print row "perplexity,run,512,,,512,,ppl_se_token,0.5,,,1,PASS"
            for (d = 0; d < 512; d += 128) {
                print row "sweep-bench,run,,128,32,128," d ",pp_tps," 1000 - d "," 990 - d "," \
                    1010 - d ",5,PASS"
                print row "sweep-bench,run,,128,32,128," d ",tg_tps," \
                    (d == 256 ? "nan,,,5,FAIL NONFINITE" : 100 - d / 16 ",,,5,PASS")
            } }'
    done
    printf '1,run-torn,abc,ggauge,av'
} >"$tmp/rows.csv"
python3 - "$tmp" <<'EOF2' 2>"$tmp/err"
import sys
sys.path.insert(0, "plots")
import history
conn = history.open_results(csvs=[sys.argv[1] + "/rows.csv"])
with history.sqlite3.connect(sys.argv[1] + "/h.sqlite") as db:
    conn.backup(db)
history.empty().backup(history.sqlite3.connect(sys.argv[1] + "/empty.sqlite"))
EOF2

# ---- rows of two comparisons: one passes with an arm A that errs too, one fails and has a NaN; a third
# was killed. Operations are not in the order of their names, one is outside of the layers.
{
    echo 'schema,run_id,commit_id,engine,backend,model,model_fp,text,qtype,bpw,test,subject,arm_b,n_ctx,'\
'n_threads,n_ubatch,type_k,type_v,settings,metric,value,ci_low,ci_high,n_rep,status'
    for q in q8_0:8.5:0.0001:PASS iq4_kt:4.031:0.0125:FAIL_MEAN q4_0:4.5:0.001:; do
        echo "$q" | awk -F: '{
            row = "1,cmp-" $1 ",abc,ggauge,ref,tiny,fp" $1 ",wiki.test.raw," $1 "," $2 ",compare,"
            arm = ",avx2 -t 2 -ub 512 f16/f16,512,2,512,f16,f16,\"{\"\"margin\"\":0.002}\","
            for (c = 1; c <= 12; c++)
                print row "chunk " 40 - c arm "ln_ratio," $3 + (c == 1) "," (c < 2 ? "," : $3 - 0.02 / c \
                    "," $3 + 0.02 / c) "," c ",open"
            if ($4 == "") next
            sub("_", " ", $4)
            print row "run" arm "ln_ratio," $3 "," $3 - 0.0015 "," $3 + 0.0015 ",12," $4
            print row "run" arm "top1,0.9875,,,3060,PASS"
            split("p50 0.01 p90 0.04 p99 0.08 p99.9 0.125 p99.99 0.15 max 0.25", q, " ")
            for (i = 1; i < 12; i += 2) print row q[i] arm "d_abs," q[i + 1] ",,,3060,PASS"
            print row "arm A" arm "floor_d_max,0,,,510,PASS"
            print row "inp_embd/0" arm "op_error,0,,,,PASS"
            for (l = 0; l < 3; l++) {
                print row "Qcur-" l "/0" arm "op_error,0.25,,,,PASS"
                print row "Qcur-" l "/1" arm "op_error," ($4 == "PASS" ? 0.125 : l == 1 ? "nan" : 12.5) ",,,,PASS"
                print row "Kcur-" l "/0" arm "op_error_a," ($4 == "PASS" ? 0.5 : 0) ",,,,PASS"
            }
            print row "result_output/0" arm "op_error,0.75,,,,PASS" }'
    done
} >"$tmp/compare.csv"

# ---- charts -----------------------------------------------------------------------------------
if command -v gnuplot >/dev/null 2>&1; then
    render --db "$tmp/h.sqlite" --out "$tmp/db" --last 9
    check "the charts of a history are drawn"
    for chart in ppl_bpw ppl_running sweep_pp sweep_tg; do
        drawn "$tmp/db/$chart"
        check "$chart: SVG and PNG"
    done
    has "$tmp/db/sweep_pp.dat" "# 0: q8_0" && has "$tmp/db/sweep_pp.dat" "# 1: iq4_kt" &&
        has "$tmp/db/sweep_pp.dat" "384 616 606 626" && has "$tmp/db/sweep_tg.dat" "256 nan nan nan"
    check "the data of the sweep: curves, values, intervals, nan"
    has "$tmp/db/ppl_running.dat" "12 70 58 88" && has "$tmp/db/ppl_bpw.dat" "4.031 75.125 74 76"
    check "the data of the perplexities"
    has "$tmp/db/sweep_pp.svg" "iq4_kt" && has "$tmp/db/sweep_pp.svg" "tokens/s" &&
        has "$tmp/db/ppl_bpw.svg" "bits per weight"
    check "names and units are written"

    LC_ALL=de_DE.UTF-8 render --csv "$tmp/rows.csv" --out "$tmp/csv" &&
        cmp -s "$tmp/db/sweep_pp.dat" "$tmp/csv/sweep_pp.dat" &&
        cmp -s "$tmp/db/sweep_pp.svg" "$tmp/csv/sweep_pp.svg"
    check "the same from CSV, in any locale"
    render --db "$tmp/h.sqlite" --out "$tmp/one" --run run-iq4_kt --charts ppl_bpw ppl_running &&
        drawn "$tmp/one/ppl_bpw" && ! has "$tmp/one/ppl_running.dat" "q8_0" &&
        [ ! -e "$tmp/one/sweep_pp.svg" ]
    check "--run and --charts choose"
    render --db "$tmp/h.sqlite" --out "$tmp/point" --where "subject = 'chunk 1' OR n_kv = 0" &&
        drawn "$tmp/point/ppl_running" && drawn "$tmp/point/sweep_pp"
    check "a single point is drawn"
    render --csv results/pr529/*.csv --out "$tmp/pr529" && drawn "$tmp/pr529/ppl_bpw" &&
        has "$tmp/pr529/ppl_bpw.dat" "4.035 922.0458" && has "$tmp/pr529/sweep_tg.dat" "0 9.34 nan nan"
    check "what pull request 529 reported"

    # products of two columns, and the peaks of their run
    awk 'BEGIN {
        print "schema,run_id,commit_id,backend,qtype,test,subject,n_threads,n_ubatch,cells,metric,value," \
            "ci_low,ci_high,n_rep,status"
        run = "1,run-kernels,abc,"
        for (c = 1; c <= 2; c++) {
            col = c == 1 ? "avx2" : "avx512"
            for (n = 1; n <= 64; n *= 8) {
                row = run col ",q8_0,kernel-bench,q8_0@" col ",2," n ",q8_0@" col ","
                print row "kernel_gmacs," c * 10 * n "," c * 9 * n "," c * 11 * n ",9,PASS"
                print row "kernel_gbs,10,9,11,9,PASS"
            }
            print run col ",,kernel-bench,i8@" col ",2,,i8@" col ",peak_gmacs," c * 1000 ",,,,PASS"
        }
        print run "avx2,,kernel-bench,read,2,,read,peak_gbs,25,,,,PASS"
    }' >"$tmp/kernels.csv"
    render --csv "$tmp/kernels.csv" --out "$tmp/kernels" --charts roofline && drawn "$tmp/kernels/roofline" &&
        has "$tmp/kernels/roofline.dat" "128 1280 1152 1408" && has "$tmp/kernels/roofline.dat" "80 2000 nan nan" &&
        has "$tmp/kernels/roofline.svg" "q8_0@avx512" && ! has "$tmp/kernels/roofline.svg" "q8_0@avx2" &&
        has "$tmp/kernels/roofline.svg" "roof: reading 25.0 GB/s, i8@avx512 2000 G MAC/s"
    check "the roofline: the fastest column, and the roof where the two limits meet"

    cmp_charts="compare_ratio compare_tail compare_ops"
    render --csv "$tmp/compare.csv" --out "$tmp/cmp" --charts $cmp_charts &&
        render --csv "$tmp/compare.csv" --out "$tmp/cmp1" --charts $cmp_charts --run cmp-q8_0
    check "comparisons, several and one"
    for chart in $cmp_charts; do
        drawn "$tmp/cmp/$chart" && drawn "$tmp/cmp1/$chart"
        check "$chart: SVG and PNG"
    done
    has "$tmp/cmp/compare_ratio.dat" "# 0: q8_0: PASS, +0.00010 in [-0.00140, +0.00160]" &&
        has "$tmp/cmp/compare_ratio.dat" "# 1: q4_0: unfinished" &&
        has "$tmp/cmp/compare_ratio.dat" "# 2: iq4_kt: FAIL MEAN, +0.01250" &&
        has "$tmp/cmp/compare_ratio.dat" "1 1.0001 nan nan" && has "$tmp/cmp/compare_ratio.dat" "8 0.0001 -0.0024 0.0026"
    check "the mean closing in: chunks in the order of the run, verdicts in the legend"
    has "$tmp/cmp/compare_ratio.svg" "margin ±0.002" && has "$tmp/cmp/compare_ratio.svg" "ref against avx2"
    check "the margin is drawn, the arms are named"
    has "$tmp/cmp/compare_tail.dat" "0.125 0.1 " && has "$tmp/cmp/compare_tail.dat" "0.25 0.03267" &&
        ! has "$tmp/cmp/compare_tail.dat" "0.15 0.01 "
    check "the tail: no quantile beyond what the positions can tell, the largest is one of them"
    has "$tmp/cmp/compare_ops.svg" "iq4_kt, arm B: FAIL MEAN; worst Qcur-1/1, not finite" &&
        has "$tmp/cmp/compare_ops.svg" "q8_0, arm A: PASS; worst Kcur-0, 0.5 × limit" &&
        has "$tmp/cmp/compare_ops.svg" "q8_0, arm B: PASS; worst result_output, 0.75 × limit" &&
        ! has "$tmp/cmp/compare_ops.svg" "iq4_kt, arm A" && has "$tmp/cmp/compare_ops.svg" ">12.5<"
    check "the operations: worst ones named, arm A only where it errs"
    python3 - <<'EOF2' >"$tmp/err"
import sys
sys.path.insert(0, "plots")
import heat
m = heat.Map("", [("b-0/0", 1), ("c-0/0", 1), ("b-1/0", 1), ("a-x-1/2", 1), ("c-1/0", 1), ("z", 1)])
assert m.ops == ["b", "a-x #3", "c", "z"], m.ops
assert m.layers == [heat.OUTSIDE, 0, 1] and m.cells["a-x #3", 1] == 1
assert heat.split("cache_v_l12/0") == ("cache_v", 12) and heat.split("x_l3/0") == ("x_l3", heat.OUTSIDE)
for n in (1, 2, 20, 80):
    maps = [heat.Map("", [(f"op-{l}/0", 0.5) for l in range(n)]) for _ in range(2)]
    layout = heat.Layout(maps, 800)
    boxes = [b[2:6] for b in layout.cells]
    assert len(boxes) == 2 * n and all(0 <= b[0] < b[1] <= 800 for b in boxes)
    assert all(0 <= b[2] < b[3] <= layout.height for b in boxes)
    assert not any(a is not b and a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
                   for a in boxes for b in boxes)
EOF2
    check "heat maps: order of operations, cells inside of the canvas, none over another"

    render --db "$tmp/empty.sqlite" --out "$tmp/none" && [ ! -e "$tmp/none" ] &&
        has "$tmp/stdout" "sweep_pp: no data, skipped"
    check "no data: said, skipped, exit 0"
else
    echo "ok - charts # SKIP gnuplot is not installed"
fi

# ---- report -----------------------------------------------------------------------------------
report --db "$tmp/h.sqlite" --out "$tmp/report"
check "a report is written"
page=$tmp/report/README.md
has "$page" "| tiny | iq4_kt | - | 4.031 | avx2 |" && has "$page" "75.1250 +/- 0.50000 | 1.0713 |"
check "perplexity with error and ratio"
has "$page" "|   128 |     32 |    384 |        - |   616.00 |        - |    76.00 |"
check "the sweep in the familiar form"
has "$page" "2 of 44 values did not pass" && has "$page" "FAIL NONFINITE"
check "what did not pass is told first"
report --csv "$tmp/compare.csv" "$tmp/rows.csv" --out "$tmp/both" && page=$tmp/both/README.md
[ "$(sed -n '/^#/p' "$page" | sed -n 2p)" = "## Verdict" ] &&
    has "$page" "2 of 44 values did not pass" && ! has "$page" "| open |" && has "$page" "| **unfinished** | tiny | q4_0 | ref against avx2 | - |" &&
    sed -n 7p "$page" | grep -qF "| **FAIL (MEAN)** | tiny | iq4_kt | ref against avx2 | +0.01250 in [+0.01100, +0.01400] | 0.002 | 12 | 98.75 % | 0.125 | 0.25 | 0, - | Qcur-1/1, not finite |" &&
    sed -n 8p "$page" | grep -qF "| **PASS** | tiny | q8_0 |" && has "$page" "compare_ops.svg"
check "verdicts stand first, the worst before the others; an open one is no failure"
report --db "$tmp/empty.sqlite" --out "$tmp/none" && has "$tmp/stdout" "nothing to report"
check "an empty history is no error"

# ---- broken input -----------------------------------------------------------------------------
head -c 4096 /dev/urandom >"$tmp/bad.sqlite"
for db in bad.sqlite absent.sqlite; do
    report --db "$tmp/$db" --out "$tmp/none"
    [ $? -eq 3 ] && [ "$(wc -l <"$tmp/err")" -eq 1 ] && has "$tmp/err" "$db: "
    check "$db: one line, exit 3"
done
report --db "$tmp/h.sqlite" --out "$tmp/none" --where 'no_such = 1'
[ $? -eq 3 ] && has "$tmp/err" "no such column: no_such"
check "a wrong condition is told"
report --db "$tmp/h.sqlite" --out "$tmp/none" --run nothing
[ $? -eq 3 ] && has "$tmp/err" "no run nothing"
check "an unknown run is told"
echo 'a,b' >"$tmp/other.csv"
report --csv "$tmp/other.csv" --out "$tmp/none"
[ $? -eq 3 ] && has "$tmp/err" "not a result file"
check "a CSV file of another kind is told"

# As `ggauge history` does: rows that would vanish from charts, or be drawn as something else, stop the work.
fields="schema,run_id,test,model,text,metric,value"
one="1,r1,perplexity,tiny,wiki,ppl,9.25"
refused() { # NAME WHAT LINE...: a file of these lines is refused with WHAT
    name=$1 what=$2
    shift 2
    printf '%s\n' "$fields" "$@" >"$tmp/refused.csv"
    report --csv "$tmp/refused.csv" --out "$tmp/refused"
    [ $? -eq 3 ] && has "$tmp/err" "report.py: $tmp/refused.csv:$what" && [ ! -e "$tmp/refused" ]
    check "$name is told with file and line"
    if command -v gnuplot >/dev/null 2>&1; then
        render --csv "$tmp/refused.csv" --out "$tmp/refused" --charts ppl_bpw
        [ $? -eq 3 ] && has "$tmp/err" "render.py: $tmp/refused.csv:$what" && [ ! -e "$tmp/refused" ]
        check "... and not drawn"
    fi
}
refused "a row of another schema" "3: row of schema '99', expected schema 1" "$one" "99,${one#*,}"
refused "a short line in the middle" "3: 3 fields, expected 7 as in the header" "$one" "1,r1,perplexity" "$one"
refused "a value that is no number" "2: value: expected a number, found 'nine'" "${one%,*},nine"
refused "a row of no run" "2: NOT NULL constraint failed: result.run_id" "1,,${one#*,*,}"
sed 1s/schema/scheme/ "$tmp/rows.csv" >"$tmp/other.csv"
report --csv "$tmp/other.csv" --out "$tmp/none"
[ $? -eq 3 ] && has "$tmp/err" "other.csv:1: not a result file, it has no column 'schema'"
check "rows without a schema are told"
report --csv "$tmp/rows.csv" --out "$tmp/torn" && [ "$(wc -l <"$tmp/err")" -eq 1 ] &&
    has "$tmp/err" "rows.csv:$(($(wc -l <"$tmp/rows.csv") + 1)): the last line is torn"
check "a torn last line is left out with a warning"
sed '3s/,run-/,"run-/' "$tmp/rows.csv" >"$tmp/quote.csv"
! cmp -s "$tmp/rows.csv" "$tmp/quote.csv" && ! report --csv "$tmp/quote.csv" --out "$tmp/quote" &&
    has "$tmp/err" "quote.csv:3: a quote is opened and never closed"
check "a quote that is never closed is refused"
printf '%s\n%s\n%s' "$fields" "$one" "1,r2,perplexity,tiny,wiki,ppl,92" >"$tmp/cut.csv"
report --csv "$tmp/cut.csv" --out "$tmp/cut" && has "$tmp/err" "cut.csv:3: the last line is torn" &&
    has "$tmp/cut/README.md" "9.2500" && ! has "$tmp/cut/README.md" "92.0000"
check "a last line that may have lost digits is left out as well"
cp "$tmp/rows.csv" "$tmp/copy.csv"
for again in rows.csv copy.csv; do
    report --csv "$tmp/rows.csv" "$tmp/$again" --out "$tmp/twice" &&
        cmp -s "$tmp/twice/README.md" "$tmp/report/README.md" && has "$tmp/err" "rows of run run-q8_0 are replaced"
    check "rows.csv and $again count once"
done
printf '%s\n' "$fields" "${one%,*},0" >"$tmp/zero.csv"
report --csv "$tmp/zero.csv" --out "$tmp/zero" && has "$tmp/zero/README.md" "| 0.0000 |"
check "a perplexity of 0 is shown"

# Names of files are bytes. What the database has of them is asked for again where the worst operation is found.
mkdir "$tmp/bytes" && sed "s/tiny/ti\\xffny/; s/avx2 -t/avx2\\xff -t/" "$tmp/compare.csv" >"$tmp/bytes/compare.csv" &&
    sed '$d; s/tiny/ti\xffny/' "$tmp/rows.csv" >"$tmp/bytes/rows.csv" &&
    "${GGAUGE:-build/ggauge}" history --runs "$tmp/bytes" --db "$tmp/bytes.sqlite" >"$tmp/err" 2>&1
check "a history with a name that is not UTF-8"
worst='avx2\xff | +0.01250 in [+0.01100, +0.01400] | 0.002 | 12 | 98.75 % | 0.125 | 0.25 | 0, - | Qcur-1/1'
for from in "--db $tmp/bytes.sqlite" "--csv $tmp/bytes/compare.csv $tmp/bytes/rows.csv"; do
    # shellcheck disable=SC2086
    report $from --out "$tmp/bytes.${from%% *}" && page="$tmp/bytes.${from%% *}/README.md" &&
        has "$page" '| ti\xffny | iq4_kt | - | 4.031 |' && has "$page" "$worst" &&
        { ! command -v gnuplot >/dev/null 2>&1 || { has "$page" ppl_bpw.svg && has "$page" compare_ops.svg; }; }
    check "${from%% *}: a name that is not UTF-8 stops no chart"
done

# ---- the import gives what is committed -------------------------------------------------------
python3 - "$tmp" <<'EOF2' >"$tmp/stdout" 2>"$tmp/err"
import filecmp, os, sys
sys.path.insert(0, "plots")
import import_pr529
committed, import_pr529.OUT = import_pr529.OUT, sys.argv[1] + "/import"
status = import_pr529.main()
names = os.listdir(import_pr529.OUT)
same, _, _ = filecmp.cmpfiles(committed, import_pr529.OUT, names, shallow=False)
sys.exit(status or len(same) != 5 or len(names) != 5)
EOF2
check "results/pr529 follows from datasets/pr529"
