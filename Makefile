# Every target sets up what it needs in .venv. Another Python: make demo PYTHON=python3.12
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.dev-installed
# Each test worker keeps to one thread: two on two cores, and the same sums in the same order on every run.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test slow gpu coverage golden notebooks check format docs wheel clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' $(firstword $(MAKEFILE_LIST)) | awk -F': ' '{ printf "make %-10s %s\n", $$1, $$2 }'

install: $(INSTALLED) ## make .venv with the tested versions

demo: $(INSTALLED) ## run all models on MovieLens-100K for a few epochs and print the table (installs first)
	$(BIN)/python benchmarks/run.py --models all --dataset ml-100k --preset quick

test: $(DEV_INSTALLED) ## run the tests that take seconds (installs first)
	$(PYTEST)

slow: $(DEV_INSTALLED) ## run the tests that take minutes
	$(PYTEST) -m "slow and not gpu"

gpu: $(DEV_INSTALLED) ## measure what depends on a GPU, in at most 8 minutes and without network: build/gpu/table.md
	$(BIN)/python benchmarks/gpu.py

coverage: $(DEV_INSTALLED) ## run the quick tests and show which lines they miss
	$(PYTEST) --cov --cov-report=term-missing

BASE ?= HEAD
golden: $(DEV_INSTALLED) ## compare what this code computes with what BASE computes: make golden BASE=HEAD~1
	$(BIN)/python tests/golden.py $(BASE)

notebooks: $(DEV_INSTALLED) ## run the notebooks of the documentation and store their outputs
	$(BIN)/python tests/notebooks.py

check: $(DEV_INSTALLED) ## formatting, lint, lengths and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tests/check_sizes.py
	$(BIN)/mypy

format: $(DEV_INSTALLED) ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV_INSTALLED) ## build the site in build/site; warnings and broken links are errors
	$(ONE_THREAD) $(BIN)/python -m sphinx -W --keep-going -q -E -d build/site-cache docs build/site
	PYTHONPATH=docs/_ext $(BIN)/python -m hellm_docs.built_links build/site

wheel: $(DEV_INSTALLED) ## build dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m build --outdir dist .

clean: ## remove .venv, builds and caches; data and results stay
	rm -rf $(VENV) build dist .coverage htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find hellm_recbole baselines benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

# RecBole goes in without its dependencies: see [dependency-groups] in pyproject.toml. `--group` needs pip 25.1.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no '$(PYTHON)'; install Python 3.11, 3.12 or 3.13, or name one, as in make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "error: '$(PYTHON)' is $$($(PYTHON) --version 2>&1), but 3.11, 3.12 or 3.13 is needed; name one, as in make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: '$(PYTHON)' cannot make virtual environments; install its venv package (python3-venv on Debian and Ubuntu)" >&2; exit 2; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): 2.8 GB, or 6.8 GB where torch comes with CUDA; some minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@echo "Downloading and installing torch, transformers, Ray and what else is needed; this is the longest step."
	$(PIP) install --quiet -c constraints.txt -e '.[all]'
	@echo "Installing RecBole."
	$(PIP) install --quiet -c constraints.txt --no-deps --group recbole
	@touch $@

$(DEV_INSTALLED): $(INSTALLED)
	@echo "Installing the tools for tests and checks."
	$(PIP) install --quiet -c constraints.txt --group dev
	@touch $@
