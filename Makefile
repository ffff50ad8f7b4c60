# Everything runs in .venv, which is made once and again whenever pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HASH := $(shell cksum pyproject.toml | cut -d" " -f1)
DEMO := $(VENV)/.installed-demo-$(HASH)
DEV := $(VENV)/.installed-dev-$(HASH)

.PHONY: help venv demo check test test-slow format clean

help: ## Say what each target does.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO) ## Build the solar-cell sample: real images, real weights, a verified int8 bundle.
	$(BIN)/edgeft build samples/solar_cells

venv: $(DEV) ## Make .venv with everything that development needs.

check: $(DEV) ## Run every static check that CI runs.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(DEV) ## Run the tests.
	$(BIN)/python -m pytest

test-slow: $(DEV) ## Run the tests that take minutes each.
	$(BIN)/python -m pytest -m slow

format: $(DEV) ## Format the sources and mend what ruff can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove .venv and what the checks left; caches of builds (.edgeft) stay.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(DEMO): | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[train,samples]'
	touch $@

$(DEV): | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[train,samples,dev]'
	touch $@ $(DEMO)
