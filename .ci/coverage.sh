#!/bin/sh
# SPDX-License-Identifier: MIT
# The coverage table of the README is the output of `ggauge types`. coverage.sh GGAUGE writes it;
# coverage.sh GGAUGE check fails if it is out of date.
set -e
cd "$(dirname "$0")/.."
new=$(mktemp)
trap 'rm -f "$new" "$new.table"' EXIT
"$1" types 2>/dev/null >"$new.table"
awk -v table="$new.table" '
    /<!-- coverage: begin/ { print; while ((getline line < table) > 0) print line; skip = 1 }
    /<!-- coverage: end/ { skip = 0 }
    !skip && !/<!-- coverage: begin/ { print }' README.md >"$new"
if [ "$2" = check ]; then
    cmp -s "$new" README.md || { echo "README.md: coverage table is out of date; run make coverage"; exit 1; }
    echo "coverage: the README's table is the program's"
else
    cmp -s "$new" README.md || cat "$new" >README.md
fi
