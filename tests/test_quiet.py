"""Silence holds for each thread however they overlap, and ends when the last has left."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from affine import Affine
from shapely.geometry import box

from pipeline.grid import Grid
from pipeline.quiet import silenced
from pipeline.raster import burn_shapes

SIDES = [1 + number % 9 for number in range(400)]


def test_a_thread_that_leaves_keeps_the_silence_of_another() -> None:
    warnings.simplefilter("error")
    inside, asked = threading.Event(), threading.Event()

    def second() -> None:
        asked.set()
        with silenced(UserWarning):
            inside.set()
            warnings.warn("second", UserWarning, stacklevel=1)

    with ThreadPoolExecutor(1) as pool:
        with silenced(UserWarning):
            waiting = pool.submit(second)
            assert asked.wait(5)
            assert not inside.wait(0.05)
            warnings.warn("first", UserWarning, stacklevel=1)
        waiting.result(5)
    with pytest.raises(UserWarning, match="after"):
        warnings.warn("after", UserWarning, stacklevel=1)


def test_it_silences_only_what_it_was_asked_to() -> None:
    with silenced(UserWarning), pytest.warns(FutureWarning, match="other"):
        warnings.warn("other", FutureWarning, stacklevel=1)


def test_many_threads_burn_polygons_without_a_warning() -> None:
    warnings.simplefilter("error")
    # Its transform is the identity, of which rasterio warns.
    grid = Grid("EPSG:32633", Affine.identity(), 30, 30)
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda side: int(burn_shapes([box(0, 0, side, side)], grid).sum()), SIDES)
    assert list(made) == [side**2 for side in SIDES]
