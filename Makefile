# Two commands set everything up:  make demo   (one scan, tar to images)   and   make test
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Processes of `make test`: one more than there are cores, since many tests wait; at most four.
JOBS ?= $(shell n=$$(($$(getconf _NPROCESSORS_ONLN) + 1)); echo $$((n > 4 ? 4 : n)))
# One thread a core at most: the networks of a scan are small, and pools that fight are slower than one.
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-tools fuzz synth deploy-local cloud-demo lint format check clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "mrirecon needs Python 3.11 or newer; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	$(BIN)/python -c 'from tests.infra.simulator import install; install()'
	@touch $@ $(VENV)/.local $(VENV)/.infra

# Only what the stacks need. Of CDK's generated modules a synth imports a tenth: Python compiles those itself.
$(VENV)/.infra: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --no-compile --editable '.[infra]'
	@touch $@

demo: $(VENV)/.local  ## Generate a raw scan, reconstruct it, say where the pictures are
	$(BIN)/mrirecon demo --out results

test: $(VENV)/.dev  ## The tests (minutes; JOBS=1: one after the other)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow and not tools" -n $(JOBS) --dist loadgroup

.venv-checkov: $(BIN)/python
	$(BIN)/python -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30

test-slow: $(VENV)/.dev .venv-checkov  ## The slower suites: quality tables, faults, fuzzing, whole synths
	@$(PIP) --editable '.[fuzz]' || echo "atheris is not to be had for this machine: the fuzz runs will skip"
	$(BIN)/pytest -m "slow and not tools" --timeout 1800

test-tools: $(VENV)/.dev  ## Against independent tools of Debian (ismrmrd-tools dicom3tools dcmtk orthanc dcm2niix bart chromium poppler-utils)
	$(BIN)/pytest -m tools --timeout 900

fuzz: $(VENV)/.dev  ## Coverage-guided fuzzing of the archive walk and the HDF5 gate
	$(PIP) --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.fuzz walk build/fuzz/walk -max_total_time=600
	$(BIN)/python -m tests.fuzz.fuzz gate build/fuzz/gate -max_total_time=600

ENV ?= production
synth: $(VENV)/.infra  ## All stacks as templates, without credentials (ENV=dev: another environment of config/)
	$(BIN)/python -m infra.cdk synth --quiet -c env=$(ENV)

deploy-local: $(VENV)/.dev  ## Deploy into an emulated AWS, send a scan through, stop everything
	$(BIN)/python -m emulator.deploy_local

cloud-demo: $(VENV)/.dev  ## Watch scans pass through the emulated cloud
	$(BIN)/python -m emulator.cloud_demo

lint: $(VENV)/.dev  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for folder in lambda/*/; do echo "mypy $$folder"; $(BIN)/mypy $$folder*.py || exit 1; done

format: $(VENV)/.dev  ## Put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test  ## All a change needs before it is pushed

clean:  ## Remove what was made (not the results)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis cdk.out* node_modules build dist src/*.egg-info
