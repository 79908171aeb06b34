"""``landcover labels audit``: doubtful polygons, and places whose labels would teach most; ``next``: those alone."""

from __future__ import annotations

import contextlib
import shlex
import warnings
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from pipeline.diagnostics.label_audit import (
    audit_table,
    confident_suggestions,
    look_over_scenes,
    novelty,
    out_of_fold,
    spread_places,
)
from pipeline.diagnostics.where_next import likely_wrong, look_at_map, main_reasons
from pipeline.errors import ConfigError, LabelError, SplitWarning
from pipeline.files import check_target, prepare_folder
from pipeline.labels.footprints import read_footprints
from pipeline.labels.rasterise import to_grid_crs
from pipeline.maps.style import Category, categorised, from_template, qml, scheme_categories
from pipeline.maps.vectors import PackageLayer, check_geopackage_name, write_geopackage
from pipeline.splits.folds import polygon_folds, scenes_for_folds
from pipeline.workflow.inputs import listed_classes
from pipeline.workflow.job import AUDIT, Job
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.diagnostics.label_audit import AuditTable, CellTable, PolygonVotes
    from pipeline.diagnostics.where_next import MapSquares
    from pipeline.grid import Grid
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.splits.split import TrainingScene
    from pipeline.workflow.outcome import Progress

SUSPICIOUS, NEXT = "suspicious", "label_next"
FOLDS = 5
# Windows of 64 pixels that are looked at: 0.6 million pixels, whatever the scene's size.
WINDOWS = 150
_SHOWN = 12
_UNSURE, _UNLIKE, _BOTH = "unsure", "unlike anything labelled", "unsure and unlike anything labelled"
_COLORS = {_UNSURE: "#e69f00", _UNLIKE: "#cc79a7", _BOTH: "#d55e00"}
# Entropy, of at most 1, from which a place is called unsure: two classes of eight alike give 0.33, three 0.53.
_MUCH = 0.4


def audit_labels(
    config: Path, *, count: int, seed: int, output: Path | None, overwrite: bool, progress: Progress
) -> Outcome:
    """Ask forests about polygons that they were not trained on, and about the scene; write a GeoPackage of two layers.

    Classes of one polygon cannot be asked about and are left out with a SplitWarning.

    Raises:
        ConfigError: a continuous target.
        OutputError: ``output`` exists, or cannot be written.
    """
    job = Job.load(config)
    if job.is_value:
        raise ConfigError("labels audit is of classes", path=config, got="labels.kind value")
    target = output or job.open_folder().path / AUDIT
    check_target(target, overwrite=overwrite, inputs=(config, *job.config.labels.files))
    prepare_folder(target.parent)
    scenes = scenes_for_folds(job.training_scenes, job.scheme, leave_out_single=True)
    pixels = [scene.pixels for scene in scenes]
    ids = len(np.unique(np.concatenate([part.polygon for part in pixels])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplitWarning)  # said already
        splits = polygon_folds(pixels, folds=min(FOLDS, ids), seed=seed, validation_fraction=0.0)
    progress("labels", 0, 4)
    table = audit_table(scenes, job.scheme, seed=seed)
    progress("labels", 1, 4)
    votes = out_of_fold(table, splits, classes=len(job.scheme), seed=seed)
    progress("labels", 2, 4)
    cells = look_over_scenes(scenes, table.forest(seed=seed), classes=len(job.scheme), windows=WINDOWS, seed=seed)
    places = _places(scenes, table, votes, cells, names=job.scheme.names, count=count, seed=seed)
    progress("labels", 3, 4)
    found = _suspicious(job, votes)
    write_geopackage(
        target, _layers(job, found, places, crs=str(scenes[0].source.grid.crs)), what="the audit", overwrite=overwrite
    )
    progress("labels", 4, 4)
    classes = _classes(job, votes, found)
    return Outcome(
        summary=f"{job.config.name}: {len(found)} of {len(votes.polygon)} polygons are doubtful; "
        f"{len(places)} places to label next",
        written=(target,),
        hint="drop the file onto QGIS: two layers with styles, the most doubtful and most useful first by rank",
        tables=(_suspicious_table(found), _class_table(classes)),
        data={
            "polygons": len(votes.polygon), "suspicious": found, "classes": classes,
            "label_next": [place.facts for place in places],
        },
    )  # fmt: skip


def _suspicious(job: Job, votes: PolygonVotes) -> list[dict[str, Any]]:
    """Figures of the polygons that are confidently taken for another class, the surest first."""
    suggested = confident_suggestions(votes.probability, votes.given)
    at = np.arange(len(votes.polygon))
    own = votes.probability[at, votes.given]
    other = votes.probability[at, np.maximum(suggested, 0)]
    order = [int(i) for i in np.argsort(own - np.where(suggested >= 0, other, 0.0), kind="stable") if suggested[i] >= 0]
    names, overlaps = job.scheme.names, _overlaps(job)
    feature = job.labels.frame.set_index("poly_id")["feature"]
    return [
        {
            "rank": rank,
            "poly_id": (polygon := int(votes.polygon[i])),
            "class": names[votes.given[i]],
            "suggested": names[suggested[i]],
            "p_class": round(float(own[i]), 3),
            "p_suggested": round(float(other[i]), 3),
            "agree": round(float(votes.agree[i]), 3),
            "overlaps": overlaps.get(polygon, ""),
            "feature": int(feature[polygon]),
        }
        for rank, i in enumerate(order, 1)
    ]


def _classes(job: Job, votes: PolygonVotes, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "class": name,
            "polygons": int((votes.given == number).sum()),
            "suspicious": sum(item["class"] == name for item in found),
            "agree": round(float(votes.agree[votes.given == number].mean()), 3),
        }
        for number, name in enumerate(job.scheme.names)
        if (votes.given == number).any()
    ]


def _overlaps(job: Job) -> dict[int, str]:
    """For each polygon the polygons of other classes that claim some of its pixels."""
    names = {item.code: item.name for item in job.scheme.classes}
    found: dict[int, list[str]] = {}
    for pixels in job.pixels:
        for conflict in pixels.conflicts:
            for own, other in ((0, 1), (1, 0)):
                text = f"{conflict.polygons[other]} {names[conflict.codes[other]]} ({conflict.pixels} px)"
                found.setdefault(conflict.polygons[own], []).append(text)
    return {polygon: ", ".join(texts) for polygon, texts in found.items()}


@dataclass(frozen=True)
class _Place:
    """A square to label: its outline in the CRS of the first scene, and what is said of it."""

    shape: shapely.Polygon
    facts: dict[str, Any]


def _places(
    scenes: Sequence[TrainingScene], table: AuditTable, votes: PolygonVotes, cells: CellTable,
    *, names: Sequence[str], count: int, seed: int,
) -> list[_Place]:  # fmt: skip
    """The squares with the highest mean of entropy and novelty: unsure, or unlike anything labelled, or both."""
    if not len(cells) or not count:
        return []
    new = novelty(table, votes, cells, seed=seed)
    score: NDArray[np.float64] = (cells.entropy + new) / 2
    apart = [0.5 * float(np.prod(scene.source.grid.shape) / count) ** 0.5 for scene in scenes]
    found = []
    for rank, cell in enumerate(spread_places(cells, score, count=count, apart_px=apart), 1):
        source, window = scenes[int(cells.scene[cell])].source, cells.window(cell)
        second, likely = np.argsort(cells.probability[cell])[-2:]
        x, y = source.grid.xy(window.row + window.height / 2 - 0.5, window.col + window.width / 2 - 0.5)
        unsure = _BOTH if cells.entropy[cell] >= _MUCH else _UNLIKE
        facts = {
            "rank": rank,
            "scene": source.id,
            "reason": _UNSURE if new[cell] < 1 else unsure,
            "likely": names[likely],
            "second": names[second],
            "score": round(float(score[cell]), 3),
            "entropy": round(float(cells.entropy[cell]), 3),
            "novelty": round(float(new[cell]), 3),
            "x": x,
            "y": y,
        }
        found.append(_Place(_outline(source.grid.crop(window), scenes[0].source.grid), facts))
    return found


def _outline(square: Grid, first: Grid) -> shapely.Polygon:
    import geopandas

    own = geopandas.GeoSeries([shapely.box(*square.bounds)], crs=str(square.crs))
    square_there: shapely.Polygon = own.to_crs(str(first.crs)).iloc[0]
    return square_there


def _layers(job: Job, found: list[dict[str, Any]], places: Sequence[_Place], *, crs: str) -> list[PackageLayer]:
    """``suspicious`` in the labels' CRS and ``label_next`` in that of the first scene, each with its style."""
    import geopandas as gpd
    import pandas as pd

    polygons = job.labels.frame.set_index("poly_id").geometry.loc[[item["poly_id"] for item in found]]
    columns = ["rank", "poly_id", "class", "suggested", "p_class", "p_suggested", "agree", "overlaps", "feature"]
    doubtful = gpd.GeoDataFrame(pd.DataFrame(found, columns=columns), geometry=list(polygons), crs=polygons.crs)
    points = bool(len(doubtful)) and bool((doubtful.geom_type == "Point").all())
    classes = categorised(
        "suggested", scheme_categories(job.scheme, by_name=True), shape="marker" if points else "outline"
    )
    columns = ["rank", "scene", "reason", "likely", "second", "score", "entropy", "novelty"]
    table = pd.DataFrame([{key: place.facts[key] for key in columns} for place in places], columns=columns)
    squares = gpd.GeoDataFrame(table, geometry=[place.shape for place in places], crs=crs)
    reasons = tuple(Category(text, text, color) for text, color in _COLORS.items())
    return [
        PackageLayer(SUSPICIOUS, doubtful, qml(classes)),
        PackageLayer(NEXT, squares, qml(categorised("reason", reasons, shape="outline"))),
    ]


def _suspicious_table(found: Sequence[dict[str, Any]]) -> Table:
    rows = tuple(
        (str(item["poly_id"]), item["class"], item["suggested"], f"{item['p_class']:.2f}", f"{item['p_suggested']:.2f}",
         f"{100 * item['agree']:.0f} %")
        for item in found[:_SHOWN]
    )  # fmt: skip
    more = f", the first {_SHOWN} of {len(found)}" if len(found) > _SHOWN else ""
    heads = ("polygon", "class", "taken for", "p class", "p other", "pixels agree")
    return Table(f"doubtful polygons{more}", heads, rows)


def _class_table(classes: Sequence[dict[str, Any]]) -> Table:
    rows = tuple(
        (item["class"], str(item["polygons"]), str(item["suspicious"]), f"{100 * item['agree']:.0f} %")
        for item in classes
    )
    return Table("classes", ("class", "polygons", "doubtful", "pixels agree"), rows)


_FIXED = ("rank", "scene", "mapped", "reason", "score")
# Of a place without a class yet.
_OPEN = "#ff00ff"


@dataclass(frozen=True, eq=False)
class _Places:
    """Squares of all maps: scene, row and col int [square], score float [square], class on the map, main reason."""

    scene: NDArray[np.int64]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    score: NDArray[np.float64]
    mapped: NDArray[np.object_]
    reason: NDArray[np.object_]
    shape: NDArray[np.object_]


def next_labels(config: Path, *, count: int, output: Path | None, overwrite: bool, progress: Progress) -> Outcome:
    """Write a GeoPackage of squares without a class, the most useful first, with the legend to choose from.

    Squares are ordered as likely wrong (``diagnostics.where_next``), without those that hold a label, and spread so
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
    earlier = [path for path in _rounds(config, target) if path.resolve() != target.resolve()]
    given = [read_footprints(path, may_be_empty=True) for path in earlier]
    parts = []
    for number, (source, pixels) in enumerate(zip(job.sources, job.pixels, strict=True)):
        progress("places", number, len(job.sources))
        squares = look_at_map(job.map_of(source.id))
        before = [to_grid_crs(frame, source.grid).geometry.array for frame in given]
        parts.append(_part(number, squares, pixels, scheme=job.scheme, before=np.concatenate([[], *before])))
    places = _Places(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Places.__annotations__))
    progress("places", len(job.sources), len(job.sources))
    apart = [0.5 * float(np.prod(source.grid.shape) / count) ** 0.5 for source in job.sources]
    chosen = spread_places(places, places.score, count=count, apart_px=apart)
    if not chosen:
        raise LabelError("no place without a label on the map", path=job.maps_folder, fix="map a larger area")
    frame = _frame(job, places, chosen, field=field)
    write_geopackage(
        target, [PackageLayer(NEXT, frame, _style(listed_classes(job.config), field))], what="places to label",
        overwrite=overwrite,
    )  # fmt: skip
    # Those of the round before are asked for once: their files are named with the new one.
    known = {Path(path).resolve() for path in job.config.labels.files}
    waiting = [str(path) for path in earlier if path.resolve() not in known]
    also = ", ".join([*job.config.labels.also, *waiting, str(target)])
    again = shlex.join(["landcover", "run", str(config), "--set", f"labels.also=[{also}]", "--overwrite"])
    return Outcome(
        summary=f"{job.config.name}: {len(chosen)} places to label next",
        written=(target,),
        hint=f"in QGIS choose {field} of each square (redraw it where it holds two classes), save, and run again: "
        f"{again}; or write labels.also into {config.name}",
        tables=(_table(frame),),
        data={"label_next": frame.drop(columns="geometry").to_dict("records")},
    )


def _free(folder: Path) -> Path:
    """A name that no earlier round has taken: what was digitised there is not replaced."""
    return next(path for path in _names(folder) if not path.exists())


def _rounds(config: Path, target: Path) -> list[Path]:
    """The files of earlier rounds, whatever they are called, beside the configuration and beside the new one."""
    import pyogrio

    folders = dict.fromkeys(path.resolve().parent for path in (config, target))
    files = [path for folder in folders for path in sorted(folder.glob("*.gpkg"))]
    found = []
    for path in files:
        with contextlib.suppress(pyogrio.errors.DataSourceError):
            if set(pyogrio.list_layers(path)[:, 0]) - {"layer_styles"} == {NEXT}:
                found.append(path)
    return found


def _names(folder: Path) -> Iterator[Path]:
    return (folder / f"{NEXT}{f'_{number}' if number > 1 else ''}.gpkg" for number in count(1))


def _part(
    number: int, squares: MapSquares, pixels: LabelledPixels, *, scheme: ClassScheme, before: NDArray[np.object_]
) -> _Places:
    """The squares of one map without a label, and without those of an earlier round."""
    size = squares.cell_px
    taken = np.unique(pixels.row.astype(np.int64) // size * 1_000_000 + pixels.col // size)
    keep = ~np.isin(squares.row.astype(np.int64) // size * 1_000_000 + squares.col // size, taken)
    if len(before):
        boxes = np.array([shapely.box(*squares.grid.crop(squares.window(i)).bounds) for i in range(len(keep))])
        inner = shapely.buffer(boxes, -0.01 * np.sqrt(shapely.area(boxes)))  # squares side by side share an edge
        keep[shapely.STRtree(before).query(inner, predicate="intersects")[0]] = False
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
