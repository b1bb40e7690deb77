# The CUDA kernels' proofs; included by the Makefile. PYTHON_KERNELS=... names an interpreter that has the
# extras test and kernels already; without it they are installed into the Makefile's environment.
#
#   make emulated    the kernels on the CPU as a Python module, and their tests
#   make sanitize    the tests' calls again under AddressSanitizer, UBSan and ThreadSanitizer
#   make cuda-check  nvcc for sm_80, 90a, 100 and 120 (CUDA_TARGETS): registers, spills (none allowed), machine code
#   make mutants     the kernels changed in one place at a time: the checks must notice
#   make cuda-package  the package with the kernels for sm_80 and sm_90a, loaded without a driver
#   make gpu         on a machine with a GPU: build for it, test, sanitize, measure (PART=build|tests|sanitize|bench,
#                    or bench-GROUP,GROUP: some of the benchmarks; docs/gpu.md)
#   make gpu-stand-in  the tests of `make gpu` on the emulated kernels and a stand-in for CuPy

.PHONY: emulated sanitize cuda-check
PYTHON_KERNELS ?= $(BIN)/python
ifeq ($(PYTHON_KERNELS),$(BIN)/python)
KERNEL_TOOLS := $(VENV)/installed-test $(VENV)/installed-kernels
endif
BUILD := build

# One small step each, so that any edit of a header rebuilds what needs it.
emulated: build-emulated  ## the CUDA kernels on the CPU, and their tests
	$(PYTHON_KERNELS) -m pytest tests/emulated -q
	ZFCORE_BACKEND=emulated $(PYTHON_KERNELS) -m pytest -q -k "not found and not noticed" $(ON_EMULATED)

# The package's own tests that also run on the emulated backend: against loops, PyTorch, autograd. Left
# out: those that break a Numba kernel and expect to notice (here the mutants do that).
ON_EMULATED := $(foreach name,convolution linear pooling normalization activation loss update crop layers network \
                 rules,$(wildcard tests/test_$(name).py))
.PHONY: build-emulated
build-emulated: $(KERNEL_TOOLS)
	@PATH="$(CURDIR)/$(BIN):$$PATH"; \
	cmake -S . -B $(BUILD)/emulated -DZF_EMULATED=ON -DPython_EXECUTABLE="$$(command -v $(PYTHON_KERNELS))" >/dev/null && \
	cmake --build $(BUILD)/emulated --parallel 2

# ---------------------------------------------------------------------------------------- sanitize
# The calls that the tests make, recorded once and run again by a program without Python. The runtime
# itself is never instrumented for ThreadSanitizer (its lists are not the kernels' memory).

KERNELS := $(wildcard csrc/*.cu)
HEADERS := $(wildcard csrc/*.h csrc/*.cuh csrc/emulation/*.h bindings/*.h)
HOST_FLAGS := -std=c++20 -O1 -g -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas
ADDRESS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
THREAD := -fsanitize=thread -DZF_THREAD_SANITIZER

$(BUILD)/calls.bin: build-emulated $(wildcard tests/emulated/*.py)
	@ZFCORE_RECORD=$@ $(PYTHON_KERNELS) -m pytest tests/emulated -q --ignore tests/emulated/test_negatives.py

# One rule for each program's objects: instrumented sources, and the runtime.
define objects
$(BUILD)/$(1)/%.o: csrc/%.cu $(HEADERS)
	@mkdir -p $$(@D) && $(CXX) -x c++ $(HOST_FLAGS) $(2) -c $$< -o $$@
$(BUILD)/$(1)/%.o: tests/emulated/%.cu $(HEADERS)
	@mkdir -p $$(@D) && $(CXX) -x c++ $(HOST_FLAGS) $(2) -c $$< -o $$@
$(BUILD)/$(1)/%.o: tests/emulated/%.cpp $(HEADERS)
	@mkdir -p $$(@D) && $(CXX) $(HOST_FLAGS) $(2) -c $$< -o $$@
$(BUILD)/$(1)/runtime.o: csrc/emulation/runtime.cpp $(HEADERS)
	@mkdir -p $$(@D) && $(CXX) $(HOST_FLAGS) $(filter-out -fsanitize=thread,$(2)) -c $$< -o $$@
$(BUILD)/$(1)/replay: $(addprefix $(BUILD)/$(1)/,$(notdir $(KERNELS:.cu=.o)) runtime.o replay.o)
	@$(CXX) $(2) $$^ -o $$@
$(BUILD)/$(1)/negatives $(BUILD)/$(1)/features: %: %.o $(BUILD)/$(1)/runtime.o
	@$(CXX) $(2) $$^ -o $$@
endef
$(eval $(call objects,plain,))
$(eval $(call objects,address,$(ADDRESS)))
$(eval $(call objects,thread,$(THREAD)))
.SECONDARY:

# Two replays, so that `make -j2 sanitize` runs them side by side.
.PHONY: sanitize-negatives sanitize-address sanitize-thread
sanitize: sanitize-negatives sanitize-address sanitize-thread  ## the kernels under the sanitizers
sanitize-negatives: build-emulated $(foreach kind,plain address thread,$(BUILD)/$(kind)/negatives $(BUILD)/$(kind)/features)
	$(PYTHON_KERNELS) -m pytest tests/emulated/test_negatives.py -q
sanitize-address sanitize-thread: sanitize-%: $(BUILD)/%/replay $(BUILD)/calls.bin
	$< $(BUILD)/calls.bin 1

# -------------------------------------------------------------------------------------- cuda-check

CUDA_TARGETS ?= 80,90a,100,120
cuda-check: $(KERNEL_TOOLS)  ## nvcc for every generation of devices: registers, no spills, machine code
	$(PYTHON_KERNELS) csrc/check_registers.py --targets $(CUDA_TARGETS)

# ----------------------------------------------------------------------------------------- mutants

.PHONY: mutants
mutants: $(BUILD)/calls.bin  ## change the kernels in one place at a time: the checks must notice
	$(PYTHON_KERNELS) tests/emulated/mutants.py

# ------------------------------------------------------------------------------------ cuda-package
# What `pip install .` makes where there is nvcc; it must load where there is no driver.

.PHONY: cuda-package
PACKAGE := $(BUILD)/package-check
cuda-package: $(KERNEL_TOOLS)  ## the package with CUDA kernels for sm_80 and sm_90a
	@rm -rf $(PACKAGE)
	ZFCORE_CUDA=1 ZFCORE_CUDA_TARGETS=80,90a $(PYTHON_KERNELS) -m pip --disable-pip-version-check install --quiet \
	    --no-deps --target $(PACKAGE) .
	cd $(PACKAGE) && PYTHONPATH=. $(if $(filter /%,$(PYTHON_KERNELS)),,$(CURDIR)/)$(PYTHON_KERNELS) -c \
	    "from zfcore import backends; assert backends.built() == 'sm_80, sm_90a', backends.built(); \
	     print('built for', backends.built() + '; cuda:', backends.why_not('cuda') or 'available')"

# --------------------------------------------------------------------------------------------- gpu
# Installs nothing and needs no network: PYTHON_GPU holds CuPy, PyTorch, pybind11, CMake, pytest already.

.PHONY: gpu gpu-stand-in
PYTHON_GPU ?= python3
PART ?= all
gpu:  ## build for the GPU at hand, then PART=tests, sanitize, bench or bench-GROUP,GROUP (or nothing: build)
	$(PYTHON_GPU) csrc/gpu.py --part $(PART)

gpu-stand-in: build-emulated  ## the tests of `make gpu` without a GPU
	ZFCORE_STAND_IN=1 PYTHONPATH=. $(PYTHON_KERNELS) -m pytest tests/gpu -q -m gpu
	ZFCORE_STAND_IN=1 PYTHONPATH=. $(PYTHON_KERNELS) tests/gpu/every_kernel.py
