from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from pipeline.diagnostics.confidence import KEY, calibrate
from pipeline.diagnostics.scoring import at_pixels
from pipeline.experts.mixture import OutOfFold
from pipeline.inference.probe import pixel_logits
from pipeline.labels.rasterise import LabelledPixels
from pipeline.model.bundle import ModelBundle, load_bundle
from pipeline.splits.split import Part, Split, TrainingScene
from pipeline.workflow.job import Job
from tests.inference.models import identity_bundle, one_hot, small_bundle, write_scene

CLASSES = 4
RNG = np.random.default_rng(2)


def case(folder: Path, *, wrong: float, per_polygon: int = 4) -> tuple[ModelBundle, list[TrainingScene], Split]:
    """A network that says with certainty what a scene holds, and labels that contradict it in some pixels.

    Every second polygon trains, the others validate.
    """
    truth = RNG.integers(0, CLASSES, (40, 40))
    scene = write_scene(folder / "scene.tif", one_hot(truth, count=CLASSES))
    row, col = (part.ravel().astype(np.int32) for part in np.mgrid[:40, :40])
    spoiled = RNG.random(1600) < wrong
    index = np.where(spoiled, (truth.ravel() + 1) % CLASSES, truth.ravel())
    polygon = (np.arange(1600) // per_polygon + 1).astype(np.int32)
    code = (3 * index + 1).astype(np.uint8)
    pixels = LabelledPixels(row, col, code, polygon, np.ones(1600, np.uint8), scene.grid)
    part = np.array([-1, *[Part.TRAIN, Part.VALIDATION] * (polygon.max() // 2)], dtype=np.int8)
    split = Split(part, np.arange(len(part), dtype=np.int32) - 1, 100.0, 0.0)
    return identity_bundle(CLASSES), [TrainingScene(scene, pixels)], split


def test_a_network_too_sure_of_itself_is_cooled_to_its_accuracy(tmp_path):
    bundle, scenes, split = case(tmp_path, wrong=0.2)
    found = calibrate(bundle, scenes, split, learned_validation=False)
    said = found.provenance[KEY]
    assert found.temperature == said["temperature"] > 2
    assert (said["pixels"], said["polygons"]) == (800, 200)
    assert said["ece_before"] > 0.15
    assert said["ece_after"] < 0.02
    # One temperature for a network that is always as sure: its confidence becomes its accuracy on validation pixels.
    pixels = split.pixels(scenes[0].pixels, Part.VALIDATION)
    logits, _ = pixel_logits(found, scenes[0].source, pixels)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = found.scheme.index_to_code[logits.argmax(axis=1)] == pixels.code
    assert shares.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.02)


def test_few_polygons_do_not_move_the_temperature(tmp_path):
    many, some, few = (
        calibrate(*case(tmp_path, wrong=0.2, per_polygon=size), learned_validation=False).temperature
        for size in (4, 40, 400)
    )
    assert few == 1.0 < some <= many * 1.2


def teachers(*, right: float, says: float, polygons: int = 300) -> OutOfFold:
    """What teachers thought of ten pixels of each polygon: always as sure, and right less often."""
    rng = np.random.default_rng(5)
    index = rng.integers(0, CLASSES, polygons * 10)
    said = np.where(rng.random(len(index)) < right, index, (index + 1) % CLASSES)
    shares = np.full((len(index), CLASSES), (1 - says) / (CLASSES - 1), dtype=np.float32)
    shares[np.arange(len(index)), said] = says
    return OutOfFold(shares, index.astype(np.uint8), np.repeat(np.arange(polygons), 10).astype(np.int32))


def test_a_refitted_model_is_calibrated_by_its_teachers(tmp_path):
    bundle, scenes, split = case(tmp_path, wrong=0.2)
    held = teachers(right=0.7, says=0.95)
    found = calibrate(bundle, scenes, split, learned_validation=True, held_out=held)
    said = found.provenance[KEY]
    assert found.temperature == said["temperature"] > 1.5
    assert (said["pixels"], said["polygons"]) == (3000, 300)
    assert "teachers" in said["method"]
    assert said["ece_before"] == pytest.approx(0.24, abs=0.02)
    assert said["ece_after"] < 0.02


def test_networks_together_are_as_sure_as_the_first_calibrated(tmp_path):
    alone, scenes, split = case(tmp_path, wrong=0.2)
    held = teachers(right=0.7, says=0.95)
    # The second network is the first with scores half as large: together they are less sure than the first.
    faint = copy.deepcopy(alone.members[0])
    with torch.no_grad():
        faint.head.weight *= 0.5
    pair = replace(alone, members=(alone.members[0], faint), shares=(0.5, 0.5))
    one = calibrate(alone, scenes, split, learned_validation=True, held_out=held)
    two = calibrate(pair, scenes, split, learned_validation=True, held_out=held)
    assert two.provenance[KEY]["pixel_network_temperature"] == one.temperature
    assert two.temperature < one.temperature
    pixels = scenes[0].pixels
    sure = [
        softmax(pixel_logits(model, scenes[0].source, pixels)[0], axis=1).max(axis=1).mean() for model in (one, two)
    ]
    assert sure[0] == pytest.approx(sure[1], abs=0.01)


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


def test_a_run_writes_reliability_with_and_without_temperature(finished):
    found = json.loads((finished.folder / "accuracy.json").read_text(encoding="utf-8"))
    said = found["calibration"]
    assert said["pixels"] == found["test_pixels"]
    assert sum(said["before"]["count"]) == sum(said["after"]["count"]) == said["pixels"]
    assert (said["ece_before"], said["ece_after"]) == (said["before"]["ece"], said["after"]["ece"])
    model = load_bundle(finished.folder / "model" / "model.safetensors")
    assert said["temperature"] == model.temperature
    assert said["fitted_on"] == model.provenance[KEY]
    # The confidence in the map is the calibrated one: its mean on the test pixels is that of the diagram.
    job = Job.load(finished.config)
    ((_, pixels),) = job.test_pixels
    sure = at_pixels(job.map_of("scene", "conf"), pixels).astype(float)
    count, mean = np.array(said["after"]["count"]), np.array(said["after"]["confidence"], dtype=float)
    assert sure.mean() / 100 == pytest.approx(np.nansum(count * mean) / count.sum(), abs=0.01)


def test_teachers_do_not_calibrate_an_encoder_alone(tmp_path):
    _, scenes, split = case(tmp_path, wrong=0.2)
    held = teachers(right=0.7, says=0.95)
    found = calibrate(small_bundle(), scenes, split, learned_validation=True, held_out=held)
    assert (found.temperature, found.provenance[KEY][:5]) == (1.0, "none:")
