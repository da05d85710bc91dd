#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge synth, end to end: a file that the other commands take, and how it refuses.
. tests/cli/common.sh

refused() { # NAME EXIT TEXT ARGUMENTS...
    name=$1 want=$2 text=$3
    shift 3
    "$GGAUGE" synth "$@" >"$tmp/out" 2>"$tmp/err"
    got=$?
    [ $got -eq "$want" ] && grep -qF -- "$text" "$tmp/err" && [ "$(wc -l <"$tmp/err")" -eq 1 ]
    status=$?
    [ $status -eq 0 ] || { echo "# exit $got:"; sed 's/^/# /' "$tmp/err"; }
    result $status "$name"
}

refused "no file" 2 "-o FILE" --preset llama-3.2-1b --type q8_0
refused "no type" 2 "--type TYPE" --preset llama-3.2-1b -o "$tmp/m"
refused "no shape" 2 "--preset NAME" --type q8_0 -o "$tmp/m"
refused "half a shape" 2 "--n-ff" --arch llama --n-layer 2 --n-embd 64 --type q8_0 -o "$tmp/m"
refused "unknown preset" 2 "llama-3.1-8b" --preset gpt-9 --type q8_0 -o "$tmp/m"
refused "unknown type" 2 "no type 'q9_9'" --preset qwen3-0.6b --type q9_9 -o "$tmp/m"
refused "a type that nobody can fill" 3 "neither quantise to q2_K" \
    --preset qwen3-0.6b --type q2_K -o "$tmp/m"
refused "a folder that is not there" 3 "cannot create" --preset qwen3-0.6b --type q4_0 -o "$tmp/no/m"
[ ! -e "$tmp/m" ]
result $? "nothing is left of refusals"

small="--arch qwen3 --n-layer 2 --n-embd 256 --n-head 4 --n-head-kv 2 --n-ff 768 --n-vocab 3000"
# shellcheck disable=SC2086
"$GGAUGE" synth $small --type iq4_kt --type-embd q8_0 --custom-q 'blk\.0\.ffn_down=q5_1' -s 3 \
    -o "$tmp/m.gguf" 2>"$tmp/err"
result $? "a file is written"
grep -qF "random quant bits, not quantised weights: q5_1, iq4_kt" "$tmp/err"
result $? "what is random is told"
"$GGAUGE" inspect -m "$tmp/m.gguf" >"$tmp/text"
grep -q '^tensor .*blk\.0\.ffn_down\.weight  *q5_1 ' "$tmp/text" && grep -q 'synth.seed u32 *= 3$' "$tmp/text" &&
    grep -q '^n_vocab  *= 3000$' "$tmp/text" && grep -q '^tensor .*token_embd\.weight  *q8_0 ' "$tmp/text"
result $? "inspect sees what was asked for"
printf 'One text, of no meaning at all. %.0s' 1 2 3 4 5 6 7 8 9 10 11 12 >"$tmp/text"
"$GGAUGE" perplexity -m "$tmp/m.gguf" -f "$tmp/text" -c 64 >"$tmp/out" 2>"$tmp/err" &&
    grep -q 'Final estimate: PPL = [0-9]' "$tmp/out"
result $? "perplexity runs on it"
"$GGAUGE" bench -m "$tmp/m.gguf" -p 16 -n 2 -r 1 >"$tmp/out" 2>"$tmp/err" && grep -q ' pp16 ' "$tmp/out"
result $? "bench runs on it"
# shellcheck disable=SC2086
"$GGAUGE" synth $small --type iq4_kt --type-embd q8_0 --custom-q 'blk\.0\.ffn_down=q5_1' -s 3 -t 1 \
    -o "$tmp/n.gguf" 2>/dev/null && cmp -s "$tmp/m.gguf" "$tmp/n.gguf"
result $? "the same bytes with one thread"
(
    ulimit -f 1000 # blocks of 512 bytes: the disk is full after 500 KB
    # shellcheck disable=SC2086
    refused "a full disk" 3 "cannot write" $small --type q8_0 -o "$tmp/partial.gguf"
    exit $failed
) || failed=1
[ -z "$(find "$tmp" -name 'partial*')" ]
result $? "nothing partial is left"
exit $failed
