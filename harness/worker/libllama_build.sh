#!/bin/sh
# SPDX-License-Identifier: MIT
# Build ggauge-libllama against a checkout of llama.cpp or ik_llama.cpp and its finished build.
#
#   libllama_build.sh ENGINE ENGINE_BUILD OBJECTS LIBGGAUGE OUT      (make worker calls it)
#
# The C API of these engines changes its spelling from month to month, so every spelling that the worker
# can use is tried by compiling three lines against the checkout's own headers; what exists becomes a
# line of OUT/NAME-COMMIT/libllama_config.h. Nothing of the checkout is written to.
#
# Environment: CC, CXX, CFLAGS, LDLIBS of our build; ENGINE_NAME, ENGINE_COMMIT where they cannot be found;
# ENGINE_CFLAGS for the engine's headers, ENGINE_LIBS behind its static libraries.
set -u
engine=$1 build=$2 sources=$3 lib=$4 out=$5
CC=${CC:-cc} CXX=${CXX:-c++} CFLAGS=${CFLAGS:-} LDLIBS=${LDLIBS:-}

fail() {
    echo "error: $*" >&2
    exit 3
}

[ -d "$engine" ] || fail "ENGINE=$engine: no such directory; expected a checkout of llama.cpp or ik_llama.cpp"
engine=$(cd "$engine" && pwd)
case $build in /*) ;; *) build=$engine/$build ;; esac
[ -d "$build" ] || fail "ENGINE_BUILD=$build: no such directory; build the engine first"

# ---- headers and libraries
header() { # NAME DIRECTORIES...: the directory that has it
    name=$1
    shift
    for d in "$@"; do
        if [ -f "$engine/$d/$name" ]; then
            echo "$engine/$d"
            return
        fi
    done
    fail "$engine: $name is in none of $*; is it a checkout of llama.cpp or ik_llama.cpp?"
}
inc_llama=$(header llama.h include . src) || exit 3
inc_ggml=$(header ggml.h ggml/include . include) || exit 3
header ggml-backend.h ggml/include . include >/dev/null || exit 3
include="-isystem $inc_llama -isystem $inc_ggml ${ENGINE_CFLAGS:-}"

library() { # NAME SUFFIX: the one of the build, or nothing
    find "$build" -name "lib$1.$2" -not -path '*/CMakeFiles/*' | head -n 1
}
suffix=so
llama=$(library llama so)
if [ -z "$llama" ]; then
    suffix=a
    llama=$(library llama a)
fi
[ -n "$llama" ] || fail "$build: neither libllama.so nor libllama.a; is the engine built there?"
libs=$llama rpath=$(dirname "$llama")
for l in ggml ggml-cpu ggml-base; do
    f=$(library $l $suffix)
    [ -n "$f" ] && libs="$libs $f" && rpath="$rpath:$(dirname "$f")"
done

# ---- who it is
name=${ENGINE_NAME:-}
if [ -z "$name" ]; then
    if [ -d "$engine/ggml/src/iqk" ]; then name=ik_llama.cpp
    elif grep -qs 'project("\{0,1\}llama\.cpp' "$engine/CMakeLists.txt"; then name=llama.cpp
    else name=$(basename "$engine"); fi
fi
name=$(printf %s "$name" | tr -c 'A-Za-z0-9._-' _ | cut -c1-15)
commit=${ENGINE_COMMIT:-}
if [ -z "$commit" ] && [ "$(git -C "$engine" rev-parse --show-toplevel 2>/dev/null)" = "$engine" ]; then
    commit=$(git -C "$engine" rev-parse HEAD)
    git -C "$engine" diff --quiet HEAD -- 2>/dev/null || commit=$commit+changed
fi
if [ -z "$commit" ]; then # what the build has been told, if anything
    commit=$(sed -n 's/.*LLAMA_COMMIT *= *"\([^"]*\)".*/\1/p' "$build/common/build-info.cpp" "$engine/common/build-info.cpp" \
        2>/dev/null | grep -v '^unknown$' | head -n 1)
fi
[ -n "$commit" ] || commit=unknown
short=$(printf %s "$commit" | sed 's/^\([0-9a-f]\{12\}\)[0-9a-f]*/\1/' | tr -c 'A-Za-z0-9._+-' _)
flags=$(sed -n -e 's/^CMAKE_BUILD_TYPE:[A-Z]*=\(..*\)/\1/p' -e 's/^\(CMAKE_C[A-Z]*_FLAGS\):[A-Z]*=\(..*\)/\1=\2/p' \
    -e 's/^\(GGML_[A-Z0-9_]*\):BOOL=ON/\1/p' "$build/CMakeCache.txt" 2>/dev/null | tr '\n' ' ' | tr -d '"\\' | sed 's/ *$//')

dir=$out/$name-$short
mkdir -p "$dir" || exit 3
config=$dir/libllama_config.h

# ---- spelling
tmp=$(mktemp -d) || exit 3
trap 'rm -rf "$tmp"' EXIT
compiles() { # CODE: inside of a function
    printf '#include "llama.h"\n#include "ggml-backend.h"\n%s\nvoid probe(void);\nvoid probe(void) {\n%s\n}\n' \
        '#pragma GCC diagnostic ignored "-Wunused"' "$1" >"$tmp/probe.c"
    $CC -std=c11 -D_GNU_SOURCE $include -Werror=implicit-function-declaration -Werror=incompatible-pointer-types \
        -Werror=int-conversion -Wno-deprecated-declarations -fsyntax-only "$tmp/probe.c" 2>"$tmp/log"
}
try() { # MACRO CODE
    if compiles "$2"; then echo "#define $1 1"; else echo "#define $1 0"; fi >>"$config"
}
model='struct llama_model_params p = llama_model_default_params(); (void)p; p.'
context='struct llama_context_params p = llama_context_default_params(); (void)p; p.'

compiles 'llama_backend_init();' || { cat "$tmp/log" >&2; fail "$inc_llama/llama.h cannot be compiled as C"; }
{
    echo "/* Written by harness/worker/libllama_build.sh: how $name $short spells its API. */"
    echo "#define ENGINE_NAME \"$name\""
    echo "#define ENGINE_COMMIT \"$commit\""
    echo "#define ENGINE_FLAGS \"$flags\""
} >"$config"
try LL_LOAD_FROM_FILE 'llama_model_load_from_file("", llama_model_default_params());'
try LL_MODEL_FREE 'struct llama_model *m = 0; llama_model_free(m);'
try LL_INIT_FROM_MODEL 'struct llama_model *m = 0; llama_init_from_model(m, llama_context_default_params());'
try LL_VOCAB 'const struct llama_model *m = 0; llama_vocab_n_tokens(llama_model_get_vocab(m));'
try LL_MODEL_N_CTX_TRAIN 'const struct llama_model *m = 0; llama_model_n_ctx_train(m);'
try LL_MEMORY 'struct llama_context *c = 0; llama_memory_clear(llama_get_memory(c), true); llama_memory_seq_rm(llama_get_memory(c), 0, 0, -1);'
try LL_KV_SELF 'struct llama_context *c = 0; llama_kv_self_clear(c); llama_kv_self_seq_rm(c, 0, 0, -1);'
try LL_KV_CACHE 'struct llama_context *c = 0; llama_kv_cache_clear(c); llama_kv_cache_seq_rm(c, 0, 0, -1);'
try LL_EVAL_RETURNS_INT 'int (*f)(struct ggml_tensor *, bool, void *) = 0; struct llama_context_params p = llama_context_default_params(); p.cb_eval = f;'
try LL_EVAL_RETURNS_BOOL 'bool (*f)(struct ggml_tensor *, bool, void *) = 0; struct llama_context_params p = llama_context_default_params(); p.cb_eval = f;'
try LL_BACKEND_LOAD_ALL 'ggml_backend_load_all();'
try LL_DEVICES 'ggml_backend_dev_buffer_type(ggml_backend_dev_get(ggml_backend_dev_count()));'
try LL_REGISTRY 'ggml_backend_reg_get_default_buffer_type(ggml_backend_reg_get_count());'
try LL_FA_TYPE "$context"'flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;'
try LL_FA_BOOL "$context"'flash_attn = true;'
try LL_FA_MODEL "$model"'flash_attn = true;'
try LL_N_SEQ_MAX "$context"'n_seq_max = 1;'
try LL_KV_UNIFIED "$context"'kv_unified = true;'
try LL_N_OUTPUTS_MAX "$context"'n_outputs_max = 1;'
try LL_LOGITS_ALL "$context"'logits_all = true;'
try LL_MLA "$context"'mla_attn = 1;'
try LL_MLA_MODEL "$model"'mla = 1;'
try LL_AMB "$context"'attn_max_batch = 1;'
try LL_AMB_MODEL "$model"'amb = 1;'
try LL_FMOE "$context"'fused_moe_up_gate = true;'
try LL_FUG "$context"'fused_up_gate = true;'
try LL_RTR "$model"'repack_tensors = true;'
try LL_THP "$model"'use_thp = true;'
try LL_EXTRA_BUFTS "$model"'use_extra_bufts = true;'
try LL_OVERRIDES "$model"'tensor_buft_overrides = (const struct llama_model_tensor_buft_override[]){ { "", 0 } };'
try LL_NO_KV_OFFLOAD "$context"'offload_kqv = true;'
try LL_OP_OFFLOAD "$context"'op_offload = true;'
try LL_MODEL_SHAPE "$model"'max_ctx_size = 1; p.n_seq_max = 1; p.n_ubatch = 1;'
try LL_MODEL_KV_TYPES "$model"'type_k = GGML_TYPE_F16; p.type_v = GGML_TYPE_F16;'
try LL_SPLIT_MODE "$model"'split_mode = LLAMA_SPLIT_MODE_NONE; p.main_gpu = 0;'

has() {
    grep -q "^#define $1 1" "$config"
}
has LL_LOAD_FROM_FILE || compiles 'llama_load_model_from_file("", llama_model_default_params());' ||
    fail "$name $short: neither llama_model_load_from_file nor llama_load_model_from_file; it is older than the worker can use"
has LL_MEMORY || has LL_KV_SELF || has LL_KV_CACHE ||
    fail "$name $short: no function that clears the KV cache (llama_memory_clear, llama_kv_self_clear, llama_kv_cache_clear)"
has LL_EVAL_RETURNS_INT || has LL_EVAL_RETURNS_BOOL ||
    echo "note: $name $short has no cb_eval: its operations cannot be looked into" >&2

# ---- the program
for c in $sources; do
    o=$dir/$(basename "$c" .c).o
    # shellcheck disable=SC2086
    $CC $CFLAGS -fvisibility=hidden -I"$dir" $include -Wno-deprecated-declarations -c -o "$o" "$c" || exit 3
    objects="${objects:-} $o"
done
# Our symbols stay ours: engines have functions of the same names. Shared libraries are not shown them;
# before static ones are added, all but main and what the engine must give are made local.
link() {
    # shellcheck disable=SC2086
    if [ $suffix = so ]; then
        $CC -o "$dir/ggauge-libllama" ${objects:-} "$lib" $libs -Wl,--exclude-libs,ALL -Wl,-rpath,"$rpath" \
            -Wl,-rpath-link,"$rpath" ${LDFLAGS:-} $LDLIBS
        return
    fi
    openmp=
    grep -qs '^GGML_OPENMP:BOOL=ON' "$build/CMakeCache.txt" && openmp=-fopenmp
    # shellcheck disable=SC2086
    ld -r -o "$dir/worker.o" ${objects:-} "$lib" && objcopy --keep-global-symbol=main "$dir/worker.o" &&
        $CXX -o "$dir/ggauge-libllama" "$dir/worker.o" -Wl,--start-group $libs -Wl,--end-group ${ENGINE_LIBS:-} \
            $openmp ${LDFLAGS:-} $LDLIBS -ldl
}
link 2>"$tmp/log" || {
    cat "$tmp/log" >&2
    fail "$name $short: the worker cannot be linked to $libs (ENGINE_LIBS=... adds libraries to static ones)"
}
echo "$dir/ggauge-libllama"
