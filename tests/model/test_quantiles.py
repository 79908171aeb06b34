"""Quantile heads: order, the pinball loss against its definition, and learning a known distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_pinball_loss

from pipeline.model.quantiles import CHANNELS, LEVELS, pinball, quantile_loss, values_and_quantiles


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-50, 50, width=32), min_size=CHANNELS, max_size=CHANNELS))
def test_quantiles_do_not_cross(raw: list[float]) -> None:
    _, lower, median, upper = values_and_quantiles(torch.tensor([raw]))[0, 0]
    assert lower <= median <= upper


def test_quantities_lie_side_by_side() -> None:
    raw = torch.randn(2, 3 * CHANNELS, 5, 4)
    found = values_and_quantiles(raw)
    assert found.shape == (2, 3, 4, 5, 4)
    assert torch.equal(found[:, 1], values_and_quantiles(raw[:, CHANNELS : 2 * CHANNELS])[:, 0])


def test_pinball_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    target, quantiles = rng.normal(size=40), rng.normal(size=(40, 3))
    expected = np.mean([mean_pinball_loss(target, quantiles[:, i], alpha=level) for i, level in enumerate(LEVELS)])
    found = pinball(torch.from_numpy(quantiles), torch.from_numpy(target)).mean()
    assert abs(float(found) - expected) < 1e-12


def test_loss_ignores_places_without_weight() -> None:
    raw, draws = torch.randn(3, CHANNELS, 2, 2), torch.randn(3, 1, 5, 2, 2)
    weight = torch.zeros(3, 1, 2, 2)
    assert float(quantile_loss(raw, draws, weight, value=draws.mean(2))) == 0.0
    weight[0] = 1.0
    other = draws.clone()
    other[1:] = 99.0
    one, two = (quantile_loss(raw, part, weight, value=part.mean(2)) for part in (draws, other))
    assert torch.equal(one, two)


def test_free_outputs_learn_the_quantiles_of_the_draws() -> None:
    draws = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 0.5, 4000)).float()[None, None]
    raw = torch.zeros(1, CHANNELS, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        draw = draws[:, :, torch.randint(4000, (64,))]
        quantile_loss(raw, draw, torch.ones(1, 1), value=draw.mean(2)).backward()
        optimizer.step()
    found = values_and_quantiles(raw.detach())[0, 0]
    expected = [draws.mean(), *torch.quantile(draws[0, 0], torch.tensor(LEVELS))]
    assert np.allclose(found, expected, atol=0.12)


def test_a_value_of_its_own_is_learned_beside_skewed_draws() -> None:
    draws = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 0.5, 4000)).float()[None, None]
    raw, value = torch.zeros(1, CHANNELS, requires_grad=True), torch.tensor([[0.4]])
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        quantile_loss(raw, draws[:, :, torch.randint(4000, (64,))], torch.ones(1, 1), value=value).backward()
        optimizer.step()
    found = values_and_quantiles(raw.detach())[0, 0]
    assert float(found[0]) == pytest.approx(0.4, abs=0.02)
    assert float(found[2]) == pytest.approx(float(draws.median()), abs=0.12)
