#!/bin/sh
# SPDX-License-Identifier: MIT
# fetch.sh NAME - print the path of a verified data file, downloading it if need be.
#
# Looks in $GGAUGE_DATASETS, ../shared/datasets (beside the project), then the cache, and only then
# downloads, resuming a partial file. Size and SHA-256 (manifest.tsv) are checked wherever the file
# was found. stdout: the path. stderr: one line for each thing that went wrong.
# Exit: 0 found, 2 usage, 3 not to be had (no network, wrong content, disk).
# For tests and mirrors: GGAUGE_MANIFEST, GGAUGE_CACHE replace the files beside this script.
set -u
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd) || exit 3
manifest=${GGAUGE_MANIFEST:-$here/manifest.tsv}
cache=${GGAUGE_CACHE:-$here/cache}

say() { printf 'fetch.sh: %s\n' "$*" >&2; }
die() { say "$1"; exit "${2:-3}"; }

# field N of the manifest rows of $name, one a line
rows() { awk -F'\t' -v name="$name" -v n="$1" '$1 == name { print $n }' "$manifest"; }

sum_of() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1" | cut -d' ' -f1
    else openssl dgst -sha256 <"$1" | sed 's/.* //'; fi
}

# is_good FILE: size and checksum as in the manifest; says what is wrong in $why
is_good() {
    size=$(wc -c <"$1" | tr -d ' ')
    if [ "$size" != "$want_bytes" ]; then
        why="$size bytes, expected $want_bytes"
        return 1
    fi
    sum=$(sum_of "$1")
    why="SHA-256 $sum, expected $want_sum"
    [ "$sum" = "$want_sum" ]
}

# in_dir DIR: print the path and leave if DIR holds the file; a wrong one there is not ours to touch
in_dir() {
    [ -f "$1/$name" ] || return 0
    if is_good "$1/$name"; then
        printf '%s\n' "$1/$name"
        exit 0
    fi
    say "$1/$name is not the expected file ($why); ignored"
}

# download URL FILE: resume FILE; returns curl's status, $why says what failed
download() {
    why="no network, or the server did not answer"
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --connect-timeout 15 --speed-limit 1000 --speed-time 60 -C - -o "$2" "$1" \
            2>"$2.log"
        status=$?
        case $status in
            0) return 0 ;;
            5 | 6 | 7 | 28 | 35) ;;
            *) why="curl: $(sed -n 's/^curl: //p' "$2.log" | head -n 1)" ;;
        esac
    elif command -v wget >/dev/null 2>&1; then
        wget -q -c -T 60 -t 2 -O "$2" "$1" 2>"$2.log"
        status=$?
        [ $status -eq 0 ] && return 0
        [ $status -eq 4 ] || why="wget: exit status $status"
    else
        why="neither curl nor wget is installed"
        status=1
    fi
    return $status
}

# unpack ARCHIVE PATH FILE: the member PATH of a zip, or the file itself
unpack() {
    case $url in
        *.zip)
            if command -v unzip >/dev/null 2>&1; then unzip -p "$1" "$2" >"$3" 2>/dev/null
            else
                python3 -c 'import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' \
                    "$1" "$2" >"$3" 2>/dev/null
            fi ;;
        *) cat "$1" >"$3" ;;
    esac
}

# from_url: download $url, unpack $member and verify; the result is $cache/$name
from_url() {
    part=$cache/$name.$i.part
    download "$url" "$part"
    got=$?
    # 22: the server refuses the range (or the address); 33: it cannot resume. Once more from the
    # start, unless the .part turns out to be the whole file.
    if { [ $got -eq 22 ] || [ $got -eq 33 ]; } && ! unpack "$part" "$member" /dev/null; then
        rm -f "$part"
        download "$url" "$part"
        got=$?
    fi
    problem=$why
    [ -s "$part" ] || { rm -f "$part" "$part.log"; why=$problem; return 1; }
    # A complete .part cannot be resumed and gives an error: so look into the file in any case.
    if unpack "$part" "$member" "$cache/$name.new" && is_good "$cache/$name.new"; then
        mv -f "$cache/$name.new" "$cache/$name" || die "cannot write to $cache"
        rm -f "$part" "$part.log"
        return 0
    fi
    if [ $got -eq 0 ]; then
        keep=$cache/$name.bad
        if [ -s "$cache/$name.new" ]; then mv -f "$cache/$name.new" "$keep"; rm -f "$part"
        else why="it has no member $member"; mv -f "$part" "$keep"; fi
        why="downloaded content is wrong ($why); kept as $keep"
    else
        why=$problem
    fi
    rm -f "$cache/$name.new" "$part.log"
    return 1
}

[ -r "$manifest" ] || die "$manifest: cannot be read"
case ${1:-} in
    --list) awk -F'\t' '!/^#/ && !seen[$1]++ { print $1 }' "$manifest"; exit 0 ;;
    '' | -*) die "usage: fetch.sh NAME | --list" 2 ;;
esac
[ $# -eq 1 ] || die "usage: fetch.sh NAME | --list" 2
name=$1
want_bytes=$(rows 2 | head -n 1)
want_sum=$(rows 3 | head -n 1)
[ -n "$want_bytes" ] || die "no data set is named '$name'; see fetch.sh --list" 2

[ -z "${GGAUGE_DATASETS:-}" ] || in_dir "$GGAUGE_DATASETS"
shared=$(cd "$here/../../shared/datasets" 2>/dev/null && pwd) && in_dir "$shared"
if [ "$(rows 6 | head -n 1)" = - ]; then
    file=$here/$(rows 5 | head -n 1)
    [ -f "$file" ] || die "$file is missing from the tree"
    is_good "$file" || die "$file is not the expected file ($why)"
    printf '%s\n' "$file"
    exit 0
fi

mkdir -p "$cache" || die "cannot create $cache"
if [ -f "$cache/$name" ]; then
    is_good "$cache/$name" && { printf '%s\n' "$cache/$name"; exit 0; }
    mv -f "$cache/$name" "$cache/$name.bad"
    say "$cache/$name was not the expected file ($why); kept as $name.bad"
fi
# Two fetches at once must not write to one .part file.
if command -v flock >/dev/null 2>&1; then
    exec 9>"$cache/.lock" && flock 9
    [ ! -f "$cache/$name" ] || in_dir "$cache"
fi
n=$(rows 6 | wc -l)
i=0 tried=
while [ $i -lt "$n" ]; do
    i=$((i + 1))
    url=$(rows 6 | sed -n "${i}p")
    member=$(rows 5 | sed -n "${i}p")
    if from_url; then
        printf '%s\n' "$cache/$name"
        exit 0
    fi
    tried="$tried${tried:+; }$why ($url)"
done
die "cannot fetch $name: $tried"
