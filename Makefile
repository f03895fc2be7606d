# The words of the house. Each makes the environment first; from the second time on that takes no time.
#
#   make demo    the whole system on this machine: make demo ARGS="--keep"
#   make test    all tests, or some: make test ARGS="tests/worker -k batch"
#   make check   formatting, lint, types, import arrows
#   make bench   what can be measured, and how
#   make bench-check    whether an event costs more than it did, measured beside a bare loop
#   make lock    pin the newest versions that pyproject.toml allows
#   make clean   remove the environment and what tools left behind

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

$(MADE): requirements/environment.py requirements/environment.txt requirements/torch.txt requirements/uv.txt
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

format: env
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

test: env
	$(PY) -m pytest -n auto --dist worksteal $(ARGS)

demo: env
	$(PY) -m demo run $(ARGS)

bench: env
	$(PY) -m bench $(or $(ARGS),--help)

# Times wander from machine to machine and from hour to hour; how they stand to a bare loop's in the same run does not.
bench-check: env
	$(PY) -m bench throughput --rounds 3 --scale 0.4 --against bench/performance/baseline.json $(ARGS)

# One resolution of everything first; the locks are parts of it, so no two of them can disagree.
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
