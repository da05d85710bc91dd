# SPDX-License-Identifier: MIT
# ggauge - one non-recursive Makefile; `make help` lists the targets.
#
# Sources are found by folder; the flags of an instruction set belong to its folder alone, so that the
# dispatcher runs on any x86-64. CONFIG=release|asan|ubsan|tsan|debug each builds in its own folder.

CONFIG  ?= release
O       ?= build
B       := $(O)/$(CONFIG)
CC      ?= gcc
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual \
           -Wpointer-arith -Wvla -Wundef -Wwrite-strings
OPT.release := -O2
OPT.debug   := -O1 -g -DDEBUG
OPT.asan    := -O1 -g -fsanitize=address -fno-omit-frame-pointer
OPT.ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
OPT.tsan    := -O1 -g -fsanitize=thread
ISA.avx2    := -mavx2 -mfma -mf16c
ISA.avx512  := $(ISA.avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
ISA.amx     := $(ISA.avx512) -mamx-tile -mamx-int8 -mamx-bf16

CFLAGS  := -std=c11 -D_GNU_SOURCE $(OPT.$(CONFIG)) -ffp-contract=off $(WARN) -Ikernels -Iharness
LDLIBS  := -lpcre2-8 -lsqlite3 -ljansson -lxxhash -lhwloc -lm -lpthread

LIB_SRC := $(wildcard kernels/*.c kernels/*/*.c harness/*/*.c)
LIB_SRC := $(filter-out harness/worker/%,$(LIB_SRC))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
LIB     := $(B)/libggauge.a
TESTS   := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
TEST_LIB := $(wildcard tests/tiny/*.c)
C_FILES := $(LIB_SRC) $(wildcard kernels/*.h kernels/*/*.h harness/*/*.h tests/*/*.c tests/*/*.h)

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

# The commit changes without any source changing: provenance.o follows a stamp of what it says.
CFLAGS.harness/result/provenance.c := -DBUILD_COMMIT='"$(COMMIT)"' -DBUILD_DIRTY=$(DIRTY) \
    -DBUILD_FLAGS='"$(OPT.$(CONFIG)) -ffp-contract=off"'
$(B)/harness/result/provenance.o: $(B)/commit.stamp
$(B)/commit.stamp: FORCE
	@mkdir -p $(@D)
	@echo '$(COMMIT) $(DIRTY)' | cmp -s - $@ || echo '$(COMMIT) $(DIRTY)' > $@
.PHONY: FORCE
FORCE:

.PHONY: test asan ubsan tsan
test: ## test: build and run every test; ends with "N passed, N failed"
test: $(O)/ggauge $(TESTS)
	$(Q)GGAUGE=$(abspath $(O)/ggauge) TEST_BIN=$(abspath $(B)/tests) tests/run.sh
asan: ## asan: the tests under AddressSanitizer (with leak detection)
ubsan: ## ubsan: the tests under UndefinedBehaviorSanitizer
tsan: ## tsan: the tests under ThreadSanitizer
asan ubsan tsan:
	$(Q)$(MAKE) --no-print-directory CONFIG=$@ O=$(O)/san-$@ test

-include $(LIB_OBJ:.o=.d) $(patsubst $(B)/tests/%,$(B)/tests/unit/%.d,$(TESTS))

.PHONY: clean help
clean: ## clean: remove everything built
	$(Q)rm -rf $(O)
help: ## help: this list
	@sed -n 's/^[a-z-]*: ## //p' Makefile | awk -F': ' '{ printf "  make %-12s %s\n", $$1, $$2 }'
