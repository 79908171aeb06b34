"""``landcover labels audit``: doubtful polygons, and the places whose labels would teach most, to open in QGIS."""

from __future__ import annotations

import sqlite3
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from pipeline.diagnostics.applicability import fit_applicability
from pipeline.diagnostics.label_audit import (
    Place,
    PolygonOpinions,
    ask_out_of_fold,
    audit_table,
    confident_suggestions,
    look_over_scenes,
    spread_places,
)
from pipeline.errors import OutputError, SplitWarning
from pipeline.files import prepare_folder
from pipeline.maps.style import Category, categorised, qml, scheme_categories
from pipeline.maps.vectors import add_layer_style
from pipeline.splits.folds import polygon_folds
from pipeline.workflow.crossval_folds import tested_scenes
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.diagnostics.label_audit import AuditTable, CellTable
    from pipeline.splits.split import TrainingScene
    from pipeline.workflow.outcome import Progress

FILE = "labels_audit.gpkg"
SUSPICIOUS, NEXT = "suspicious", "label_next"
FOLDS = 5
# Windows of 64 pixels that are looked at: 0.6 million pixels, whatever the scene's size.
WINDOWS = 150
_SHOWN = 12
_UNSURE, _UNLIKE, _BOTH = "unsure", "unlike anything labelled", "unsure and unlike anything labelled"
# Entropy, of at most 1, from which a place is called unsure: two classes of eight alike give 0.33, three 0.53.
_MUCH = 0.4


def audit_labels(
    config: Path, *, count: int, seed: int, output: Path | None, overwrite: bool, progress: Progress
) -> Outcome:
    """Ask forests about polygons they never saw, and about the scene; write a GeoPackage of two layers.

    Classes of one polygon cannot be asked about and are left out with a SplitWarning.

    Args:
        config: The configuration file.
        count: Places to label next.
        seed: Of folds, forests and windows.
        output: GeoPackage; default ``labels_audit.gpkg`` in the run folder.
        overwrite: Replace it.
        progress: For the terminal.

    Raises:
        OutputError: ``output`` exists, or cannot be written.
    """
    job = Job.load(config)
    target = output or job.open_folder().path / FILE
    if target.exists() and not overwrite:
        raise OutputError("the file exists", path=target, fix="add --overwrite, or choose another with -o")
    prepare_folder(target.parent)
    scenes = tested_scenes(job, leave_out_single=True)
    pixels = [scene.pixels for scene in scenes]
    ids = len(np.unique(np.concatenate([part.polygon for part in pixels])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplitWarning)  # said already
        splits = polygon_folds(pixels, folds=min(FOLDS, ids), seed=seed, validation_fraction=0.0)
    progress("labels", 0, 4)
    table = audit_table(scenes, job.scheme, seed=seed)
    progress("labels", 1, 4)
    opinions = ask_out_of_fold(table, splits, classes=len(job.scheme), seed=seed)
    progress("labels", 2, 4)
    cells = look_over_scenes(scenes, table.forest(seed=seed), classes=len(job.scheme), windows=WINDOWS, seed=seed)
    places = _places(scenes, table, opinions, cells, count=count, seed=seed)
    progress("labels", 3, 4)
    suspicious, rows = _suspicious(job, opinions)
    write_audit(target, job, suspicious, _place_frame(job, scenes, places))
    progress("labels", 4, 4)
    found = rows["suspicious"]
    return Outcome(
        summary=f"{job.config.name}: {len(found)} of {len(opinions.polygon)} polygons are doubtful; "
        f"{len(places)} places to label next",
        written=(target,),
        hint="drop the file onto QGIS: two layers with styles, the most doubtful and most useful first by rank",
        tables=(_suspicious_table(found), _class_table(rows["classes"])),
        data=rows | {"label_next": [_place_facts(job, scenes, number, place) for number, place in enumerate(places)]},
    )


def _suspicious(job: Job, opinions: PolygonOpinions) -> tuple[GeoDataFrame, dict[str, Any]]:
    """Layer and figures of the polygons that are confidently taken for another class, the surest first."""
    suggested = confident_suggestions(opinions.probability, opinions.given)
    at = np.arange(len(opinions.polygon))
    own = opinions.probability[at, opinions.given]
    other = np.where(suggested >= 0, opinions.probability[at, np.maximum(suggested, 0)], 0.0)
    order = [int(i) for i in np.argsort(own - other, kind="stable") if suggested[i] >= 0]
    names = job.scheme.names
    overlaps = _overlaps(job)
    facts = [
        {
            "rank": rank,
            "poly_id": int(opinions.polygon[i]),
            "class": names[opinions.given[i]],
            "suggested": names[suggested[i]],
            "p_class": round(float(own[i]), 3),
            "p_suggested": round(float(other[i]), 3),
            "agree": round(float(opinions.agree[i]), 3),
            "overlaps": overlaps.get(int(opinions.polygon[i]), ""),
        }
        for rank, i in enumerate(order, 1)
    ]
    frame = job.labels.frame.set_index("poly_id").loc[[item["poly_id"] for item in facts]]
    for item, feature in zip(facts, frame["feature"], strict=True):
        item["feature"] = int(feature)
    import geopandas as gpd
    import pandas as pd

    columns = ["rank", "poly_id", "class", "suggested", "p_class", "p_suggested", "agree", "overlaps", "feature"]
    layer = gpd.GeoDataFrame(pd.DataFrame(facts, columns=columns), geometry=list(frame.geometry), crs=frame.crs)
    classes = [
        {
            "class": name,
            "polygons": int((opinions.given == number).sum()),
            "suspicious": int(((opinions.given == number) & (suggested >= 0)).sum()),
            "agree": round(float(opinions.agree[opinions.given == number].mean()), 3),
        }
        for number, name in enumerate(names)
        if (opinions.given == number).any()
    ]
    return layer, {"polygons": len(at), "suspicious": facts, "classes": classes}


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
    scenes: Sequence[TrainingScene],
    table: AuditTable,
    opinions: PolygonOpinions,
    cells: CellTable,
    *,
    count: int,
    seed: int,
) -> list[Place]:
    """The best cells; novelty is their dissimilarity index over the threshold of the area of applicability."""
    if not len(cells.row) or not count:
        return []
    fold_of = dict(zip(opinions.polygon.tolist(), opinions.fold.tolist(), strict=True))
    folds = np.array([fold_of.get(int(polygon), -1) for polygon in table.polygon])
    kept = folds >= 0
    index = fit_applicability(table.features[kept], folds=folds[kept], seed=seed)
    novelty = index.dissimilarity(cells.features) / index.threshold
    apart = [0.5 * float(np.prod(scene.source.grid.shape) / count) ** 0.5 for scene in scenes]
    return spread_places(cells, _capped(novelty), count=count, apart_px=apart)


def _capped(novelty: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 at the threshold of the area of applicability and beyond."""
    return np.clip(np.nan_to_num(novelty.astype(np.float64), nan=0.0), 0.0, 1.0)


def _place_facts(job: Job, scenes: Sequence[TrainingScene], number: int, place: Place) -> dict[str, Any]:
    names = job.scheme.names
    x, y = scenes[place.scene].source.grid.xy(
        place.window.row + place.window.height / 2 - 0.5, place.window.col + place.window.width / 2 - 0.5
    )
    return {
        "rank": number + 1,
        "scene": scenes[place.scene].source.id,
        "reason": _reason(place),
        "likely": names[place.likely],
        "second": names[place.second],
        "score": round(place.score, 3),
        "entropy": round(place.entropy, 3),
        "novelty": round(place.novelty, 3),
        "x": x,
        "y": y,
    }


def _reason(place: Place) -> str:
    if place.novelty < 1:
        return _UNSURE
    return _BOTH if place.entropy >= _MUCH else _UNLIKE


def _place_frame(job: Job, scenes: Sequence[TrainingScene], places: Sequence[Place]) -> GeoDataFrame:
    """Squares to label, in the CRS of the first scene."""
    import geopandas as gpd
    import pandas as pd

    target = str(scenes[0].source.grid.crs)
    facts = [_place_facts(job, scenes, number, place) for number, place in enumerate(places)]
    shapes = []
    for place in places:
        grid = scenes[place.scene].source.grid
        own = gpd.GeoSeries([shapely.box(*grid.crop(place.window).bounds)], crs=str(grid.crs))
        shapes.append(own.to_crs(target).iloc[0])
    columns = ["rank", "scene", "reason", "likely", "second", "score", "entropy", "novelty"]
    table = pd.DataFrame([{key: item[key] for key in columns} for item in facts], columns=columns)
    return gpd.GeoDataFrame(table, geometry=shapes, crs=target)


def write_audit(path: Path, job: Job, suspicious: GeoDataFrame, places: GeoDataFrame) -> Path:
    """The GeoPackage: layers ``suspicious`` (in the labels' CRS) and ``label_next``, each with its style.

    Raises:
        OutputError: it cannot be written.
    """
    from pyogrio.errors import DataSourceError

    part = path.with_name(f".{path.stem}.part.gpkg")
    try:
        part.unlink(missing_ok=True)
        kind = "Polygon" if suspicious.empty else None
        suspicious.to_file(part, layer=SUSPICIOUS, driver="GPKG", engine="pyogrio", geometry_type=kind)
        kind = "Polygon" if places.empty else None
        places.to_file(part, layer=NEXT, driver="GPKG", engine="pyogrio", geometry_type=kind)
        points = bool(len(suspicious)) and bool((suspicious.geom_type == "Point").all())
        rows = scheme_categories(job.scheme, by_name=True)
        style = categorised("suggested", rows, shape="marker" if points else "outline")
        add_layer_style(part, layer=SUSPICIOUS, style=qml(style))
        colors = {_UNSURE: "#e69f00", _UNLIKE: "#cc79a7", _BOTH: "#d55e00"}
        reasons = tuple(Category(text, text, color) for text, color in colors.items())
        add_layer_style(part, layer=NEXT, style=qml(categorised("reason", reasons, shape="outline")))
        part.replace(path)
    except (DataSourceError, OSError, sqlite3.Error) as err:
        raise OutputError("cannot write the audit", path=path, got=err) from err
    finally:
        part.unlink(missing_ok=True)
    return path


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
