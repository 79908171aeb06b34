from __future__ import annotations

import geopandas
import numpy as np
import pytest
import rasterio
from shapely.geometry import Point, box

from pipeline.accuracy.assess_reference import read_reference
from pipeline.accuracy.class_maps import read_grid
from pipeline.accuracy.sample_design import write_design
from pipeline.accuracy.sample_strata import RasterStrata
from pipeline.errors import LegendError, ReferenceDataError
from pipeline.legend import ClassScheme, LandClass
from tests.accuracy.maps import SCHEME, UTM, assess_map, draw, patchy, points, spoil, write_map

NAME = {item.code: item.name for item in SCHEME.classes}


@pytest.fixture
def truth():
    return patchy()


@pytest.fixture
def codes(truth):
    return spoil(truth)


@pytest.fixture
def map_path(tmp_path, codes):
    return write_map(tmp_path / "map.tif", codes)


def interpret(files, truth, design, *, skip=0):
    """Fill the blank field of a sample as an interpreter who knows the truth would."""
    frame = geopandas.read_file(files.geopackage, layer="sample")
    assert frame["reference"].isna().all()
    frame["reference"] = [NAME[truth[r, c]] for r, c in zip(design.row, design.col, strict=True)]
    if skip:
        frame.loc[: skip - 1, "reference"] = None
    frame.to_file(files.geopackage.with_name("filled.gpkg"))
    return files.geopackage.with_name("filled.gpkg")


def test_json_has_the_documented_keys(map_path, truth, tmp_path):
    design = draw(map_path, size=150, seed=1)
    files = write_design(tmp_path / "s.gpkg", design)
    found = assess_map(
        map_path, reference=interpret(files, truth, design), field="reference", design=files.design, kappa=True
    ).to_json()
    assert set(found["overall_accuracy"]) >= {"estimate", "se", "ci95"}
    assert set(found["per_class"]) == {"forest", "water", "field"}
    for item in found["per_class"].values():
        for key in ("users_accuracy", "producers_accuracy", "f1", "area_ha"):
            assert {"estimate", "se", "ci95"} <= set(item[key])
        assert item["area_map_unit"]["unit"] == "square metre"
        assert item["area_map_unit"]["estimate"] == pytest.approx(item["area_ha"]["estimate"] * 1e4)
    assert np.shape(found["error_matrix"]["counts"]) == np.shape(found["error_matrix"]["proportions"]) == (3, 3)
    assert found["sampling"]["design"] == "stratified"
    assert "Olofsson et al. 2014" in found["sampling"]["words"]
    assert {"kappa", "quantity_disagreement", "allocation_disagreement"} <= set(found["agreement_beyond_chance"])


KINDS = ["stratified", "simple", "systematic", "one grid", "one stage", "two stages", "squares of strata"]


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_the_truth(map_path, truth, codes, tmp_path, kind):
    design = {
        "stratified": lambda: draw(map_path, size=600, seed=11),
        "simple": lambda: draw(map_path, kind="simple_random", size=600, seed=11),
        "systematic": lambda: draw(map_path, kind="systematic", size=600, seed=11),
        "one grid": lambda: draw(map_path, kind="systematic", size=600, starts=1, seed=11),
        "one stage": lambda: draw(map_path, kind="cluster", size=60, cluster_px=4, seed=11),
        "two stages": lambda: draw(map_path, kind="two_stage", size=120, cluster_px=10, per_cluster=6, seed=11),
        "squares of strata": lambda: draw(
            map_path, kind="two_stage", size=120, cluster_px=7, per_cluster=6, strata="map", allocation="equal", seed=11
        ),
    }[kind]()
    files = write_design(tmp_path / "s.gpkg", design)
    found = assess_map(map_path, reference=interpret(files, truth, design), field="reference", design=files.design)
    valid = codes > 0
    overall = found.figures.overall_accuracy
    assert abs(overall.estimate - (codes == truth)[valid].mean()) < 4 * overall.se
    area = found.area("water")
    assert abs(area.estimate - (truth[valid] == 20).sum() * 0.01) < 4 * area.se
    assert sum(found.area(name).estimate for name in SCHEME.names) == pytest.approx(valid.sum() * 0.01)


def test_a_sample_assesses_another_map_with_stehmans_estimators(map_path, truth, tmp_path):
    design = draw(map_path, size=150, seed=1)
    files = write_design(tmp_path / "s.gpkg", design)
    other = write_map(tmp_path / "other.tif", spoil(truth, seed=77))
    found = assess_map(other, reference=interpret(files, truth, design), field="reference", design=files.design)
    assert "Stehman 2014" in found.words()
    assert "differs from the one the sample was drawn from" in found.words()


def test_without_a_design_the_label_is_on_every_figure(map_path, truth, tmp_path):
    rows, cols = np.arange(60, 180, 4), np.arange(60, 180, 4)
    path = points(tmp_path / "p.gpkg", rows, cols, [NAME[v] for v in truth[rows, cols]])
    found = assess_map(map_path, reference=path, field="cover").to_json()
    figures = [found["overall_accuracy"]]
    for item in found["per_class"].values():
        figures += [item[key] for key in ("users_accuracy", "producers_accuracy", "f1", "area_ha")]
    assert all("not a probability sample" in figure["note"] for figure in figures)
    assert all(figure["se"] is None and figure["ci95"] is None for figure in figures)
    assert found["per_class"]["water"]["area_ha"]["estimate"] == found["per_class"]["water"]["mapped_area_ha"]
    assert "not a probability sample" in found["sampling"]["words"]


def test_strata_map_uses_the_classes_as_strata(map_path, truth, tmp_path):
    design = draw(map_path, size=200, seed=5)
    path = points(
        tmp_path / "p.gpkg", design.row, design.col, [NAME[v] for v in truth[design.row, design.col]], crs="EPSG:4326"
    )
    files = write_design(tmp_path / "s.gpkg", design)
    by_design = assess_map(map_path, reference=interpret(files, truth, design), field="reference", design=files.design)
    by_strata = assess_map(map_path, reference=path, field="cover", strata="map")
    assert by_strata.figures.overall_accuracy == by_design.figures.overall_accuracy
    assert by_strata.area("forest") == by_design.area("forest")


def test_strata_from_a_raster(map_path, truth, tmp_path):
    halves = np.ones_like(truth)
    halves[:, 150:] = 2
    strata = write_map(tmp_path / "strata.tif", halves, scheme=None)
    rng = np.random.default_rng(0)
    rows = rng.integers(40, 200, 80)
    cols = np.concatenate([rng.integers(50, 150, 40), rng.integers(150, 300, 40)])
    path = points(tmp_path / "p.gpkg", rows, cols, [NAME[v] for v in truth[rows, cols]])
    found = assess_map(map_path, reference=path, field="cover", strata=strata)
    assert found.sampling()["strata"][1]["size"] == (halves[truth > 0] == 2).sum()
    assert "2 strata other than the map's classes" in found.words()


class TestStrataOfAPartOfTheMap:
    """Mapped and estimated areas are then of this part alone, in areas of pixels and not in their number."""

    @pytest.fixture(params=["metres", "degrees"])
    def part(self, request, codes, tmp_path):
        place = {} if request.param == "metres" else {"crs": "EPSG:4326", "origin": (0.0, 82.0), "pixel": 0.4}
        path = write_map(tmp_path / "m.tif", codes, **place)
        strata = np.zeros_like(codes)
        strata[:60], strata[60:100] = 1, 2
        layer = write_map(tmp_path / "s.tif", strata, scheme=None, **place)
        grid = read_grid(path)
        area = np.repeat(grid.pixel_areas_ha(), grid.width, axis=1)
        return path, layer, grid, np.where(codes > 0, area, 0.0), strata

    def reference(self, path, grid, truth, row, col):
        x, y = grid.transform.c + grid.transform.a * (col + 0.5), grid.transform.f + grid.transform.e * (row + 0.5)
        values = [NAME[v] for v in truth[row, col]]
        geopandas.GeoDataFrame({"cover": values}, geometry=geopandas.points_from_xy(x, y), crs=grid.crs).to_file(path)
        return path

    def test_strata_from_a_raster(self, part, codes, truth, tmp_path):
        path, layer, grid, area, strata = part
        row, col = (at.ravel() for at in np.mgrid[32:100:6, 1:300:6])
        reference = self.reference(tmp_path / "p.gpkg", grid, truth, row, col)
        found = assess_map(path, reference=reference, field="cover", strata=layer)
        assert found.area_ha == pytest.approx(area[strata > 0].sum())
        for name, code in zip(SCHEME.names, SCHEME.codes, strict=True):
            assert found.mapped_ha[name] == pytest.approx(area[(strata > 0) & (codes == code)].sum())
        assert sum(found.area(name).estimate for name in SCHEME.names) == pytest.approx(found.area_ha)

    def test_a_stratum_without_units_is_taken_off_with_its_area(self, part, truth, tmp_path):
        path, layer, grid, area, strata = part
        row, col = (at.ravel() for at in np.mgrid[32:60:6, 1:300:6])
        reference = self.reference(tmp_path / "p.gpkg", grid, truth, row, col)
        found = assess_map(path, reference=reference, field="cover", strata=layer)
        assert found.area_ha == pytest.approx(area[strata == 1].sum())

    def test_a_design_drawn_within_them(self, part, codes, truth, tmp_path):
        path, layer, grid, area, strata = part
        with RasterStrata(layer, grid) as drawn_in:
            design = draw(path, size=200, strata=drawn_in, allocation="equal", seed=1)
        files = write_design(tmp_path / "d.gpkg", design)
        filled = interpret(files, truth, design)
        found = assess_map(path, reference=filled, field="reference", design=files.design)
        assert found.area_ha == pytest.approx(area[strata > 0].sum())
        assert found.mapped_ha["field"] == pytest.approx(area[(strata > 0) & (codes == 30)].sum())
        assert "mapped areas are of" not in found.words()
        with rasterio.open(path, "r+") as dataset:
            dataset.write(spoil(truth, seed=77), 1)
        other = assess_map(path, reference=filled, field="reference", design=files.design)
        assert f"Mapped areas are of {area.sum():,.1f} ha, estimated areas of the" in other.words()


def test_a_declared_simple_random_sample_is_post_stratified(map_path, truth, tmp_path):
    design = draw(map_path, kind="simple_random", size=300, seed=2)
    path = points(tmp_path / "p.gpkg", design.row, design.col, [NAME[v] for v in truth[design.row, design.col]])
    found = assess_map(map_path, reference=path, field="cover", design="simple random")
    assert found.sampling()["post_stratified"]
    assert "post-stratified" in found.words()
    files = write_design(tmp_path / "s.gpkg", design)
    by_file = assess_map(map_path, reference=interpret(files, truth, design), field="reference", design=files.design)
    assert by_file.figures.overall_accuracy == found.figures.overall_accuracy
    assert by_file.area("water") == found.area("water")
    other = write_map(tmp_path / "other.tif", spoil(truth, seed=77))
    there = assess_map(other, reference=interpret(files, truth, design), field="reference", design=files.design)
    assert there.sampling()["post_stratified"]
    assert there.design.frame.sizes.tolist() == [(spoil(truth, seed=77) == code).sum() for code in SCHEME.codes]
    assert "differs from the one the sample was drawn from." in there.words()


def test_a_reference_raster_is_a_census(map_path, truth, codes, tmp_path):
    reference = write_map(tmp_path / "truth.tif", truth)
    found = assess_map(map_path, reference=reference)
    valid = codes > 0
    assert found.figures.overall_accuracy.estimate == pytest.approx((codes == truth)[valid].mean())
    assert found.figures.overall_accuracy.se is None
    assert found.area("water").estimate == pytest.approx((truth[valid] == 20).sum() * 0.01)
    assert "without sampling error" in found.words()


class TestCodesOfARaster:
    """5 is one class in this raster and another in the map: names or a crosswalk say which."""

    def test_codes_without_names_are_refused(self, map_path, truth, tmp_path):
        bare = write_map(tmp_path / "bare.tif", truth, scheme=None)
        with pytest.raises(LegendError, match="does not say what its values mean: 10, 20, 30") as caught:
            assess_map(map_path, reference=bare)
        assert "crosswalk" in str(caught.value)
        with pytest.raises(LegendError, match="does not say"):
            assess_map(map_path, reference=bare, scheme=SCHEME)

    def test_names_count_and_not_codes(self, map_path, truth, codes, tmp_path):
        turned = np.array([0, 20, 30, 10])[truth // 10].astype(np.uint8)
        names = ClassScheme(
            tuple(LandClass(c, n, "#117733") for c, n in ((20, "forest"), (30, "water"), (10, "field")))
        )
        found = assess_map(map_path, reference=write_map(tmp_path / "turned.tif", turned, scheme=names))
        assert found.figures.overall_accuracy.estimate == pytest.approx((codes == truth)[codes > 0].mean())
        numbers = ClassScheme(tuple(LandClass(c, str(n), "#117733") for c, n in ((20, 10), (30, 20), (10, 30))))
        with pytest.raises(LegendError, match="that the map does not have: 10, 20, 30"):
            assess_map(map_path, reference=write_map(tmp_path / "numbers.tif", turned, scheme=numbers))

    def test_a_crosswalk_leads_from_codes_to_names(self, map_path, truth, codes, tmp_path):
        bare = write_map(tmp_path / "bare.tif", truth, scheme=None)
        walk = {"10": "forest", "20": "water", "30": "field"}
        found = assess_map(map_path, reference=bare, crosswalk=walk)
        assert found.figures.overall_accuracy.estimate == pytest.approx((codes == truth)[codes > 0].mean())
        with pytest.raises(LegendError, match="mean: 30"):
            assess_map(map_path, reference=bare, crosswalk={"10": "forest", "20": "water"})


class TestBadInput:
    def test_points_outside_and_on_nodata_are_listed(self, map_path, tmp_path):
        rows, cols = [5, 100, 120, 5000, -3], [5, 100, 140, 10, 10]
        path = points(tmp_path / "p.gpkg", rows, cols, ["forest"] * 5, ids=[11, 12, 13, 14, 15])
        found = assess_map(map_path, reference=path, field="cover")
        report = found.sampling()["excluded"]
        assert report["by_reason"] == {"on nodata": 1, "outside the map": 2}
        assert {item["id"] for item in report["units"]} == {"11", "14", "15"}
        assert "3 of 5 reference units were left out" in found.words()
        assert "(2 outside the map: 14, 15; 1 on nodata: 11)" in found.words()

    def test_unknown_classes_need_a_crosswalk(self, map_path, tmp_path):
        path = points(tmp_path / "p.gpkg", [100, 120], [100, 140], ["Wald", "swamp"])
        with pytest.raises(LegendError, match="Wald, swamp") as caught:
            assess_map(map_path, reference=path, field="cover")
        assert "crosswalk" in str(caught.value)
        (tmp_path / "walk.csv").write_text("source,target\nWald,forest\nswamp,-\n")
        found = assess_map(map_path, reference=path, field="cover", crosswalk=tmp_path / "walk.csv")
        assert found.sampling()["excluded"]["by_reason"] == {"class left out by the crosswalk": 1}

    def test_duplicate_points(self, map_path, tmp_path):
        path = points(
            tmp_path / "p.gpkg",
            [100, 100, 120, 120, 150],
            [100, 100, 140, 140, 9],
            ["forest", "forest", "forest", "water", "field"],
        )
        units = read_reference(path, map_path=map_path, scheme=SCHEME, field="cover")
        assert len(units) == 2
        reasons = [item.reason for item in units.excluded]
        assert sorted(reasons) == ["in one pixel with a unit of another class"] * 2 + ["in one pixel with another unit"]

    def test_a_sample_that_does_not_match_its_design(self, map_path, truth, tmp_path):
        design = draw(map_path, size=60, seed=1)
        files = write_design(tmp_path / "s.gpkg", design)
        filled = interpret(files, truth, design)
        frame = geopandas.read_file(filled)
        moved = frame.copy()
        moved.geometry = moved.geometry.translate(500, 0)
        moved.to_file(tmp_path / "moved.gpkg")
        with pytest.raises(ReferenceDataError, match="lie elsewhere"):
            assess_map(map_path, reference=tmp_path / "moved.gpkg", field="reference", design=files.design)
        frame["id"] = frame["id"] + 1000
        frame.to_file(tmp_path / "other.gpkg")
        with pytest.raises(ReferenceDataError, match="does not have"):
            assess_map(map_path, reference=tmp_path / "other.gpkg", field="reference", design=files.design)
        frame.drop(columns="id").to_file(tmp_path / "bare.gpkg")
        with pytest.raises(ReferenceDataError, match="'id' of its design"):
            assess_map(map_path, reference=tmp_path / "bare.gpkg", field="reference", design=files.design)

    def test_units_that_were_not_interpreted_are_said(self, map_path, truth, tmp_path):
        design = draw(map_path, size=60, seed=1)
        files = write_design(tmp_path / "s.gpkg", design)
        found = assess_map(
            map_path, reference=interpret(files, truth, design, skip=4), field="reference", design=files.design
        )
        assert found.sampling()["excluded"]["by_reason"] == {"not interpreted": 4}
        assert "missing at random" in found.words()

    def test_another_crs_gives_the_same_figures(self, map_path, truth, tmp_path):
        rows, cols = np.arange(60, 180, 7), np.arange(60, 180, 7)
        values = [NAME[v] for v in truth[rows, cols]]
        a = assess_map(map_path, reference=points(tmp_path / "a.gpkg", rows, cols, values), field="cover")
        b = assess_map(
            map_path, reference=points(tmp_path / "b.geojson", rows, cols, values, crs="EPSG:4326"), field="cover"
        )
        assert a.figures.overall_accuracy == b.figures.overall_accuracy

    def test_csv_with_coordinates(self, map_path, tmp_path):
        (tmp_path / "p.csv").write_text("x,y,cover\n501005,5799005,forest\n501205,5798905,10\n")
        assert len(read_reference(tmp_path / "p.csv", map_path=map_path, scheme=SCHEME, field="cover")) == 2
        (tmp_path / "q.csv").write_text("a,cover\n1,forest\n")
        with pytest.raises(ReferenceDataError, match="without coordinates"):
            read_reference(tmp_path / "q.csv", map_path=map_path, scheme=SCHEME, field="cover")

    def test_missing_field_file_and_geometry(self, map_path, tmp_path):
        path = points(tmp_path / "p.gpkg", [100], [100], ["forest"])
        with pytest.raises(ReferenceDataError, match="no field 'klass'"):
            assess_map(map_path, reference=path, field="klass")
        with pytest.raises(ReferenceDataError, match="no such file"):
            assess_map(map_path, reference=tmp_path / "none.gpkg", field="cover")
        far = points(tmp_path / "far.gpkg", [9000], [100], ["forest"])
        with pytest.raises(ReferenceDataError, match="no usable reference unit"):
            assess_map(map_path, reference=far, field="cover")


def test_a_polygon_is_one_unit_whatever_its_size(tmp_path):
    codes = np.full((100, 100), 10, dtype=np.uint8)
    codes[:50] = 20
    path = write_map(tmp_path / "m.tif", codes)

    def square(row, col, size):
        return box(500_000 + col * 10, 5_800_000 - (row + size) * 10, 500_000 + (col + size) * 10, 5_800_000 - row * 10)

    shapes = [square(5, 5, 40), square(60, 60, 3), square(70, 70, 2), square(48, 10, 4), square(45, 60, 8)]
    frame = geopandas.GeoDataFrame({"cover": ["water", "forest", "field", "water", "forest"]}, geometry=shapes, crs=UTM)
    frame.to_file(tmp_path / "p.gpkg")
    found = assess_map(path, reference=tmp_path / "p.gpkg", field="cover")
    assert found.sampling()["excluded"]["by_reason"] == {"two classes of the map share it equally": 1}
    assert found.figures.error_matrix.counts.sum() == 4
    assert found.figures.overall_accuracy.estimate == pytest.approx(0.5)
    assert "A polygon counts once, whatever its size, and is right where the map gives its class" in found.words()


def test_a_polygon_is_right_by_the_class_of_most_pixels(map_path, tmp_path):
    codes = np.full((40, 40), 20, dtype=np.uint8)
    codes[:, :10] = 10  # 4 of 9 columns of the first polygon, 3 and 2 of the others: most, though not half
    codes[:, 13:15] = 30
    path = write_map(tmp_path / "m.tif", codes)
    shape = box(500_000 + 6 * 10, 5_800_000 - 200, 500_000 + 15 * 10, 5_800_000 - 100)
    frame = geopandas.GeoDataFrame({"cover": ["forest"]}, geometry=[shape], crs=UTM)
    frame.to_file(tmp_path / "p.gpkg")
    found = assess_map(path, reference=tmp_path / "p.gpkg", field="cover")
    assert found.figures.overall_accuracy.estimate == 1.0
    plain = points(tmp_path / "q.gpkg", [100], [100], ["forest"])
    assert "polygon" not in assess_map(map_path, reference=plain, field="cover").words()


def test_points_on_a_pixel_edge_and_without_geometry(map_path, tmp_path):
    frame = geopandas.GeoDataFrame({"cover": ["forest"] * 2}, geometry=[Point(501_000, 5_799_000), None], crs=UTM)
    frame.to_file(tmp_path / "p.gpkg")
    units = read_reference(tmp_path / "p.gpkg", map_path=map_path, scheme=SCHEME, field="cover")
    assert (units.row[0], units.col[0]) == (100, 100)
    assert [item.reason for item in units.excluded] == ["without geometry"]
