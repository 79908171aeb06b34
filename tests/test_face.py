"""The public names: each is there, each is described, and none is imported before it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).resolve().parents[1]
NAMES = [name for name in pipeline.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_where_the_table_says(name):
    found = getattr(pipeline, name)
    module, _, attribute = pipeline._HOMES[name].partition(":")
    assert found is getattr(sys.modules[module], attribute)
    assert found.__module__ == module, "the table names where it is defined"
    assert found.__doc__


def test_there_are_about_twenty_public_names():
    assert 15 <= len(NAMES) <= 28
    assert set(pipeline.__all__) <= set(dir(pipeline))


def test_no_public_name_hides_a_room():
    rooms = {path.stem for path in Path(pipeline.__file__).parent.iterdir()}
    assert rooms.isdisjoint(NAMES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'open_sceen'"):
        _ = pipeline.open_sceen


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, json, pipeline; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "rasterio", "numpy", "geopandas", "pydantic", "typer"}
    assert heavy.isdisjoint(json.loads(done.stdout))


def test_the_notebook_of_the_api_needs_one_import():
    cells = json.loads((ROOT / "notebooks" / "04_python_api.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    assert [line for line in code.splitlines() if "pipeline" in line] == ["import pipeline as lc"]
