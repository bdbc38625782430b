# Everything runs in ./.venv, which each target fills with what it needs first; a second call finds it there.
# PYTHON chooses the interpreter (3.11 or newer, with a shared libpython), ARGS is handed on to the program.

PYTHON ?= python3
EXTRAS ?= dev,demo
BACKEND ?= qdrant
ARGS ?=
# Tests wait more than they work, so a few of them run at a time; 0 shows one after the other.
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
# Products of small matrices are slower on many threads than on one.
export OPENBLAS_NUM_THREADS ?= 2

comma := ,
stamp = $(VENV)/.installed-$(subst $(comma),-,$(1))

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench bench-adapters quality chaos clean

help:
	@echo "make demo            upgrade an embedding model in front of you, with real text and models (ARGS=--keep)"
	@echo "                     BACKEND=milvus shows it on Milvus instead of Qdrant"
	@echo "make test            all tests (ARGS='-k name')"
	@echo "make check           lint, formatting, types, import contracts, documentation"
	@echo "make format          put the code into its form"
	@echo "make bench           what Crossfade costs beside Envoy alone -> build/bench.json"
	@echo "make bench-adapters  what an adapter costs beside the machine's limits -> build/bench-adapters.json"
	@echo "make chaos           kill everything while a migration runs, and see that nothing is lost -> build/chaos.json"
	@echo "                     ARGS='--points 200 --operations 1000000 --faulty-operations 200000' for the long form"
	@echo "make quality         every adapter family on judged collections -> docs/quality.md"

demo: $(call stamp,demo$(if $(filter milvus,$(BACKEND)),$(comma)milvus))
	$(BIN)/crossfade demo --backend $(BACKEND) --directory build/demo $(ARGS)

test: $(call stamp,$(EXTRAS))
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(call stamp,$(EXTRAS))
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_layout.py tests/test_docs.py

format: $(call stamp,$(EXTRAS))
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(call stamp,$(EXTRAS))
	@command -v h2load nghttpd >/dev/null || { echo "h2load and nghttpd are needed: apt-get install nghttp2"; exit 1; }
	$(BIN)/python -m tests.bench.bench_proxy $(ARGS)

bench-adapters: $(call stamp,$(EXTRAS))
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.bench.bench_adapters $(ARGS)

quality: $(call stamp,$(EXTRAS))
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.bench.quality $(ARGS)

chaos: $(call stamp,$(EXTRAS))
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.bench.chaos $(ARGS)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# --- installation -------------------------------------------------------------------------------------------------

$(BIN)/python:
	@.ci/find-python $(PYTHON)
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras; a changed pyproject.toml, constraints.txt or compiled part installs again.
$(VENV)/.installed-%: pyproject.toml constraints.txt $(wildcard proxy/filter/* adapters/kernel/*) | $(BIN)/python
	@echo "installing crossfade[$(subst -,$(comma),$*)] into $(VENV)"
	@$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e ".[$(subst -,$(comma),$*)]" \
		>$(VENV)/install.log 2>&1 || { tail -n 40 $(VENV)/install.log; exit 1; }
	@touch $@
