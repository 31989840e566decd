# make demo: set up and run the main job. make test: set up and pass the tests. Both are quick the second time.
# make test-all: the thorough tests too, which repeat for further methods and settings what others are tested for, and
# which lines were run: to trace them costs the tests a third of their time more.
# make bench: time what every step does, and keep the times for the next time.
# make lock: look up the hashes of what constraints.txt pins, after a change of it or of pyproject.toml; needs uv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# Without byte code, every process that imports torch, transformers and mteb spends most of its time on compiling them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint types unit bench setup lock clean

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

PIP_INSTALL = $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check

# Everything is held to its hash but torch, and CUDA's libraries below it: which of its many builds is right (CPU, a
# version of CUDA, ROCm) the machine decides, and each has hashes of its own. One that is there already is kept.
define install
	$(PIP_INSTALL) --require-hashes --no-deps --only-binary :all: -r requirements/$(1).txt
	$(PIP_INSTALL) -c constraints.txt torch
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check --disable-pip-version-check
endef

# An editable install finds the source by itself: only new dependencies make it necessary again.
$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt requirements/demo.txt
	$(call install,demo)
	@touch $@

$(INSTALLED_DEV): $(BIN)/python pyproject.toml constraints.txt requirements/dev.txt
	$(call install,dev)
	@touch $(INSTALLED) $@

CUDA := triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime \
	cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	$(addprefix --no-emit-package ,torch $(CUDA)) --constraint constraints.txt pyproject.toml

lock:
	$(LOCK) --extra demo --output-file requirements/demo.txt
	$(LOCK) --extra demo --extra dev --output-file requirements/dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage
