from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.chips.splits import Part, Split
from pipeline.inference.probe import pixel_logits
from pipeline.labels.rasterise import LabelledPixels
from pipeline.model.bundle import ModelBundle
from pipeline.training.dataset import TrainingScene
from pipeline.workflow.calibrating import KEY, calibrate
from tests.inference.models import identity_bundle, one_hot, write_scene

CLASSES = 4
RNG = np.random.default_rng(2)


def case(folder: Path, *, wrong: float) -> tuple[ModelBundle, list[TrainingScene], Split]:
    """A network that says with certainty what a scene holds, and labels that contradict it in some pixels."""
    truth = RNG.integers(0, CLASSES, (40, 40))
    scene = write_scene(folder / "scene.tif", one_hot(truth, count=CLASSES))
    row, col = (part.ravel().astype(np.int32) for part in np.mgrid[:40, :40])
    spoiled = RNG.random(1600) < wrong
    index = np.where(spoiled, (truth.ravel() + 1) % CLASSES, truth.ravel())
    pixels = LabelledPixels(
        row, col, (3 * index + 1).astype(np.uint8), (row // 10 + 1).astype(np.int32), np.ones(1600, np.uint8),
        scene.grid,
    )  # fmt: skip
    part = np.array([-1, Part.TRAIN, Part.VALIDATION, Part.VALIDATION, Part.TEST], dtype=np.int8)
    split = Split(part, np.arange(5, dtype=np.int32) - 1, 100.0, 0.0)
    return identity_bundle(CLASSES), [TrainingScene(scene, pixels)], split


def test_a_network_too_sure_of_itself_is_cooled_to_its_accuracy(tmp_path):
    bundle, scenes, split = case(tmp_path, wrong=0.2)
    found = calibrate(bundle, scenes, split, learned_validation=False)
    said = found.provenance[KEY]
    assert found.temperature == said["temperature"] > 2
    assert said["pixels"] == 800
    assert said["ece_before"] > 0.15
    assert said["ece_after"] < 0.02
    # One temperature for a network that is always as sure: its confidence becomes its accuracy on validation pixels.
    pixels = split.pixels(scenes[0].pixels, Part.VALIDATION)
    logits, _ = pixel_logits(found, scenes[0].source, pixels)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = found.scheme.index_to_code[logits.argmax(axis=1)] == pixels.code
    assert shares.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.01)


def test_polygons_that_the_model_learned_from_calibrate_nothing(tmp_path):
    bundle, scenes, split = case(tmp_path, wrong=0.2)
    found = calibrate(bundle, scenes, split, learned_validation=True)
    assert found.temperature == 1.0
    assert found.provenance[KEY].startswith("none: the model learned from the validation polygons")


def test_without_validation_polygons_it_says_so(tmp_path):
    bundle, scenes, split = case(tmp_path, wrong=0.2)
    bare = replace(split, part=np.where(split.part == Part.VALIDATION, Part.TRAIN, split.part).astype(np.int8))
    assert "no valid pixel" in calibrate(bundle, scenes, bare, learned_validation=False).provenance[KEY]


def test_a_model_without_errors_keeps_its_temperature(tmp_path):
    bundle, scenes, split = case(tmp_path, wrong=0.0)
    found = calibrate(bundle, scenes, split, learned_validation=False)
    assert (found.temperature, found.provenance[KEY][:5]) == (1.0, "none:")


def test_a_model_that_is_calibrated_already_stays_as_it_is(tmp_path):
    bundle, scenes, split = case(tmp_path, wrong=0.2)
    warm = replace(bundle, temperature=1.7)
    assert calibrate(warm, scenes, split, learned_validation=False) is warm
