"""The mixture: fixed and learned shares, lifted classes, folds of groups, the deadline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.experts import experts
from pipeline.experts.experts import (
    DISCRIMINANTS,
    ENOUGH_POLYGONS,
    EXPERTS,
    Expert,
    PixelTable,
    experts_for,
    fit_expert,
    kernel_discriminant,
    kernel_features,
    probabilities_of,
    seen,
    soften_discriminant,
)
from pipeline.experts.mixture import RARER, fit_mixture
from pipeline.experts.settings import Deadline
from pipeline.experts.shares import (
    best_shares,
    best_temperature,
    given_shares,
    inner_folds,
    out_of_fold_probabilities,
    softened,
)
from pipeline.experts.weights import MOST_LIFT, best_lift, class_lift, lifted, turns


def counted_world(counts=(8, 2), pixels=6, *, overlap=1.0, seed=0):
    """A table of classes with so many polygons each, whose values overlap."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(len(counts)), counts)
    polygon = np.repeat(np.arange(len(code), dtype=np.int32), pixels)
    index = code[polygon].astype(np.uint8)
    features = (index[:, None] + rng.normal(0, overlap, (len(index), 10))).astype(np.float32)
    return PixelTable(features, index, polygon, 2)


def test_half_of_a_mixture_of_few_polygons_cuts_turned_axes():
    few = experts_for(EXPERTS, polygons=ENOUGH_POLYGONS - 1)
    shares = given_shares(few)
    assert abs(shares.sum() - 1) < 1e-12
    assert abs(shares[[expert.kind == "rotated" for expert in few]].sum() - 0.5) < 1e-12


def test_experts_of_many_polygons_are_not_those_of_few():
    many = {expert.kind for expert in experts_for(EXPERTS, polygons=ENOUGH_POLYGONS)}
    few = {expert.kind for expert in experts_for(EXPERTS, polygons=ENOUGH_POLYGONS - 1)}
    assert many - few == {"kernel"}
    assert few - many == {"rotated"}


def test_lift_goes_by_polygons_and_not_by_pixels():
    table = counted_world((8, 2))
    more = np.concatenate([np.arange(len(table.index)), np.flatnonzero(table.index == 0)])
    for rows in (np.arange(len(table.index)), more):
        lift = class_lift(table.index[rows], table.polygon[rows], classes=3, power=0.5)
        assert lift[1] / lift[0] == pytest.approx(2.0)
        assert lift[2] == 1.0
    assert (class_lift(table.index, table.polygon, classes=3, power=0.0) == 1).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), power=st.floats(0, 1))
def test_lifting_keeps_sums_and_the_order_of_classes_alike(seed, power):
    rng = np.random.default_rng(seed)
    votes = rng.dirichlet(np.ones(4), 20).astype(np.float32)
    votes[3] = 0
    out = lifted(votes, np.array([3.0, 3.0, 7.0, 9.0]) ** -power)
    assert np.allclose(out.sum(axis=1), votes.sum(axis=1), atol=1e-5)
    assert ((out[:, 0] > out[:, 1]) == (votes[:, 0] > votes[:, 1])).mean() > 0.95
    assert np.allclose(lifted(votes, np.ones(4)), votes, atol=1e-6)


def test_a_teacher_that_lifts_finds_more_of_the_rare_class():
    table = counted_world((12, 3), overlap=3.0)
    free = np.full(15, -1, dtype=np.int32)
    plain, lifting = (
        fit_mixture(table, classes=2, group_of=free, trees=5, seed=0, rarer=rarer) for rarer in (0.0, 1.0)
    )
    unseen = counted_world((12, 3), overlap=3.0, seed=1).features
    before, after = (mixture.predict(unseen) for mixture in (plain, lifting))
    assert (after[:, 1] >= before[:, 1] - 1e-6).all()
    assert (after.argmax(axis=1) == 1).sum() > (before.argmax(axis=1) == 1).sum()
    # The odds change by the ratio of polygons, whatever the experts say.
    inner = (before > 0.05).all(axis=1)
    odds = (after[inner, 1] / after[inner, 0]) / (before[inner, 1] / before[inner, 0])
    assert np.allclose(odds, 12 / 3, rtol=1e-3)
    assert 0 < RARER < 1


def test_with_many_polygons_nothing_is_lifted():
    table = counted_world((80, 30), 1)
    free = np.full(110, -1, dtype=np.int32)
    mixture = fit_mixture(table, classes=2, group_of=free, trees=2, seed=0, rarer=1.0)
    assert (mixture.lift == 1).all()


def test_inner_folds_keep_groups_whole_and_classes_apart():
    table = counted_world((9, 9))
    group_of = np.tile(np.arange(6, dtype=np.int32), 3)
    fold = inner_folds(table, group_of=group_of, folds=3, seed=0)
    for group in range(6):
        assert len(np.unique(fold[group_of[table.polygon] == group])) == 1
    for held in range(3):
        assert set(np.unique(table.index[fold == held])) == {0, 1}


def test_polygons_of_a_class_in_one_block_are_dealt_one_by_one():
    table = counted_world((9, 9, 4, 1))
    # The third class lies in the first block as a whole, the fourth is a polygon.
    group_of = np.concatenate([np.arange(9) % 6, np.arange(9) % 6, np.zeros(4), [5]]).astype(np.int32)
    fold = inner_folds(table, group_of=group_of, folds=3, seed=0)
    of_polygon = fold[np.unique(table.polygon, return_index=True)[1]]
    assert len(np.unique(of_polygon[18:22])) > 1
    others = np.r_[0:18, 22]
    for group in range(6):
        assert len(np.unique(of_polygon[others][group_of[others] == group])) == 1


def test_nobody_is_asked_about_a_class_of_no_other_fold():
    table = counted_world((9, 9, 1), overlap=0.1)
    free = np.full(19, -1, dtype=np.int32)
    experts = experts_for(EXPERTS, polygons=19)
    votes = out_of_fold_probabilities(
        experts, table, classes=3, group_of=free, trees=5, seed=0, deadline=Deadline(), fitted=lambda: None
    )
    asked = votes.any(axis=(0, 2))
    assert (asked == (table.index < 2)).all()
    mixture = fit_mixture(table, classes=3, group_of=free, trees=5, seed=0, rarer=0.0)
    assert np.array_equal(mixture.out_of_fold.index, table.index[asked])


@pytest.mark.parametrize("experts", [2, 4, 7])
def test_learned_shares_are_the_best_there_are(experts):
    rng = np.random.default_rng(experts)
    right = rng.uniform(0.3, 0.95, experts)[:, None]
    mine = np.clip(right + rng.normal(0, 0.25, (experts, 400)), 0.0, 1.0)
    weight = rng.uniform(0.5, 2.0, 400)
    found = best_shares(mine, weight, strength=0.02)

    def cost(share):
        likelihood = 0.01 + 0.99 * mine
        return -(weight / weight.sum() @ np.log(share @ likelihood)) - 0.02 * np.log(share).mean()

    assert found.sum() == pytest.approx(1.0)
    tried = rng.dirichlet(np.full(experts, 200.0) * found + 1e-3, 3000)
    assert cost(found) <= min(cost(np.maximum(share, 1e-9)) for share in tried) + 1e-6
    order = rng.permutation(experts)
    assert np.allclose(best_shares(mine[order], weight, strength=0.02), found[order], atol=2e-3)


def test_turns_count_repetitions():
    assert turns(np.array([7, 7, 3, 7])).tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("counts", [(12, 12), (80, 40)])
def test_after_the_deadline_one_expert_is_fitted(counts):
    table = counted_world(counts, 2)
    free = np.full(sum(counts), -1, dtype=np.int32)
    past = Deadline.after(-1.0)
    mixture = fit_mixture(table, classes=2, group_of=free, trees=2, seed=0, deadline=past)
    assert len(mixture.models) == 1
    assert mixture.shares.tolist() == [1.0]
    assert len(mixture.out_of_fold.index) == 0
    assert set(past.cut) == {"experts", "experts of held-out folds"}
    assert np.allclose(mixture.predict(table.features).sum(axis=1), 1, atol=1e-5)


def test_a_share_of_a_deadline_ends_before_it():
    whole = Deadline.after(100.0)
    part = whole.share(0.5)
    assert 49 < part.left_s < 51
    assert Deadline().share(0.5).left_s == float("inf")
    assert part.cut is whole.cut


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_of_sharpened_truth_is_found(sharpness):
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1.0, 1.0, 1.0], 6000).astype(np.float32)
    index = (truth.cumsum(axis=1) < rng.random((len(truth), 1))).sum(axis=1).astype(np.uint8)
    rows = PixelTable(truth, index, np.arange(len(truth), dtype=np.int32), 3)
    found = best_temperature(rows, softened(truth, 1 / sharpness))
    assert abs(found - sharpness) < 0.1 * sharpness + 0.05


def test_the_kernel_tells_rings_that_no_line_parts():
    rng = np.random.default_rng(0)
    index = np.repeat([0, 1], 600).astype(np.uint8)
    angle = rng.uniform(0, 2 * np.pi, len(index))
    features = ((1 + index)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)
    features += rng.normal(0, 0.1, features.shape).astype(np.float32)
    table = PixelTable(features, index, np.arange(len(index), dtype=np.int32) // 10, 2)
    right = {
        kind: probabilities_of(fit_expert(Expert(kind, kind, 1), table, trees=1, seed=0), features, classes=2).argmax(1)
        for kind in ("kernel", "discriminant")
    }
    assert (right["kernel"] == index).mean() > 0.99
    assert (right["discriminant"] == index).mean() < 0.6


@pytest.mark.parametrize("counts", [(30,), (30, 1), (300, 2, 1)])
def test_the_kernel_takes_any_number_of_pixels(counts):
    table = counted_world(counts, pixels=1)
    model = fit_expert(Expert("kernel", "kernel", 5), table, trees=3, seed=0)
    assert np.allclose(probabilities_of(model, table.features, classes=3).sum(axis=1), 1, atol=1e-5)


def test_the_kernel_is_computed_in_double_precision():
    """Means of one band are so alike that in single precision a part of the pixels changes class by rounding."""
    rng = np.random.default_rng(3)
    band = rng.normal(0, 1, 3000)
    features = (band[:, None] + rng.normal(0, 0.003, (3000, 5))).astype(np.float32)
    index = (band + rng.normal(0, 1, 3000) > 0).astype(np.uint8)
    table = PixelTable(features, index, np.arange(3000, dtype=np.int32) // 10, 1)
    kernel = Expert("kernel", "kernel", 5)
    found = probabilities_of(fit_expert(kernel, table, trees=1, seed=0), seen(features, kernel, 1), classes=2)
    exact = make_pipeline(StandardScaler(), kernel_features(features, seed=0), kernel_discriminant())
    assert np.abs(found - exact.fit(features.astype(float), index).predict_proba(features.astype(float))).max() < 1e-4


def test_a_kernel_of_many_pixels_sees_some_of_every_polygon(monkeypatch):
    monkeypatch.setattr(experts, "KERNEL_PIXELS", 60)
    table = counted_world((20, 20, 1), pixels=30, overlap=0.1)
    model = fit_expert(Expert("kernel", "kernel", 5), table, trees=1, seed=0)
    assert len(model[1].components_) <= 60
    assert (probabilities_of(model, table.features, classes=3).argmax(1) == table.index).mean() > 0.95


@pytest.mark.parametrize("useful", [True, False])
def test_embeddings_and_an_encoder_are_told_apart(useful):
    """Of one level the plain experts see the level alone, whatever stands after it."""
    rng = np.random.default_rng(0)
    polygon = np.repeat(np.arange(150, dtype=np.int32), 4)
    index = (polygon % 2).astype(np.uint8)
    features = rng.normal(0, 1, (600, 12)).astype(np.float32)
    features[:, 8:] += 3.0 * useful * index[:, None]
    mixture = fit_mixture(
        PixelTable(features, index, polygon, 8, 4), classes=2, group_of=np.full(150, -1), trees=2, seed=0
    )
    plain, encoder = mixture.parts()
    assert encoder is not None or not useful
    assert np.array_equal(plain.predict(features[:, :8]), plain.predict(features))


def test_an_encoder_that_nothing_judged_has_no_share():
    """Time ran out before a fold was held out."""
    table = counted_world((80, 80), pixels=4)
    times = iter([False] * 20)
    deadline = Deadline()
    object.__setattr__(deadline, "cuts", lambda what: what == "experts of held-out folds" or next(times))
    table = PixelTable(table.features, table.index, table.polygon, 1, 5)
    mixture = fit_mixture(table, classes=2, group_of=np.full(160, -1), trees=2, seed=0, deadline=deadline)
    assert any(expert.encoder for expert in mixture.experts)
    assert mixture.admission is None
    assert mixture.parts() == (mixture, None)


@pytest.mark.parametrize("kind", sorted(DISCRIMINANTS))
def test_a_discriminant_of_a_pixel_a_class_tells_nothing(kind):
    table = PixelTable(np.eye(3, 10, dtype=np.float32), np.arange(3, dtype=np.uint8), np.arange(3, dtype=np.int32), 2)
    model = fit_expert(Expert(kind, kind, 5), table, trees=1, seed=0)
    assert np.allclose(probabilities_of(model, table.features, classes=3).sum(axis=1), 1)


@pytest.mark.parametrize("kind", sorted(DISCRIMINANTS))
def test_a_softened_discriminant_gives_softened_probabilities(kind):
    table = counted_world((6, 6, 6), overlap=0.7)
    model = fit_expert(Expert(kind, kind, 5), table, trees=1, seed=0)
    before = probabilities_of(model, table.features, classes=3)
    soften_discriminant(model, 3.0)
    after = probabilities_of(model, table.features, classes=3)
    assert np.allclose(after, softened(before, 3.0), atol=1e-5)
    assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))


def test_a_rare_class_is_lifted_to_half_of_the_best_f1():
    """The threshold of the largest F1 of calibrated probabilities is half of that F1 (Lipton et al. 2014)."""
    rng = np.random.default_rng(1)
    rare = rng.beta(0.3, 4.0, 200_000).astype(np.float32)
    index = (rng.random(len(rare)) > rare).astype(np.uint8)  # class 0 is the rare one
    both, weight = np.stack([rare, 1 - rare], axis=1), np.ones(len(rare))
    lift = best_lift(both, index, weight, found=0)
    taken = lifted(both, np.array([lift, 1.0])).argmax(axis=1) == 0
    f1 = 2 * (taken & (index == 0)).sum() / (taken.sum() + (index == 0).sum())
    assert lift > 1.5
    assert abs(1 / (1 + lift) - f1 / 2) < 0.02
    assert f1 > 2 * ((rare > 0.5) & (index == 0)).sum() / ((rare > 0.5).sum() + (index == 0).sum())


def test_a_class_without_held_out_pixels_is_not_lifted():
    p = np.array([[0.1, 0.9], [0.3, 0.7]], np.float32)
    assert best_lift(p, np.array([1, 1], np.uint8), np.ones(2), found=0) == 1.0


@given(st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_no_lift_within_bounds_finds_a_class_better(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.5, 2.0, 2.0], 40).astype(np.float32)
    index, weight = rng.integers(0, 3, 40).astype(np.uint8), rng.integers(1, 5, 40).astype(np.float64)

    def f1(lift):
        taken = lifted(p, np.array([lift, 1.0, 1.0])).argmax(axis=1) == 0
        return 2 * weight[taken & (index == 0)].sum() / (weight[taken].sum() + weight[index == 0].sum())

    found = best_lift(p, index, weight, found=0)
    assert 1 <= found <= MOST_LIFT
    assert f1(found) >= max(f1(lift) for lift in np.geomspace(1, MOST_LIFT, 60)) - 1e-9
