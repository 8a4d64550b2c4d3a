# make demo   the whole pipeline on the embedded data set, through `mlflow run`
# make test   every test but the longest; make test-all those, too. Tests of Slurm and of a team's server need root and
#             apt-get install slurm-wlm munge postgresql, and are skipped with that reason elsewhere
# make        lint, types, docs and tests: what CI runs
# make docs   rewrite what is generated in the README and docs/
# make results  train what results/ lacks on CIFAR-10 (days on a CPU; may be stopped and repeated), then make publish
# make publish  add the finished runs in $(RUNS) to results/runs.zip and rewrite results/ from it
# make screenshots  the pictures in docs/images, of what make demo has left; needs Chromium
# make bench  measure against the usual loop and Lightning

PYTHON ?= python3
BIN := .venv/bin

.PHONY: all setup demo test test-all lint types docs docs-check results publish screenshots bench

all: lint types docs-check test

setup: .venv/.ready

.venv/.ready: constraints.txt pyproject.toml python_env.yaml mlruns.gitignore
	@echo "Set-up: installing the pinned packages into .venv (once; torch is large, so this takes minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -r constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m repro.tracking.project
	@touch $@

demo: setup
	$(BIN)/mlflow run .
	$(BIN)/mlflow run . -e compare -P study=demo -P out=report
	@echo
	@echo "Tables and curves: open report/index.html"
	@echo "Runs: start $(BIN)/mlflow ui and open"
	@echo "http://127.0.0.1:5000/#/experiments/0/runs?workflowType=machine_learning"
	@echo "Next, Table 1 on CIFAR-10 (hours; its first line says how many): $(BIN)/mlflow run . -e reproducibility"

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/python docs/generate.py

docs-check: setup
	$(BIN)/python docs/generate.py --check

RUNS ?= runs
DATA ?= data

results: setup
	$(BIN)/repro sync results/runs.zip --models none --runs-dir $(RUNS)
	$(BIN)/repro paper --runs-dir $(RUNS) --data-dir $(DATA)
	$(MAKE) publish

publish: setup
	rm -rf build/publish && mkdir -p build/publish
	$(BIN)/repro archive results/runs.zip --runs-dir $(RUNS)
	cd build/publish && $(abspath $(BIN))/repro sync $(abspath results/runs.zip) --models none
	cd build/publish && $(abspath $(BIN))/repro compare --out $(abspath results)
	$(BIN)/python docs/generate.py

screenshots: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check playwright
	$(BIN)/python docs/screenshots.py

bench: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target build/peers -r benchmarks/requirements.txt
	PYTHONPATH=$(abspath build/peers) $(BIN)/python -m benchmarks.run
