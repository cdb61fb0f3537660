# Needs git, make and Python 3.11 to 3.14; the rest goes into .venv, once for each requirements.lock.
# Another Python: make BASE_PYTHON=python3.12 demo. Options for pytest: make test PYTEST_ARGS="-k jpeg".

BASE_PYTHON ?= python3
BIN := .venv/bin
PYTHON := $(BIN)/python
UV := UV_SYSTEM_CERTS=1 $(BIN)/uv
INSTALLED := .venv/installed

.PHONY: help install demo test lint types format lock clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## build .venv from requirements.lock, with this checkout in it

demo: $(INSTALLED)  ## train two small models, attack them and write a report
	@$(PYTHON) cli.py demo

test: $(INSTALLED)  ## run the tests on all cores, slow ones last
	@$(PYTHON) -m pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)

lint: $(INSTALLED)  ## check style, formatting and who imports whom
	@$(BIN)/lint-imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED)  ## check types
	@$(BIN)/mypy

format: $(INSTALLED)  ## rewrite the code as `make lint` wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(INSTALLED)  ## refresh requirements.lock from pyproject.toml
	@$(UV) pip compile --quiet --universal --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --group dev pyproject.toml --output-file requirements.lock

clean:  ## remove .venv and caches
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache robustbench_aig.egg-info

# Debian's Python has no ensurepip without its venv package, so the environment starts empty and uv is put into it.
# The checkout is installed editable, built by the locked setuptools: no network, and `robustbench-aig` is a command.
# Byte code is compiled once, here: where PYTHONDONTWRITEBYTECODE is set, importing torch would compile it every time.
$(INSTALLED): requirements.lock pyproject.toml
	@$(BASE_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo '$(BASE_PYTHON) is not Python 3.11 to 3.14; name one that is: make BASE_PYTHON=python3.12' >&2; exit 3; }
	@test -x $(PYTHON) || $(BASE_PYTHON) -m venv --without-pip .venv
	@test -x $(BIN)/uv || $(BASE_PYTHON) -m pip --python $(PYTHON) install --quiet uv || \
		{ $(PYTHON) -m ensurepip && $(PYTHON) -m pip install --quiet uv; } || \
		{ echo '$(BASE_PYTHON) could not install uv: it needs pip (Debian: apt install python3-pip) and a package index' >&2; exit 3; }
	$(UV) pip sync --python $(PYTHON) --compile-bytecode --require-hashes requirements.lock
	$(UV) pip install --python $(PYTHON) --quiet --no-deps --no-build-isolation --editable .
	@touch $@
