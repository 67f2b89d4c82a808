# Thin: every target calls the `reproduce` command or pytest. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

# One thread per process and fixed hashing: the stored outputs were made this way.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export PYTHONHASHSEED := 0
export TZ := UTC
unexport MPLBACKEND PYTHONPATH
# A data folder that lies beside the checkout is used unless another one is named.
ifneq ($(wildcard ../shared/data/README.md),)
export REPRODUCTIONS_DATA ?= $(abspath ../shared/data)
endif

.PHONY: help book test site run bench lint serve clean lock
help:
	@echo "make book   execute every chapter, compare with the stored outputs, build the site"
	@echo "make test   lint, drift check, unit tests, notebooks compared, smoke runs, page checks"
	@echo "make site   build the site from the stored outputs and check its pages"
	@echo "make run    execute every chapter (PROFILE=cpu SEED=0 DEVICE=auto JOBS=2)"
	@echo "make bench  time the kernels against their peers; writes benchmarks/results/"
	@echo "make lint   ruff     make serve  show the site locally     make clean  remove what is built"

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, %s is %d.%d; choose with: make PYTHON=python3.11" % (sys.executable, *v))'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[test,scale]"
	@touch $@

book: .venv/.installed
	$(BIN)/reproduce book --jobs $(JOBS)

test: .venv/.installed
	$(BIN)/reproduce test --jobs $(JOBS)

site: .venv/.installed
	$(BIN)/reproduce site

PROFILE ?= cpu
SEED ?= 0
DEVICE ?= auto
run: .venv/.installed
	$(BIN)/reproduce run --all --profile $(PROFILE) --seed $(SEED) --device $(DEVICE) --jobs $(JOBS)

bench: .venv/.installed
	$(BIN)/reproduce bench

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

serve: .venv/.installed
	$(BIN)/reproduce serve

clean:
	rm -rf _build runs .pytest_cache .ruff_cache

# Run in a fresh environment: what is installed there becomes the lock.
lock: .venv/.installed
	@{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^torch==.*/torch==2.13.0/; s/^(triton==.*)/\1 ; sys_platform == "linux"/'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
