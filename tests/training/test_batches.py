from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from pipeline.experts.weights import pixel_weights
from pipeline.training.batches import hard_loss, soft_loss


def test_powers_of_zero_leave_pixels_equal():
    weight = pixel_weights(
        np.array([0, 0, 0, 1], np.uint8), np.array([1, 1, 2, 3], np.int32), classes=2, size_power=0, class_power=0
    )
    assert np.allclose(weight, 1)


def test_powers_of_one_make_polygons_and_classes_equal():
    index, polygon = np.array([0, 0, 0, 1], np.uint8), np.array([1, 1, 2, 3], np.int32)
    weight = pixel_weights(index, polygon, classes=2, size_power=1, class_power=1)
    assert np.isclose(weight[:2].sum(), weight[2])
    assert np.isclose(weight[:3].sum(), weight[3])
    assert np.isclose(weight.mean(), 1)


def test_unlabelled_pixels_have_no_part_in_the_loss():
    logits = torch.randn(1, 3, 2, 2)
    index = torch.tensor([[[0, 255], [255, 2]]], dtype=torch.uint8)
    expected = functional.cross_entropy(logits, index.long(), ignore_index=255)
    assert torch.isclose(hard_loss(logits, index, torch.ones(1, 2, 2)), expected)
    nothing = hard_loss(logits, torch.full_like(index, 255), torch.ones(1, 2, 2))
    assert float(nothing) == 0


def test_soft_loss_of_certain_targets_is_cross_entropy():
    logits = torch.randn(2, 3, 4, 4)
    index = torch.randint(0, 3, (2, 4, 4))
    target = functional.one_hot(index, 3).permute(0, 3, 1, 2).float()
    expected = functional.cross_entropy(logits, index)
    assert torch.isclose(soft_loss(logits, target, torch.ones(2, 4, 4, dtype=torch.bool)), expected)
