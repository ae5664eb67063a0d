# `make help` lists the targets. `make PYTHON=python3.12 test` chooses the interpreter.

SHELL := /bin/bash
PYTHON ?= python3
RUN := .venv/bin/python
STAMP := .venv/.installed
BROWSER := .venv/.browser
NOTEBOOKS := $(wildcard notebooks/*/*.ipynb)

# libgomp threads that spin while they wait slow everything down when cores are shared.
export OMP_WAIT_POLICY := passive
export JUPYTER_PLATFORM_DIRS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test coverage test-browser check contract notebooks reports bench lab clean force
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

WORLD := -p corpus closed-world -p model '{d_model: 64, output_bias: true}' -p sequence_length 32 \
  -p tokens_per_step 1024 -p micro_batches 1 -p validate_every 8 -p steps 16 -p warmdown_steps 6

demo: $(STAMP)  ## train, quantise and probe the runs demo and demo-world; render their report
	@echo "two runs at once, one processor each; progress is of demo"
	@log=data/demo-world.log; trap 'kill $$world 2>/dev/null || true' EXIT; \
	{ $(RUN) -m workbench train --name demo-world --replace $(WORLD) && \
	  $(RUN) -m workbench diagnose demo-world; } >$$log 2>&1 & world=$$!; \
	$(RUN) -m workbench train --name demo --replace -p steps 160 -p warmdown_steps 48 && \
	$(RUN) -m workbench diagnose demo && \
	$(RUN) -m workbench quantize demo && { wait $$world || { cat $$log; exit 1; }; }
	$(RUN) -m workbench report demo demo-world --output reports/rendered/demo.html
	@$(RUN) -m workbench evaluate demo; $(RUN) -m workbench evaluate demo --artifact
	@echo "open reports/rendered/demo.html in a browser"

test: export OMP_NUM_THREADS := 1
test: $(STAMP)  ## every test: library, docstring examples, reports (nbval)
	$(RUN) -m pytest -n 2 --dist loadfile
	$(RUN) -m pytest --nbval --nbval-current-env reports

coverage: export OMP_NUM_THREADS := 1
coverage: $(STAMP)  ## the tests of the library again, with the lines that none of them reaches
	$(RUN) -m pytest -n 2 --dist loadfile --cov --cov-report=term

test-browser: export OMP_NUM_THREADS := 1
test-browser: $(BROWSER)  ## the explore notebooks in Chromium; SCREENSHOTS=folder keeps pictures
	$(RUN) -m pytest tests/browser

check: $(STAMP)  ## ruff (notebooks too), mypy, stripped notebooks, code lines by part
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m nbstripout --verify --keep-id $(NOTEBOOKS)
	$(RUN) tests/code_lines.py

contract: export OMP_NUM_THREADS := 1
contract: $(STAMP)  ## run the tests of what imported checkpoints promise; writes docs/
	$(RUN) tests/scoreboard.py

notebooks: $(STAMP)  ## strip and format notebooks/ as `check` wants them
	$(RUN) -m nbstripout --keep-id $(NOTEBOOKS)
	$(RUN) -m ruff format notebooks

reports: $(STAMP)  ## run every report anew, in place, outputs and counts kept
	set -e; for each in reports/*.ipynb; do \
	  $(RUN) -m nbconvert --log-level WARN --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False "--ExecutePreprocessor.extra_arguments=--log-level=CRITICAL" $$each; \
	  $(RUN) -m nbstripout --keep-output --keep-count --keep-id \
	    --extra-keys "metadata.widgets metadata.language_info.version" $$each; \
	done

bench: $(STAMP)  ## measure speed, and with PEER=folder against a peer's run; results to bench/results
	OMP_NUM_THREADS=1 $(RUN) bench/training.py
	OMP_NUM_THREADS=1 $(RUN) bench/speed.py
	OMP_NUM_THREADS=1 $(RUN) bench/muon.py
	OMP_NUM_THREADS=1 $(RUN) bench/sweep.py
	$(if $(PEER),OMP_NUM_THREADS=1 $(RUN) bench/parameter_golf.py $(PEER))

lab: $(STAMP)  ## open JupyterLab on the explore notebooks
	$(RUN) -m jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --LabApp.default_url=/lab/tree/notebooks/explore/start_here.ipynb

clean:  ## remove .venv and caches; data/ and its runs stay
	rm -rf .venv build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# An interpreter asked for by name replaces a .venv made with another one.
VENV_VERSION := $(shell .venv/bin/python -V 2>/dev/null)
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) -V 2>&1),$(VENV_VERSION))
VENV_VERSION :=
$(STAMP): force
endif
endif

$(STAMP): requirements.lock pyproject.toml
ifeq ($(VENV_VERSION),)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "workbench needs Python 3.11 or newer; $(PYTHON) is not: make PYTHON=python3.12 ..." >&2; \
	  exit 1; }
	@command -v cc gcc clang >/dev/null || { \
	  echo "workbench needs a C compiler (cc, gcc or clang): install gcc first." >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) -V)"
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv --clear .venv; else \
	  $(PYTHON) -m venv --clear --without-pip .venv && \
	  $(PYTHON) -m pip --python $(RUN) install --quiet pip; fi
endif
	@set -e; say() { printf '[%3d s] %s\n' $$SECONDS "$$1"; }; \
	torch=$$(grep '^torch==' requirements.lock); \
	say "installing $$torch, the largest package"; $(RUN) -m pip install --quiet $$torch; \
	say "installing the rest of requirements.lock"; \
	$(RUN) -m pip install --quiet --requirement requirements.lock; \
	say "installing workbench itself"; \
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable .; \
	say "environment ready"
	@touch $@

$(BROWSER): requirements-browser.lock $(STAMP)
	@command -v chromium >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing chromium" && \
	  apt-get -q update >/dev/null && apt-get -q install -y chromium >/dev/null; } || { \
	  echo "the browser tests need chromium on the PATH: apt-get install chromium" >&2; exit 1; }
	$(RUN) -m pip install --quiet --requirement requirements-browser.lock
	@touch $@
