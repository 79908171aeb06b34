"""How a source's files are cut into blocks: a read decodes whole blocks, anew unless GDAL still has them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pipeline.process import silenced

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from pipeline.grid import Grid
    from pipeline.scenes.scene import Source

# Files that are looked at; of a stack of many dates they stand for the others, which are cut the same way.
_LOOKED_AT = 16
# Seconds of a core to decode a byte. Measured on an AVX-512 core: ten bands of deflated uint16 60 ns per pixel, one of
# lossless JPEG 2000 120 to 145 ns.
_DECODE_S = 3e-9
_DECODE_JPEG2000_S = 65e-9


@dataclass(frozen=True)
class Blocks:
    """The blocks of some bands.

    Attributes:
        rows: Height of a block in pixels of the source's grid.
        cols: Width of a block, likewise.
        bytes_per_px: What these bands take, decoded, per pixel of the grid.
        decode_s_per_px: Seconds of a core to decode them, per pixel of the grid.
    """

    rows: int
    cols: int
    bytes_per_px: float
    decode_s_per_px: float


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
