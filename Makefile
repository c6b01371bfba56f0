# make            what there is
# make demo       install, run a small grid offline, print its table
# make test       install, run the tests
.DEFAULT_GOAL := help
.PHONY: help demo test check clean distclean
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo "Variables: PYTHON=$(PYTHON) (3.11 or newer), WORKERS=$(WORKERS) (test processes), PYTEST_ARGS"

demo: $(VENV)/.installed ## Run a small grid offline (minutes), print its table and where to look
	$(BIN)/python -m rdx +experiments=demo
	$(BIN)/python -m analysis demo
	@echo
	@echo "The report:                results/demo/report.html (and table.md, .tex, .csv, figures)"
	@echo "The runs in a browser:     $(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db"
	@echo "                           http://localhost:5000/#/experiments/1?workflowType=machine_learning"

test: $(VENV)/.installed-test ## Run the tests (no network, no GPU)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.installed-dev ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/mypy

clean: ## Remove caches and Hydra's logs; keep the environment and all results
	rm -rf outputs multirun .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

distclean: clean ## Also remove the environment and ALL results: store, MLflow, tables
	rm -rf $(VENV) store results mlflow.db mlartifacts

# A stamp is newer than what it was installed from, or pip runs again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null || echo "no Python at all"); \
	  echo "rdx needs Python 3.11 or newer; '$(PYTHON)' is $$found." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "'$(PYTHON)' has no venv module; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(INSTALL) -e '.[$*]'
	@touch $@
