"""``landcover crossval --learning-curve``: the score against the number of polygons that were learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.diagnostics.scoring import SAMPLING
from pipeline.errors import ConfigError
from pipeline.files import write_json
from pipeline.splits.subsets import fewer_polygons
from pipeline.training.fold_figures import FoldResult, summary
from pipeline.workflow.crossval import figures_key, refuse_other_figures, run_folds
from pipeline.workflow.crossval_folds import fold_name, make_folds, tested_scenes
from pipeline.workflow.job import LEARNING_CURVE, Job
from pipeline.workflow.outcome import Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.splits.split import TrainingScene
    from pipeline.workflow.crossval import CrossvalRequest
    from pipeline.workflow.outcome import Progress

SHARES = (25, 50, 75, 100)


def draw_learning_curve(
    config: Path, *, request: CrossvalRequest, shares: Sequence[int], output: Path | None, progress: Progress
) -> Outcome:
    """Cross-validate with shares of the training polygons in per cent; the test polygons of every fold stay the same.

    The point of all polygons is the cross-validation itself and shares its results.

    Raises:
        ConfigError: a share that is not 1..100, or more than one kind of folds.
        SplitError: as cross-validation.
        OutputError: the run folder has a curve of another job.
    """
    if not shares or not all(1 <= share <= 100 for share in shares):  # noqa: PLR2004 - per cent
        raise ConfigError("option --shares", got=tuple(shares), expected="per cent, 1..100")
    if len(request.kinds) > 1:
        raise ConfigError("a learning curve by two kinds of folds", fix="give --by blocks or --by polygons")
    job = Job.load(config)
    run = job.open_folder()
    key = figures_key(job, request)
    refuse_other_figures(run.path / LEARNING_CURVE, key, overwrite=request.overwrite)
    scenes = tested_scenes(job, leave_out_single=request.leave_out_single)
    points = [
        _point(job, scenes, share, request=request, folder=run.path / "crossval", progress=progress)
        for share in sorted(set(shares))
    ]
    data = {
        "what": SAMPLING,
        "key": key,
        "split": {"kind": request.kinds[0], "folds": request.folds, "seeds": list(request.seeds)},
        "points": points,
    }
    written = [write_json(run.path / LEARNING_CURVE, data), *([write_json(output, data)] if output else [])]
    return Outcome(
        summary=f"{job.config.name}: learning curve by {request.kinds[0]}",
        tables=(_table(points),),
        written=tuple(written),
        data=data,
    )


def _point(
    job: Job,
    scenes: Sequence[TrainingScene],
    share: int,
    *,
    request: CrossvalRequest,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    plan = request.plan(request.kinds[0])
    results: list[FoldResult] = []
    for seed in request.seeds:
        name = fold_name(plan, seed=seed)
        whole = make_folds(job, scenes, plan, seed=seed)
        pixels = [scene.pixels for scene in scenes]
        splits = [fewer_polygons(split, pixels, share=share / 100, seed=seed) for split in whole]

        def told(what: str, done: int, total: int, seed: int = seed) -> None:
            progress(f"{share} % of the polygons, seed {seed}: {what.replace('_', ' ')}", done, total)

        where = folder / (name if share == 100 else f"{name}_share{share}")  # noqa: PLR2004 - all of them
        results += run_folds(job, scenes, splits, request=request, folder=where, seed=seed, progress=told)
    found = {method: summary(results, method) for method in ("network", "forest", "forest_neighbourhood")}
    return {
        "share": share / 100,
        "polygons": round(float(np.mean([item.learned for item in results]))),
        "macro_f1": found["network"]["pooled"]["macro_f1"],
        "sd": found["network"]["sd"]["macro_f1"],
        "baseline_macro_f1": found["forest"]["pooled"]["macro_f1"],
        "baseline_sd": found["forest"]["sd"]["macro_f1"],
        "overall_accuracy": found["network"]["pooled"]["overall_accuracy"],
        "baseline_overall_accuracy": found["forest"]["pooled"]["overall_accuracy"],
        "neighbourhood_macro_f1": found["forest_neighbourhood"]["pooled"]["macro_f1"],
        "neighbourhood_overall_accuracy": found["forest_neighbourhood"]["pooled"]["overall_accuracy"],
        "folds": {method: len(item["folds"]) for method, item in found.items()},
    }


def _table(points: Sequence[dict[str, Any]]) -> Table:
    def text(point: dict[str, Any], method: str) -> str:
        accuracy, f1 = point[f"{method}overall_accuracy"], point[f"{method}macro_f1"]
        return "-" if accuracy is None or f1 is None else f"{100 * accuracy:.1f} %, {f1:.3f}"

    rows = tuple(
        (
            f"{100 * point['share']:.0f} %",
            f"{point['polygons']}",
            *(text(point, method) for method in ("", "baseline_", "neighbourhood_")),
        )
        for point in points
    )
    heads = ("share", "polygons", "network", "forest", "forest neighbourhood")
    return Table("accuracy, mean F1 against polygons learned from (not a probability sample)", heads, rows)
