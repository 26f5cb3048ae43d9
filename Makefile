# The entry points of the project; `make help` lists them.
#
# Everything runs in .venv, which is made on first use and brought up to date when pyproject.toml or constraints.txt
# change. Nothing needs root, Docker, or any network but the package registry.

PYTHON ?= python3
SEED ?=
OUTPUT ?= out/quickstart
SPEC ?= examples/quickstart.yaml
SEEDS ?= 1 2 3
# `make test TESTS=tests/unit` runs a part; `make test PYTEST="-x -q"` passes options on.
TESTS ?= tests
PYTEST ?=
# Processes that share the test files; each starts servers of its own.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
# The name carries what was installed: an edited pin makes another name, and pip runs again.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

# What a docstring says must be true; it need not say everything. So a section that is left out (DOC101, 103, 201, 402)
# and an exception that a callee raises (DOC502, 503) are no errors. pydoclint runs inside flake8 because only flake8
# can leave codes out.
PYDOCLINT := --select DOC --extend-ignore DOC101,DOC103,DOC201,DOC402,DOC502,DOC503 --style google \
	--arg-type-hints-in-docstring False --check-return-types False --check-yield-types False \
	--check-class-attributes False --allow-init-docstring True

.DEFAULT_GOAL := help
# Processes that `make chaos` kills, and which: a failure prints both, and the same two play it again.
FAULTS ?= 200
.PHONY: help run test chaos check bench install lint types arrows docstrings contract images

help:  ## Show this list.
	@grep -hE '^[a-z]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*  ## (.*)/  make \1\t\2/' | expand -t 16
	@echo
	@echo '  make run SEED=1          another seed for the example job'
	@echo '  make test TESTS=tests/unit PYTEST=-x'
	@echo '  make run PYTHON=python3.12   the interpreter of a new .venv (3.11 or later)'

run: $(STAMP)  ## Example job on a local stack, from submission to adapter; leaves out/quickstart/.
	@$(BIN)/egrpo quickstart --spec $(SPEC) --output $(OUTPUT) $(if $(SEED),--seed $(SEED))

test: $(STAMP)  ## All tests, on real servers that they start themselves.
	@$(BIN)/python -m pytest $(TESTS) -n $(WORKERS) --dist loadfile $(PYTEST)

chaos: $(STAMP)  ## Kill processes of the service at random moments and look at what is left: FAULTS=200 SEED=1.
	@FAULTS=$(FAULTS) SEED=$(or $(SEED),1) $(BIN)/python -m pytest tests/chaos -s -q $(PYTEST)

check: lint types arrows docstrings contract images  ## Lint, types, arrows, docstrings, OpenAPI, images (make -k: all).

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

arrows: $(STAMP)
	$(BIN)/lint-imports

docstrings: $(STAMP)
	$(BIN)/flake8 $(PYDOCLINT) api contract egrpo egrpo_client jobs migrations worker

contract: $(STAMP)
	$(BIN)/python -m contract check

images: $(STAMP)
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml

bench: $(STAMP)  ## Tables: the example job with three seeds, all methods on it, what the service takes and stands.
	$(BIN)/python bench/quickstart.py --seeds $(SEEDS)
	$(BIN)/python bench/methods.py
	$(BIN)/python bench/service_cpu.py
	$(BIN)/python bench/service_overhead.py
	$(BIN)/python bench/service.py

install: $(STAMP)  ## Make .venv, or bring it up to date.

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'egrpo needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'installing packages into $(VENV) (several minutes the first time)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -f $(VENV)/.installed-* && touch $@
