# Everything from a fresh clone with only Python (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin

SEEDS ?= 1000
FIRST ?= 1

.PHONY: venv lock demo test test-long lint types layers outside unit simulate mutants bench clean

venv: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lock: ## needs uv
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group dev pyproject.toml -o requirements.lock

demo: venv
	$(BIN)/perund demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

layers: venv
	$(BIN)/lint-imports

outside: venv ## clients that nobody here wrote, pinned by tests/outside/package-lock.json
	$(BIN)/python -m tests.outside.install

unit: venv outside
	$(BIN)/pytest -n auto --dist loadgroup

test: lint types layers unit

test-long: venv outside
	$(BIN)/pytest -n auto --dist loadgroup -m long

simulate: venv
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

mutants: venv ## within three hours on two cores; MUTANTS="--only watcher/ --seed 2" and the like
	$(BIN)/python -m tests.mutants $(MUTANTS)

bench: venv
	$(BIN)/python -m tests.bench $(if $(JSON),--json $(JSON))

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
