"""``landcover labels next``: the places of a map whose labels teach most, as a layer to digitise in QGIS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from pipeline.diagnostics.label_audit import spread_places
from pipeline.diagnostics.where_next import likely_wrong, look_at_map, main_reasons
from pipeline.errors import ConfigError, LabelError
from pipeline.files import check_target
from pipeline.maps.style import Category, categorised, from_template, scheme_categories
from pipeline.maps.vectors import PackageLayer, check_geopackage_name, write_geopackage
from pipeline.workflow.inputs import listed_classes
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.diagnostics.where_next import MapSquares
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.workflow.outcome import Progress

LAYER = "label_next"
_FIXED = ("rank", "scene", "mapped", "reason", "score")
# Of a place without a class yet.
_OPEN = "#ff00ff"


@dataclass(frozen=True, eq=False)
class _Places:
    """MapSquares of all maps: scene, row and col int [square], score float [square], class on the map, main reason."""

    scene: NDArray[np.int64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    score: NDArray[np.float64]
    mapped: NDArray[np.object_]
    reason: NDArray[np.object_]
    shape: NDArray[np.object_]


def next_labels(config: Path, *, count: int, output: Path | None, overwrite: bool, progress: Progress) -> Outcome:
    """Write a GeoPackage of squares without a class, the most useful first, with the legend to choose from.

    MapSquares are ordered as likely wrong (``diagnostics.where_next``), without those that hold a label, and spread so
    that no two say the same. The file goes beside the configuration, under a name that is free.

    Raises:
        ConfigError: labels that are a class raster.
        LabelError: no square of a map is left.
        OutputError: ``output`` exists, or cannot be written.
    """
    job = Job.load(config)
    field = job.config.labels.field
    if job.config.labels.kind == "value":
        raise ConfigError("labels next is of classes", path=config, got="labels.kind value")
    if not field:
        raise ConfigError("labels next needs polygons to add to", path=job.config.labels.path, fix="set labels.field")
    target = output or _free(config.resolve().parent)
    check_target(target, overwrite=overwrite, inputs=(config, *job.config.labels.files))
    check_geopackage_name(target)
    parts = []
    for number, (source, pixels) in enumerate(zip(job.sources, job.pixels, strict=True)):
        progress("places", number, len(job.sources))
        squares = look_at_map(job.map_of(source.id))
        parts.append(_part(number, squares, pixels, scheme=job.scheme))
    places = _Places(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Places.__annotations__))
    progress("places", len(job.sources), len(job.sources))
    apart = [0.5 * float(np.prod(source.grid.shape) / count) ** 0.5 for source in job.sources]
    chosen = spread_places(places, places.score, count=count, apart_px=apart)
    if not chosen:
        raise LabelError("no place without a label on the map", path=job.maps_folder, fix="map a larger area")
    frame = _frame(job, places, chosen, field=field)
    write_geopackage(
        target, [PackageLayer(LAYER, frame, _style(listed_classes(job.config), field))], what="places to label",
        overwrite=overwrite,
    )  # fmt: skip
    also = ", ".join([*job.config.labels.also, str(target)])
    return Outcome(
        summary=f"{job.config.name}: {len(chosen)} places to label next",
        written=(target,),
        hint=f"in QGIS choose {field} of each square (redraw it where it holds two classes), save, and run again: "
        f"landcover run {config} --set 'labels.also=[{also}]' --overwrite; or write labels.also into {config.name}",
        tables=(_table(frame),),
        data={"label_next": frame.drop(columns="geometry").to_dict("records")},
    )


def _free(folder: Path) -> Path:
    """A name that no earlier round has taken: what was digitised there is not replaced."""
    names = (folder / f"{LAYER}{f'_{number}' if number > 1 else ''}.gpkg" for number in range(1, 1000))
    return next(path for path in names if not path.exists())


def _part(number: int, squares: MapSquares, pixels: LabelledPixels, *, scheme: ClassScheme) -> _Places:
    """The squares of one map without a label."""
    size = squares.cell_px
    taken = np.unique(pixels.row.astype(np.int64) // size * 1_000_000 + pixels.col // size)
    keep = ~np.isin(squares.row.astype(np.int64) // size * 1_000_000 + squares.col // size, taken)
    which = np.flatnonzero(keep)
    names = {item.code: item.name for item in scheme.classes}
    shapes = [shapely.box(*squares.grid.crop(squares.window(int(square))).bounds) for square in which]
    return _Places(
        np.full(len(which), number), squares.row[which], squares.col[which], likely_wrong(squares)[which],
        np.array([names[int(code)] for code in squares.code[which]], dtype=object),
        np.array(main_reasons(squares), dtype=object)[which], np.array(shapes, dtype=object),
    )  # fmt: skip


def _frame(job: Job, places: _Places, chosen: Sequence[int], *, field: str) -> GeoDataFrame:
    """The chosen squares in the CRS of the first scene, with an empty class."""
    import geopandas as gpd
    import pandas as pd

    crs = [source.grid.crs.to_wkt() for source in job.sources]
    shapes = pd.concat(
        [gpd.GeoSeries([places.shape[i]], crs=crs[places.scene[i]]).to_crs(crs[0]) for i in chosen], ignore_index=True
    )
    table = pd.DataFrame(
        {
            field: pd.Series([None] * len(chosen), dtype=object),
            "rank": np.arange(1, len(chosen) + 1),
            "scene": [job.sources[places.scene[i]].id for i in chosen],
            "mapped": places.mapped[chosen],
            "reason": places.reason[chosen],
            "score": places.score[chosen].round(3),
        }
    )
    return gpd.GeoDataFrame(table, geometry=list(shapes), crs=crs[0])


def _style(scheme: ClassScheme, field: str) -> str:
    """Outlines by class, those without one in magenta; the legend as a list to choose from."""
    rows = (*scheme_categories(scheme, by_name=True), Category("", "to label", _OPEN))
    return from_template(
        "labels.qml.jinja", renderer=categorised(field, rows, shape="outline"), field=field,
        values=[(item.name, item.name) for item in scheme.classes], fixed=_FIXED,
    )  # fmt: skip


def _table(frame: GeoDataFrame) -> Table:
    counts = frame.groupby(["mapped", "reason"]).size().sort_values(ascending=False)
    rows = tuple((str(mapped), str(reason), str(number)) for (mapped, reason), number in counts.items())
    return Table("places", ("mapped as", "because of", "places"), rows[:12])
