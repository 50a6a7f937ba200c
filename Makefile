# Two commands do everything on a machine with Python >= 3.10, git and make:
#   make demo    set up .venv, then run the whole chain on the embedded data set
#   make test    set up .venv, then ruff, mypy and pytest
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint format clean

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/chase demo

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One process a folder: the native libraries of all runtimes in one process have brought each other down.
PARTS := benchmarks cli data exporters models runtimes slimming sparse

test: lint
	$(BIN)/coverage erase
	for part in $(PARTS); do $(BIN)/python -m pytest -m "not slow" --cov --cov-append --cov-report= tests/$$part || exit 1; done
	$(BIN)/python -m pytest -m "not slow" --cov --cov-append --cov-report= tests/test_*.py
	$(BIN)/coverage report --fail-under=90

test-slow: .venv/installed
	for part in $(PARTS); do $(BIN)/python -m pytest tests/$$part || exit 1; done
	$(BIN)/python -m pytest tests/test_*.py

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info
