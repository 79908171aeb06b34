"""Tiles of a grid: what is read for the network, and what of it is written to the map.

Write windows partition the grid. A read window adds the halo, also beyond the scene's edge, where the reader gives
invalid pixels: a pixel at the edge sees the same context whatever the tiling. Reads start at multiples of the network's
stride and are multiples of it long, so that the cells of its poolings are the same pixels in every tiling.

Tiles are mapped row by row, or in stripes of columns, so that blocks of a file are decoded once: a row of tiles ends
inside a row of the file's blocks, and by the time the next row of tiles comes GDAL's cache has dropped them (at 10980
pixels, ten bands and blocks of 512 a row of blocks is 112 MB; tiles of 832 then decode 1.7 times as much as they need).
Where the cache cannot hold what two rows of tiles share, it holds that of a stripe of columns, and only what stripes
share is decoded again. Smaller tiles leave memory to the cache: JPEG 2000, which takes longer to decode than a network
to run, is mapped faster with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pipeline.errors import GridError
from pipeline.grid import Grid, Window
from pipeline.process import silenced

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from pipeline.scenes.scene import Source

# Blocks that GDAL keeps decoded; more where tiles leave room for it and decoding is saved.
GDAL_CACHE_BYTES = 128_000_000
# Share of the cache that a row of tiles may fill: another worker is at work in the next row meanwhile.
_SHARE = 0.9
# Seconds of a core that a network takes for a pixel: 0.16 to 0.50 per Mpx (docs/scale.md).
_NETWORK_S_PER_PX = 0.25e-6
# Tiles are not made smaller than this: below it calls cost more than their pixels.
SMALLEST_PX = 512
# A smaller tile must save so much: less is within what the figures above are off.
_WORTH_IT = 0.98


@dataclass(frozen=True)
class Tile:
    """One step of mapping."""

    read: Window  # Pixels that the network sees; may reach beyond the grid
    write: Window  # Pixels that are written; inside the grid and inside ``read``

    @property
    def inner(self) -> tuple[slice, slice]:
        """(row, column) slices of the write window in an array that holds the read window."""
        return self.write.relative_to(self.read).slices


def plan_tiles(
    grid: Grid, *, tile_px: int, halo_px: int, stride_px: int = 1, one_size: bool = False
) -> tuple[Tile, ...]:
    """Tiles whose write windows partition the grid, row by row.

    Rows and columns are cut evenly: as many cuts as ``tile_px`` demands, all of about one size, so that no narrow
    remainder at the edge pays for a whole halo.

    Args:
        grid: The grid to map.
        tile_px: Largest side of a write window (at least one stride).
        halo_px: Pixels read on each side of it; rounded up to whole strides.
        stride_px: Total stride of the network: the side of one cell of its coarsest layer.
        one_size: All read windows are as large as the largest, for engines that are compiled for a size.

    Raises:
        GridError: a size that is not positive.
    """
    if tile_px < 1 or stride_px < 1 or halo_px < 0:
        got = f"tile_px {tile_px}, halo_px {halo_px}, stride_px {stride_px}"
        raise GridError("tiles", got=got, expected="tile_px and stride_px at least 1, halo_px not negative")
    halo = round_up(halo_px, stride_px)
    largest = max(tile_px // stride_px, 1) * stride_px
    rows, columns = (list(cut(length, largest, stride_px)) for length in grid.shape)
    least = max(height for _, height in rows) if one_size else 0, max(width for _, width in columns) if one_size else 0
    tiles = []
    for row, height in rows:
        for col, width in columns:
            write = Window(row, col, height, width)
            sides = (round_up(max(pair), stride_px) + 2 * halo for pair in zip(write.shape, least, strict=True))
            tiles.append(Tile(Window(row - halo, col - halo, *sides), write))
    return tuple(tiles)


def round_up(value: int, step: int) -> int:
    """``value`` or the next multiple of ``step``.

    >>> round_up(33, 32), round_up(32, 32), round_up(0, 32)
    (64, 32, 0)
    """
    return -(-value // step) * step


def cut(length: int, largest: int, stride: int) -> Iterator[tuple[int, int]]:
    """(start, size) of equal cuts of at most about ``largest``, in whole strides; the last takes what remains."""
    number = -(-length // max(largest, stride))
    size = round_up(-(-length // number), stride)
    for start in range(0, length, size):
        yield start, min(size, length - start)


@dataclass(frozen=True)
class Order:
    """How a scene is gone through."""

    columns: int  # Columns of tiles that are mapped before the next ones; 0 for all
    cache_bytes: int  # GDAL's cache
    decode_s_per_px: float  # Seconds of a core to decode what is read, per pixel that is written
    decode_again: float = 1.0  # How many times a block is decoded on average, at least 1


def order_of(files: Sequence[Blocks], *, tile_px: int, halo_px: int, width_px: int, cache_bytes: int) -> Order:
    """The order in which the least is decoded again.

    The scene, ``width_px`` wide, is cut evenly into tiles of at most ``tile_px``; ``cache_bytes`` is what GDAL may
    take.

    >>> from pipeline.inference.tiles import Blocks
    >>> tiled, strips = Blocks(512, 512, 20, 60e-9), Blocks(1, 10980, 20, 60e-9)
    >>> order_of([tiled], tile_px=832, halo_px=32, width_px=10980, cache_bytes=128_000_000).columns
    4
    >>> order_of([strips], tile_px=832, halo_px=32, width_px=10980, cache_bytes=128_000_000).columns
    0
    """
    tile_px = -(-width_px // -(-width_px // tile_px))
    side = tile_px + 2 * halo_px
    fitting = _SHARE * cache_bytes
    # Bytes of all rows of blocks that a row of tiles can touch, per pixel of width.
    row_bytes = sum(file.bytes_per_px * (-(-(side - 1) // file.rows) + 1) * file.rows for file in files)
    widest = max([min(file.cols, width_px) for file in files], default=0)
    once = sum(file.decode_s_per_px for file in files)
    if row_bytes * width_px <= fitting:
        return Order(0, min(cache_bytes, max(round(row_bytes * width_px / _SHARE), GDAL_CACHE_BYTES)), once)

    def cost(*, wide: int) -> float:
        """Seconds per pixel in stripes of a width: a window touches some pixels less than a block more than its own."""
        return sum(file.decode_s_per_px * (wide + 2 * halo_px + file.cols - 1) / wide for file in files)

    # Row by row: what rows of tiles share is decoded again, and whole rows for each tile where not even one stays.
    by_rows = sum(file.decode_s_per_px * (side + file.rows - 1) / tile_px for file in files)
    if row_bytes * min(side + widest, width_px) > fitting:
        by_rows *= min(cost(wide=tile_px) / once, -(-width_px // tile_px))
    columns = int((fitting / row_bytes - 2 * halo_px - widest) // tile_px)
    if columns < 1 or cost(wide=columns * tile_px) >= by_rows:
        return Order(0, cache_bytes, by_rows, by_rows / once)
    by_stripes = cost(wide=columns * tile_px)
    return Order(columns, cache_bytes, by_stripes, by_stripes / once)


def quickest(order: Callable[[int], Order], *, largest_px: int, halo_px: int, stride_px: int) -> tuple[int, Order]:
    """The side of tiles, no larger than memory allows, with which halo and decoding cost least; and the order.

    ``order`` gives that for tiles of a side, with the cache that they leave room for.
    """

    def cost(side: int) -> float:
        return _NETWORK_S_PER_PX * (1 + 2 * halo_px / side) ** 2 + order(side).decode_s_per_px

    best = min(
        range(round_up(SMALLEST_PX, stride_px), largest_px, round_up(64, stride_px)), key=cost, default=largest_px
    )
    side = best if cost(best) < _WORTH_IT * cost(largest_px) else largest_px
    return side, order(side)


def in_stripes(tiles: Sequence[Tile], columns: int) -> list[Tile]:
    """The tiles of a grid, which come row by row, in stripes of so many columns; 0 leaves them as they are."""
    if not columns:
        return list(tiles)
    number = {col: i // columns for i, col in enumerate(sorted({tile.write.col for tile in tiles}))}
    return sorted(tiles, key=lambda tile: number[tile.write.col])


# Files that are looked at; of a stack of many dates they stand for the others, which are cut the same way.
_LOOKED_AT = 16
# Seconds of a core to decode a byte. Measured on an AVX-512 core: ten bands of deflated uint16 60 ns per pixel, one of
# lossless JPEG 2000 120 to 145 ns.
_DECODE_S = 3e-9
_DECODE_JPEG2000_S = 65e-9


@dataclass(frozen=True)
class Blocks:
    """The blocks of some bands."""

    rows: int  # Height of a block in pixels of the source's grid
    cols: int  # Width of a block, likewise
    bytes_per_px: float  # What these bands take, decoded, per pixel of the grid
    decode_s_per_px: float  # Seconds of a core to decode them, per pixel of the grid


def file_blocks(source: Source) -> tuple[Blocks, ...]:
    """The blocks of the rasters among the files of ``source``.

    A mask of polygons has none, nor has a file that cannot be opened (whoever reads it says why).
    """
    files = source.files[:_LOOKED_AT]
    found = []
    for name in files:
        with suppress(RasterioError), silenced(NotGeoreferencedWarning), rasterio.open(name) as file:
            found.append(_blocks(file, source.grid, share=len(source.files) / len(files)))
    return tuple(found)


def _blocks(file: DatasetReader, grid: Grid, *, share: float) -> Blocks:
    rows, cols = file.block_shapes[0]
    side = abs(file.transform.a / grid.transform.a) if file.crs == grid.crs else 1.0
    size = share * file.count * max(np.dtype(name).itemsize for name in file.dtypes) / side**2
    speed = _DECODE_JPEG2000_S if file.driver.startswith("JP2") else _DECODE_S
    return Blocks(max(round(rows * side), 1), max(round(cols * side), 1), size, size * speed)
