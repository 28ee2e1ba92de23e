# `make repro` and `make test` are each enough on a fresh clone: they make .venv, install the pinned requirements, and go.
# On Linux without an NVIDIA GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu saves gigabytes.

PYTHON ?= python3
SYSTEM_PYTHON := $(shell command -v $(PYTHON))
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.stamp
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?= -n logical

export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GOMP_SPINCOUNT := 20000

.PHONY: repro test check smoke ui setup constraints clean study-manifold study-optimiser study-curriculum serve browser tracking-server postgres

repro: $(STAMP)  ## run every stage of dvc.yaml whose inputs changed
	@test -e .git || dvc config --local core.no_scm true  # DVC refuses a download without .git otherwise
	dvc repro

test: $(STAMP)  ## all tests, and the seconds of the 20 slowest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=20 $(PYTEST_ARGS)

check: $(STAMP)  ## style, types, who may import whom
	ruff check .
	ruff format --check --quiet .
	mypy
	lint-imports

smoke: $(STAMP)  ## the whole pipeline, small, in a clean copy that is thrown away (a few minutes)
	$(BIN)/python tools/run_profile.py profiles/smoke.yaml

study-manifold study-optimiser study-curriculum: study-%: $(STAMP)  ## a study of docs/studies again, on what `make repro` left here
	$(BIN)/python -m benchmarks.studies.$*

serve: $(STAMP)  ## the service and its page, at http://127.0.0.1:8000
	$(BIN)/python -m unmixer_app.serve

browser:  ## Debian's chromium, which the page's tests drive; without it they are skipped
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	  { echo "no chromium: 'apt-get install chromium' did not work; the page's tests will be skipped (with CI set: fail)"; test -z "$$CI"; }

ui: $(STAMP)  ## the runs, at http://127.0.0.1:5000
	$(BIN)/python -m unmixer_core.pipeline.tracking replay
	mlflow ui --host 127.0.0.1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

tracking-server: $(STAMP)  ## MLflow over PostgreSQL for many machines, at http://127.0.0.1:5000 (MLFLOW_HOST, MLFLOW_PORT); docs/scale.md
	$(BIN)/python -m tools.mlflow_server

postgres:  ## Debian's PostgreSQL, which tracking-server and its tests start; without it those are skipped
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; } >/dev/null 2>&1 || \
	  echo "no PostgreSQL: 'apt-get install postgresql' did not work; the tracking server's tests will be skipped"

setup: $(STAMP)  ## only the virtual environment

$(STAMP): requirements.txt requirements-serve.txt requirements-dev.txt constraints.txt
	@test -n "$(SYSTEM_PYTHON)" && $(SYSTEM_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: Python 3.11 or newer is needed, '$(PYTHON)' is not: install one and run 'make PYTHON=python3.11 $(MAKECMDGOALS)'." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  $(SYSTEM_PYTHON) -m venv --clear $(VENV) 2>/dev/null || \
	  $(SYSTEM_PYTHON) -m virtualenv --quiet --clear $(VENV) 2>/dev/null || \
	  virtualenv --quiet --clear --python $(SYSTEM_PYTHON) $(VENV) 2>/dev/null || \
	  { $(SYSTEM_PYTHON) -m venv --clear --without-pip $(VENV) && $(SYSTEM_PYTHON) -m pip --python $(BIN)/python install --quiet pip; } 2>/dev/null || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) can make no virtual environment: run 'sudo apt install python3-venv' and try again." >&2; exit 1; }
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PIP) install --quiet -r requirements-dev.txt -c constraints.txt
	$(PIP) install --quiet --no-deps -e .  # the command `unmix`
	@touch $@

constraints: $(STAMP)  ## resolve constraints.txt again (torch and its CUDA parts stay open: the platform decides)
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile requirements-dev.txt requirements-scale.txt --universal --python-version 3.11 --no-header --no-annotate --quiet \
	  | grep -vE '^(torch|triton|nvidia-.*|cuda-.*)==' > constraints.txt.tmp && mv constraints.txt.tmp constraints.txt

clean:  ## caches and half-finished work; results, runs and the environment stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find .unmixer -mindepth 1 -maxdepth 1 ! -name journal ! -name service -exec rm -rf {} + 2>/dev/null || true
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
