"""Points or polygons with a number, or a raster of values -> Labels whose frame also has value, group and date.

The code of a sample is its value class, so that splits, chips and tables treat samples like polygons of classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.labels.geometries import clean_polygons, is_point
from pipeline.labels.rasterise import LabelledPixels, burn, to_grid_crs
from pipeline.labels.source import LabelReport, Labels
from pipeline.labels.vectors import features_with
from pipeline.quantity import Quantity, check_values
from pipeline.raster import open_raster

if TYPE_CHECKING:
    import pandas as pd
    from geopandas import GeoDataFrame

    from pipeline.grid import Grid
    from pipeline.labels.settings import LabelSettings

_SHOWN = 3
# Classes may be numbered 1.1, 1.2 ... (CORINE has 44); a measurement has more values than that.
MOST_DECIMAL_CLASSES = 50
# Fewer samples per group on average, and to keep groups together is to draw rows: neighbours lie on both sides.
FEWEST_PER_GROUP = 1.5
# Text is a measurement where more than this share of it is numbers with decimals.
_MEASURED = 0.8
RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".img", ".jp2", ".nc"})


def read_values(settings: LabelSettings) -> tuple[Labels, Quantity]:
    """The samples of a continuous target, and the quantity with what its distribution says.

    Features without geometry or value are left out and counted; a multipoint is one sample.

    Returns:
        Labels with columns poly_id, code (value class), name, feature, value float64, group str, date (datetime64, NaT
        without), one per covariate, geometry; and the quantity.

    Raises:
        LabelError: text where numbers are needed, too few samples, a constant, values outside the range, no such file
            or attribute.
    """
    path = Path(settings.path)
    if settings.also and is_raster(path):
        raise LabelError("labels.also beside a raster of values", path=path, fix="name a vector file as path")
    frame = raster_samples(path, count=settings.value.raster_samples) if is_raster(path) else _features(settings)
    field = settings.field or "value"
    stated = settings.value
    geometry = np.array(frame.geometry.array, dtype=object)
    empty = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    values = frame["value"].to_numpy(dtype=np.float64)
    blank = np.isnan(values)
    point = is_point(geometry)
    shapes, repaired = clean_polygons(geometry)
    shapes[point] = shapely.force_2d(geometry[point])
    shapes[[not np.isfinite(shapely.get_coordinates(shape)).all() for shape in shapes]] = None
    lost = shapely.is_missing(shapes) & ~empty
    keep = ~empty & ~blank & ~lost
    low, high = stated.range or (None, None)
    quantity = Quantity(field, stated.unit, low, high, stated.transform)
    check_values(values[keep], quantity, what=repr(field), path=path)
    quantity = quantity.fitted(values[keep])
    report = LabelReport(len(frame), int((repaired & keep).sum()), int((lost & ~blank).sum()), 0, int(empty.sum()),
                         int((blank & ~empty).sum()), 0, int(keep.sum()))  # fmt: skip
    kept = frame[keep].reset_index(drop=True).set_geometry(list(shapes[keep]))
    codes, scheme = quantity.codes(values[keep]), quantity.scheme
    columns = {"poly_id": np.arange(1, keep.sum() + 1, dtype=np.int32), "code": codes,
               "name": [scheme.by_code(int(code)).name for code in codes],
               "feature": np.flatnonzero(keep).astype(np.int64)}  # fmt: skip
    return Labels(path, kept.assign(**columns), scheme, report), quantity


def holds_several(group: Sequence[str]) -> bool:
    """Whether groups hold FEWEST_PER_GROUP samples each on average, so that to keep them together holds anything out.

    >>> holds_several(["a", "a", "b", "b"]), holds_several(["a", "b", "c"])
    (True, False)
    """
    return len(group) >= FEWEST_PER_GROUP * len(set(group))


def is_raster(path: Path) -> bool:
    """Whether labels are a raster of values, by the ending of its name."""
    return path.suffix.lower() in RASTER_SUFFIXES


def is_continuous(labels: Path, *, field: str, layer: str | None, encoding: str | None) -> bool:
    """Whether a field holds measurements: numbers of which some have decimals, and more than classes would have.

    A raster of floating point numbers holds measurements too.
    """
    if is_raster(labels):
        with open_raster(labels, what="the labels") as source:
            return str(source.dtypes[0]).startswith("float")
    column = features_with(labels, fields=[field], layer=layer, encoding=encoding)[field].dropna()
    if not len(column):
        return False
    if column.dtype.kind not in "fiu":
        _refuse_mixed(column, labels)
        return False
    return bool((column % 1 != 0).any()) and column.nunique() > MOST_DECIMAL_CLASSES


def _refuse_mixed(column: pd.Series[Any], labels: Path) -> None:
    """Refuse text of which nearly all are measurements: classes they are not.

    Raises:
        LabelError: most of many values are numbers with decimals, after a point or a comma.
    """
    text = column.astype(str).str.strip()
    if text.nunique() > MOST_DECIMAL_CLASSES and text.str.fullmatch(r"[+-]?\d+[.,]\d+").mean() > _MEASURED:
        odd = text[~text.str.fullmatch(r"[+-]?\d+(\.\d+)?")]
        shown = (odd if len(odd) else text).iloc[0]
        what = f"field {column.name!r} has numbers as text"
        fix = "write decimals with a point, and leave blank what is unknown"
        raise LabelError(what, path=labels, got=f"such as {shown!r}", expected="a numeric field, or classes", fix=fix)


def _features(settings: LabelSettings) -> GeoDataFrame:
    """Features with columns value, group, date, the covariates, and geometry.

    Raises:
        LabelError: no field named, text in a numeric one, or a date that is none.
    """
    import geopandas as gpd
    import pandas as pd

    path, stated = Path(settings.path), settings.value
    if not settings.field:
        raise LabelError("labels.field is missing", path=path, fix="name the attribute that holds the value")
    wanted = [settings.field, stated.group, stated.date, *stated.covariates]
    fields = [name for name in wanted if name]
    found = features_with(path, fields=fields, layer=settings.layer, encoding=settings.encoding)
    more = [features_with(Path(file), fields=fields, encoding=settings.encoding) for file in settings.also]
    found = gpd.GeoDataFrame(pd.concat([found, *(part.to_crs(found.crs) for part in more)], ignore_index=True))
    columns: dict[str, Any] = {"value": numbers_of(found[settings.field], path=path)}
    columns |= {name: numbers_of(found[name], path=path) for name in stated.covariates}
    columns["group"] = found[stated.group].astype(str) if stated.group else ""
    columns["date"] = pd.NaT
    if stated.date:
        days = found[stated.date]
        if pd.api.types.is_numeric_dtype(days):  # 20240601; pandas would count nanoseconds since 1970
            days = days.map("{:.10g}".format, na_action="ignore").astype(object)
            days = days.mask(days.notna() & ~days.astype(str).str.fullmatch(r"(?:19|20)\d{6}"), "no date")
        how = None if pd.api.types.is_datetime64_any_dtype(days) else "ISO8601"
        dates = pd.to_datetime(days, errors="coerce", utc=True, format=how).dt.tz_localize(None)
        bad = dates.isna() & found[stated.date].notna()
        if bad.any():
            what = f"{int(bad.sum())} dates in {stated.date!r} are none"
            got = repr(found[stated.date][bad].iloc[0])
            raise LabelError(what, path=path, got=got, expected="a date such as 2024-06-01")
        columns["date"] = dates.dt.normalize()
    return gpd.GeoDataFrame(columns, geometry=list(found.geometry), crs=found.crs)


def numbers_of(column: pd.Series[Any], *, path: Path) -> NDArray[np.float64]:
    """A column as float64, NaN where null.

    Raises:
        LabelError: text that is no number.
    """
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    bad = numbers.isna() & column.notna() & (column.astype(str).str.strip() != "")
    if bad.any():
        shown = ", ".join(map(repr, column[bad].unique()[:_SHOWN]))
        what = f"field {column.name!r} has text where numbers are needed"
        got = f"{shown} in {counted(int(bad.sum()), 'feature')}"
        raise LabelError(what, path=path, got=got, fix="correct it, or leave it blank where there is no measurement")
    return numbers.to_numpy(dtype=np.float64)


def raster_samples(path: Path, *, count: int) -> GeoDataFrame:
    """``count`` pixels of a raster of values, drawn without replacement from those with data, as points.

    Raises:
        LabelError: no raster, or no pixel with data.
    """
    import geopandas as gpd
    import pandas as pd
    import rasterio

    try:
        with rasterio.open(path) as source:
            if source.crs is None:
                raise LabelError("the raster of values has no CRS", path=path, fix="set it with gdal_edit.py -a_srs")
            rng = np.random.default_rng(0)
            rows, values = [], []
            # Block by block: a raster of any size is sampled in bounded memory.
            for _, window in source.block_windows(1):
                block = source.read(1, window=window, masked=True)
                row, col = np.nonzero(~np.ma.getmaskarray(block) & np.isfinite(block.filled(0)))
                chosen = rng.permutation(len(row))[:count]
                rows.append(np.stack([row[chosen] + window.row_off, col[chosen] + window.col_off,
                                      np.full(len(chosen), len(row) / max(len(chosen), 1))], axis=1))  # fmt: skip
                values.append(block.data[row[chosen], col[chosen]].astype(np.float64))
            at, value = np.concatenate(rows), np.concatenate(values)
            if not len(value):
                raise LabelError("the raster of values has no pixel with data", path=path)
            # Each pixel of a block stands for as many as were left out there.
            keep = rng.choice(len(value), min(count, len(value)), replace=False, p=at[:, 2] / at[:, 2].sum())
            x, y = rasterio.transform.xy(source.transform, at[keep, 0], at[keep, 1])
            scale, offset = source.scales[0], source.offsets[0]
    except rasterio.errors.RasterioIOError as err:
        raise LabelError("not a raster that GDAL can read", path=path, got=err) from err
    columns = {"value": value[keep] * scale + offset, "group": "", "date": pd.NaT}
    return gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(x, y), crs=source.crs)


def burn_values(labels: Labels, grid: Grid, *, day: date | None = None) -> LabelledPixels:
    """The pixels of every sample: that of a point, those whose centre lies in a polygon; sorted by row and column.

    Samples may share a pixel (stations in one cell of a coarse raster, dates of one place); each keeps it. With ``day``
    those of that date alone.
    """
    frame = labels.frame if day is None else labels.frame[labels.frame["date"].dt.date == day]
    labels = replace(labels, frame=frame)
    frame = to_grid_crs(frame, grid)
    shapes = np.asarray(frame.geometry.array, dtype=object)
    point = is_point(shapes)
    centre = shapely.centroid(shapes[point])
    ids, codes = (frame[name].to_numpy() for name in ("poly_id", "code"))
    inverse, x, y = ~grid.transform, shapely.get_x(centre), shapely.get_y(centre)
    col, row = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
    at = np.floor(np.stack([row, col], axis=1)).astype(np.int64)
    inside = (at >= 0).all(1) & (at < np.array(grid.shape)).all(1)
    rows, cols, owner = [at[inside, 0]], [at[inside, 1]], [np.flatnonzero(point)[inside]]
    small: tuple[int, ...] = ()
    if not point.all():
        # One class: overlapping samples share pixels, the lowest id has them.
        burned = burn(replace(labels, frame=labels.frame[~point].assign(code=np.uint8(1))), grid)
        rows.append(burned.row)
        cols.append(burned.col)
        owner.append(np.searchsorted(ids, burned.polygon))
        small = burned.too_small
    row, col, own = (np.concatenate(parts).astype(np.int64) for parts in (rows, cols, owner))
    order = np.lexsort((own, col, row))
    row, col, own = row[order], col[order], own[order]
    polygon = ids[own].astype(np.int32)
    return LabelledPixels(
        row.astype(np.int32), col.astype(np.int32), codes[own].astype(np.uint8), polygon,
        np.ones(len(own), dtype=np.uint8), grid,
        outside=tuple(int(i) for i in np.setdiff1d(ids, polygon)), too_small=small,
    )  # fmt: skip


def warn_shared(labels: Labels, pixels: Sequence[LabelledPixels]) -> None:
    """LabelWarning where samples share pixels, on one date where they have dates: the raster cannot tell them apart."""
    # Samples without a date are of one date, NaT, which is a number too.
    day = np.zeros(int(labels.frame["poly_id"].max()) + 1, dtype=np.int64)
    day[labels.frame["poly_id"]] = labels.frame["date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    shared: set[int] = set()
    for part in pixels:
        key = np.stack([part.row.astype(np.int64), part.col, day[part.polygon]])
        _, which, counts = np.unique(key, axis=1, return_inverse=True, return_counts=True)
        shared.update(part.polygon[counts[which.ravel()] > 1].tolist())
    if shared:
        dated = "" if labels.frame["date"].isna().all() else " on the same date"
        text = f"{labels.path}: {counted(len(shared), 'sample')} share a pixel with another{dated}"
        warnings.warn(f"{text}: the scene cannot tell them apart", LabelWarning, stacklevel=2)
