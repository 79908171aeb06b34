"""The stages of a continuous target that differ from those of classes: train, assess, report; and what they take."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from pipeline.diagnostics.scoring import (
    VALUE_HOLD_OUT,
    VALUE_SAMPLING,
    ValueScore,
    by_sample,
    score_values,
    values_ahead,
)
from pipeline.documents import read_json
from pipeline.errors import ModelError
from pipeline.experts.regressor_mixture import DRAW_LEVELS, DRAWS, ENCODER, INNER_FOLDS
from pipeline.experts.regressors import BASELINES, NAMES, Kind, ValueTable, fit_teacher, predict_teacher
from pipeline.files import csv_text, write_json, write_text
from pipeline.inference.pixels import value_layers
from pipeline.inference.probe import pixel_logits
from pipeline.model.bundle import load_bundle, save_bundle
from pipeline.model.network import build_network
from pipeline.quantity import Quantity
from pipeline.report.data import ReportData, ValueFigures
from pipeline.report.page import write_report
from pipeline.splits.split import Part, Split, TrainingScene
from pipeline.training.chip_index import read_index
from pipeline.training.pixels import COMPONENTS, ValueLearner
from pipeline.training.settings import learned_polygons
from pipeline.training.value_fit import (
    SOFT_PIXELS,
    Targets,
    fit_values,
    kinds_for,
    scene_days,
    value_set,
    value_spec,
)
from pipeline.training.value_table import Plane, Samples, samples_of
from pipeline.workflow.class_stages import with_distance, with_inputs, write_history
from pipeline.workflow.job import ACCURACY, HISTORY, SAMPLES, Job, StageRun
from pipeline.workflow.products import write_qgis_project, write_stac

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from pipeline.model.bundle import ModelBundle
    from pipeline.model.preprocess import Preprocess
    from pipeline.training.encoder_features import FrozenFeatures


# Samples that are read and learned, and trees that are grown, to time the rest.
PROBE_SAMPLES, PROBE_TREES = 400, 10
# Places that a teacher is asked for: of fewer, the time of a call hides that of its places.
PROBE_PLACES = 4000
PROBE_STEPS = 8  # of a network of pixels


def quantity_of(job: Job) -> Quantity:
    """What the job's samples measure.

    Raises:
        ModelError: the job is of classes.
    """
    if job.quantity is None:
        raise ModelError("a job of classes has no quantity", fix="set labels.kind to value")
    return job.quantity


def targets_of(job: Job, scenes: Sequence[TrainingScene], *, fold: Split | None = None) -> Targets:
    """The samples' values; held out together within training: groups where there are some, else blocks.

    Within a ``fold`` of a cross-validation its blocks.
    """
    frame = job.labels.frame
    own = job.groups if fold is None and job.split_by_groups else None
    groups = by_polygon((fold or job.split).block_of if own is None else own, frame)
    return Targets(frame, quantity_of(job), groups, job.scheme, scene_days(frame, scenes))


def by_polygon(group_of: NDArray[np.integer], frame: GeoDataFrame) -> NDArray[np.int64]:
    """Group of each polygon id up to the largest of ``frame``, int64 [poly_id]; -1 for those without one."""
    padded = np.full(int(frame["poly_id"].max()) + 1, -1, dtype=np.int64)
    padded[: len(group_of)] = group_of[: len(padded)]
    return padded


def train(given: StageRun) -> list[Path]:
    """Learn the samples; write ``model/model.safetensors`` and ``training.csv``."""
    job = given.job
    scenes, settings = job.training_scenes, job.config.training
    learned = value_set(
        scenes, job.split, targets_of(job, scenes), index=read_index(job.index_path), settings=settings
    )  # fmt: skip
    result = fit_values(learned, settings=settings, progress=given.progress)
    given.facts.update({f"{step}_s": round(seconds, 1) for step, seconds in result.seconds.items()})
    bundle = with_inputs(with_distance(result.bundle, job), job)
    return [save_bundle(job.model_path, bundle), write_history(job.folder / HISTORY, result.history)]


def assess(given: StageRun) -> list[Path]:
    """Write ``accuracy.json`` and ``samples.csv``: network and baselines on the same held-out samples."""
    job = given.job
    bundle = load_bundle(job.model_path)
    frame, quantity = job.labels.frame, bundle.quantity or quantity_of(job)
    plane = Plane.around(frame)
    parts = {"learned": learned_polygons(job.split, job.config.training), "test": job.split.polygons(Part.TEST)}
    scenes = {name: _scenes(job, ids) for name, ids in parts.items()}
    found = {name: samples_of(own, frame, preprocess=bundle.preprocess, plane=plane) for name, own in scenes.items()}
    network = predict_samples(bundle, scenes["test"], found["test"])
    measured = measured_of(frame, found["test"])
    scores = [score_values("network", measured, network[:, 0], network[:, 1:])]
    table = found["learned"].table(frame, quantity, np.zeros(int(frame["poly_id"].max()) + 1, dtype=np.int64))
    given.progress("baselines", 0, len(BASELINES))
    predicted = {"network": network[:, 0]}
    for number, kind in enumerate(BASELINES, 1):
        predicted[NAMES[kind]] = baseline(
            kind, table, found["test"], quantity, trees=job.config.assessment.forest_trees
        )
        scores.append(score_values(NAMES[kind], measured, predicted[NAMES[kind]]))
        given.progress("baselines", number, len(BASELINES))
    accuracy = {
        "target": quantity.to_json(),
        **scores[0].to_json(),
        "baselines": [item.to_json() for item in scores[1:]],
        "ahead": values_ahead(scores),
        "sampling": VALUE_HOLD_OUT,
        "sampling_words": VALUE_SAMPLING,
        "teachers": bundle.provenance["teachers"],
        "interval": "0.05 to 0.95",
    }
    rows = [("sample", "measured", *predicted, "lower", "upper")]
    ids = np.unique(found["test"].polygon)
    for i, sample in enumerate(ids):
        values = (measured[i], *(part[i] for part in predicted.values()), network[i, 1], network[i, 2])
        rows.append((str(sample), *(f"{value:.6g}" for value in values)))
    return [write_json(job.folder / ACCURACY, accuracy), write_text(job.folder / SAMPLES, csv_text(rows))]


def predict_samples(bundle: ModelBundle, scenes: Sequence[TrainingScene], samples: Samples) -> NDArray[np.float64]:
    """Value, lower and upper bound of samples as the map has them, in the quantity's unit: float64 [sample, 3].

    The mean over the valid pixels of each sample, in the order of their ids.
    """
    polygons, values = [], []
    for scene in scenes:
        pixels = scene.pixels.select(np.isin(scene.pixels.polygon, samples.polygon))
        raw, valid = pixel_logits(bundle, scene.source, pixels)
        scores = torch.from_numpy(raw).T[:, :, None]
        layers = value_layers(
            scores, np.ones(scores.shape[1:], dtype=np.bool_), quantity=bundle.quantity or Quantity("")
        )
        polygons.append(pixels.polygon[valid])
        values.append(layers["values"][:, :, 0].T)
    return by_sample(np.concatenate(polygons), np.concatenate(values).astype(np.float64))


def measured_of(frame: GeoDataFrame, samples: Samples) -> NDArray[np.float64]:
    """Measured value of each sample, float64 [sample], in the order of their ids."""
    value = np.full(int(frame["poly_id"].max()) + 1, np.nan)
    value[frame["poly_id"]] = frame["value"]
    return np.asarray(value[np.unique(samples.polygon)])


def baseline(
    kind: Kind, table: Any, samples: Samples, quantity: Quantity, *, trees: int, seed: int = 0
) -> NDArray[np.float64]:
    """A baseline's values in the quantity's unit, float64 [sample]."""
    model = fit_teacher(kind, table, trees=trees, seed=seed)
    return by_sample(samples.polygon, quantity.inverse(predict_teacher(kind, model, samples.places)))


def report(given: StageRun) -> list[Path]:
    """Write the project, ``report.html`` with its figures, and the STAC collection."""
    job = given.job
    project = write_qgis_project(job)
    page = write_report(job.folder / "report.html", _gather(job))
    return [project, *page, write_stac(job)]


def _gather(job: Job) -> ReportData:
    from pipeline.workflow.stage_report import common_data

    accuracy = read_json(job.folder / ACCURACY)
    names = ValueScore.__dataclass_fields__
    scores = tuple(ValueScore(**{name: item[name] for name in names}) for item in (accuracy, *accuracy["baselines"]))
    with (job.folder / SAMPLES).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}
    data = common_data(job)
    views = zip(job.mapped, data.views, strict=True)
    maps = tuple((view.name, _decimated(job.map_of(source.id, "value"), view.codes.shape)) for source, view in views)
    values = ValueFigures(quantity_of(job), scores, columns, maps)
    return replace(data, values=values, sampling=VALUE_SAMPLING, ahead=accuracy.get("ahead", ""))


def _decimated(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The bands of a map of values float32 [band, row, col] of another size, NaN without data."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(out_shape=(dataset.count, *shape), masked=True).filled(np.nan))


def _scenes(job: Job, ids: NDArray[np.int32]) -> list[TrainingScene]:
    pairs = ((source, pixels.select(ids.tolist())) for source, pixels in zip(job.sources, job.pixels, strict=True))
    return [TrainingScene(source, pixels) for source, pixels in pairs if len(pixels)]


def value_cost(
    job: Job, preprocess: Preprocess, *, chips: int, frozen: FrozenFeatures | None
) -> tuple[float, float, int]:
    """Seconds of table, teachers and network, seconds of baselines, and bytes of the table and the draws.

    From at most PROBE_SAMPLES of the samples; ``chips`` is the number of chips that will be read, ``frozen`` the
    encoder that will be judged.
    """
    settings, scenes = job.config.training, job.training_scenes
    ids = learned_polygons(job.split, settings)
    some = ids[np.unique(np.linspace(0, len(ids) - 1, min(PROBE_SAMPLES, len(ids))).astype(int))]
    more = len(ids) / len(some)
    targets = targets_of(job, scenes).learned(ids)
    own = [replace(scene, pixels=scene.pixels.select(some.tolist())) for scene in scenes]
    start = time.perf_counter()
    samples = samples_of(own, targets.frame, preprocess=preprocess, plane=Plane.around(targets.frame), frozen=frozen)
    seconds = (time.perf_counter() - start) * more
    table = samples.table(targets.frame, targets.quantity, targets.group_of)
    asked = min(SOFT_PIXELS, settings.experts.soft_pixels, chips * job.config.chips.size_px**2)
    for kind in (*kinds_for(preprocess.bands), *((ENCODER,) if frozen is not None else ())):
        fit_s, place_s = _teacher_s(kind, table, trees=settings.experts.trees)
        # Folds learn from all samples but their own, then all do; held-out samples and soft pixels are asked for.
        seconds += fit_s * more * INNER_FOLDS + place_s * (asked + 2 * more * len(table))
    features, batch = table.places.features.shape[1], settings.pixels.batch
    spec = replace(value_spec(settings, preprocess), bands_in=min(features, COMPONENTS), surroundings=False)
    learner = ValueLearner(build_network(spec).train(), steps=1, lr=1e-3, weight_decay=0.0)
    given = torch.zeros(batch, spec.bands_in, 1, 1), torch.zeros(batch, 1 + DRAWS)
    seconds += settings.pixels.steps * step_s(lambda: learner.training_step(given, 0), repeats=PROBE_STEPS)
    baselines = (_teacher_s(kind, table, trees=job.config.assessment.forest_trees) for kind in BASELINES)
    assess_s = sum(fit_s * more + place_s * more * len(table) for fit_s, place_s in baselines)
    return seconds, assess_s, int((asked + more * len(table)) * 4 * (features + DRAWS))


def _teacher_s(kind: Kind, table: ValueTable, *, trees: int) -> tuple[float, float]:
    """Seconds to fit a teacher to a table, and to ask it for one place."""
    grown = PROBE_TREES if kind in {"forest", "local", "plain"} else trees
    start = time.perf_counter()
    model = fit_teacher(kind, table, trees=grown, seed=0)
    several = table.places.at(np.resize(np.arange(len(table)), PROBE_PLACES))
    fitted = time.perf_counter()
    predict_teacher(kind, model, several)
    if kind == "forest":
        model.predict(several.features, quantiles=list(DRAW_LEVELS))
    asked = time.perf_counter()
    return (fitted - start) * trees / grown, (asked - fitted) * trees / grown / PROBE_PLACES


def step_s(forward: Callable[[], Any], *, repeats: int = 1) -> float:
    """Seconds of a forward and a backward pass, once everything is warm."""
    for number in range(1 + repeats):
        if number == 1:
            start = time.perf_counter()
        loss = forward()
        loss.backward()
        loss.item()  # waits for a GPU
    return (time.perf_counter() - start) / repeats
