#!/bin/sh
# SPDX-License-Identifier: MIT
# --backend cuda from the command line: what it says without a plug-in, and whole models on the emulated
# device (or on a card, if GGAUGE_CUDA_PLUGIN names the plug-in): placement, splits, texts cut differently.
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

# ---- whole models
for m in kt q8; do
    eval "model=\$$m"
    ref=$(ppl "$tmp/ref-$m.csv" -m "$model" --backend ref)
    gpu=$(ppl "$tmp/gpu-$m.csv" -m "$model" --backend cuda)
    near "$gpu" "$ref" 0.3
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
near "$half" "$(ppl "$tmp/ref.csv" -m $q8 --backend ref)" 0.3
check "-ngl 3: the last layers on the device, perplexity $half" $?
field "$tmp/half.csv" cells | grep -q 'q8_0@ref.*q8_0@cuda' && field "$tmp/half.csv" placement | grep -q 'CUDA0 .*, CPU (ref) '
check "-ngl 3: both are named" $?
all=$(ppl "$tmp/all.csv" -m $q8 --backend cuda -ngl 0)
[ "$all" = "$(ppl "$tmp/cpu.csv" -m $q8)" ]
check "-ngl 0: the bits of the CPU" $?
ot=$(ppl "$tmp/ot.csv" -m $q8 --backend cuda --cpu-backend ref -ot 'blk\.0\.ffn_.*=CUDA0' -ot 'ffn_(up|down)=CPU')
near "$ot" "$half" 0.5 && field "$tmp/ot.csv" placement | grep -q ', CPU (ref) 10 nodes'
check "-ot: the first match wins, $(field "$tmp/ot.csv" placement)" $?
"$GGAUGE" perplexity -m $q8 -f "$tmp/text" --backend cuda -ot 'ffn_(up=CPU' >"$tmp/out" 2>&1
[ $? -eq 2 ] && grep -q -e '-ot ffn_(up=CPU: ' "$tmp/out"
check "-ot: a broken expression is a usage error" $?
"$GGAUGE" perplexity -m $q8 -f "$tmp/text" --backend cuda -ot 'ffn=CUDA7' >"$tmp/out" 2>&1
[ $? -eq 2 ] && grep -q 'there is no CUDA7' "$tmp/out"
check "-ot: a device that is not there is a usage error" $?
if [ $emulated -eq 1 ]; then
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
"$GGAUGE" compare -m $kt -f "$tmp/text" -c 64 --chunks 2 --a ref --b cuda --out "$tmp/cmp" >"$tmp/out" 2>&1
grep -q 'floor B .*equal bit for bit' "$tmp/out" && grep -q 'operations .*all 119 within their limits' "$tmp/out"
check "compare: floor and operations" $?
