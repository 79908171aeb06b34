"""Confidence that means what it says: a temperature fitted on validation polygons goes into the model file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from pipeline.accuracy.calibration import fit_temperature, reliability
from pipeline.chips.splits import Part
from pipeline.inference.probe import pixel_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.chips.splits import Split
    from pipeline.model.bundle import ModelBundle
    from pipeline.training.dataset import TrainingScene

KEY = "calibration"


def calibrate(
    bundle: ModelBundle, scenes: Sequence[TrainingScene], split: Split, *, learned_validation: bool
) -> ModelBundle:
    """The model with the temperature that suits its validation polygons, and what that changed in its provenance.

    Where it cannot be fitted the model keeps its temperature, and ``provenance["calibration"]`` is "none: why". A model
    that was calibrated while it was trained stays as it is.

    Args:
        bundle: The trained model.
        scenes: The scenes it learned from.
        split: Which polygons validate.
        learned_validation: The model has learned from the validation polygons too: what it says of them shows nothing.
    """
    if bundle.temperature != 1.0 or KEY in bundle.provenance:
        return bundle
    if learned_validation:
        return _noted(bundle, "none: the model learned from the validation polygons too (training.refit)")
    logits, index = _validation(bundle, scenes, split)
    if not len(index):
        return _noted(bundle, "none: no valid pixel in a validation polygon")
    if (logits.argmax(axis=1) == index).all():
        # The likelihood then only grows as the temperature falls: the pixels set no limit to it.
        return _noted(bundle, "none: every validation pixel is right, which any temperature explains")
    scaling = fit_temperature(logits, index)
    temperature = float(scaling.temperature or 1.0)
    return replace(
        _noted(
            bundle,
            {
                "method": "temperature scaling on validation polygons",
                "pixels": len(index),
                "temperature": temperature,
                "ece_before": _ece(logits, index),
                "ece_after": _ece(logits / temperature, index),
            },
        ),
        temperature=temperature,
    )


def _noted(bundle: ModelBundle, what: str | dict[str, Any]) -> ModelBundle:
    return replace(bundle, provenance={**bundle.provenance, KEY: what})


def _validation(
    bundle: ModelBundle, scenes: Sequence[TrainingScene], split: Split
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Scores float32 [pixel, class] and class index [pixel] of the validation pixels of all scenes."""
    logits, index = [], []
    for scene in scenes:
        pixels = split.pixels(scene.pixels, Part.VALIDATION)
        found, position = pixel_logits(bundle, scene.source, pixels)
        logits.append(found)
        index.append(bundle.scheme.code_to_index[pixels.code[position]].astype(np.intp))
    return np.concatenate(logits), np.concatenate(index)


def _ece(logits: NDArray[np.floating], index: NDArray[np.intp]) -> float:
    shares = softmax(logits.astype(np.float64), axis=1)
    return reliability(np.minimum(shares.max(axis=1), 1.0), shares.argmax(axis=1) == index).ece
