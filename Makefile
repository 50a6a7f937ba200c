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

# One process a folder: the native libraries of all runtimes in one process have brought each other down. JOBS of them
# run at a time, the largest first, with one thread each; the output of each is shown whole when it ends.
PARTS := exporters benchmarks slimming cli root runtimes sparse models data
JOBS := 2
files = $(if $(filter root,$*),tests/test_*.py,tests/$*)

test: lint
	$(BIN)/coverage erase
	$(MAKE) --jobs $(JOBS) --keep-going PYTEST='-m "not slow" --cov --cov-report=' $(PARTS:%=part-%)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=90

test-slow: .venv/installed
	$(MAKE) --jobs $(JOBS) --keep-going $(PARTS:%=part-%)

part-%:
	@log=$$(mktemp) && { \
		OMP_NUM_THREADS=1 COVERAGE_FILE=.coverage.$* $(BIN)/python -m pytest $(PYTEST) $(files) > $$log 2>&1; \
		status=$$?; cat $$log; rm $$log; exit $$status; \
	}

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info
