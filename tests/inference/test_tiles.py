from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GridError
from pipeline.inference.tiles import plan_tiles
from tests.inference.models import grid_of

SIZES = st.integers(1, 300)


@given(height=SIZES, width=SIZES, tile_px=SIZES, halo_px=st.integers(0, 50), stride=st.sampled_from([1, 2, 4, 16, 32]))
def test_write_windows_partition_any_grid(height: int, width: int, tile_px: int, halo_px: int, stride: int) -> None:
    counts = np.zeros((height, width), dtype=int)
    for tile in plan_tiles(grid_of(height, width), tile_px=tile_px, halo_px=halo_px, stride_px=stride):
        counts[tile.write.slices] += 1
        assert max(tile.write.shape) <= max(tile_px, stride)
    assert (counts == 1).all()


@given(height=SIZES, width=SIZES, tile_px=SIZES, halo_px=st.integers(0, 50), stride=st.sampled_from([1, 2, 4, 16, 32]))
def test_reads_hold_the_halo_and_start_and_end_on_whole_strides(
    height: int, width: int, tile_px: int, halo_px: int, stride: int
) -> None:
    for tile in plan_tiles(grid_of(height, width), tile_px=tile_px, halo_px=halo_px, stride_px=stride):
        assert tile.read.intersect(tile.write.expand(halo_px)) == tile.write.expand(halo_px)
        assert all(value % stride == 0 for value in (tile.read.row, tile.read.col, *tile.read.shape))
        assert tile.inner[0].stop - tile.inner[0].start == tile.write.height


@given(height=SIZES, tile_px=SIZES)
def test_tiles_are_of_about_one_size_without_slivers(height: int, tile_px: int) -> None:
    sizes = [tile.write.height for tile in plan_tiles(grid_of(height, 1), tile_px=tile_px, halo_px=0)]
    assert len(sizes) == -(-height // sizes[0])
    assert len(set(sizes[:-1])) <= 1
    assert sizes[0] == max(sizes)


@given(height=SIZES, width=SIZES, tile_px=SIZES, halo_px=st.integers(0, 50), stride=st.sampled_from([1, 2, 4, 16, 32]))
def test_of_one_size_only_what_is_read_grows(height: int, width: int, tile_px: int, halo_px: int, stride: int) -> None:
    sizes = {"tile_px": tile_px, "halo_px": halo_px, "stride_px": stride}
    plain, equal = (plan_tiles(grid_of(height, width), one_size=kind, **sizes) for kind in (False, True))
    assert [tile.write for tile in plain] == [tile.write for tile in equal]
    assert {tile.read.shape for tile in equal} == {
        (max(tile.read.height for tile in plain), max(tile.read.width for tile in plain))
    }
    for one, other in zip(plain, equal, strict=True):
        assert (one.read.row, one.read.col) == (other.read.row, other.read.col)


@pytest.mark.parametrize("sizes", [(0, 0, 1), (1, -1, 1), (1, 0, 0)])
def test_sizes_without_meaning_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(GridError, match="tile_px"):
        plan_tiles(grid_of(5, 5), tile_px=sizes[0], halo_px=sizes[1], stride_px=sizes[2])
