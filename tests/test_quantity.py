"""Quantities: transforms and their inverse, value classes, and what is proposed from a distribution."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.quantity import Quantity, propose


@pytest.mark.parametrize("transform", ["none", "log", "sqrt"])
def test_inverse_undoes_forward(transform):
    values = np.random.default_rng(0).gamma(2.0, 10.0, 200)
    quantity = Quantity("x", transform=transform).fitted(values)
    standard = quantity.forward(values)
    assert standard.mean() == pytest.approx(0.0, abs=1e-9)
    assert standard.std() == pytest.approx(1.0)
    assert np.allclose(quantity.inverse(standard), values)


def test_inverse_keeps_within_the_range():
    quantity = Quantity("cover", low=0.0, high=1.0).fitted(np.linspace(0, 1, 50))
    assert quantity.inverse(np.array([-9.0, 9.0])).tolist() == [0.0, 1.0]


def test_value_classes_hold_equally_many_samples():
    values = np.random.default_rng(0).normal(size=500)
    quantity = Quantity("x").fitted(values)
    assert np.bincount(quantity.codes(values))[1:].tolist() == [100] * 5
    assert len(quantity.scheme) == 5
    assert Quantity.from_json(quantity.to_json()) == quantity


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e-3, 1.0, 1e6, 1e14])
@pytest.mark.parametrize("start", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("transform", ["none", "sqrt"])
def test_values_of_any_size_have_classes_and_come_back(size, start, transform):
    values = (start + np.random.default_rng(0).gamma(2.0, 1.0, 200)) * size
    quantity = Quantity("x", transform=transform).fitted(values)
    assert len(set(quantity.scheme.names)) == 5
    limits = [float(name.partition(" to ")[0]) for name in quantity.scheme.names if " to " in name]
    steps = np.diff(quantity.edges)
    assert (np.abs(np.array(limits) - quantity.edges[:-1]) < steps / 2).all()
    assert quantity.forward(values).std() == pytest.approx(1.0, rel=1e-3)
    assert np.allclose(quantity.inverse(quantity.forward(values)), values, rtol=1e-6, atol=0)


def test_shares_are_bounded_and_skewed_values_transformed():
    rng = np.random.default_rng(0)
    share = propose(rng.uniform(0, 0.98, 300), name="vegetation")
    assert (share.low, share.high, share.transform) == (0.0, 1.0, "none")
    assert propose(rng.gamma(3.0, 20.0, 900), name="pm10").transform == "sqrt"
    assert propose(rng.lognormal(2.0, 1.2, 900), name="biomass").transform == "log"
    assert propose(rng.normal(0, 5, 300), name="change").low is None
