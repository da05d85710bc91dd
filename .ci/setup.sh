#!/bin/sh
# SPDX-License-Identifier: MIT
# Install what is missing to build, test and draw (`setup.sh`), and with `setup.sh dev` what `make check`
# and `make fuzz` need as well. Debian and Ubuntu through apt; elsewhere the list is printed.
deb="gcc g++ make git libpcre2-dev libsqlite3-dev libjansson-dev libxxhash-dev libhwloc-dev libcmocka-dev gnuplot-nox fonts-dejavu-core python3 curl unzip"
fedora="gcc gcc-c++ make git pcre2-devel sqlite-devel jansson-devel xxhash-devel hwloc-devel libcmocka-devel gnuplot dejavu-sans-fonts python3 curl unzip"
arch="gcc make git pcre2 sqlite jansson xxhash hwloc cmocka gnuplot ttf-dejavu python curl unzip"
if [ "$1" = dev ]; then
    deb="$deb clang clang-format libclang-rt-14-dev" fedora="$fedora clang compiler-rt clang-tools-extra"
    arch="$arch clang compiler-rt"
fi

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "setup: no apt here; please install these packages:"
    echo "  Fedora: dnf install $fedora"
    echo "  Arch:   pacman -S --needed $arch"
    exit 0
fi
missing=
for p in $deb; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && { echo "setup: everything is installed"; exit 0; }
echo "setup: installing$missing"
sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "setup: not root and no sudo; run: apt-get install$missing" >&2
        exit 3
    }
    sudo=sudo
fi
log=$(mktemp)
# shellcheck disable=SC2086
if $sudo apt-get update -qq >"$log" 2>&1 &&
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >>"$log" 2>&1; then
    rm -f "$log"
else
    tail -n 20 "$log" >&2
    echo "setup: apt-get install$missing failed" >&2
    exit 3
fi
