# `make demo` and `make test` each set up what they need. Nothing but python3 and make is needed before them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
USERS := $(VENV)/.installed
DEVELOPERS := $(VENV)/.installed-dev
JOBS ?= 2
EXTRAS := --extra stac --extra onnx --extra openvino --extra umap --extra segments --extra zonal --extra scale --extra view --extra weights --extra dev
# What was tested is what is locked: torch and torchvision are a matching pair.
LOCKED := --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-strip-extras --no-annotate --quiet

.PHONY: demo test coverage check docs house bench fuzz lock clean system-packages plugin

$(USERS): requirements.lock pyproject.toml
	@echo "Installing into $(VENV): 6.6 GB, of it 5.3 GB PyTorch with its GPU libraries; about 4 minutes (README: a smaller one)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(USERS)

$(DEVELOPERS): requirements-dev.lock $(USERS)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	touch $(DEVELOPERS)

demo: $(USERS)
	$(BIN)/landcover demo --overwrite
	@echo "In this terminal: . $(BIN)/activate, and landcover is a command."

docs: $(DEVELOPERS)
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site

check: $(DEVELOPERS) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q --doctest-modules pipeline

system-packages:
	@sh tests/install_system_packages.sh

test: $(DEVELOPERS) system-packages check
	$(BIN)/python -m pytest -q -rs -n $(JOBS) --dist worksteal --durations=40 tests

# The same tests take a third longer where lines are counted.
coverage: $(DEVELOPERS) system-packages
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --cov --cov-report= tests
	$(BIN)/coverage combine --quiet --keep 2>/dev/null || true
	$(BIN)/coverage report --fail-under=90 --skip-covered

house:
	@$(PYTHON) tools/house.py

# The QGIS plugin as a zip: Plugins > Manage and Install Plugins > Install from ZIP.
plugin: $(USERS)
	$(BIN)/python tools/plugin.py

fuzz: $(DEVELOPERS)
	$(BIN)/python -m tests.campaigns.kills
	$(BIN)/python -m tests.campaigns.full_disk
	$(BIN)/python -m tests.campaigns.hostile

bench: $(DEVELOPERS)
	$(BIN)/python -m tests.benchmarks

# The versions that are locked now are kept where they still fit; remove the files first to take new ones.
lock:
	test -x .venv-lock/bin/uv || ($(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv)
	UV_CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/uv pip compile pyproject.toml $(EXTRAS) $(LOCKED) \
		-c tools/torch_pair.txt -o requirements-dev.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/uv pip compile pyproject.toml --extra stac --extra view --extra weights $(LOCKED) \
		-c requirements-dev.lock -o requirements.lock

clean:
	rm -rf $(VENV) .venv-lock demo runs build dist .coverage* .mypy_cache .ruff_cache
