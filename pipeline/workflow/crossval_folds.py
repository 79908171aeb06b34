"""The folds of a job: of blocks, polygons, one block or one scene at a time; and what is wrong with them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SplitError, SplitWarning
from pipeline.splits.folds import block_folds, polygon_folds, scene_folds
from pipeline.splits.split import Part, TrainingScene, check_leakage
from pipeline.workflow.stage_train import training_scenes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.legend import ClassScheme
    from pipeline.splits.split import Split
    from pipeline.workflow.job import Job

KINDS = ("blocks", "polygons")
# Share of the scenes' area below which the polygons' extent is called a corner. A judgement, not a measured limit.
_CORNER = 0.1


@dataclass(frozen=True)
class FoldPlan:
    """How folds are drawn.

    Attributes:
        kind: "blocks", "polygons", "block" (one out at a time) or "scene" (one out at a time).
        folds: Number of folds of the first two.
    """

    kind: str
    folds: int


def fold_name(plan: FoldPlan, *, seed: int) -> str:
    """Name of the folder that keeps the folds' results."""
    number = plan.folds if plan.kind in KINDS else ""
    return f"{plan.kind}{number}_seed{seed}"


def tested_scenes(job: Job, *, leave_out_single: bool) -> list[TrainingScene]:
    """The job's labelled scenes, without the classes of one polygon where that is allowed.

    Raises:
        SplitError: a class with one polygon.
    """
    scenes = training_scenes(job)
    if not scenes:
        raise SplitError("no labelled pixel in any scene", fix="check that labels and scenes overlap")
    polygon = np.concatenate([scene.pixels.polygon for scene in scenes])
    code = np.concatenate([scene.pixels.code for scene in scenes])
    single = [item for item in job.scheme.classes if len(np.unique(polygon[code == item.code])) == 1]
    if single and not leave_out_single:
        named = ", ".join(f"{item.name} (polygon {polygon[code == item.code][0]})" for item in single)
        raise SplitError(
            f"class with one polygon cannot be cross-validated: {named}",
            expected="two polygons or more",
            fix="draw more polygons of it, or go on without it with --leave-out-single",
        )
    if single:
        named = ", ".join(item.name for item in single)
        warnings.warn(f"left out of cross-validation, one polygon only: {named}", SplitWarning, stacklevel=2)
        codes = [item.code for item in single]
        scenes = [
            TrainingScene(scene.source, scene.pixels.select(~np.isin(scene.pixels.code, codes))) for scene in scenes
        ]
    kept = [scene for scene in scenes if len(scene.pixels)]
    _warn_about_corner(kept)
    return kept


def _warn_about_corner(scenes: Sequence[TrainingScene]) -> None:
    spanned = whole = 0
    for scene in scenes:
        spanned += int(np.ptp(scene.pixels.row) + 1) * int(np.ptp(scene.pixels.col) + 1)
        whole += scene.source.grid.height * scene.source.grid.width
    if spanned < _CORNER * whole:
        warnings.warn(
            f"all polygons lie within {spanned / whole:.1%} of the scene: the figures hold for that corner",
            SplitWarning,
            stacklevel=3,
        )


def make_folds(job: Job, scenes: Sequence[TrainingScene], plan: FoldPlan, *, seed: int) -> list[Split]:
    """One split per fold; of blocks and scenes with the proof that no chip sees what is tested.

    Raises:
        SplitError: fewer blocks, polygons or scenes than folds, a buffer that leaves nothing to learn from or is
            narrower than a chip reaches.
    """
    pixels = [scene.pixels for scene in scenes]
    if plan.kind == "polygons":
        return polygon_folds(pixels, folds=plan.folds, seed=seed)
    block_m, buffer_m = job.block_m, job.buffer_m
    if plan.kind == "scene":
        splits = scene_folds(pixels, block_m=block_m, buffer_m=buffer_m, seed=seed)
    else:
        folds = None if plan.kind == "block" else plan.folds
        splits = block_folds(pixels, folds=folds, block_m=block_m, buffer_m=buffer_m, seed=seed)
    for split in splits:
        check_leakage(pixels, split, reach_px=job.reach_px, buffer_m=buffer_m)
    return splits


def warn_about_folds(
    splits: Sequence[Split],
    scenes: Sequence[TrainingScene],
    scheme: ClassScheme,
    *,
    kind: str,
    learned: Sequence[Part] = (Part.TRAIN, Part.VALIDATION),
) -> None:
    """Say where a class is tested that no polygon of the fold teaches: nothing can be right about it there."""
    polygon = np.concatenate([scene.pixels.polygon for scene in scenes])
    code = np.concatenate([scene.pixels.code for scene in scenes])
    ids, first = np.unique(polygon, return_index=True)
    said = []
    for number, split in enumerate(splits, 1):
        part = split.part[ids]
        tested = set(code[first][part == Part.TEST].tolist())
        taught = set(code[first][np.isin(part, learned)].tolist())
        if tested - taught:
            names = ", ".join(item.name for item in scheme.classes if item.code in tested - taught)
            said.append(f"fold {number}: {names}")
    if said:
        warnings.warn(
            f"folds by {kind} test classes that they have no polygon to learn from ({'; '.join(said)})",
            SplitWarning,
            stacklevel=2,
        )
