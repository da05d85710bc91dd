#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge compare on the default models: verdicts and exit codes, the files it leaves, altered and
# differently quantised files, saved logits, workers that misbehave, the matrix, and refusals.
model=datasets/models/tiny-qwen3-q8_0.gguf
other=datasets/models/tiny-qwen3-iq4_kt.gguf
text=datasets/small/small.txt
if [ ! -f $model ] || [ ! -f $other ] || [ ! -f $text ]; then
    echo "ok - compare # SKIP the default models or $text are not here"
    exit 0
fi
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
export XDG_CACHE_HOME="$tmp/cache" # floors of this test alone
status=0
check() { # check NAME COMMAND...
    name=$1
    shift
    if "$@"; then echo "ok - $name"; else
        echo "not ok - $name (exit $code)"
        cat "$tmp/out" "$tmp/err"
        status=1
    fi
}
base="-m $model -f $text -c 64 -b 128 -ub 64 -t 2"
compare() {
    "$GGAUGE" compare $base "$@" >"$tmp/out" 2>"$tmp/err"
    code=$?
}
exits() { [ "$code" -eq "$1" ]; }
says() { grep -q -- "$1" "$tmp/out"; }
verdict() { grep -q "^verdict  *$1" "$tmp/out"; }
one_error() { [ "$(grep -c '^error: ' "$tmp/err")" -eq 1 ] && grep -q "^error: .*$1" "$tmp/err"; }

# ---- healthy arms
compare --a best --b "best -ub 17 -t 1" --chunks 20 --out "$tmp/aa" --csv "$tmp/rows.csv"
check "an arm against itself, other shapes: exit 0" exits 0
check "... PASS after the first 8 chunks" grep -q "^verdict .*PASS: .*after 8 chunks" "$tmp/out"
check "... the same bits" says "median 0   99 % 0   99.9 % 0   max 0"
check "... divergence exactly 0" says "A||B mean 0 "
check "... floors of both arms are equal bit for bit" \
    [ "$(grep -c '^floor [AB] .*equal bit for bit' "$tmp/out")" -eq 2 ]
check "compare.csv has a line a chunk" [ "$(wc -l <"$tmp/aa/compare.csv")" -eq 9 ]
check "summary.json says PASS" grep -q '"verdict": "PASS"' "$tmp/aa/summary.json"
check "junit.xml counts no failure" grep -q 'tests="1" failures="0" skipped="0"' "$tmp/aa/junit.xml"
check "report.md says PASS" grep -q '^### ggauge compare: PASS' "$tmp/aa/report.md"
check "the verdict is in the rows" grep -q ',run,.*ln_ratio,.*PASS' "$tmp/rows.csv"

compare --a best --b "best -ub 17 -t 1" --chunks 20
check "a second run remembers the floors" [ "$(grep -c '^floor .*(remembered)' "$tmp/out")" -eq 2 ]

compare --a ref --b best --chunks 30 --margin 0.05 --out "$tmp/ref"
check "ref and the best column agree" exits 0
check "ops.csv has a line for each" [ "$(wc -l <"$tmp/ref/ops.csv")" -gt 100 ]
check "... and every operation is within its limit" says "^operations  *all [0-9]* within their limits"

compare --a ref --b best --chunks 3 --no-ops
check "too few chunks for the mean: 125" exits 125
check "... and it says so" says "UNDECIDED: .*3 chunks are too few"

# ---- files that differ
# 300 bytes of one tensor; tensors fill the file to its end, so offsets count from there too
"$GGAUGE" inspect -m $model --json >"$tmp/json"
offset=$(grep -o '"name":"blk.3.ffn_down.weight"[^}]*"offset":[0-9]*' "$tmp/json" | grep -o '[0-9]*$')
data=$(grep -o '"sizes":{[^}]*"bytes":[0-9]*' "$tmp/json" | grep -o '[0-9]*$')
at=$(($(wc -c <$model) - data + offset + 5000))
cp $model "$tmp/altered.gguf"
head -c 300 /dev/zero | dd of="$tmp/altered.gguf" bs=1 seek=$at conv=notrunc 2>"$tmp/err"
compare --a best --b best -m-b "$tmp/altered.gguf" --chunks 8 --out "$tmp/altered"
check "altered bytes are named to their tensor" says "weights differ: blk.3.ffn_down.weight (q8_0 in both"
check "... in report.md too" grep -q 'blk.3.ffn_down.weight' "$tmp/altered/report.md"

compare --a best --b best -m-b $other --chunks 20 --out "$tmp/other"
check "another quant is a format difference, no fault" says "format difference, no fault of a kernel"
check "... within its limits on both sides" [ "$(grep -c 'over the limit' "$tmp/out")" -eq 0 ]

# ---- saved logits
"$GGAUGE" perplexity -m $model -f $text -c 64 -b 128 -ub 64 --chunks 10 --kl-divergence-base "$tmp/logits" \
    >/dev/null 2>"$tmp/err"
compare --a "file:$tmp/logits" --b best --chunks 10
check "a file of the same arm: PASS" exits 0
head -c 20000 "$tmp/logits" >"$tmp/short"
compare --a "file:$tmp/short" --b best --chunks 10
check "a truncated file is one error" one_error "$tmp/short"
compare --a "file:$tmp/logits" --b "file:$tmp/logits"
check "two files: exit 2" exits 2

# ---- workers
compare --a best --b "worker best -ub 17" --chunks 20
check "a worker gives the same bits" verdict PASS
compare --a best --b "worker:/bin/true best" --chunks 20 --out "$tmp/dead"
check "a worker that dies: FAIL" exits 1
check "... with a verdict" verdict "FAIL (ARM): arm B died: exit code 0"
check "... in junit.xml too" grep -q 'failure message="ARM' "$tmp/dead/junit.xml"
compare --a best --b "worker:$tmp/nothing best" --chunks 20
check "a worker that is not there: exit 3" exits 3
cat >"$tmp/babble" <<'END'
#!/bin/sh
echo "loading model, please wait"
exec cat >/dev/null
END
chmod +x "$tmp/babble"
compare --a best --b "worker:$tmp/babble best" --chunks 20
check "a worker that talks nonsense: FAIL" exits 1
check "... with a verdict" verdict "FAIL (ARM)"

# a worker killed in the middle keeps what was measured
"$GGAUGE" compare $base -c 32 -b 32 --a best --b "worker best -ub 1" --full --no-kld --out "$tmp/killed" \
    >"$tmp/out" 2>"$tmp/err" &
pid=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
    [ -f "$tmp/killed/compare.csv" ] && [ "$(wc -l <"$tmp/killed/compare.csv")" -gt 3 ] && break
    sleep 0.2
done
child=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null)
[ -n "$child" ] && kill -9 $child
wait $pid
code=$?
check "a worker killed in the middle: FAIL" exits 1
check "... says by what" verdict "FAIL (ARM): arm B died: signal 9"
check "... chunks before it are kept" [ "$(wc -l <"$tmp/killed/compare.csv")" -gt 3 ]

# ---- the matrix
compare --a ref --b best --matrix --matrix-ub 1,3,17 --matrix-ctx 64 --matrix-kv f16,q8_0/f16 --margin 0.2 \
    --chunks 10 --out "$tmp/matrix"
check "the matrix passes" exits 0
check "... says what -rtr has no copies for" grep -q ',1,PASS,,0,.*"no weights to repack"' "$tmp/matrix/matrix.csv"
check "... with a row for each cache" [ "$(grep -c '^ *64 .* = ' "$tmp/out")" -ge 2 ]
cells=$(wc -l <"$tmp/matrix/matrix.csv")
head -n $((cells - 2)) "$tmp/matrix/matrix.csv" >"$tmp/matrix/cut" && mv "$tmp/matrix/cut" "$tmp/matrix/matrix.csv"
compare --a ref --b best --matrix --matrix-ub 1,3,17 --matrix-ctx 64 --matrix-kv f16,q8_0/f16 --margin 0.2 \
    --chunks 10 --out "$tmp/matrix"
check "... goes on where it was cut off" grep -q "holds $((cells - 3)) of $((cells - 1)) cells" "$tmp/err"
check "... and ends with the same cells" [ "$(wc -l <"$tmp/matrix/matrix.csv")" -eq "$cells" ]

cp "$tmp/matrix/matrix.csv" "$tmp/cells.csv"
matrix() { compare --a ref --b best --matrix --matrix-ub 1 --matrix-kv f16 --chunks 10 --out "$tmp/matrix" "$@"; }
matrix --matrix-ctx 262144
check "contexts that are longer than the text: exit 125" exits 125
check "... UNDECIDED" verdict UNDECIDED
check "... the cells stay" cmp -s "$tmp/cells.csv" "$tmp/matrix/matrix.csv"
sed -i '3s/,[^,]*,/,"&/' "$tmp/matrix/matrix.csv"
cp "$tmp/matrix/matrix.csv" "$tmp/broken.csv"
matrix --matrix-ctx 64
check "a matrix.csv that cannot be read: exit 3" exits 3
check "... is left as it is" cmp -s "$tmp/broken.csv" "$tmp/matrix/matrix.csv"
echo "mine" >"$tmp/matrix/matrix.csv"
matrix --matrix-ctx 64
check "somebody's matrix.csv: exit 2" exits 2
check "... stays" [ "$(cat "$tmp/matrix/matrix.csv")" = mine ]
matrix --matrix-ctx 64 --csv "$tmp/m.csv"
check "--matrix has no result rows: exit 2" exits 2

# ---- one run at a time
if command -v flock >/dev/null; then
    flock "$tmp/aa" "$GGAUGE" compare $base --a best --b "best -t 1" --chunks 1 --out "$tmp/aa" >"$tmp/out" 2>"$tmp/err"
    code=$?
    check "a folder in use: exit 3" exits 3
    check "... says so" one_error "$tmp/aa: is being written by another run"
    : >"$tmp/base.kld"
    flock "$tmp/base.kld" "$GGAUGE" perplexity $base --chunks 1 --kl-divergence-base "$tmp/base.kld" >"$tmp/out" 2>"$tmp/err"
    code=$?
    check "saved logits in use: exit 3" exits 3
    check "... says so" one_error "$tmp/base.kld: is being written by another run"
else
    echo "ok - one run at a time # SKIP no flock"
fi
echo "mine" >"$tmp/floors"
compare --a best --b "best -ub 17" --chunks 1 --floor-file "$tmp/floors"
check "--floor-file over something else: it stays" [ "$(cat "$tmp/floors")" = mine ]

# ---- names that are not UTF-8, which JSON and XML have to be
odd=$(printf 't\377.txt')
cp $text "$tmp/$odd" 2>/dev/null
if [ -f "$tmp/$odd" ]; then
    "$GGAUGE" perplexity -m $model -f $text -c 64 -b 128 -ub 64 --chunks 10 \
        --kl-divergence-base "$tmp/$(printf 'l\377.bin')" >"$tmp/out" 2>"$tmp/err"
    "$GGAUGE" compare -m $model -f "$tmp/$odd" -c 64 -b 128 -ub 64 -t 2 --chunks 10 --margin 0.05 --no-ops \
        --a "file:$tmp/$(printf 'l\377.bin')" --b best --out "$tmp/odd" --csv "$tmp/odd.csv" >"$tmp/out" 2>"$tmp/err"
    code=$?
    check "text and logits of names that are not UTF-8: exit 0" exits 0
    bad=$(printf '\357\277\275') # U+FFFD
    check "... named in summary.json" grep -q "\"text_file\": \".*/t\(${bad}\|.ufffd\)\.txt\"" "$tmp/odd/summary.json"
    check "... with the arm" grep -q "\"arm\": \"file:.*/l\(${bad}\|.ufffd\)\.bin\"" "$tmp/odd/summary.json"
    for f in summary.json junit.xml report.md ../odd.csv; do
        check "... $f is UTF-8" sh -c 'iconv -f UTF-8 -t UTF-8 "$1" >/dev/null && test -s "$1"' - "$tmp/odd/$f"
    done
    check "... a row has the text's name" grep -q ",t$bad.txt," "$tmp/odd.csv"
fi

# ---- refusals
compare --a best --b "best -c 128"
check "different contexts: exit 2" exits 2
check "... says why" one_error "different contexts"
compare --b "best --launch 'ssh host'"
check "a launch without a worker: exit 2" exits 2
compare --a avx3
check "an unknown kind: exit 2" exits 2
compare --b "best --nonsense"
check "an unknown option of an arm: exit 2" exits 2
"$GGAUGE" compare -m $model --a ref >"$tmp/out" 2>"$tmp/err"
code=$?
check "no text: exit 2" exits 2
"$GGAUGE" compare -f $text >"$tmp/out" 2>"$tmp/err"
code=$?
check "no model: exit 2" exits 2
compare --a best --b best -m-b /nonexistent.gguf
check "a missing file: exit 3" exits 3
if [ -c /dev/full ]; then
    "$GGAUGE" compare $base --a best --b best --chunks 8 >/dev/full 2>"$tmp/err"
    code=$?
    check "a full disk behind stdout: exit 3" exits 3
fi
compare --a best --b best --chunks 8 --out "/nonexistent/dir"
check "no place for --out: exit 3" exits 3
exit $status
