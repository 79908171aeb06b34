"""Cross-validation: the network and random forests on the same folds, training pixels and test pixels.

Every labelled pixel is predicted once per seed, by a model that never saw its polygon. What a fold gave is kept in a
file with a hash of all that it depends on, so that an interrupted run goes on where it stopped and a changed job starts
anew.
"""

from __future__ import annotations

import hashlib
import logging
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.experts.forest import NEIGHBOURHOODS, fit_forest
from pipeline.files import whole_file
from pipeline.inference.probe import pixel_logits
from pipeline.splits.settings import METHODS, Method
from pipeline.training.chips import choose_chips
from pipeline.training.fit import fit
from pipeline.training.settings import learned_polygons

if TYPE_CHECKING:
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.training.settings import ChipSettings, TrainingSettings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """What folds are tried with, and where what they gave is kept."""

    settings: TrainingSettings  # Of the network; which parts are learned from holds for the forests too
    chips: ChipSettings  # Of the network
    trees: int  # Of the forests
    folder: Path  # For logs, and ``fold<n>_<method>.npz``, from which a run goes on with ``resume``
    methods: Sequence[Method] = METHODS  # Some of METHODS
    objects: Sequence[int] = ()  # Network indices of classes that are mapped as objects (``fit``)
    # Take folds that are in the folder from there, where they are of the same job; and also give those of methods and
    # folds that are not asked for now
    resume: bool = False
    # Of each method, changes with all that its result depends on but the split and the labelled pixels; without keys
    # what is in the folder is taken for that of the same settings
    keys: Mapping[Method, str] = field(default_factory=dict)
    # What else is made of the network of a fold: given it, the test pixels of each scene, and the folder of the fold
    after: Callable[[ModelBundle, Sequence[LabelledPixels], Path], None] | None = None


@dataclass(frozen=True, eq=False)
class FoldResult:
    """One method on one fold."""

    method: Method  # One of METHODS
    fold: int  # From 0
    reference: NDArray[np.uint8]  # [pixel] class codes of the test pixels
    predicted: NDArray[np.uint8]  # [pixel] class codes given; 0 where the scene is not valid
    polygon: NDArray[np.int32]  # [pixel]
    seconds: float  # Time to train and predict
    seed: int = 0  # Of the folds
    learned: int = 0  # Polygons that were learned from
    not_valid: int = 0  # Test pixels that were taken out because no method could see them


def cross_validate(
    scenes: Sequence[TrainingScene], scheme: ClassScheme, splits: Sequence[Split], *, trial: Trial,
    only: Sequence[int] | None = None, first_fold: int = 0, seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[FoldResult]:  # fmt: skip
    """Every method on every fold.

    Args:
        scenes: Scenes and their labelled pixels.
        scheme: The classes.
        splits: One per fold (``block_folds``, ``polygon_folds``, ``scene_folds``); the pixels that it says are tested
            are predicted; forest and network learn from the parts that the settings name.
        trial: What is tried.
        only: Numbers of the folds to do, from 0; default all.
        first_fold: Number of the first of ``splits``.
        seed: Seed that the folds were drawn with, for the record.
        progress: Called with method, number of results so far, and number in all.

    Raises:
        OutputError: the folder cannot be written.
    """
    wanted = range(first_fold, first_fold + len(splits)) if only is None else only
    total = sum(first_fold + number in wanted for number in range(len(splits))) * len(trial.methods)
    results, done = [], 0
    for fold, split in enumerate(splits, first_fold):
        test = split.tested([scene.pixels for scene in scenes])
        for method in METHODS if trial.resume else trial.methods:
            kept = trial.folder / f"fold{fold}_{method}.npz"
            key = _key(trial.keys.get(method, ""), scenes, split, settings=trial.settings)
            asked = method in trial.methods and fold in wanted
            found = _stored(kept, key, count=sum(map(len, test))) if trial.resume else None
            if found is None and asked:
                start, where = time.perf_counter(), trial.folder / f"fold{fold}"
                predicted = _predict(method, scenes, scheme, split, test, trial=trial, folder=where)
                found = predicted, time.perf_counter() - start
                _store(kept, predicted, seconds=found[1], key=key)
                _tidy(where)
            if found is not None:
                code, polygon = (np.concatenate([getattr(part, name) for part in test]) for name in ("code", "polygon"))
                learned = len(learned_polygons(split, trial.settings))
                results.append(FoldResult(method, fold, code, found[0], polygon, found[1], seed, learned))
            done += asked
            if asked and progress is not None:
                progress(method, done, total)
    return results


def _key(given: str, scenes: Sequence[TrainingScene], split: Split, *, settings: TrainingSettings) -> str:
    """Changes with the settings, the parts and blocks of the polygons, what is learned and tested, and the labels."""
    digest = hashlib.sha256(given.encode())
    digest.update(split.part.tobytes())
    digest.update(split.block_of.tobytes())  # experts are tried on blocks held out within the training polygons
    digest.update(bytes(settings.learned_parts))
    digest.update(b"" if split.tested_scene is None else str(split.tested_scene).encode())
    for scene in scenes:
        for column in (scene.pixels.row, scene.pixels.col, scene.pixels.code, scene.pixels.polygon):
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def _stored(path: Path, key: str, *, count: int) -> tuple[NDArray[np.uint8], float] | None:
    """Predictions uint8 [n] and seconds of a fold done before; None where there is none of this job."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as stored:
            if str(stored["key"]) != key or len(stored["predicted"]) != count:
                return None
            return stored["predicted"], float(stored["seconds"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        _LOG.info("%s is damaged, the fold is done again", path)
        return None


def _store(path: Path, predicted: NDArray[np.uint8], *, seconds: float, key: str) -> None:
    with whole_file(path, what="the result of a fold") as part, part.open("wb") as file:
        np.savez_compressed(file, predicted=predicted, seconds=seconds, key=key)


def _tidy(folder: Path) -> None:
    """Checkpoints of a finished fold are of no more use."""
    for checkpoint in folder.rglob("*.ckpt") if folder.is_dir() else ():
        checkpoint.unlink(missing_ok=True)


def predict_pixels(bundle: ModelBundle, source: Source, pixels: LabelledPixels) -> NDArray[np.uint8]:
    """Class codes uint8 [n] that a model gives to ``pixels``; 0 where the scene is not valid."""
    logits, position = pixel_logits(bundle, source, pixels)
    codes = np.zeros(len(pixels), dtype=np.uint8)
    codes[position] = bundle.scheme.index_to_code[logits.argmax(axis=1)]
    return codes


def _predict(
    method: Method, scenes: Sequence[TrainingScene], scheme: ClassScheme, split: Split, test: Sequence[LabelledPixels],
    *, trial: Trial, folder: Path,
) -> NDArray[np.uint8]:  # fmt: skip
    settings = trial.settings
    if method == "network":
        pixels = {scene.source.id: scene.pixels for scene in scenes}
        index = choose_chips(pixels, settings=trial.chips, split=split, scheme=scheme, head=settings.head)
        found = fit(scenes, split, scheme, index=index, settings=settings, folder=folder, objects=trial.objects)
        if trial.after is not None:
            trial.after(found.bundle, test, folder)
        return np.concatenate(
            [predict_pixels(found.bundle, scene.source, part) for scene, part in zip(scenes, test, strict=True)]
        )
    sizes = NEIGHBOURHOODS if method == "forest_neighbourhood" else ()
    learned = learned_polygons(split, settings)
    forest = fit_forest(scenes, scheme, polygons=learned, sizes=sizes, trees=trial.trees, seed=settings.seed)
    return forest.predict_scenes(zip((scene.source for scene in scenes), test, strict=True))
