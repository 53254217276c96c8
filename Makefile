# Two commands do all set-up on a bare machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# tools that look at the installation from outside have an environment of their own
AUDIT := .venv-audit
AUDIT_TOOLS := cyclonedx-bom==7.5.0 pip-audit==2.10.1

.PHONY: install weights demo demo-train serve test test-slow test-browser test-cluster screenshots vendor coverage lint check docs bench bench-gpu bench-scale quality chaos faults hostile bench-upgrade bench-restore sbom audit clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv: about 8.3 GB, takes a few minutes"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt \
		--editable ".[api,embedded,workers,training,docs,dev]"
	@touch $@

weights: install
	@$(BIN)/strata models fetch demo
	@$(BIN)/strata models fetch everyday

demo: install
	@$(BIN)/python -m samples.demo

demo-train: install
	@$(BIN)/python -m training.demo

serve: weights
	$(BIN)/strata serve

test: weights
	$(BIN)/python -m pytest -n 3 --dist loadfile

test-browser: install
	$(BIN)/python -m pytest -m browser tests/studio

test-slow: weights
	$(BIN)/python -m pytest -m slow tests

test-cluster: weights
	$(BIN)/python -m pytest -m cluster tests/workers/engines

screenshots: weights
	@mkdir -p docs/studio
	STRATA_SCREENSHOTS=$(CURDIR)/docs/studio $(BIN)/python -m pytest tests/studio/test_screenshots.py

vendor:
	.ci/vendor

coverage: weights
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

bench: weights
	$(BIN)/python -m bench.throughput

bench-gpu:
	PYTHON=$(BIN)/python sh bench/gpu_session.sh

bench-scale: install
	@$(BIN)/python -c "import celery, taskiq_redis" 2>/dev/null || $(BIN)/python -m pip install -qq \
		--disable-pip-version-check --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m bench.scale

quality: weights
	$(BIN)/python -m bench.quality

chaos: install
	$(BIN)/python -m bench.chaos --seed $(or $(SEED),1)

faults: weights
	$(BIN)/python -m bench.faults.run --seed $(or $(SEED),1)

hostile: weights
	$(BIN)/python -m bench.hostile.run --seed $(or $(SEED),1)

bench-upgrade: install
	$(BIN)/python -m bench.operations.upgrade --old $(or $(OLD),HEAD~50)

bench-restore: install
	$(BIN)/python -m bench.operations.restore

$(AUDIT)/installed: Makefile
	@test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install -qq --disable-pip-version-check $(AUDIT_TOOLS)
	@touch $@

sbom: install $(AUDIT)/installed
	@$(AUDIT)/bin/cyclonedx-py environment --validate --output-reproducible --pyproject pyproject.toml \
		--output-format JSON --output-file sbom.cdx.json $(BIN)/python
	@echo "sbom.cdx.json has the packages that are installed in .venv (CycloneDX)"

audit: install $(AUDIT)/installed
	@.ci/audit $(AUDIT)/bin/pip-audit "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

clean:
	rm -rf .venv $(AUDIT) demo-output .strata sbom.cdx.json
