from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.accuracy.assess_estimators import NOT_PROBABILITY, estimate_accuracy
from pipeline.accuracy.assess_frame import Clusters, Frame, variance_of_total
from pipeline.errors import ReferenceDataError
from tests.accuracy.published import (
    OLOFSSON_CLASSES,
    OLOFSSON_COUNTS,
    OLOFSSON_PIXELS,
    PIXEL_HA,
    STEHMAN_CLASSES,
    by_map_class,
    stehman,
    units,
)


@pytest.fixture(scope="module")
def olofsson():
    mapped, truth = units(OLOFSSON_COUNTS)
    # The paper leaves out the finite population correction (its eqs. 5-7, 10).
    frame = by_map_class(mapped, OLOFSSON_PIXELS, OLOFSSON_CLASSES, counts=False)
    return estimate_accuracy(mapped, truth, names=OLOFSSON_CLASSES, frame=frame)


class TestOlofsson2014:
    """Section 5.2, p. 54-55: counts of table 8, proportions of table 9; half-widths with 1.96 as in the paper."""

    def test_error_matrix_of_area_proportions_is_table_9(self, olofsson):
        printed = [
            [0.0176, 0, 0.0013, 0.0011],
            [0, 0.0110, 0.0016, 0.0024],
            [0.0019, 0, 0.2967, 0.0213],
            [0.0040, 0.0020, 0.0179, 0.6212],
        ]
        assert np.abs(olofsson.error_matrix.proportions - printed).max() < 5.1e-5

    def test_overall_accuracy(self, olofsson):
        figure = olofsson.overall_accuracy
        assert (round(figure.estimate, 2), round(1.96 * figure.se, 2)) == (0.95, 0.02)

    @pytest.mark.parametrize(
        ("name", "users", "half"),
        list(zip(OLOFSSON_CLASSES, (0.88, 0.73, 0.93, 0.96), (0.07, 0.10, 0.04, 0.02), strict=True)),
    )
    def test_users_accuracy(self, olofsson, name, users, half):
        figure = olofsson.per_class[name].users_accuracy
        assert (round(figure.estimate, 2), round(1.96 * figure.se, 2)) == (users, half)

    @pytest.mark.parametrize(
        # The paper prints +-0.23 for forest gain and +-0.01 for stable non-forest, which its own eq. 7 does not give
        # from its table 8 (0.254 and 0.018): tested here is eq. 7.
        ("name", "producers", "half"),
        list(zip(OLOFSSON_CLASSES, (0.75, 0.85, 0.93, 0.96), (0.21, 0.25, 0.03, 0.02), strict=True)),
    )
    def test_producers_accuracy(self, olofsson, name, producers, half):
        figure = olofsson.per_class[name].producers_accuracy
        assert (round(figure.estimate, 2), round(1.96 * figure.se, 2)) == (producers, half)

    @pytest.mark.parametrize(
        ("name", "hectares", "half"),
        list(zip(OLOFSSON_CLASSES, (21_158, 11_686, 285_770, 581_386), (6_158, 3_756, 15_510, 16_282), strict=True)),
    )
    def test_areas_to_the_hectare(self, olofsson, name, hectares, half):
        figure = olofsson.per_class[name].area_share.scaled(OLOFSSON_PIXELS.sum() * PIXEL_HA)
        assert (round(figure.estimate), round(1.96 * figure.se)) == (hectares, half)

    def test_standard_error_of_deforestation_in_pixels(self, olofsson):
        # Printed as 34,097, whose 1.96-fold is 66,830 and not the 68,418 printed beside it: two digits are swapped.
        se = olofsson.per_class["deforestation"].area_share.scaled(OLOFSSON_PIXELS.sum()).se
        assert (round(se), round(1.96 * se)) == (34_907, 68_418)

    def test_leaving_the_strata_out_gives_another_and_wrong_area(self):
        mapped, truth = units(OLOFSSON_COUNTS)
        frame = Frame("simple random", np.zeros_like(mapped), np.array([1e7]), ("all",))
        flat = estimate_accuracy(mapped, truth, names=OLOFSSON_CLASSES, frame=frame)
        assert flat.per_class["deforestation"].area_share.estimate * 1e7 * PIXEL_HA > 90_000


@pytest.fixture(scope="module")
def figures():
    mapped, truth, frame = stehman()
    return estimate_accuracy(mapped, truth, names=STEHMAN_CLASSES, frame=frame)


class TestStehman2014:
    """The numerical example, p. 4932-4936: sample of table 2, means and variances of y and x in table 3."""

    def test_areas_of_a_and_c(self, figures):
        a, c = figures.per_class["A"].area_share, figures.per_class["C"].area_share
        assert (round(a.estimate, 2), round(a.se, 3)) == (0.35, 0.082)
        assert (round(c.estimate, 2), round(c.se, 3)) == (0.20, 0.064)

    def test_overall_accuracy(self, figures):
        assert (round(figures.overall_accuracy.estimate, 2), round(figures.overall_accuracy.se, 3)) == (0.63, 0.085)

    def test_users_accuracy_of_b(self, figures):
        figure = figures.per_class["B"].users_accuracy
        assert (round(figure.estimate, 3), round(figure.se, 3)) == (0.574, 0.125)

    def test_producers_accuracy_of_b(self, figures):
        # Printed standard error: 0.114, got with s2_x = 0 in stratum 4, while the paper's own table 3 has 0.1 there.
        figure = figures.per_class["B"].producers_accuracy
        assert round(figure.estimate, 3) == 0.794
        assert figure.se == pytest.approx(0.11655, abs=3e-5)

    def test_error_of_producers_b_follows_from_the_printed_slip(self):
        mapped, truth, frame = stehman()
        x = (truth == 1).astype(float)
        residual = ((mapped == 1) & (truth == 1)) - 27 / 34 * x
        residual[30:] = 0.0  # what s2_x = 0 in stratum 4 amounts to: y is 0 there already
        assert round(math.sqrt(variance_of_total(residual[:, None], frame)[0]) / 34_000, 3) == 0.114

    def test_cell_of_the_error_matrix(self, figures):
        assert round(figures.error_matrix.proportions[1, 2], 2) == 0.08

    def test_f1_is_that_of_an_independent_package(self):
        # R package mapac (Pflugmacher), aa_stratified on this example; standard errors are compared with R's survey.
        mapped, truth, frame = stehman()
        free = Frame("stratified", frame.stratum, frame.sizes, frame.names, sizes_are_counts=False)
        figures = estimate_accuracy(mapped, truth, names=STEHMAN_CLASSES, frame=free)
        f1 = [figures.per_class[name].f1 for name in STEHMAN_CLASSES]
        assert [item.estimate for item in f1] == pytest.approx([0.6969697, 0.6666667, 0.375, 0.6666667], abs=1e-7)


def _draw(seed: int, n: int = 200, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    return np.where(rng.random(n) < 0.8, truth, rng.integers(0, classes, n)), truth


NAMES = ("a", "b", "c")


def test_map_classes_as_strata_give_olofssons_formulas():
    mapped, truth = _draw(1)
    sizes = np.array([5e5, 3e5, 1e5])
    figures = estimate_accuracy(mapped, truth, names=NAMES, frame=by_map_class(mapped, sizes, NAMES, counts=False))
    n = np.bincount(mapped, minlength=3)
    share = sizes / sizes.sum()
    counts = figures.error_matrix.counts
    users = np.diag(counts) / n
    variance_of_users = users * (1 - users) / (n - 1)  # eq. 6
    assert figures.overall_accuracy.se == pytest.approx(math.sqrt((share**2 * variance_of_users).sum()))  # eq. 5
    for k, name in enumerate(NAMES):
        inside = counts[:, k] / n
        spread = inside * (1 - inside) / (n - 1)
        total = (sizes * inside).sum()
        producers = sizes[k] * inside[k] / total
        others = np.arange(3) != k
        eq7 = sizes[k] ** 2 * (1 - producers) ** 2 * variance_of_users[k]
        eq7 += producers**2 * (sizes[others] ** 2 * spread[others]).sum()
        assert figures.per_class[name].users_accuracy.se == pytest.approx(math.sqrt(variance_of_users[k]))
        assert figures.per_class[name].producers_accuracy.se == pytest.approx(math.sqrt(eq7) / total)
        assert figures.per_class[name].area_share.se == pytest.approx(math.sqrt((share**2 * spread).sum()))  # eq. 10


def test_a_simple_random_sample_gives_the_binomial_error():
    mapped, truth = _draw(2)
    frame = Frame("simple random", np.zeros_like(mapped), np.array([1e9]), ("all",))
    figure = estimate_accuracy(mapped, truth, names=NAMES, frame=frame).overall_accuracy
    p = (mapped == truth).mean()
    assert figure.se == pytest.approx(math.sqrt(p * (1 - p) / 199), rel=1e-6)


def test_clusters_of_one_unit_are_a_simple_random_sample():
    mapped, truth = _draw(3)
    one = Clusters(np.arange(200), np.ones(200), 10_000)
    clustered = Frame("one-stage cluster", np.zeros_like(mapped), np.array([1e4]), ("all",), clusters=one)
    plain = Frame("simple random", np.zeros_like(mapped), np.array([1e4]), ("all",))
    a = estimate_accuracy(mapped, truth, names=NAMES, frame=clustered)
    b = estimate_accuracy(mapped, truth, names=NAMES, frame=plain)
    assert a.overall_accuracy.se == pytest.approx(b.overall_accuracy.se)
    assert a.per_class["b"].producers_accuracy.se == pytest.approx(b.per_class["b"].producers_accuracy.se)


def test_strata_of_clusters_of_one_unit_are_a_stratified_sample():
    mapped, truth = _draw(3)
    stratum = np.repeat([0, 1], [120, 80])
    one = Clusters(np.arange(200), np.ones(200), (7000, 3000), stratum)
    sizes = np.array([7000.0, 3000.0])
    clustered = Frame("one-stage cluster", stratum, sizes, ("s", "t"), clusters=one)
    plain = Frame("stratified", stratum, sizes, ("s", "t"))
    a = estimate_accuracy(mapped, truth, names=NAMES, frame=clustered)
    b = estimate_accuracy(mapped, truth, names=NAMES, frame=plain)
    for name in NAMES:
        ours, theirs = a.per_class[name].producers_accuracy, b.per_class[name].producers_accuracy
        assert (ours.estimate, ours.se) == pytest.approx((theirs.estimate, theirs.se))
    half = a.overall_accuracy.ci95[1] - a.overall_accuracy.estimate
    assert half == pytest.approx(1.9720 * a.overall_accuracy.se, rel=1e-4)  # Student's t, 198 degrees of freedom


def test_a_stratum_with_one_of_its_squares_has_no_variance():
    mapped, truth = _draw(6, n=30)
    index, sizes = np.repeat(np.arange(10), 3), np.full(10, 3.0)
    stratum = np.array([0] * 9 + [1])
    for every, known in ((5, False), (1, True)):
        frame = Frame(
            "one-stage cluster", stratum[index], np.array([90.0, 3.0 * every]), ("s", "t"),
            clusters=Clusters(index, sizes, (30, every), stratum),
        )  # fmt: skip
        figure = estimate_accuracy(mapped, truth, names=NAMES, frame=frame).overall_accuracy
        assert (figure.se is not None) == known


def test_copies_of_one_pixel_add_nothing_to_a_cluster_sample():
    mapped, truth = _draw(4, n=60)
    nine = Clusters(np.repeat(np.arange(60), 9), np.full(60, 9.0), 10**7)
    clustered = Frame("one-stage cluster", np.zeros(540, dtype=int), np.array([9e7]), ("all",), clusters=nine)
    naive = Frame("simple random", np.zeros(60, dtype=int), np.array([1e7]), ("all",))
    a = estimate_accuracy(np.repeat(mapped, 9), np.repeat(truth, 9), names=NAMES, frame=clustered)
    b = estimate_accuracy(mapped, truth, names=NAMES, frame=naive)
    assert a.overall_accuracy.se == pytest.approx(b.overall_accuracy.se)
    assert a.overall_accuracy.ci95[1] - a.overall_accuracy.ci95[0] > 1.99 * 2 * b.overall_accuracy.se


def test_grids_of_a_systematic_sample_are_clusters():
    mapped, truth = _draw(5)
    grids = Clusters(np.repeat(np.arange(10), 20), np.full(10, 20.0), 900)
    size = np.array([18_000.0])
    many = Frame("systematic", np.zeros_like(mapped), size, ("all",), clusters=grids)
    squares = Frame("one-stage cluster", np.zeros_like(mapped), size, ("all",), clusters=grids)
    a = estimate_accuracy(mapped, truth, names=NAMES, frame=many)
    b = estimate_accuracy(mapped, truth, names=NAMES, frame=squares)
    assert a.overall_accuracy == b.overall_accuracy
    half = a.overall_accuracy.ci95[1] - a.overall_accuracy.estimate
    assert half == pytest.approx(2.2622 * a.overall_accuracy.se, rel=1e-4)  # Student's t, 9 degrees of freedom
    one = Frame("systematic", np.zeros_like(mapped), size, ("all",))
    plain = Frame("simple random", np.zeros_like(mapped), size, ("all",))
    c = estimate_accuracy(mapped, truth, names=NAMES, frame=one).overall_accuracy
    assert c == estimate_accuracy(mapped, truth, names=NAMES, frame=plain).overall_accuracy


def test_unequal_pixel_areas_weigh_in():
    mapped, truth = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    frame = Frame("simple random", np.zeros(4, dtype=int), np.array([1e6]), ("all",))
    figures = estimate_accuracy(mapped, truth, names=("a", "b"), frame=frame, unit_area=np.array([1.0, 3.0, 1.0, 1.0]))
    assert figures.overall_accuracy.estimate == pytest.approx(0.5)
    assert figures.per_class["b"].area_share.estimate == pytest.approx(5 / 6)


def test_a_sample_without_errors_has_an_exact_interval():
    mapped = np.repeat([0, 1], [30, 40])
    frame = by_map_class(mapped, np.array([1e6, 1e6]), ("a", "b"))
    figures = estimate_accuracy(mapped, mapped, names=("a", "b"), frame=frame)
    users = figures.per_class["a"].users_accuracy
    assert users.se is None
    assert "no variance" in users.note
    assert users.ci95[0] == pytest.approx(binomtest(30, 30).proportion_ci(0.95, method="exact").low)
    assert users.ci95[1] == 1.0
    # Omissions of a could lie in the other stratum, where the sample has met none.
    producers = figures.per_class["a"].producers_accuracy
    assert (producers.estimate, producers.se, producers.ci95) == (1.0, None, None)
    # The units of overall accuracy come from two strata with different probabilities: no exact interval is at hand.
    assert figures.overall_accuracy.ci95 is None
    assert figures.overall_accuracy.se is None


def test_a_single_unit_in_a_stratum_has_no_variance_and_says_so():
    mapped, truth = np.array([0] * 20 + [1]), np.array([0] * 15 + [1] * 5 + [1])
    figures = estimate_accuracy(
        mapped, truth, names=("a", "b"), frame=by_map_class(mapped, np.array([900, 100.0]), ("a", "b"))
    )
    assert figures.overall_accuracy.estimate is not None
    assert figures.overall_accuracy.se is None
    assert "single unit" in figures.overall_accuracy.note
    assert "single reference unit in b" in figures.notes[0]
    # The other class has 20 units of its own, and its user's accuracy needs no other.
    assert figures.per_class["a"].users_accuracy.se > 0


def test_a_stratum_without_units_is_named_with_its_share():
    mapped, truth = _draw(5)
    frame = Frame("stratified", mapped, np.array([60.0, 20.0, 10.0, 10.0]) * 1e4, (*NAMES, "swamp"))
    figures = estimate_accuracy(mapped, truth, names=NAMES, frame=frame)
    assert figures.notes == ("no reference unit in swamp: the figures hold for the other 90.0% of the map",)


def test_a_class_that_is_nowhere_has_no_figure():
    mapped, truth = _draw(6)
    frame = Frame("simple random", np.zeros_like(mapped), np.array([1e6]), ("all",))
    figures = estimate_accuracy(mapped, truth, names=(*NAMES, "ice"), frame=frame)
    assert figures.per_class["ice"].users_accuracy.estimate is None
    assert "no unit of this class" in figures.per_class["ice"].users_accuracy.note


def test_a_stratum_taken_whole_has_no_sampling_error():
    mapped, truth = _draw(7)
    sizes = np.bincount(mapped, minlength=3).astype(float)
    figures = estimate_accuracy(mapped, truth, names=NAMES, frame=by_map_class(mapped, sizes, NAMES))
    assert figures.overall_accuracy.se == 0.0
    assert figures.overall_accuracy.estimate == pytest.approx((mapped == truth).mean())


def test_what_is_no_sample_is_labelled_on_every_figure():
    mapped, truth = _draw(8)
    frame = Frame(NOT_PROBABILITY, np.zeros_like(mapped), np.array([1e6]), ("all",))
    figures = estimate_accuracy(mapped, truth, names=NAMES, frame=frame)
    every = [figures.overall_accuracy]
    for item in figures.per_class.values():
        every += [item.users_accuracy, item.producers_accuracy, item.f1, item.area_share]
    assert all(NOT_PROBABILITY in item.note and item.se is None and item.ci95 is None for item in every)


def test_more_reference_units_than_map_units_is_refused():
    with pytest.raises(ReferenceDataError, match="more reference units than map units"):
        by_map_class(np.zeros(10, dtype=int), np.array([9.0]), ("a",))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(30, 120))
def test_figures_are_consistent_with_each_other(seed, n):
    mapped, truth = _draw(seed, n)
    rng = np.random.default_rng(seed)
    stratum = rng.integers(0, 2, n)
    frame = Frame("stratified", stratum, np.array([7e5, 3e5]), ("s", "t"))
    figures = estimate_accuracy(mapped, truth, names=NAMES, frame=frame)
    p = figures.error_matrix.proportions
    assert p.sum() == pytest.approx(1)
    assert np.trace(p) == pytest.approx(figures.overall_accuracy.estimate)
    for k, name in enumerate(NAMES):
        item = figures.per_class[name]
        assert item.area_share.estimate == pytest.approx(p[:, k].sum())
        if p[k].sum() and p[:, k].sum():
            assert item.users_accuracy.estimate == pytest.approx(p[k, k] / p[k].sum())
            assert item.producers_accuracy.estimate == pytest.approx(p[k, k] / p[:, k].sum())
            assert item.f1.estimate == pytest.approx(2 * p[k, k] / (p[k].sum() + p[:, k].sum()))
        for figure in (item.users_accuracy, item.producers_accuracy, item.f1, item.area_share):
            if figure.ci95 is not None:
                assert 0 <= figure.ci95[0] <= figure.estimate <= figure.ci95[1] <= 1


def test_unstratified_units_without_errors_have_exact_intervals():
    mapped = np.repeat([0, 1], [30, 40])
    frame = Frame("simple random", np.zeros_like(mapped), np.array([1e6]), ("all",))
    figures = estimate_accuracy(mapped, mapped, names=("a", "b"), frame=frame)
    assert figures.overall_accuracy.ci95[0] == pytest.approx(binomtest(70, 70).proportion_ci(0.95, method="exact").low)
    low = binomtest(30, 30).proportion_ci(0.95, method="exact").low
    assert figures.per_class["a"].producers_accuracy.ci95[0] == pytest.approx(low)
