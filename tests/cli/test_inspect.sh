#!/bin/sh
# SPDX-License-Identifier: MIT
# ggauge inspect and ggauge dump, end to end: what they print, and how they refuse.
. tests/cli/common.sh

has() { # NAME TEXT FILE: a line of FILE is or contains TEXT
    grep -qF -- "$2" "$3"
    result $? "$1"
}

refused() { # NAME EXIT TEXT COMMAND...: exit code, one line on stderr with TEXT, nothing on stdout
    name=$1 want=$2 text=$3
    shift 3
    "$@" >"$tmp/out" 2>"$tmp/err"
    got=$?
    if [ $got -eq "$want" ] && grep -qF -- "$text" "$tmp/err" &&
        [ "$(wc -l <"$tmp/err")" -eq 1 ] && [ ! -s "$tmp/out" ]; then
        result 0 "$name"
    else
        echo "# exit $got, expected $want with '$text':"
        sed 's/^/# /' "$tmp/err"
        result 1 "$name"
    fi
}

model=
for f in datasets/models/tiny-qwen3-iq4_kt.gguf ../shared/models/tiny-qwen3-iq4_kt.gguf; do
    [ -z "$model" ] && [ -r "$f" ] && model=$f
done

refused "inspect without a model" 2 "-m FILE" "$GGAUGE" inspect
refused "inspect of nothing" 3 "no such file" "$GGAUGE" inspect -m "$tmp/no such file"
refused "inspect of a folder" 3 "is a directory" "$GGAUGE" inspect -m "$tmp"
: >"$tmp/empty"
refused "inspect of an empty file" 3 "is empty" "$GGAUGE" inspect -m "$tmp/empty"
printf 'GGUF\000\000\000\003' >"$tmp/big"
refused "inspect of a big-endian file" 3 "big-endian" "$GGAUGE" inspect -m "$tmp/big"
refused "dump without a tensor" 2 "--tensor NAME" "$GGAUGE" dump -m "$tmp/empty"

if [ -z "$model" ]; then
    echo "ok - inspect and dump of a model # SKIP no tiny-qwen3-iq4_kt.gguf"
    exit $failed
fi

# ---- inspect
"$GGAUGE" inspect -m "$model" >"$tmp/text" 2>"$tmp/err"
result $? "inspect of a model"
has "architecture" "general.architecture str              = qwen3" "$tmp/text"
has "array with its count" 'tokenizer.ggml.tokens arr[str,4096]    = ["!", "\"", "#",' "$tmp/text"
has "tensors by type" "type iq4_kt: 43 tensors" "$tmp/text"
has "float tensors" "type f32: 25 tensors" "$tmp/text"
has "bits per weight" "model size         = 2.840 MiB (4.128 BPW)" "$tmp/text"
grep -q '^n_ctx_train *= 2048$' "$tmp/text"
result $? "hyper-parameters"
grep -q '^tensor .*blk\.5\.ffn_down\.weight .*iq4_kt .* 768, .* 256,.* bytes$' "$tmp/text"
result $? "tensor table"
[ "$(grep -c '^tensor ' "$tmp/text")" -eq 68 ]
result $? "every tensor"
"$GGAUGE" inspect -m "$model" --no-tensors >"$tmp/short" && ! grep -q '^tensor ' "$tmp/short"
result $? "--no-tensors"

"$GGAUGE" inspect -m "$model" --json >"$tmp/json"
result $? "inspect --json"
if command -v python3 >/dev/null; then
    python3 - "$tmp/json" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))
kv = {p["key"]: p["value"] for p in d["kv"]}
assert kv["general.architecture"] == "qwen3" and len(kv["tokenizer.ggml.tokens"]) == 4096
assert kv["qwen3.attention.layer_norm_rms_epsilon"] == 1e-6
assert d["types"] == {"f32": 25, "iq4_kt": 43} and len(d["tensors"]) == 68
assert d["hparams"]["n_ctx_train"] == 2048 and d["parts"] == 1
assert abs(d["sizes"]["bpw"] - 4.1277501774308) < 1e-9
PY
    result $? "JSON content"
else
    echo "ok - JSON content # SKIP no python3"
fi

other=../shared/models/tiny-deepseek2-iq4_kt.gguf
if [ -r "$other" ]; then
    "$GGAUGE" inspect -m "$other" >"$tmp/text"
    result $? "inspect of a foreign architecture"
    has "size without embedding and output" "repeating layers   = 3.873 MiB (4.160 BPW)" "$tmp/text"
else
    echo "ok - inspect of a foreign architecture # SKIP no $other"
fi

# ---- dump
"$GGAUGE" dump -m "$model" --tensor blk.0.attn_q.weight -o "$tmp/q"
[ $? -eq 0 ] && [ "$(wc -c <"$tmp/q")" -eq $((256 * 256 * 4)) ]
result $? "dump to a file"
"$GGAUGE" dump -m "$model" --tensor blk.0.attn_q.weight | cmp -s - "$tmp/q"
result $? "dump to stdout"
refused "unknown tensor" 3 "near are: blk.0.attn_q.weight" \
    "$GGAUGE" dump -m "$model" --tensor blk.0.attn_q.wieght
cp "$model" "$tmp/m.gguf" && ln "$tmp/m.gguf" "$tmp/link.gguf"
refused "dump over the model" 2 "is the model itself" \
    "$GGAUGE" dump -m "$tmp/m.gguf" --tensor output_norm.weight -o "$tmp/link.gguf"
refused "dump to a full device" 3 "No space left" \
    "$GGAUGE" dump -m "$model" --tensor token_embd.weight -o /dev/full
[ -c /dev/full ]
result $? "the device is still there"
(
    ulimit -f 100 # blocks of 512 bytes: the disk is full after 50 KB
    refused "dump to a full disk" 3 "cannot write" \
        "$GGAUGE" dump -m "$model" --tensor token_embd.weight -o "$tmp/partial"
    exit $failed
) || failed=1
[ ! -e "$tmp/partial" ]
result $? "nothing partial is left"
exit $failed
