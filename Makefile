# Two commands do all set-up on a bare machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo serve test check bench quality clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[api,embedded,workers,dev]"
	touch $@

demo: install
	@$(BIN)/python -m samples.demo

serve: install
	$(BIN)/strata models fetch demo
	$(BIN)/strata serve

test: install
	$(BIN)/strata models fetch demo
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

bench: install
	$(BIN)/strata models fetch demo
	$(BIN)/python -m bench.throughput

quality: install
	$(BIN)/strata models fetch demo
	$(BIN)/python -m bench.quality

clean:
	rm -rf .venv demo-output .strata
