"""Cross-validation: the network and random forests on the same folds, training pixels and test pixels.

Figures are pooled over folds: every labelled pixel is predicted once, by a model that never saw its polygon.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from pipeline.chips.splits import Part
from pipeline.errors import ConfigError
from pipeline.model.reach import whole_cells
from pipeline.scenes.reader import open_reader
from pipeline.training.baseline import NEIGHBOURHOODS, TREES, fit_forest
from pipeline.training.fit import FitSettings, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.chips.splits import Split
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.training.dataset import TrainingScene

Method = Literal["forest", "forest_neighbourhood", "network"]
METHODS: tuple[Method, ...] = ("forest", "forest_neighbourhood", "network")
_TILE_PX = 256
# Context around a tile; more than the default network's effective reach.
_HALO_PX = 32


@dataclass(frozen=True, eq=False)
class FoldResult:
    """One method on one fold.

    Attributes:
        method: One of METHODS.
        fold: From 0.
        reference: Class codes of the test pixels, uint8 [n].
        predicted: Class codes given, uint8 [n]; 0 where the scene is not valid.
        polygon: Polygon of each test pixel, int32 [n].
        seconds: Time to train and predict.
    """

    method: Method
    fold: int
    reference: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    polygon: NDArray[np.int32]
    seconds: float


def cross_validate(
    scenes: Sequence[TrainingScene],
    scheme: ClassScheme,
    splits: Sequence[Split],
    *,
    methods: Sequence[Method] = METHODS,
    settings: FitSettings,
    folder: Path,
    trees: int = TREES,
    resume: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[FoldResult]:
    """Every method on every fold.

    Args:
        scenes: Scenes and their labelled pixels.
        scheme: The classes.
        splits: One per fold (``block_folds``, ``polygon_folds``, ``scene_folds``); TEST is predicted, TRAIN and
            VALIDATION are learned from, by forest and network alike.
        methods: Some of METHODS.
        settings: Of the network.
        folder: For logs, and ``fold<n>_<method>.npz``, from which a run goes on with ``resume``.
        trees: Of the forests.
        resume: Take folds that are already in the folder from there.
        progress: Called with method, number of results so far, and number in all.

    Raises:
        ConfigError: an unknown method.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ConfigError(f"method {', '.join(unknown)}", expected="some of " + ", ".join(METHODS))
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for fold, split in enumerate(splits):
        test = [split.pixels(scene.pixels, Part.TEST) for scene in scenes]
        for method in methods:
            kept = folder / f"fold{fold}_{method}.npz"
            start = time.perf_counter()
            if resume and kept.is_file():
                with np.load(kept) as stored:
                    predicted, seconds = stored["predicted"], float(stored["seconds"])
            else:
                predicted = _predict(
                    method, scenes, scheme, split, test, settings=settings, trees=trees, folder=folder / f"fold{fold}"
                )
                seconds = time.perf_counter() - start
                np.savez_compressed(kept, predicted=predicted, seconds=seconds)
            reference = np.concatenate([part.code for part in test])
            polygon = np.concatenate([part.polygon for part in test])
            results.append(FoldResult(method, fold, reference, predicted, polygon, seconds))
            if progress is not None:
                progress(method, len(results), len(splits) * len(methods))
    return results


def figures(reference: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> dict[str, float]:
    """``overall_accuracy``, ``macro_f1`` and ``kappa``; the mean F1 is over the classes of the reference."""
    from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

    labels = np.unique(reference)
    return {
        "overall_accuracy": float(accuracy_score(reference, predicted)),
        "macro_f1": float(f1_score(reference, predicted, labels=labels, average="macro", zero_division=0.0)),
        "kappa": float(cohen_kappa_score(reference, predicted)),
    }


def summary(results: Sequence[FoldResult], method: Method) -> dict[str, object]:
    """``folds`` (figures of each), ``mean``, ``sd`` and ``pooled`` of one method, JSON-ready."""
    own = [item for item in results if item.method == method]
    folds = [figures(item.reference, item.predicted) for item in own]
    names = list(folds[0]) if folds else []
    return {
        "folds": folds,
        "mean": {name: float(np.mean([fold[name] for fold in folds])) for name in names},
        "sd": {
            name: float(np.std([fold[name] for fold in folds], ddof=1)) if len(folds) > 1 else 0.0 for name in names
        },
        "pooled": figures(
            np.concatenate([item.reference for item in own]), np.concatenate([item.predicted for item in own])
        ),
        "seconds": [round(item.seconds, 1) for item in own],
    }


def predict_pixels(bundle: ModelBundle, source: Source, pixels: LabelledPixels) -> NDArray[np.uint8]:
    """Class codes uint8 [n] that a model gives to ``pixels``; 0 where the scene is not valid."""
    network = bundle.network(fused=True)
    tile_px, halo = whole_cells(bundle.specs, tile_px=_TILE_PX, halo_px=_HALO_PX)
    codes = np.zeros(len(pixels), dtype=np.uint8)
    with open_reader(source.select(bundle.bands)) as reader, torch.inference_mode():
        for tile in reader.grid.tiles(tile_px):
            position = pixels.within(tile)
            if not len(position):
                continue
            raster = reader.read(tile.expand(halo))
            x = bundle.preprocess(raster.values, raster.valid)[None].contiguous(memory_format=torch.channels_last)
            rows, cols = pixels.row[position] - tile.row + halo, pixels.col[position] - tile.col + halo
            index = network(x)[0].argmax(0).numpy()[rows, cols].astype(np.uint8)
            codes[position] = np.where(raster.valid[rows, cols], bundle.scheme.index_to_code[index], 0)
    return codes


def _predict(
    method: Method,
    scenes: Sequence[TrainingScene],
    scheme: ClassScheme,
    split: Split,
    test: Sequence[LabelledPixels],
    *,
    settings: FitSettings,
    trees: int,
    folder: Path,
) -> NDArray[np.uint8]:
    if method == "network":
        bundle = fit(scenes, split, scheme, settings=settings, folder=folder).bundle
        return np.concatenate(
            [predict_pixels(bundle, scene.source, part) for scene, part in zip(scenes, test, strict=True)]
        )
    learned = np.flatnonzero(np.isin(split.part, (int(Part.TRAIN), int(Part.VALIDATION)))).astype(np.int32)
    sizes = NEIGHBOURHOODS if method == "forest_neighbourhood" else ()
    forest = fit_forest(scenes, scheme, polygons=learned, sizes=sizes, trees=trees, seed=settings.seed)
    codes = []
    for scene, part in zip(scenes, test, strict=True):
        with open_reader(scene.source) as reader:
            codes.append(forest.predict(reader, part))
    return np.concatenate(codes)
