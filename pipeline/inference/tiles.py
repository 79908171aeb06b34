"""Tiles of a grid: what is read for the network, and what of it is written to the map.

Write windows partition the grid. A read window adds the halo, also beyond the scene's edge, where the reader gives
invalid pixels: a pixel at the edge sees the same context whatever the tiling. Reads start at multiples of the network's
stride and are multiples of it long, so that the cells of its poolings are the same pixels in every tiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import GridError
from pipeline.grid import Grid, Window

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Tile:
    """One step of mapping.

    Attributes:
        read: Pixels that the network sees; may reach beyond the grid.
        write: Pixels that are written; inside the grid and inside ``read``.
    """

    read: Window
    write: Window

    @property
    def inner(self) -> tuple[slice, slice]:
        """(row, column) slices of the write window in an array that holds the read window."""
        return self.write.relative_to(self.read).slices


def plan_tiles(
    grid: Grid,
    *,
    tile_px: int,
    halo_px: int,
    stride_px: int = 1,
    shift_px: int = 0,
    one_size: bool = False,
) -> tuple[Tile, ...]:
    """Tiles whose write windows partition the grid, row by row.

    Rows and columns are cut evenly: as many cuts as ``tile_px`` demands, all of about one size, so that no narrow
    remainder at the edge pays for a whole halo.

    Args:
        grid: The grid to map.
        tile_px: Largest side of a write window (at least one stride).
        halo_px: Pixels read on each side of it; rounded up to whole strides.
        stride_px: Total stride of the network: the side of one cell of its coarsest layer.
        shift_px: The first cut comes after so many pixels, rounded up to whole strides, if that is less than a tile.
        one_size: All read windows are as large as the largest, for engines that are compiled for a size.

    Raises:
        GridError: a size that is not positive.
    """
    if tile_px < 1 or stride_px < 1 or halo_px < 0:
        what = "tiles"
        raise GridError(
            what,
            got=f"tile_px {tile_px}, halo_px {halo_px}, stride_px {stride_px}",
            expected="tile_px and stride_px at least 1, halo_px not negative",
        )
    halo = round_up(halo_px, stride_px)
    columns = _cut(grid.width, tile_px=tile_px, stride_px=stride_px, shift_px=shift_px)
    rows = _cut(grid.height, tile_px=tile_px, stride_px=stride_px, shift_px=shift_px)
    least = max(height for _, height in rows) if one_size else 0, max(width for _, width in columns) if one_size else 0
    tiles = []
    for row, height in rows:
        for col, width in columns:
            write = Window(row, col, height, width)
            shape = (_whole(max(pair), halo, stride_px) for pair in zip(write.shape, least, strict=True))
            read = Window(row - halo, col - halo, *shape)
            tiles.append(Tile(read, write))
    return tuple(tiles)


def round_up(value: int, step: int) -> int:
    """``value`` or the next multiple of ``step``.

    >>> round_up(33, 32), round_up(32, 32), round_up(0, 32)
    (64, 32, 0)
    """
    return -(-value // step) * step


def _whole(size: int, halo: int, stride: int) -> int:
    return round_up(size, stride) + 2 * halo


def _cut(length: int, *, tile_px: int, stride_px: int, shift_px: int = 0) -> list[tuple[int, int]]:
    """(start, size) of equal cuts in whole strides; the last takes what remains."""
    largest = max(tile_px // stride_px, 1) * stride_px
    first = round_up(shift_px, stride_px) % largest
    if not 0 < first < length:
        return list(_cuts(length, largest, stride_px))
    return [(0, first), *((first + start, size) for start, size in _cuts(length - first, largest, stride_px))]


def _cuts(length: int, largest: int, stride: int) -> Iterator[tuple[int, int]]:
    number = -(-length // largest)
    size = round_up(-(-length // number), stride)
    for start in range(0, length, size):
        yield start, min(size, length - start)
