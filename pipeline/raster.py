"""Raster: pixels with their validity, band names and place; files brought onto a grid, and shapes burned on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, ShapeSkipWarning
from rasterio.features import rasterize
from rasterio.io import MemoryFile
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from pipeline.errors import SceneError
from pipeline.quiet import silenced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.grid import Grid


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of some bands on a grid.

    Attributes:
        values: float32 [band, row, col]; reflectance 0..1 for optical bands, the band's own unit otherwise.
            Finite everywhere; 0 where not valid.
        valid: bool [row, col]; True where every band can be used.
        bands: Names, one per band.
        grid: Where the pixels lie.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    bands: tuple[str, ...]
    grid: Grid

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        expected = (len(self.bands), *self.grid.shape)
        if self.values.shape != expected or self.valid.shape != expected[1:]:
            what = "raster with arrays of another shape than its bands and grid"
            raise SceneError(what, got=f"values {self.values.shape}, valid {self.valid.shape}", expected=expected)
        if self.values.dtype != np.float32 or self.valid.dtype != np.bool_:
            what = "raster with arrays of another type"
            raise SceneError(what, got=f"{self.values.dtype}, {self.valid.dtype}", expected="float32, bool")

    def band(self, name: str) -> NDArray[np.float32]:
        """One band, float32 [row, col]."""
        try:
            layer: NDArray[np.float32] = self.values[self.bands.index(name)]
        except ValueError as err:
            raise SceneError(f"raster has no band {name!r}", got=", ".join(self.bands)) from err
        return layer


def on_grid(
    dataset: DatasetReader,
    grid: Grid,
    *,
    resampling: str = "nearest",
    nodata: float | None = None,
    ignore_tag: bool = False,
    add_alpha: bool = False,
    tolerance_px: float = 0.125,
) -> WarpedVRT:
    """A file as GDAL warps it onto the pixels of ``grid``, window by window; to be closed by the caller.

    Args:
        dataset: Open, with a CRS.
        grid: Whose pixels are read.
        resampling: A name of ``rasterio.enums.Resampling``.
        nodata: What the file has where it has nothing, and what is read beyond its edges; None: as the file says.
        ignore_tag: With ``nodata`` None, every value in the file is one, whatever its tag says.
        add_alpha: A mask of where the file has pixels, as the last band.
        tolerance_px: How far GDAL may approximate coordinates, in pixels of the file. Source: gdalwarp, -et.
    """
    filled = {} if nodata is None and not ignore_tag else {"src_nodata": nodata, "nodata": nodata}
    return WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling[resampling],
        add_alpha=add_alpha,
        tolerance=tolerance_px,
        **filled,
    )


def without_alpha(dataset: DatasetReader) -> DatasetReader:
    """The same file with no band taken for transparency, which warping would apply; to be closed by the caller.

    GDAL tags the fourth byte band of many files as alpha; where it is near infrared, warping would clear the pixels of
    all bands where it is 0. Its tag cannot be overruled when warping, only in a virtual raster of the file.
    """
    with MemoryFile(ext=".vrt") as memory:
        copy(dataset, memory.name, driver="VRT")
        text = memory.read().decode("utf-8")
    return rasterio.open(text.replace("<ColorInterp>Alpha</ColorInterp>", "<ColorInterp>Undefined</ColorInterp>"))


def burn_shapes(
    shapes: Sequence[Any], grid: Grid, *, all_touched: bool = False, values: Sequence[int] | None = None
) -> NDArray[Any]:
    """Pixels of ``grid`` whose centre lies in one of the shapes (or that one touches, with ``all_touched``).

    Args:
        shapes: Geometries in the grid's CRS, as shapely's or GeoJSON's.
        grid: Where they are burned.
        all_touched: Take every pixel that a shape touches.
        values: One per shape; later shapes win.

    Returns:
        uint8 [row, col] of 0 and 1; with ``values`` those, int32 [row, col], and -1 outside all shapes.
    """
    kind, outside = ("uint8", 0) if values is None else ("int32", -1)
    if not len(shapes):
        return np.full(grid.shape, outside, dtype=kind)
    pairs = zip(shapes, [1] * len(shapes) if values is None else values, strict=True)
    # rasterio silences NotGeoreferencedWarning too, but not for other threads.
    with silenced(NotGeoreferencedWarning), silenced(ShapeSkipWarning):
        burnt: NDArray[Any] = rasterize(
            list(pairs),
            out_shape=grid.shape,
            transform=grid.transform,
            fill=outside,
            all_touched=all_touched,
            dtype=kind,
        )
    return burnt
