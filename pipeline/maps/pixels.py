"""What a writer needs of the pixels it writes: a shape, a type, windows; counts and filters of class codes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import GridError, InputError, LegendError
from pipeline.files import Closing
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA, ClassScheme
from pipeline.raster import as_error, require_regular

# One row of 512-pixel blocks: a band of rows fills whole blocks of the file, so that each is compressed once.
BAND_ROWS = 512
_CODES = 256
# Columns that are sieved together.
_COLUMNS = 2048


class PixelRows(Protocol):
    """Pixels that can be read by windows: [row, col], or [band, row, col] where there are several bands."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col) or (band, row, col)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def read(self, window: Window) -> NDArray[Any]:
        """The pixels of a window inside the grid: [row, col] or [band, row, col]."""


class FilePixels(Closing):
    """One band of a raster file as PixelRows; a context manager that keeps the file open meanwhile."""

    def __init__(self, path: Path | str, *, band: int = 1) -> None:
        require_regular(path, error=InputError)
        with as_error(InputError, "cannot open the raster", path=path):
            self._dataset = rasterio.open(path)
        self._band, self.path, self.grid = band, Path(path), Grid.of(self._dataset)
        self.bands, self.shape = int(self._dataset.count), self.grid.shape
        self.dtype: np.dtype[Any] = np.dtype(self._dataset.dtypes[band - 1])

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()

    def read(self, window: Window) -> NDArray[Any]:
        """The pixels of ``window``, [row, col]."""
        pixels: NDArray[Any] = self._dataset.read(self._band, window=window.to_rasterio())
        return pixels


def row_bands(grid: Grid, rows: int = BAND_ROWS) -> Iterator[Window]:
    """Windows of full width and at most ``rows`` rows, from the top, that partition the grid."""
    for row in range(0, grid.height, rows):
        yield Window(row, 0, min(rows, grid.height - row), grid.width)


def check_shape(pixels: PixelRows, grid: Grid) -> None:
    """GridError where the pixels do not fill the grid."""
    if tuple(pixels.shape[-2:]) != grid.shape:
        raise GridError("pixels do not fill the grid", got=f"{pixels.shape} pixels", expected=f"{grid.shape} pixels")


@dataclass(frozen=True)
class ClassCounts:
    """What a map holds."""

    scheme: ClassScheme  # The classes
    pixels: tuple[int, ...]  # Pixels per class, in the order of the scheme
    # Area per class in ha (geodesic where the grid's CRS is not equal-area), in the order of the scheme
    area_ha: tuple[float, ...]
    nodata_pixels: int  # Pixels without an observation

    @property
    def total_ha(self) -> float:
        """Area of all classes in ha."""
        return sum(self.area_ha)

    @property
    def mapped_share(self) -> float:
        """Share of all pixels that have a class."""
        return sum(self.pixels) / max(sum(self.pixels) + self.nodata_pixels, 1)

    def to_json(self) -> list[dict[str, int | float | str]]:
        """JSON-ready list of {code, name, color, pixels, area_ha, share}; share of the mapped area, 0..1."""
        total = self.total_ha or 1.0
        return [
            {"code": c.code, "name": c.name, "color": c.color, "pixels": n, "area_ha": ha, "share": ha / total}
            for c, n, ha in zip(self.scheme.classes, self.pixels, self.area_ha, strict=True)
        ]


class ClassCounter:
    """Counts codes band by band of rows."""

    def __init__(self, grid: Grid, scheme: ClassScheme) -> None:
        self._grid = grid
        self._scheme = scheme
        self._pixels = np.zeros(_CODES, dtype=np.int64)
        self._area_ha = np.zeros(_CODES, dtype=np.float64)

    def add(self, codes: NDArray[np.uint8], window: Window) -> None:
        """Count the codes uint8 [row, col] of a window of whole rows or parts of rows.

        Raises:
            LegendError: a code is neither nodata nor a class.
        """
        counts, area = areas_by_code(codes, self._grid.pixel_areas_ha(window), size=_CODES)
        known = {NODATA, *self._scheme.codes}
        strange = [int(code) for code in np.flatnonzero(counts) if int(code) not in known]
        if strange:
            what = f"map has codes that are no class in rows {window.row}..{window.row_stop}"
            expected = "one of " + ", ".join(map(str, sorted(known)))
            raise LegendError(what, got=", ".join(map(str, strange)), expected=expected)
        self._pixels += counts
        self._area_ha += area

    def result(self) -> ClassCounts:
        """The counts so far."""
        codes = list(self._scheme.codes)
        return ClassCounts(
            scheme=self._scheme,
            pixels=tuple(int(n) for n in self._pixels[codes]),
            area_ha=tuple(float(ha) for ha in self._area_ha[codes]),
            nodata_pixels=int(self._pixels[NODATA]),
        )


@dataclass(frozen=True, eq=False)
class FilteredPixels:
    """Codes uint8 [row, col] that are filtered when they are read; nodata stays nodata and has no vote."""

    pixels: PixelRows
    grid: Grid

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col)."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.pixels.dtype


@dataclass(frozen=True, eq=False)
class MajorityPixels(FilteredPixels):
    """Codes whose pixels take the class that most pixels of the window around them have; PixelRows.

    A pixel keeps its class where no other has more pixels.
    """

    side_px: int  # Side of the window, odd

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The filtered pixels of ``window``, uint8 [row, col]."""
        reach = self.side_px // 2
        seen = window.expand(reach)
        inside = seen.intersect(self.grid.window)
        codes = np.full(seen.shape, NODATA, dtype=np.uint8)
        if inside is not None:
            codes[inside.relative_to(seen).slices] = self.pixels.read(inside)
        inner = window.relative_to(seen).slices
        own = codes[inner]
        best, most = own.copy(), np.zeros(own.shape, dtype=np.int32)
        for code in np.unique(own[own != NODATA]):
            most = np.where(own == code, _votes(codes == code, self.side_px), most)
        for code in np.unique(codes[codes != NODATA]):
            votes = _votes(codes == code, self.side_px)
            better = (votes > most) & (own != NODATA)
            best[better], most[better] = code, votes[better]
        return best


def _votes(is_code: NDArray[np.bool_], side: int) -> NDArray[np.int32]:
    """Number of True pixels in the window around each inner pixel, int32 [row, col], from running sums."""
    total = np.zeros((is_code.shape[0] + 1, is_code.shape[1] + 1), dtype=np.int32)
    np.cumsum(np.cumsum(is_code, axis=0, dtype=np.int32), axis=1, out=total[1:, 1:])
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]


@dataclass(frozen=True, eq=False)
class SievedPixels(FilteredPixels):
    """Codes without patches of fewer than ``least_px`` pixels; PixelRows.

    Pixels of one class that touch along a side belong together. The pixels of a patch that is too small take the class
    of the nearest pixel of one that is not, at most ``least_px`` pixels away; where there is none they stay. Twice that
    distance around a window decides: the map does not depend on the bands it is read in, but for pixels with two
    equally near ones.
    """

    least_px: int  # Fewest pixels of a patch that stays

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The filtered pixels of ``window``, uint8 [row, col]."""
        out = np.empty(window.shape, dtype=np.uint8)
        for col in range(0, window.width, _COLUMNS):
            part = Window(window.row, window.col + col, window.height, min(_COLUMNS, window.width - col))
            out[:, col : col + part.width] = self._part(part)
        return out

    def _part(self, window: Window) -> NDArray[np.uint8]:
        seen = window.expand(2 * self.least_px).intersect(self.grid.window)
        assert seen is not None  # noqa: S101 - a window of the grid
        codes: NDArray[np.uint8] = self.pixels.read(seen)
        small = _small_patches(codes, self.least_px)
        inner = window.relative_to(seen).slices
        if not small[inner].any() or (large := ~small & (codes != NODATA)).sum() == 0:
            return codes[inner]
        distance, (rows, cols) = ndimage.distance_transform_edt(~large, return_indices=True)
        fill = small & (distance <= self.least_px)
        return np.where(fill, codes[rows, cols], codes)[inner]


def _small_patches(codes: NDArray[np.uint8], least_px: int) -> NDArray[np.bool_]:
    """True for pixels of patches of fewer pixels, bool [row, col]; those at the rim may go on beyond it."""
    small = np.zeros(codes.shape, dtype=np.bool_)
    for code in np.unique(codes[codes != NODATA]):
        labels, _ = ndimage.label(codes == code)
        few = np.bincount(labels.ravel()) < least_px
        few[0] = False
        small |= few[labels]
    return small


def patch_px(size_ha: float, grid: Grid) -> int:
    """Fewest pixels of a patch of so many hectares, by the area on the ground of the pixel in the grid's middle."""
    middle = Window(grid.height // 2, grid.width // 2, 1, 1)
    return max(math.ceil(size_ha / float(grid.pixel_areas_ha(middle).max()) - 1e-9), 1)
