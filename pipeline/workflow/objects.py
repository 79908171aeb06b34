"""``landcover objects`` and the assessment of objects: outlines of a class map, a mask or polygons, and their worth."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from pipeline.accuracy.assess_estimators import Estimate
from pipeline.accuracy.assess_objects import Matches, ObjectFigures, match_objects, object_figures, pooled
from pipeline.errors import InputError, LabelError, LabelWarning, LegendError, counted
from pipeline.files import check_target, write_json
from pipeline.labels.footprints import is_vector, outlined, read_footprints
from pipeline.labels.geometries import metric_crs
from pipeline.labels.rasterise import to_grid_crs
from pipeline.legend import ClassScheme, scheme_for
from pipeline.maps.legends import read_scheme
from pipeline.maps.objects import (
    DEFAULT_TOLERANCE_PX,
    Objects,
    find_objects,
    object_frame,
    without_overlaps,
    write_objects,
)
from pipeline.maps.pixels import FilePixels, row_bands
from pipeline.maps.rings import regular_outlines
from pipeline.maps.vectors import PackageLayer, check_geopackage_name, write_geopackage
from pipeline.report.data import MapView, ObjectsView
from pipeline.splits.split import Part
from pipeline.workflow.accuracy import percent, with_interval
from pipeline.workflow.outcome import Outcome, Table, no_progress

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from pipeline.accuracy.settings import MatchSettings
    from pipeline.grid import Grid
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.maps.settings import ObjectSettings
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.workflow.job import Job

HEADS = ("scene", "class", "F1", "precision", "recall", "PoLiS (m)", "objects right", "footprints")
# Percentile of the edges' lengths that stands for the pixel of polygons that came from a mask.
_SHORT_EDGES = 10


def objects_of(
    path: Path, settings: ObjectSettings, *, output: Path, confidence: Path | None, scheme: ClassScheme | None,
    overwrite: bool,
) -> Outcome:  # fmt: skip
    """Objects of a class map or mask, or the polygons of a vector file with regular outlines.

    ``confidence`` is a raster in percent on the grid of the map, ``scheme`` the legend of a map that carries none.

    Raises:
        PipelineError: a file that cannot be read, no class that is asked for, or a file in the way.
    """
    check_target(output, overwrite=overwrite, inputs=(path, *(() if confidence is None else (confidence,))))
    check_geopackage_name(output)
    if is_vector(path) and confidence is not None:
        raise LabelError("polygons have no confidence", path=path, got=confidence, fix="leave it out, or give the map")
    frame, legend = _of_vectors(path, settings) if is_vector(path) else _of_map(path, settings, confidence, scheme)
    write_objects(output, frame, scheme=legend, overwrite=overwrite)
    return Outcome(
        summary=f"{output}: {counted(len(frame), 'object')}",
        written=(output,),
        tables=(object_table(frame),) if len(frame) else (),
        hint=""
        if len(frame)
        else f"{path.name} has no object of {', '.join(settings.classes) or 'its class'} of this size",
        data={"objects": len(frame), "area_m2": float(frame["area_m2"].sum()) if len(frame) else 0.0},
    )


def object_table(frame: GeoDataFrame) -> Table:
    """Objects per class: how many, area, corners."""
    rows = tuple(
        (
            str(name),
            f"{len(part)}",
            f"{part['area_m2'].sum():,.0f}",
            f"{part['area_m2'].median():,.1f}",
            f"{part['vertices'].mean():.1f}",
        )
        for name, part in frame.groupby("class")
    )
    return Table("objects", ("class", "number", "m2", "median m2", "mean vertices"), rows)


def _of_map(
    path: Path, settings: ObjectSettings, confidence: Path | None, scheme: ClassScheme | None
) -> tuple[GeoDataFrame, ClassScheme]:
    with ExitStack() as stack:
        codes = stack.enter_context(FilePixels(path))
        if codes.bands != 1:
            raise LegendError("map has several bands", path=path, got=codes.bands, expected="one band of classes")
        if codes.grid.crs is None or codes.grid.transform.is_identity:
            raise InputError("map has no CRS or no geotransform", path=path, fix="set it with gdal_edit.py -a_srs")
        codes.grid.check_place(what="map", path=path, error=InputError)
        sure = stack.enter_context(FilePixels(confidence)) if confidence is not None else None
        if sure is not None and not sure.grid.same_pixels_as(codes.grid):
            raise LegendError("confidence has another grid than the map", path=confidence, fix="name that of the map")
        if sure is not None and (sure.bands > 1 or sure.dtype != np.uint8):
            got = f"{sure.bands} x {sure.dtype}"
            raise LegendError(
                "confidence is not one of per cent", path=confidence, got=got, expected="one band of uint8"
            )
        legend = scheme or _legend_of(path, codes)
        names = _names(settings.classes, legend)
        chosen = settings.model_copy(update={"classes": names})
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="landcover-objects-")))
        found = find_objects(codes, grid=codes.grid, scheme=legend, settings=chosen, confidence=sure, scratch=scratch)
        return object_frame(found, crs=codes.grid.crs, scheme=legend), legend


def _legend_of(path: Path, codes: FilePixels) -> ClassScheme:
    """The legend that a map carries; of a plain mask its values."""
    try:
        return read_scheme(path)
    except LegendError:
        if codes.dtype != np.uint8:
            raise
        values = np.unique(np.concatenate([np.unique(codes.read(window)) for window in row_bands(codes.grid)]))
        names = [str(value) for value in values.tolist() if 0 < value < 255]  # noqa: PLR2004 - nodata and unlabelled
        if not names:
            raise LegendError("mask has no value that is a class", path=path, got=values.tolist()) from None
        return scheme_for(names)[0]


def _names(wanted: tuple[str, ...], scheme: ClassScheme) -> tuple[str, ...]:
    """Names of the classes that are asked for by name or code; the only class where none is."""
    if not wanted and len(scheme) == 1:
        return scheme.names
    by_code = {str(item.code): item.name for item in scheme.classes}
    return tuple(by_code.get(name, name) for name in wanted)


def _of_vectors(path: Path, settings: ObjectSettings) -> tuple[GeoDataFrame, ClassScheme]:
    """Regular outlines of polygons, in their own CRS."""
    if len(settings.classes) > 1:
        raise LabelError(
            "polygons of several classes", path=path, got=", ".join(settings.classes), expected="one class"
        )
    name = settings.classes[0] if settings.classes else "object"
    frame = read_footprints(path).explode(ignore_index=True)
    metric = frame.to_crs(metric_crs(frame, path=path))
    shapes = np.asarray(metric.geometry.array, dtype=object)
    shapes = shapes[shapely.area(shapes) >= (settings.min_area_m2 or 0.0)]
    tolerance = settings.tolerance_m or DEFAULT_TOLERANCE_PX * _step(shapes)
    made = regular_outlines(shapes, tolerance=tolerance, right_angles=settings.right_angles)
    scheme = scheme_for([name])[0]
    none = np.full(len(made), np.nan)
    found = Objects(without_overlaps(made, none), np.full(len(made), scheme.codes[0], dtype=np.uint8), none)
    crs = CRS.from_user_input(metric.crs.to_wkt())
    return object_frame(found, crs=crs, scheme=scheme).to_crs(frame.crs), scheme


def _step(shapes: NDArray[Any]) -> float:
    """The pixel that outlines were made of, as far as their edges tell: few are shorter than it."""
    lengths = [np.hypot(*np.diff(shapely.get_coordinates(ring), axis=0).T) for ring in shapely.get_rings(shapes)]
    return float(np.percentile(np.concatenate(lengths), _SHORT_EDGES)) if lengths else 1.0


def assess_objects(
    path: Path, reference: Path, settings: MatchSettings, *, output: Path | None, overwrite: bool
) -> Outcome:
    """Objects of a vector file against footprints.

    Raises:
        PipelineError: a file that cannot be read, or footprints and objects that do not meet.
    """
    if output is not None:
        check_target(output, overwrite=overwrite, inputs=(path, reference))
    predicted = read_footprints(path, may_be_empty=True)
    footprints = footprints_mapped(path, read_footprints(reference))
    inside = read_footprints(settings.area) if settings.area is not None else None
    matches = match_objects(predicted, footprints, iou=settings.iou, area=inside)
    found = object_figures(matches, iou=settings.iou, block_m=settings.block_m, complete=not settings.incomplete)
    data = found.to_json()
    return Outcome(
        summary=f"{path.name}: {object_line(found)}",
        tables=(figures_table(found),),
        hint=found.intervals,
        written=(write_json(output, data),) if output else (),
        data=data,
    )


def footprints_mapped(path: Path, footprints: GeoDataFrame) -> GeoDataFrame:
    """Footprints whose inner point was mapped, where objects (``<scene>_objects.gpkg``) lie beside ``<scene>_lc.tif``.

    LabelWarning of those outside it and on its nodata: what was not mapped was not missed.
    """
    scene = path.stem.removesuffix("_objects")
    beside = path.with_name(f"{scene}_lc.tif")
    if scene == path.stem or not beside.is_file():
        return footprints
    with rasterio.open(beside) as codes:
        points = footprints.to_crs(codes.crs).representative_point()
        found = codes.sample(zip(points.x, points.y, strict=True), indexes=1, masked=True)
        mapped = np.array([not np.ma.getmaskarray(value).any() for value in found])
    if not mapped.all():
        text = f"{(~mapped).sum()} of {counted(len(mapped), 'footprint')} lie where {beside.name} maps nothing"
        warnings.warn(f"{text} and are left out", LabelWarning, stacklevel=3)
    return footprints[mapped]


def object_line(found: ObjectFigures) -> str:
    """The main figure in a line."""
    if not found.complete:
        return f"recall {percent(found.figures['recall'])} of {counted(found.reference, 'footprint')}"
    return (
        f"F1 {with_interval(found.figures['f1'], '.3f')} at IoU {found.iou_threshold:g}, "
        f"{found.matched} of {counted(found.predicted, 'object')}, {counted(found.reference, 'footprint')}"
    )


def figures_table(found: ObjectFigures) -> Table:
    """All figures with their intervals."""
    forms = {"precision": ".3f", "recall": ".3f", "f1": ".3f", "polis_m": ".2f", "count_ratio": ".2f"}
    words = {"f1": "F1", "polis_m": "PoLiS (m)", "count_ratio": "objects / footprints"}
    rows = [(words.get(name, name), with_interval(found.figures[name], form)) for name, form in forms.items()]
    rows += [] if found.iou_of_areas is None else [("IoU of the areas", f"{found.iou_of_areas:.3f}")]
    return Table(f"objects at IoU {found.iou_threshold:g}", ("", ""), tuple(rows))


def object_accuracy(job: Job) -> list[dict[str, Any]]:
    """Figures of each class of objects in each scene, JSON-ready, on the ground of the test polygons.

    Where the footprints are not complete an unmatched object may be right: only recall is given. Scenes without a
    footprint of the test part are left out.
    """
    complete = bool(job.config.labels.complete)
    tested, found = job.split.polygons(Part.TEST), []
    codes = outlined(job.labels, job.object_codes)
    for source in job.sources:
        here = _tested_here(job, source, tested)
        for code in codes:
            if (here["code"] == code).any():
                figures = object_figures(_matches(job, job.objects_of(source.id), code, here), complete=complete)
                found.append({"scene": source.id, "class": job.scheme.by_code(code).name, **figures.to_json()})
    return found


def _tested_here(job: Job, source: Source, tested: NDArray[np.int32]) -> GeoDataFrame:
    """The label polygons of some ids that meet a scene, in its CRS."""
    frame = job.labels.frame
    here = to_grid_crs(frame[np.isin(frame["poly_id"], tested)], source.grid)
    return here[here.intersects(shapely.box(*source.grid.bounds))]


def _footprints(job: Job, code: int) -> GeoDataFrame:
    frame = job.labels.frame
    return frame[(frame["code"] == code) & frame.geometry.geom_type.str.contains("Polygon")]


def _matches(job: Job, path: Path, code: int, ground: GeoDataFrame) -> Matches:
    """Mapped objects of a class against its footprints, of which those count whose inner point lies on the ground."""
    predicted, footprints = read_footprints(path, may_be_empty=True), _footprints(job, code)
    ours = predicted[predicted["class"] == job.scheme.by_code(code).name] if len(predicted) else predicted
    return match_objects(ours, footprints, area=ground, one_place=True)


# Of the products of a map, those that the objects of a fold need none of.
_NOT_HELD_OUT: dict[str, Any] = {
    "applicability": False, "sets": None, "polygons": False, "probabilities": False, "entropy": False, "margin": False,
    "seam_figure": False, "mosaic": None,
}  # fmt: skip


def map_held_out(
    job: Job, scenes: Sequence[TrainingScene], bundle: ModelBundle, tested: Sequence[LabelledPixels], folder: Path
) -> None:
    """Map the objects of the ground that a fold holds out into ``folder``, as ``landcover run`` maps a scene.

    Around it so much is mapped that objects across its border are whole.
    """
    from pipeline.workflow.scene_maps import MapOrder, map_scene  # torch, which assessing does without

    for scene, pixels in zip(scenes, tested, strict=True):
        if not len(pixels):
            continue
        here = _tested_here(job, scene.source, pixels.polygon_ids())
        bounds = here[here["code"].isin(job.object_codes)].bounds.to_numpy()
        margin = float((bounds[:, 2:] - bounds[:, :2]).max()) if len(bounds) else 0.0
        around = here.set_geometry(here.buffer(margin)).dissolve()[["geometry"]]
        area = write_geopackage(folder / f"{scene.source.id}_ground.gpkg", [PackageLayer("mapped", around)], what="it")
        settings = job.config.mapping.model_copy(update={**_NOT_HELD_OUT, "aoi": str(area)})
        order = MapOrder(folder, settings, overwrite=True, force=True)
        map_scene(bundle, scene.source, order, progress=no_progress)


def held_out_objects(
    job: Job, scenes: Sequence[TrainingScene], splits: Mapping[int, Split], *, folder: Path, seed: int
) -> list[dict[str, Any]]:
    """Figures of each class of objects pooled over mapped folds, by their number from 0, JSON-ready.

    A footprint is held out as a whole, in one fold. An object counts in the fold on whose ground its inner point lies.
    """
    found = []
    for code in outlined(job.labels, job.object_codes) if job.object_codes else ():
        parts, folds, across = list[Matches](), list[dict[str, int]](), 0
        for number, split in splits.items():
            own = list[Matches]()
            for scene, pixels in zip(scenes, split.tested([item.pixels for item in scenes]), strict=True):
                path = folder / f"fold{number}" / f"{scene.source.id}_objects.gpkg"
                if len(pixels):
                    here = _tested_here(job, scene.source, pixels.polygon_ids())
                    own.append(_matches(job, path, code, here))
                    across += _across(own[-1], here.to_crs(metric_crs(_footprints(job, code))), scene.source.grid)
            if own:
                mine = pooled(own)
                hits = int(mine.counted[0][mine.pairs[:, 0]].sum())
                folds.append({"fold": number + 1, "predicted": int(mine.counted[0].sum()), "matched": hits,
                              "reference": int(mine.counted[1].sum())})  # fmt: skip
                parts.append(mine)
        if parts:
            figures = object_figures(pooled(parts), complete=bool(job.config.labels.complete)).to_json()
            name = job.scheme.by_code(code).name
            found.append({"class": name, "seed": seed, "folds": folds, "across_border": across, **figures})
    return found


def _across(found: Matches, ground: GeoDataFrame, grid: Grid) -> int:
    """How many objects that count reach more than a pixel beyond the ground, both in one plane of metres."""
    ours = found.predicted[found.counted[0]]
    held = ground.union_all().buffer(max(grid.pixel_size_m))
    shapely.prepare(held)
    return int((~shapely.covers(held, ours)).sum())


def held_out_tables(found: Sequence[Mapping[str, Any]], *, kind: str) -> tuple[Table, ...]:
    """What :func:`held_out_objects` gives, as a table."""
    if not found:
        return ()
    rows = tuple(
        (f"{item['seed']}", f"{len(item['folds'])}", item["class"], *_figure_texts(item), f"{item['across_border']}")
        for item in found
    )
    notes = (
        f"intervals: {found[0]['intervals']}",
        (
            "footprints are held out whole; an object counts in the fold on whose ground its inner point lies, whole "
            "as the fold's network maps it, those across the border of that ground too"
        ),
    )
    heads = ("seed", "folds", *HEADS[1:], "across the border")
    return (Table(f"objects at IoU {found[0]['iou_threshold']:g}, folds by {kind} pooled", heads, rows, notes),)


def accuracy_rows(found: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """What :func:`object_accuracy` gives, as rows of text under HEADS."""
    return tuple((item["scene"], item["class"], *_figure_texts(item)) for item in found)


def _figure_texts(item: Mapping[str, Any]) -> tuple[str, ...]:
    known = (item[name] for name in ("f1", "precision", "recall", "polis_m"))
    texts = (with_interval(Estimate(part["estimate"], ci95=part["ci95"]), ".2f") for part in known)
    return (*texts, f"{item['matched']} of {item['predicted']}", str(item["reference"]))


def objects_views(job: Job, views: Sequence[MapView], accuracy: Mapping[str, Any]) -> tuple[ObjectsView, ...]:
    """What the report shows of the objects of each scene, with the footprints of the test part."""
    known, found = accuracy.get("objects", ()), []
    named = [job.scheme.by_name(name).code for name in {item["class"] for item in known}]
    for source, view in zip(job.sources, views, strict=True):
        predicted = read_footprints(job.objects_of(source.id), may_be_empty=True)
        here = _tested_here(job, source, job.split.polygons(Part.TEST))
        here = here[here["code"].isin(named)]
        matched = match_objects(predicted, here, one_place=True).pairs[:, 1] if len(here) and len(predicted) else ()
        hit = np.isin(np.arange(len(here)), matched)
        own = [item for item in known if item["scene"] == source.id]
        to_pixels = partial(_in_pixels, grid=source.grid, shape=view.codes.shape)
        outlines = np.asarray(here.geometry.array, dtype=object)
        mapped = to_pixels(np.asarray(predicted.geometry))
        intervals, rows = own[0]["intervals"] if own else "", accuracy_rows(own)
        found.append(
            ObjectsView(view, mapped, to_pixels(outlines[hit]), to_pixels(outlines[~hit]), HEADS, rows, intervals)
        )
    return tuple(found)


def _in_pixels(shapes: NDArray[Any], *, grid: Grid, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], ...]:
    """Rings as float64 [corner, (col, row)] in pixels of a decimated view of a grid."""
    to_view = Affine.scale(shape[1] / grid.width, shape[0] / grid.height) @ ~grid.transform
    scale, start = (to_view.a, to_view.e), (to_view.c, to_view.f)
    return tuple(shapely.get_coordinates(ring) * scale + start for ring in shapely.get_rings(shapes))
