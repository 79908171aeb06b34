"""Vector files + attribute -> Labels: valid polygons with a class code each, every loss counted."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.errors import LabelError, LabelWarning, counted
from pipeline.labels.geometries import clean_polygons, is_point, metric_crs, points_to_polygons
from pipeline.labels.vectors import MOST_CLASS_VALUES, is_gap, iter_values, read_features
from pipeline.legend import ClassScheme, scheme_for

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


_SHOWN = 5
LISTED = "listed"
"""Column of ``Labels.frame`` with the code a polygon had before classes were grouped."""


@dataclass(frozen=True)
class LabelReport:
    """What became of the features of a file; ``read`` is the sum of all that follow except ``repaired``."""

    read: int  # Features in the layer
    repaired: int  # Kept polygons whose geometry was invalid
    dropped_invalid: int  # Features without area after repair, lines, tangles, and geometries that are none
    duplicates_merged: int  # Copies of a polygon with the same class
    empty: int  # Features without geometry
    unlabelled: int  # Features whose class is null or blank, or set aside by an alias to ""
    unknown_class: int  # Features of a class that the legend does not have
    polygons: int  # Kept

    def lines(self) -> tuple[str, ...]:
        """One line per fact that is not zero."""
        said = (
            (self.read, "feature", "read"),
            (self.repaired, "feature", "of invalid geometry repaired"),
            (self.dropped_invalid, "feature", "dropped: broken, lines, or no area even after repair"),
            (self.duplicates_merged, "exact duplicate", "merged"),
            (self.empty, "feature", "without geometry left out"),
            (self.unlabelled, "feature", "without a class left out"),
            (self.unknown_class, "feature", "of a class that is not in the legend left out"),
            (self.polygons, "polygon", "kept"),
        )
        return tuple(f"{counted(count, noun)} {text}" for count, noun, text in said if count)


@dataclass(frozen=True, eq=False)
class Labels:
    """Training polygons, each with one class."""

    path: Path  # The file they were read from
    # poly_id int32 1..n, code uint8, name str, feature int64 (position in the file, from 0), geometry (valid
    # polygons, or points where these were asked for); CRS set; one row per polygon in file order
    frame: GeoDataFrame
    scheme: ClassScheme  # Every code of the frame is one of its codes
    report: LabelReport  # What became of the file's features

    def __len__(self) -> int:
        """Number of polygons."""
        return len(self.frame)

    def polygons_per_class(self) -> dict[str, int]:
        """Number of polygons of every class of the scheme, 0 included, in legend order."""
        counts = np.bincount(self.frame["code"].to_numpy(), minlength=256)
        return {item.name: int(counts[item.code]) for item in self.scheme.classes}


def read_labels(
    path: Path | str,
    *, field: str, only: str = "", scheme: ClassScheme | None = None, layer: str | None = None,
    encoding: str | None = None, aliases: Mapping[str, str] | None = None, points: bool = False,
    point_radius_m: float = 0.0, also: Sequence[str] = (),
) -> Labels:  # fmt: skip
    """Polygons of a layer with the class in ``field``.

    Invalid geometries are repaired or dropped, exact duplicates (same geometry and class) merged, features without
    geometry or class left out; the report counts each. A value of the field is looked up as: alias, class name
    (spelling of case and punctuation aside), class code.

    Args:
        path: GeoPackage, Shapefile, GeoJSON, GeoParquet, FlatGeobuf or another file that GDAL reads.
        field: Attribute with the class, text or integer.
        only: The class of every feature; the field is not read then.
        scheme: The legend; None makes one of the values found (integers 1..254 stay codes).
        layer: Layer name, needed where a file has several that fit.
        encoding: Of the text, where it is not UTF-8 and the file does not say.
        aliases: Value in the file -> class name, to merge or rename classes; "" leaves a value out.
        points: Accept points: the pixel that holds each, or all within ``point_radius_m``.
        point_radius_m: Radius of the circle drawn around each point, in metres.
        also: Further files with the same field, read after ``path``: their features are numbered on.

    Raises:
        LabelError: see :func:`pipeline.labels.vectors.read_features`; points that were not asked for; nothing left.
        LegendError: class names that make no legend.
    """
    import geopandas as gpd
    import pandas as pd

    path = Path(path)
    frame = read_features(path, field=field, layer=layer, encoding=encoding, only=only)
    for file in also:
        more = read_features(file, field=field, encoding=encoding, only=only).to_crs(frame.crs)
        frame = gpd.GeoDataFrame(pd.concat([frame, more], ignore_index=True))
    read = len(frame)
    geometry = np.asarray(frame.geometry.array, dtype=object)
    missing = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    renamed = [None if value is None else (aliases or {}).get(value, value) or None for value in frame["value"]]
    names = _without_gaps(np.array(renamed, dtype=object), scheme, path=path)
    values = iter_values(frame.assign(value=names))
    scheme = scheme or _scheme_of([str(name) for name in values], path=path, field=field)
    codes, unknown = _codes(names, scheme, path=path)
    blank = np.array([name is None for name in names], dtype=np.bool_)
    wanted = ~missing & ~blank & (codes > 0)
    shapes, repaired = _shapes(frame, wanted, path=path, points=points, radius_m=point_radius_m)
    usable = ~shapely.is_missing(shapes)
    # Normalised: a ring may begin at any vertex.
    same = pd.DataFrame({"code": codes, "shape": shapely.to_wkb(shapely.normalize(shapes))}).duplicated()
    kept = usable & ~same.to_numpy()
    report = LabelReport(
        read=read,
        repaired=int((repaired & kept).sum()),
        dropped_invalid=int((wanted & ~usable).sum()),
        duplicates_merged=int((usable & ~kept).sum()),
        empty=int(missing.sum()),
        unlabelled=int((~missing & blank).sum()),
        unknown_class=int((~missing & unknown).sum()),
        polygons=int(kept.sum()),
    )
    if not kept.any():
        raise LabelError("no polygon with a class", path=path, got=", ".join(report.lines()), expected="at least one")
    return Labels(path, _frame(frame, shapes, codes, kept, scheme), scheme, report)


def _scheme_of(names: Sequence[str], *, path: Path, field: str) -> ClassScheme:
    if not names:
        raise LabelError(f"field {field!r} is blank in every feature", path=path, fix="name the field with the class")
    if len(names) > MOST_CLASS_VALUES:
        what = f"field {field!r} has too many different values to be a class"
        got, expected = f"{len(names)}, such as {', '.join(names[:_SHOWN])}", f"at most {MOST_CLASS_VALUES}"
        raise LabelError(what, path=path, got=got, expected=expected, fix="name the field with the class")
    return scheme_for(names)[0]


def _without_gaps(names: NDArray[Any], scheme: ClassScheme | None, *, path: Path) -> NDArray[Any]:
    """Class names with None where one says that nothing is known ("?", "NA") and no class is called so; warns."""
    known = set() if scheme is None else {name for item in scheme.classes for name in (item.name, str(item.code))}
    gaps = sorted(name for name in set(names) - {None} - known if is_gap(name))
    if not gaps:
        return names
    gone = np.isin(names.astype(str), gaps)
    text = f"{counted(int(gone.sum()), 'feature')} whose class is {', '.join(map(repr, gaps))} left unlabelled"
    warnings.warn(f"{path}: {text}; labels.aliases makes such a word a class", LabelWarning, stacklevel=3)
    kept = names.copy()
    kept[gone] = None
    return kept


def _key(name: str) -> str:
    # Without a letter it is a number: 1.1 is not 11, nor -1 the same as 1.
    name = unicodedata.normalize("NFKC", name)
    return re.sub(r"[\W_]+", "", name.casefold()) if re.search(r"[^\W\d_]", name) else name


def _codes(names: NDArray[Any], scheme: ClassScheme, *, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    by_key = {_key(item.name): item.code for item in scheme.classes}
    by_name = {item.name: item.code for item in scheme.classes}
    by_code = {str(code): code for code in scheme.codes}
    table = {n: by_name.get(n) or by_key.get(_key(n)) or by_code.get(n, 0) for n in set(names) - {None}}
    codes = np.array([0 if name is None else table[name] for name in names], dtype=np.uint8)
    strange = sorted(name for name, code in table.items() if code == 0)
    unknown = np.isin(names.astype(str), strange) & np.array([name is not None for name in names])
    if strange:
        shown = ", ".join(strange[:_SHOWN]) + (f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else "")
        text = f"{int(unknown.sum())} features left out, their class is not in the legend: {shown}"
        warnings.warn(f"{path}: {text}", LabelWarning, stacklevel=3)
    return codes, unknown


def _shapes(
    frame: GeoDataFrame, wanted: NDArray[np.bool_], *, path: Path, points: bool, radius_m: float
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Clean geometry of each wanted feature, None elsewhere; and which were repaired."""
    shapes = np.full(len(frame), None, dtype=object)
    repaired = np.zeros(len(frame), dtype=np.bool_)
    geometry = np.asarray(frame.geometry.array, dtype=object)
    shapes[wanted], repaired[wanted] = clean_polygons(geometry[wanted])
    pointlike = wanted & is_point(geometry)
    if points and pointlike.any():
        shapes[pointlike] = points_to_polygons(frame.geometry[pointlike], radius_m=radius_m, path=path)
    elif pointlike.any():
        found, others = int(pointlike.sum()), int((wanted & ~pointlike).sum())
        got = f"{found} points" + (f" among {others} other features" if others else "")
        fix = "set labels.point_window_px (squares of 1, 3, ... pixels a side) or labels.point_radius_m (circles)"
        raise LabelError("points where polygons are needed", path=path, got=got, fix=f"draw polygons, or {fix}")
    return shapes, repaired


def _frame(
    frame: GeoDataFrame, shapes: NDArray[Any], codes: NDArray[np.uint8], kept: NDArray[np.bool_], scheme: ClassScheme
) -> GeoDataFrame:
    import geopandas as gpd

    names = {item.code: item.name for item in scheme.classes}
    features = np.flatnonzero(kept)
    return gpd.GeoDataFrame(
        {
            "poly_id": np.arange(1, len(features) + 1, dtype=np.int32),
            "code": codes[kept],
            "name": [names[int(code)] for code in codes[kept]],
            "feature": features.astype(np.int64),
        },
        geometry=list(shapes[kept]),
        crs=frame.crs,
    )


def buffer_polygons(labels: Labels, buffer_m: Mapping[int, float]) -> Labels:
    """Polygons grown (or, below 0, shrunk) by metres, by class code; those of other classes stay as they are.

    Distances are measured in the UTM zone of the labels. Polygons that vanish are left out with a LabelWarning.

    Raises:
        LabelError: no polygon is left, or their CRS says nowhere on the ground.
    """
    distance = labels.frame["code"].map(lambda code: float(buffer_m.get(int(code), 0.0))).to_numpy(dtype=float)
    moved = distance != 0
    if not moved.any():
        return labels
    frame = labels.frame.copy()
    metric = frame.geometry[moved].to_crs(metric_crs(frame, path=labels.path))
    frame.loc[moved, frame.geometry.name] = metric.buffer(distance[moved]).to_crs(frame.crs).to_numpy()
    gone = frame.geometry.is_empty.to_numpy()
    if gone.all():
        raise LabelError("no polygon is left when shrunk", path=labels.path, fix="use a smaller labels.buffer_m")
    if gone.any():
        text = f"{labels.path}: {counted(int(gone.sum()), 'polygon')} that vanished when shrunk, not used"
        warnings.warn(text, LabelWarning, stacklevel=2)
    return replace(labels, frame=frame[~gone].reset_index(drop=True))


def group_classes(labels: Labels, scheme: ClassScheme, group_of: Mapping[int, int]) -> Labels:
    """Labels in a coarser legend: ``group_of`` gives each class code the code of its group in ``scheme``.

    The frame keeps the former code in a column ``listed``.
    """
    frame = labels.frame.copy()
    frame[LISTED] = frame["code"]
    frame["code"] = frame["code"].map(lambda code: group_of[int(code)]).astype(np.uint8)
    frame["name"] = frame["code"].map(lambda code: scheme.by_code(int(code)).name)
    return replace(labels, frame=frame, scheme=scheme)
