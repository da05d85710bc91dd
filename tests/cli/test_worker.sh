#!/bin/sh
# SPDX-License-Identifier: MIT
# Arms in other processes and in files, end to end through compare: the same bits, and one clear verdict
# for each way in which a process can fail, with the chunks before it kept.
cd "$(dirname "$0")/../.." || exit 3
. tests/cli/common.sh
need_model "arms in other processes"
text=datasets/small/small.txt

compare() { # ARGS...: output in $tmp/out, exit code in $status
    rm -rf "$tmp/dir"
    timeout 120 "$GGAUGE" compare -m "$model" -f "$text" -c 64 -t 1 --floor-file "$tmp/floors" --out "$tmp/dir" \
        "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
}
# dies NAME WORDS ARGS...: FAIL, exit 1, the verdict has WORDS, and every report is there.
dies() {
    name=$1 words=$2
    shift 2
    compare "$@"
    check "$name" sh -c "[ $status -eq 1 ] && grep -q -e '^verdict  *FAIL (ARM): arm B $words' '$tmp/out' &&
        grep -q '\"verdict\": \"FAIL\"' '$tmp/dir/summary.json' && grep -q '<failure' '$tmp/dir/junit.xml' &&
        grep -q 'arm B $words' '$tmp/dir/report.md'"
}

# ---- the same bits
compare --a "ref" --b "worker ref" --chunks 8
check "a worker gives the same bits" sh -c "[ $status -eq 0 ] && grep -q '^verdict  *PASS' '$tmp/out' &&
    grep -q 'max 0\$' '$tmp/out'"
compare --a "ref" --b "ref -ub 17" --launch-b "nice -n 1 env 'A=b c'" --chunks 8
check "--launch-b starts this program" sh -c "[ $status -eq 0 ] && grep -q '^verdict  *PASS' '$tmp/out'"

"$GGAUGE" perplexity -m "$model" -f "$text" -c 64 -t 1 --backend ref --chunks 12 \
    --kl-divergence-base "$tmp/logits" >"$tmp/out" 2>"$tmp/err"
check "logits are saved" test -s "$tmp/logits"
compare --a "file:$tmp/logits" --b "worker ref" --chunks 8 --margin 0.01
check "saved logits are an arm" sh -c "[ $status -eq 0 ] && grep -q '^verdict  *PASS' '$tmp/out'"

# ---- each failure
dies "a program that ends at once" "died: exit code 0" --b "worker:/bin/true ref"
dies "a program that says something else" "broke the protocol: malformed frame: it begins with .work" \
    --b "worker:/bin/echo ref"
dies "a program that says what it hears" "broke the protocol: malformed frame: .hello. where .welcome." \
    --b ref --launch-b "sh -c 'exec cat'"
compare --b "worker:/nowhere/ggauge ref"
check "a program that is not there is no verdict" sh -c "[ $status -eq 3 ] &&
    grep -q '^error: arm B: cannot start /nowhere/ggauge' '$tmp/err'"

# in_mid_run SIGNAL ARGS...: the signal reaches arm B after some chunks.
in_mid_run() {
    signal=$1
    shift
    rm -f "$tmp/pid"
    rm -rf "$tmp/dir"
    (
        i=0
        while [ $i -lt 600 ] && [ "$(cat "$tmp/dir/compare.csv" 2>/dev/null | wc -l)" -lt 4 ]; do
            sleep 0.02
            i=$((i + 1))
        done
        kill -"$signal" "$(cat "$tmp/pid")"
    ) &
    compare --a ref --b ref --launch-b "sh -c 'echo \$\$ >$tmp/pid; exec \"\$@\"' sh" --full --chunks 2000 "$@"
    wait
}
kept() { # the chunks before the end
    [ "$(wc -l <"$tmp/dir/compare.csv")" -ge 4 ] && grep -q '^PPL ' "$tmp/out"
}
in_mid_run KILL
check "kill -9 is a verdict" sh -c "[ $status -eq 1 ] &&
    grep -q '^verdict  *FAIL (ARM): arm B died: signal 9 after [1-9][0-9]* chunks' '$tmp/out'"
check "... and what was measured is kept" kept
in_mid_run STOP
check "a stopped process is a verdict" sh -c "[ $status -eq 1 ] &&
    grep -q '^verdict  *FAIL (ARM): arm B does not answer: nothing for 10 s; it is stopped (T)' '$tmp/out'"
check "... and what was measured is kept" kept
check "... and it is gone" sh -c "! kill -0 $(cat "$tmp/pid") 2>/dev/null"

# ---- by hand
"$GGAUGE" worker --help >"$tmp/out" 2>"$tmp/err"
check "worker --help" grep -q '^usage: ggauge worker' "$tmp/out"
echo "hello?" | "$GGAUGE" worker >"$tmp/out" 2>"$tmp/err"
check "words are no frame" sh -c "[ $? -eq 3 ] && ! [ -s '$tmp/out' ] &&
    grep -q '^error: malformed frame: it begins with .hell' '$tmp/err'"
"$GGAUGE" worker </dev/null >"$tmp/out" 2>"$tmp/err"
check "nothing to do is no error" sh -c "[ $? -eq 0 ] && ! [ -s '$tmp/out' ]"
