from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OutputError
from pipeline.grid import Window
from pipeline.inference.rows import RowStore

if TYPE_CHECKING:
    from pathlib import Path


@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40), layers=st.integers(1, 3))
def test_any_window_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, height: int, width: int, layers: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.u8"
    kept = np.full((layers, height, width), 9, dtype=np.uint8)
    with RowStore.create(path, shape=(height, width), layers=layers, fill=9) as store:
        for _ in range(4):
            row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
            window = Window(row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col)))
            layer = data.draw(st.integers(0, layers - 1))
            pixels = np.random.default_rng(row).integers(0, 256, window.shape, dtype=np.uint8)
            store.write(window, pixels, layer=layer)
            kept[layer][window.slices] = pixels
            expected = kept[(slice(None), *window.slices)]
            assert np.array_equal(store.read(window), expected[0] if layers == 1 else expected)
        store.sync()
        assert store.shape == ((height, width) if layers == 1 else (layers, height, width))
    assert path.read_bytes() == kept.tobytes()


def test_the_whole_size_is_reserved_when_it_is_made(tmp_path: Path) -> None:
    RowStore.create(tmp_path / "a.u8", shape=(30, 50)).close()
    assert (tmp_path / "a.u8").stat().st_size == 1500


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.u8").write_bytes(b"123")
    with pytest.raises(OutputError, match="another size"):
        RowStore(tmp_path / "a.u8", shape=(2, 2))


def test_windows_beyond_the_map_and_odd_pixels_are_refused(tmp_path: Path) -> None:
    with RowStore.create(tmp_path / "a.u8", shape=(4, 4)) as store:
        with pytest.raises(OutputError, match="beyond"):
            store.read(Window(0, 0, 5, 1))
        with pytest.raises(OutputError, match="do not fit"):
            store.write(Window(0, 0, 2, 2), np.zeros((2, 3), dtype=np.uint8))


def test_a_full_disk_says_so_before_the_first_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"disk is full.*MB.*free some space"):
        RowStore.create(tmp_path / "a.u8", shape=(4, 4))
    assert not list(tmp_path.iterdir())


def test_a_missing_store_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot open"):
        RowStore(tmp_path / "gone.u8", shape=(1, 1))
