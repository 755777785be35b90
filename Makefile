# `make help` lists the targets. Each of them makes .venv by itself when it is missing or out of date.

# The interpreter that makes .venv: 3.11, 3.12 or 3.13.
PYTHON ?= python3
VENV ?= .venv
# Another place for torch, for example https://download.pytorch.org/whl/cpu (without CUDA libraries).
TORCH_INDEX ?=
# How `make demo` continues the training of the language model that ships.
DEMO_TRAINING ?= trainer.max_steps=150 trainer.lr=1e-4 trainer.muon_lr=5e-4 trainer.warmup_steps=10 \
	trainer.level_weights=[1,0.5,0.25] trainer.valid_every=50

# Test files go to as many processes as there are cores, at most eight: each of them imports torch.
SPREAD ?= -n $(shell cores=$$(nproc); echo $$((cores < 8 ? cores : 8))) --dist loadfile

# More for the comparison, as COMPARE="file=mine.yaml".
COMPARE ?=

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PY        := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
TORCH     := $(shell grep -E '^torch==' constraints.txt)

PIP       := $(PY) -m pip install --disable-pip-version-check
# Folders of wheels that pip was told of: a build of torch may come from there, by version; otherwise all goes by hash.
OTHER_WHEELS = $(PIP_FIND_LINKS)$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)

# All settings of `accelerate launch` are named, so that it needs no configuration file and prints no advice; it takes a
# GPU where there is one.
LAUNCH    := $(VENV)/bin/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: help setup demo compare standard-table package test test-fast lint format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

setup: $(INSTALLED) ## make .venv and install what is locked in requirements/ (several minutes, once)

$(INSTALLED): pyproject.toml constraints.txt requirements/lock.txt requirements/torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
	  "Python 3.11, 3.12 or 3.13 is needed, and $(strip $(PYTHON)) is " + sys.version.split()[0] + \
	  ": make ... PYTHON=python3.12 names another one.")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
	  { echo "No virtual environment could be made: on Debian and Ubuntu, apt install python3-venv."; exit 1; }
	@echo "Installing into $(VENV); the first time this downloads PyTorch and takes several minutes."
	@if [ -n "$(strip $(TORCH_INDEX))" ]; then $(PIP) --index-url "$(strip $(TORCH_INDEX))" "$(TORCH)"; \
	elif [ -n "$(OTHER_WHEELS)" ]; then $(PIP) -c constraints.txt "$(TORCH)"; \
	else $(PIP) --require-hashes -r requirements/torch.txt; fi
	$(PIP) --require-hashes --no-deps -r requirements/lock.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@$(PIP) --quiet -c constraints.txt pesq 2>/dev/null || \
	  echo "PESQ was left out, it needs a C compiler: reports will say 'not computed' in its column."
	@touch $@

# The demo, step by step. A step's stamp is older than its inputs only if they changed: then it runs again, and the ones
# after it. A training that was interrupted continues; one whose inputs changed starts over.
STEPS   := runs/demo/steps
SOURCES := $(shell find codec lm tasks training configs -name '*.py' -o -name '*.yaml')
MODELS  := $(wildcard checkpoints/codec-mini/* checkpoints/lm-tts-mini/*)

demo: $(STEPS)/speak ## encode, train, speak, score, and build the page to listen to
	@echo "5/5  The page"
	$(PY) scripts/demo_page.py 'runs=[runs/demo/eval-tts]' out=runs/demo-page

$(STEPS)/corpus: data/mini/metadata.jsonl $(wildcard scripts/make_corpus.py scripts/mini_corpus/*.py) | $(INSTALLED)
	@echo "1/5  The corpus: making what does not ship (sounds and music)"
	$(PY) scripts/make_corpus.py --jobs $(shell nproc)
	@mkdir -p $(@D) && touch $@

$(STEPS)/encode: $(STEPS)/corpus $(shell find codec -name '*.py') $(MODELS)
	@echo "2/5  Audio to tokens"
	$(PY) codec/encode.py data=mini tokenizer=almtokenizer
	@touch $@

$(STEPS)/inputs: $(STEPS)/encode $(SOURCES) $(MODELS)
	@rm -rf runs/demo/checkpoints runs/demo/final runs/demo/log.jsonl
	@touch $@

$(STEPS)/train: $(STEPS)/inputs
	@echo "3/5  The language model: continuing from the weights that ship"
	$(LAUNCH) lm/train.py task=tts name=demo init=checkpoints/lm-tts-mini $(DEMO_TRAINING)
	@touch $@

$(STEPS)/speak: $(STEPS)/train $(shell find eval -name '*.py') $(wildcard checkpoints/ctc-mini/*)
	@echo "4/5  Speaking unseen sentences, and scoring them"
	$(PY) eval/tts.py model=runs/demo/final out=runs/demo/eval-tts
	@touch $@

compare: $(STEPS)/corpus ## which tokenizer makes the better language model? Under an hour; docs/comparison.md
	$(PY) eval/compare.py jobs=$(shell nproc) $(COMPARE)

standard-table: | $(INSTALLED) ## what tokenizers keep of recordings, by every judge that is here; docs/comparison.md
	$(PY) eval/compare.py comparison=standard jobs=$(shell nproc) $(COMPARE)

package: $(INSTALLED) ## build the wheel, install it into an environment of its own, and use it from there
	rm -rf runs/package && mkdir -p runs/package/elsewhere
	$(PY) -m pip wheel . --no-deps --no-build-isolation --quiet -w runs/package
	$(PYTHON) -m venv runs/package/venv
	runs/package/venv/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
	  $(if $(strip $(TORCH_INDEX)),--extra-index-url "$(strip $(TORCH_INDEX))") runs/package/*.whl
	cd runs/package/elsewhere && PATH="$$PWD/../venv/bin:$$PATH" && \
	  almkit speak "peter carried the purple ladder" -o a.wav && almkit transcribe a.wav && \
	  almkit caption a.wav && almkit reconstruct a.wav -o b.wav
	@ls -l runs/package/*.whl

test: $(INSTALLED) ## the whole test suite
	$(PY) -m pytest $(SPREAD)

test-fast: $(INSTALLED) ## the tests that take less than half a second each, a minute and a half together
	$(PY) -m pytest $(SPREAD) -m "not slow"

lint: $(INSTALLED) ## ruff (lint and format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(INSTALLED) ## let ruff rewrite what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove .venv, caches and what the demo made (runs/ of your own stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info build runs/demo runs/demo-page
