# Commands of the project. Each creates the environment first, which takes no time once it exists.
#
#   make demo           the whole system on this machine: make demo ARGS="--keep"
#   make test           all tests, or some: make test ARGS="tests/worker -k batch"
#   make check          formatting, lint, types, import contracts, names and words
#   make format         format the code and apply lint fixes
#   make bench          list the benches, or run one: make bench ARGS="fold --json"
#   make bench-check    compare the CPU per event with a baseline, relative to a bare loop
#   make lock           pin the newest versions that pyproject.toml allows
#   make clean          remove the environment and the caches of tools

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
MADE := $(VENV)/made
LOCK := $(PY) -m uv pip compile --quiet --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
	--generate-hashes --no-header --no-annotate --no-emit-index-url
ARGS ?=

.PHONY: env check format test demo bench bench-check lock clean
.DEFAULT_GOAL := demo

env: $(MADE)

$(MADE): requirements/environment.py requirements/python_version.py requirements/environment.txt requirements/torch.txt requirements/uv.txt
	$(or $(wildcard $(PY)),$(PYTHON)) requirements/python_version.py
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(PY) requirements/environment.py
	$(PY) -m worker.warmup
	touch $@

check: env
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m checks.wording
	$(PY) -m checks.reference --check

format: env
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

test: env
	$(PY) -m pytest -n auto --dist worksteal $(ARGS)

demo: env
	$(PY) -m demo run $(ARGS)

bench: env
	$(PY) -m bench $(or $(ARGS),--help)

# Times vary between machines and hours; their ratio to a bare loop in the same run does not.
bench-check: env
	$(PY) -m bench throughput --rounds 3 --scale 0.4 --against bench/performance/baseline.json $(ARGS)

# Resolve everything once; each lock is a part of that resolution, so the locks cannot disagree.
lock: env
	mkdir -p build
	$(LOCK) --upgrade --group dev --output-file build/everything.txt
	echo torch > build/without.txt
	$(LOCK) --group dev -c build/everything.txt --excludes build/without.txt --output-file requirements/environment.txt
	$(LOCK) --group training -c build/everything.txt --excludes build/without.txt --output-file requirements/training.txt
	$(LOCK) --group worker -c build/everything.txt --output-file requirements/worker.txt
	echo torch | $(LOCK) - -c build/everything.txt --output-file requirements/torch.txt
	echo uv | $(LOCK) - --upgrade --output-file requirements/uv.txt

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
