from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accuracy.sample_allocation import allocate, sample_size
from pipeline.accuracy.sample_design import read_design, write_design
from pipeline.accuracy.sample_strata import ChangeStrata, MapStrata, PolygonStrata, RasterStrata
from pipeline.errors import ConfigError, ReferenceDataError
from pipeline.grid import Grid
from tests.accuracy.maps import SCHEME, UTM, draw, patchy, spoil, write_map
from tests.accuracy.published import OLOFSSON_PIXELS


@pytest.fixture
def codes():
    return patchy()


@pytest.fixture
def map_path(tmp_path, codes, monkeypatch):
    # Several strips even for a small map.
    monkeypatch.setattr("pipeline.accuracy.class_maps.STRIP_PIXELS", 300 * 64)
    return write_map(tmp_path / "map.tif", codes)


class TestSampleSize:
    """Olofsson et al. (2014), section 5.1.1 and table 5: W, expected U, target 0.01."""

    def test_published_example(self):
        assert sample_size(OLOFSSON_PIXELS, expected_users=[0.7, 0.6, 0.9, 0.95], target_se=0.01) == 641

    def test_equal_and_proportional_columns_of_table_5(self):
        assert allocate(641, units=OLOFSSON_PIXELS, method="proportional") == [13, 10, 205, 413]
        assert sorted(allocate(641, units=OLOFSSON_PIXELS, method="equal")) == [160, 160, 160, 161]

    def test_compromise_gives_rare_classes_their_fixed_size(self):
        # The paper's three trials give 100, 75 or 50 to each change class; the rest follows the stable classes' sizes.
        for rare in (100, 75, 50):
            found = allocate(641, units=OLOFSSON_PIXELS, method="olofsson", rare_size=rare)
            assert found[:2] == [rare, rare]
            assert found[2] / found[3] == pytest.approx(0.320 / 0.645, abs=0.01)

    def test_a_small_map_needs_fewer(self):
        assert sample_size([500, 500], expected_users=[0.8, 0.8], target_se=0.01) < 1000

    def test_neyman_follows_size_times_spread(self):
        found = allocate(1000, units=[1e6, 1e6], method="neyman", expected_users=[0.5, 0.9])
        assert found[0] / found[1] == pytest.approx(0.5 / 0.3, abs=0.01)

    @given(
        st.lists(st.integers(2, 10**7), min_size=1, max_size=12),
        st.sampled_from(["equal", "proportional", "olofsson", "neyman"]),
        st.floats(0.05, 1.0),
    )
    def test_allocations_add_up_and_fit(self, units, method, part):
        total = min(max(int(sum(units) * part), 2 * len(units)), sum(units))
        found = allocate(total, units=units, method=method, expected_users=[0.8] * len(units), rare_size=5)
        assert sum(found) == total
        assert all(2 <= n <= size for n, size in zip(found, units, strict=True))

    def test_a_sample_too_small_for_rare_classes_is_shared_equally(self, tmp_path):
        assert allocate(120, units=OLOFSSON_PIXELS, method="olofsson") == [30, 30, 30, 30]
        path = write_map(tmp_path / "map.tif", patchy())
        small, large = (draw(path, size=size) for size in (100, 600))
        assert small.allocation == "equal, as olofsson's 75 for every rare stratum are more than the sample has (100)"
        assert large.allocation == "olofsson"
        files = write_design(tmp_path / "small.gpkg", small)
        assert read_design(files.design).allocation == small.allocation

    def test_bad_wishes_are_refused(self):
        with pytest.raises(ReferenceDataError, match="sample size"):
            allocate(3, units=[10, 10], method="equal")
        with pytest.raises(ReferenceDataError, match="one per stratum"):
            sample_size([10], expected_users=[0.5, 0.5], target_se=0.1)


class TestStratified:
    def test_units_lie_in_their_stratum_once_and_on_valid_pixels(self, map_path, codes):
        design = draw(map_path, size=150, seed=3)
        assert (codes[design.row, design.col] == design.map_code).all()
        assert len(set(zip(design.row.tolist(), design.col.tolist(), strict=True))) == 150
        for index, stratum in enumerate(design.strata):
            assert (design.stratum == index).sum() == stratum.drawn
            assert (design.map_code[design.stratum == index] == stratum.value).all()
            assert stratum.units == (codes == stratum.value).sum()
            assert stratum.area_ha == pytest.approx(stratum.units * 0.01)
            assert design.inclusion[design.stratum == index] == pytest.approx(stratum.drawn / stratum.units)

    def test_one_seed_gives_one_sample_and_another_another(self, map_path):
        a, b, c = (draw(map_path, size=60, seed=seed) for seed in (1, 1, 2))
        assert (a.row == b.row).all()
        assert (a.col == b.col).all()
        assert (a.row != c.row).any()

    def test_every_pixel_of_a_stratum_has_the_same_chance(self, map_path, codes):
        hits = np.zeros(codes.shape)
        for seed in range(150):
            design = draw(map_path, size=300, allocation="equal", seed=seed)
            hits[design.row, design.col] += 1
        # Halves of a stratum, whatever strip they lie in, are hit alike: |z| < 4.
        for code in SCHEME.codes:
            inside = np.flatnonzero(codes == code)
            first, second = hits.ravel()[inside[: len(inside) // 2]], hits.ravel()[inside[len(inside) // 2 :]]
            spread = np.sqrt(first.sum() + second.sum())
            assert abs(first.sum() - second.sum() * len(first) / len(second)) < 4 * spread

    def test_size_follows_from_target_and_expected_accuracies(self, map_path):
        design = draw(map_path, expected=0.8, target_se=0.03, allocation="proportional")
        assert len(design) == pytest.approx((0.4 / 0.03) ** 2, abs=2)
        assert "0.03" in design.allocation

    def test_a_least_distance_is_refused_with_what_to_do(self, map_path):
        with pytest.raises(ConfigError, match=r"minimum_distance_m' went; .*systematic"):
            draw(map_path, size=80, minimum_distance_m=120)


class TestOtherStrata:
    def test_change_between_two_maps(self, map_path, codes, tmp_path):
        later = write_map(tmp_path / "later.tif", spoil(codes))
        with ChangeStrata(map_path, later, scheme=SCHEME) as strata:
            design = draw(map_path, size=90, strata=strata, allocation="equal")
        names = {stratum.name for stratum in design.strata}
        assert {"stable forest", "forest -> water", "field -> forest"} <= names
        assert sum(stratum.units for stratum in design.strata) == (codes > 0).sum()

    def test_intervals_of_a_confidence_layer(self, map_path, codes, tmp_path):
        confidence = np.tile(np.arange(300) * 100 // 300, (200, 1)).astype(np.uint8)
        path = tmp_path / "confidence.tif"
        with rasterio.open(map_path) as source:
            profile = source.profile | {"nodata": 255}
            grid = Grid.of(source)
        with rasterio.open(path, "w", **profile) as target:
            target.write(confidence, 1)
        with RasterStrata(path, grid, edges=(50, 80)) as strata:
            design = draw(map_path, size=60, strata=strata, allocation="equal")
        assert [stratum.name for stratum in design.strata] == ["below 50", "50 to 80", "80 and more"]
        assert (confidence[design.row, design.col][design.stratum == 2] >= 80).all()
        assert design.strata[0].units == ((confidence < 50) & (codes > 0)).sum()

    def test_polygons_with_a_field(self, map_path, tmp_path):
        import geopandas
        from shapely.geometry import box

        halves = geopandas.GeoDataFrame(
            {"side": ["west", "east"]},
            geometry=[box(500_000, 5_798_000, 501_500, 5_800_000), box(501_500, 5_798_000, 503_000, 5_800_000)],
            crs=UTM,
        ).to_crs("EPSG:4326")
        halves.to_file(tmp_path / "sides.gpkg")
        with rasterio.open(map_path) as source:
            grid = Grid.of(source)
        with PolygonStrata(tmp_path / "sides.gpkg", grid, field="side") as strata:
            design = draw(map_path, size=40, strata=strata, allocation="equal")
        assert [stratum.name for stratum in design.strata] == ["east", "west"]
        assert (design.col[design.stratum == 0] >= 149).all()
        assert (design.col[design.stratum == 1] <= 150).all()


class TestSimpleAndClusters:
    def test_a_simple_random_sample_lies_on_valid_pixels(self, map_path, codes):
        design = draw(map_path, kind="simple_random", size=100, seed=1)
        assert len(design) == 100
        assert (codes[design.row, design.col] > 0).all()
        assert design.inclusion == pytest.approx(100 / (codes > 0).sum())

    def test_a_systematic_sample_with_one_start_is_a_square_grid(self, map_path, codes):
        design = draw(map_path, kind="systematic", size=500, starts=1, seed=1)
        step = int(np.sqrt((codes > 0).sum() / 500))
        assert len(set(design.row % step)) == 1
        assert len(set(design.col % step)) == 1
        assert (codes[design.row, design.col] > 0).all()
        assert len(design) == pytest.approx((codes > 0).sum() / step**2, rel=0.1)
        assert "no unbiased variance" in design.notes[0]

    def test_several_starts_are_whole_grids_without_repetition(self, map_path, codes):
        design = draw(map_path, kind="systematic", size=500, starts=8, seed=1)
        step = int(np.sqrt((codes > 0).sum() * 8 / 500))
        assert design.clusters.in_frame == step**2
        first = set()
        for k in range(8):
            rows, cols = design.row[design.clusters.unit == k], design.col[design.clusters.unit == k]
            row, col = set(rows % step), set(cols % step)
            assert (len(row), len(col)) == (1, 1)
            first.add((row.pop(), col.pop()))
            assert (
                (codes[rows[0] % step :: step, cols[0] % step :: step] > 0).sum()
                == len(rows)
                == design.clusters.sizes[k]
            )
        assert len(first) == 8
        assert design.inclusion == pytest.approx(8 / step**2)
        assert design.notes == ()

    def test_every_pixel_may_start_a_grid(self, tmp_path):
        path = write_map(tmp_path / "small.tif", patchy(shape=(12, 12), nodata=False))
        hits = np.zeros((12, 12))
        for seed in range(300):
            design = draw(path, kind="systematic", size=36, starts=4, seed=seed)
            hits[design.row, design.col] += 1
        assert hits.min() > 0
        assert hits.mean() == pytest.approx(300 * 36 / 144, rel=0.05)

    def test_more_starts_than_units_are_refused(self, map_path):
        with pytest.raises(ReferenceDataError, match="random starts"):
            draw(map_path, kind="systematic", size=5, starts=6)
        with pytest.raises(ReferenceDataError, match="sample size"):
            draw(map_path, kind="systematic", size=10**9)

    def test_one_stage_takes_every_valid_pixel_of_its_squares(self, map_path, codes):
        design = draw(map_path, kind="cluster", size=12, cluster_px=7, seed=2)
        for k in range(12):
            rows, cols = design.row[design.clusters.unit == k], design.col[design.clusters.unit == k]
            top, left = rows[0] // 7 * 7, cols[0] // 7 * 7
            assert (codes[top : top + 7, left : left + 7] > 0).sum() == len(rows) == design.clusters.sizes[k]
        filled = sum((codes[r : r + 7, c : c + 7] > 0).any() for r in range(0, 200, 7) for c in range(0, 300, 7))
        assert design.clusters.in_frame == filled

    def test_two_stages_take_some(self, map_path):
        design = draw(map_path, kind="two_stage", size=20, cluster_px=10, per_cluster=4, seed=2)
        assert np.bincount(design.clusters.unit).tolist() == [4] * 20
        expected = 20 / design.clusters.in_frame * 4 / design.clusters.sizes[design.clusters.unit]
        assert design.inclusion == pytest.approx(expected)

    def test_squares_of_strata_have_most_of_their_pixels_in_them(self, map_path, codes):
        side = 10
        design = draw(map_path, kind="cluster", size=30, cluster_px=side, strata="map", allocation="equal")
        assert [stratum.name for stratum in design.strata] == ["forest", "water", "field"]
        assert np.bincount(design.clusters.stratum).tolist() == [10, 10, 10]
        of_square = np.array(
            [
                np.bincount(codes[r : r + side, c : c + side].ravel(), minlength=31)[1:].argmax() + 1
                for r in range(0, 200, side)
                for c in range(0, 300, side)
                if codes[r : r + side, c : c + side].any()
            ]
        )
        assert design.clusters.in_stratum == tuple(int((of_square == code).sum()) for code in (10, 20, 30))
        assert sum(stratum.units for stratum in design.strata) == (codes > 0).sum()
        assert sum(stratum.area_ha for stratum in design.strata) == pytest.approx((codes > 0).sum() * 0.01)
        for k in range(30):
            row, col = (
                design.row[design.clusters.unit == k][0] // side * side,
                design.col[design.clusters.unit == k][0] // side * side,
            )
            inside = codes[row : row + side, col : col + side]
            assert (
                np.bincount(inside.ravel(), minlength=31)[1:].argmax() + 1 == (10, 20, 30)[design.clusters.stratum[k]]
            )
        chance = np.array([10, 10, 10]) / np.array(design.clusters.in_stratum)
        assert design.inclusion == pytest.approx(chance[design.clusters.stratum[design.clusters.unit]])

    def test_squares_without_a_stratum_are_not_drawn(self, map_path, codes, tmp_path):
        west = np.zeros_like(codes)
        west[:, :100] = 7
        path = write_map(tmp_path / "west.tif", west, scheme=None)
        with rasterio.open(map_path) as source:
            grid = Grid.of(source)
        with RasterStrata(path, grid) as strata:
            design = draw(map_path, kind="two_stage", size=20, cluster_px=8, per_cluster=3, strata=strata)
        assert [stratum.name for stratum in design.strata] == ["7"]
        assert design.col.max() < 104
        assert design.allocation == "20 of 310 squares, 3 pixels in each; squares by stratum: 20 (proportional)"

    def test_too_many_are_refused(self, map_path):
        with pytest.raises(ReferenceDataError, match="number of clusters"):
            draw(map_path, kind="cluster", size=10**6, cluster_px=10)
        with pytest.raises(ReferenceDataError, match="sample size"):
            draw(map_path, kind="simple_random", size=10**9)


def test_a_geographic_map_gives_geodesic_areas(tmp_path):
    path = write_map(tmp_path / "g.tif", patchy(), crs="EPSG:4326", origin=(13.0, 52.0), pixel=0.0001)
    design = draw(path, kind="simple_random", size=10)
    with rasterio.open(path) as source:
        grid = Grid.of(source)
    expected = ((patchy() > 0).sum(axis=1) * grid.pixel_areas_ha()[:, 0]).sum()
    assert design.strata[0].area_ha == pytest.approx(expected)
    assert sum(design.class_area_ha.values()) == pytest.approx(expected)


def _by_strata(map_path):
    with MapStrata(map_path, SCHEME) as strata:
        return draw(map_path, kind="two_stage", size=9, cluster_px=10, per_cluster=3, strata=strata, seed=9)


def test_a_design_comes_back_from_its_file(map_path, tmp_path):
    for design in (
        draw(map_path, size=30, seed=9),
        draw(map_path, kind="two_stage", size=5, cluster_px=10, per_cluster=3, seed=9),
        draw(map_path, kind="systematic", size=60, starts=5, seed=9),
        _by_strata(map_path),
    ):
        files = write_design(tmp_path / "s.gpkg", design, overwrite=True)
        again = read_design(files.design)
        assert again.to_json() == design.to_json()


def test_files_that_are_no_designs_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ReferenceDataError, match="not a sampling design"):
        read_design(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"format": "landcover sampling design 1", "kind": "stratified"}')
    with pytest.raises(ReferenceDataError, match="incomplete"):
        read_design(tmp_path / "b.json")
    with pytest.raises(ReferenceDataError, match="cannot read the sampling design"):
        read_design(tmp_path / "c.json")
