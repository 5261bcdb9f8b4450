# make demo   set-up, then the main job: train on digits, sample, evaluate, pictures in runs/demo
# make test   the default suite, compiled quickly; make test-slow runs everything, compiled as users' programs are
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/demo

.PHONY: demo setup test test-slow lint lock

demo: setup
	$(BIN)/diffjax train --config=experiments/configs/digits.py --workdir=$(WORKDIR)
	DIFFJAX_INSTALL_SECONDS=$$(cat $(VENV)/ready) $(BIN)/diffjax evaluate --workdir=$(WORKDIR)

test: setup
	$(BIN)/python -m pytest -m 'not slow' -q -n 2 --dist worksteal

test-slow: test
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -m slow -q -n 2 --dist worksteal

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache --no-logo && $(BIN)/pyright --pythonpath $(BIN)/python

setup: $(VENV)/ready

$(VENV)/ready: setup.cfg requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("python: got %d.%d; allowed: 3.11 or newer (make PYTHON=python3.12)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@start=$$(date +%s) \
	  && $(PYTHON) -m venv $(VENV) \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . \
	  && echo $$(( $$(date +%s) - start )) > $@

# Newest versions that fit setup.cfg, for every platform; CPU only.
lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile setup.cfg --extra dev --extra notebook --extra tensorboard --universal --python-version 3.11 \
	  --no-header --no-annotate --quiet --output-file requirements.lock
