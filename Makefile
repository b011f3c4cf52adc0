# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin

.PHONY: help install demo test test-fast-paths test-wheel test-lowest lint format site docs benchmark clean

help:
	@echo "make demo       install into $(VENV), then learn a small grammar and show what was learnt (a few minutes)"
	@echo "make test       install into $(VENV), then the whole test suite"
	@echo "make test-fast-paths   the suite with every fast path forced on, then with plain code in their place"
	@echo "make test-wheel        wheel and sdist, an installation as the docs say, a first hour without a checkout, a Space"
	@echo "make test-lowest       the suite on the lowest versions that pyproject.toml allows; TESTS=tests/unit for a part"
	@echo "make lint       ruff: rules and formatting; mypy: types; deptry: dependencies"
	@echo "make docs       build the site of docs/ into build/site and serve it on http://localhost:8000"
	@echo "make benchmark  speed, beside its references and its floor"

# Installed again only when what is to be installed has changed.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,docs]"
	touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/seqgan-hf train recipes/text/demo.yaml --training.overwrite_run true
	$(BIN)/python recipes/text/before_and_after.py runs/demo
	@echo "  All is installed in $(VENV), so enter it first: . $(BIN)/activate"

test: install
	$(BIN)/python -m pytest

test-fast-paths: install
	$(BIN)/python -m pytest --fast-paths on
	$(BIN)/python -m pytest --fast-paths off

test-wheel: install
	$(BIN)/python tests/tools/installed.py

test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest $(TESTS)

# torch stays as it is in $(VENV): of older releases there is no small CPU build.
$(LOWEST)/installed: pyproject.toml $(VENV)/installed
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(BIN)/python -m pip freeze | grep '^torch==' > $(LOWEST)/torch.txt
	UV_FIND_LINKS=$(PIP_FIND_LINKS) $(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --extra test \
		--resolution lowest-direct --constraint $(LOWEST)/torch.txt --output-file $(LOWEST)/versions.txt pyproject.toml
	UV_FIND_LINKS=$(PIP_FIND_LINKS) $(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python \
		--requirement $(LOWEST)/versions.txt
	$(LOWEST)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/deptry .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A warning (a dead link, a page that no menu shows, a docstring that cannot be read) is an error.
site: install
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site
	$(BIN)/python -m tests.tools.look_at_site build/site

docs: site
	$(BIN)/python -m http.server --directory build/site --bind localhost 8000

benchmark: install
	$(BIN)/python -m pytest -o addopts="--import-mode=importlib" tests/benchmarks --benchmark-only --benchmark-json=benchmark.json

clean:
	rm -rf $(VENV) $(LOWEST) runs .pytest_cache .ruff_cache .benchmarks build dist *.egg-info
