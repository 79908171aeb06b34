"""A small scene with two classes that one band tells apart, polygons on it, and settings that learn it in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from pipeline.grid import Grid
from pipeline.labels.rasterise import LabelledPixels
from pipeline.legend import scheme_for
from pipeline.scenes.opening import open_scene
from pipeline.splits.split import Split, TrainingScene
from pipeline.training import crossval
from pipeline.training import fit as fitting
from pipeline.training.chips import choose_chips
from pipeline.training.settings import ChipSettings, TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.legend import ClassScheme
    from pipeline.training.crossval import FoldResult
    from pipeline.training.result import FitResult

SIDE = 96
CHIPS = ChipSettings(size_px=16, unlabelled=2)
Job = tuple[TrainingScene, Split, "ClassScheme"]


def changed(settings: TrainingSettings, changes: dict[str, Any]) -> TrainingSettings:
    """The settings with other values for some keys, as "context.steps"."""
    plain = settings.model_dump()
    for key, value in changes.items():
        *sections, name = key.split(".")
        inner = plain
        for section in sections:
            inner = inner[section]
        inner[name] = value
    return TrainingSettings.model_validate(plain)


# A network with context that learns for a moment; the experts and the network of pixels hardly learn.
TINY = changed(
    TrainingSettings(),
    {
        "experts.trees": 2, "experts.soft_pixels": 200, "pixels.steps": 4, "pixels.batch": 16, "context.enabled": True,
        "context.weights": "none",
        "context.steps": 6, "context.batch": 2, "context.share": 0.2,
    },
)  # fmt: skip
# The network of pixels alone, long enough to learn a threshold.
PIXELS = changed(
    TINY, {"context.enabled": False, "pixels.steps": 150, "pixels.batch": 128, "experts.soft_pixels": 2000}
)


def fit(
    scenes: Sequence[TrainingScene], split: Split, scheme: ClassScheme, *, settings: TrainingSettings, **options: Any
) -> FitResult:
    """Training on the chips that would be chosen."""
    pixels = {scene.source.id: scene.pixels for scene in scenes}
    index = choose_chips(pixels, settings=CHIPS, split=split, scheme=scheme, head=settings.head)
    return fitting.fit(scenes, split, scheme, index=index, settings=settings, **options)


def cross_validate(
    scenes: Sequence[TrainingScene], scheme: ClassScheme, splits: Sequence[Split], **options: Any
) -> list[FoldResult]:
    """Cross-validation with few trees and small chips."""
    rest = {name: options.pop(name) for name in ("only", "first_fold", "seed", "progress") if name in options}
    trial = crossval.Trial(**({"chips": CHIPS, "trees": 5} | options))
    return crossval.cross_validate(scenes, scheme, splits, trial=trial, **rest)


def make_job(
    folder: Path, *, name: str = "scene", zone: int = 33, first_id: int = 1, noise_seed: int = 0,
    noise: tuple[str, ...] = (),
) -> Job:  # fmt: skip
    """Two classes (left and right half) told apart by the second band; twelve polygons of 5 x 5 pixels.

    Bands of ``noise`` by name join red and nir.

    Polygons 1..6 train, 7 and 8 validate, 9..12 test; odd ones are of the class "low". Blocks hold two polygons.
    """
    rng = np.random.default_rng(noise_seed)
    truth = np.zeros((SIDE, SIDE), dtype=int)
    truth[:, SIDE // 2 :] = 1
    values = np.stack([rng.normal(0.2, 0.05, truth.shape), 0.1 + 0.3 * truth + rng.normal(0, 0.03, truth.shape)])
    values = np.concatenate([values, rng.normal(0.2, 0.05, (len(noise), *truth.shape))])
    grid = Grid(CRS.from_epsg(32600 + zone), Affine(10, 0, 500000, 0, -10, 5800000), SIDE, SIDE)
    path = folder / f"{name}.tif"
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": len(values), "dtype": "float32"}
    with rasterio.open(path, "w", crs=grid.crs, transform=grid.transform, **profile) as out:
        out.write(values.astype(np.float32))
        out.descriptions = ("red", "nir", *noise)
    rows, cols, ids = [], [], []
    for number in range(12):
        row, col = 8 + 14 * (number // 2), 20 if number % 2 == 0 else 70
        r, c = np.mgrid[row : row + 5, col : col + 5].reshape(2, -1)
        rows.append(r), cols.append(c), ids.append(np.full(25, number + first_id))
    row, col, ids = (np.concatenate(part).astype(np.int32) for part in (rows, cols, ids))
    order = np.lexsort((col, row))
    row, col, ids = row[order], col[order], ids[order]
    scheme, _ = scheme_for(["low", "high"])
    pixels = LabelledPixels(row, col, scheme.index_to_code[truth[row, col]], ids, np.ones(len(row), np.uint8), grid)
    part = np.full(first_id + 12, -1, dtype=np.int8)
    part[first_id:] = [0] * 6 + [1] * 2 + [2] * 4
    block = np.full(first_id + 12, -1, dtype=np.int32)
    block[first_id:] = np.arange(12) // 2
    return TrainingScene(open_scene(path), pixels), Split(part, block, 140.0, 0.0), scheme


def parts(split: Split, changes: dict[int, int]) -> Split:
    """The split with other parts for some polygons."""
    part = split.part.copy()
    for polygon, value in changes.items():
        part[polygon] = value
    return replace(split, part=part)
