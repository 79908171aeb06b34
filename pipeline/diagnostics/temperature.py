"""Confidence that means what it says: a temperature fitted on polygons held out goes into the model file.

What is divided by the temperature are the scores from which the map's probabilities come: the logits of a single
network, and the logarithm of the averaged probabilities of several. A model that has not learned from its validation
polygons is asked about them. A model that has (``training.refit``) has seen every polygon; what stands in for it are
its teachers, fitted again without one third of the blocks at a time. Their confidence is that of the network of single
pixels, which learns to say what they say; networks that are averaged with it are as often right, but seldom as sure.
So the temperature of the average is the one that makes it, over the whole scene, as sure as the network of pixels is
once its own is right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from pipeline.diagnostics.confidence import TEMPERATURES, fit_confidence, fit_temperature, reliability
from pipeline.inference.probe import pixel_logits
from pipeline.labels.rasterise import LabelledPixels
from pipeline.splits.split import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.experts.mixture import OutOfFold
    from pipeline.grid import Grid
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source
    from pipeline.splits.split import Split, TrainingScene

KEY = "calibration"
# Forests give classes without a vote the probability 0, networks never do.
_FLOOR = 0.01
# Squares of all scenes together, their side, and pixels in each, on which networks are compared.
_SQUARES, _SQUARE_PX, _PLACES = 8, 256, 400


def calibrate(
    bundle: ModelBundle,
    scenes: Sequence[TrainingScene],
    split: Split,
    *,
    learned_validation: bool,
    held_out: OutOfFold | None = None,
    seed: int = 0,
) -> ModelBundle:
    """The model with the temperature that suits polygons it has not seen, and what that changed in its provenance.

    Where it cannot be fitted the model keeps its temperature, and ``provenance["calibration"]`` is "none: why". A model
    that was calibrated while it was trained stays as it is.

    Args:
        bundle: The trained model.
        scenes: The scenes it learned from.
        split: Which polygons validate.
        learned_validation: The model has learned from the validation polygons too: what it says of them shows nothing.
        held_out: What its teachers thought of pixels that they had not seen; takes the place of validation polygons.
        seed: For the places on which networks are compared.
    """
    if bundle.temperature != 1.0 or KEY in bundle.provenance:
        return bundle
    if not learned_validation:
        logits, index, polygon = _validation(bundle, scenes, split)
        return _calibrated(bundle, logits, index, polygon, "temperature scaling on validation polygons")
    if held_out is None:
        return _noted(bundle, "none: the model learned from the validation polygons too (training.refit)")
    if bundle.members[0].spec.encoder != "none":
        return _noted(bundle, "none: the teachers' scores stand in for a network of pixels, and the model has none")
    shares = held_out.probabilities.astype(np.float64)
    logits = np.log((1 - _FLOOR) * shares / shares.sum(axis=1, keepdims=True) + _FLOOR / shares.shape[1])
    method = "temperature scaling on polygons held out in turn, by spatial block (training.refit: the teachers' scores)"
    found = _calibrated(bundle, logits, held_out.index.astype(np.intp), held_out.polygon, method, fit=fit_confidence)
    if found.temperature == 1.0 or len(bundle.members) == 1:
        return found
    temperature = _as_sure(bundle, scenes, found.temperature, seed=seed)
    note = {**found.provenance[KEY], "pixel_network_temperature": found.temperature, "temperature": temperature}
    return replace(_noted(bundle, note), temperature=temperature)


def held_out_reliability(bundle: ModelBundle, tested: Sequence[tuple[Source, LabelledPixels]]) -> dict[str, Any] | None:
    """How sure the model is of test pixels and how often right, without and with its temperature; JSON-ready.

    Args:
        bundle: The model.
        tested: Scenes with their test pixels.

    Returns:
        None where no test pixel is valid.
    """
    logits, right = [], []
    for source, pixels in tested:
        found, position = pixel_logits(bundle, source, pixels)
        logits.append(found)
        right.append(bundle.scheme.index_to_code[found.argmax(axis=1)] == pixels.code[position])
    if not sum(map(len, right)):
        return None
    scores, correct = np.concatenate(logits).astype(np.float64), np.concatenate(right)
    before, after = (
        reliability(np.minimum(softmax(scores * factor, axis=1).max(axis=1), 1.0), correct)
        for factor in (bundle.temperature, 1.0)
    )
    return {
        "temperature": bundle.temperature,
        "pixels": len(correct),
        "ece_before": before.ece,
        "ece_after": after.ece,
        "before": before.to_json(),
        "after": after.to_json(),
        "fitted_on": bundle.provenance.get(KEY, "none: the model was trained elsewhere"),
    }


def _calibrated(
    bundle: ModelBundle,
    logits: NDArray[np.floating],
    index: NDArray[np.intp],
    polygon: NDArray[np.int32],
    method: str,
    *,
    fit: Callable[..., float] = fit_temperature,
) -> ModelBundle:
    """The model with the temperature of some scores [pixel, class], or the reason why it has none."""
    if not len(index):
        return _noted(bundle, "none: no valid pixel in a polygon held out")
    if (logits.argmax(axis=1) == index).all():
        # The likelihood then only grows as the temperature falls: the pixels set no limit to it.
        return _noted(bundle, "none: every pixel held out is right, which any temperature explains")
    polygons = len(np.unique(polygon))
    temperature = fit(logits, index, polygon=polygon)
    note = {
        "method": method,
        "pixels": len(index),
        "polygons": polygons,
        "temperature": temperature,
        "ece_before": _ece(logits, index),
        "ece_after": _ece(logits / temperature, index),
    }
    return replace(_noted(bundle, note), temperature=temperature)


def _noted(bundle: ModelBundle, what: str | dict[str, Any]) -> ModelBundle:
    return replace(bundle, provenance={**bundle.provenance, KEY: what})


def _validation(
    bundle: ModelBundle, scenes: Sequence[TrainingScene], split: Split
) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.int32]]:
    """Scores float32 [pixel, class], class index [pixel] and polygon [pixel] of all scenes' validation pixels."""
    logits, index, polygon = [], [], []
    for scene in scenes:
        pixels = split.pixels(scene.pixels, Part.VALIDATION)
        found, position = pixel_logits(bundle, scene.source, pixels)
        logits.append(found)
        index.append(bundle.scheme.code_to_index[pixels.code[position]].astype(np.intp))
        polygon.append(pixels.polygon[position])
    return np.concatenate(logits), np.concatenate(index), np.concatenate(polygon)


def _as_sure(bundle: ModelBundle, scenes: Sequence[TrainingScene], temperature: float, *, seed: int) -> float:
    """The temperature at which all members are together as sure as the first alone is at ``temperature``."""
    alone = replace(bundle, members=bundle.members[:1], shares=(1.0,))
    rng = np.random.default_rng(seed)
    first, whole = [], []
    chosen = rng.permutation(len(scenes))[:_SQUARES]
    for number in chosen.tolist():
        scene = scenes[number]
        places = _somewhere(scene.source.grid, squares=max(_SQUARES // len(chosen), 1), rng=rng)
        first.append(pixel_logits(alone, scene.source, places)[0])
        whole.append(pixel_logits(bundle, scene.source, places)[0])
    target = _confidence(np.concatenate(first), temperature)
    logits = np.concatenate(whole)
    low, high = np.log(TEMPERATURES)

    def gap(log_t: float) -> float:
        return _confidence(logits, float(np.exp(log_t))) - target

    if gap(low) * gap(high) >= 0:  # no temperature does it: a scene without a single doubt, say
        return temperature
    return float(np.exp(brentq(gap, low, high, xtol=1e-4)))


def _confidence(logits: NDArray[np.floating], temperature: float) -> float:
    return float(softmax(logits.astype(np.float64) / temperature, axis=1).max(axis=1).mean())


def _somewhere(grid: Grid, *, squares: int, rng: np.random.Generator) -> LabelledPixels:
    """Pixels in some squares of a grid, labelled or not; networks are run on whole squares, so not everywhere."""
    tiles = list(grid.tiles(_SQUARE_PX))
    chosen = [tiles[int(number)] for number in np.sort(rng.permutation(len(tiles))[:squares])]
    row = np.concatenate([rng.integers(tile.row, tile.row_stop, _PLACES) for tile in chosen])
    col = np.concatenate([rng.integers(tile.col, tile.col_stop, _PLACES) for tile in chosen])
    order = np.lexsort((col, row))
    nothing = np.zeros(len(row), dtype=np.uint8)
    return LabelledPixels(
        row[order].astype(np.int32), col[order].astype(np.int32), nothing, nothing.astype(np.int32), nothing, grid
    )


def _ece(logits: NDArray[np.floating], index: NDArray[np.intp]) -> float:
    shares = softmax(logits.astype(np.float64), axis=1)
    return reliability(np.minimum(shares.max(axis=1), 1.0), shares.argmax(axis=1) == index).ece
