# make demo            the quickstart, headless; writes reports/quickstart.html
# make test            all but slow tests; `make lint` is in it
# make lab             JupyterLab with the panel, on the quickstart
# make lint            ruff and pyright
# make soak            the exhaustive tests, such as 2,000 spoiled traces
# make bench           the benchmarks, each with its targets
# make test-notebooks  the courseware, executed
# make test-browser    the panel in JupyterLab, all tests
# make gpu             GPU tests and benchmarks, by PYTHON's torch and pytest
# make clean           everything that was built; .venv stays

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
TESTS_READY := $(VENV)/.ready-tests
LAB_READY := $(VENV)/.ready-lab
LAB_FILES := $(shell git ls-files extensions/lab 2>/dev/null)
# torchvision's wheel wants the torch it was built with and, beside another, breaks transformers: so not among packages.
VISION := torchvision==0.28.0 timm==1.0.31 pillow==13.0.0
# Jupyter refuses to serve as root unless it is told so; in a container one often has no choice.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
BENCHMARKS := $(sort $(wildcard tests/benchmarks/*.py))

# pip tells one line a package. In a virtual environment of our own it is no news that we are root, that there is a newer
# pip, or that one of several indexes lacks a package; every other warning and every error is still said.
export PIP_ROOT_USER_ACTION := ignore
export PIP_DISABLE_PIP_VERSION_CHECK := 1
INSTALL := $(PY) -m pip install --progress-bar off -c constraints.txt -e
TOLD := 2> >(sed '/^WARNING: Location .* is ignored/d' >&2) \
    | sed -un -e 's/^Collecting \([^ ]*\).*/      \1/p' -e 's/^Installing collected packages.*/      installing/p'

.PHONY: help demo test lab lint soak bench test-notebooks test-browser gpu clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(READY)
	@$(PY) -m mlsys_studio.studio.demo

# The browser's tests go by themselves: what the others leave behind, threads and memory, would be in their way.
test: $(TESTS_READY) $(LAB_READY)
	@$(PY) -m pytest tests -m "not gpu and not slow" --ignore tests/browser
	@$(PY) -m pytest tests/browser -m "not slow"

lab: $(READY) $(LAB_READY)
	@$(VENV)/bin/jupyter lab $(AS_ROOT) notebooks/00_quickstart.ipynb

lint: $(TESTS_READY)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright

soak: $(TESTS_READY)
	@$(PY) -m pytest tests -m slow

bench: $(READY)
	@for file in $(BENCHMARKS); do echo "== $$file"; $(PY) $$file; done

test-notebooks: $(TESTS_READY)
	@$(PY) -m pytest tests/notebooks

test-browser: $(TESTS_READY) $(LAB_READY)
	@$(PY) -m pytest tests/browser

# Nothing is installed here, not even .venv: the link gives the repository root the name it is imported by.
gpu:
	@mkdir -p build/gpu && ln -sfn ../.. build/gpu/mlsys_studio
	@PYTHONPATH=build/gpu $(PYTHON) -m pytest tests -m gpu
	@PYTHONPATH=build/gpu $(PYTHON) tests/benchmarks/ledger_truth.py --device cuda

clean:
	@rm -rf build dist reports notebooks/reports *.egg-info .pytest_cache tests/.pytest_cache .ruff_cache
	@rm -rf extensions/lab/{lib,node_modules,.yarn,mlsys_studio_lab/labextension,*.tsbuildinfo}
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "mlsys-studio needs Python 3.11 or newer, and $(PYTHON) is not; type: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments; type: apt-get install python3-venv"; exit 1; }
	@echo "[1/3] virtual environment in $(VENV), from $$($(PYTHON) -V)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "[2/3] packages, pinned by constraints.txt (torch is by far the largest)"
	@$(INSTALL) '.[torch,notebook]' $(TOLD)
	@echo "[3/3] a link by which type checkers find the package"
	@mkdir -p $(VENV)/typing && ln -sfn ../.. $(VENV)/typing/mlsys_studio
	@touch $@

$(TESTS_READY): $(READY)
	@echo "packages for the tests"
	@$(INSTALL) '.[torch,notebook,test]' $(TOLD)
	@$(PY) -m pip install --progress-bar off --no-deps --upgrade --target $(VENV)/vision $(VISION) $(TOLD)
	@touch $@

# pip fetches the build's own Node and, from npm's registry, what the panel is compiled with. Where that cannot be had,
# all but the panel is whole: it stays away, and its tests say why they are skipped.
$(LAB_READY): $(READY) $(LAB_FILES)
	@echo "the panel for JupyterLab"
	@if $(PY) -m pip install --progress-bar off -c constraints.txt --no-deps ./extensions/lab $(TOLD); then touch $@; \
	    else echo "the panel could not be built (is npm's registry reachable?); going on without it"; fi
