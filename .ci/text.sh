#!/bin/sh
# SPDX-License-Identifier: MIT
# text.sh NAME - print the path of the text to measure on: wiki.test.raw, or the small text that is
# always there, with a word by NAME why.
cd "$(dirname "$0")/.." || exit 3
why=$(mktemp) || exit 3
trap 'rm -f "$why"' EXIT
datasets/fetch.sh wiki.test.raw 2>"$why" && exit 0
echo "$1: this runs on datasets/small/small.txt: $(tail -n 1 "$why")" >&2
echo datasets/small/small.txt
