# `make demo` and `make test` need Python 3.11 or later and make, nothing else: everything is
# installed into .venv, from whatever index pip is configured for.

CHECK_VERSION := import sys; sys.exit(sys.version_info < (3, 11))
# The first that is new enough; being on the path is not enough to tell (think of pyenv).
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	if $$p -c '$(CHECK_VERSION)' 2>/dev/null; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Of `make soak`; `make test` has run the seeds below 2000.
SEEDS := 20000
FIRST := 10000

PEERS := spark dask ray arrow

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-seeds lint unit soak bench peers protos config-docs clean

help:
	@echo "make demo    run the main job on real input and print its report"
	@echo "make test    every check: lint, types, layers, all tests"
	@echo "make lint    ruff, mypy and whether generated files are current"
	@echo "make unit    the unit tests alone"
	@echo "make soak    SEEDS=20000 simulated runs with faults, FIRST=10000 the first of them"
	@echo "make bench   1 GB through two daemons, with CPU seconds per stage"
	@echo "make peers   install what cosco-bench peers compares with, 2 GB; make -k peers: what it can"
	@echo "make protos  generate cosco/protocol/pb from protos/"
	@echo "make config-docs  generate docs/configuration.md from cosco/config.py"

$(STAMP): pyproject.toml
	@"$(or $(PYTHON),false)" -c '$(CHECK_VERSION)' 2>/dev/null || { echo \
		"cosco needs Python 3.11 or later and found none$(PYTHON:%= in %): install it," \
		"or name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo \
		"$(PYTHON) cannot make virtual environments: install its venv module" \
		"(on Debian and Ubuntu the package python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/cosco demo

# Most tests wait more than they work: simulated seeds, which would take all cores there are, get
# what those leave. Types are checked on one core.
test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 3 lint test-all test-seeds

test-all: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --ignore tests/sim

test-seeds: $(STAMP)
	nice -n 19 $(BIN)/python -m pytest tests/sim

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python tools/gen_protos.py --check
	$(BIN)/python tools/gen_config_docs.py --check
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit

soak: $(STAMP)
	@$(BIN)/python -m tests.sim --first $(FIRST) --count $(SEEDS)

bench: $(STAMP)
	@$(BIN)/cosco-bench throughput

# Environments of their own: their versions of pyarrow and pandas are not ours.
peers: $(PEERS:%=.peers/%/.installed)

.peers/%/.installed: benchmarks/peers/requirements/%.txt | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

protos: $(STAMP)
	$(BIN)/python tools/gen_protos.py

config-docs: $(STAMP)
	$(BIN)/python tools/gen_config_docs.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
