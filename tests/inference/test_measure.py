from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from pipeline.grid import Window
from pipeline.inference.engine import Choice
from pipeline.inference.measure import STRIDES_TRIED, class_agreement, effective_halo_px, tile_seconds
from pipeline.inference.plan import engine_of
from tests.inference.models import noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path


class Looking:
    """An engine whose classes depend on pixels up to ``reach_px`` away in each direction, and on no others."""

    choice = Choice()

    def __init__(self, reach_px: int) -> None:
        self.reach_px = reach_px

    def __call__(self, chips: torch.Tensor) -> torch.Tensor:
        around = functional.avg_pool2d(chips[:, :1], 2 * self.reach_px + 1, 1, self.reach_px) * self.reach_px
        return torch.cat([around, -around], dim=1)


def sample(side: int) -> torch.Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("reach_px", "halo"), [(0, 8), (8, 8), (12, 16), (20, 24), (33, 48)])
def test_the_halo_is_the_least_that_classes_depend_on(reach_px: int, halo: int) -> None:
    assert effective_halo_px(Looking(reach_px), sample(256), stride_px=8, tile_px=64) == halo


def test_changes_along_the_border_weigh_less_in_larger_tiles() -> None:
    halos = [effective_halo_px(Looking(20), sample(256), stride_px=8, tile_px=tile) for tile in (64, 10**6)]
    assert halos == [24, 8]


def test_classes_that_never_settle_get_the_most_that_is_tried() -> None:
    def by_size(chips: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(1, 2, *chips.shape[-2:])
        scores[:, int(chips.shape[-1] == 160)] = 1.0
        return scores

    assert effective_halo_px(by_size, sample(160), stride_px=8, tile_px=64) == STRIDES_TRIED[-1] * 8


def test_agreement_is_the_share_of_equal_classes() -> None:
    x = sample(10)

    def turned(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[..., 0, :3] *= -1
        return x

    assert class_agreement(lambda x: x, turned, x) == pytest.approx(0.97)


def test_a_tile_is_timed_on_the_scene(tmp_path: Path) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=300, width=200), small_bundle()
    engine = engine_of(bundle, Choice(), threads=1)
    assert 1e-4 < tile_seconds(bundle, scene, engine, window=Window(0, 0, 64, 64)) < 60
