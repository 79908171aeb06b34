"""What a writer needs of the pixels it writes: a shape, a type, windows on demand; and counts of class codes.

Whoever predicts keeps codes and confidence as rows on disk; writers take them through this seam in bands of rows, so a
map of any size is written in bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from pipeline.errors import GridError, InputError, LegendError
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA, ClassScheme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

# One row of 512-pixel blocks: a band of rows fills whole blocks of the file, so that each is compressed once.
BAND_ROWS = 512
_CODES = 256


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


class ArrayPixels:
    """An array (or memory-mapped file) of [row, col] or [band, row, col] as PixelRows."""

    def __init__(self, array: NDArray[Any]) -> None:
        if array.ndim not in {2, 3}:
            raise GridError("array of pixels", got=f"shape {array.shape}", expected="[row, col] or [band, row, col]")
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col) or (band, row, col)."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._array.dtype

    def read(self, window: Window) -> NDArray[Any]:
        """A view of the pixels of ``window``."""
        return self._array[(..., *window.slices)]


class FilePixels:
    """One band of a raster file as PixelRows; a context manager that keeps the file open meanwhile."""

    def __init__(self, path: Path | str, *, band: int = 1) -> None:
        try:
            self._dataset = rasterio.open(path)
        except (RasterioError, OSError) as err:
            raise InputError("cannot open the raster", path=path, got=err) from err
        self._band = band
        self.path = Path(path)
        self.grid = Grid(self._dataset.crs, self._dataset.transform, self._dataset.height, self._dataset.width)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._dataset.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, col)."""
        return self.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        dtype: np.dtype[Any] = np.dtype(self._dataset.dtypes[self._band - 1])
        return dtype

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
    """What a map holds.

    Attributes:
        scheme: The classes.
        pixels: Pixels per class, in the order of the scheme.
        area_ha: Area per class in ha (geodesic where the grid's CRS is not equal-area), in the order of the scheme.
        nodata_pixels: Pixels without an observation.
    """

    scheme: ClassScheme
    pixels: tuple[int, ...]
    area_ha: tuple[float, ...]
    nodata_pixels: int

    @property
    def total_ha(self) -> float:
        """Area of all classes in ha."""
        return sum(self.area_ha)

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
            raise LegendError(
                f"map has codes that are no class in rows {window.row}..{window.row_stop}",
                got=", ".join(map(str, strange)),
                expected="one of " + ", ".join(map(str, sorted(known))),
            )
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
