# make study: the study on handwritten digits. make test: style, types and tests. Both create the environment they need.
PYTHON ?= python3
VENV ?= .venv
OUT ?= thinned-study
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: study test clean
# an empty value keeps bytecode: it is written at the first import (installations skip it, --no-compile), because tests
# start some hundred processes
export PYTHONDONTWRITEBYTECODE :=

study: $(VENV)/.study
	$(BIN)/thinned study --out $(OUT) $(if $(wildcard $(OUT)/study.json),--resume)

test: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# torch is installed first, alone and in this exact version; constraints.txt says why
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	touch $@

$(VENV)/.study: $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[study]"
	touch $@

# includes everything of .study; the installation compiles the kernels
$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[test]"
	touch $(VENV)/.study $@

clean:
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
