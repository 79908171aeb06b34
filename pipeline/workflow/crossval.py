"""``landcover crossval``: the network and the random forest on the same folds, beside a split that leaks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.diagnostics.scoring import SAMPLING
from pipeline.errors import ConfigError, OutputError
from pipeline.files import hash_of, write_json
from pipeline.splits.subsets import random_pixel_fold
from pipeline.training.crossval import cross_validate
from pipeline.training.fold_figures import METHODS, FoldResult, Method, summary
from pipeline.workflow.crossval_folds import KINDS, FoldPlan, fold_name, make_folds, tested_scenes, warn_about_folds
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pipeline.splits.split import Split, TrainingScene
    from pipeline.workflow.outcome import Progress

FILE = "crossval.json"
LEAKY = "labelled pixels at random, neighbours on both sides: shows how much such a split flatters"


@dataclass(frozen=True)
class CrossvalRequest:
    """What the command line asks.

    Attributes:
        folds: Number of folds of blocks or polygons.
        leave_out: "block" or "scene" leaves one out at a time instead.
        by: "blocks", "polygons" or "both".
        methods: Some of METHODS.
        seeds: Of the folds; each draws them anew.
        only_folds: Numbers from 1 of the folds to do now; () for all.
        random_folds: Folds of randomly drawn pixels for the comparison with a leaky split.
        leave_out_single: Go on without classes of one polygon.
        force: Do the folds asked for again.
        overwrite: Replace figures of another job or other folds.
    """

    folds: int = 5
    leave_out: Literal["", "block", "scene"] = ""
    by: str = "blocks"
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0,)
    only_folds: tuple[int, ...] = ()
    random_folds: int = 1
    leave_out_single: bool = False
    force: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what no folds can be made of."""
        if self.leave_out and self.by != "blocks":
            raise ConfigError(f"--leave-one-{self.leave_out}-out together with --by {self.by}", fix="give one of them")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigError("option --methods", got=", ".join(unknown) or "none", expected=", ".join(METHODS))
        if not self.seeds:
            raise ConfigError("option --seeds", got="none", expected="numbers, such as 0,1,2")
        if not 0 <= self.random_folds <= self.random_of:
            raise ConfigError("option --random-folds", got=self.random_folds, expected=f"0..{self.random_of}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the folds are made of."""
        return (self.leave_out,) if self.leave_out else KINDS if self.by == "both" else (self.by,)

    @property
    def random_of(self) -> int:
        """Of how many folds of random pixels ``random_folds`` are done."""
        return max(self.folds, 2)

    def plan(self, kind: str) -> FoldPlan:
        """How the folds of one kind are drawn."""
        return FoldPlan(kind, self.folds)


def cross_validate_job(config: Path, *, request: CrossvalRequest, output: Path | None, progress: Progress) -> Outcome:
    """Cross-validate a job; folds that an earlier run finished are taken from the run folder.

    Args:
        config: The configuration file.
        request: What is asked.
        output: A further file for the figures.
        progress: For the terminal.

    Raises:
        SplitError: fewer blocks than folds, or a class with one polygon.
        OutputError: ``output`` exists, or the run folder has figures of another job.
    """
    if output is not None and output.exists() and not request.overwrite:
        raise OutputError("the file exists", path=output, fix="add --overwrite")
    job = Job.load(config)
    if job.is_value:
        from pipeline.workflow.value_crossval import cross_validate_values

        return cross_validate_values(job, request=request, output=output, progress=progress)
    if request.by not in {*KINDS, "both"}:
        raise ConfigError("option --by", got=request.by, expected="blocks, polygons or both")
    run = job.open_folder()
    key = figures_key(job, request)
    refuse_other_figures(run.path / FILE, key, overwrite=request.overwrite)
    scenes = tested_scenes(job, leave_out_single=request.leave_out_single)
    data: dict[str, Any] = {"what": SAMPLING, "key": key}
    tables = []
    for kind in request.kinds:
        found = _one_kind(job, scenes, kind, request=request, folder=run.path / "crossval", progress=progress)
        tables.append(_table(kind, found))
        data |= found if kind == request.kinds[0] else {kind: found}
    random = _random(job, scenes, request=request, folder=run.path / "crossval", progress=progress)
    if random is not None:
        data["random_split"] = random
        tables.append(_table("random pixels", random))
    written = [write_json(run.path / FILE, data), *([write_json(output, data)] if output else [])]
    return Outcome(
        summary=f"{job.config.name}: cross-validation by {' and '.join(request.kinds)}, {_completeness(data)}",
        tables=tuple(tables),
        written=tuple(written),
        data=data,
    )


def method_keys(job: Job) -> dict[Method, str]:
    """For each method a hash of all that its results depend on but folds and labelled pixels."""
    trees, seed = job.config.assessment.forest_trees, job.config.training.seed
    network = [job.config.chips.model_dump(mode="json"), job.config.training.model_dump(mode="json")]
    return {
        "forest": hash_of([job.input_hash, trees, seed]),
        "forest_neighbourhood": hash_of([job.input_hash, trees, seed]),
        "network": hash_of([job.input_hash, network]),
    }


def figures_key(job: Job, request: CrossvalRequest) -> str:
    """Changes with all that tells figures apart: the methods' settings, how folds are drawn, which classes count."""
    spatial = [] if request.kinds == ("polygons",) else [job.block_m, job.buffer_m]
    return hash_of([method_keys(job), request.kinds, request.folds, spatial, request.leave_out_single])


def refuse_other_figures(path: Path, key: str, *, overwrite: bool) -> None:
    """Stop before anything is computed where a file of figures is of another job.

    Raises:
        OutputError: it is, and ``overwrite`` is not given.
    """
    if overwrite or not path.exists():
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8")).get("key")
    except (OSError, ValueError, AttributeError):
        known = None
    if known != key:
        raise OutputError("figures of other folds or settings are there", path=path, fix="add --overwrite")


def run_folds(
    job: Job,
    scenes: Sequence[TrainingScene],
    splits: Sequence[Split],
    *,
    request: CrossvalRequest,
    folder: Path,
    seed: int,
    progress: Progress,
    first_fold: int = 0,
) -> list[FoldResult]:
    """Folds with the job's settings, in a folder of their own; what is there and current is not done again."""
    methods = tuple(name for name in METHODS if name in request.methods)
    last = first_fold + len(splits)
    only = [fold - 1 for fold in request.only_folds] if request.only_folds else range(first_fold, last)
    if request.force:
        for fold in only:
            for method in methods:
                (folder / f"fold{fold}_{method}.npz").unlink(missing_ok=True)
    return cross_validate(
        scenes,
        job.scheme,
        splits,
        methods=methods,
        settings=job.config.training,
        chips=job.config.chips,
        folder=folder,
        trees=job.config.assessment.forest_trees,
        resume=True,
        keys=method_keys(job),
        only=only,
        first_fold=first_fold,
        seed=seed,
        progress=progress,
    )


def method_figures(job: Job, results: Sequence[FoldResult]) -> dict[str, Any]:
    """Figures of the network, under ``baseline`` those of the forest, and of any further method that has results."""
    data = summary(results, "network", scheme=job.scheme)
    data["baseline"] = summary(results, "forest", scheme=job.scheme)
    if any(item.method == "forest_neighbourhood" for item in results):
        data["forest_neighbourhood"] = summary(results, "forest_neighbourhood", scheme=job.scheme)
    return data


def _one_kind(
    job: Job,
    scenes: Sequence[TrainingScene],
    kind: str,
    *,
    request: CrossvalRequest,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    plan = request.plan(kind)
    results: list[FoldResult] = []
    count = 0
    for seed in request.seeds:
        splits = make_folds(job, scenes, plan, seed=seed)
        count += len(splits)
        if any(not 1 <= fold <= len(splits) for fold in request.only_folds):
            raise ConfigError("option --only-folds", got=request.only_folds, expected=f"numbers 1..{len(splits)}")
        warn_about_folds(splits, scenes, job.scheme, kind=kind, learned=job.config.training.learned_parts)

        def told(what: str, done: int, total: int, seed: int = seed) -> None:
            progress(f"{kind}, seed {seed}: {what.replace('_', ' ')}", done, total)

        where = folder / fold_name(plan, seed=seed)
        results += run_folds(job, scenes, splits, request=request, folder=where, seed=seed, progress=told)
    done = {str(name): sum(item.method == name for item in results) for name in METHODS}
    split = {"kind": kind, "seeds": list(request.seeds), "folds_in_all": count, "done": done}
    if kind != "polygons":
        split |= {"block_m": job.block_m, "buffer_m": splits[0].buffer_m}
    return {"split": split, "complete": all(done[name] == count for name in request.methods)} | method_figures(
        job, results
    )


def _random(
    job: Job, scenes: Sequence[TrainingScene], *, request: CrossvalRequest, folder: Path, progress: Progress
) -> dict[str, Any] | None:
    """Figures of folds of random pixels; None where none are asked for."""
    if not request.random_folds:
        return None
    results: list[FoldResult] = []
    seed = request.seeds[0]
    where = folder / f"random{request.random_of}_seed{seed}"
    for fold in range(request.random_folds):
        dealt, split = random_pixel_fold(scenes, folds=request.random_of, fold=fold, seed=seed)
        results += run_folds(
            job,
            dealt,
            [split],
            request=request,
            folder=where,
            seed=seed,
            first_fold=fold,
            progress=lambda what, done, total: progress(f"random: {what.replace('_', ' ')}", done, total),
        )
    about = {"what": LEAKY, "split": {"kind": "pixels", "seeds": [seed], "folds_in_all": request.random_of}}
    return about | method_figures(job, results)


def _completeness(data: dict[str, Any]) -> str:
    split = data["split"]
    done = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in split["done"].items() if count)
    return f"{split['folds_in_all']} folds (done: {done or 'none'})"


def _table(kind: str, found: dict[str, Any]) -> Table:
    methods = {"network": found, "forest": found["baseline"], "forest neighbourhood": found.get("forest_neighbourhood")}
    # Folds of pixels test the same polygons again and again.
    count = max if kind == "random pixels" else sum
    rows = tuple(_row(name, item, count=count) for name, item in methods.items() if item and item["folds"])
    heads = ("method", "folds", "test polygons", "accuracy", "mean F1", "kappa", "mean F1 per fold", "s per fold")
    if kind == "random pixels":
        return Table("random pixels: neighbours on both sides, so this flatters", heads, rows)
    return Table(f"folds by {kind}, test pixels pooled (not a probability sample)", heads, rows)


def _row(name: str, item: dict[str, Any], *, count: Callable[[list[int]], int]) -> tuple[str, ...]:
    pooled = [f"{value:.3f}" if (value := item["pooled"][key]) is not None else "-" for key in item["pooled"]]
    mean, sd = item["mean"]["macro_f1"], item["sd"]["macro_f1"]
    spread = "-" if mean is None else f"{mean:.3f} +- {sd:.3f}"
    folds = item["folds"]
    polygons = count([fold["polygons"] for fold in folds if fold["seed"] == folds[0]["seed"]])
    return (name, f"{len(folds)}", f"{polygons}", *pooled, spread, f"{sum(item['seconds']) / len(item['seconds']):.0f}")
