"""Areas of interest and masks: polygons or a raster that say which pixels of a grid are mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.labels.settings import split_source
from pipeline.raster import burn_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray
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
        InputError: a file without polygons or without CRS, or an area of interest that lies off the scene.
    """
    if aoi is None and mask is None:
        return None
    inside = _polygons(Path(aoi), grid) if aoi is not None else None
    if inside is not None:
        from shapely.geometry import box

        if not inside.intersects(box(*grid.bounds)):
            raise InputError(
                "area of interest lies outside the scene",
                path=aoi,
                got=f"bounds {tuple(round(v, 3) for v in inside.bounds)}",
                expected=f"bounds that meet {tuple(round(v, 3) for v in grid.bounds)} ({grid.crs})",
            )
    return Area(grid, inside, _polygons(Path(mask), grid) if mask is not None else None)


def _polygons(path: Path, grid: Grid) -> BaseGeometry:
    """All polygons of a file as one geometry in the grid's CRS."""
    import geopandas

    file, layer = split_source(str(path))
    path = Path(file)
    if not path.exists():
        raise InputError("no such file", path=path)
    try:
        frame = (
            geopandas.read_parquet(path)
            if path.suffix.lower() == ".parquet"
            else geopandas.read_file(path, layer=layer)
        )
    except Exception as err:
        raise InputError(
            "polygons cannot be read", path=path, got=err, expected="a GeoPackage or another vector file"
        ) from err
    if frame.crs is None:
        raise InputError("polygons have no CRS", path=path, fix="assign one in QGIS and save again")
    shapes = frame.geometry[~(frame.geometry.isna() | frame.geometry.is_empty)]
    shapes = shapes[shapes.geom_type.isin(["Polygon", "MultiPolygon"])].to_crs(str(grid.crs))
    if shapes.empty:
        raise InputError("file holds no polygons", path=path)
    merged: BaseGeometry = shapes.make_valid().union_all()
    return merged
