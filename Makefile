# SPDX-License-Identifier: MIT
# ggauge - one non-recursive Makefile; `make help` lists the targets.
#
# Sources are found by folder; the flags of an instruction set belong to its folder alone, so that the
# dispatcher runs on any x86-64. CONFIG=release|asan|ubsan|tsan|debug|faults each builds in its own folder.

CONFIG  ?= release
O       ?= build
SHARED  ?= ../shared
# `make compare B=...` speaks of arm B; for the rest of this file B is the folder that is built in.
ARM_B   := $(if $(filter command,$(origin B)),$(B),best)
override B := $(O)/$(CONFIG)
CC      ?= gcc
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += --jobs=$(shell nproc)
endif

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual \
           -Wpointer-arith -Wvla -Wundef -Wwrite-strings
OPT.release := -O2
OPT.debug   := -O1 -g -DDEBUG
OPT.asan    := -O1 -g -fsanitize=address -fno-omit-frame-pointer
OPT.ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
OPT.tsan    := -O1 -g -fsanitize=thread
OPT.faults  := -O2 -DGGAUGE_FAULTS
OPT.fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
ISA.avx2    := -mavx2 -mfma -mf16c
ISA.avx512  := $(ISA.avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi
ISA.amx     := $(ISA.avx512) -mamx-tile -mamx-int8 -mamx-bf16
ISA.amx_requant := $(ISA.amx)

CFLAGS  := -std=c11 -D_GNU_SOURCE $(OPT.$(CONFIG)) -ffp-contract=off $(WARN) -Ikernels -Iharness
# --numa needs hwloc; a build without its headers, or with HWLOC= given, says so. Asked for late: after setup.
HWLOC   ?= $(shell printf '\043include <hwloc.h>\n' | $(CC) -E -x c - >/dev/null 2>&1 && echo -lhwloc)
LDLIBS   = -lpcre2-8 -lsqlite3 -ljansson -lxxhash $(HWLOC) -lm -lpthread -ldl

LIB_SRC := $(wildcard kernels/*.c kernels/*/*.c harness/*/*.c)
LIB_SRC := $(filter-out harness/worker/%,$(LIB_SRC))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
LIB     := $(B)/libggauge.a
TESTS   := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c))
FUZZ    := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
TESTS   += $(FUZZ:%=$(B)/tests/replay_%)
TEST_LIB := $(wildcard tests/tiny/*.c)
C_FILES := $(LIB_SRC) $(wildcard kernels/*.h kernels/*/*.h harness/*/*.h tests/*/*.c tests/*/*.h)
# Compiled against another engine's headers (make worker), so not by what takes all files.
WORKER_SRC := $(wildcard harness/worker/*.c)
C_FILES := $(filter-out harness/worker/% tests/fake_llama/%,$(C_FILES))

# Headers hold hand-made tables; the formatter keeps to the code.
FORMATTED := $(filter %.c,$(C_FILES)) $(WORKER_SRC) $(wildcard tests/fake_llama/*.c)

# What the program is built from goes into every result row.
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DIRTY   := $(shell test -z "$$(git status --porcelain -- Makefile kernels harness 2>/dev/null)" && echo 0 || echo 1)

.PHONY: all
all: ## all: build the program at build/ggauge
all: $(O)/ggauge

$(O)/ggauge: $(B)/ggauge
	$(Q)cp -f $< $@
$(B)/ggauge: $(LIB)
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $(B)/harness/cli/main.o $(LIB) $(LDFLAGS) $(LDLIBS)
$(LIB): $(LIB_OBJ)
	@echo "  AR    $@"
	$(Q)rm -f $@ && ar rcs $@ $(LIB_OBJ)
$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS) $(ISA.$(word 2,$(subst /, ,$<))) $(CFLAGS.$<) -MMD -MP -c -o $@ $<
$(B)/tests/%: $(B)/tests/unit/%.o $(TEST_LIB:%.c=$(B)/%.o) $(LIB)
	@echo "  LD    $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDFLAGS) -lcmocka $(LDLIBS)

include kernels/cuda/cuda.mk

# The commit changes without any source changing: provenance.o follows a stamp of what it says.
CFLAGS.harness/result/provenance.c := -DBUILD_COMMIT='"$(COMMIT)"' -DBUILD_DIRTY=$(DIRTY) \
    -DBUILD_FLAGS='"$(OPT.$(CONFIG)) -ffp-contract=off"'
$(B)/harness/result/provenance.o: $(B)/commit.stamp
$(B)/commit.stamp: FORCE
	@mkdir -p $(@D)
	@echo '$(COMMIT) $(DIRTY)' | cmp -s - $@ || echo '$(COMMIT) $(DIRTY)' > $@
# The same for topology.o and whether there is hwloc.
CFLAGS.harness/exec/topology.c = $(if $(HWLOC),,-DWITHOUT_HWLOC)
$(B)/harness/exec/topology.o: $(B)/hwloc.stamp
$(B)/hwloc.stamp: FORCE
	@mkdir -p $(@D)
	@h='$(HWLOC)'; echo "$$h" | cmp -s - $@ || echo "$$h" > $@
.PHONY: FORCE
.SECONDARY:
FORCE:

# With "make setup test" nothing is compiled before the packages are there.
ifneq ($(filter setup setup-dev,$(MAKECMDGOALS)),)
$(LIB_OBJ) $(TESTS) $(B)/hwloc.stamp: | $(filter setup setup-dev,$(MAKECMDGOALS))
endif
.PHONY: setup setup-dev
setup: ## setup: install the packages that building, testing and drawing need
	$(Q).ci/setup.sh
setup-dev: ## setup-dev: also what make check and make fuzz need
	$(Q).ci/setup.sh dev

.PHONY: bench compare plots history golden
golden: ## golden: measure results/golden.csv again (needs SHARED=../shared: the models and the text)
golden: $(O)/ggauge
	$(Q).ci/golden.py $(O)/ggauge $(SHARED)/models $(SHARED)/datasets/wiki.test.raw
bench: ## bench: verdict, perplexity and speed of the default models (or MODELS="..."), charts, summary
bench: $(O)/ggauge
	$(Q)GGAUGE=$(O)/ggauge .ci/bench.sh
compare: ## compare: do two arms agree? M=file.gguf [A=ref] [B=best] [T=text] [ARGS="--chunks 50 ..."]
compare: $(O)/ggauge
	$(Q)test -n "$(M)" || { echo "compare: of which model? make compare M=file.gguf [A=ref] [B=best]" >&2; exit 2; }
	$(Q)mkdir -p results/latest; text="$(T)"; $(O)/ggauge compare -m "$(M)" -f "$${text:-$$(.ci/text.sh compare)}" --a "$(or $(A),ref)" \
	    --b "$(ARM_B)" --results results/runs --out "results/latest/compare-$(basename $(notdir $(M)))" $(ARGS)
plots: ## plots: draw the charts of the result history, and those of results/pr529
plots: history
	$(Q)plots/render.py --out results/latest --last 8
	$(Q)plots/import_pr529.py && plots/render.py --csv results/pr529/*.csv --out results/pr529
history: ## history: rebuild results/history.sqlite from the CSV files of results/runs
history: $(O)/ggauge
	$(Q)$(O)/ggauge history

# Other engines as arms: a program for each build of one, linked to its libraries.
ENGINE_BUILD ?= build
.PHONY: worker
worker: ## worker: ENGINE=/path/to/llama.cpp [ENGINE_BUILD=build]: the arm lib:build/workers/NAME-COMMIT
worker: $(LIB)
	$(Q)test -n "$(ENGINE)" || { echo "worker: for which engine? make worker ENGINE=/path/to/llama.cpp" >&2; exit 2; }
	$(Q)CC="$(CC)" CFLAGS="$(CFLAGS)" LDLIBS="$(LDLIBS)" LDFLAGS="$(LDFLAGS)" harness/worker/libllama_build.sh \
	    "$(ENGINE)" "$(ENGINE_BUILD)" "$(WORKER_SRC)" $(LIB) $(O)/workers

# For the tests: an engine of our own that looks like another, in two spellings.
FAKES := $(B)/fake_llama/workers/new-1/ggauge-libllama $(B)/fake_llama/workers/old-2/ggauge-libllama
FAKE.new := 1
FAKE.old := 2 -DFAKE_OLD
$(B)/fake_llama/%/libllama.a: tests/fake_llama/fake_llama.c $(wildcard tests/fake_llama/include/*.h) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(wordlist 2,9,$(FAKE.$*)) -Itests/fake_llama/include -c -o $(@D)/fake_llama.o $<
	$(Q)rm -f $@ && ar rcs $@ $(@D)/fake_llama.o
$(FAKES): $(B)/fake_llama/workers/%/ggauge-libllama: $(WORKER_SRC) harness/worker/libllama_build.sh \
    $(B)/fake_llama/new/libllama.a $(B)/fake_llama/old/libllama.a
	@echo "  FAKE  $@"
	$(Q)name=$(firstword $(subst -, ,$*)); CC="$(CC)" CXX="$(CC)" CFLAGS="$(CFLAGS)" LDFLAGS="$(LDFLAGS)" LDLIBS="$(LDLIBS)" \
	    ENGINE_NAME=$$name ENGINE_COMMIT=$(lastword $(subst -, ,$*)) ENGINE_LIBS=$(abspath $(LIB)) \
	    ENGINE_CFLAGS="$$(test $$name = old && echo -DFAKE_OLD)" harness/worker/libllama_build.sh tests/fake_llama \
	    $(abspath $(B)/fake_llama)/$$name "$(WORKER_SRC)" $(LIB) $(B)/fake_llama/workers >/dev/null

.PHONY: test asan ubsan tsan
test: ## test: build and run every test; ends with "N passed, N failed"
test: $(O)/ggauge $(TESTS) $(FAKES)
	$(Q)GGAUGE=$(abspath $(O)/ggauge) TEST_BIN=$(abspath $(B)/tests) tests/run.sh
asan: ## asan: the tests under AddressSanitizer (with leak detection)
ubsan: ## ubsan: the tests under UndefinedBehaviorSanitizer
tsan: ## tsan: the tests under ThreadSanitizer
asan ubsan tsan:
	$(Q)QUICK=1 $(MAKE) --no-print-directory CONFIG=$@ O=$(O)/san-$@ test

.PHONY: faults aa limits
aa: ## aa: N=1000 comparisons of healthy arms, none of which may alarm; writes results/aa.csv (SHARED=../shared)
aa: $(O)/ggauge
	$(Q).ci/aa.py $(O)/ggauge $(SHARED)/datasets/wiki.test.raw $(or $(filter-out 50000,$(N)),1000) \
	    $(wildcard $(patsubst %,$(SHARED)/models/tiny-%.gguf,qwen3-q8_0 qwen3-iq4_kt qwen3-iq2_kt qwen3-f16 \
	    qwen3-q4_0 qwen3-iq3_kt llama-f16 llama-iq4_kt))
# The models of the two folders: those that this build does not run are left out with a word.
LIMIT_MODELS = $(subst $(empty) $(empty),$(comma),$(wildcard $(SHARED)/models/*.gguf datasets/models/*.gguf))
comma := ,
limits: ## limits: measure results/limits.csv again, the error of every cell, and the limits from it
limits: $(O)/ggauge
	$(Q)$(O)/ggauge limits --models "$(LIMIT_MODELS)" -f $(SHARED)/datasets/wiki.test.raw -o $(B)/limits.csv
	$(Q).ci/check_limits.py --merge $(B)/limits.csv
faults: ## faults: build/faults/ggauge, a build whose arms can have seeded faults (ggauge types --faults)
	$(Q)$(MAKE) --no-print-directory CONFIG=$@ $(O)/$@/ggauge $(O)/$@/tests/test_fault

# What libFuzzer has found stays in the corpus, and `make test` replays it.
N ?= 50000
.PHONY: fuzz fuzz-run
fuzz: ## fuzz: N=50000 inputs through every fuzz target under ASan and UBSan (needs clang)
	$(Q)$(MAKE) --no-print-directory CONFIG=fuzz CC=clang O=$(O)/fuzz fuzz-run
fuzz-run: $(FUZZ:%=$(B)/tests/fuzz_%)
	$(Q)for t in $(FUZZ); do mkdir -p $(B)/found_$$t; log=$(abspath $(B))/fuzz_$$t.log; \
	    $(abspath $(B))/tests/fuzz_$$t -runs=$(N) -seed=1 -max_len=16384 -timeout=10 -rss_limit_mb=4096 \
	    -close_fd_mask=1 -print_final_stats=1 -artifact_prefix=$(abspath $(B))/crash_$${t}_ \
	    $(abspath $(B))/found_$$t $(abspath tests/fuzz)/corpus_$$t >$$log 2>&1 || \
	    { tail -n 40 $$log; echo "fuzz_$$t: FAILED, see $$log"; exit 1; }; \
	    echo "fuzz_$$t: $$(sed -n 's/.*executed_units: *//p' $$log) inputs, no finding"; done
$(B)/tests/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(LIB)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)
$(B)/tests/replay_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/replay.o $(LIB)
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDFLAGS) $(LDLIBS)

.PHONY: check format lint coverage
check: ## check: format, layers, cells, coverage table, headers that compile alone, warnings as errors
check: lint
	$(Q)clang-format --style=file:.ci/clang-format --dry-run -Werror $(filter-out %_table.c,$(FORMATTED))
	$(Q).ci/check_layers.py
	$(Q).ci/check_lines.py
	$(Q).ci/check_cells.py $(LIB)
	$(Q).ci/check_limits.py
	$(Q).ci/coverage.sh $(O)/ggauge check
lint: $(O)/ggauge
	$(Q)for h in $(filter kernels/%.h harness/%.h,$(C_FILES)); do case $$h in *avx2*) i="$(ISA.avx2)";; \
	    *avx512*) i="$(ISA.avx512)";; *amx*) i="$(ISA.amx)";; *) i=;; esac; \
	    printf '#include "%s"\nint one;\n' $$h | $(CC) $(CFLAGS) $$i -I. -Werror -x c -fsyntax-only - || exit 1; done
	$(Q)for c in $(filter %.c,$(C_FILES)); do case $$c in *avx2/*) i="$(ISA.avx2)";; \
	    *avx512/*) i="$(ISA.avx512)";; *amx*/*) i="$(ISA.amx)";; *) i=;; esac; \
	    clang $(CFLAGS) $$i $(CFLAGS.$$c) -Werror -fsyntax-only $$c || exit 1; done
format: ## format: apply clang-format to all C files
	$(Q)clang-format --style=file:.ci/clang-format -i $(filter-out %_table.c,$(FORMATTED))
coverage: ## coverage: write the coverage table of the README
coverage: $(O)/ggauge
	$(Q).ci/coverage.sh $(O)/ggauge

-include $(LIB_OBJ:.o=.d) $(EMU_OBJ:.o=.d) $(CUDA_OBJ:.o=.d) $(TEST_LIB:%.c=$(B)/%.d) $(wildcard $(B)/tests/fuzz/*.d) $(patsubst $(B)/tests/%,$(B)/tests/unit/%.d,$(TESTS))

.PHONY: clean help
clean: ## clean: remove everything built
	$(Q)rm -rf $(O)
help: ## help: this list
	@sed -n 's/^[a-z-]*: ## //p' Makefile kernels/cuda/cuda.mk | awk -F': ' '{ printf "  make %-12s %s\n", $$1, $$2 }'
