# `make demo` and `make test` do their own set-up; nothing here needs root.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: two test workers or a small network gain nothing from more, and results repeat exactly.
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test check bench bench-gpu clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,peers,language]'
	touch $@

# d3rlpy pins a gymnasium that the project cannot use: the comparison runs it in an environment of its own.
.venv-d3rlpy/ready: benchmarks/peers/requirements-d3rlpy.txt
	$(PYTHON) -m venv .venv-d3rlpy
	.venv-d3rlpy/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

bench: setup .venv-d3rlpy/ready
	$(BIN)/python scripts/bench.py

# decoding, DPO and GRPO at 0.5 billion parameters against transformers and TRL, on one CUDA GPU
bench-gpu: setup
	$(BIN)/python -m benchmarks.bench_gpu

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
