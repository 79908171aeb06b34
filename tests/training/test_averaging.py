"""The average of a network's weights against a loop that says it plainly."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from pipeline.training.averaging import MovingAverage, warmed_up


def test_the_average_is_that_of_the_formula_for_weights_and_statistics():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    average = MovingAverage(0.8)
    kept = AveragedModel(network, use_buffers=True, **average._kwargs)
    expected: dict[str, torch.Tensor] = {}
    for step in range(12):
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn_like(value))
        network(torch.randn(5, 2))
        kept.update_parameters(network)
        decay = 0.0 if step == 0 else warmed_up(0.8, updates=step)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected.get(name, 0) + (1 - decay) * value.clone()
    for name, value in expected.items():
        torch.testing.assert_close(kept.module.state_dict()[name], value)


def test_the_decay_starts_small_and_ends_as_asked():
    decays = [warmed_up(0.9, updates=n) for n in range(200)]
    assert decays == sorted(decays)
    assert decays[0] == pytest.approx(0.1)
    assert decays[-1] == pytest.approx(0.9)
