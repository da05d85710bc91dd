#!/bin/sh
# SPDX-License-Identifier: MIT
# The cuda column on a card, from a folder made by cuda_bundle.sh: every cell against ref, whole models on
# CPU and card, the verdict of compare, seeded faults, compute-sanitizer, all these at once; then, alone,
# kernels against the card's own peaks and depths of synthetic models. Every step has a limit of its own, all
# together CHECK_SECONDS (default 470, 0 = none), and what each printed is kept.
#
# usage: cuda_check.sh BUNDLE OUT [STEP ...]     STEP: facts right (= unit cells limits ppl compare faults
#                                               sanitize, at once) kernels sweep; sanitize_all and deep, which
#                                               take longer, are not among those of a call without a STEP,
#                                               which begins anew: others add to what OUT has
bundle=$(cd "$1" && pwd) && mkdir -p "$2" && out=$(cd "$2" && pwd) || exit 2
shift 2
[ $# -gt 0 ] || { rm -f "$out"/*.csv && set -- facts right kernels sweep; }
export LD_LIBRARY_PATH="$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export GGAUGE_CUDA_PLUGIN="$bundle/libggauge-cuda.so" CMOCKA_MESSAGE_OUTPUT=TAP LC_ALL=C
gg=$bundle/ggauge text=$bundle/text
summary=$out/summary.csv
end=$(($(date +%s) + ${CHECK_SECONDS:-470}))
[ "${CHECK_SECONDS:-470}" -gt 0 ] || end=$((end + 86400))
[ -s "$summary" ] || echo "step,status,seconds" >"$summary"
before=$(wc -l <"$summary")
cd "$out" || exit 2

# name, limit in seconds, command ... : its output goes to <name>.txt
step() {
    name=$1 limit=$2
    shift 2
    left=$((end - $(date +%s)))
    if [ "$left" -lt 5 ]; then
        echo "$name,SKIPPED,0" | tee -a "$summary"
        return
    fi
    [ "$left" -ge "$limit" ] || limit=$left
    begin=$(date +%s.%N)
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1
    rc=$?
    seconds=$(echo "$(date +%s.%N) $begin" | awk '{ printf "%.1f", $1 - $2 }')
    case $rc in
    0) status=PASS ;;
    124) status="NOT FINISHED" ;;
    125) status=UNDECIDED ;;
    *) status="FAIL ($rc)" ;;
    esac
    echo "$name,$status,$seconds" | tee -a "$summary"
    [ $rc -eq 0 ] || tail -n 8 "$out/$name.txt"
}

do_facts() {
    step facts 20 nvidia-smi -q -d CLOCK,MEMORY,POWER,PERFORMANCE
    step types 20 "$gg" types
}

# What needs no quiet card, at once.
do_right() {
    for s in unit cells limits ppl compare faults sanitize; do "do_$s" & done
    wait
}

do_unit() {
    for t in test_cuda test_fuse test_ops test_op_attn; do step "$t" 60 "$bundle/tests/$t" & done
    wait
}

do_cells() {
    step cells 60 "$gg" kernel-bench --backend cuda --no-time --cold-mib 64 --csv cells.csv
}

do_limits() {
    step limits 100 "$gg" limits --backend cuda --models "$(ls "$bundle"/models/*.gguf | paste -sd,)" -f "$text" \
        --chunks 3 --copy-chunks 1 -t 8 -o limits.csv
}

do_ppl() {
    for m in "$bundle"/models/*.gguf; do
        n=$(basename "$m" .gguf)
        step "ppl-cpu-$n" 20 "$gg" perplexity -m "$m" -f "$text" -c 512 --chunks 40 -t 2 --csv ppl.csv
        step "ppl-cuda-$n" 20 "$gg" perplexity -m "$m" -f "$text" -c 512 --chunks 40 -t 2 --backend cuda --csv ppl.csv
    done
}

compare_one() { # model, column
    m=$bundle/models/tiny-$1.gguf
    [ ! -f "$m" ] || step "compare-$1-$2" 30 "$gg" compare -m "$m" -f "$text" -c 512 --chunks 300 -t 2 --a "$2" --b cuda \
        --out "compare-$1-$2" --floor-file "floors-$1-$2" --csv "compare-$1-$2.csv"
}

# One model with every CPU column but ref of this machine, the others with the best.
do_compare() {
    for c in $("$gg" types 2>&1 | sed -n 's/^This machine runs: *ref//p'); do
        [ "$c" = cuda ] || compare_one qwen3-iq4_kt "$c"
    done &
    for n in qwen3-q8_0 qwen3-iq2_kt qwen3-f16; do compare_one $n best; done &
    for n in qwen3-iq3_kt qwen3-q4_0 llama-iq4_kt; do compare_one $n best; done &
    wait
}

# Of build/faults: what compare says of each fault in the kernels.
do_faults() {
    step faults 60 env GGAUGE_CUDA_PLUGIN="$bundle/faults/libggauge-cuda.so" python3 "$bundle/faults/faults.py" \
        "$bundle/faults/ggauge" "$bundle/models" "$text" --backend cuda --jobs 8 --out faults_cuda.csv
}

do_kernels() {
    step kernels-attn 20 "$gg" kernel-bench --backend cuda --op attn --type f16,q8_0 --csv kernels.csv
    # one run, one chart
    step kernels 60 "$gg" kernel-bench --backend cuda --type iq4_kt,iq3_kt,iq2_kt,q8_0,q4_0,f16 --op mul_mat \
        --n-tok 1,2,4,8,32,512 --cold-mib 512 --csv kernels.csv
    # a matrix of the feed-forward, where beginning and end weigh less
    step kernels-ffn 40 "$gg" kernel-bench --backend cuda --type iq4_kt,iq3_kt,iq2_kt,q8_0 --op mul_mat \
        --n-rows 14336 --n-tok 1,8,512,2048 --cold-mib 512 --csv kernels-ffn.csv
}

# What is known of the card (harness/exec/nvml.h), a line a depth.
card_facts() { # JSON lines of a sweep
    grep -oE '"(n_kv|gpu_[a-z_]+|vram_[a-z_]+)": [-+.e0-9]+' "$1" 2>/dev/null | tr -d '":' |
        awk '$1 == "n_kv" { printf "%s    at %d:", n++ ? "\n" : "", $2; next }
             { printf " %s %.4g", $1, $2 }
             END { if (n) print "" }'
}

# preset, type, depth, limit
sweep_one() {
    f=$out/$1-$2.gguf
    [ -f "$f" ] || step "synth-$1-$2" 60 "$gg" synth --preset "$1" --type "$2" --random-bits -o "$f"
    step "sweep-$1-$2" "$4" "$gg" sweep-bench -m "$f" --backend cuda -c "$3" -npp 512 -ntg 64 -r 2 \
        --csv sweep.csv --jsonl "sweep-$1-$2.jsonl"
    card_facts "sweep-$1-$2.jsonl"
}

do_sweep() {
    sweep_one llama-3.2-1b iq4_kt 4096 30
    # what it is worth that kernels begin while those before them still run
    step serial 30 env GGAUGE_CUDA_SERIAL=1 "$gg" sweep-bench -m "$out/llama-3.2-1b-iq4_kt.gguf" --backend cuda -c 4096 \
        -npp 512 -ntg 64 -r 2 --csv serial.csv
    sweep_one llama-3.1-8b iq4_kt 8192 60
    sweep_one llama-3.1-8b q8_0 4096 60
    rm -f "$out"/*.gguf
}

do_deep() {
    for t in iq4_kt iq3_kt iq2_kt q8_0; do sweep_one llama-3.1-8b $t 32768 600; done
    rm -f "$out"/*.gguf
}

sanitizer() { # tool, limit, name, command ...
    tool=$1 limit=$2 name=$3
    shift 3
    step "sanitize-$tool-$name" "$limit" compute-sanitizer --tool "$tool" --error-exitcode 9 "$@"
}

# The smallest unit checks, for tools that slow a kernel down by fifty times: every cell against ref, in shapes
# where threads of a block still meet, and a model's fused kernels, 40 tokens at once and three one by one.
small_cells() { # tool, limit
    sanitizer "$1" "$2" cells "$gg" kernel-bench --backend cuda --no-time --cold-mib 1 -t 1 --n-tok 1,2,4,8,33 -d 70,600 \
        --n 512 --n-rows 70 --n-head 8 --n-head-kv 2 --n-embd-head 64 --n-ff 256 --n-vocab 1000
}
small_models() { # tool, limit
    for n in qwen3-iq4_kt llama-iq4_kt; do
        m=$bundle/models/tiny-$n.gguf
        [ ! -f "$m" ] || sanitizer "$1" "$2" "$n" "$gg" bench -m "$m" --backend cuda -p 40 -n 3 -r 1 -t 1
    done
}

do_sanitize() {
    sanitizer memcheck 60 test_cuda "$bundle/tests/test_cuda" &
    small_cells racecheck 60 &
    small_models racecheck 40 &
    wait
}

do_sanitize_all() {
    for tool in memcheck racecheck synccheck initcheck; do
        for t in test_cuda test_fuse test_ops test_op_attn; do sanitizer $tool 1200 $t "$bundle/tests/$t"; done
        small_models $tool 1200
    done
}

for s in "$@"; do "do_$s"; done
if tail -n "+$((before + 1))" "$summary" | grep -q ',FAIL'; then
    echo "cuda-check: FAILED, see $out"
    exit 1
fi
echo "cuda-check: no step failed"
