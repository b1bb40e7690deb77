# The CUDA kernels' proofs; included by the Makefile. PYTHON_KERNELS is an interpreter with the
# package's test extra, pybind11, cmake and ninja (or make).
#
#   make emulated    the kernels on the CPU as a Python module, and their tests
#   make sanitize    the tests' calls again under AddressSanitizer, UBSan and ThreadSanitizer
#   make cuda-check  nvcc for every target: registers, spills (none allowed)

.PHONY: emulated sanitize cuda-check
PYTHON_KERNELS ?= $(BIN)/python
BUILD := build

# One small step each, so that any edit of a header rebuilds what needs it.
emulated: build-emulated  ## the CUDA kernels on the CPU, and their tests
	$(PYTHON_KERNELS) -m pytest tests/emulated -q

.PHONY: build-emulated
build-emulated:
	@cmake -S . -B $(BUILD)/emulated -DZF_EMULATED=ON -DPython_EXECUTABLE=$$(command -v $(PYTHON_KERNELS)) >/dev/null
	@cmake --build $(BUILD)/emulated
