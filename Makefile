# The habits of this house, one verb each. CI runs what people run.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help demo test lint bench bench-inventory bench-peers lab controlplanes e2e openapi clean

help:            ## What you can say here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 22

$(BIN)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lendmesh needs Python 3.11 or newer; this is $$($(PYTHON) --version). Say PYTHON=python3.12, for example."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what Lendmesh needs into $(VENV) (first time about a minute) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(BIN)/.installed-test: $(BIN)/.installed
	@echo "installing what the tests need into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: $(BIN)/.installed            ## The whole flow on simulated clusters (ARGS=--once ends at the end)
	@$(BIN)/lendmesh demo $(ARGS)

test: $(BIN)/.installed-test       ## All tests, real control planes and real PostgreSQL included
	@$(BIN)/python -m pytest $(ARGS)

lint: $(BIN)/.installed-test       ## Style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(BIN)/.installed-test      ## Measure what README states, on this machine
	@$(BIN)/python -m tests.bench $(ARGS)

bench-inventory: $(BIN)/.installed-test ## Only the inventory at 10,000 devices; needs no cluster
	@$(BIN)/python -m tests.bench inventory $(ARGS)

bench-peers: $(BIN)/.installed-test ## The optimizer beside every peer, SkyPilot included (20 minutes; ARGS=--quick one)
	@$(BIN)/python -m tests.bench peers $(ARGS)

lab: $(BIN)/.installed-test        ## Two real clusters with real nodes, a broker and both agents, to walk through by hand (as root)
	@$(BIN)/python -m tests.lab $(ARGS)

controlplanes: $(BIN)/.installed-test ## Build the control planes now (first time about ten minutes)
	@$(BIN)/python -m tests.controlplane build --all

openapi: $(BIN)/.installed         ## Write docs/openapi.json anew
	@$(BIN)/lendmesh broker openapi > docs/openapi.json

clean:           ## Remove the environment and caches of this checkout
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
