# Everything from clone to result. `make` alone lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EPISODES ?=
SEED ?= 1
MINUTES ?= 10
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(STAMP) ## make .venv and install the keeper with its pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "The keeper needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say which to use: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV) (about a minute the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: $(STAMP) ## start a chain and a keeper, place orders, watch them execute
	@$(BIN)/keeper demo $(ARGS)

# In parallel; -n0 in ARGS runs them in one process. Each of some hundred processes would compile what it imports, and
# each worker rewrite the assertions of every test, where an image's environment forbids to keep the outcome.
test test-long test-postgres: export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: test
test: $(STAMP) ## run the tests, but for the long ones
	@$(BIN)/python -m compileall -q keeper tests
	@$(PYTEST) -m 'not long' --ignore tests/validator $(ARGS)
ifeq ($(ARGS),)
# By itself: a real validator takes a processor and more for as long as it runs.
	@$(BIN)/python -m pytest tests/validator
endif

.PHONY: test-long
test-long: $(STAMP) ## run the long ones: a short campaign, recovery of 10,000 orders, each screen of the pages, the compiler
	@$(PYTEST) -n 2 -m long $(ARGS)

.PHONY: test-postgres
test-postgres: export KEEPER_TEST_STORE ?= postgres
test-postgres: $(STAMP) ## run those of the API, the behaviours, the executions and the journal on PostgreSQL
	@$(PYTEST) -m 'not long' $(or $(ARGS),tests/http tests/behaviours tests/execution tests/journal)

.PHONY: install-check
install-check: $(STAMP) ## follow docs/install.md, and docs/scale.md's services, on a fresh Debian, under its systemd (root, debootstrap, systemd-container)
	@$(BIN)/python -m tests.install $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## break everything, kill the keeper, check (EPISODES=100 SEED=1; ARGS=--validator on a real one, ARGS='--keepers 3')
	@$(BIN)/python -m tests.chaos $(if $(EPISODES),--episodes $(EPISODES)) --seed $(SEED) $(ARGS)

.PHONY: simulate
simulate: $(STAMP) ## the whole keeper in virtual time: every fault, every order of steps (EPISODES=100 SEED=1)
	@$(BIN)/python -m tests.simulate $(if $(EPISODES),--episodes $(EPISODES)) --seed $(SEED) $(ARGS)

.PHONY: simulate-faults
simulate-faults: $(STAMP) ## plant each fault of tests/simulate/planted.py in the keeper, and find it
	@$(BIN)/python -m tests.simulate.faults $(ARGS)

.PHONY: soak
soak: $(STAMP) ## run a keeper at twenty times the speed of life, and see that it holds on to nothing (MINUTES=10)
	@$(BIN)/python -m tests.behaviours.soak --minutes $(MINUTES) $(ARGS)

.PHONY: bench
bench: $(STAMP) ## measure; make bench ONLY=burst measures one part
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff, mypy --strict (tests and bench too) and the import rules of the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

.PHONY: format
format: $(STAMP) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: program
program: $(STAMP) ## build the reference program's .so from its C source
	@$(BIN)/python -m keeper.localnet.program.build

.PHONY: program-check
program-check: $(STAMP) ## rebuild the program and fail if the bytes differ from the committed ones
	@$(BIN)/python -m keeper.localnet.program.build --check

.PHONY: proto
proto: $(STAMP) ## generate the code of Yellowstone's messages from keeper/yellowstone/geyser.proto
	@$(BIN)/python -m tests.support.stubs

.PHONY: release
release: $(STAMP) ## check, build a wheel and an sdist, and tag them, in this clone alone
	@$(BIN)/python -m tests.install.release $(ARGS)

.PHONY: validator
validator: $(STAMP) ## a solana-test-validator in your cache, which tests and demos then use (ARGS='--archive FILE.xz')
	@$(BIN)/python -m tests.validator.build $(ARGS)

.PHONY: docs
docs: $(STAMP) ## write config/keeper.toml and the README's tables from the code
	@$(BIN)/python -m tests.support.reference

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
