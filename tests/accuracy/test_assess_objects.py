"""Objects against footprints: against figures known by hand, scikit-image's distances, and a published pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from scipy.stats import binomtest

from pipeline.accuracy.assess_objects import match_objects, object_figures, polis, wilson
from pipeline.errors import ReferenceDataError

if TYPE_CHECKING:
    from pathlib import Path

    from geopandas import GeoDataFrame

CORNER = np.array([500_000.0, 5_400_000.0])


def frame(shapes: list[Any], crs: str = "EPSG:32632") -> GeoDataFrame:
    placed = [shapely.transform(shape, lambda xy: xy + CORNER) for shape in shapes]
    return gpd.GeoDataFrame(geometry=placed, crs="EPSG:32632").to_crs(crs)


def boxes(count: int, *, shift: float = 0.0) -> list[Any]:
    return [shapely.box(40 * k + shift, 0, 40 * k + 10 + shift, 10) for k in range(count)]


def test_polis_is_that_of_the_paper() -> None:
    """A square moved by (1, 1): each corner is 1 or 0 or sqrt(2) from the other outline."""
    one, other = shapely.box(0, 0, 4, 4), shapely.box(1, 1, 5, 5)
    assert polis(one, other) == pytest.approx((2**0.5 + 1 + 1 + 1) / 4)
    assert polis(one, one) == 0
    assert polis(one, other) == polis(other, one)


def test_figures_of_a_case_by_hand() -> None:
    """Of four footprints two are found, one prediction is beside any."""
    found = object_figures(match_objects(frame([*boxes(2, shift=1.0), shapely.box(0, 50, 9, 59)]), frame(boxes(4))))
    assert (found.predicted, found.reference, found.matched) == (3, 4, 2)
    assert found.figures["precision"].estimate == pytest.approx(2 / 3)
    assert found.figures["recall"].estimate == pytest.approx(0.5)
    assert found.figures["f1"].estimate == pytest.approx(4 / 7)
    assert found.figures["count_ratio"].estimate == pytest.approx(0.75)
    assert found.figures["polis_m"].estimate == pytest.approx(0.5, abs=0.01)
    assert found.iou_of_areas == pytest.approx(180 / (400 + 281 - 180), rel=0.01)


def test_each_footprint_is_found_once() -> None:
    double = [shapely.box(0, 0, 10, 9), shapely.box(0, 0, 10, 8)]
    found = match_objects(frame(double), frame(boxes(1)))
    assert found.pairs.tolist() == [[0, 0]]
    assert found.iou[0] == pytest.approx(0.9, abs=0.01)


def test_other_crs_give_the_same_figures() -> None:
    ours, theirs = boxes(12, shift=1.0), boxes(14)
    here = object_figures(match_objects(frame(ours), frame(theirs)))
    there = object_figures(match_objects(frame(ours, "EPSG:3857"), frame(theirs, "EPSG:4326")))
    assert there.figures["f1"] == here.figures["f1"]
    assert there.figures["polis_m"].estimate == pytest.approx(here.figures["polis_m"].estimate, rel=1e-3)


def test_only_what_lies_in_the_area_counts() -> None:
    area = frame([shapely.box(-5, -5, 55, 20)])
    found = object_figures(match_objects(frame(boxes(4)), frame(boxes(4)), area=area))
    assert (found.predicted, found.reference, found.matched) == (2, 2, 2)


def test_incomplete_footprints_give_recall_alone() -> None:
    found = object_figures(match_objects(frame(boxes(4)), frame(boxes(2))), complete=False)
    assert found.figures["recall"].estimate == 1
    assert found.figures["precision"].estimate is None
    assert "not complete" in found.figures["f1"].note


def test_no_prediction_is_a_figure_not_a_failure() -> None:
    found = object_figures(match_objects(frame([]), frame(boxes(3))))
    assert (found.predicted, found.matched) == (0, 0)
    assert found.figures["precision"].estimate is None
    assert found.figures["recall"].estimate == 0
    assert found.figures["f1"].estimate == 0
    assert found.figures["polis_m"].estimate is None


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (8, 28), (28, 28)])
def test_wilson_is_scipys(hits: int, trials: int) -> None:
    known = binomtest(hits, trials).proportion_ci(method="wilson")
    assert wilson(hits, trials) == pytest.approx((known.low, known.high), abs=1e-6)


def test_few_blocks_give_binomial_intervals_many_a_bootstrap() -> None:
    few = object_figures(match_objects(frame(boxes(4)), frame(boxes(4))))
    assert few.intervals.startswith("binomial")
    assert few.figures["f1"].ci95 is None
    many = object_figures(match_objects(frame(boxes(40)[::2]), frame(boxes(40))), block_m=80)
    assert many.intervals.startswith("bootstrap of 20 blocks")
    assert many.figures["recall"].ci95 is not None


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Objects of a block are found together, with probability 0.6: intervals of single objects would be too narrow."""
    rng = np.random.default_rng(0)
    covered = []
    theirs = [shapely.box(100 * b + 15 * k, 0, 100 * b + 15 * k + 10, 10) for b in range(30) for k in range(5)]
    for _ in range(12):
        hit = np.repeat(rng.uniform(size=30) < 0.6, 5)
        found = object_figures(
            match_objects(frame([shape for shape, yes in zip(theirs, hit, strict=True) if yes]), frame(theirs)),
            block_m=100,
        )
        interval = found.figures["recall"].ci95
        assert interval is not None
        covered.append(interval[0] <= 0.6 <= interval[1])
    assert np.mean(covered) > 0.8


def test_footprints_elsewhere_are_an_error() -> None:
    far = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 10, 10)], crs="EPSG:32632")
    with pytest.raises(ReferenceDataError, match="do not lie in one place"):
        match_objects(frame(boxes(2)), far)
    wrong = object_figures(match_objects(frame(boxes(2)), far, one_place=True))
    assert (wrong.matched, wrong.figures["precision"].estimate, wrong.figures["recall"].estimate) == (0, 0.0, 0.0)
    with pytest.raises(ReferenceDataError, match="no footprint lies in the area"):
        match_objects(frame(boxes(2)), frame(boxes(2)), area=far)


def test_the_published_pair_has_its_figures(shared_data: Path) -> None:
    folder = shared_data / "buildings"
    truth, predicted = (gpd.read_file(folder / f"pair_{name}.gpkg") for name in ("truth", "predicted"))
    strict, loose = (object_figures(match_objects(predicted, truth, iou=iou), iou=iou) for iou in (0.5, 0.3))
    assert strict.figures["f1"].estimate == pytest.approx(0.286, abs=5e-4)
    assert loose.figures["f1"].estimate == pytest.approx(0.464, abs=5e-4)
    assert strict.iou_of_areas == pytest.approx(0.473, abs=5e-4)
