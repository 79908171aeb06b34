"""``landcover crossval`` of a continuous target: network, teachers, interpolation and baselines on the same folds.

Folds are blocks with a buffer, or whole groups (``--by station``: all dates of a station together). Samples of stations
are never dealt by rows: rows of one day share its weather, and rows of one station its place.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.diagnostics.scoring import VALUE_HOLD_OUT, by_sample, score_values
from pipeline.errors import ConfigError, LabelWarning
from pipeline.experts.regressor_mixture import fit_regressor_mixture
from pipeline.experts.regressors import BASELINES, NAMES, SPATIAL, TEACHERS
from pipeline.files import check_target, hash_of, write_json
from pipeline.labels.values import holds_several
from pipeline.model.preprocess import Preprocess
from pipeline.splits.split import Part, Split, TrainingScene
from pipeline.training.chips import choose_chips
from pipeline.training.fit import training_statistics
from pipeline.training.settings import learned_polygons
from pipeline.training.value_fit import fit_values, value_set
from pipeline.training.value_table import Plane, samples_of
from pipeline.workflow.job import CROSSVAL as FILE
from pipeline.workflow.job import Job, refuse_other_figures
from pipeline.workflow.outcome import Outcome, Progress, Table
from pipeline.workflow.stations import blocks_apart, sample_folds, sample_pixels
from pipeline.workflow.value_stages import baseline, by_polygon, measured_of, predict_samples, quantity_of, targets_of

if TYPE_CHECKING:
    from pipeline.experts.regressors import ValueTable
    from pipeline.quantity import Quantity
    from pipeline.splits.settings import CrossvalSettings
    from pipeline.training.value_fit import ValueSet
    from pipeline.training.value_table import Samples

MIXTURE, NETWORK = "mixture of teachers", "network"


def cross_validate_values(
    job: Job, settings: CrossvalSettings, *, output: Path | None, force: bool, overwrite: bool, progress: Progress
) -> Outcome:
    """Cross-validate a continuous target; every sample is predicted once per seed.

    Raises:
        ConfigError: folds of random rows, or of an attribute that ``labels.value.group`` does not name.
        SplitError: fewer blocks or groups than folds.
        OutputError: ``output`` exists, or the run folder has figures of another job.
    """
    if output is not None:
        check_target(output, overwrite=overwrite)
    grouped = _grouped(job, settings)
    run = job.open_folder()
    pixels = sample_pixels(job)
    apart = None if grouped else blocks_apart(job, pixels)
    about = [settings.by, settings.folds, settings.seeds, settings.methods, apart, job.config.assessment.forest_trees]
    learned = [part.model_dump(mode="json") for part in (job.config.chips, job.config.training)]
    key = hash_of([job.input_hash, about, learned])
    if not (overwrite or force):
        refuse_other_figures(run.path / FILE, key)
    found: dict[str, list[tuple[NDArray[np.float64], ...]]] = {}
    per_seed: dict[str, dict[str, float]] = {}
    for seed in settings.seeds:
        splits = sample_folds(job, pixels, apart=apart, folds=settings.folds, seed=seed)
        rows: dict[str, list[tuple[NDArray[np.float64], ...]]] = {}
        for number, split in enumerate(splits, 1):
            progress(f"seed {seed}: folds", number - 1, len(splits))
            for name, part in _one_fold(job, split, settings=settings).items():
                rows.setdefault(name, []).append(part)
            progress(f"seed {seed}: folds", number, len(splits))
        for name, parts in rows.items():
            joined = tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
            found.setdefault(name, []).append(joined)
            per_seed.setdefault(name, {})[str(seed)] = _figures(name, [joined])["r2"]
    methods = {name: _figures(name, parts) | {"r2_by_seed": per_seed[name]} for name, parts in found.items()}
    kind = f"by {job.config.labels.value.group}" if grouped else "by block"
    data: dict[str, Any] = {
        "what": VALUE_HOLD_OUT, "key": key, "target": quantity_of(job).to_json(), "methods": methods,
        "split": {"kind": kind, "folds": settings.folds, "seeds": list(settings.seeds),
                  **({} if apart is None else {"block_m": apart[0], "buffer_m": apart[1]})},
    }  # fmt: skip
    written = [write_json(run.path / FILE, data), *([write_json(output, data)] if output else [])]
    return Outcome(
        summary=f"{job.config.name}: cross-validation {kind}, {settings.folds} folds",
        tables=(_table(kind, methods),), written=tuple(written), data=data,
    )  # fmt: skip


def _grouped(job: Job, settings: CrossvalSettings) -> bool:
    """Whether folds are of groups.

    Raises:
        ConfigError: folds that would leak.
    """
    group = job.config.labels.value.group
    if settings.by in {"polygons", "both"}:
        raise ConfigError(
            "folds of single samples of a continuous target leak: neighbours and dates of a place lie on both sides",
            got=f"--by {settings.by}", fix="use --by blocks, or --by with the attribute of labels.value.group",
        )  # fmt: skip
    if settings.by in {"block", "scene"} and settings.by != group:
        raise ConfigError(f"--by {settings.by} is for classes", fix="use --folds with --by blocks")
    if settings.by not in {"blocks", "group", group}:
        what = f"labels.value.group is {group}" if group else "set labels.value.group to the attribute"
        raise ConfigError(
            "option --by", got=settings.by, expected=f"blocks, or the attribute that groups samples; {what}"
        )
    by_group = settings.by != "blocks"
    frame = job.labels.frame
    dated = not frame["date"].isna().all()
    if by_group and not holds_several(frame["group"].tolist()):
        text = f"groups of {group} hold hardly more than a sample each: neighbours lie on both sides of these folds"
        warnings.warn(f"{job.labels.path}: {text}; use --by blocks", LabelWarning, stacklevel=3)
    places = frame.geometry.to_wkb().nunique()
    if not by_group and dated and group is None and places < len(frame):
        text = f"{len(frame)} samples at {places} places on several dates: name the station in labels.value.group, so "
        warnings.warn(f"{text}that all dates of a place stay together", LabelWarning, stacklevel=3)
    return by_group


def _one_fold(job: Job, split: Split, *, settings: CrossvalSettings) -> dict[str, tuple[NDArray[np.float64], ...]]:
    frame, section, training = job.labels.frame, job.config.labels.value, job.config.training
    scenes = job.training_scenes
    alone = "forest" in settings.methods
    learned = _learned(job, split) if scenes and not section.covariates else None
    if learned is not None:
        test = learned.rows_of(_test_scenes(scenes, split))
        table, quantity, mixture = learned.table, learned.targets.quantity, learned.mixture(training)
    else:
        table, test, quantity = _tables(job, split)
        mixture = fit_regressor_mixture(
            table, trees=training.experts.trees, seed=training.seed, kinds=(*TEACHERS, *SPATIAL)
        )
    measured = measured_of(frame, test)
    given: dict[str, tuple[NDArray[np.float64], ...]] = {}
    for kind in (*BASELINES, *mixture.kinds) if alone else ():
        trees = job.config.assessment.forest_trees if kind == "plain" else training.experts.trees
        values = baseline(kind, table, test, quantity, trees=trees, seed=training.seed)
        given[NAMES[kind]] = (measured, values, np.full((len(measured), 2), np.nan))
    bounds = quantity.inverse(mixture.draws(test.places, (0.05, 0.95)))
    values = quantity.inverse(mixture.values(test.places))
    given[MIXTURE] = (measured, by_sample(test.polygon, values), by_sample(test.polygon, bounds))
    if scenes and "network" in settings.methods:
        own = learned or _learned(job, split)
        bundle = fit_values(own, settings=training, mixture=mixture if learned is not None else None).bundle
        found = predict_samples(bundle, _test_scenes(scenes, split), test)
        given[NETWORK] = (measured, found[:, 0], found[:, 1:])
    return given


def _learned(job: Job, split: Split) -> ValueSet:
    """What the job learns from in one fold."""
    scenes, config = job.training_scenes, job.config
    index = choose_chips({s.source.id: s.pixels for s in scenes}, settings=config.chips, split=split,
                         scheme=job.scheme, head=config.training.head)  # fmt: skip
    return value_set(scenes, split, targets_of(job, scenes, fold=split), index=index, settings=config.training)


def _test_scenes(scenes: Sequence[TrainingScene], split: Split) -> list[TrainingScene]:
    """The scenes with the test samples' pixels alone."""
    return [TrainingScene(scene.source, split.pixels(scene.pixels, Part.TEST)) for scene in scenes]


def _tables(job: Job, split: Split) -> tuple[ValueTable, Samples, Quantity]:
    """With attributes that no raster has: samples to learn from, those to test on, and the fitted quantity."""
    frame, section, training = job.labels.frame, job.config.labels.value, job.config.training
    scenes, preprocess = job.training_scenes, None
    if scenes:
        found = training_statistics(scenes, split)
        preprocess = Preprocess.from_statistics(bands=found.bands, mean=found.mean, std=found.std)
    samples = samples_of(scenes, frame, preprocess=preprocess, plane=Plane.around(frame), covariates=section.covariates)
    learned = np.isin(samples.polygon, learned_polygons(split, training))
    train, test = samples.rows(learned), samples.rows(split.part[samples.polygon] == Part.TEST)
    own = frame.loc[frame["poly_id"].isin(train.polygon), "value"].to_numpy()
    quantity = quantity_of(job).fitted(own)
    return train.table(frame, quantity, by_polygon(split.block_of, frame)), test, quantity


def _figures(name: str, parts: list[tuple[NDArray[np.float64], ...]]) -> dict[str, Any]:
    measured, predicted, bounds = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return score_values(name, measured, predicted, None if np.isnan(bounds).any() else bounds).to_json()


def _table(kind: str, methods: dict[str, dict[str, Any]]) -> Table:
    rows = tuple(
        (name, *(f"{item[key]:.3g}" if item[key] is not None else "-" for key in
                 ("r2", "rmse", "mae", "bias", "coverage", "width")),
         " ".join(f"{value:.3f}" for value in item["r2_by_seed"].values()))
        for name, item in methods.items()
    )  # fmt: skip
    heads = ("method", "R2", "RMSE", "MAE", "bias", "coverage of 90 %", "width", "R2 per seed")
    return Table(f"folds {kind}, held-out samples pooled (not a probability sample)", heads, rows)
