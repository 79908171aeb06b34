"""Statistics of a map per polygon, each pixel weighted by the share that the polygon covers of it.

In a CRS that does not keep areas, means, deviations and shares also weigh pixels by their area on the ground.

Source: exactextract (Baston 2023), which computes covered shares exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from pipeline.errors import InputError, LabelError, LegendError, counted
from pipeline.files import check_target, write_text
from pipeline.grid import Grid
from pipeline.labels.geometries import clean_polygons
from pipeline.labels.rasterise import to_grid_crs
from pipeline.labels.vectors import features_with
from pipeline.maps.legends import names_classes, read_scheme
from pipeline.maps.style import LAYERS
from pipeline.maps.vectors import PackageLayer, write_geopackage
from pipeline.process import need_package
from pipeline.raster import open_raster

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from rasterio.io import DatasetReader

STATISTICS = ("mean", "median", "stdev", "min", "max")
# Those that the area of pixels on the ground counts in, and the difference of areas from which it does.
_WEIGHTED, _ALIKE, _AREA = frozenset({"mean", "stdev", "frac"}), 1e-3, "ha"
# Names of the bands of a continuous map, as columns.
_BANDS = ("value", "lower", "upper")


def zonal_statistics(
    map_path: Path, polygons: Path, *, layer: str | None = None, classes: bool | None = None
) -> tuple[GeoDataFrame, tuple[str, ...]]:
    """A row per polygon, with its attributes and what the map says of it; and the names of the columns that say it.

    Of a map of values mean, median, deviation, least and most, of one of ``classes`` (None: by what the file says) the
    share of each class; and ``covered``, the share of the polygon that the map has data for.

    Raises:
        ConfigError: exactextract is not installed.
        InputError: the map or the polygons cannot be read or do not meet, or attributes have the names of statistics.
    """
    need_package("exactextract", what="zonal statistics need exactextract", extra="zonal")
    with open_raster(map_path, error=InputError, what="not a map that GDAL can open") as source:
        grid, count = _grid_of(source, map_path), source.count
        floating = source.dtypes[0].startswith("float")
        if classes and (floating or count > 1):
            raise InputError("no map of classes", path=map_path, got=f"{count} x {source.dtypes[0]}", expected="codes")
        classes = _holds_classes(source) if classes is None else classes
    pixel = grid.pixel_size[0] * grid.pixel_size[1]
    frame = features_with(polygons, fields=(), layer=layer)
    shapes, _ = clean_polygons(np.array(frame.geometry.array, dtype=object))
    if all(shape is None for shape in shapes):
        raise LabelError("no polygon to give statistics of", path=polygons, got=f"{len(frame)} features")
    frame = frame.set_geometry(list(shapes), crs=frame.crs)
    frame = to_grid_crs(frame[frame.geometry.notna()].reset_index(drop=True), grid)
    lost = ~np.isfinite(frame.geometry.bounds.to_numpy()).all(axis=1)
    if lost.any():
        what = "polygons reach beyond where the CRS of the map is defined"
        got = f"{counted(int(lost.sum()), 'polygon')} of {len(frame)}"
        raise LabelError(what, path=polygons, got=got, fix="cut them to the region of the map")
    wanted = ["frac", "unique", "count"] if classes else [*STATISTICS, "count"]
    found = _extract(map_path, frame, wanted, grid=grid)
    if not classes:
        names = _BANDS if count == len(_BANDS) and floating else tuple(f"band_{i + 1}" for i in range(count))
        told: dict[str, Any] = {}
        for number, name in enumerate(names, 1):
            prefix = f"band_{number}_" if count > 1 else ""
            for kind in STATISTICS if number == 1 else ("mean",):
                told[f"{name}_{kind}"] = found[f"{prefix}{kind}"].astype(float)
    else:
        told = _shares(map_path, found)
    pixels = found["band_1_count"] if "band_1_count" in found else found["count"]
    told["covered"] = (pixels * pixel / shapely.area(frame.geometry.array)).clip(0, 1)
    if not (told["covered"] > 0).any():
        raise InputError("no polygon lies on the map", path=polygons, expected=f"polygons within {map_path}")
    own = {name.lower() for name in told}
    if taken := [name for name in frame.columns if str(name).lower() in own]:
        what = "attributes have the names of statistics"
        raise LabelError(what, path=polygons, got=", ".join(taken), fix="rename or remove them")
    return frame.assign(**told), tuple(told)


def _extract(map_path: Path, frame: GeoDataFrame, wanted: list[str], *, grid: Grid) -> Any:
    """Statistics as exactextract gives them, where pixels differ in area weighted by theirs on the ground."""
    import exactextract
    from exactextract.raster import NumPyRasterSource

    smallest, largest = grid.pixel_area_range_ha
    if largest - smallest <= _ALIKE * largest:
        return exactextract.exact_extract(str(map_path), frame, wanted, output="pandas")
    left, bottom, right, top = grid.bounds
    areas = np.broadcast_to(grid.pixel_areas_ha(grid.window), grid.shape)
    weights = NumPyRasterSource(areas, xmin=left, ymin=bottom, xmax=right, ymax=top, name=_AREA)
    wanted = [f"weighted_{kind}" if kind in _WEIGHTED else kind for kind in wanted]
    found = exactextract.exact_extract(str(map_path), frame, wanted, weights=weights, output="pandas")
    return found.rename(columns=lambda name: name.replace(f"{_AREA}_", "").replace("weighted_", ""))


def _holds_classes(source: DatasetReader) -> bool:
    """One band of bytes that is none of per cent, or of other integers with a palette or names of classes."""
    if source.count > 1 or "int" not in source.dtypes[0] or source.descriptions[0] in {item.band for item in LAYERS}:
        return False
    return source.dtypes[0] == "uint8" or names_classes(source)


def _grid_of(source: DatasetReader, path: Path) -> Grid:
    """The grid of a map, where exactextract reads it right.

    Raises:
        InputError: no CRS, rows that do not run from north to south, or complex values.
    """
    if source.crs is None:
        raise InputError("map has no CRS", path=path, fix="set it with gdal_edit.py -a_srs")
    if any("complex" in kind or kind.startswith("cint") for kind in source.dtypes):
        raise InputError("map of complex numbers", path=path, expected="real numbers")
    a, b, _, d, e = source.transform[:5]
    if b or d or a < 0 or e > 0:
        raise InputError("map does not lie north up", path=path, fix="warp it with gdalwarp")
    return Grid.of(source)


def _shares(map_path: Path, found: Any) -> dict[str, Any]:
    """Share of each class in each polygon, by its name; NaN in polygons off the map."""
    try:
        scheme = read_scheme(map_path)
        names = dict(zip(scheme.codes, scheme.names, strict=True))
    except LegendError:
        names = {}
    shares: dict[str, Any] = {}
    empty = np.where([len(codes) > 0 for codes in found["unique"]], 0.0, np.nan)
    for row, (codes, parts) in enumerate(zip(found["unique"], found["frac"], strict=True)):
        for code, part in zip(codes, np.atleast_1d(parts), strict=False):
            name = names.get(int(code), f"class {int(code)}")
            shares.setdefault(f"share {name}", empty.copy())[row] = float(part)
    known = [f"share {name}" for name in names.values()]  # in the order of the legend, whatever a polygon holds
    return {name: shares[name] for name in [*known, *sorted(set(shares).difference(known))] if name in shares}


def write_zonal(path: Path, frame: GeoDataFrame, *, overwrite: bool) -> Path:
    """Write the rows as a GeoPackage, or as CSV without geometry where the name ends so.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    check_target(path, overwrite=overwrite)
    if path.suffix.lower() == ".csv":
        return write_text(path, frame.drop(columns=frame.geometry.name).to_csv(index=False))
    return write_geopackage(path, [PackageLayer("zonal", frame)], what="the statistics")
