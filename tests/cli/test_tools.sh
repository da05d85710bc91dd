#!/bin/sh
# SPDX-License-Identifier: MIT
# Where there is only another engine's program, or its printed table: cli: arms, import, and regress over a
# repository of two revisions whose workers are the fakes of tests/fake_llama.
cd "$(dirname "$0")/../.." || exit 3
. tests/cli/common.sh
case $GGAUGE in /*) ;; *) GGAUGE=$PWD/$GGAUGE ;; esac
FAKES=$(cd "${TEST_BIN:-build/release/tests}/../fake_llama/workers" && pwd) || exit 3
need_model "another engine's program as an arm"
model=$PWD/$model
text=$PWD/datasets/small/small.txt

# ---- cli: a program with llama-perplexity's options and lines, which is ours
tool() { # NAME LINES...: a script
    name=$1
    shift
    { echo '#!/bin/sh'; printf '%s\n' "$@"; } >"$tmp/$name"
    chmod +x "$tmp/$name"
}
tool good "exec '$GGAUGE' perplexity --backend ref \"\$@\""
tool deaf "'$GGAUGE' perplexity --backend ref \"\$@\" | sed 's/\\[2\\]/[2]9/'"
tool nan 'echo "[1]70.1,[2]nan,[3]70.2,"'
tool dies 'echo "[1]70.0,"; echo "no memory, sorry" >&2; exit 7'
tool mute 'echo "usage: something else"'
tool slow 'sleep 30'
compare() {
    timeout 120 "$GGAUGE" compare -m "$model" -f "$text" -c ${ctx:-64} -t 1 --chunks 12 "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
}
compare --a ref --b "cli:$tmp/good"
check "a tool that agrees" sh -c "[ $status -eq 0 ] && grep -q '^verdict  *PASS' '$tmp/out' && grep -q '^weaker' '$tmp/out'"
compare --a "cli:$tmp/good" --b "cli:$tmp/good" --margin 0.01
check "two tools" sh -c "[ $status -eq 0 ] && grep -q '^verdict  *PASS' '$tmp/out'"
ctx=96
compare --a ref --b "cli:$tmp/deaf"
ctx=64
check "perplexities far apart" sh -c "[ $status -eq 1 ] && grep -q '^verdict  *FAIL (WORSE_THAN_UNIFORM)' '$tmp/out'"
compare --a ref --b "cli:$tmp/nan"
check "a NaN is a verdict" sh -c "[ $status -eq 1 ] && grep -q '^verdict  *FAIL (NONFINITE)' '$tmp/out'"
compare --a ref --b "cli:$tmp/dies"
check "a tool that dies has its last words" sh -c "[ $status -eq 1 ] &&
    grep -q '^verdict  *FAIL (ARM): arm B died: exit code 7, its last words: no memory, sorry after 1 chunks' '$tmp/out'"
compare --a ref --b "cli:$tmp/mute"
check "a tool that is another" sh -c "[ $status -eq 1 ] && grep -q 'has printed no chunk, but: usage: something else' '$tmp/out'"
compare --a ref --b "cli:$tmp/slow --timeout 1"
check "a tool that says nothing" sh -c "[ $status -eq 1 ] && grep -q 'does not answer: nothing printed for 1 s' '$tmp/out'"
compare --a ref --b "cli:$tmp/nowhere"
check "a tool that is not there" sh -c "[ $status -eq 1 ] && grep -q 'died: exit code 127' '$tmp/out'"
compare --a ref --b "cli:$tmp/good" --out "$tmp/dir"
check "what it cannot give is refused" sh -c "[ $status -eq 2 ] && grep -q 'need an arm that shows positions' '$tmp/err'"

# ---- import
"$GGAUGE" sweep-bench -m "$model" -c 64 -npp 16 -ntg 4 -r 1 -t 1 --backend ref >"$tmp/table" 2>/dev/null
"$GGAUGE" import -f "$tmp/table" --engine llama.cpp --engine-commit abc --csv "$tmp/rows.csv" >"$tmp/out" 2>"$tmp/err"
check "a table becomes rows" sh -c "[ $? -eq 0 ] && grep -q ': 8 speeds of sweep-bench' '$tmp/out' &&
    [ \$(grep -c 'llama.cpp,abc,llama.cpp,imported' '$tmp/rows.csv') -eq 16 ]"
check "... with the numbers of the table" sh -c "grep -q \"pp_tps,\$(awk -F'|' 'NR == 3 { gsub(/ /, \"\", \$6); print int(\$6) }' '$tmp/table')\" '$tmp/rows.csv'"
"$GGAUGE" bench -m "$model" -p 16 -n 4 -r 1 -t 1 --backend ref -o csv >"$tmp/table" 2>/dev/null
"$GGAUGE" import -f "$tmp/table" --results "$tmp/runs" >"$tmp/out" 2>"$tmp/err"
check "llama-bench's CSV" sh -c "[ $? -eq 0 ] && grep -q ': 2 speeds of bench' '$tmp/out' && [ \$(ls '$tmp/runs' | wc -l) -eq 1 ]"
cat >"$tmp/table" <<'EOF'
| model | backend | threads |          test |            t/s |
| ----- | ------- | ------: | ------------: | -------------: |
| m Q8  | CPU     |       2 |         pp512 | 128.00 ± 10.00 |
| m Q8  | CPU     |       4 |         pp512 |  256.00 ± 5.00 |
| m Q8  | CPU     |       4 | pp512+tg128   |   80.00 ± 5.00 |
| m Q8  | CPU     |       4 |         tg128 |    nan ± 0.00  |

|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |
|-------|--------|--------|----------|----------|----------|----------|
|   512 |    128 |      0 |    4.000 |   128.00 |    8.000 |    16.00 |
EOF
"$GGAUGE" import -f "$tmp/table" --csv "$tmp/mixed.csv" -t 8 >"$tmp/out" 2>"$tmp/err"
check "what is no speed is said with its line" sh -c "[ $? -eq 0 ] &&
    grep -q ': 2 speeds of sweep-bench, 3 speeds of bench, 1 not taken' '$tmp/out' &&
    [ \$(wc -l <'$tmp/err') -eq 1 ] && grep -q 'table:6: not taken: a speed of nan tokens/s' '$tmp/err'"
cat >"$tmp/want" <<'EOF'
m Q8,bench,512,0,2,pp_tps,128,,
m Q8,bench,512,0,2,pp_s,4,,
m Q8,bench,512,0,4,pp_tps,256,,
m Q8,bench,512,0,4,pp_s,2,,
m Q8,bench,512,128,4,eval_tps,80,,
m Q8,bench,512,128,4,eval_s,8,,
,sweep-bench,512,128,8,pp_tps,128,,
,sweep-bench,512,128,8,pp_s,4,,
,sweep-bench,512,128,8,tg_tps,16,,
,sweep-bench,512,128,8,tg_s,8,,
EOF
awk -F, -v names=model,test,n_pp,n_tg,n_threads,metric,value,ci_low,ci_high 'BEGIN { n = split(names, name, ",") }
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    { for (i = 1; i <= n; i++) printf "%s%s", $at[name[i]], i < n ? "," : "\n" }' "$tmp/mixed.csv" >"$tmp/got"
check "... its threads, both timed together, no interval, each row of its own tool" diff "$tmp/want" "$tmp/got"
"$GGAUGE" import -f "$text" --csv "$tmp/none.csv" >"$tmp/out" 2>"$tmp/err"
check "a text is no table, and leaves no file" sh -c "[ $? -eq 3 ] && grep -q 'no measurement' '$tmp/err' && ! [ -e '$tmp/none.csv' ]"

# ---- regress: what `make worker` does is done by a Makefile that knows two fakes
repo=$tmp/repo
git init -q "$repo" 2>/dev/null || { echo "ok - regress # SKIP no git"; exit 0; }
commit() { # CONTENT: a revision whose build is fine, broken, or faulty
    echo "$1" >"$repo/state"
    git -C "$repo" add state
    git -C "$repo" -c user.name=t -c user.email=t@t commit -q -m "$1"
}
commit one
git -C "$repo" tag base
commit two
git -C "$repo" tag head
commit broken
git -C "$repo" tag broken
mkdir "$tmp/src"
cat >"$tmp/src/Makefile" <<MAKE
worker:
	@test -f "\$(ENGINE)/built"
	@case \$\$(cat "\$(ENGINE)/state") in one) echo "$FAKES/new-1/ggauge-libllama";; *) echo "$FAKES/old-2/ggauge-libllama";; esac
MAKE
regress() {
    timeout 200 "$GGAUGE" regress --engine-repo "$repo" --source "$tmp/src" --out "$tmp/regress" -m "$model" -f "$text" \
        -c 64 --chunks 8 -t 1 --depth 32 -npp 16 -ntg 4 -r 1 --slower 1 \
        --build 'test "$(cat state)" != broken && touch built' "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
}
regress --base base --head head
check "two revisions that agree" sh -c "[ $status -eq 0 ] &&
    grep -q '^regress  *PASS: compare says PASS; 0 of 4 speeds are more than 100 % lower' '$tmp/out' &&
    grep -q '^# head against base' '$tmp/regress/report.md' && grep -q '^| tg4 | 16 |' '$tmp/regress/report.md' &&
    grep -q '^PPL ' '$tmp/regress/report.md'"
FAKE_LLAMA=scale=blk.1.ffn_down.weight
export FAKE_LLAMA
regress --base base --head head --no-sweep
check "a fault of both shows in both" sh -c "[ $status -eq 1 ] && grep -q '^regress  *FAIL: compare says FAIL' '$tmp/out'"
unset FAKE_LLAMA
regress --base base --head broken
check "head does not build" sh -c "[ $status -eq 1 ] && grep -q '^regress  *FAIL: head does not build' '$tmp/out' &&
    grep -q 'head does not build' '$tmp/regress/report.md'"
regress --base broken --head head
check "base does not build: no verdict" sh -c "[ $status -eq 3 ] && grep -q '^error: base broken does not build' '$tmp/err'"
regress --base nothing --head head
check "no such revision" sh -c "[ $status -eq 2 ] && grep -q -e '--base nothing is no commit of' '$tmp/err'"

# What was built is used again where it is whole, clean and of the same command; each build adds a line to
# $tmp/builds.
head_tree=$tmp/regress/$(git -C "$repo" rev-parse head | cut -c1-12)
built() { # NAME N ARGS...: a regress that passes and builds N of its two revisions
    name=$1 want=$2
    shift 2
    : >"$tmp/builds"
    regress --base base --head head --no-sweep "$@"
    check "$name" sh -c "[ $status -eq 0 ] && [ \$(wc -l <'$tmp/builds') -eq $want ]"
}
count="echo x >>'$tmp/builds'; test -f state && test ! -e left && touch built left"
built "another command builds anew, without the leftovers of the first" 2 --build "$count"
check "... and is the one that the report names" grep -qF "built with \`$count\`" "$tmp/regress/report.md"
built "the same command: used again" 0 --build "$count"
echo changed >"$head_tree/state"
built "a changed file: checked out and built again" 1 --build "$count"
check "... as the commit has it" grep -qx two "$head_tree/state"
git -C "$head_tree" checkout -q base
built "another commit in its place: the same" 1 --build "$count"
rm -rf "$head_tree"
mkdir "$head_tree"
built "an empty folder, as a killed checkout leaves" 1 --build "$count"
