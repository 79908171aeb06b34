"""The C library's heap: asked where it can be, left alone where the user decided or there is none."""

from __future__ import annotations

import ctypes

import pytest

from pipeline import heap


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
    heap.share_one_heap()
    assert library.calls == [("mallopt", (-8, 1))]
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    heap.share_one_heap()
    heap.give_back()
    assert library.calls[1:] == [("malloc_trim", (0,))]


@pytest.mark.parametrize("missing", [OSError("no libc.so.6"), AttributeError("no such symbol")])
def test_another_c_library_is_left_alone(missing: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise missing

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    heap.share_one_heap()
    heap.give_back()
