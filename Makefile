# make demo    train a small convnet on handwritten digits and look inside it
# make test    run the tests (PEERS=1: also install PyTorch and Captum and compare with them)
# make lint    ruff and mypy
# make fuzz    mutate model files until something breaks (CASES=100000)
# make bench   race PyTorch and Captum on this machine
# make docs    the documentation as a site, build/docs/index.html; runs its notebook
# make clean   remove what these commands made
#
# Asks for Python >= 3.11 and make, nothing else. PYTHON=... chooses an interpreter.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz bench docs clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
CANDIDATES := $(PYTHON) python3 python python3.13 python3.12 python3.11 python3.14
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

help:  ## this list
	@sed -n 's/^# //p; /^$$/q' Makefile

$(BIN)/python:
	@for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c '$(SUITABLE)' >/dev/null 2>&1; then \
	        echo "making $(VENV) with $$("$$candidate" --version) ($$candidate)"; \
	        "$$candidate" -m venv --clear $(VENV) && exit 0; \
	        rm -rf $(VENV); \
	    fi; \
	done; \
	echo "zfcore needs Python 3.11 or newer with its venv module; none was found among: $(CANDIDATES)" >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python" >&2; \
	exit 1

# One stamp for each extra: written only after its installation succeeded.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	@echo "installing zfcore[$*] into $(VENV) ..."
	@$(PIP) --editable ".[$*]"
	@touch $@

$(VENV)/installed-peers: | $(BIN)/python
	@echo "installing PyTorch and Captum for comparison ..."
	@$(PIP) "torch>=2.2" "captum>=0.7"
	@touch $@

demo: $(VENV)/installed-demo  ## train on digits and write the atlas into zfcore-demo/
	@$(BIN)/zfcore demo --out zfcore-demo --force

CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
test: $(VENV)/installed-test $(if $(CHROMIUM),$(VENV)/installed-browser) $(if $(PEERS),$(VENV)/installed-peers)  ## the tests
	@$(BIN)/python -m pytest

lint: $(VENV)/installed-test  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

CASES := 100000
fuzz: $(VENV)/installed-test  ## readers of model files against mutated ones
	@ZFCORE_FUZZ_CASES=$(CASES) $(BIN)/python -m pytest tests -k fuzz

bench: $(VENV)/installed-bench  ## side by side with PyTorch and Captum
	@$(BIN)/python -m benchmarks

docs: $(VENV)/installed-docs  ## the documentation as a site
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

clean:  ## remove the environment and the caches
	rm -rf $(VENV) zfcore-demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks

-include csrc/kernels.mk
