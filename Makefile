# Everything a person does here, by name. `make help` reads the lines that start with `##`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.run
READY  := $(VENV)/.ready
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check
DATA   ?= data
PORT   ?=
CORES  := $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help run test test-real check bench demo soak conformance lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

$(RUN): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=...")'
	@echo 'Installing the gateway and its Postgres into $(VENV), this once...'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(READY): $(RUN) requirements-dev.txt
	@echo 'Installing what tests and checks need, this once...'
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@

run: $(RUN) ## a gateway for the domain localhost, with its own Postgres (DATA=folder PORT=8080)
	@exec $(BIN)/amtp serve --local --data '$(DATA)' $(if $(PORT),--port $(PORT))

test: $(READY) ## the whole suite: no root, no packages, no running services needed
	$(BIN)/pytest -q -n $(CORES) --dist worksteal

test-real: $(READY) ## the suite on Postgres 15, the stories over signed names and lossy wires, proxies, a full disk (root; TOOLS=install)
	tests/real/run $(BIN)/pytest

check: $(READY) ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## the floors of the product beside what this machine does (ARGS=--json, ARGS='--against COMMIT')
	$(BIN)/python -m tests.bench $(ARGS)

demo: $(READY) ## two domains, one killed in the middle, and proof that nothing was lost
	$(BIN)/python -m examples.demo $(ARGS)

soak: $(READY) ## the long forms of faults, fuzzing and load
	$(BIN)/pytest -q --timeout 3600 tests/soak $(ARGS)

conformance: $(READY) ## any gateway, by URL, against the protocol (URL= DOMAIN= ADMIN_KEY=)
	$(BIN)/python -m conformance --url '$(URL)' --domain '$(DOMAIN)' --admin-key '$(ADMIN_KEY)' $(ARGS)

# Every file of a release is listed, so that other machines and Pythons find theirs.
LOCK := $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade) pyproject.toml --group build --extra embedded

lock: ## write the pinned lists again after a change in pyproject.toml (UPGRADE=1 takes newer releases)
	@$(PYTHON) -m venv $(VENV)/lock
	@$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check uv
	$(LOCK) -o requirements.txt
	$(LOCK) --extra dev -c requirements.txt -o requirements-dev.txt

clean: ## forget what was built (your data folder stays)
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
