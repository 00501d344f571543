# Bare `make` lists what there is. Needs GNU make, Python 3.11 or newer, and a package index.

PYTHON ?= python3
BIN := .venv/bin

# The public traces, where they lie beside a checkout. Tests that need them say so when they are not there.
ifndef WATTEAU_DATA
ifneq ($(wildcard ../shared/data/README.md),)
export WATTEAU_DATA := $(abspath ../shared/data)
endif
endif

# The testbed that starts Slurm clusters on this machine, where it lies beside a checkout.
ifndef WATTEAU_SLURM_SITES
ifneq ($(wildcard ../shared/slurm/slurm-sites),)
export WATTEAU_SLURM_SITES := $(abspath ../shared/slurm/slurm-sites)
endif
endif

# Material for MkDocs prints a notice about its successor at every build.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast bench docs format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: .venv/.ready ## Make .venv and install Watteau in it

demo: setup ## Replay the French fleet into out/demo/report.html, then run Watteau with it (until Ctrl-C)
	$(BIN)/watteau demo
	@# Where nobody looks at a terminal there is nobody to end it: it ends when its own job has run.
	$(BIN)/watteau up --demo $$(test -t 1 || echo --once --port 0)

test: setup ## Everything that CI runs: lint, format, types, docs, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src tests docs/hooks.py
	$(BIN)/mkdocs build --quiet --strict
	$(BIN)/python -m pytest -n auto -m "not slow"
	@# Proofs under load, by kills and with whole clusters: one after the other, each with the machine to itself.
	$(BIN)/python -m pytest -m slow

test-fast: setup ## The tests that take no time, for while you work
	$(BIN)/python -m pytest -q -n auto -m "not slow"

bench: setup ## Measure replay, packing, the live system and a Slurm site on this machine; JSON in out/
	$(BIN)/watteau bench replay --out out/bench-replay.json
	$(BIN)/watteau bench packing --out out/bench-packing.json
	$(BIN)/python -m tests.postgres $(BIN)/watteau bench live --out out/bench-live.json
	@if test -n "$$WATTEAU_SLURM_SITES" && command -v sbatch >/dev/null; then \
		set -x; $(BIN)/watteau bench slurm --out out/bench-slurm.json; \
	else echo "Slurm is not installed here, or WATTEAU_SLURM_SITES is not set: no site is measured" >&2; fi

docs: setup ## Build the documentation into site/, with every link checked
	$(BIN)/mkdocs build --quiet --strict

format: setup ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what was built (.venv stays; remove it by hand to start anew)
	rm -rf build dist site out .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed again only when what is installed changes.
.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Watteau needs Python 3.11 or newer, and '$(PYTHON)' is not here." \
		"Install it (Debian, Ubuntu: apt install python3 python3-venv), or name yours: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Watteau needs Python 3.11 or newer;" \
		"'$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "'$(PYTHON)' cannot make a virtual environment:" \
		"its venv module is not complete. Debian, Ubuntu: apt install python3-venv. Then run make again." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
