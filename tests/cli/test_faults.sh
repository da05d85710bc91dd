#!/bin/sh
# SPDX-License-Identifier: MIT
# Seeded faults: a normal build has none; in the build of `make faults` each changes the perplexity under
# its options and not a bit where it should hide.
shared=../shared
faults=$(dirname "$GGAUGE")/faults
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
status=0

refuses() { # refuses NAME WORDS ARGUMENTS...
    name=$1 words=$2
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err"
    if [ $? -eq 2 ] && grep -q "$words" "$tmp/err"; then echo "ok - $name"; else
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
CMOCKA_MESSAGE_OUTPUT=TAP "$faults/tests/test_fault" 2>&1 || status=1
if [ ! -f $shared/models/tiny-qwen3-q8_0.gguf ] || [ ! -f $shared/datasets/wiki.test.raw ]; then
    echo "ok - seeded faults # SKIP $shared has no models or text"
    exit $status
fi
refuses "an unknown fault" "'no_such' is not a fault of this build" \
    "$faults/ggauge" perplexity -m $shared/models/tiny-qwen3-q8_0.gguf -f datasets/small/small.txt --fault no_such
.ci/faults.py "$faults/ggauge" $shared/models $shared/datasets/wiki.test.raw --check || status=1
exit $status
