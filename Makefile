# make demo   localize the example films on this machine's CPU (sets up .venv: no torch)
# make test   lint, types and all tests (sets up .venv-dev: everything)
# make requirements  docs/requirements.md, of the last `make test`
# make pages  docs/errors.md, of the tables in msloc_edge/errors.py
# make docs   the documentation as a site, build/site
# make sbom   docs/soup.md and build/sbom.cdx.json, of what is installed in .venv-dev
# make sdk    the C library's SDK for x86-64 and 64-bit Arm, into dist/ (the first time DCMTK is built: minutes)
# make arm64  the Arm SDK's self-test and films, under QEMU as two processors (minutes)
# make dist   wheel and sdist into dist/, each tried alone in a fresh environment of every Python here

PYTHON ?= python3
# The version that has been tested; where a CPU build of it is at hand, pip takes that instead of the CUDA one.
TORCH ?= torch==2.13.0

PIP_OPTIONS = -qq --disable-pip-version-check
DEV = .venv-dev/bin

.PHONY: demo test lint types links pages docs sbom requirements sdk arm64 dist clean

demo: .venv/ready
	@.venv/bin/msloc-edge infer examples --out out/demo --overwrite > /dev/null

# Bytecode is kept: without it, each worker and each process of a test compiles everything again.
test: lint types
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(DEV)/pytest -n auto --dist loadfile --no-loadscope-reorder \
		--junitxml=build/junit.xml

lint: links
	$(DEV)/ruff check
	$(DEV)/ruff format --check
	cd build/types && $(CURDIR)/$(DEV)/lint-imports --no-logo $(CURDIR)/pyproject.toml

types: links
	cd build/types && $(CURDIR)/$(DEV)/mypy --config-file $(CURDIR)/pyproject.toml -p msloc_edge

# The package map of pyproject.toml (kernels/, export/, train/ are msloc_edge.kernels, ...) as links that tools can follow.
links: .venv-dev/ready
	@mkdir -p build/types/msloc_edge
	@ln -sfn $(CURDIR)/msloc_edge/* build/types/msloc_edge/
	@for name in kernels export train; do ln -sfn $(CURDIR)/$$name build/types/msloc_edge/$$name; done
	@find build/types/msloc_edge -xtype l -delete

.venv/ready: pyproject.toml
	@echo "setting up .venv ..."
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv failed: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@.venv/bin/pip install $(PIP_OPTIONS) -e '.[dicom]'
	@touch $@

.venv-dev/ready: pyproject.toml
	@echo "setting up .venv-dev (torch and all engines; this takes a while the first time) ..."
	@$(PYTHON) -m venv .venv-dev || { echo "python3 -m venv failed: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	@$(DEV)/pip install $(PIP_OPTIONS) $(TORCH)
	@$(DEV)/pip install $(PIP_OPTIONS) -e '.[dev]'
	@touch $@

pages: .venv-dev/ready
	$(DEV)/python tools/errors.py docs/errors.md

docs: links
	NO_MKDOCS_2_WARNING=1 $(DEV)/mkdocs build --strict

sbom: .venv-dev/ready
	$(DEV)/python tools/soup.py --page docs/soup.md --sbom build/sbom.cdx.json

requirements: .venv-dev/ready
	$(DEV)/python tools/requirements.py build/junit.xml

sdk: .venv-dev/ready
	PYTHON=$(DEV)/python packaging/sdk.sh x86_64
	PYTHON=$(DEV)/python packaging/sdk.sh aarch64

arm64: .venv-dev/ready
	MSLOC_ARM64=1 $(DEV)/pytest -q tests/capi/test_sdk.py -k aarch64

dist: .venv-dev/ready
	PYTHON=$(DEV)/python packaging/dist.sh

clean:
	rm -rf .venv .venv-dev build out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
