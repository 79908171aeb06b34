"""``landcover crossval``: network and forests on the same folds, beside a split that leaks; and the learning curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.diagnostics.fold_figures import summary
from pipeline.diagnostics.scoring import FORESTS, SAMPLING
from pipeline.errors import ConfigError
from pipeline.files import check_target, hash_of, write_json
from pipeline.splits.folds import FoldPlan, fewer_polygons, random_pixel_fold, scenes_for_folds, warn_of_untaught
from pipeline.splits.settings import ALL, METHODS, CrossvalSettings, Method
from pipeline.training.crossval import FoldResult, Trial, cross_validate
from pipeline.workflow.job import CROSSVAL as FILE
from pipeline.workflow.job import LEARNING_CURVE, Job, refuse_other_figures
from pipeline.workflow.objects import held_out_objects, held_out_tables, map_held_out
from pipeline.workflow.outcome import Outcome, Progress, Table

if TYPE_CHECKING:
    from pipeline.splits.split import Split, TrainingScene

FOLDER = "crossval"
LEAKY = "labelled pixels at random, neighbours on both sides: shows how much such a split flatters"


def cross_validate_job(
    config: Path, settings: CrossvalSettings, *, output: Path | None = None, force: bool = False,
    overwrite: bool = False, progress: Progress, changes: Sequence[str] = (),
) -> Outcome:  # fmt: skip
    """Cross-validate a job; folds that an earlier run finished are taken from the run folder.

    ``output`` is a further file for the figures; with ``force`` the folds asked for are done again; ``changes`` are
    keys of the configuration.

    Raises:
        SplitError: fewer blocks than folds, or a class with one polygon.
        OutputError: ``output`` exists, or the run folder has figures of another job.
    """
    job = Job.load(config, changes=changes)
    if job.is_value:
        from pipeline.workflow.value_crossval import cross_validate_values

        return cross_validate_values(job, settings, output=output, force=force, overwrite=overwrite, progress=progress)
    folds = _Folds.of(job, settings, FILE, output=output, force=force, overwrite=overwrite, progress=progress)
    data: dict[str, Any] = {"what": SAMPLING, "key": folds.key}
    tables = []
    for kind in settings.kinds:
        found = _one_kind(folds, kind)
        tables += [_table(kind, found), *held_out_tables(found.get("objects", ()), kind=kind)]
        data |= found if kind == settings.kinds[0] else {kind: found}
    if settings.random_folds:
        data["random_split"] = _random(folds)
        tables.append(_table("random pixels", data["random_split"]))
    split = data["split"]
    done = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in split["done"].items() if count)
    return Outcome(
        summary=f"{folds.job.config.name}: cross-validation by {' and '.join(settings.kinds)}, "
        f"{split['folds_in_all']} folds (done: {done or 'none'})",
        tables=tuple(tables), written=folds.write(FILE, data, output), data=data,
    )  # fmt: skip


def draw_learning_curve(
    config: Path, settings: CrossvalSettings, *, output: Path | None = None, force: bool = False,
    overwrite: bool = False, progress: Progress, changes: Sequence[str] = (),
) -> Outcome:  # fmt: skip
    """Cross-validate with shares of the training polygons in per cent; the test polygons of every fold stay the same.

    The point of all polygons is the cross-validation itself and shares its results. For the arguments see
    :func:`cross_validate_job`.

    Raises:
        ConfigError: more than one kind of folds.
        SplitError: as cross-validation.
        OutputError: the run folder has a curve of another job.
    """
    if len(settings.kinds) > 1:
        raise ConfigError("a learning curve by two kinds of folds", fix="give --by blocks or --by polygons")
    job = Job.load(config, changes=changes)
    folds = _Folds.of(job, settings, LEARNING_CURVE, output=output, force=force, overwrite=overwrite, progress=progress)
    points = [_point(folds, share) for share in sorted(set(settings.shares))]
    kind = settings.kinds[0]
    data = {
        "what": SAMPLING, "key": folds.key, "points": points,
        "split": {"kind": kind, "folds": settings.folds, "seeds": list(settings.seeds)},
    }  # fmt: skip
    return Outcome(
        summary=f"{folds.job.config.name}: learning curve by {kind}", tables=(_curve_table(points),),
        written=folds.write(LEARNING_CURVE, data, output), data=data,
    )  # fmt: skip


def method_keys(job: Job) -> dict[Method, str]:
    """For each method a hash of all that its results depend on but folds and labelled pixels."""
    trees, seed = job.config.assessment.forest_trees, job.config.training.seed
    network: list[Any] = [job.config.chips.model_dump(mode="json"), job.config.training.model_dump(mode="json")]
    objects = job.config.mapping.objects.model_dump(mode="json")
    network += [job.object_indices, objects] if job.object_indices else []
    forest = hash_of([job.input_hash, trees, seed])
    return {"forest": forest, "forest_neighbourhood": forest, "network": hash_of([job.input_hash, network])}


def figures_key(job: Job, settings: CrossvalSettings) -> str:
    """Changes with all that tells figures apart: the methods' settings, how folds are drawn, which classes count."""
    spatial = [] if settings.kinds == ("polygons",) else [job.block_m, job.buffer_m]
    return hash_of([method_keys(job), settings.kinds, settings.folds, spatial, settings.leave_out_single])


@dataclass(frozen=True)
class _Folds:
    """A job with the scenes that its folds are drawn from."""

    job: Job  # The job
    settings: CrossvalSettings  # How it is cross-validated
    scenes: list[TrainingScene]  # Labelled scenes, without classes that cannot be tested
    key: str  # See :func:`figures_key`
    force: bool  # Do the folds asked for again
    progress: Progress  # For the terminal

    @classmethod
    def of(
        cls, job: Job, settings: CrossvalSettings, file: str, *, output: Path | None, force: bool,
        overwrite: bool, progress: Progress,
    ) -> _Folds:  # fmt: skip
        """Of a job, once nothing is in the way of the figures."""
        settings.check()
        if output is not None:
            check_target(output, overwrite=overwrite)
        run, key = job.open_folder(), figures_key(job, settings)
        if not overwrite:
            refuse_other_figures(run.path / file, key)
        scenes = scenes_for_folds(job.training_scenes, job.scheme, leave_out_single=settings.leave_out_single)
        return cls(job, settings, scenes, key, force, progress)

    def plan(self, kind: str) -> FoldPlan:
        """How the folds of one kind are drawn."""
        return FoldPlan(kind, self.settings.folds, self.job.block_m, self.job.buffer_m)

    def draw(self, plan: FoldPlan, *, seed: int) -> list[Split]:
        """The folds of one kind."""
        return plan.draw([scene.pixels for scene in self.scenes], reach_px=self.job.reach_px, seed=seed)

    def write(self, file: str, data: dict[str, Any], output: Path | None) -> tuple[Path, ...]:
        """Write figures into the run folder, and where else they are wanted."""
        return tuple(write_json(path, data) for path in (self.job.folder / file, output) if path is not None)

    def run(
        self, splits: Sequence[Split], *, folder: str, seed: int, said: str,
        scenes: Sequence[TrainingScene] | None = None, first_fold: int = 0, mapped: bool = False,
    ) -> list[FoldResult]:  # fmt: skip
        """Folds with the job's settings, in a folder of their own; what is there and current is not done again.

        ``mapped``: the objects of the held-out ground of each are mapped too, where the job has any.
        """
        job, where = self.job, self.job.folder / FOLDER / folder
        methods = tuple(name for name in METHODS if name in self.settings.methods)
        every = range(first_fold, first_fold + len(splits))
        only = [fold - 1 for fold in self.settings.only_folds] or every
        if self.force:
            for fold in only:
                for method in methods:
                    (where / f"fold{fold}_{method}.npz").unlink(missing_ok=True)
        trial = Trial(
            job.config.training, job.config.chips, job.config.assessment.forest_trees, where, methods,
            job.object_indices, resume=True, keys=method_keys(job),
            after=partial(map_held_out, job, self.scenes) if mapped and job.object_codes else None,
        )  # fmt: skip
        return cross_validate(
            self.scenes if scenes is None else scenes, job.scheme, splits, trial=trial, only=only,
            first_fold=first_fold, seed=seed,
            progress=lambda what, done, total: self.progress(f"{said}: {what.replace('_', ' ')}", done, total),
        )  # fmt: skip

    def figures(self, results: Sequence[FoldResult]) -> dict[str, Any]:
        """Figures of the network, under ``baseline`` those of the forest, and of any further method with results."""
        data = summary(results, "network", scheme=self.job.scheme)
        data["baseline"] = summary(results, "forest", scheme=self.job.scheme)
        if any(item.method == "forest_neighbourhood" for item in results):
            data["forest_neighbourhood"] = summary(results, "forest_neighbourhood", scheme=self.job.scheme)
        return data


def _one_kind(folds: _Folds, kind: str) -> dict[str, Any]:
    settings, plan = folds.settings, folds.plan(kind)
    results: list[FoldResult] = []
    objects: list[dict[str, Any]] = []
    count = 0
    for seed in settings.seeds:
        splits = folds.draw(plan, seed=seed)
        count += len(splits)
        if any(not 1 <= fold <= len(splits) for fold in settings.only_folds):
            raise ConfigError("option --only-folds", got=settings.only_folds, expected=f"numbers 1..{len(splits)}")
        learned = folds.job.config.training.learned_parts
        warn_of_untaught(splits, folds.scenes, folds.job.scheme, kind=kind, learned=learned)
        name = plan.name(seed=seed)
        own = folds.run(splits, folder=name, seed=seed, said=f"{kind}, seed {seed}", mapped=True)
        results += own
        mapped = {item.fold: splits[item.fold] for item in own if item.method == "network"}
        where = folds.job.folder / FOLDER / name
        objects += held_out_objects(folds.job, folds.scenes, mapped, folder=where, seed=seed)
    done = {str(name): sum(item.method == name for item in results) for name in METHODS}
    split = {"kind": kind, "seeds": list(settings.seeds), "folds_in_all": count, "done": done}
    if kind != "polygons":
        split |= {"block_m": plan.block_m, "buffer_m": splits[0].buffer_m}
    complete = all(done[name] == count for name in settings.methods)
    found = {"split": split, "complete": complete} | folds.figures(results)
    return found | ({"objects": objects} if objects else {})


def _random(folds: _Folds) -> dict[str, Any]:
    """Figures of folds of random pixels."""
    settings = folds.settings
    results: list[FoldResult] = []
    seed, of = settings.seeds[0], settings.random_of
    for fold in range(settings.random_folds):
        dealt, split = random_pixel_fold(folds.scenes, folds=of, fold=fold, seed=seed)
        results += folds.run(
            [split], scenes=dealt, folder=f"random{of}_seed{seed}", seed=seed, first_fold=fold, said="random"
        )
    split_facts = {"kind": "pixels", "seeds": [seed], "folds_in_all": of}
    return {"what": LEAKY, "split": split_facts} | folds.figures(results)


def _point(folds: _Folds, share: int) -> dict[str, Any]:
    """One point of the learning curve."""
    plan, pixels = folds.plan(folds.settings.kinds[0]), [scene.pixels for scene in folds.scenes]
    results: list[FoldResult] = []
    for seed in folds.settings.seeds:
        name = plan.name(seed=seed)
        splits = [fewer_polygons(split, pixels, share=share / ALL, seed=seed) for split in folds.draw(plan, seed=seed)]
        where = name if share == ALL else f"{name}_share{share}"
        said = f"{share} % of the polygons, seed {seed}"
        results += folds.run(splits, folder=where, seed=seed, said=said, mapped=share == ALL)
    found = {prefix: summary(results, method) for prefix, method in _CURVES.items()}
    pooled = {
        f"{prefix}{name}": item["pooled"][name]
        for prefix, item in found.items()
        for name in ("macro_f1", "overall_accuracy")
    }
    return {
        "share": share / ALL,
        "polygons": round(float(np.mean([item.learned for item in results]))),
        **pooled,
        "sd": found[""]["sd"]["macro_f1"],
        "baseline_sd": found["baseline_"]["sd"]["macro_f1"],
        "folds": {method: len(found[prefix]["folds"]) for prefix, method in _CURVES.items()},
    }


# What the keys of a method's figures in a learning curve begin with.
_CURVES: dict[str, Method] = {"": "network", "baseline_": "forest", "neighbourhood_": "forest_neighbourhood"}


def _table(kind: str, found: dict[str, Any]) -> Table:
    figures = found, found["baseline"], found.get("forest_neighbourhood")
    methods = dict(zip(("network", *FORESTS), figures, strict=True))
    # Folds of pixels test the same polygons again and again.
    count = max if kind == "random pixels" else sum
    rows = tuple(_row(name, item, count=count) for name, item in methods.items() if item and item["folds"])
    heads = (
        "method",
        "folds",
        "test polygons",
        "overall accuracy",
        "macro-F1",
        "kappa",
        "macro-F1 per fold",
        "s per fold",
    )
    if kind == "random pixels":
        return Table("random pixels: neighbours on both sides, so this flatters", heads, rows)
    return Table(f"folds by {kind}, test pixels pooled (not a probability sample)", heads, rows)


def _row(name: str, item: dict[str, Any], *, count: Callable[[list[int]], int]) -> tuple[str, ...]:
    pooled = [f"{value:.3f}" if (value := item["pooled"][key]) is not None else "-" for key in item["pooled"]]
    mean, sd = item["mean"]["macro_f1"], item["sd"]["macro_f1"]
    folds = item["folds"]
    spread = "-" if mean is None else f"{mean:.3f} +- {sd:.3f}" if len(folds) > 1 else f"{mean:.3f}"
    polygons = count([fold["polygons"] for fold in folds if fold["seed"] == folds[0]["seed"]])
    return (name, f"{len(folds)}", f"{polygons}", *pooled, spread, f"{sum(item['seconds']) / len(item['seconds']):.0f}")


def _curve_table(points: Sequence[dict[str, Any]]) -> Table:
    def text(point: dict[str, Any], method: str) -> str:
        accuracy, f1 = point[f"{method}overall_accuracy"], point[f"{method}macro_f1"]
        return "-" if accuracy is None or f1 is None else f"{100 * accuracy:.1f} %, {f1:.3f}"

    rows = tuple(
        (f"{100 * point['share']:.0f} %", f"{point['polygons']}", *(text(point, method) for method in _CURVES))
        for point in points
    )
    heads = ("share", "polygons", "network", *FORESTS)
    return Table("overall accuracy, macro-F1 against polygons learned from (not a probability sample)", heads, rows)
