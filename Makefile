# `make help` lists the targets. Each of them makes .venv by itself when it is missing or out of date.

PYTHON      ?= python3      # the interpreter that makes .venv: 3.11, 3.12 or 3.13
VENV        ?= .venv
TORCH_INDEX ?=              # another place for torch, e.g. https://download.pytorch.org/whl/cpu (no CUDA libraries)
DEMO_STEPS  ?=              # training steps of `make demo`, when not the ones in the config

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PY        := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
TORCH     := $(shell grep -E '^torch==' constraints.txt)

.PHONY: help setup demo test test-fast lint format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

setup: $(INSTALLED) ## make .venv and install what is in constraints.txt (several minutes, once)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
	  "Python 3.11, 3.12 or 3.13 is needed, and $(strip $(PYTHON)) is " + sys.version.split()[0] + \
	  ": make ... PYTHON=python3.12 names another one.")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made: on Debian and Ubuntu, apt install python3-venv."; exit 1; }
	@echo "Installing into $(VENV); the first time this downloads PyTorch and takes several minutes."
	$(PY) -m pip install --disable-pip-version-check $(if $(strip $(TORCH_INDEX)),--extra-index-url $(strip $(TORCH_INDEX))) "$(TORCH)"
	$(PY) -m pip install --disable-pip-version-check -e ".[eval,dev]" -c constraints.txt
	@$(PY) -m pip install --disable-pip-version-check --quiet -e ".[pesq]" -c constraints.txt 2>/dev/null || \
	  echo "PESQ was left out, it needs a C compiler: reports will say 'not computed' in its column."
	@touch $@

test: $(INSTALLED) ## the whole test suite
	$(PY) -m pytest

test-fast: $(INSTALLED) ## the tests that take seconds, under two minutes together
	$(PY) -m pytest -m "not slow"

lint: $(INSTALLED) ## ruff (lint and format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(INSTALLED) ## let ruff rewrite what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove .venv, caches and what the demo made (runs/ of your own stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info build runs/demo runs/demo-page
