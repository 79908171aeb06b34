from __future__ import annotations

import numpy as np
import pytest
import rasterio
from scipy.stats import binom

from pipeline.accuracy.assess_frame import Clusters, Frame
from pipeline.accuracy.assess_zone import find_zone, upper_limit, write_zone, zone_of_map
from pipeline.accuracy.settings import ReferenceSettings
from pipeline.errors import ReferenceDataError
from tests.accuracy.maps import patchy, points, spoil, write_map
from tests.accuracy.test_assess_assisted import NAMES, reference

SIZE = 40_000


def population(seed: int = 0):
    """(wrong, confidence) of 40,000 pixels: the surer, the less often wrong."""
    rng = np.random.default_rng(seed)
    confidence = rng.integers(20, 101, SIZE)
    return rng.random(SIZE) < np.clip((85 - confidence) / 200, 0.005, 1), confidence


def zone_of_sample(wrong, confidence, chosen, frame, **told):
    area = np.bincount(confidence, minlength=102) / len(confidence)
    index = np.zeros(len(chosen), dtype=int)
    return find_zone(
        wrong[chosen], confidence[chosen], index, names=("a",), frame=frame, area_by_confidence=area, **told
    )


def plain(n: int) -> Frame:
    return Frame("simple random", np.zeros(n, dtype=int), np.array([float(SIZE)]), ("all",))


def test_the_zone_holds_in_95_percent_of_samples():
    wrong, confidence = population()
    error = np.array([wrong[confidence >= t].mean() for t in range(101)])
    rng, bad, shares = np.random.default_rng(1), 0, []
    for _ in range(200):
        found = zone_of_sample(wrong, confidence, rng.choice(SIZE, 500, replace=False), plain(500))
        bad += found.threshold is not None and error[found.threshold] > 0.05
        shares.append(found.share)
    assert bad / 200 <= 0.05
    largest = next((confidence >= t).mean() for t in range(101) if error[t] <= 0.05)
    assert np.mean(shares) > 0.4 * largest


def test_the_zone_holds_where_units_stand_for_different_areas():
    wrong, confidence = population()
    error = np.array([wrong[confidence >= t].mean() for t in range(101)])
    rng, bad = np.random.default_rng(2), 0
    parts = np.flatnonzero(confidence < 60), np.flatnonzero(confidence >= 60)
    sizes = np.array([float(len(part)) for part in parts])
    for _ in range(200):
        chosen = np.concatenate([rng.choice(part, 300, replace=False) for part in parts])
        found = zone_of_sample(
            wrong, confidence, chosen, Frame("stratified", np.repeat([0, 1], 300), sizes, ("a", "b"))
        )
        bad += found.threshold is not None and error[found.threshold] > 0.05
    assert bad / 200 <= 0.05


def test_the_limit_is_clopper_pearson_for_equal_weights():
    wrong = np.arange(100) < 3
    limit = upper_limit(wrong, np.ones(100, dtype=bool), frame=plain(100), area=np.ones(100))
    assert limit == pytest.approx(0.0757, abs=0.0006)  # exact binomial, 3 of 100


def test_few_units_have_no_zone_and_say_why():
    wrong, confidence = population()
    found = zone_of_sample(wrong, confidence, np.arange(40), plain(40))
    assert found.threshold is None
    assert found.share == 0
    assert "No part of the map" in found.words()
    assert "a part needs about 93" in found.words()
    assert zone_of_sample(wrong, confidence, np.arange(3), plain(3)).threshold is None


@pytest.mark.parametrize(("bad", "advice"), [(4, "About 369 more units there would do"), (40, "do not help")])
def test_without_a_zone_it_says_what_would_do(bad, advice):
    confidence = np.full(SIZE, 90)
    found = zone_of_sample(np.arange(SIZE) < bad, confidence, np.arange(120), plain(120))
    assert found.threshold is None
    assert "along the order of confidence" in found.words()
    assert "100.0 % of the area" in found.words()
    assert advice in found.words()


def test_the_units_that_would_do_pass_by_the_binomial():
    assert binom.cdf(16, 120 + 369, 0.05) < 0.05 + 0.005  # 16.3 wrong ones of 489: the limit lies between two counts
    assert binom.cdf(17, 120 + 369, 0.05) > 0.05


def test_classes_that_fail_in_the_zone_are_named():
    rng = np.random.default_rng(0)
    index = np.repeat([0, 1, 2], [960, 40, 4])
    wrong = (index == 1) & (rng.random(1004) < 0.5)
    area = np.bincount([90], minlength=102).astype(float)
    found = find_zone(
        wrong, np.full(1004, 90), index, names=("forest", "bog", "rock"), frame=plain(1004), area_by_confidence=area
    )
    assert found.threshold is not None
    assert (found.not_trusted, found.few) == (("bog",), ("rock",))
    assert "not to be trusted even there: bog" in found.words()


def test_the_mask_is_where_the_sentence_says(tmp_path):
    truth = patchy()
    codes = spoil(truth, share=0.3)
    path = write_map(tmp_path / "m_lc.tif", codes)
    sure = np.where(codes == truth, 80, 40).astype(np.uint8)
    inside = np.full(codes.shape, 50, dtype=np.uint8)
    inside[:, 200:] = 180
    for name, layer in (("m_conf", sure), ("m_aoa", inside)):
        with (
            rasterio.open(path) as source,
            rasterio.open(tmp_path / f"{name}.tif", "w", **source.profile | {"nodata": 255}) as target,
        ):
            target.write(layer, 1)
    given = reference(tmp_path, path, truth, kind="simple_random", size=400, seed=1)
    settings = ReferenceSettings(**given | {"design": str(given["design"])})
    found = zone_of_map(path, settings)
    assert found.threshold in range(41, 81)
    assert found.share == pytest.approx((codes == truth)[codes > 0].mean())
    mask = tmp_path / "zone.tif"
    write_zone(mask, found, map_path=path, confidence=tmp_path / "m_conf.tif")
    with rasterio.open(mask) as written:
        assert (written.read(1) == np.where(codes == 0, 255, (codes == truth).astype(int))).all()
    part = zone_of_map(path, settings, applicability=tmp_path / "m_aoa.tif")
    assert part.share == pytest.approx(((codes == truth) & (inside <= 100))[codes > 0].mean())
    assert "inside the area of applicability" in part.words()


class TestBadInput:
    def test_what_is_no_sample_has_no_zone(self, tmp_path):
        truth = patchy()
        path = write_map(tmp_path / "m_lc.tif", truth)
        rows = np.arange(60, 180, 4)
        filled = points(tmp_path / "p.gpkg", rows, rows, [NAMES[v] for v in truth[rows, rows]])
        with pytest.raises(ReferenceDataError, match="no confidence of the map"):
            zone_of_map(path, ReferenceSettings(reference=filled, field="cover"))
        with pytest.raises(ReferenceDataError, match="no probability sample"):
            zone_of_map(path, ReferenceSettings(reference=filled, field="cover"), confidence=path)

    def test_units_in_clusters_are_not_taken_for_so_many_units(self):
        wrong, confidence = population()
        squares = Clusters(np.repeat(np.arange(4), 100), np.full(4, 100.0), in_frame=400)
        frame = Frame(
            "one-stage cluster", np.zeros(400, dtype=int), np.array([float(SIZE)]), ("all",), clusters=squares
        )
        with pytest.raises(ReferenceDataError, match="sample in clusters"):
            zone_of_sample(wrong, confidence, np.arange(400), frame)

    def test_a_stratum_without_a_unit_is_refused(self):
        wrong, confidence = population()
        frame = Frame("stratified", np.zeros(400, dtype=int), np.array([20_000.0, 20_000.0]), ("low", "high"))
        with pytest.raises(ReferenceDataError, match=r"no unit.*high"):
            zone_of_sample(wrong, confidence, np.arange(400), frame)

    def test_a_sample_of_a_part_of_the_map_is_refused(self, tmp_path):
        truth = patchy()
        half = truth.copy()
        half[:, 100:] = 0
        path = write_map(tmp_path / "m_lc.tif", half)
        given = reference(tmp_path, path, truth, kind="stratified", size=200, seed=1)
        write_map(path, truth)
        settings = ReferenceSettings(**given | {"design": str(given["design"])})
        with pytest.raises(ReferenceDataError, match="part of the map"):
            zone_of_map(path, settings, confidence=path)
