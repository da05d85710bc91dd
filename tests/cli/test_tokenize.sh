#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge tokenize: ids on one line, from a file as it is or from the command line.
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
model=tests/golden/tok/tiny_spm.gguf
status=0
check() { # check NAME CONDITION...
    name=$1
    shift
    if "$@"; then echo "ok - $name"; else
        echo "not ok - $name"
        head -c 1000 "$tmp/out" "$tmp/err"
        status=1
    fi
}
tokenize() {
    "$GGAUGE" tokenize "$@" >"$tmp/out" 2>"$tmp/err"
    code=$?
}
prints() { [ "$code" -eq 0 ] && [ "$(cat "$tmp/out")" = "$1" ]; }
fails() { [ "$code" -eq "$1" ] && [ ! -s "$tmp/out" ] && grep -q "$2" "$tmp/err"; }

tokenize -m $model -p 'ab b'
check "BOS, then the ids" prints "1 9 7 9 6"
tokenize -m $model -p 'ab b' --no-bos
check "--no-bos" prints "9 7 9 6"
tokenize -m $model -p 'b</s>' --parse-special
check "--parse-special" prints "1 9 6 2"
tokenize -m $model -p '' --no-bos
check "no text, no ids, one line" prints ""
check "which is empty" [ "$(wc -l <"$tmp/out")" -eq 1 ]

printf 'ab\n\n' >"$tmp/text"
tokenize -m $model -f "$tmp/text"
check "no newline of a file is stripped" prints "1 9 7 3 3"
: >"$tmp/text"
tokenize -m $model -f "$tmp/text"
check "an empty file" prints "1"

tokenize -m $model
check "no text is a usage error" fails 2 'either -f FILE or -p TEXT'
tokenize -m $model -p a -f "$tmp/text"
check "two texts are a usage error" fails 2 'either -f FILE or -p TEXT'
tokenize -p a
check "no model is a usage error" fails 2 '\-m FILE'
tokenize -m $model -f "$tmp/none"
check "a missing file" fails 3 "$tmp/none"
tokenize -m "$tmp/text" -p a
check "a file that is no model" fails 3 "$tmp/text"
tokenize -m $model -p x
check "a byte without a token" fails 3 '0x78'

if [ -f ../shared/models/tiny-qwen3-q4_0.gguf ] && [ -f ../shared/datasets/wiki.test.raw ]; then
    head -c -1 ../shared/datasets/wiki.test.raw >"$tmp/text"
    tokenize -m ../shared/models/tiny-qwen3-q4_0.gguf -f "$tmp/text"
    check "wiki.test.raw without its last newline" [ "$(wc -w <"$tmp/out")" -eq 390528 ]
else
    echo "ok - wiki.test.raw # SKIP no ../shared"
fi
exit $status
