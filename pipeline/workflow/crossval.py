"""``landcover crossval``: the network and the random forest on the same folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pipeline.chips.splits import block_folds, polygon_folds
from pipeline.errors import ConfigError, OutputError
from pipeline.runs import write_json
from pipeline.training.crossval import METHODS, Method, cross_validate, summary
from pipeline.workflow.job import Job
from pipeline.workflow.outcome import Outcome, Table
from pipeline.workflow.scoring import SAMPLING
from pipeline.workflow.stage_train import fit_settings, training_scenes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.chips.splits import Split
    from pipeline.workflow.outcome import Progress

KINDS = ("blocks", "polygons")


def cross_validate_job(
    config: Path,
    *,
    folds: int,
    by: str,
    methods: Sequence[str],
    seed: int,
    output: Path | None,
    overwrite: bool,
    progress: Progress,
    leave_out_single: bool = False,
) -> Outcome:
    """Cross-validate a job; folds that an interrupted run finished are taken from the run folder.

    Args:
        config: The configuration file.
        folds: Number of folds.
        by: "blocks", "polygons" or "both".
        methods: Some of ``pipeline.training.crossval.METHODS``.
        seed: Of the folds.
        output: JSON file for the table.
        overwrite: Replace it.
        progress: For the terminal.
        leave_out_single: Go on without classes of one polygon, which cannot be cross-validated.

    Raises:
        ConfigError: an unknown method or kind of fold.
        SplitError: fewer blocks than folds, or a class with one polygon.
        OutputError: ``output`` exists.
    """
    if by not in {*KINDS, "both"}:
        raise ConfigError("option --by", got=by, expected="blocks, polygons or both")
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ConfigError("option --methods", got=", ".join(unknown), expected=", ".join(METHODS))
    if output is not None and output.exists() and not overwrite:
        raise OutputError("the file exists", path=output, fix="add --overwrite")
    job = Job.load(config)
    folder = job.open_folder().path / "crossval"
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS if by == "both" else (by,):
        splits = _splits(job, kind, folds=folds, seed=seed, leave_out_single=leave_out_single)
        results = cross_validate(
            training_scenes(job),
            job.scheme,
            splits,
            methods=cast("Sequence[Method]", methods),
            settings=fit_settings(job),
            folder=folder / f"{kind}_{folds}_{seed}_{job.stage_key('train')}",
            trees=job.config.assessment.forest_trees,
            resume=True,
            progress=lambda what, done, total, kind=kind: progress(f"{kind}: {what}", done, total),  # type: ignore[misc]
        )
        found[kind] = {name: summary(results, cast("Method", name)) for name in methods}
    data = {"what": SAMPLING, "folds": folds, "seed": seed, "results": found}
    written = (write_json(output, data),) if output else ()
    return Outcome(
        summary=f"{job.config.name}: {folds}-fold cross-validation",
        tables=tuple(_table(kind, item) for kind, item in found.items()),
        written=written,
        data=data,
    )


def _splits(job: Job, kind: str, *, folds: int, seed: int, leave_out_single: bool) -> list[Split]:
    if kind == "polygons":
        return polygon_folds(job.labelled, folds=folds, seed=seed, leave_out_single=leave_out_single)
    return block_folds(
        job.labelled,
        folds=folds,
        block_m=job.block_m,
        buffer_m=job.buffer_m,
        seed=seed,
        leave_out_single=leave_out_single,
    )


def _table(kind: str, item: dict[str, Any]) -> Table:
    rows = tuple(
        (
            method.replace("_", " "),
            f"{figures['pooled']['overall_accuracy']:.3f}",
            f"{figures['pooled']['macro_f1']:.3f}",
            f"{figures['mean']['macro_f1']:.3f} +- {figures['sd']['macro_f1']:.3f}",
            f"{sum(figures['seconds']) / len(figures['seconds']):.0f}",
        )
        for method, figures in item.items()
    )
    heads = ("method", "accuracy", "mean F1", "per fold", "s per fold")
    return Table(f"folds of {kind}, all test pixels pooled (not a probability sample)", heads, rows)
