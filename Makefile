# Two commands set everything up: `make demo` and `make test`. Nothing but python3 and make is needed before them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.PHONY: demo test check house bench fuzz lock clean system-packages plugin

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/landcover demo --overwrite

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q --doctest-modules pipeline

system-packages:
	@sh tests/install_system_packages.sh

test: $(STAMP) system-packages check
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --cov --cov-report= --durations=15 tests
	$(BIN)/coverage combine --quiet --keep 2>/dev/null || true
	$(BIN)/coverage report --fail-under=90 --skip-covered

house:
	@$(PYTHON) tools/house.py

# The QGIS plugin as a zip: Plugins > Manage and Install Plugins > Install from ZIP.
plugin: $(STAMP)
	$(BIN)/python tools/plugin.py

fuzz: $(STAMP)
	$(BIN)/python -m tests.campaigns.kills
	$(BIN)/python -m tests.campaigns.full_disk

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --editable ".[stac,onnx,openvino,umap,scale,view,dev]"
	.venv-lock/bin/python -m pip freeze --exclude-editable > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) demo runs .coverage* .mypy_cache .ruff_cache
