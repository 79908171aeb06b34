"""What every test may use: the folder of real scenes where it exists, and scenes made on the spot."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# One finished run, for whoever looks at one.
pytest_plugins = ("tests.fakes.finished",)

# No test measures time, on a busy machine least of all.
settings.register_profile("landcover", deadline=None)
settings.load_profile("landcover")

# Tests run side by side, one per core: more threads in each only wait for one another (two to ten times slower).
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _stay_on_one_core() -> None:
    """Give each of the processes of pytest-xdist a core of its own, where the system can.

    Forests then grow their trees one after the other. Measured on a training of a second: a quarter less time, of which
    joblib sleeps 10 ms each time that it waits for its threads.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


_stay_on_one_core()


def pytest_collection_finish() -> None:
    """Leave what the libraries made when they were imported out of collections: mapping a scene asks for three.

    Measured: 0.4 s of CPU each with torch, scikit-learn and pandas loaded, nothing afterwards.
    """
    _freeze()


def _freeze() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _cheap_collections() -> Iterator[None]:
    """Leave out what the tests of a file imported too: 0.2 s of CPU each after a few files."""
    yield
    _freeze()


# Real scenes for looking and testing lie beside the checkout where they exist; nothing of them is in the project.
SHARED = Path(os.environ.get("LANDCOVER_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines that tests pick are not kept in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDCOVER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scenes, or a skip with the reason."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"real scenes are not here ({folder}); set LANDCOVER_SHARED to their parent folder")
    return folder
