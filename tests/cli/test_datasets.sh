#!/bin/sh
# SPDX-License-Identifier: MIT
# datasets/fetch.sh: where it looks, what it refuses, resuming, and no network. Downloads are played
# with file:// addresses and a manifest of our own; nothing leaves the machine.
set -u
fetch=$PWD/datasets/fetch.sh
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
unset GGAUGE_DATASETS GGAUGE_MANIFEST GGAUGE_CACHE

check() { # check NAME: turns the status of the command before it into a TAP line
    status=$?
    if [ $status -eq 0 ]; then echo "ok - $1"; else echo "not ok - $1"; sed 's/^/# /' "$tmp/err"; fi
}
skip() { echo "ok - $1 # SKIP $2"; }
run() { "$fetch" "$@" >"$tmp/out" 2>"$tmp/err"; }
sum() { sha256sum <"$1" | cut -d' ' -f1; }
manifest() { # manifest FILE PATH URL: one entry "data.txt" that should look like FILE
    printf 'data.txt\t%d\t%s\tCC0\t%s\t%s\n' "$(wc -c <"$1")" "$(sum "$1")" "$2" "$3"
}

# ---- what is in the tree --------------------------------------------------------------------
for name in small.txt tiny-qwen3-q8_0.gguf tiny-qwen3-iq4_kt.gguf; do
    run "$name" && [ -f "$(cat "$tmp/out")" ]
    check "$name is in the tree and whole"
done
bytes=$(wc -c <datasets/small/small.txt)
[ "$bytes" -ge 30720 ] && [ "$bytes" -le 40960 ]
check "the small text has 30 to 40 KB"
run nothing; [ $? -eq 2 ] && grep -q "named 'nothing'" "$tmp/err"
check "an unknown name is a usage error"

# ---- order of places, wrong content ---------------------------------------------------------
seq 1 20000 >"$tmp/good"
mkdir "$tmp/mine" "$tmp/cache"
export GGAUGE_CACHE="$tmp/cache" GGAUGE_MANIFEST="$tmp/manifest.tsv"
manifest "$tmp/good" - "file://$tmp/good" >"$GGAUGE_MANIFEST"
cp "$tmp/good" "$tmp/mine/data.txt"
cp "$tmp/good" "$tmp/cache/data.txt"
GGAUGE_DATASETS="$tmp/mine" run data.txt && [ "$(cat "$tmp/out")" = "$tmp/mine/data.txt" ]
check "GGAUGE_DATASETS comes first"

sed 's/19999/1999x/' "$tmp/good" >"$tmp/mine/data.txt"
GGAUGE_DATASETS="$tmp/mine" run data.txt && [ "$(cat "$tmp/out")" = "$tmp/cache/data.txt" ] &&
    grep -q "SHA-256 .* expected .*ignored" "$tmp/err" && [ -f "$tmp/mine/data.txt" ]
check "a file with a wrong checksum is passed over and left alone"

echo short >"$tmp/cache/data.txt"
if command -v curl >/dev/null 2>&1; then
    run data.txt && cmp -s "$tmp/good" "$(cat "$tmp/out")" && [ -f "$tmp/cache/data.txt.bad" ] &&
        grep -q "6 bytes, expected 108894" "$tmp/err"
    check "a wrong file in the cache is set aside and fetched again"

    # ---- resuming: a wrong beginning must survive into the result, or nothing was resumed
    rm -f "$tmp/cache"/*
    head -c 50000 "$tmp/good" >"$tmp/cache/data.txt.1.part"
    run data.txt && cmp -s "$tmp/good" "$tmp/cache/data.txt"
    check "a partial download is completed"
    rm -f "$tmp/cache"/*
    head -c 50000 "$tmp/good" | tr 1 2 >"$tmp/cache/data.txt.1.part"
    run data.txt
    [ $? -eq 3 ] && grep -q "content is wrong (SHA-256" "$tmp/err" &&
        [ "$(head -c 50000 "$tmp/cache/data.txt.bad" | tr 1 2)" = \
            "$(head -c 50000 "$tmp/good" | tr 1 2)" ] && [ ! -f "$tmp/cache/data.txt" ]
    check "a wrong download is kept aside, not handed out"
    run data.txt && cmp -s "$tmp/good" "$tmp/cache/data.txt"
    check "and the next attempt starts anew"

    rm -f "$tmp/cache"/*
    if command -v python3 >/dev/null 2>&1; then
        (cd "$tmp" && mkdir dir && cp good dir/data.txt && python3 -m zipfile -c data.zip dir)
        {
            manifest "$tmp/good" dir/data.txt "file://$tmp/absent.zip"
            manifest "$tmp/good" dir/data.txt "file://$tmp/data.zip"
        } >"$GGAUGE_MANIFEST"
        run data.txt && cmp -s "$tmp/good" "$tmp/cache/data.txt" && [ ! -s "$tmp/err" ]
        check "a mirror is tried, an archive unpacked"
        rm -f "$tmp/cache"/*
        cp "$tmp/data.zip" "$tmp/cache/data.txt.2.part"
        run data.txt && cmp -s "$tmp/good" "$tmp/cache/data.txt"
        check "a complete partial file is recognised"
    else
        skip "archives" "python3 is not installed"
    fi

    # ---- no network: nothing listens on port 9 of this machine
    rm -f "$tmp/cache"/*
    manifest "$tmp/good" - "http://127.0.0.1:9/data.txt" >"$GGAUGE_MANIFEST"
    run data.txt
    [ $? -eq 3 ] && [ ! -s "$tmp/out" ] && [ "$(wc -l <"$tmp/err")" -eq 1 ] &&
        grep -q "cannot fetch data.txt: no network" "$tmp/err"
    check "without a network: one line, exit 3"
else
    skip "downloads" "curl is not installed"
fi
