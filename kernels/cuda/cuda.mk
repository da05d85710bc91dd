# SPDX-License-Identifier: MIT
# The cuda column, a part of the Makefile: the plug-in, and its emulation for the tests.
#
# The kernels of the cuda column. With nvcc they become the plug-in; without, the same files are built
# for the host, with an emulation of the device (tests/cuda_emu), for the tests.
CUDA_SRC := $(wildcard kernels/cuda/*.cu)
EMU      := $(B)/libggauge-cuda-emu.so
CUDA_C   := $(addprefix kernels/,base/err.c base/fault.c qtype.c)
EMU_SRC  := $(CUDA_SRC) $(wildcard tests/cuda_emu/*.cc) $(CUDA_C)
# A program with seeded faults takes a plug-in with them, and no other does.
FAULTS   := $(filter -DGGAUGE_FAULTS,$(OPT.$(CONFIG)))
PLUGIN   := $(if $(FAULTS),$(B),$(O))/libggauge-cuda.so
EMU_OBJ  := $(EMU_SRC:%=$(B)/emu/%.o)
NVCC     := $(or $(NVCC),$(firstword $(wildcard $(shell command -v nvcc 2>/dev/null) /usr/local/cuda/bin/nvcc)))
CUDA_ARCHS ?= 80 86 89 90a 100 ptx
CUDA_OBJ := $(CUDA_SRC:%=$(B)/cuda/%.o) $(CUDA_C:%=$(B)/cuda/%.o)
NVCCFLAGS = -std=c++20 -O3 -fmad=false -Xfatbin=-compress-all $(if $(FAULTS),,-lineinfo) -Ikernels -Xptxas -v,--warn-on-spills \
    -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra $(FAULTS) -DGGAUGE_CUDA_TARGETS='"$(CUDA_ARCHS)"' \
    $(foreach a,$(filter-out ptx,$(CUDA_ARCHS)),-gencode arch=compute_$a,code=sm_$a) \
    $(if $(filter ptx,$(CUDA_ARCHS)),-gencode arch=compute_80$(comma)code=compute_80)

$(EMU): $(EMU_OBJ)
	@echo "  LD    $@"
	$(Q)$(CXX) -shared -Wl,-z,defs -o $@ $^
$(B)/emu/%.o: %
	@mkdir -p $(@D)
	@echo "  EMU   $<"
	$(Q)$(if $(filter %.c,$<),$(CC) -std=c11 -D_GNU_SOURCE,$(CXX) -std=c++20 -x c++) -O3 -fPIC -fvisibility=hidden \
	    -fno-strict-aliasing -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas $(FAULTS) -DGGAUGE_CUDA_EMU -Ikernels \
	    -Itests/cuda_emu -MMD -MP -c -o $@ $<
# A management library without cards, and one that is older than counters of energy.
FAKE_NVML := $(B)/libfake-nvml.so $(B)/libfake-nvml-old.so
$(FAKE_NVML): tests/fake_nvml/fake_nvml.c tests/fake_nvml/fake_nvml.h
	@mkdir -p $(@D)
	@echo "  FAKE  $@"
	$(Q)$(CC) $(CFLAGS) $(if $(findstring -old,$@),-DFAKE_OLD) -fPIC -shared -o $@ $<
$(TESTS): | $(EMU) $(FAKE_NVML)

.PHONY: cuda cuda-report
ifeq ($(NVCC),)
cuda cuda-report:
	@echo "$@: no nvcc in PATH or in /usr/local/cuda, so the cuda column stays empty"
else
cuda: ## cuda: the plug-in of the cuda column (needs nvcc); CUDA_ARCHS=90a builds for one kind of card alone
cuda: $(PLUGIN)
cuda-report: ## cuda-report: results/cuda_ptxas.csv, registers and spills of every kernel
cuda-report: cuda
	$(Q).ci/ptxas.py $(CUDA_SRC:%=$(B)/cuda/%.ptxas)
endif
.PHONY: cuda-faults
cuda-faults: ## cuda-faults: build/faults/ggauge and its plug-in, whose kernels can have seeded faults (needs nvcc)
	$(Q)$(MAKE) --no-print-directory CONFIG=faults $(O)/faults/ggauge cuda
.PHONY: cuda-bundle cuda-check cuda-sanitize cuda-sweep
cuda-bundle: ## cuda-bundle: build/cuda-bundle, all that a bare machine with a card needs; there: ./cuda_check.sh . OUT
cuda-bundle: $(O)/ggauge cuda cuda-faults $(filter %/test_cuda %/test_fuse %/test_ops %/test_op_attn,$(TESTS))
	$(Q).ci/cuda_bundle.sh $(O)/cuda-bundle $(O) $(B)/tests $(SHARED)
cuda-check: ## cuda-check: the cuda column on this machine's card, in 8 minutes; results/runs/cuda has what was found
.PHONY: cuda-results
cuda-results: ## cuda-results: results/cuda, rows, page and charts, from what make cuda-check left in results/runs/cuda
	$(Q).ci/cuda_results.py
cuda-sanitize: ## cuda-sanitize: every cell under compute-sanitizer, all tools; takes long
cuda-sweep: ## cuda-sweep: speeds of a synthetic 8B model to a depth of 32k
CUDA_STEPS.cuda-sanitize := sanitize_all
CUDA_STEPS.cuda-sweep := facts deep
cuda-check cuda-sanitize cuda-sweep: cuda-bundle
	$(Q)CHECK_SECONDS=$(if $(CUDA_STEPS.$@),0,470) .ci/cuda_check.sh $(O)/cuda-bundle results/runs/cuda $(CUDA_STEPS.$@)

$(PLUGIN): $(CUDA_OBJ)
	@echo "  LD    $@"
	$(Q)$(NVCC) -shared $(filter -gencode arch=%,$(NVCCFLAGS)) -o $@ $(CUDA_OBJ)
$(B)/cuda/%.cu.o: %.cu $(B)/cuda/archs.stamp
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $< 2>$(@:.o=.ptxas) || { cat $(@:.o=.ptxas); rm -f $@; exit 1; }
	$(Q)grep -E 'warning|error' $(@:.o=.ptxas) || true
$(B)/cuda/%.c.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(B)/cuda/archs.stamp: FORCE
	@mkdir -p $(@D)
	@echo '$(CUDA_ARCHS)' | cmp -s - $@ || echo '$(CUDA_ARCHS)' > $@
