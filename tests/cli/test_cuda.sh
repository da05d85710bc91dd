#!/bin/sh
# SPDX-License-Identifier: MIT
# --backend cuda from the command line: what it says without a plug-in, and whole models on the emulated
# device (or on a card, if GGAUGE_CUDA_PLUGIN names the plug-in): placement, splits, texts cut differently, and
# what is known of cards.
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
emu=${GGAUGE_CUDA_PLUGIN:-$TEST_BIN/../libggauge-cuda-emu.so}
kt=datasets/models/tiny-qwen3-iq4_kt.gguf q8=datasets/models/tiny-qwen3-q8_0.gguf
case $emu in *emu.so) emulated=1 ;; *) emulated=0 ;; esac
cp datasets/small/small.txt "$tmp/text" || exit 3

check() { # name, condition's status
    if [ "$2" -eq 0 ]; then echo "ok - $1"; else echo "not ok - $1"; fi
}

ppl() { # csv file, options; prints the perplexity with all digits
    out=$1
    shift
    rm -f "$out" # rows would be added
    "$GGAUGE" perplexity -f "$tmp/text" -c 64 --chunks 2 "$@" --csv "$out" >/dev/null 2>"$tmp/err" &&
        python3 -c 'import csv, sys; print(next(r["value"] for r in csv.DictReader(open(sys.argv[1])) if r["metric"] == "ppl"))' "$out"
}

field() { # csv file, field
    python3 -c 'import csv, sys; print(next(csv.DictReader(open(sys.argv[1])))[sys.argv[2]])' "$1" "$2"
}

near() { # two perplexities, largest difference in percent
    python3 -c 'import sys; a, b, p = map(float, sys.argv[1:]); sys.exit(not abs(a / b - 1) * 100 <= p)' "$1" "$2" "$3"
}

# ---- no plug-in
GGAUGE_CUDA_PLUGIN=/nowhere/libggauge-cuda.so "$GGAUGE" perplexity -m $kt -f "$tmp/text" --backend cuda >"$tmp/out" 2>&1
[ $? -eq 3 ] && [ "$(grep -c . "$tmp/out")" -eq 1 ] && grep -q '^error: backend cuda cannot run here: /nowhere/.*make cuda' "$tmp/out"
check "without a plug-in: one line, exit 3" $?
GGAUGE_CUDA_PLUGIN=/bin/true "$GGAUGE" perplexity -m $kt -f "$tmp/text" --backend cuda >"$tmp/out" 2>&1
[ $? -eq 3 ] && [ "$(grep -c . "$tmp/out")" -eq 1 ]
check "something else than a plug-in: the same" $?
export GGAUGE_CUDA_PLUGIN="$emu"
GGAUGE_EMU_DEVICES=0 "$GGAUGE" perplexity -m $kt -f "$tmp/text" --backend cuda >"$tmp/out" 2>&1
{ [ $? -eq 3 ] && grep -q 'no CUDA device' "$tmp/out"; } || [ $emulated -eq 0 ]
check "without a device: the same" $?
"$GGAUGE" perplexity -m $kt -f "$tmp/text" --backend avx2 -ngl 5 >"$tmp/out" 2>&1
[ $? -eq 2 ] && grep -q -e '-ngl 5: only --backend cuda' "$tmp/out"
check "-ngl without --backend cuda is a usage error" $?

# ---- whole models; ref does not round activations to 8 bits, which moves so short a text by 0.4 % on avx2, too
for m in kt q8; do
    eval "model=\$$m"
    ref=$(ppl "$tmp/ref-$m.csv" -m "$model" --backend ref)
    gpu=$(ppl "$tmp/gpu-$m.csv" -m "$model" --backend cuda)
    near "$gpu" "$ref" 0.6
    check "$m: perplexity $gpu, ref has $ref" $?
    case $(field "$tmp/gpu-$m.csv" cells) in *@avx* | *@ref* | *@amx*) false ;; *@cuda*) true ;; esac
    check "$m: every cell is cuda's" $?
    cut=$(ppl "$tmp/cut-$m.csv" -m "$model" --backend cuda -ub 17)
    [ "$cut" = "$gpu" ]
    check "$m: -ub 17 gives the same bits" $?
done
field "$tmp/gpu-kt.csv" placement | grep -q '^CUDA0 (.*) 119 nodes$'
check "the row says what ran where" $?

# ---- splits
half=$(ppl "$tmp/half.csv" -m $q8 --backend cuda -ngl 3 --cpu-backend ref -ub 32)
near "$half" "$(ppl "$tmp/ref.csv" -m $q8 --backend ref)" 0.6
check "-ngl 3: the last layers on the device, perplexity $half" $?
field "$tmp/half.csv" cells | grep -q 'q8_0@ref.*q8_0@cuda' && field "$tmp/half.csv" placement | grep -q 'CUDA0 .*, CPU (ref) '
check "-ngl 3: both are named" $?
all=$(ppl "$tmp/all.csv" -m $q8 --backend cuda -ngl 0)
[ "$all" = "$(ppl "$tmp/cpu.csv" -m $q8)" ]
check "-ngl 0: the bits of the CPU" $?
ot=$(ppl "$tmp/ot.csv" -m $q8 --backend cuda --cpu-backend ref -ot 'blk\.0\.ffn_.*=CUDA0' -ot 'ffn_(up|down)=CPU')
near "$ot" "$half" 0.5 && field "$tmp/ot.csv" placement | grep -q ', CPU (ref) 10 nodes'
check "-ot: the first match wins, $(field "$tmp/ot.csv" placement)" $?
two=$(ppl "$tmp/two.csv" -m $q8 --backend cuda --cpu-backend ref -ot 'blk\.0\.ffn_.*=CUDA0,ffn_(up|down)=CPU')
[ "$two" = "$ot" ] && field "$tmp/two.csv" placement | grep -q ', CPU (ref) 10 nodes'
check "-ot: rules between commas" $?
"$GGAUGE" perplexity -m $q8 -f "$tmp/text" --backend cuda -ot 'ffn_(up=CPU' >"$tmp/out" 2>&1
[ $? -eq 2 ] && grep -q -e '-ot ffn_(up=CPU: ' "$tmp/out"
check "-ot: a broken expression is a usage error" $?
"$GGAUGE" perplexity -m $q8 -f "$tmp/text" --backend cuda -ot 'ffn=CUDA7' >"$tmp/out" 2>&1
[ $? -eq 2 ] && grep -q 'there is no CUDA7' "$tmp/out"
check "-ot: a device that is not there is a usage error" $?
# the device's streams in several orders, copies from memory that is not page-locked, other micro-batches
part() { # csv file, options
    out=$1
    shift
    ppl "$out" -m $q8 --chunks 1 --backend cuda --cpu-backend avx2 "$@"
}
whole=$(ppl "$tmp/whole.csv" -m $q8 --chunks 1 --backend ref)
alike() { # name, options of a split
    name=$1
    shift
    want=$(part "$tmp/alike.csv" -ub 16 "$@")
    near "$want" "$whole" 0.5
    bad=$?
    for e in GGAUGE_EMU_SEED=1 GGAUGE_EMU_SEED=2 "GGAUGE_EMU_SEED=3 GGAUGE_EMU_LOCKED=0"; do
        [ "$(export $e && part "$tmp/order.csv" -ub 16 "$@")" = "$want" ] || bad=1
    done
    [ "$(part "$tmp/cut.csv" -ub 64 "$@")" = "$want" ] || bad=1
    check "$name: the same bits in any order, $(field "$tmp/alike.csv" placement)" $bad
}
alike "first layers on the CPU" -ngl 3
alike "last layers on the CPU" -ot 'blk\.[345]\.=CPU' -ot 'output=CPU'
alike "layers in turn" -ot 'blk\.[024]\.=CPU'
alike "feed-forward on the CPU" -ot 'ffn_.*=CPU'
alike "output on the CPU" -ot 'output.*=CPU'
if [ $emulated -eq 1 ]; then
    # what is pulled for the answers is not waited for together with what was started later
    GGAUGE_EMU_TRACE="$tmp/trace" ppl "$tmp/trace.csv" -m $q8 --backend cuda -ub 16 >/dev/null
    ! grep -q '^copy' "$tmp/trace" && [ "$(grep -c '^event: done [1-9].*left [1-9]' "$tmp/trace")" -ge 6 ]
    check "answers travel back beside the next micro-batch" $?
    # the CPU's layers do not wait for those of the device: several micro-batches (60 pieces of work each) are queued
    rm -f "$tmp/trace"
    GGAUGE_EMU_TRACE="$tmp/trace" "$GGAUGE" bench -m $q8 --backend cuda -ngl 3 -ub 16 -p 80 -n 0 -r 1 >/dev/null 2>&1
    awk '/^event: done 0, left/ && $5 > most { most = $5 } END { exit most < 200 }' "$tmp/trace"
    check "the CPU goes on while the device works" $?
    turns=$(GGAUGE_EMU_DEVICES=2 ppl "$tmp/turns.csv" -m $q8 --backend cuda -ot 'blk\.[024]\.=CUDA1')
    [ "$turns" = "$(ppl "$tmp/one.csv" -m $q8 --backend cuda)" ] && [ "$turns" = "$(export GGAUGE_EMU_SEED=4 GGAUGE_EMU_DEVICES=2 &&
        ppl "$tmp/turns.csv" -m $q8 --backend cuda -ot 'blk\.[024]\.=CUDA1')" ]
    check "layers in turn on two devices: the bits of one" $?
    two=$(GGAUGE_EMU_DEVICES=2 ppl "$tmp/two.csv" -m $q8 --backend cuda -ts 1,1)
    [ "$two" = "$(ppl "$tmp/one.csv" -m $q8 --backend cuda)" ] &&
        field "$tmp/two.csv" placement | grep -q '^CUDA1 .* nodes, CUDA0 .* nodes$'
    check "-ts 1,1: two devices give the bits of one" $?
    GGAUGE_EMU_MEMORY=2000000 "$GGAUGE" perplexity -m $q8 -f "$tmp/text" -c 64 --backend cuda >"$tmp/out" 2>&1
    [ $? -eq 3 ] && grep -q 'out of memory on CUDA0 .* needs .* are free; lower -ngl' "$tmp/out"
    check "a device that is full says what to lower" $?
fi

# ---- token generation, recorded and replayed; comparison
"$GGAUGE" bench -m $kt --backend cuda -p 0 -n 6 -r 1 >"$tmp/out" 2>"$tmp/err"
[ $? -eq 0 ] && grep -q 'tg6' "$tmp/out"
check "bench: tokens are generated" $?
"$GGAUGE" compare -m $kt -f "$tmp/text" -c 64 --chunks 2 --a ref --b cuda --out "$tmp/cmp" --csv "$tmp/cmp.csv" >"$tmp/out" 2>&1
grep -q 'floor B .*equal bit for bit' "$tmp/out" && grep -q 'operations .*all 119 within their limits' "$tmp/out"
check "compare: floor and operations" $?
python3 -c 'import csv, sys
sys.exit({r["gpu"] for r in csv.DictReader(open(sys.argv[1]))} != {"emulated on the host"})' "$tmp/cmp.csv"
check "compare: every row names the card that arm B uses" $?

# ---- facts of the cards, from a management library without cards
cards() { # csv file: "subject metric value" of what is known of cards
    python3 -c 'import csv, sys
for r in csv.DictReader(open(sys.argv[1])):
    if r["metric"].startswith(("gpu_", "vram_")): print(r["subject"], r["metric"], r["value"])' "$1"
}
fact() { # csv file, subject, metric, value, largest difference in percent
    near "$(cards "$1" | sed -n "s/^$2 $3 //p")" "$4" "$5"
}
sweep() { # csv file, options
    out=$1
    shift
    "$GGAUGE" sweep-bench -m $q8 -c 32 -npp 16 -ntg 32 -r 1 --no-warmup --csv "$out" --output-format jsonl "$@" >"$tmp/json" 2>"$tmp/err"
}
if [ $emulated -eq 1 ]; then
    export GGAUGE_NVML="$TEST_BIN/../libfake-nvml.so" GGAUGE_EMU_DEVICES=2
    sweep "$tmp/sweep.csv" --backend cuda && fact "$tmp/sweep.csv" tg gpu_w 250 10 && fact "$tmp/sweep.csv" tg gpu_sm_mhz 1980 0 &&
        fact "$tmp/sweep.csv" pp gpu_mem_mhz 2619 0 && fact "$tmp/sweep.csv" run vram_bytes 3221225472 0
    check "sweep-bench: power, clocks and memory of the card" $?
    seconds=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["t_tg"])' "$tmp/json")
    fact "$tmp/sweep.csv" tg gpu_jpt "$(python3 -c "print(250 * $seconds / 32)")" 10 && grep -q '"vram_delta_mib": 0, ' "$tmp/json"
    check "sweep-bench: energy of a token, and JSON" $?
    field "$tmp/sweep.csv" driver | grep -q ', NVIDIA 550\.54\.14$'
    check "the row names the card's driver" $?
    "$GGAUGE" kernel-bench --backend cuda,ref --type q8_0 --op mul_mat --n 256 --n-rows 40 --n-tok 2 --cold-mib 1 --seconds 0 -t 1,2 \
        --csv "$tmp/kernels.csv" >"$tmp/out" 2>&1 && python3 - "$tmp/kernels.csv" <<'PY'
import csv, json, sys
table = list(csv.DictReader(open(sys.argv[1])))
rows = [(r["backend"], r["gpu"], r["driver"].rpartition(", ")[2], r["n_threads"]) for r in table]
clocks = [(r["backend"], float(r["value"])) for r in table if r["metric"] == "gpu_sm_mhz"]
assert clocks == [("cuda", 1980)] and json.loads(table[0]["settings"])["n_sm"] > 0, clocks
assert {r for r in rows if r[0] == "cuda"} == {("cuda", "emulated on the host", "NVIDIA 550.54.14", "0")}, rows
assert {r for r in rows if r[0] == "ref"} == {("ref", "", "", "1"), ("ref", "", "", "2")}, rows
PY
    check "kernel-bench: rows of a card name it and its driver, others do not" $?
    ppl "$tmp/cards.csv" -m $q8 --backend cuda -ts 1,1 --chunks 8 >/dev/null
    fact "$tmp/cards.csv" run gpu_w 500 10 && fact "$tmp/cards.csv" run gpu_sm_mhz 1755 0 && fact "$tmp/cards.csv" run vram_bytes 4294967296 0
    check "perplexity on two cards: sums, and the slower clock" $?
    mkdir "$tmp/found" && cp "$tmp/kernels.csv" "$tmp/sweep.csv" "$tmp/found" && cp "$tmp/cards.csv" "$tmp/found/ppl.csv" &&
        cp "$tmp/cards.csv" "$tmp/found/compare-a.csv" && cp "$tmp/cards.csv" "$tmp/found/compare-b.csv" &&
        printf 'step,status,seconds\nkernels,PASS,4.0\nlimits,NOT FINISHED,100.0\n' >"$tmp/found/summary.csv"
    .ci/cuda_results.py "$tmp/found" "$tmp/kept" >"$tmp/out" 2>&1
    [ $? -eq 1 ] && grep -q '^limits: NOT FINISHED' "$tmp/out" && grep -q '^| limits | NOT FINISHED | 100.0 |' "$tmp/kept/README.md" &&
        grep -q 'weights/clock/SM' "$tmp/kept/README.md" && grep -q '^| q8_0@cuda |.* 2 | ' "$tmp/kept/README.md" &&
        grep -q 'ppl_running' "$tmp/found/ppl.csv" && ! grep -q 'ppl_running' "$tmp/kept/ppl.csv" && grep -q ',ppl,' "$tmp/kept/ppl.csv"
    check "cuda-results: a page of what was found, and the step that did not end" $?
    [ "$(grep -c ',ppl,' "$tmp/kept/compare.csv")" -eq $((2 * $(grep -c ',ppl,' "$tmp/kept/ppl.csv"))) ]
    check "cuda-results: the rows of runs that wrote a file each" $?
    sed -i 's/emulated on the host//g' "$tmp/found/sweep.csv"
    .ci/cuda_results.py "$tmp/found" "$tmp/kept" >"$tmp/out" 2>&1
    [ $? -eq 3 ] && grep -q 'sweep.csv:[0-9]*: .* does not name its card' "$tmp/out"
    check "cuda-results: rows that do not name their card are refused" $?
    sweep "$tmp/cpu-sweep.csv" && [ -z "$(cards "$tmp/cpu-sweep.csv")" ] && grep -q '"vram_delta_mib": null, ' "$tmp/json"
    check "a run on the CPU knows of no cards" $?
    GGAUGE_NVML='' sweep "$tmp/none.csv" --backend cuda && [ -z "$(cards "$tmp/none.csv")" ] && grep -q '"gpu_w_tg": null, ' "$tmp/json" &&
        ! grep -qi nvml "$tmp/err"
    check "without the library: no rows and no words" $?
    GGAUGE_NVML=/nowhere/nvml.so sweep "$tmp/no.csv" --backend cuda && [ -z "$(cards "$tmp/no.csv")" ] && grep -q 'GGAUGE_NVML: /nowhere' "$tmp/err"
    check "one that is named and not there: a warning, and no rows" $?
fi
