"""Samples of values without a scene, such as stations: their folds, and what ``landcover check`` says of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from pipeline.errors import SplitError, counted
from pipeline.grid import Grid
from pipeline.labels.rasterise import LabelledPixels
from pipeline.labels.values import holds_several
from pipeline.splits.folds import block_folds, group_folds
from pipeline.splits.search import default_block_m
from pipeline.splits.settings import CrossvalSettings
from pipeline.splits.split import Part
from pipeline.workflow.outcome import Table

if TYPE_CHECKING:
    from pipeline.splits.split import Split
    from pipeline.workflow.job import Job

NO_SCENE = "no scene: crossval gives figures, no map can be made"


def sample_pixels(job: Job) -> list[LabelledPixels]:
    """The labelled pixels of a job's scenes; samples without a scene as pixels of a grid of metres."""
    if job.config.scenes:
        return job.labelled
    from pipeline.training.value_table import Plane

    frame = job.labels.frame
    xy = Plane.around(frame).of_frame(frame)
    left, top = xy[:, 0].min() - 0.5, xy[:, 1].max() + 0.5
    col, row = np.floor(xy[:, 0] - left).astype(np.int64), np.floor(top - xy[:, 1]).astype(np.int64)
    grid = Grid(CRS.from_epsg(3857), Affine(1.0, 0.0, left, 0.0, -1.0, top), int(row.max()) + 1, int(col.max()) + 1)
    order = np.lexsort((col, row))
    ids = frame["poly_id"].to_numpy(dtype=np.int32)[order]
    codes = frame["code"].to_numpy(dtype=np.uint8)[order]
    return [LabelledPixels(row[order].astype(np.int32), col[order].astype(np.int32), codes, ids,
                           np.ones(len(ids), dtype=np.uint8), grid)]  # fmt: skip


def blocks_apart(job: Job, pixels: Sequence[LabelledPixels]) -> tuple[float, float]:
    """Side of the blocks that folds are made of, and the distance between parts, in m."""
    if job.config.scenes:
        return job.block_m, job.buffer_m
    buffer_m = job.config.split.buffer_m or 0.0  # samples without a scene have no chip that reaches beyond them
    return job.config.split.block_m or default_block_m(pixels, buffer_m=buffer_m), buffer_m


def sample_folds(
    job: Job, pixels: Sequence[LabelledPixels], *, apart: tuple[float, float] | None, folds: int, seed: int
) -> list[Split]:
    """Folds of blocks, or of groups where ``apart`` is None.

    Raises:
        SplitError: no groups, or fewer blocks or groups than folds.
    """
    if apart is not None:
        block_m, buffer_m = apart
        return block_folds(pixels, folds=folds, block_m=block_m, buffer_m=buffer_m, seed=seed, validation_fraction=0.0)
    if job.groups is None:
        raise SplitError("no groups", fix="set labels.value.group")
    return group_folds(pixels, job.groups, folds=folds, seed=seed)


def fold_table(job: Job) -> Table:
    """Samples that each fold of ``landcover crossval`` tests and learns from, as its defaults draw them.

    Raises:
        SplitError: fewer blocks or groups than folds.
    """
    settings, pixels = CrossvalSettings(), sample_pixels(job)
    apart = None if by_group(job) else blocks_apart(job, pixels)
    splits = sample_folds(job, pixels, apart=apart, folds=settings.folds, seed=settings.seeds[0])
    rows = tuple(
        (str(number), str(len(split.polygons(Part.TEST))), str(len(split.polygons(Part.TRAIN))))
        for number, split in enumerate(splits, 1)
    )
    groups = job.labels.frame["group"].nunique()
    how = f"{counted(groups, 'group')} of {job.config.labels.value.group} kept together"
    if apart is not None:
        how = f"blocks of {apart[0]:,.0f} m, {apart[1]:,.0f} m between parts"
    return Table(f"samples per fold of crossval: {how}", ("fold", "tested", "learned"), rows)


def by_group(job: Job) -> bool:
    """Whether the samples' groups can stand in for blocks."""
    return job.groups is not None and holds_several(job.labels.frame["group"].tolist())


def next_crossval(config: Path, job: Job) -> str:
    """The command that comes after a check of samples without a scene."""
    by = ["--by", str(job.config.labels.value.group)] if by_group(job) else []
    return f"next: landcover crossval {shlex.join([str(config), *by])}"
