"""``landcover labels audit``: doubtful polygons, and places whose labels would teach most; ``next``: those alone."""

from __future__ import annotations

import contextlib
import shlex
import warnings
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from pipeline.diagnostics.label_audit import (
    AuditTable,
    CellTable,
    PolygonVotes,
    audit_table,
    confident_suggestions,
    look_over_scenes,
    novelty,
    out_of_fold,
    spread_places,
)
from pipeline.diagnostics.where_next import MapSquares, likely_wrong, look_at_map, main_reasons
from pipeline.errors import ConfigError, LabelError, SplitWarning
from pipeline.files import check_target, prepare_folder
from pipeline.labels.footprints import read_footprints
from pipeline.labels.rasterise import LabelledPixels, to_grid_crs
from pipeline.maps.style import Category, categorised, from_template, qml, scheme_categories
from pipeline.maps.vectors import PackageLayer, check_geopackage_name, write_geopackage
from pipeline.splits.folds import polygon_folds, scenes_for_folds
from pipeline.workflow.inputs import listed_classes
from pipeline.workflow.job import AUDIT, Job
from pipeline.workflow.outcome import Outcome, Progress, Table

if TYPE_CHECKING:
    from pipeline.legend import ClassScheme
    from pipeline.splits.split import TrainingScene

SUSPICIOUS, NEXT = "suspicious", "label_next"
FOLDS = 5
# Windows of 64 pixels that are looked at: 0.6 million pixels, whatever the scene's size.
WINDOWS = 150
_SHOWN = 12
_UNSURE, _UNLIKE, _BOTH = "unsure", "unlike anything labelled", "unsure and unlike anything labelled"
_REASONS = tuple(
    Category(text, text, color) for text, color in ((_UNSURE, "#e69f00"), (_UNLIKE, "#cc79a7"), (_BOTH, "#d55e00"))
)
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
    layers = [
        _doubtful(job, found),
        PackageLayer(NEXT, places.drop(columns=["x", "y"]), qml(categorised("reason", _REASONS, shape="outline"))),
    ]
    write_geopackage(target, layers, what="the audit", overwrite=overwrite)
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
            "label_next": places.drop(columns="geometry").to_dict("records"),
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


def _places(
    scenes: Sequence[TrainingScene], table: AuditTable, votes: PolygonVotes, cells: CellTable,
    *, names: Sequence[str], count: int, seed: int,
) -> gpd.GeoDataFrame:  # fmt: skip
    """The squares with the highest mean of entropy and novelty, in the CRS of the first scene, and their figures.

    They are unsure, or unlike anything labelled, or both.
    """
    crs, rows, shapes = str(scenes[0].source.grid.crs), [], []
    new = novelty(table, votes, cells, seed=seed) if len(cells) and count else cells.entropy
    score: NDArray[np.float64] = (cells.entropy + new) / 2
    apart = _apart([scene.source.grid.shape for scene in scenes], count)
    for rank, cell in enumerate(spread_places(cells.place, score, count=count, apart_px=apart), 1):
        source, window = scenes[int(cells.place[cell, 0])].source, cells.window(cell)
        second, likely = np.argsort(cells.probability[cell])[-2:]
        x, y = source.grid.xy(window.row + window.height / 2 - 0.5, window.col + window.width / 2 - 0.5)
        unsure = _BOTH if cells.entropy[cell] >= _MUCH else _UNLIKE
        figures = (round(float(part[cell]), 3) for part in (score, cells.entropy, new))
        reason = _UNSURE if new[cell] < 1 else unsure
        rows.append((rank, source.id, reason, names[likely], names[second], *figures, x, y))
        square = gpd.GeoSeries([shapely.box(*source.grid.crop(window).bounds)], crs=str(source.grid.crs))
        shapes.append(square.to_crs(crs).iloc[0])
    columns = ["rank", "scene", "reason", "likely", "second", "score", "entropy", "novelty", "x", "y"]
    return gpd.GeoDataFrame(pd.DataFrame(rows, columns=columns), geometry=shapes, crs=crs)


def _apart(shapes: Sequence[tuple[int, ...]], count: int) -> list[float]:
    """Least distance in pixels between places in each scene, so that they spread over it."""
    return [0.5 * float(np.prod(shape) / max(count, 1)) ** 0.5 for shape in shapes]


def _doubtful(job: Job, found: list[dict[str, Any]]) -> PackageLayer:
    """The layer ``suspicious``, in the labels' CRS."""
    polygons = job.labels.frame.set_index("poly_id").geometry.loc[[item["poly_id"] for item in found]]
    columns = ["rank", "poly_id", "class", "suggested", "p_class", "p_suggested", "agree", "overlaps", "feature"]
    doubtful = gpd.GeoDataFrame(pd.DataFrame(found, columns=columns), geometry=list(polygons), crs=polygons.crs)
    points = bool(len(doubtful)) and bool((doubtful.geom_type == "Point").all())
    rows = scheme_categories(job.scheme, by_name=True)
    classes = categorised("suggested", rows, shape="marker" if points else "outline")
    return PackageLayer(SUSPICIOUS, doubtful, qml(classes))


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
    # A name that no earlier round has taken: what was digitised there is not replaced.
    target = output or next(path for path in _names(config.resolve().parent) if not path.exists())
    check_target(target, overwrite=overwrite, inputs=(config, *job.config.labels.files))
    check_geopackage_name(target)
    earlier = [path for path in _rounds(config, target) if path.resolve() != target.resolve()]
    given = [read_footprints(path, may_be_empty=True) for path in earlier]
    parts: list[gpd.GeoDataFrame] = []
    for number, (source, pixels) in enumerate(zip(job.sources, job.pixels, strict=True)):
        progress("places", number, len(job.sources))
        squares = look_at_map(job.map_of(source.id))
        before = [to_grid_crs(frame, source.grid).geometry.array for frame in given]
        part = _open_squares(squares, pixels, scheme=job.scheme, before=np.concatenate([[], *before]))
        parts.append(part.assign(number=number, scene=source.id).to_crs(parts[0].crs if parts else part.crs))
    places = pd.concat(parts, ignore_index=True)
    progress("places", len(job.sources), len(job.sources))
    apart = _apart([source.grid.shape for source in job.sources], count)
    at = places[["number", "row", "col"]].to_numpy()
    chosen = spread_places(at, places["score"].to_numpy(), count=count, apart_px=apart)
    if not chosen:
        raise LabelError("no place without a label on the map", path=job.maps_folder, fix="map a larger area")
    best = places.iloc[chosen].reset_index(drop=True)
    best = best.assign(rank=np.arange(1, len(best) + 1), score=best["score"].round(3))[[*_FIXED, "geometry"]]
    best.insert(0, field, pd.Series([None] * len(best), dtype=object))
    layer = PackageLayer(NEXT, best, _style(listed_classes(job.config), field))
    write_geopackage(target, [layer], what="places to label", overwrite=overwrite)
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
        tables=(_table(best),),
        data={"label_next": best.drop(columns="geometry").to_dict("records")},
    )


_FIXED = ("rank", "scene", "mapped", "reason", "score")
# Of a place without a class yet.
_OPEN = "#ff00ff"


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
    """What the files of rounds are called."""
    return (folder / f"{NEXT}{f'_{number}' if number > 1 else ''}.gpkg" for number in count(1))


def _open_squares(
    squares: MapSquares, pixels: LabelledPixels, *, scheme: ClassScheme, before: NDArray[np.object_]
) -> gpd.GeoDataFrame:
    """The squares of one map without a label, and without those of an earlier round, with score and main reason."""
    size = squares.cell_px
    taken = np.unique(pixels.row.astype(np.int64) // size * 1_000_000 + pixels.col // size)
    which = np.flatnonzero(~np.isin(squares.row.astype(np.int64) // size * 1_000_000 + squares.col // size, taken))
    boxes = np.array([shapely.box(*squares.grid.crop(squares.window(i)).bounds) for i in which.tolist()], dtype=object)
    if len(before):
        inner = shapely.buffer(boxes, -0.01 * np.sqrt(shapely.area(boxes)))  # squares side by side share an edge
        left = np.ones(len(boxes), dtype=np.bool_)
        left[shapely.STRtree(before).query(inner, predicate="intersects")[0]] = False
        which, boxes = which[left], boxes[left]
    names = {item.code: item.name for item in scheme.classes}
    columns = {
        "row": squares.row[which], "col": squares.col[which], "score": likely_wrong(squares)[which],
        "mapped": np.array([names[code] for code in squares.code[which].tolist()], dtype=object),
        "reason": np.array(main_reasons(squares), dtype=object)[which],
    }  # fmt: skip
    return gpd.GeoDataFrame(columns, geometry=boxes, crs=squares.grid.crs.to_wkt())


def _style(scheme: ClassScheme, field: str) -> str:
    """Outlines by class, those without one in magenta; the legend as a list to choose from."""
    rows = (*scheme_categories(scheme, by_name=True), Category("", "to label", _OPEN))
    return from_template(
        "labels.qml.jinja", renderer=categorised(field, rows, shape="outline"), field=field,
        values=[(item.name, item.name) for item in scheme.classes], fixed=_FIXED,
    )  # fmt: skip


def _table(frame: gpd.GeoDataFrame) -> Table:
    counts = frame.groupby(["mapped", "reason"]).size().sort_values(ascending=False)
    rows = tuple((str(mapped), str(reason), str(number)) for (mapped, reason), number in counts.items())
    return Table("places", ("mapped as", "because of", "places"), rows[:12])
