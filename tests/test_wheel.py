"""The wheel: its metadata are those that an index takes, and it works away from the project's folder."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.fakes.generator import load_generator

ROOT = Path(__file__).resolve().parents[1]
# Of the sample data's Sentinel-2 scene: a sixth of its area.
SIDE_PX = 320
LOCKS = ("requirements.lock", "requirements-dev.lock")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sources as git has them, with the setuptools that is here; its sample data cover less ground."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file() and name.split("/")[0] not in {"tests", "docs"}:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    generator = load_generator()
    generator.generate(source / "sample_data", SIDE_PX, generator.SEED)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (folder / "dist").glob("*.whl")
    return found


def test_an_index_would_take_it(wheel):
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "PASSED" in done.stdout


def test_its_metadata_say_who_where_and_what(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        about = email.message_from_bytes(file.read(name))
    assert about["Author-email"]
    assert about["Keywords"]
    assert {item.split(",")[0] for item in about.get_all("Project-URL")} == {"Documentation", "Source", "Issues"}
    assert about["License-Expression"] == "Apache-2.0"


def test_every_file_of_the_package_is_in_it(wheel):
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    tracked = subprocess.run(["git", "ls-files", "pipeline"], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = {name for name in tracked.stdout.split() if (ROOT / name).exists()} - inside
    assert missing == set()


def test_the_demo_runs_where_only_the_wheel_is_installed(wheel, tmp_path):
    """A new environment sees the packages of this one, but neither the project's folder nor its editable install."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    target = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    # A plain path after its own: .pth files in there, such as that of an editable install, are not read.
    (target / "others.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    small = (
        "training.experts.trees=4", "training.experts.soft_pixels=2000", "training.pixels.steps=60",
        "training.context.enabled=false", "chips.labelled=60", "chips.unlabelled=10", "assessment.forest_trees=10",
        "assessment.features=false",
    )  # fmt: skip
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "landcover", "demo", *(part for key in small for part in ("--set", key))],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "demo-run" / "maps" / "sentinel2_lc.tif").exists()
    where = subprocess.run(
        [python, "-c", "import pipeline; print(pipeline.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(tmp_path)


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_hashes_and_name_no_server(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    packages = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(packages) > 50
    assert all(line.endswith(" \\") and "==" in line for line in packages)
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text


def test_what_users_install_is_a_part_of_what_is_tested():
    users, developers = (
        {line.split(" ")[0] for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if "==" in line}
        for name in LOCKS
    )
    assert users < developers
    assert not {line.split("==")[0] for line in users} & {
        "pytest",
        "mypy",
        "ruff",
        "playwright",
        "mkdocs",
        "hypothesis",
    }
