"""Areas of interest and masks: polygons that say which pixels of a grid are mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.labels.footprints import read_footprints
from pipeline.raster import burn_shapes

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from pipeline.grid import Grid, Window


@dataclass(frozen=True, eq=False)
class Area:
    """Which pixels of a grid are mapped: those whose centre lies in ``inside`` and not in ``outside``."""

    grid: Grid  # The grid that windows are counted on
    inside: BaseGeometry | None = None  # Geometry in the grid's CRS; None for everywhere
    outside: BaseGeometry | None = None  # Geometry in the grid's CRS; None for nowhere

    @property
    def inside_px(self) -> float:
        """Pixels of the grid that ``inside`` covers, or all."""
        from shapely.geometry import box

        frame = box(*self.grid.bounds)
        share = 1.0 if self.inside is None else self.inside.intersection(frame).area / frame.area
        return share * self.grid.height * self.grid.width

    def touches(self, window: Window) -> bool:
        """Whether a pixel of ``window`` may be mapped."""
        from shapely.geometry import box
        from shapely.prepared import prep

        frame = box(*self.grid.crop(window).bounds)
        if self.inside is not None and not prep(self.inside).intersects(frame):
            return False
        return self.outside is None or not prep(self.outside).contains(frame)

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """Bool [row, col]: True where a pixel is mapped."""
        chosen = np.ones(window.shape, dtype=np.bool_)
        if self.inside is not None:
            chosen &= self._burn(self.inside, window)
        if self.outside is not None:
            chosen &= ~self._burn(self.outside, window)
        return chosen

    def _burn(self, geometry: BaseGeometry, window: Window) -> NDArray[np.bool_]:
        return burn_shapes([] if geometry.is_empty else [geometry], self.grid.crop(window)) > 0


def read_area(grid: Grid, *, aoi: Path | str | None = None, mask: Path | str | None = None) -> Area | None:
    """The area to map: inside the polygons of ``aoi``, outside those of ``mask``; None without both.

    Any vector file that GDAL or GeoParquet opens, in any CRS.

    Raises:
        InputError: not a vector file, no polygons, no CRS, or an area of interest that lies off the scene.
    """
    if aoi is None and mask is None:
        return None
    inside = _polygons(aoi, grid) if aoi is not None else None
    if inside is not None:
        from shapely.geometry import box

        if not inside.intersects(box(*grid.bounds)):
            found, wanted = (tuple(round(side, 3) for side in bounds) for bounds in (inside.bounds, grid.bounds))
            expected = f"bounds that meet {wanted} ({grid.crs})"
            raise InputError(
                "area of interest lies outside the scene", path=aoi, got=f"bounds {found}", expected=expected
            )
    return Area(grid, inside, _polygons(mask, grid) if mask is not None else None)


def _polygons(path: Path | str, grid: Grid) -> BaseGeometry:
    """All polygons of a file as one geometry in the grid's CRS."""
    merged: BaseGeometry = read_footprints(path).geometry.to_crs(str(grid.crs)).make_valid().union_all()
    return merged
