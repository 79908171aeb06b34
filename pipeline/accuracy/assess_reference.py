"""Reference data as units of an assessment: points and polygons, each with the map's class and its own.

Only the blocks of the map that hold a unit are read. Whatever cannot be used is listed with its reason, never dropped
in silence. Rasters as reference are compared pixel by pixel in :mod:`pipeline.accuracy.assess_rasters`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.class_maps import codes_at, open_class_map, read_codes
from pipeline.accuracy.crosswalk import OMITTED, check_known, label_text, to_codes
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid
from pipeline.labels.settings import split_source
from pipeline.legend import NODATA, ClassScheme
from pipeline.raster import burn_shapes

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


ID_FIELDS = ("id", "PLOTID", "plotid", "poly_id", "fid")
_COORDINATES = (("LON", "LAT"), ("lon", "lat"), ("longitude", "latitude"), ("x", "y"), ("X", "Y"))
_GEOGRAPHIC = frozenset({"LON", "lon", "longitude"})
_GEOMETRIES = {"points": {"Point"}, "polygons": {"Polygon", "MultiPolygon"}}
POLYGON_RULE = (
    "A polygon counts once, whatever its size, and is right where the map gives its class to more of its pixels than "
    "any other; figures per pixel, as those of a run's report, are others."
)
"""When a polygon of a reference is right, and why other figures of the same polygons differ."""
_BLANK = {NODATA: "not interpreted", OMITTED: "class left out by the crosswalk"}
# Row, col, x, y, code of the map, and the reason why a unit cannot be used, each [unit].
_Located = tuple[
    "NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.float64]", "NDArray[np.float64]", "NDArray[np.uint8]",
    "NDArray[Any]",
]  # fmt: skip


@dataclass(frozen=True)
class Excluded:
    """A reference unit that could not be used."""

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class ReferenceUnits:
    """Reference units on a map."""

    kind: str  # "points" or "polygons"
    id: tuple[str, ...]  # Identifier of each unit, as text
    row: NDArray[np.int32]  # [unit] pixel of a point, centre pixel of a polygon
    col: NDArray[np.int32]  # [unit]
    x: NDArray[np.float64]  # [unit] coordinates in the map's CRS
    y: NDArray[np.float64]  # [unit]
    map_code: NDArray[np.uint8]  # [unit] class of the map (of most pixels, for polygons)
    reference_code: NDArray[np.uint8]  # [unit] class of the reference, in codes of the map's legend
    excluded: tuple[Excluded, ...] = field(default=())  # What was left out and why
    has_ids: bool = True  # Whether the file brought its own identifiers

    def __len__(self) -> int:
        """Number of usable units."""
        return len(self.id)

    def keep(self, mask: NDArray[np.bool_], reasons: Mapping[int, str]) -> ReferenceUnits:
        """The units where ``mask`` is True; the others join ``excluded`` with the reason of their position."""
        gone = tuple(Excluded(self.id[i], reasons[int(i)]) for i in np.flatnonzero(~mask))
        arrays = ("row", "col", "x", "y", "map_code", "reference_code")
        return replace(
            self, id=tuple(name for name, good in zip(self.id, mask, strict=True) if good),
            excluded=self.excluded + gone, **{name: getattr(self, name)[mask] for name in arrays},
        )  # fmt: skip


def read_reference(
    path: Path | str,
    *, map_path: Path | str, scheme: ClassScheme, field: str, crosswalk: Mapping[str, str] | None = None,
) -> ReferenceUnits:  # fmt: skip
    """Points or polygons of a vector file (or a CSV with coordinates) on a map.

    A CSV has LON,LAT (WGS84) or x,y (the map's CRS); ``crosswalk`` gives the map's class of a reference class.

    Raises:
        ReferenceDataError: no such file or field, no CRS, mixed geometries, nothing usable.
        LegendError: classes that neither legend nor crosswalk knows.
    """
    frame = _read_vector(path, map_path)
    if field not in frame.columns:
        have = ", ".join(str(name) for name in frame.columns if name != "geometry")
        raise ReferenceDataError(f"reference has no field {field!r}", path=path, got=have)
    if frame.crs is None:
        raise ReferenceDataError("reference has no CRS", path=path, fix="set it in QGIS or with ogr2ogr -a_srs")
    ids, has_ids = _ids(frame)
    codes, unknown = to_codes(list(frame[field]), scheme=scheme, crosswalk=crosswalk)
    check_known(unknown, scheme=scheme, path=path)
    with open_class_map(map_path) as dataset:
        geometry = frame.to_crs(dataset.crs).geometry
        empty = np.asarray(geometry.is_empty | geometry.isna())
        kinds = set(geometry[~empty].geom_type)
        known = next((kind for kind, names in _GEOMETRIES.items() if kinds and kinds <= names), None)
        if known is None:
            got = ", ".join(sorted(kinds)) or "no geometry"
            raise ReferenceDataError("reference geometry", path=path, got=got, expected="points, or polygons")
        locate = _points if known == "points" else _polygons
        row, col, x, y, mapped, faults = locate(dataset, geometry, empty)
    why = [
        str(reason) or ("on nodata" if code == NODATA else _BLANK.get(int(truth), ""))
        for reason, code, truth in zip(faults, mapped, codes, strict=True)
    ]
    units = ReferenceUnits(
        known, tuple(ids), row.astype(np.int32), col.astype(np.int32), x, y, mapped,
        np.maximum(codes, 0).astype(np.uint8), has_ids=has_ids,
    )  # fmt: skip
    units = units.keep(np.array([not text for text in why], dtype=np.bool_), dict(enumerate(why)))
    if known == "points" and len(units):
        units = _without_duplicates(units)
    if len(units) == 0:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(e.reason for e in units.excluded).items())
        blank = bool(units.excluded) and {item.reason for item in units.excluded} == {_BLANK[NODATA]}
        fix = f"fill in its field {field} with a class of the map for each unit (in QGIS), and save" if blank else None
        raise ReferenceDataError("no usable reference unit", path=path, got=reasons or "an empty file", fix=fix)
    return units


def _read_vector(path: Path | str, map_path: Path | str) -> Any:
    import geopandas
    import pandas as pd
    from pyogrio.errors import DataLayerError, DataSourceError

    path, layer = split_source(str(path))
    if not Path(path).exists():
        raise ReferenceDataError("no such file", path=path)
    try:
        if Path(path).suffix.lower() == ".parquet":
            return geopandas.read_parquet(path)
        if Path(path).suffix.lower() != ".csv":
            return geopandas.read_file(path, layer=layer or first_layer(path))
        table = pd.read_csv(path)
    except (DataSourceError, DataLayerError, OSError, ValueError) as err:
        raise ReferenceDataError("reference cannot be read", path=path, got=err) from err
    pair = next((pair for pair in _COORDINATES if set(pair) <= set(table.columns)), None)
    if pair is None:
        raise ReferenceDataError(
            "CSV without coordinates", path=path, expected="columns LON,LAT (WGS84) or x,y (CRS of the map)"
        )
    with open_class_map(map_path) as dataset:
        crs = "EPSG:4326" if pair[0] in _GEOGRAPHIC else dataset.crs.to_wkt()
    return geopandas.GeoDataFrame(table, geometry=geopandas.points_from_xy(table[pair[0]], table[pair[1]]), crs=crs)


def first_layer(path: Path | str) -> str:
    """The first layer with geometry: a GeoPackage that QGIS knows also holds a table of styles.

    Raises:
        ReferenceDataError: none of the layers has geometry.
    """
    import pyogrio

    names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if not names:
        raise ReferenceDataError("file without a layer of points or polygons", path=path)
    return names[0]


def _ids(frame: Any) -> tuple[list[str], bool]:
    name = next((name for name in ID_FIELDS if name in frame.columns), None)
    if name is None:
        return [str(number) for number in range(1, len(frame) + 1)], False
    ids = [label_text(value) for value in frame[name]]
    if len(set(ids)) < len(ids):  # a field that QGIS added and nobody filled, say
        return [str(number) for number in range(1, len(frame) + 1)], False
    return ids, True


def _points(dataset: DatasetReader, geometry: Any, empty: NDArray[np.bool_]) -> _Located:
    grid = Grid.of(dataset)
    x, y = (np.where(empty, np.nan, np.asarray(part)) for part in (geometry.x, geometry.y))
    inverse = ~grid.transform
    place = np.floor([inverse.e * y + inverse.f, inverse.a * x + inverse.c])
    row, col = np.where(np.isfinite(place), place, -1.0).astype(np.int64)
    inside = (row >= 0) & (row < grid.height) & (col >= 0) & (col < grid.width) & ~empty
    mapped = np.zeros(len(row), dtype=np.uint8)
    mapped[inside] = codes_at(dataset, row[inside], col[inside])
    return row, col, x, y, mapped, np.where(empty, "without geometry", np.where(inside, "", "outside the map"))


def _polygons(dataset: DatasetReader, geometry: Any, empty: NDArray[np.bool_]) -> _Located:
    """Each polygon is one unit: what counts is the class of most of its pixels, not their number."""
    grid, n = Grid.of(dataset), len(empty)
    x, y, row, col = np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1), np.full(n, -1)
    mapped = np.zeros(n, dtype=np.uint8)
    reasons = np.where(empty, "without geometry", "outside the map").astype(object)
    for i, shape in enumerate(geometry):
        counts = None if empty[i] else _pixels_inside(dataset, grid, shape)
        if counts is None:
            continue
        point = shape.representative_point()
        x[i], y[i] = point.x, point.y
        row[i], col[i] = grid.rowcol(point.x, point.y)
        mapped[i] = counts.argmax()
        tied = counts.any() and np.count_nonzero(counts == counts.max()) > 1
        reasons[i] = "two classes of the map share it equally" if tied else ""
    return row, col, x, y, mapped, reasons


def _pixels_inside(dataset: DatasetReader, grid: Grid, shape: Any) -> NDArray[np.int64] | None:
    """Map pixels per code inside a polygon, nodata not counted; None outside the map."""
    window = grid.window_of_bounds(shape.bounds)
    if window is None:
        return None
    crop = grid.crop(window)
    inside = burn_shapes([shape], crop) > 0
    if not inside.any():  # thinner than a pixel: what it touches
        inside = burn_shapes([shape], crop, all_touched=True) > 0
    counts = np.bincount(read_codes(dataset, window)[inside], minlength=256)
    counts[NODATA] = 0
    return counts


def _without_duplicates(units: ReferenceUnits) -> ReferenceUnits:
    """Points in one pixel are one unit: the first stays, unless they contradict each other, when none does."""
    import pandas as pd

    table = pd.DataFrame({"row": units.row, "col": units.col, "code": units.reference_code})
    contradicted = table.groupby(["row", "col"])["code"].transform("nunique") > 1
    keep = ~(table.duplicated(["row", "col"]) | contradicted)
    other = np.where(contradicted, "in one pixel with a unit of another class", "in one pixel with another unit")
    return units.keep(keep.to_numpy(), dict(enumerate(other.tolist())))
