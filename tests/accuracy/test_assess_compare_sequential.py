from __future__ import annotations

import json
import math

import geopandas
import numpy as np
import pytest

from pipeline.accuracy.assess_compare import ALPHA, compare_sequentially, log_capital, summarise
from pipeline.accuracy.sample_design import write_design
from pipeline.accuracy.settings import ReferenceSettings
from pipeline.errors import ConfigError, LegendError, ReferenceDataError
from pipeline.legend import ClassScheme
from tests.accuracy.maps import SCHEME, draw, patchy, spoil, write_map

NAMES = {item.code: item.name for item in SCHEME.classes}


@pytest.fixture
def truth():
    return patchy()


@pytest.fixture
def maps(tmp_path, truth):
    good, poor = spoil(truth, seed=1, share=0.1), spoil(truth, seed=2, share=0.4)
    return write_map(tmp_path / "good.tif", good), write_map(tmp_path / "poor.tif", poor), good, poor


def interpret(folder, design, truth, *, units=None, skip=()):
    """Fill in the first ``units`` of a sample."""
    files = write_design(folder / "s.gpkg", design, overwrite=True)
    frame = geopandas.read_file(files.geopackage, layer="sample")
    frame["reference"] = [NAMES[truth[r, c]] for r, c in zip(design.row, design.col, strict=True)]
    frame.loc[[i for i in range(len(frame)) if (units is not None and i >= units) or i in skip], "reference"] = None
    frame.to_file(folder / "filled.gpkg")
    return ReferenceSettings(reference=folder / "filled.gpkg", field="reference", design=str(files.design))


class TestDesign:
    def test_units_lie_where_the_maps_differ_by_pair_of_classes(self, maps):
        first, second, one, two = maps
        design = draw(first, compare_with=second, size=200)
        assert (one[design.row, design.col] != two[design.row, design.col]).all()
        assert {item.name for item in design.strata} <= {f"{a} -> {b}" for a in SCHEME.names for b in SCHEME.names}
        assert len(design) == 200

    def test_every_differing_pixel_has_the_same_chance(self, maps):
        first, second, one, two = maps
        apart = ((one != two) & (one > 0) & (two > 0)).sum()
        drawn = np.zeros(len(SCHEME) ** 2)
        for seed in range(40):
            design = draw(first, compare_with=second, size=30, seed=seed)
            assert len(design) == 30
            pair = (one[design.row, design.col] // 10 - 1) * 3 + two[design.row, design.col] // 10 - 1
            drawn += np.bincount(pair, minlength=9)
        expected = np.bincount(((one // 10 - 1) * 3 + two // 10 - 1)[(one != two) & (one > 0)], minlength=9) / apart
        assert drawn / drawn.sum() == pytest.approx(expected, abs=0.01)

    def test_a_kind_of_its_own_is_refused(self, maps):
        with pytest.raises(ConfigError, match="compare two maps"):
            draw(maps[0], compare_with=maps[1], kind="systematic")


class TestCompare:
    def test_the_better_map_is_told_before_the_sample_is_used_up(self, maps, truth, tmp_path):
        first, second, one, two = maps
        design = draw(first, compare_with=second, size=200, seed=2)
        found = compare_sequentially(first, second, interpret(tmp_path, design, truth, units=60))
        assert found.units == 60
        assert found.verdict == "first"
        assert found.words().startswith("good.tif is better (p < 0.05)")
        seen = truth > 0
        true = (one == truth)[seen].mean() - (two == truth)[seen].mean()
        assert found.interval[0] <= true <= found.interval[1]
        assert found.differ_share == pytest.approx((one != two)[seen].mean())
        whole = compare_sequentially(first, second, interpret(tmp_path, design, truth))
        assert whole.interval[1] - whole.interval[0] < found.interval[1] - found.interval[0]
        turned = compare_sequentially(second, first, interpret(tmp_path, draw(second, compare_with=first), truth))
        assert turned.verdict == "second"

    def test_few_units_say_go_on_and_how_far(self, maps, truth, tmp_path):
        first, second, _, _ = maps
        settings = interpret(tmp_path, draw(first, compare_with=second), truth, units=3)
        found = compare_sequentially(first, second, settings)
        assert found.verdict == "go on"
        assert 10 <= found.more <= 500
        assert f"go on: about {found.more} more" in found.words()
        assert json.loads(json.dumps(found.to_json()))["verdict"] == "go on"

    def test_maps_that_hardly_differ_need_no_look(self):
        found = summarise(np.array([]), names=("a", "b"), scale=0.008, differ_share=0.008)
        assert found.verdict == "no difference"
        assert "no difference above 1 %" in found.words()

    def test_pixels_of_degrees_weigh_with_their_area(self, truth, tmp_path):
        place = {"crs": "EPSG:4326", "origin": (0.0, 82.0), "pixel": 0.4}
        north = np.arange(200)[:, None] < 60
        first = write_map(tmp_path / "a.tif", truth, **place)
        second = write_map(tmp_path / "b.tif", np.where(north, spoil(truth, share=0.6), truth), **place)
        design = draw(first, compare_with=second, size=150)
        found = compare_sequentially(first, second, interpret(tmp_path, design, truth))
        assert found.verdict == "first"
        assert found.differ_share < 0.12  # by number of pixels it is more than 0.1 of 0.3
        assert found.difference == pytest.approx(found.differ_share, rel=0.15)


class TestErrorRates:
    """Simulated: looks after every unit, stopped at the first verdict."""

    @pytest.mark.parametrize("share", [0.4, 0.1])
    def test_equal_maps_are_told_apart_in_less_than_5_percent(self, share):
        rng = np.random.default_rng(0)
        x = rng.choice([1.0, -1.0, 0.0], p=[share, share, 1 - 2 * share], size=(400, 300))
        wrong = [log_capital(row, np.zeros(1)).max() >= math.log(1 / ALPHA) for row in x]
        assert np.mean(wrong) <= 0.05

    def test_the_interval_holds_at_all_times_together(self):
        rng, mean = np.random.default_rng(1), np.array([0.2])
        x = rng.choice([1.0, -1.0, 0.0], p=[0.35, 0.15, 0.5], size=(400, 300))
        assert np.mean([log_capital(row, mean).max() >= math.log(1 / ALPHA) for row in x]) <= 0.05

    def test_a_map_twice_as_often_right_is_found_in_few_looks(self):
        rng = np.random.default_rng(2)
        x = rng.choice([1.0, -1.0, 0.0], p=[0.6, 0.2, 0.2], size=(200, 300))
        stops = [np.flatnonzero(log_capital(row, np.zeros(1))[:, 0] >= math.log(1 / ALPHA)) for row in x]
        assert np.mean([len(stop) > 0 for stop in stops]) == 1
        assert np.median([stop[0] for stop in stops]) < 60


class TestBadInput:
    def test_units_left_out_between_others_are_named(self, maps, truth, tmp_path):
        first, second, _, _ = maps
        settings = interpret(tmp_path, draw(first, compare_with=second), truth, units=30, skip=(0, 16))
        with pytest.raises(ReferenceDataError, match=r"left out between others.*none of id 1, 17;"):
            compare_sequentially(first, second, settings)

    def test_a_sample_of_another_design_is_refused(self, maps, truth, tmp_path):
        settings = interpret(tmp_path, draw(maps[0], size=60), truth)
        with pytest.raises(ReferenceDataError, match="not drawn where two maps differ"):
            compare_sequentially(maps[0], maps[1], settings)
        bare = ReferenceSettings(reference=settings.reference, field="reference")
        with pytest.raises(ReferenceDataError, match="without a design"):
            compare_sequentially(maps[0], maps[1], bare)

    def test_a_sample_of_other_maps_is_refused(self, maps, truth, tmp_path):
        settings = interpret(tmp_path, draw(maps[0], compare_with=maps[1]), truth)
        other = write_map(tmp_path / "other.tif", spoil(truth, seed=9, share=0.5))
        with pytest.raises(ReferenceDataError, match="other maps"):
            compare_sequentially(maps[0], other, settings)

    def test_two_legends_are_refused(self, maps, truth, tmp_path):
        settings = interpret(tmp_path, draw(maps[0], compare_with=maps[1]), truth)
        short = write_map(tmp_path / "short.tif", truth, scheme=ClassScheme(SCHEME.classes[:2]))
        with pytest.raises(LegendError):
            compare_sequentially(maps[0], short, settings)

    def test_maps_that_are_alike_have_no_sample(self, maps):
        with pytest.raises(ReferenceDataError, match="no pixel of the map lies in a stratum"):
            draw(maps[0], compare_with=maps[0])
