# Raftyard: every command a person needs. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := consensus statemachines kvstore chaos
PYTEST_ARGS ?=
# The tests start hundreds of processes; without files of bytecode each compiles every module again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Raftyard needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=... to another."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian, apt-get install python3-venv"; exit 1; }

$(VENV)/.product: $(BIN)/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.product
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

install: $(VENV)/.product ## Make the virtual environment and install Raftyard into it

run: $(VENV)/.product ## Start a three-node kvstore cluster on loopback; Ctrl-C stops it
	@$(BIN)/python -m kvstore.cli.cluster

setup: $(VENV)/.dev ## Install what the tests need, real etcd and Go modules included
	@tests/setup.sh

test: setup ## Run all tests (at most 10 minutes)
	$(BIN)/python -m pytest -n 3 --dist loadgroup $(PYTEST_ARGS)

check: $(VENV)/.dev ## Format, lint, types and import contracts; never writes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## Rewrite what can be rewritten: format and lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(VENV)/.dev ## Regenerate the protobuf modules from the .proto files
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. $(wildcard kvstore/pb/*.proto) consensus/transport/wire.proto

bench: setup ## Measure kvstore beside a real etcd in one run
	$(BIN)/python -m benchmarks.sidebyside

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .setup .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info build

.PHONY: help install run setup test check fix proto bench clean
