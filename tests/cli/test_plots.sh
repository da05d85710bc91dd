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
python3 - "$tmp" <<'EOF2'
import sys
sys.path.insert(0, "plots")
import history
conn = history.open_results(csvs=[sys.argv[1] + "/rows.csv"])
with history.sqlite3.connect(sys.argv[1] + "/h.sqlite") as db:
    conn.backup(db)
history.empty().backup(history.sqlite3.connect(sys.argv[1] + "/empty.sqlite"))
EOF2

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
