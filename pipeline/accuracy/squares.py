"""Squares of the map, the primary units of cluster samples: their sizes, and the pixels drawn in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.pixels import grid_of, read_codes, strips
from pipeline.errors import ReferenceDataError
from pipeline.grid import Window
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader


def cluster_sizes(dataset: DatasetReader, side: int) -> NDArray[np.int64]:
    """Valid pixels of every square of ``side`` pixels, int64 [square row, square col].

    Raises:
        ReferenceDataError: a side below 1.
    """
    if side < 1:
        raise ReferenceDataError("side of a cluster in pixels", got=side, expected="at least 1")
    across = -(-dataset.width // side)
    sizes = np.zeros((-(-dataset.height // side), across), dtype=np.int64)
    for window in strips(grid_of(dataset), dataset.block_shapes[0][0]):
        valid = read_codes(dataset, window) != NODATA
        by_col = np.add.reduceat(valid.astype(np.int32), np.arange(0, dataset.width, side), axis=1)
        np.add.at(sizes, np.arange(window.row, window.row_stop) // side, by_col)
    return sizes


def pixels_inside(
    dataset: DatasetReader, square: int, side: int, per_cluster: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows and columns int32 of the valid pixels of a square, or of ``per_cluster`` of them drawn at random."""
    top, left = (part * side for part in divmod(square, -(-dataset.width // side)))
    window = Window(top, left, min(side, dataset.height - top), min(side, dataset.width - left))
    row, col = np.nonzero(read_codes(dataset, window) != NODATA)
    if per_cluster is not None:
        chosen = rng.choice(len(row), min(per_cluster, len(row)), replace=False)
        row, col = row[chosen], col[chosen]
    return (row + top).astype(np.int32), (col + left).astype(np.int32)
