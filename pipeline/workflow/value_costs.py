"""What a continuous target will take: teachers, baselines and a step of its network are timed here and now."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.experts.regressor_mixture import DRAW_LEVELS, DRAWS, INNER_FOLDS
from pipeline.experts.regressors import BASELINES, Kind, ValueTable, fit_teacher, predict_teacher
from pipeline.training.settings import learned_polygons
from pipeline.training.value_fit import SOFT_PIXELS, ValueLearner, kinds_for, value_network
from pipeline.training.value_table import Plane, samples_of
from pipeline.workflow.value_stages import targets_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.model.preprocess import Preprocess
    from pipeline.workflow.job import Job

# Samples that are read and learned, and trees that are grown, to time the rest.
PROBE_SAMPLES, PROBE_TREES = 400, 10
# Places that a teacher is asked for: of fewer, the time of a call hides that of its places.
PROBE_PLACES = 4000
PROBE_STEPS = 8  # of a network of pixels


@dataclass(frozen=True)
class ValueCost:
    """What learning the samples, and judging what was learned, will take."""

    train_s: float  # Table, teachers and network
    assess_s: float  # Baselines
    held_bytes: int  # Of the table and the draws


def value_cost(job: Job, preprocess: Preprocess, *, chips: int) -> ValueCost:
    """From at most PROBE_SAMPLES of the samples; ``chips`` is the number of chips that will be read."""
    settings, scenes = job.config.training, job.training_scenes
    ids = learned_polygons(job.split, settings)
    some = ids[np.unique(np.linspace(0, len(ids) - 1, min(PROBE_SAMPLES, len(ids))).astype(int))]
    more = len(ids) / len(some)
    targets = targets_of(job, scenes).learned(ids)
    own = [replace(scene, pixels=scene.pixels.select(some.tolist())) for scene in scenes]
    start = time.perf_counter()
    samples = samples_of(own, targets.frame, preprocess=preprocess, plane=Plane.around(targets.frame))
    seconds = (time.perf_counter() - start) * more
    table = samples.table(targets.frame, targets.quantity, targets.group_of)
    asked = min(SOFT_PIXELS, settings.experts.soft_pixels, chips * job.config.chips.size_px**2)
    for kind in kinds_for(preprocess.bands):
        fit_s, place_s = _teacher_s(kind, table, trees=settings.experts.trees)
        # Folds learn from all samples but their own, then all do; held-out samples and soft pixels are asked for.
        seconds += fit_s * more * INNER_FOLDS + place_s * (asked + 2 * more * len(table))
    features = table.places.features.shape[1]
    seconds += settings.pixels.steps * _network_step_s(
        preprocess.channels, features=features, batch=settings.pixels.batch
    )
    baselines = (_teacher_s(kind, table, trees=job.config.assessment.forest_trees) for kind in BASELINES)
    return ValueCost(
        train_s=seconds,
        assess_s=sum(fit_s * more + place_s * more * len(table) for fit_s, place_s in baselines),
        held_bytes=int((asked + more * len(table)) * 4 * (features + DRAWS)),
    )


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


def _network_step_s(channels: int, *, features: int, batch: int) -> float:
    """Seconds of a step of the network."""
    learner = ValueLearner(value_network(channels).train(), steps=1, lr=1e-3, weight_decay=0.0)
    given = torch.zeros(batch, features, 1, 1), torch.zeros(batch, 1 + DRAWS)
    return step_s(lambda: learner.training_step(given, 0), repeats=PROBE_STEPS)


def step_s(forward: Callable[[], Any], *, repeats: int = 1) -> float:
    """Seconds of a forward and a backward pass, once everything is warm."""
    for number in range(1 + repeats):
        if number == 1:
            start = time.perf_counter()
        loss = forward()
        loss.backward()
        loss.item()  # waits for a GPU
    return (time.perf_counter() - start) / repeats
