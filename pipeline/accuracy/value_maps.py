"""A map of values against what was measured: which measurements there can be, and agreement on every pixel of a raster.

A reference on a grid of its own is read by nearest neighbour on the map's pixels, as those of class maps are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline.accuracy.class_maps import aligned, strips
from pipeline.documents import parse_json
from pipeline.errors import InputError, LabelWarning, ReferenceDataError, SceneError, factor_text
from pipeline.grid import Grid, Window
from pipeline.maps.geotiff import QUANTITY_TAG
from pipeline.quantity import Quantity, check_measured
from pipeline.raster import as_error, open_raster, require_regular

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT

# So many times as large, or as small, as the map's are values in another unit: kg for t, m for cm.
MOST_APART = 10.0
# Pixels of a strip that are looked at for that.
_LOOKED_AT = 10_000


def holds_values(path: Path) -> bool:
    """Whether a raster is a continuous map of this package."""
    try:
        with open_raster(path) as source:
            return QUANTITY_TAG in source.tags() and source.dtypes[0] == "float32"
    except SceneError:
        return False


@contextmanager
def open_value_map(path: Path) -> Iterator[tuple[DatasetReader, Quantity]]:
    """A continuous map, open for reading, and what it holds.

    Raises:
        InputError: the map cannot be read.
    """
    with open_raster(path, error=InputError, what="not a map that GDAL can open") as source:
        yield source, Quantity.from_json(parse_json(source.tags()[QUANTITY_TAG], what=f"the quantity of {path}"))


def check_reference(measured: NDArray[np.float64], quantity: Quantity, *, what: str, path: Path) -> None:
    """Refuse reference values, float64 [n] without blanks, that a map's quantity cannot have, as labels refuse them.

    Raises:
        ReferenceDataError: infinite values, such as stand for no data, or outside the map's range.
    """
    check_measured(measured, quantity, what=what, path=path, error=ReferenceDataError, stated=None)


def warn_of_units(measured: NDArray[np.float64], mapped: NDArray[np.float64], *, path: Path) -> None:
    """LabelWarning where the median ratio of measured and mapped values, float64 [n], is beyond MOST_APART."""
    some = (measured != 0) & (mapped != 0)
    ratio = float(np.median(np.abs(measured[some] / mapped[some]))) if some.any() else 1.0
    if not 1 / MOST_APART <= ratio <= MOST_APART:
        text = f"{path}: reference values are {factor_text(ratio)} than those of the map (median ratio)"
        warnings.warn(f"{text}: are they in the map's unit?", LabelWarning, stacklevel=3)


@dataclass(frozen=True)
class ValueAgreement:
    """A continuous map against a raster, on all pixels that both know; pixels count by their area."""

    quantity: Quantity  # What the map holds
    pixels: int  # How many were compared
    area_ha: float  # Their area
    share: float  # Of the map's area
    r2: float  # Share of the reference's variance that the map explains; 0 where the reference is constant
    rmse: float  # Root mean squared error
    mae: float  # Mean absolute error
    bias: float  # Mean of mapped less reference
    coverage: float  # Share within the map's interval of 90 %
    width: float  # Mean width of the interval

    def words(self) -> str:
        """What was compared, in sentences."""
        known = f"All {self.pixels:,} pixels with a value in both rasters were compared ({self.share:.1%} of the map's"
        return (
            f"{known} area): agreement with the reference raster, without sampling error; its own errors are unknown."
        )


class _Sums:
    """Sums over the pixels seen so far, weighted by area; values are taken from the first one, so that none cancel."""

    def __init__(self) -> None:
        self.pixels, self.total, self.first = 0, np.zeros(8), 0.0

    def add(self, truth: NDArray[np.float64], layers: NDArray[np.float64], area: NDArray[np.float64]) -> None:
        """Reference float64 [n]; value, lower and upper bound [3, n]; area in ha [n]."""
        if not self.pixels and len(truth):
            self.first = float(truth[0])
        value, lower, upper = layers
        away, error = truth - self.first, value - truth
        inside = (truth >= lower) & (truth <= upper)
        parts = (np.ones_like(away), away, away**2, error, np.abs(error), error**2, inside, upper - lower)
        self.total += [float((part * area).sum()) for part in parts]
        self.pixels += len(truth)

    def agreement(self, quantity: Quantity, *, mapped_ha: float) -> ValueAgreement:
        """The figures, given the area of the whole map."""
        area_ha = float(self.total[0])
        away, squares, bias, mae, square, coverage, width = (float(part) for part in self.total[1:] / area_ha)
        spread = squares - away**2
        r2 = 1 - square / spread if spread > 0 else 0.0
        share = area_ha / mapped_ha
        return ValueAgreement(
            quantity, self.pixels, area_ha, share, r2, float(np.sqrt(square)), mae, bias, coverage, width
        )


def compare_with_values(path: Path, reference: Path) -> ValueAgreement:
    """Agreement of a continuous map with the first band of a raster, strip by strip, on the map's pixels.

    Raises:
        ReferenceDataError: no pixel has a value in both, or the reference holds values that none can be.
        SceneError: the reference is no raster, or has no CRS.
        InputError: the map cannot be read.
    """
    sums, mapped_ha, looked = _Sums(), 0.0, []
    with ExitStack() as stack:
        source, quantity = stack.enter_context(open_value_map(path))
        grid = Grid.of(source)
        measured = _Reference(reference, grid, stack)
        for window in strips(grid, source.block_shapes[0][0]):
            block = source.read(window=window.to_rasterio(), masked=True)
            known, truth = ~np.ma.getmaskarray(block).any(axis=0), measured.read(window)
            area = np.broadcast_to(grid.pixel_areas_ha(window), known.shape)
            mapped_ha += float(area[known].sum())
            both = known & ~np.isnan(truth)
            where = f"rows {window.row} to {window.row_stop - 1} of the reference raster"
            check_reference(truth[both], quantity, what=where, path=reference)
            layers = block.data[:, both].astype(np.float64)
            sums.add(truth[both], layers, area[both])
            step = max(int(both.sum()) // _LOOKED_AT, 1)
            looked.append(np.stack([truth[both][::step], layers[0, ::step]]))
    if not sums.pixels:
        raise ReferenceDataError("no pixel has a value both in the map and in the reference", path=reference)
    warn_of_units(*np.concatenate(looked, axis=1), path=reference)
    return sums.agreement(quantity, mapped_ha=mapped_ha)


class _Reference:
    """The first band of a raster on the pixels of a grid, float64 with NaN where nothing is known."""

    def __init__(self, path: Path, grid: Grid, stack: ExitStack) -> None:
        require_regular(path, error=ReferenceDataError)
        self._path = path
        with as_error(SceneError, "not a raster that GDAL can open", path=path):
            dataset = stack.enter_context(rasterio.open(path))
        kind = np.dtype(dataset.dtypes[0])
        # What is read beyond the raster's edges where it declares no nodata.
        beyond = float("nan") if np.issubdtype(kind, np.floating) else float(np.iinfo(kind).max)
        self._empty = beyond if dataset.nodata is None else float(dataset.nodata)
        self._scale, self._offset = dataset.scales[0], dataset.offsets[0]
        self._dataset: DatasetReader | WarpedVRT = aligned(dataset, grid, stack, empty=self._empty)

    def read(self, window: Window) -> NDArray[np.float64]:
        """Values float64 [row, col] of a window."""
        with as_error(SceneError, "cannot read the raster", path=self._path):
            block = self._dataset.read(1, window=window.to_rasterio(), masked=True)
        values = block.data.astype(np.float64)
        known = ~np.ma.getmaskarray(block) & (values != self._empty)
        return np.where(known, values * self._scale + self._offset, np.nan)
