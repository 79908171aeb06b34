"""The encoder that ships, for chips of noise of four bands: what tests of encoders have in common."""

from __future__ import annotations

import torch

from pipeline.model.preprocess import Preprocess
from pipeline.training.encoder_features import FrozenFeatures, frozen_features
from pipeline.training.settings import TrainingSettings
from tests.training.worlds import changed

BANDS = ("blue", "green", "red", "nir")
PREPROCESS = Preprocess(BANDS, (0.08, 0.09, 0.1, 0.25), (0.05, 0.05, 0.06, 0.1))
SETTINGS = changed(TrainingSettings(), {"context.steps": 5, "context.batch": 2})
UNITS = ("reflectance",) * len(BANDS)


def chips(count=6, side=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, len(BANDS), side, side), generator=generator), torch.ones(count, side, side).bool()


def shipped_encoder() -> FrozenFeatures:
    found, _ = frozen_features(SETTINGS, PREPROCESS, sensor="sentinel-2", level="", units=UNITS)
    assert found is not None
    return found.calibrated(*chips())
