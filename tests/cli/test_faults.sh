#!/bin/sh
# SPDX-License-Identifier: MIT
# Seeded faults: a normal build has none; in the build of `make faults` each changes the perplexity under
# its options and not a bit where it should hide. Of the cuda column, on the emulated device, some; all of them:
# GGAUGE_CUDA_PLUGIN=build/faults/libggauge-cuda-emu.so .ci/faults.py build/faults/ggauge MODELS TEXT --backend cuda
shared=../shared
faults=$(dirname "$GGAUGE")/faults
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
status=0

refuses() { from=err says "$@"; } # refuses NAME WORDS COMMAND...; exit code $code
finds() { from=out says "$@"; }

says() { # of its stderr or stdout
    name=$1 words=$2
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err"
    if [ $? -eq ${code:-2} ] && grep -q "$words" "$tmp/$from"; then echo "ok - $name"; else
        echo "not ok - $name"
        cat "$tmp/out" "$tmp/err"
        status=1
    fi
}

refuses "a normal build knows no --fault" "unknown option '--fault'" "$GGAUGE" perplexity --fault kt_generator
refuses "nor a catalogue" "unknown option '--faults'" "$GGAUGE" types --faults
if [ ! -x "$faults/ggauge" ]; then
    echo "ok - seeded faults # SKIP make faults has not built $faults/ggauge"
    exit $status
fi
emu=$TEST_BIN/../libggauge-cuda-emu.so emu_faults=$faults/libggauge-cuda-emu.so
small="-m datasets/models/tiny-qwen3-q8_0.gguf -f datasets/small/small.txt -c 64 --chunks 1 --backend cuda"
code=3 refuses "a normal program refuses a plug-in with faults" "seeded faults, the program 0: make cuda" \
    env GGAUGE_CUDA_PLUGIN="$emu_faults" "$GGAUGE" perplexity $small
code=3 refuses "a program with faults refuses a plug-in without" "has 0 seeded faults, the program [1-9]" \
    env GGAUGE_CUDA_PLUGIN="$emu" "$faults/ggauge" perplexity $small
CMOCKA_MESSAGE_OUTPUT=TAP "$faults/tests/test_fault" 2>&1 || status=1
if [ ! -f $shared/models/tiny-qwen3-q8_0.gguf ] || [ ! -f $shared/datasets/wiki.test.raw ]; then
    echo "ok - seeded faults # SKIP $shared has no models or text"
    exit $status
fi
refuses "an unknown fault" "'no_such' is not a fault of this build" \
    "$faults/ggauge" perplexity -m $shared/models/tiny-qwen3-q8_0.gguf -f datasets/small/small.txt --fault no_such
refuses "a fault that the column is without" "the ref column has no fault 'kt_gain': iq3_kt@ref is without it" \
    "$faults/ggauge" perplexity -m $shared/models/tiny-qwen3-q8_0.gguf -f datasets/small/small.txt --backend ref --fault kt_gain
show() { .ci/faults.py "$faults/ggauge" $shared/models $shared/datasets/wiki.test.raw "$@" || status=1; }
show --check
if "$GGAUGE" types 2>&1 | grep -q '^This machine runs:.* avx512'; then
    show --backend avx512 --only packed_rows
    code=1 finds "the matrix finds it in single tokens alone" '^ *512 f16/f16 *avx512 *ok .* = *FAIL$' \
        "$faults/ggauge" compare -m $shared/models/tiny-qwen3-iq4_kt.gguf -f $shared/datasets/wiki.test.raw \
        --a "avx512 -t 1" --b "avx512 --fault packed_rows" --chunks 3 --matrix --matrix-ctx 512 --matrix-kv f16 \
        --matrix-ub 1 --matrix-backends avx512
else
    echo "ok - packed_rows # SKIP no column here has packed products"
fi
export GGAUGE_CUDA_PLUGIN="$emu_faults"
show --backend cuda --check --jobs 2 --only nibble_swap,seq_offset,rope_base,last_range,grid_tail
show --backend cuda --chunks 2 --only kt_generator
exit $status
