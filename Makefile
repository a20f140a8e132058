# Everything from a fresh clone with only Python (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv lock demo test lint types layers unit bench clean

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

unit: venv
	$(BIN)/pytest -n auto --dist loadgroup

test: lint types layers unit

bench: venv
	$(BIN)/python -m tests.bench $(if $(JSON),--json $(JSON))

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
