# SPDX-License-Identifier: MIT
# What end-to-end tests begin with; read by them from the project's folder. Gives $GGAUGE, $tmp (gone at the
# end), and to say how a test ended: check, or result and then exit $failed.
GGAUGE=${GGAUGE:-build/ggauge}
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
failed=0

result() { # STATUS NAME
    if [ "$1" -eq 0 ]; then echo "ok - $2"; else echo "not ok - $2"; failed=1; fi
}

# need_model NAME: $model is a small Q8_0 file; without one the whole test is skipped as NAME.
need_model() {
    model=
    for m in datasets/models/*[qQ]8_0*.gguf ../shared/models/tiny-qwen3-q8_0.gguf; do
        if [ -r "$m" ]; then model=$m; break; fi
    done
    [ -z "$model" ] || return 0
    echo "ok - $1 # SKIP no model: datasets/models is empty"
    exit 0
}

# check NAME COMMAND...: the command must succeed; otherwise what it and the program last printed is shown.
check() {
    name=$1
    shift
    if "$@" >"$tmp/check" 2>&1; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        sed 's/^/# /' "$tmp/check" "$tmp/out" "$tmp/err" 2>/dev/null | head -n 60
    fi
}
