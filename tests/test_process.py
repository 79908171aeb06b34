"""Warnings are silenced for each thread however they overlap; the heap is asked where it can be."""

from __future__ import annotations

import ctypes
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from affine import Affine
from shapely.geometry import box

from pipeline import process
from pipeline.grid import Grid
from pipeline.process import silenced
from pipeline.raster import burn_shapes

SIDES = [1 + number % 9 for number in range(400)]


class Library:
    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def mallopt(self, *values: int) -> None:
        self.calls.append(("mallopt", values))

    def malloc_trim(self, *values: int) -> None:
        self.calls.append(("malloc_trim", values))


def test_threads_share_a_heap_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    process.share_one_heap()
    assert library.calls == [("mallopt", (-8, 1))]
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    process.share_one_heap()
    process.give_back()
    assert library.calls[1:] == [("malloc_trim", (0,))]


@pytest.mark.parametrize("missing", [OSError("no libc.so.6"), AttributeError("no such symbol")])
def test_another_c_library_is_left_alone(missing: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise missing

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    process.share_one_heap()
    process.give_back()


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
