#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge perplexity on the default model: printed lines, rows, going on after kill -9 and after a full
# disk with the same digits, divergence of a model from itself, and refusals.
model=datasets/models/tiny-qwen3-q8_0.gguf
text=datasets/small/small.txt
if [ ! -f $model ] || [ ! -f $text ]; then
    echo "ok - perplexity # SKIP $model or $text is not here"
    exit 0
fi
tmp=$(mktemp -d) || exit 3
mounted=
trap '[ -z "$mounted" ] || umount "$tmp/full"; rm -rf "$tmp"' EXIT
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
# Small chunks: what is tested here does not depend on their size.
base="-m $model -c 64 -b 128 -ub 64"
ppl() {
    "$GGAUGE" perplexity $base "$@" >"$tmp/out" 2>"$tmp/err"
    code=$?
}
exits() { [ "$code" -eq "$1" ]; }
one_error() { [ "$(grep -c '^error: ' "$tmp/err")" -eq 1 ] && grep -q "^error: .*$1" "$tmp/err"; }
column() { # column NAME FILE: values of a metric, in order
    awk -F'"' -v m="$1" 'NF > 1 && index($NF, "," m ",") == 1 { split($NF, f, ","); print f[3] }' "$2"
}

# ---- what is printed and stored
ppl -f $text --chunks 12 --csv "$tmp/a.csv"
cp "$tmp/out" "$tmp/whole"
check "exit 0" exits 0
check "first line is [1]x,[2]y,..." \
    sh -c "head -n 1 '$tmp/out' | grep -qE '^(\[[0-9]+\][0-9]+\.[0-9]{4},){12}\$'"
check "final estimate" grep -qE '^Final estimate: PPL = [0-9]+\.[0-9]{4} \+/- [0-9]+\.[0-9]{5}$' "$tmp/out"
check "clustered error" \
    grep -qE '^Chunk-clustered error: \+/- [0-9.]+ \(95 % interval [0-9.]+ \.\. [0-9.]+, 12 chunks\)$' "$tmp/out"
check "three lines on stdout" [ "$(wc -l <"$tmp/out")" -eq 3 ]
check "header and four rows a chunk" [ "$(grep -c ',chunk [0-9]*,' "$tmp/a.csv")" -eq 48 ]
check "rows hold the printed value" \
    [ "$(column ppl "$tmp/a.csv" | xargs printf '%.4f')" = "$(sed -n 's/^Final.*PPL = \([0-9.]*\) .*/\1/p' "$tmp/out")" ]

ppl -f $text --chunks 12 -b 64 -t 1
check "other batches and threads, the same digits" cmp -s "$tmp/out" "$tmp/whole"
ppl -f $text --chunks 2 -t 512
check "more threads than processors: a warning" grep -q '^warning: 512 threads on [0-9]* processors' "$tmp/err"
ppl -f $text --chunks 4 --ppl-output-type 1
check "output type 1 repeats the first position of a group" \
    [ "$(awk 'NR <= 4 { printf "%s ", $1 }' "$tmp/out")" = "0 0 128 128 " ]
ppl -f $text --ppl-stride 32 -b 64 --chunks 3
check "strides print values and no estimate" sh -c "grep -qE '^(\[[0-9]+\][0-9.]+,){3}\$' '$tmp/out' && [ \$(wc -l <'$tmp/out') -eq 1 ]"

# ---- going on
ppl -f $text --chunks 12 --csv "$tmp/a.csv" --resume
check "a complete run is printed again without evaluating" \
    sh -c "cmp -s '$tmp/out' '$tmp/whole' && ! grep -q 'tokens per second' '$tmp/err'"
check "and adds no rows" [ "$(column ppl "$tmp/a.csv" | wc -l)" -eq 1 ]

chunks_in() { # chunks_in FILE, which may not exist yet
    cat "$1" 2>/dev/null | grep -c ',ppl_running,'
}
resume_after_kill() { # resume_after_kill EXTRA...
    rm -f "$tmp/k.csv"
    "$GGAUGE" perplexity $base -f $text --chunks 12 --csv "$tmp/k.csv" "$@" >/dev/null 2>&1 &
    pid=$!
    while kill -0 $pid 2>/dev/null && [ "$(chunks_in "$tmp/k.csv")" -lt 3 ]; do sleep 0.01; done
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    have=$(chunks_in "$tmp/k.csv")
    ppl -f $text --chunks 12 --csv "$tmp/k.csv" --resume "$@"
}
resume_after_kill
check "kill -9 left some chunks" [ "$have" -ge 3 ]
check "going on gives the same digits" cmp -s "$tmp/out" "$tmp/whole"
check "and the same sums" \
    [ "$(column nll_sum "$tmp/k.csv")" = "$(column nll_sum "$tmp/a.csv")" ]
check "under the name of the first run" [ "$(sed 1d "$tmp/k.csv" | cut -d, -f2 | sort -u | wc -l)" -eq 1 ]

head -c "$(($(wc -c <"$tmp/a.csv") / 2 + 17))" "$tmp/a.csv" >"$tmp/torn.csv"
ppl -f $text --chunks 12 --csv "$tmp/torn.csv" --resume -t 1 --results "$tmp/res"
check "a torn line is no obstacle, nor are other threads" cmp -s "$tmp/out" "$tmp/whole"
check "--results holds the whole run" \
    [ "$(cat "$tmp"/res/*.csv | grep -cE ',chunk [0-9]+,.*,nll_sum,')" -eq 12 ]
cp "$tmp/a.csv" "$tmp/lost.csv"
sed -i '/,run,.*\(ppl_se_chunk\|eval_s\|rss_bytes\),/d' "$tmp/lost.csv"
ppl -f $text --chunks 12 --csv "$tmp/lost.csv" --resume
check "closing rows that were lost are written again, none twice" \
    [ "$(grep ',run,' "$tmp/lost.csv" | grep -oE '(ppl|ppl_se_token|ppl_se_chunk|eval_tps|model_bytes|bpw|rss_bytes),[0-9.e+-]+,' |
        cut -d, -f1 | sort | tr '\n' ' ')" = "bpw eval_tps model_bytes ppl ppl_se_chunk ppl_se_token rss_bytes " ]

# Values that are none of ours are not believed.
for wrong in 's/,nll_sum,[0-9.]*,/,nll_sum,abc,/' 's/,n_scored,[0-9]*,/,n_scored,3.7,/'; do
    sed "/,chunk 2,/$wrong" "$tmp/a.csv" >"$tmp/wrong.csv"
    cmp -s "$tmp/a.csv" "$tmp/wrong.csv" && echo "not ok - nothing to change by $wrong" && status=1
    ppl -f $text --chunks 12 --csv "$tmp/wrong.csv" --resume
    check "a row of a chunk that says $wrong: exit 3" exits 3
    check "... is named" grep -q "^error: $tmp/wrong.csv:[0-9]*: n.*_s.* of chunk 2 is .*, expected a" "$tmp/err"
done

# A trial of a few chunks, then the whole: the digits of one that was never interrupted.
ppl -f $text --chunks 8 --csv "$tmp/eight.csv"
cp "$tmp/out" "$tmp/eight"
ppl -f $text --chunks 4 --csv "$tmp/trial.csv"
ppl -f $text --chunks 8 --csv "$tmp/trial.csv" --resume
check "a trial is extended with the same digits" cmp -s "$tmp/out" "$tmp/eight"
check "... without evaluating its chunks again" grep -q 'holds 4 of 8 chunks' "$tmp/err"
second=$(tail -n 1 "$tmp/trial.csv" | cut -d, -f2)
grep -e "$second" -e '^schema' "$tmp/trial.csv" >"$tmp/second.csv"
check "... as a run with a name and all rows of its own" \
    [ "$(column nll_sum "$tmp/second.csv")" = "$(column nll_sum "$tmp/eight.csv")" ]
check "... beside the trial" [ "$(column ppl "$tmp/trial.csv" | wc -l)" -eq 2 ]
ppl -f $text --chunks 4 --csv "$tmp/eight.csv" --resume
check "and a part of a run is printed" \
    [ "$(head -n 1 "$tmp/out")" = "$(head -n 1 "$tmp/eight" | grep -oE '^(\[[0-9]+\][0-9.]+,){4}')" ]
ppl -f $text --chunks 12 --csv "$tmp/a.csv" --resume --escape
check "rows of another run are refused" sh -c "[ $code -eq 3 ]"
check "and the field is named" one_error 'cannot go on from these chunks: settings is'

# ---- divergence
ppl -f $text --chunks 12 --kl-divergence-base "$tmp/base.bin"
check "saving logits: exit 0" exits 0
# 20 + 4 * 12 * 64 tokens + 12 * 31 records of 2 * (4096 + 4) bytes
check "the file has its exact size" [ "$(wc -c <"$tmp/base.bin")" -eq 3053492 ]
ppl --kl-divergence --kl-divergence-base "$tmp/base.bin" --csv "$tmp/kld.csv"
check "every row of a divergence names the saved logits" \
    [ "$(grep -cE ',logits [0-9a-f]{16},' "$tmp/kld.csv")" -eq $(($(wc -l <"$tmp/kld.csv") - 1)) ]
check "against itself: exit 0" exits 0
check "mean KLD is nothing" grep -qE '^Mean    KLD: +-?0\.0000[0-9]{2} ±' "$tmp/out"
check "same top token" grep -qE '^Same top p: (100\.000|99\.[5-9][0-9]*) ±' "$tmp/out"
check "12 rows of KLD" [ "$(grep -cE '(Mean|Maximum|%|Median|Minimum) +KLD:' "$tmp/out")" -eq 12 ]
cp "$tmp/base.bin" "$tmp/want.bin"
ppl -f $text --chunks 12 --kl-divergence-base "$tmp/base.bin" --csv "$tmp/s.csv"
check "written again: the same bytes" cmp -s "$tmp/base.bin" "$tmp/want.bin"
rm -f "$tmp/base.bin"
resume_after_kill --kl-divergence-base "$tmp/base.bin"
check "killed and gone on: the same bytes" cmp -s "$tmp/base.bin" "$tmp/want.bin"
# The logits of another model of the same vocabulary: here the rows lie.
awk -F, -v OFS=, '/,chunk 3,/ { sub(/,nll_sum,[0-9.]*/, ",nll_sum,99.5") } /,chunk [4-9],|,chunk 1[0-9],|,run,/ { next } 1' \
    "$tmp/k.csv" >"$tmp/other.csv"
ppl -f $text --chunks 12 --kl-divergence-base "$tmp/base.bin" --csv "$tmp/other.csv" --resume
check "logits that do not belong to the rows: exit 3" exits 3
check "... one error" one_error 'base.bin: .*logits of another model or run; its chunk 3 '
check "... and left alone" cmp -s "$tmp/base.bin" "$tmp/want.bin"
head -c 1000000 "$tmp/want.bin" >"$tmp/cut.bin"
ppl --kl-divergence --kl-divergence-base "$tmp/cut.bin"
check "a short file: fewer chunks, and a word" \
    sh -c "[ $code -eq 0 ] && grep -q 'holds 3 of the 12 chunks' '$tmp/err'"
head -c 100 "$tmp/want.bin" >"$tmp/cut.bin"
ppl --kl-divergence --kl-divergence-base "$tmp/cut.bin"
check "no chunk: one error" one_error 'do not fit into a file of 100 bytes'
check "exit 3" exits 3

# ---- disks and other trouble
if [ -w /dev/full ]; then
    "$GGAUGE" perplexity $base -f $text --chunks 2 >/dev/full 2>"$tmp/err"
    code=$?
    check "stdout on a full disk: exit 3" exits 3
    check "one error" one_error 'stdout'
    ppl -f $text --chunks 2 --kl-divergence-base /dev/full
    check "logits on a full disk" sh -c "[ $code -eq 3 ] && grep -q '^error: /dev/full' '$tmp/err'"
fi
full_disk() { # full_disk DIR NAME: --csv in DIR, which is too small; then go on elsewhere
    check "$2: exit 3" exits 3
    check "$2: one error" one_error "$1"
    cp "$1/f.csv" "$tmp/f.csv"
    n=$(chunks_in "$tmp/f.csv")
    check "$2: what was measured is there ($n chunks)" [ "$n" -ge 1 ]
    ppl -f $text --chunks 12 --csv "$tmp/f.csv" --resume
    check "$2: going on gives the same digits" cmp -s "$tmp/out" "$tmp/whole"
}
mkdir "$tmp/limit" "$tmp/full"
( ulimit -f 16 && exec "$GGAUGE" perplexity $base -f $text --chunks 12 --csv "$tmp/limit/f.csv" ) \
    >"$tmp/out" 2>"$tmp/err"
code=$?
full_disk "$tmp/limit" "file size limit"
if mount -t tmpfs -o size=16k none "$tmp/full" 2>/dev/null; then
    mounted=1
    ppl -f $text --chunks 12 --csv "$tmp/full/f.csv"
    full_disk "$tmp/full" "full tmpfs"
else
    echo "ok - full tmpfs # SKIP may not mount"
fi

# A scale that is not a number, somewhere in the last matrix.
cp $model "$tmp/nan.gguf"
chmod u+w "$tmp/nan.gguf"
printf '\377%.0s' $(seq 80) |
    dd of="$tmp/nan.gguf" bs=1 seek=$(($(wc -c <$model) - 4096)) conv=notrunc 2>/dev/null
"$GGAUGE" perplexity -m "$tmp/nan.gguf" -f $text -c 64 --chunks 3 --csv "$tmp/nan.csv" >"$tmp/out" 2>"$tmp/err"
code=$?
check "a NaN: exit 1" exits 1
check "with its chunk and position" one_error 'NONFINITE: chunk 1, position 32: the logit of token [0-9]* is -*nan'
check "and a row" grep -q 'FAIL NONFINITE$' "$tmp/nan.csv"

# A text that no model was made for.
head -c 20000 /dev/zero >"$tmp/zero.txt"
ppl -f "$tmp/zero.txt" --chunks 2
check "worse than guessing: a warning" grep -q '^warning: a perplexity above 4096' "$tmp/err"

# ---- refusals: one clear error each
refused() { # refused EXIT PATTERN OPTIONS...
    want=$1 pattern=$2
    shift 2
    ppl "$@"
    check "refused: $*" sh -c "[ $code -eq $want ]"
    check "... one error: $pattern" one_error "$pattern"
}
head -c 300 $text >"$tmp/short.txt"
: >"$tmp/empty.txt"
refused 2 'needs a text'
refused 2 'at least 1024 tokens' -f "$tmp/short.txt" -c 512
refused 2 'the text is empty' -f "$tmp/empty.txt"
refused 3 'Is a directory' -f "$tmp"
refused 3 'No such file' -f "$tmp/none.txt"
refused 2 'needs the rows' -f $text --resume
refused 2 'needs the saved logits' --kl-divergence
refused 2 'needs a value' -f $text -fa
refused 2 'expected one of on' -f $text -fa maybe
refused 2 'outside of' -f $text -c 2
refused 2 'not go with' -f $text --ppl-stride 8 --kl-divergence-base "$tmp/x"
refused 2 'expected 16 or 24' -f $text --kl-floor 20
cp $text "$tmp/mine.txt"
refused 2 'left alone' -f "$tmp/mine.txt" --chunks 2 --kl-divergence-base "$tmp/mine.txt"
check "... and still there" cmp -s $text "$tmp/mine.txt"
refused 3 'not a file of saved logits' --kl-divergence --kl-divergence-base $model
exit $status
