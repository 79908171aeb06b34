"""The notebooks run from top to bottom, and are stored without outputs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].cell_type == "markdown"


def run_with_nbmake(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a copy of a notebook in a folder of its own, as ``pytest --nbmake`` does."""
    copy = shutil.copy(path, folder / path.name)
    # Kernels are children of this process: what they train on shares the machine with other tests.
    inline = "module://matplotlib_inline.backend_inline"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1", "MPLBACKEND": inline}
    options = ["--nbmake", "--nbmake-timeout=600", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(copy)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_in_a_folder_of_its_own(path, tmp_path):
    done = run_with_nbmake(path, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_notebook_with_an_error_fails(tmp_path):
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(broken, tmp_path / "broken.ipynb")
    (tmp_path / "run").mkdir()
    done = run_with_nbmake(tmp_path / "broken.ipynb", tmp_path / "run")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
