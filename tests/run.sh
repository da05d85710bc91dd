#!/bin/sh
# SPDX-License-Identifier: MIT
# Run every unit test ($TEST_BIN/test_*), every fuzz target over its corpus ($TEST_BIN/replay_*) and every
# end-to-end script (tests/cli/test_*.sh), count their TAP lines ("ok", "not ok", "ok ... # SKIP why") and
# end with "N passed, N failed, N skipped".
#
# A test that dies, or exits non-zero without a "not ok", counts as failed. ONLY=name runs one.
cd "$(dirname "$0")/.." || exit 3
tmp=$(mktemp) || exit 3
trap 'rm -f "$tmp"' EXIT
passed=0 failed=0 skipped=0
export CMOCKA_MESSAGE_OUTPUT=TAP LC_ALL=C

for t in "$TEST_BIN"/test_* "$TEST_BIN"/replay_* tests/cli/test_*.sh; do
    [ -x "$t" ] || continue
    case $t in *.o | *.d) continue ;; esac
    name=$(basename "$t" .sh)
    [ -z "$ONLY" ] || [ "$ONLY" = "$name" ] || continue
    corpus=
    case $name in replay_*) corpus=tests/fuzz/corpus_${name#replay_} ;; esac
    "$t" $corpus >"$tmp" 2>&1 </dev/null
    status=$?
    # cmocka writes "not ok 3 # SKIP name"
    s=$(grep -cE '^(not )?ok .*# SKIP' "$tmp")
    p=$(grep '^ok ' "$tmp" | grep -vc '# SKIP')
    f=$(grep '^not ok ' "$tmp" | grep -vc '# SKIP')
    if [ $status -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    if [ $((p + f + s)) -eq 0 ]; then f=1; echo "$name printed no test result"; fi
    printf '%-28s %3d passed, %d failed, %d skipped\n' "$name" "$p" "$f" "$s"
    grep -E '^(not )?ok .*# SKIP' "$tmp" | sed -E 's/^(not )?ok[ 0-9-]*/    skipped: /'
    if [ "$f" -ne 0 ]; then
        echo "---- output of $name (exit $status)"
        grep -v '^ok ' "$tmp" | tail -n 60
        echo "----"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
