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


def pytest_collection_finish() -> None:
    """Leave what the libraries made when they were imported out of collections: mapping a scene asks for several.

    Measured: 0.4 s of CPU each with torch, scikit-learn and pandas loaded, nothing afterwards.
    """
    gc.collect()
    gc.freeze()


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
