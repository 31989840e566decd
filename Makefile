# make demo: set up and run the main job. make test: set up and pass the tests. Both are quick the second time.
# make test-all: the thorough tests too, which repeat for further methods and settings what others are tested for, and
# which lines were run: to trace them costs the tests a third of their time more.
# make bench: time what every step does, and keep the times for the next time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# Without byte code, every process that imports torch, transformers and mteb spends most of its time on compiling them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint types unit bench setup clean

demo: $(INSTALLED)
	$(BIN)/distilbench run demo
	@echo "The report is here:"
	@$(BIN)/distilbench report results/demo --out reports

test: SELECTED = not thorough
test-all: TRACED = --cov --cov-report=term:skip-covered
test test-all: lint types unit

setup: $(INSTALLED_DEV)

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED_DEV)
	$(BIN)/mypy

unit: $(INSTALLED_DEV)
	$(BIN)/pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "$(SELECTED)" $(TRACED) --durations=25

# COMPARE=1 refuses what has become slower by a fifth since the last time.
bench: $(INSTALLED_DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/benchmarks -o addopts=--import-mode=importlib -o python_files='bench_*.py' \
		-o python_functions='bench_*' --benchmark-only --benchmark-autosave --benchmark-columns=median,iqr,rounds \
		$(if $(COMPARE),--benchmark-compare --benchmark-compare-fail=median:20%)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# An editable install finds the source by itself: only new dependencies make it necessary again.
$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(INSTALLED_DEV): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	@touch $(INSTALLED) $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage
