# One that was tried, if it is here; else whatever there is, and pip says if that is too old.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# The name changes with the requirements, so that a change of either installs again.
STAMP := $(VENV)/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

# Airflow would change versions of ours.
AIRFLOW := .venv-airflow
AIRFLOW_STAMP := $(AIRFLOW)/installed-$(shell cksum < deploy/airflow/requirements.txt | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help setup run refresh bench bench-full faults doctor audit install-check test integration check format clean clean-cache

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## Create .venv with everything; a no-op while the requirements stay
$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[privacy]" --group dev
	rm -f $(VENV)/installed-*
	touch $@

run: setup ## Turn the feedback log into a promoted model
	$(BIN)/kedro run

refresh: ENV ?= production
refresh: setup ## Do what a schedule does: run if there is work, in ENV=production (docs/operations.md)
	$(BIN)/kedro run --env $(ENV)

bench: setup ## Time the engine against its peers, side by side (about 20 minutes)
	$(BIN)/python -m benchmarks

bench-full: setup ## The same with more groups, shapes and a 135M model
	$(BIN)/python -m benchmarks --full

faults: setup ## Break runs on purpose and see whether they recover (hours; disk and clock need root)
	$(BIN)/python -m faults

doctor: setup ## Check what a run of ENV=sample needs, one line each
	$(BIN)/kedro doctor $(if $(ENV),--env $(ENV))

audit: setup ## Known vulnerabilities of the installed packages; needs a network
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

install-check: ## Run it as users install it: from a wheel and by the Dockerfile, in fresh environments (5 minutes)
	$(PYTHON) deploy/install_check.py

test: setup ## Run the whole suite
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadgroup

integration: setup $(AIRFLOW_STAMP) ## Run the tests of heavy parts: Spark (needs Java 17), Airflow, PostgreSQL, lm-eval, Chromium; installs them
	@command -v initdb || ls /usr/lib/postgresql/*/bin/initdb || { apt-get update --quiet && apt-get install --yes --quiet postgresql; }
	@command -v chromium || { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[spark,lm-eval,server]" --group integration
	$(BIN)/pytest -m integration

$(AIRFLOW_STAMP): deploy/airflow/requirements.txt
	test -x $(AIRFLOW)/bin/python || $(PYTHON) -m venv $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip install --quiet --requirement deploy/airflow/requirements.txt
	rm -f $(AIRFLOW)/installed-*
	touch $@

check: setup ## Formatting, lint, types, import contracts, docstrings, security
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pydoclint --quiet src
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src

format: setup ## Format and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean-cache: setup ## Remove cached log-probabilities, samples and labels
	$(BIN)/kedro clean-cache

clean: ## Remove what runs wrote to data; sources, forgotten prompts, environment and registry stay
	find $(filter-out data/01_raw,$(wildcard data/*)) -type f ! -name .gitkeep ! -name forgotten.parquet ! -path '*/mlflow_outbox/*' -delete
	find data -mindepth 2 -type d -empty -delete
