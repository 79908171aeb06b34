"""Statistics of a map per polygon, each pixel weighted by the share that the polygon covers of it.

Source: exactextract (Baston 2023), which computes covered shares exactly.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ConfigError, InputError, LabelError, LegendError
from pipeline.files import check_target
from pipeline.labels.geometries import clean_polygons
from pipeline.labels.vectors import features_with
from pipeline.maps.legends import read_scheme
from pipeline.maps.vectors import Layer, write_geopackage
from pipeline.raster import open_raster

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame

STATISTICS = ("mean", "median", "stdev", "min", "max")
# Names of the bands of a continuous map, as columns.
_BANDS = ("value", "lower", "upper")


def zonal_statistics(map_path: Path, polygons: Path, *, layer: str | None = None) -> GeoDataFrame:
    """A row per polygon, with its attributes and what the map says of it.

    Of a map of values mean, median, deviation, least and most, of a class map the share of each class; and
    ``covered``, the share of the polygon that the map has data for.

    Raises:
        ConfigError: exactextract is not installed.
        InputError: the map or the polygons cannot be read, or do not meet.
    """
    if find_spec("exactextract") is None:
        raise ConfigError("zonal statistics need exactextract", fix="pip install 'landcover-pipeline[zonal]'")
    import exactextract

    with open_raster(map_path, error=InputError, what="not a map that GDAL can open") as source:
        crs, classes, count = source.crs, source.dtypes[0] == "uint8", source.count
        pixel = abs(source.transform.a * source.transform.e)
    frame = features_with(polygons, fields=(), layer=layer)
    shapes, _ = clean_polygons(np.array(frame.geometry.array, dtype=object))
    if all(shape is None for shape in shapes):
        raise LabelError("no polygon to give statistics of", path=polygons, got=f"{len(frame)} features")
    frame = frame.set_geometry(list(shapes), crs=frame.crs)
    frame = frame[frame.geometry.notna()].reset_index(drop=True).to_crs(crs)
    wanted = ["frac", "unique", "count"] if classes else [*STATISTICS, "count"]
    found = exactextract.exact_extract(str(map_path), frame, wanted, output="pandas")
    if not classes:
        names = _BANDS if count == len(_BANDS) else tuple(f"band_{i + 1}" for i in range(count))
        for number, name in enumerate(names, 1):
            prefix = f"band_{number}_" if count > 1 else ""
            for kind in STATISTICS if number == 1 else ("mean",):
                frame[f"{name}_{kind}"] = found[f"{prefix}{kind}"].astype(float)
    counted = found["band_1_count"] if "band_1_count" in found else found["count"]
    frame["covered"] = (counted * pixel / frame.geometry.area).clip(0, 1)
    if not (frame["covered"] > 0).any():
        raise InputError("no polygon lies on the map", path=polygons, expected=f"polygons within {map_path}")
    return frame.assign(**_shares(map_path, found)) if classes else frame


def _shares(map_path: Path, found: Any) -> dict[str, Any]:
    """Share of each class in each polygon, by its name."""
    try:
        scheme = read_scheme(map_path)
        names = dict(zip(scheme.codes, scheme.names, strict=True))
    except LegendError:
        names = {}
    shares: dict[str, Any] = {}
    for row, (codes, parts) in enumerate(zip(found["unique"], found["frac"], strict=True)):
        for code, part in zip(codes, np.atleast_1d(parts), strict=False):
            name = names.get(int(code), f"class {int(code)}")
            shares.setdefault(f"share {name}", np.zeros(len(found)))[row] = float(part)
    return shares


def write_zonal(path: Path, frame: GeoDataFrame, *, overwrite: bool) -> Path:
    """Write the rows as a GeoPackage, or as CSV without geometry where the name ends so.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    from pipeline.files import write_text

    check_target(path, overwrite=overwrite)
    if path.suffix.lower() == ".csv":
        return write_text(path, frame.drop(columns=frame.geometry.name).to_csv(index=False))
    return write_geopackage(path, [Layer("zonal", frame)], what="the statistics")
