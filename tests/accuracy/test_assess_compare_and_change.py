from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Geod, Transformer
from scipy.stats import binomtest
from shapely.geometry import box
from sklearn.metrics import confusion_matrix

from pipeline.accuracy.assess_compare import mcnemar
from pipeline.accuracy.assess_rasters import change_map, cross_maps
from pipeline.accuracy.crosswalk import SHIPPED, read_crosswalk, to_codes
from pipeline.errors import LegendError, ReferenceDataError
from pipeline.grid import Grid
from pipeline.legend import KNOWN_LEGENDS, ClassScheme, LandClass
from pipeline.maps.legends import read_scheme
from tests.accuracy.maps import SCHEME, assess_map, compare_maps, draw, patchy, points, spoil, write_map

NAME = {item.code: item.name for item in SCHEME.classes}


def test_mcnemar_is_binomial_for_few_and_chi_square_for_many():
    right = np.array([True] * 9 + [False] * 3 + [True] * 20)
    other = np.array([False] * 9 + [True] * 3 + [True] * 20)
    few = mcnemar(right, other)
    assert (few.only_first, few.only_second, few.exact) == (9, 3, True)
    assert few.p_value == pytest.approx(binomtest(9, 12).pvalue)
    many = mcnemar(np.tile(right, 5), np.tile(other, 5))
    assert many.statistic == pytest.approx((abs(45 - 15) - 1) ** 2 / 60)
    assert mcnemar(right, right).p_value == 1.0


class TestCompare:
    @pytest.fixture
    def maps(self, tmp_path):
        truth = patchy()
        good = write_map(tmp_path / "good.tif", spoil(truth, seed=1, share=0.1))
        poor = write_map(tmp_path / "poor.tif", spoil(truth, seed=2, share=0.4))
        design = draw(good, kind="simple_random", size=400, seed=3)
        values = [NAME[v] for v in truth[design.row, design.col]]
        return good, poor, points(tmp_path / "p.gpkg", design.row, design.col, values)

    def test_the_difference_has_the_variance_of_pairs(self, maps):
        good, poor, reference = maps
        found = compare_maps(good, poor, reference=reference, field="cover", design="simple random")
        assert found.difference.estimate > 0.1
        assert found.difference.ci95[0] > 0
        assert found.mcnemar.p_value < 0.001
        assert "differ (McNemar's test" in found.words()
        one, two = found.first.figures.overall_accuracy, found.second.figures.overall_accuracy
        assert found.difference.estimate == pytest.approx(one.estimate - two.estimate, abs=0.02)

    def test_a_map_does_not_differ_from_itself(self, maps):
        good, _, reference = maps
        found = compare_maps(good, good, reference=reference, field="cover")
        assert found.difference.estimate == 0
        assert found.difference.ci95 is None
        assert "not a probability sample" in found.difference.note
        assert "cannot be told apart" in found.to_json()["words"]

    def test_units_of_one_map_only_are_left_out_of_both_and_counted(self, maps, tmp_path):
        good, _, reference = maps
        codes = patchy()
        codes[:, 150:] = 0
        half = write_map(tmp_path / "half.tif", codes)
        found = compare_maps(good, half, reference=reference, field="cover", design="simple random")
        assert found.first.units.id == found.second.units.id
        assert 150 < found.units < 250
        assert {item.reason for item in found.first.units.excluded} == {"without a class in the other map"}
        assert f"{400 - found.units} of 400 reference units were left out" in found.words()
        codes[:] = 0
        with pytest.raises(ReferenceDataError, match="no usable reference unit"):
            compare_maps(good, write_map(tmp_path / "no.tif", codes), reference=reference, field="cover")

    def test_polygons_serve_and_are_no_sample(self, maps, tmp_path):
        good, poor, _ = maps
        truth = patchy()
        rows, cols = np.meshgrid(np.arange(5, 20), np.arange(5, 30))
        shapes = [
            box(500_000 + c * 100 + 10, 5_800_000 - r * 100 - 90, 500_000 + c * 100 + 90, 5_800_000 - r * 100 - 10)
            for r, c in zip(rows.ravel(), cols.ravel(), strict=True)
        ]
        values = [NAME[truth[r * 10 + 5, c * 10 + 5]] for r, c in zip(rows.ravel(), cols.ravel(), strict=True)]
        frame = geopandas.GeoDataFrame({"cover": values}, geometry=shapes, crs="EPSG:32633")
        frame.to_file(tmp_path / "squares.gpkg")
        found = compare_maps(good, poor, reference=tmp_path / "squares.gpkg", field="cover")
        assert found.units == 375
        assert found.difference.ci95 is None
        assert "speaks of them alone" in found.words()

    def test_mcnemar_has_its_limits_for_a_stratified_sample(self, maps):
        found = compare_maps(maps[0], maps[1], reference=maps[2], field="cover", strata="map")
        assert found.difference.ci95[0] > 0
        assert "the interval of the difference counts" in found.words()

    @pytest.mark.parametrize("told", [{"strata": "map"}, {}, {"design": "simple random"}])
    def test_points_of_a_geographic_grid_weigh_with_their_area(self, tmp_path, told):
        truth, north = patchy(nodata=False), np.arange(200)[:, None] < 100
        wrong = spoil(truth, share=0.4)
        place = {"crs": "EPSG:4326", "origin": (0.0, 82.0), "pixel": 0.4}
        first = write_map(tmp_path / "a.tif", np.where(north, wrong, truth), **place)
        second = write_map(tmp_path / "b.tif", np.where(north, truth, wrong), **place)
        row, col = (at.ravel() for at in np.mgrid[3:200:7, 2:300:7])
        shapes = geopandas.points_from_xy(0.4 * (col + 0.5), 82 - 0.4 * (row + 0.5))
        values = [NAME[v] for v in truth[row, col]]
        geopandas.GeoDataFrame({"cover": values}, geometry=shapes, crs="EPSG:4326").to_file(tmp_path / "p.gpkg")
        found = compare_maps(first, second, reference=tmp_path / "p.gpkg", field="cover", **told)
        one, two = found.first.figures.overall_accuracy, found.second.figures.overall_accuracy
        assert one.estimate - two.estimate > 0.09  # by number of units they differ by less than 0.03
        # Post-strata of a simple random sample are each map's own classes, so there the two are only close.
        near = 0.002 if "design" in told else 1e-12
        assert found.difference.estimate == pytest.approx(one.estimate - two.estimate, abs=near)


class TestCompareOnARaster:
    @pytest.fixture
    def maps(self, tmp_path):
        truth = patchy()
        codes = spoil(truth, seed=1, share=0.1), spoil(truth, seed=2, share=0.4)
        codes[1][:, 250:] = 0
        return *codes, truth, tmp_path

    def write(self, maps, **options):
        return [write_map(maps[3] / f"{name}.tif", maps[k], **options) for k, name in enumerate(("a", "b", "truth"))]

    def test_all_pixels_with_a_class_in_all_three_are_compared(self, maps, monkeypatch):
        monkeypatch.setattr("pipeline.accuracy.class_maps.STRIP_PIXELS", 300 * 64)
        a, b, truth, _ = maps
        first, second, reference = self.write(maps)
        found = compare_maps(first, second, reference=reference)
        known = (a > 0) & (b > 0) & (truth > 0)
        right_a, right_b = (a == truth)[known], (b == truth)[known]
        assert found.units == known.sum()
        assert found.right.tolist() == confusion_matrix(right_a, right_b).tolist()
        assert found.difference.estimate == pytest.approx(right_a.mean() - right_b.mean())
        one, two = found.first.figures, found.second.figures
        assert (one.overall_accuracy.estimate, two.overall_accuracy.estimate) == pytest.approx(
            (right_a.mean(), right_b.mean())
        )
        assert (confusion_matrix(truth[known], a[known]) == one.error_matrix.counts.T).all()
        assert (confusion_matrix(truth[known], b[known]) == two.error_matrix.counts.T).all()
        share = known.sum() / (a > 0).sum()
        assert f"these pixels are {share:.1%} of the map's area" in found.words().lower()

    def test_all_pixels_have_no_test_and_no_interval(self, maps):
        found = compare_maps(*self.write(maps)[:2], reference=self.write(maps)[2])
        assert found.mcnemar is None
        assert found.difference.ci95 is None
        assert found.difference.se is None
        assert found.to_json()["mcnemar"] is None
        assert "no sampling error" in found.words()
        assert "has nothing to ask" in found.words()

    def test_pixels_of_a_geographic_grid_weigh_with_their_area(self, maps):
        a, b, truth, _ = maps
        first, second, reference = self.write(maps, crs="EPSG:4326", origin=(13.0, 60.0), pixel=0.05)
        found = compare_maps(first, second, reference=reference)
        with rasterio.open(first) as source:
            area = Grid.of(source).pixel_areas_ha()
        weight = np.where((a > 0) & (b > 0) & (truth > 0), area, 0.0)
        expected = (weight * (a == truth)).sum() / weight.sum() - (weight * (b == truth)).sum() / weight.sum()
        assert found.difference.estimate == pytest.approx(expected)
        assert found.difference.estimate != pytest.approx(
            found.right[1, 0] / found.units - found.right[0, 1] / found.units
        )

    def test_a_design_for_a_raster_is_refused(self, maps):
        first, second, reference = self.write(maps)
        with pytest.raises(ReferenceDataError, match="no sampling design"):
            compare_maps(first, second, reference=reference, strata="map")


class TestWallToWall:
    def test_pairs_are_counted_over_strips(self, tmp_path, monkeypatch):
        monkeypatch.setattr("pipeline.accuracy.class_maps.STRIP_PIXELS", 300 * 64)
        a, b = patchy(), spoil(patchy())
        pixels, area_ha = cross_maps(write_map(tmp_path / "a.tif", a), write_map(tmp_path / "b.tif", b))
        assert pixels.sum() == a.size
        assert pixels[10, 20] == ((a == 10) & (b == 20)).sum()
        assert area_ha[10, 20] == pytest.approx(pixels[10, 20] * 0.01)

    def test_a_finer_second_map_is_brought_onto_the_first(self, tmp_path):
        a = patchy(nodata=False)
        fine = np.kron(a, np.ones((2, 2), dtype=np.uint8))
        pixels, _ = cross_maps(write_map(tmp_path / "a.tif", a), write_map(tmp_path / "f.tif", fine, pixel=5.0))
        assert np.trace(pixels) == a.size

    def test_a_geographic_grid_has_geodesic_areas(self, tmp_path):
        a = write_map(tmp_path / "a.tif", patchy(), crs="EPSG:4326", origin=(13.0, 52.0), pixel=0.0001)
        _, area_ha = cross_maps(a, a)
        assert area_ha.sum() == pytest.approx(60_000 * 11.132e-4 * 6.87, rel=0.02)


class TestChange:
    def test_the_from_to_map_says_what_changed(self, tmp_path):
        before, after = patchy(), spoil(patchy(), share=0.05)
        a, b = write_map(tmp_path / "a.tif", before), write_map(tmp_path / "b.tif", after)
        found = change_map(a, b, output=tmp_path / "change.tif")
        scheme = read_scheme(tmp_path / "change.tif")
        with rasterio.open(tmp_path / "change.tif") as dataset:
            codes = dataset.read(1)
        lost = scheme.by_name("forest -> water").code
        assert ((codes == lost) == ((before == 10) & (after == 20))).all()
        assert ((codes == 0) == (before == 0)).all()
        assert found.pixels.sum() == (before > 0).sum()
        transitions = {(item["from"], item["to"]): item["area_ha"] for item in found.to_json()["transitions"]}
        assert transitions["field", "forest"] == pytest.approx(((before == 30) & (after == 10)).sum() * 0.01)
        assert "sample of change strata" in found.to_json()["note"]

    def test_two_legends_are_refused(self, tmp_path):
        a = write_map(tmp_path / "a.tif", patchy())
        b = write_map(tmp_path / "b.tif", patchy(), scheme=ClassScheme(SCHEME.classes[:2]))
        with pytest.raises(LegendError, match="different legends"):
            change_map(a, b, output=tmp_path / "c.tif")
        with pytest.raises(LegendError, match="not in the legend"):
            change_map(a, b, output=tmp_path / "c.tif", scheme=ClassScheme(SCHEME.classes[:2]))


class TestCrosswalks:
    def test_shipped_tables_know_every_class_of_their_legend(self):
        legends = {
            "esa_worldcover": "ESA WorldCover", "dynamic_world": "Dynamic World", "corine_level2": "CORINE level 2",
            "nlcd": "NLCD",
        }  # fmt: skip
        for table, legend in legends.items():
            walk = read_crosswalk(table)
            assert {name for _, name, _ in KNOWN_LEGENDS[legend]} <= set(walk)
        assert set(SHIPPED) == {*legends, "corine"}

    def test_corine_is_known_by_code_and_by_number_of_the_grid(self):
        walk = read_crosswalk("corine")
        assert len([key for key in walk if key.isdigit() and len(key) == 3]) == 44
        assert walk["311"] == walk["23"] == walk["Broad-leaved forest"] == "trees"
        assert walk["523"] == walk["44"] == "water"

    def test_names_codes_and_blanks(self):
        codes, unknown = to_codes(["Forest", 20.0, "30", None, float("nan"), "bog"], scheme=SCHEME)
        assert codes.tolist() == [10, 20, 30, 0, 0, -2]
        assert unknown == ["bog"]

    def test_a_name_beats_a_code(self):
        scheme = ClassScheme((LandClass(1, "5", "#117733"), LandClass(5, "Water", "#0072b2")))
        assert to_codes([5, "5", 1, "water", "-1", 1.1], scheme=scheme)[0].tolist() == [1, 1, 1, 5, -2, -2]

    def test_a_code_that_the_crosswalk_lacks_is_no_code_of_the_map(self):
        codes, unknown = to_codes([1, 10, 20, "Water"], scheme=SCHEME, crosswalk={"1": "forest", "20": "30"})
        assert codes.tolist() == [10, -2, 30, 20]
        assert unknown == ["10"]

    def test_names_are_looked_up_as_they_are_first(self):
        scheme = ClassScheme((LandClass(1, "Water", "#117733"), LandClass(2, "water", "#0072b2")))
        assert to_codes(["Water", "water"], scheme=scheme)[0].tolist() == [1, 2]

    def test_a_broken_table_is_refused(self, tmp_path):
        path = tmp_path / "w.csv"
        path.write_text("a,b\n1,2\n")
        with pytest.raises(LegendError, match="other columns"):
            read_crosswalk(path)
        path.write_text("source,target\nx,forest\nx,water\n")
        with pytest.raises(LegendError, match="two classes"):
            read_crosswalk(path)
        with pytest.raises(LegendError, match="cannot be read"):
            read_crosswalk(tmp_path / "none.csv")


class TestSouthUp:
    """A raster whose rows run from south to north shows the same ground: nothing changes but its rows."""

    @pytest.fixture
    def flipped(self):
        def write(path, codes, **options):
            north = write_map(path.with_name(f"north_{path.name}"), codes, **options)
            with rasterio.open(north) as source:
                profile, tags, a = source.profile, source.tags(), source.transform
            profile["transform"] = Affine(a.a, 0, a.c, 0, -a.e, a.f + a.e * codes.shape[0])
            with rasterio.open(path, "w", **profile) as target:
                target.write(codes[::-1], 1)
                target.update_tags(**tags)
            return path

        return write

    def test_a_map_has_not_changed_against_its_flipped_copy(self, tmp_path, flipped):
        codes = patchy()
        first, second = write_map(tmp_path / "a.tif", codes), flipped(tmp_path / "b.tif", codes)
        for pair in ((first, second), (second, first)):
            found = change_map(*pair, output=tmp_path / "c.tif", overwrite=True)
            assert found.pixels.sum() == np.trace(found.pixels) == (codes > 0).sum()

    def test_reference_compare_and_strata_are_in_place(self, tmp_path, flipped):
        truth = patchy()
        codes = spoil(truth, share=0.2)
        path, turned = write_map(tmp_path / "m.tif", codes), flipped(tmp_path / "turned.tif", codes)
        reference = flipped(tmp_path / "truth.tif", truth)
        right = (codes == truth)[codes > 0].mean()
        found = compare_maps(path, turned, reference=reference)
        assert found.difference.estimate == 0
        assert found.first.figures.overall_accuracy.estimate == pytest.approx(right)
        halves = np.where(np.arange(200)[:, None] < 80, 1, 2) * np.ones_like(codes)
        layer = flipped(tmp_path / "halves.tif", halves, scheme=None)
        rows, cols = (at.ravel() for at in np.mgrid[32:200:7, 3:300:7])
        sample = points(tmp_path / "p.gpkg", rows, cols, [NAME[v] for v in truth[rows, cols]])
        one, two = (assess_map(each, reference=sample, field="cover", strata=layer) for each in (path, turned))
        assert one.sampling()["strata"] == two.sampling()["strata"]
        assert one.sampling()["strata"][0]["size"] == (codes[:80] > 0).sum()
        assert one.figures.overall_accuracy == two.figures.overall_accuracy


class TestMercator:
    """EPSG:3857 at 60 N: the plane has four times the area of the ground."""

    PLACE = {"crs": "EPSG:3857", "origin": (1_000_000.0, 8_400_000.0), "pixel": 100.0}  # noqa: RUF012

    def test_design_assess_and_change_give_hectares_on_the_ground(self, tmp_path):
        truth = patchy()
        first = write_map(tmp_path / "a.tif", spoil(truth, share=0.2), **self.PLACE)
        second = write_map(tmp_path / "b.tif", truth, **self.PLACE)
        to_degrees = Transformer.from_crs(3857, 4326, always_xy=True)
        ring = [(0, 0), (0, 20_000), (30_000, 20_000), (30_000, 0)]
        lon, lat = to_degrees.transform(*zip(*((1e6 + x, 8.4e6 - y) for x, y in ring), strict=True))
        whole = abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0]) / 1e4
        valid = (truth > 0).mean() * whole
        design = draw(first, size=200)
        assert sum(item.area_ha for item in design.strata) == pytest.approx(valid, rel=0.002)
        assert sum(design.class_area_ha.values()) == pytest.approx(valid, rel=0.002)
        assert assess_map(first, reference=second).area_ha == pytest.approx(valid, rel=0.002)
        assert change_map(first, second, output=tmp_path / "c.tif").area_ha.sum() == pytest.approx(valid, rel=0.002)
        squares = draw(first, kind="cluster", size=10, strata="map")
        assert sum(item.area_ha for item in squares.strata) == pytest.approx(valid, rel=0.002)
