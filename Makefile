# `make demo` and `make test` need nothing but Python 3.11 or later, git and make: they make their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint types bench docs lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^[^:]*Makefile://; s/:.*## /\t/' | expand -t 18

$(VENV)/made: requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(VENV)/made ## run the main job for real on a scratch host, with a commentary
	$(BIN)/python demo/demo.py

test: $(VENV)/made ## run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/made ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/made ## check types
	$(BIN)/mypy

bench: $(VENV)/made ## measure what it costs, as ratios to a bare interpreter
	$(BIN)/python -m compileall -q entrypoint
	$(BIN)/python bench/bench.py

docs: $(VENV)/made ## write the table of flags and the examples into the pages
	$(BIN)/python tools/flags_table.py
	$(BIN)/python -m tests.examples

lock: $(VENV)/made ## resolve the dependencies anew and lock them with hashes
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check pip-tools
	for file in requirements requirements-build requirements-dev; do \
	  $(VENV)/lock/bin/pip-compile --quiet --upgrade --strip-extras --generate-hashes --allow-unsafe --no-header \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $$file.txt $$file.in || exit 1; \
	done

clean: ## remove what the targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
