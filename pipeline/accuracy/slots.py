"""Class rasters of any integer type, as up to 254 slots, so that public maps can be compared as they come.

Public legends have codes beyond 255 (CORINE: 111 to 523), negative ones, or a class 0 (Dynamic World: water). The
values of a raster get slots 1, 2, ... in the order in which they are met; slot 0 is what the file declares as nodata.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from pipeline.accuracy.strata import aligned
from pipeline.errors import ReferenceDataError, SceneError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT

    from pipeline.grid import Grid, Window

MAX_VALUES = 254


class SlotReader:
    """Slots uint8 [row, col] of windows; ``values`` grows with what has been read: slot k holds values[k - 1]."""

    def __init__(self, dataset: DatasetReader | WarpedVRT, *, path: Path | str, nodata: float) -> None:
        self.values: list[int] = []
        self._dataset, self._path, self._nodata = dataset, path, nodata
        self._type = np.dtype(dataset.dtypes[0])
        small = self._type.itemsize <= 2  # noqa: PLR2004 - 16 bits: a table of all values
        self._table = np.zeros(2 ** (8 * self._type.itemsize), dtype=np.uint8) if small else None

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Slots of a window.

        Raises:
            ReferenceDataError: more values than a legend has.
            SceneError: damaged blocks.
        """
        try:
            values = self._dataset.read(1, window=window.to_rasterio())
        except (RasterioError, OSError) as err:
            raise SceneError("cannot read the raster", path=self._path, got=err) from err
        if self._table is None:
            present, inverse = np.unique(values, return_inverse=True)
            slots = np.array([self._slot(int(value)) for value in present], dtype=np.uint8)
            return np.asarray(slots[inverse].reshape(values.shape))
        lowest = int(np.iinfo(self._type).min)
        position = values.astype(np.int32) - lowest if lowest else values
        seen = np.flatnonzero(np.bincount(position.ravel(), minlength=len(self._table)))
        for number in seen[self._table[seen] == 0].tolist():
            self._table[number] = self._slot(number + lowest)
        found: NDArray[np.uint8] = self._table[position]
        return found

    def _slot(self, value: int) -> int:
        if value == self._nodata:
            return 0
        if value not in self.values:
            if len(self.values) == MAX_VALUES:
                raise ReferenceDataError(
                    f"raster with more than {MAX_VALUES} values is not one of classes", path=self._path
                )
            self.values.append(value)
        return self.values.index(value) + 1


@contextmanager
def open_slots(path: Path | str, grid: Grid | None = None) -> Iterator[SlotReader]:
    """A raster of integers, on its own pixels or by nearest neighbour on those of ``grid``.

    What the file declares as nodata is empty, and so is the largest number of its type (255 of 8 bits).

    Raises:
        SceneError: not a raster, or without CRS.
        ReferenceDataError: not one of integers.
    """
    with ExitStack() as stack:
        try:
            dataset = stack.enter_context(rasterio.open(path))
        except RasterioError as err:
            raise SceneError("not a raster that GDAL can open", path=path, got=err) from err
        kind = np.dtype(dataset.dtypes[0])
        if not np.issubdtype(kind, np.integer):
            raise ReferenceDataError("raster is not one of classes", path=path, got=kind, expected="integers")
        empty = dataset.nodata if dataset.nodata is not None else float(np.iinfo(kind).max)
        pixels = dataset if grid is None else aligned(dataset, grid, stack, empty=empty)
        yield SlotReader(pixels, path=path, nodata=empty)
