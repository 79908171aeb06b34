"""Stages train, predict and assess; of a continuous target, ``value_stages`` has its own train and assess."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.diagnostics.applicability import learn_distance
from pipeline.diagnostics.class_sets import KEY as SETS
from pipeline.diagnostics.class_sets import fit_limits
from pipeline.diagnostics.confidence import blocks_of_pixels, calibrate, held_out_probabilities, held_out_reliability
from pipeline.diagnostics.failures import MappedScene, find_failures
from pipeline.diagnostics.scoring import (
    FORESTS,
    HOLD_OUT,
    SAMPLING,
    at_pixels,
    better,
    classes_ahead,
    confusion_csv,
    score,
    score_json,
)
from pipeline.errors import ModelError, ModelWarning, PipelineError
from pipeline.experts.forest import NEIGHBOURHOODS, fit_forest
from pipeline.files import csv_text, write_json, write_text
from pipeline.inference.sources import NODATA_SAID, OBJECTS, RECIPE, STORED, nodata_said, recipe_of, stored_values
from pipeline.legend import NODATA
from pipeline.model.bundle import ModelBundle, load_bundle, save_bundle
from pipeline.model.checks import check_source, histograms_of, sample_values
from pipeline.process import give_back, reset_peak
from pipeline.splits.split import Part
from pipeline.training.chip_index import read_index
from pipeline.training.fit import fit
from pipeline.training.settings import learned_polygons
from pipeline.workflow.job import ACCURACY, AREAS, CONFUSION, HISTORY
from pipeline.workflow.objects import object_accuracy
from pipeline.workflow.scene_maps import MOSAIC, MOSAIC_RECORD, WORK, MapOrder, map_scene, write_mosaic_map
from pipeline.workflow.stage_chips import split_summary

if TYPE_CHECKING:
    from pipeline.experts.mixture import OutOfFold
    from pipeline.maps.pixels import ClassCounts
    from pipeline.workflow.job import Job, StageRun


def train(given: StageRun) -> list[Path]:
    """Learn from the chips of ``chips/index.parquet``; write ``model/model.safetensors`` and ``training.csv``."""
    job = given.job
    result = fit(
        job.training_scenes, job.split, job.scheme, index=read_index(job.index_path), settings=job.config.training,
        folder=job.model_path.parent, objects=job.object_indices, resume=given.resume, progress=given.progress,
    )  # fmt: skip
    given.facts.update({f"{step}_s": round(seconds, 1) for step, seconds in result.seconds.items()})
    bundle = with_judgement(result.bundle, job, out_of_fold=result.out_of_fold)
    bundle = with_inputs(bundle, job)
    return [save_bundle(job.model_path, bundle), write_history(job.folder / HISTORY, result.history)]


def with_inputs(bundle: ModelBundle, job: Job) -> ModelBundle:
    """The model with what it learned from: units, how values are spread, how scenes are made into its inputs."""
    return replace(
        bundle,
        units=job.sources[0].select(bundle.bands).units,
        histograms=histograms_of([sample_values(scene.source.select(bundle.bands)) for scene in job.training_scenes]),
        provenance={
            **bundle.provenance,
            "inputs": job.input_hash,
            "indices": list(job.config.inputs.indices),
            RECIPE: recipe_of(job.config.inputs, job.sources),
            OBJECTS: job.config.mapping.objects.model_dump(mode="json"),
            STORED: stored_values(job.sources[0]),
            NODATA_SAID: nodata_said(job.config.scenes),
            "ledger": [source.ledger() for source in job.sources],
        },
    )


def with_judgement(bundle: ModelBundle, job: Job, *, out_of_fold: OutOfFold | None = None) -> ModelBundle:
    """The model with what lets it judge its own maps: a temperature, and features of training pixels.

    ``provenance["calibration"]`` and ``provenance["applicability"]`` say how, or why not ("none: ...").
    """
    scenes, settings = job.training_scenes, job.config.training
    refitted = Part.VALIDATION in settings.learned_parts
    bundle = calibrate(bundle, scenes, job.split, learned_validation=refitted, held_out=out_of_fold, seed=settings.seed)
    bundle = _with_sets(bundle, job, refitted=refitted, out_of_fold=out_of_fold)
    return with_distance(bundle, job)


def with_distance(bundle: ModelBundle, job: Job) -> ModelBundle:
    """The model with features of training pixels, from which it tells its area of applicability."""
    scenes, settings = job.training_scenes, job.config.training
    polygons = learned_polygons(job.split, settings)
    distance = learn_distance(bundle, scenes, job.split, polygons=polygons, seed=settings.seed)
    if distance is None:
        note: object = "none: the training polygons lie in one block, or their features do not vary"
        return replace(bundle, provenance={**bundle.provenance, "applicability": note})
    note = {
        "method": "dissimilarity index (Meyer & Pebesma 2021) of network features, folds by spatial block",
        "pixels": len(distance.index.training),
        "threshold": distance.index.threshold,
    }
    return replace(
        bundle, provenance={**bundle.provenance, "applicability": note}, extra={**bundle.extra, **distance.tensors()}
    )


def _with_sets(bundle: ModelBundle, job: Job, *, refitted: bool, out_of_fold: OutOfFold | None) -> ModelBundle:
    """The model with the limits of its class sets, from pixels held out, or the reason why it has none."""
    found = held_out_probabilities(
        bundle, job.training_scenes, job.split, learned_validation=refitted, held_out=out_of_fold
    )
    if found is None or not len(found[1]):
        return replace(bundle, provenance={**bundle.provenance, SETS: "none: no pixel was held out"})
    probabilities, index, polygon = found
    limits = fit_limits(probabilities, index, block=blocks_of_pixels(polygon, job.split.block_of))
    try:
        note = limits.words(0.9)
    except ModelError as err:
        note = f"none at 90 %: {err}"
    return replace(bundle, provenance={**bundle.provenance, SETS: note}, extra={**bundle.extra, **limits.tensors()})


def write_history(path: Path, history: list[dict[str, float]]) -> Path:
    """The training log as CSV; columns that a row lacks stay empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = csv_text([columns, *([row.get(key, "") for key in columns] for row in history)], ends="\r\n")
    return write_text(path, text, what="the training log")


def predict(given: StageRun) -> list[Path]:
    """Write the maps of all scenes and ``areas.json``.

    Raises:
        PipelineError: the first scene that cannot be mapped, once the others have been.
    """
    job = given.job
    # What training held is no part of what mapping needs.
    give_back()
    reset_peak()
    bundle = load_bundle(job.model_path)
    _warn_of_objects(job, bundle)
    order = MapOrder(job.maps_folder, job.config.mapping, overwrite=True, ledger=job.folder, values=job.is_value)
    maps, errors = [], list[PipelineError]()
    for source in job.mapped:
        try:
            maps.append(map_scene(bundle, check_source(bundle, source), order, progress=given.progress))
        except PipelineError as err:
            errors.append(err)
    if errors:
        raise errors[0]
    mosaic = write_mosaic_map(maps, job.mapped, order)
    given.facts["mpx"] = round(sum(item.figures["mpx"] for item in maps), 4)
    given.facts["mpx_per_s"] = round(given.facts["mpx"] / max(sum(item.figures["seconds"] for item in maps), 1e-9), 4)
    areas = write_areas(job.folder / AREAS, [(item.name, item.counts) for item in maps])
    # The stage's own record says from now on that the maps are finished.
    for source in job.mapped:
        order.record(bundle, source).path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            order.work(source).rmdir()
    (job.maps_folder / WORK / MOSAIC_RECORD).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (job.maps_folder / WORK).rmdir()
    return [*(path for item in maps for path in item.files), *([mosaic] if mosaic else []), areas]


def _warn_of_objects(job: Job, bundle: ModelBundle) -> None:
    """The maps of a configuration follow it; those of the model file alone follow what it was trained with."""
    kept, now = bundle.provenance.get(OBJECTS), job.config.mapping.objects.model_dump(mode="json")
    if isinstance(kept, dict) and kept != now:
        text = "map.objects is not what the model was trained with: these maps follow the configuration, those of "
        text += "landcover predict --model the model file; landcover train --force brings it up to date"
        warnings.warn(text, ModelWarning, stacklevel=2)


def predict_products(job: Job) -> list[Path]:
    """The files that the stage makes, sidecars aside."""
    order = MapOrder(job.maps_folder, job.config.mapping, values=job.is_value)
    mosaic = [job.maps_folder / MOSAIC] if order.settings.mosaic and len(job.mapped) > 1 else []
    return [path for source in job.mapped for path in order.products(source)] + [*mosaic, job.folder / AREAS]


def write_areas(path: Path, counts: list[tuple[str, ClassCounts]]) -> Path:
    """``areas.json``: mapped area per class over all scenes, and per scene."""
    names = counts[0][1].scheme.names
    totals = [sum(item.area_ha[i] for _, item in counts) for i in range(len(names))]
    whole = sum(totals) or 1.0
    mapped, unseen = sum(sum(item.pixels) for _, item in counts), sum(item.nodata_pixels for _, item in counts)
    return write_json(
        path,
        {
            "unit": "ha",
            "what": "mapped area, counted from pixels; not an area estimate",
            "mapped_share": mapped / max(mapped + unseen, 1),
            "classes": [
                {"name": name, "area_ha": round(area, 4), "share": area / whole}
                for name, area in zip(names, totals, strict=True)
            ],
            "scenes": {scene: dict(zip(names, item.area_ha, strict=True)) for scene, item in counts},
        },
    )


def assess(given: StageRun) -> list[Path]:
    """Write ``accuracy.json``, ``confusion.csv`` and where the map fails.

    ``calibration`` in the first is the reliability diagram of the test pixels, without and with the temperature.

    The figures are the network's first, then those of two forests that learned from the same polygons: from bands, and
    from bands and neighbourhoods; ``baseline`` is the better of the two.
    """
    job, folder = given.job, given.job.folder
    tested = [(job.sources[number], pixels) for number, pixels in job.test_pixels]
    maps = [
        MappedScene(source.id, pixels, job.map_of(source.id), job.map_of(source.id, "conf"))
        for source, pixels in tested
    ]
    reference = _joined([item.pixels.code for item in maps])
    network = _joined([at_pixels(item.map_path, item.pixels) for item in maps])
    polygon = _joined([item.pixels.polygon for item in maps])
    given.progress("random forests", 0, len(FORESTS))
    mapped = {"network": network}
    for number, (method, sizes) in enumerate(zip(FORESTS, ((), NEIGHBOURHOODS), strict=True), 1):
        mapped[method] = _forest(job, sizes)
        given.progress("random forests", number, len(FORESTS))
    # All are judged on the pixels that all could see.
    seen = np.all([codes != NODATA for codes in mapped.values()], axis=0)
    scores = [
        score(method, codes[seen], reference[seen], scheme=job.scheme, polygon=polygon[seen])
        for method, codes in mapped.items()
    ]
    forests = scores[1:]
    failures, files = find_failures(
        maps, polygons=job.labels.frame, scheme=job.scheme, block_m=job.split.block_m, seed=job.config.split.seed,
        folder=folder,
    )  # fmt: skip
    given.progress("calibration", 0, 1)
    calibration = held_out_reliability(load_bundle(job.model_path), tested, block_of=job.split.block_of)
    given.progress("calibration", 1, 1)
    accuracy = {
        "method": scores[0].method,
        **score_json(scores[0]),
        "baseline": {"method": better(forests).method, **score_json(better(forests))},
        "baselines": [{"method": item.method, **score_json(item)} for item in forests],
        "ahead": classes_ahead(scores),
        "split": split_summary(job),
        "sampling": HOLD_OUT,
        "sampling_words": SAMPLING,
        "test_polygons": len(job.split.polygons(Part.TEST)),
        "test_pixels": int(seen.sum()),
        "where_it_fails": failures,
        "calibration": calibration,
    }
    if job.object_codes:
        accuracy["objects"] = object_accuracy(job)
    return [write_json(folder / ACCURACY, accuracy), write_text(folder / CONFUSION, confusion_csv(scores[0])), *files]


def _forest(job: Job, sizes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Codes uint8 [pixel] that a forest, with windows of these sizes, gives the test pixels.

    It learns from the polygons that the network learned from, and from no others.
    """
    polygons = learned_polygons(job.split, job.config.training)
    forest = fit_forest(
        job.training_scenes, job.scheme, polygons=polygons, sizes=sizes, trees=job.config.assessment.forest_trees,
        seed=job.config.training.seed,
    )  # fmt: skip
    return forest.predict_scenes((job.sources[number], pixels) for number, pixels in job.test_pixels)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)
