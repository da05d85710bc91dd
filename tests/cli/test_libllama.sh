#!/bin/sh
# SPDX-License-Identifier: MIT
# Another engine as an arm, without one: tests/fake_llama has the interface of llama.cpp in two spellings and
# our own arithmetic behind it, so what must come out is known. The worker, the recognition of nodes, forced
# inputs, a seeded error, and each way to fail.
cd "$(dirname "$0")/../.." || exit 3
. tests/cli/common.sh
FAKES=${TEST_BIN:-build/release/tests}/../fake_llama/workers
need_model "another engine as an arm"
text=datasets/small/small.txt

compare() { # ARGS...: output in $tmp/out, exit code in $status
    rm -rf "$tmp/dir"
    timeout 300 "$GGAUGE" compare -m "$model" -f "$text" -c 64 -t 1 --floor-file "$tmp/floors" --out "$tmp/dir" \
        --chunks 8 "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
}
passes() { # NAME WORDS ARGS...
    name=$1 words=$2
    shift 2
    compare "$@"
    check "$name" sh -c "[ $status -eq 0 ] && grep -q '^verdict  *PASS' '$tmp/out' && grep -q -e '$words' '$tmp/out'"
}
fails() { # NAME WORDS ARGS...
    name=$1 words=$2
    shift 2
    compare "$@"
    check "$name" sh -c "[ $status -eq 1 ] && grep -q '^verdict  *FAIL' '$tmp/out' && grep -q -e '$words' '$tmp/out' &&
        grep -q '\"verdict\": \"FAIL\"' '$tmp/dir/summary.json'"
}
node() { # NAME COLUMN: of ops.csv
    python3 -c 'import csv, sys
print([r[sys.argv[3]] for r in csv.DictReader(open(sys.argv[1])) if r["node"] == sys.argv[2]][0])' "$tmp/dir/ops.csv" "$1" "$2"
}

# ---- agreement, in both spellings
passes "llama.cpp's spelling: the same bits, every node recognised" 'max [0-9.]*e-0[89]' --a ref --b "lib:$FAKES/new-1" --ops
check "... caches too" sh -c "[ '$(node cache_v_l1 b_max_rel)' = 0 ]"
check "... and compared on equal inputs" sh -c "grep -q '^operations  *all 1[0-9][0-9] within' '$tmp/out' &&
    [ \"\$(tail -n +2 '$tmp/dir/ops.csv' | grep -c 'mul_mat.*@new')\" -ge 30 ]"
passes "an older spelling with fused nodes" 'nodes that one arm does not show' --a ref --b "lib:$FAKES/old-2 -fa on -mla 1" --ops
check "... a fused node is judged with what is in front of it" sh -c "
    [ -n \"$(node ffn_swiglu-0 b_max_rel)\" ] && [ -z \"$(node ffn_gate-0 b_max_rel)\" ]"
FAKE_LLAMA_BACKEND=avx2
export FAKE_LLAMA_BACKEND
passes "activations rounded as it does: avx2 behind it" 'operations  *all' --a ref --b "lib:$FAKES/new-1" --margin 0.05
check "... within the limit of an unmeasured cell, nothing known is needed" sh -c "! grep -q '^known' '$tmp/out'"
unset FAKE_LLAMA_BACKEND
passes "two builds at once" 'operations  *all [0-9]* within' --a "lib:$FAKES/new-1" --b "lib:$FAKES/old-2" --ops
check "... the same bits" grep -q 'max 0$' "$tmp/out"

# ---- a seeded error
export FAKE_LLAMA=scale=blk.1.ffn_down.weight
fails "a product that is 3 % too large is found" 'dequantisation: arm B in ffn_out-1 (mul_mat of blk.1.ffn_down.weight q8_0' \
    --a ref --b "lib:$FAKES/new-1"
check "... its weights read back, through an engine that was not changed" sh -c "grep -q 'a factor of 1.03)' '$tmp/out'"
check "... and kept as a capsule" test -s "$tmp/dir/capsule.gguf"
FAKE_LLAMA=scale=blk.0.ffn_up.weight
fails "an error inside of a fused node" 'operation: arm B in ffn_swiglu-0' --a ref --b "lib:$FAKES/old-2"
unset FAKE_LLAMA

export FAKE_LLAMA=deaf=1 FAKE_LLAMA_BACKEND=avx2
passes "tensors that cannot be written" 'not judged one by one: .*new does not let its tensors be written' --a ref \
    --b "lib:$FAKES/new-1" --margin 0.05
check "... growth from layer to layer instead" grep -q 'nothing forced: 0: [0-9.]*e[+-][0-9]*, 1: ' "$tmp/out"
unset FAKE_LLAMA FAKE_LLAMA_BACKEND

# ---- failures
export FAKE_LLAMA=die=2
fails "killed in the middle" 'FAIL (ARM): arm B died: signal 9 after [1-9]' --a ref --b "lib:$FAKES/new-1"
FAKE_LLAMA=hang=2
fails "asleep for ever, though its heart beats" 'arm B does not answer: more than 3 s for one answer' --a ref \
    --b "lib:$FAKES/new-1 --timeout 3"
FAKE_LLAMA=stop=2
fails "stopped" 'arm B does not answer: nothing for 10 s; it is stopped (T)' --a ref --b "lib:$FAKES/new-1"
FAKE_LLAMA=refuse=2
fails "no place in its cache" 'arm B: llama_decode of new gives 1 for [0-9]* tokens: no place in the cache' --a ref \
    --b "lib:$FAKES/new-1"
unset FAKE_LLAMA
compare --a ref --b "lib:$FAKES/new-1 -mla 2"
check "an option that the engine lacks is an error" sh -c "[ $status -eq 3 ] && grep -q 'new 1 has no option -mla' '$tmp/err'"
compare --a ref --b "lib:$FAKES/old-2 -ot a=CPU"
check "... of an older one" sh -c "[ $status -eq 3 ] && grep -q 'old 2 has no option -ot' '$tmp/err'"
compare --a ref --b "lib:$FAKES/new-1 -ot exps=CUDA9"
check "a buffer type that is not there" sh -c "[ $status -eq 2 ] && grep -q 'has no buffer type CUDA9' '$tmp/err'"
compare --a ref --b "lib:$tmp"
check "a folder without a worker" sh -c "[ $status -eq 2 ] && grep -q 'no ggauge-libllama in this folder; make worker' '$tmp/err'"

# ---- perplexity and speed
"$GGAUGE" perplexity -m "$model" -f "$text" -c 64 -t 1 --backend ref --chunks 6 >"$tmp/ours" 2>/dev/null
"$GGAUGE" perplexity -m "$model" -f "$text" -c 64 -t 1 --chunks 6 --arm "lib:$FAKES/old-2" --csv "$tmp/ppl.csv" >"$tmp/out" \
    2>"$tmp/err"
check "perplexity through the worker: the same digits" cmp "$tmp/ours" "$tmp/out"
check "... its rows name engine, commit and build" grep -q ',old,2,old,"\{0,1\}CPU[^,]*.*FAKE = 1' "$tmp/ppl.csv"
"$GGAUGE" sweep-bench -m "$model" -c 64 -npp 16 -ntg 4 -r 2 -t 1 --arm "lib:$FAKES/new-1 -fa on" --csv "$tmp/sweep.csv" \
    >"$tmp/out" 2>"$tmp/err"
check "sweep-bench through the worker" sh -c "[ $? -eq 0 ] && [ \$(grep -c '^| *16 |' '$tmp/out') -eq 4 ] &&
    grep -q 'CPU.* -fa on' '$tmp/sweep.csv'"

# ---- by hand
"$FAKES/new-1/ggauge-libllama" --version >"$tmp/out"
check "--version" grep -q '^ggauge-libllama for new 1 (' "$tmp/out"
harness/worker/libllama_build.sh "$tmp" build '' lib.a "$tmp" >"$tmp/out" 2>"$tmp/err"
check "a folder that is no engine" sh -c "[ $? -eq 3 ] && grep -q 'build: no such directory' '$tmp/err'"
mkdir "$tmp/build"
harness/worker/libllama_build.sh "$tmp" build '' lib.a "$tmp" >"$tmp/out" 2>"$tmp/err"
check "... with a build, but without headers" sh -c "[ $? -eq 3 ] && grep -q 'llama.h is in none of' '$tmp/err'"
