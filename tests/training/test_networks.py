from __future__ import annotations

import pytest

from pipeline.model.network import build_network
from pipeline.model.spec import NetworkSpec
from pipeline.training.networks import ALONE, Networks
from pipeline.training.settings import TrainingSettings

PIXELS = NetworkSpec(2, 3, encoder="none", head="chip", spectral_channels=4, chip_px=16)
CONTEXT = NetworkSpec(2, 3, head="chip", depth=2, spectral_channels=0, moments=1, chip_px=16)


@pytest.mark.parametrize(
    ("share", "asked", "alone"),
    [(ALONE, None, True), (ALONE - 0.01, None, False), (ALONE + 0.2, ALONE + 0.2, False)],
    ids=["strong", "weak", "share asked for"],
)
def test_a_strong_encoder_classifies_chips_alone(*, share: float, asked: float | None, alone: bool) -> None:
    networks = Networks(build_network(PIXELS), build_network(CONTEXT), share)
    settings = TrainingSettings.model_validate({"head": "chip", "context": {"share": asked}})
    found = networks.alone_where_strong(settings)
    assert found.members == ([networks.context] if alone else [networks.pixels, networks.context])
    assert found.shares == pytest.approx((1.0,) if alone else (1.0 - share, share))


def test_without_an_encoder_nothing_classifies_alone() -> None:
    networks = Networks(build_network(PIXELS), None, 0.0)
    assert networks.alone_where_strong(TrainingSettings()) is networks
