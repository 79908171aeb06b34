from __future__ import annotations

import csv
import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from pipeline.accuracy.series import annual_maps, most_likely, read_costs
from pipeline.accuracy.settings import ReferenceSettings
from pipeline.accuracy.totals import assess_panel, slope_weights
from pipeline.cli import main
from pipeline.errors import ConfigError, GridError, LegendError, ReferenceDataError
from pipeline.grid import Grid
from pipeline.legend import ClassScheme
from pipeline.maps.geotiff import write_class_map, write_percent
from pipeline.maps.legends import read_scheme
from pipeline.maps.style import CONFIDENCE
from tests.accuracy.maps import SCHEME, UTM
from tests.fakes.pixels import ArrayPixels

YEARS = (2019, 2020, 2021, 2022)
FOREST, WATER, FIELD = SCHEME.codes
GRID = Grid(CRS.from_string(UTM), Affine(10, 0, 500_000, 0, -10, 5_800_000), 40, 60)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def write_year(
    folder: Path, year: int, codes: np.ndarray, *, sure: int | None = None, grid: Grid | None = None
) -> Path:
    grid = grid or Grid(GRID.crs, GRID.transform, *codes.shape)
    path = folder / f"s2_{year}_lc.tif"
    write_class_map(path, ArrayPixels(codes.astype(np.uint8)), grid=grid, scheme=SCHEME)
    if sure is not None:
        percent = np.full(codes.shape, sure, dtype=np.uint8)
        write_percent(folder / f"s2_{year}_conf.tif", ArrayPixels(percent), grid=grid, layer=CONFIDENCE)
    return path


@pytest.fixture
def flicker(tmp_path):
    """Four years of forest; water in 2020 in one corner; a lasting change to field on the right."""
    truth = np.full((4, 40, 60), FOREST, dtype=np.uint8)
    truth[2:, :, 40:] = FIELD
    maps = truth.copy()
    maps[1, :10, :10] = WATER
    return [write_year(tmp_path, year, codes, sure=80) for year, codes in zip(YEARS, maps, strict=True)], truth


def run(*arguments: object) -> int:
    return main(["series", *map(str, arguments)])


def test_a_flicker_goes_and_a_lasting_change_stays(flicker, tmp_path):
    paths, truth = flicker
    assert run(*paths, "-o", tmp_path / "out") == 0
    for year, codes in zip(YEARS, truth, strict=True):
        out = tmp_path / "out" / f"s2_{year}_lc.tif"
        assert (read(out) == codes).all()
        assert read_scheme(out).hash == SCHEME.hash
        assert (read(tmp_path / "out" / f"s2_{year}_conf.tif") > 70).all()  # the year before a change is the least sure
    data = json.loads((tmp_path / "out" / "series.json").read_text())
    assert data["flickers_ha"]["before"] > 0 == data["flickers_ha"]["after"]
    rows = list(csv.DictReader((tmp_path / "out" / "transitions.csv").read_text().splitlines()))
    lasting = next(row for row in rows if row["from"] == "forest" and row["to"] == "field")
    assert float(lasting["before_ha"]) == float(lasting["after_ha"]) > 0


def test_illogical_changes_are_listed_and_do_not_remain(tmp_path, capsys):
    maps = np.full((4, 20, 30), WATER, dtype=np.uint8)  # water that becomes forest for good
    maps[2:] = FOREST
    paths = [write_year(tmp_path, year, codes, sure=90) for year, codes in zip(YEARS, maps, strict=True)]
    (tmp_path / "costs.csv").write_text("from,to,cost\nwater,*,never\n", encoding="utf-8")
    assert run(*paths, "-o", tmp_path / "out", "--costs", tmp_path / "costs.csv") == 0
    assert "illogical" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "transitions.csv").read_text().splitlines()))
    assert [(row["illogical"], float(row["after_ha"])) for row in rows] == [("True", 0.0)]


def test_two_maps_years_apart_promise_neither_years_nor_areas(tmp_path, capsys):
    maps = np.full((2, 20, 30), WATER, dtype=np.uint8)
    maps[1] = FOREST
    paths = [write_year(tmp_path, year, codes, sure=90) for year, codes in zip((2015, 2022), maps, strict=True)]
    assert run(*paths, "-o", tmp_path / "out") == 0
    text = capsys.readouterr().out
    assert "6.0 ha of change map by map, none declared illogical" in text
    assert "changes, the largest first" in text
    assert "no area estimates" in text
    assert "change and back" not in text


def test_gaps_are_filled_and_what_has_no_year_stays_nodata(tmp_path):
    maps = np.full((4, 20, 30), FOREST, dtype=np.uint8)
    maps[1, :5] = 0
    maps[:, :, :3] = 0
    paths = [write_year(tmp_path, year, codes) for year, codes in zip(YEARS, maps, strict=True)]
    assert run(*paths, "-o", tmp_path / "out") == 0
    assert np.unique(read(tmp_path / "out" / "s2_2020_lc.tif")[:, 3:]).tolist() == [FOREST]
    assert not read(tmp_path / "out" / "s2_2020_lc.tif")[:, :3].any()


def test_the_path_is_that_of_all_paths_tried():
    rng = np.random.default_rng(0)
    years, classes = 4, 3
    cost = rng.random((years, classes, 50)).astype(np.float32) * 3
    step = rng.random((classes, classes)) + 0.1
    step /= step.sum(axis=1, keepdims=True)
    path, sure = most_likely(cost, [step] * (years - 1))
    ways = np.stack(np.meshgrid(*[np.arange(classes)] * years, indexing="ij")).reshape(years, -1)
    logs = -sum(cost[t, ways[t]] for t in range(years)) + sum(
        np.log(step[ways[t], ways[t + 1]]) for t in range(years - 1)
    )[:, None]  # fmt: skip
    assert (ways[:, logs.argmax(axis=0)] == path).all()
    weight = np.exp(logs - logs.max(axis=0))
    weight /= weight.sum(axis=0)
    for year in range(years):
        own = [(weight[:, i][ways[year] == path[year, i]]).sum() for i in range(50)]
        assert sure[year] == pytest.approx(own, rel=1e-4)


def test_memory_and_strips_do_not_change_the_maps(flicker, tmp_path, monkeypatch):
    paths, _ = flicker
    run(*paths, "-o", tmp_path / "one")
    monkeypatch.setattr("pipeline.accuracy.series._STRIP_BYTES", 20_000)
    run(*paths, "-o", tmp_path / "two")
    for path in paths:
        assert (read(tmp_path / "one" / path.name) == read(tmp_path / "two" / path.name)).all()


def panel_of(path: Path, maps: np.ndarray, *, n: int = 200, seed: int = 0) -> geopandas.GeoDataFrame:
    rng = np.random.default_rng(seed)
    cells = rng.choice(maps[0].size, n, replace=False)
    row, col = np.divmod(cells, maps.shape[2])
    x, y = GRID.transform @ (col + 0.5, row + 0.5)
    names = {item.code: item.name for item in SCHEME.classes}
    table = {"id": np.arange(1, n + 1)} | {
        f"class_{year}": [names[int(code)] for code in codes[row, col]] for year, codes in zip(YEARS, maps, strict=True)
    }
    frame = geopandas.GeoDataFrame(table, geometry=geopandas.points_from_xy(x, y), crs=GRID.crs.to_wkt())
    frame.to_file(path)
    return frame


def settings(path: Path, **more: object) -> ReferenceSettings:
    return ReferenceSettings(reference=path, field="class_{year}", design="simple random", **more)


def test_areas_and_trend_of_a_panel_hold_the_truth(flicker, tmp_path):
    paths, truth = flicker
    panel_of(tmp_path / "panel.gpkg", truth)
    found = assess_panel(annual_maps(paths), paths, settings(tmp_path / "panel.gpkg"))
    maps = annual_maps(paths)
    for code, name in zip(SCHEME.codes, SCHEME.names, strict=True):
        areas = (truth == code).sum(axis=(1, 2)) * maps.grid.pixel_areas_ha(maps.grid.window).max()
        trend = found.trend_ha[name]
        if trend.ci95 is not None:
            assert trend.ci95[0] - 1e-9 <= slope_weights(YEARS) @ areas <= trend.ci95[1] + 1e-9
    assert found.trend_ha["field"].estimate > 0 > found.trend_ha["forest"].estimate


def test_units_with_a_gap_are_left_out_of_all_years(flicker, tmp_path):
    paths, truth = flicker
    frame = panel_of(tmp_path / "panel.gpkg", truth)
    frame.loc[:9, "class_2020"] = None
    frame.to_file(tmp_path / "gaps.gpkg")
    found = assess_panel(annual_maps(paths), paths, settings(tmp_path / "gaps.gpkg"))
    assert found.gaps == 10
    assert "10 units lack a year" in found.words()
    frame["class_2020"] = None
    frame.loc[0, "class_2020"] = "forest"
    frame.loc[0, "class_2019"] = None
    frame.to_file(tmp_path / "none.gpkg")
    with pytest.raises(ReferenceDataError, match="no unit of the panel has a class in every year"):
        assess_panel(annual_maps(paths), paths, settings(tmp_path / "none.gpkg"))


def test_three_points_give_no_interval_that_is_made_up(flicker, tmp_path):
    paths, truth = flicker
    panel_of(tmp_path / "three.gpkg", np.full_like(truth, FOREST), n=3)
    found = assess_panel(annual_maps(paths), paths, settings(tmp_path / "three.gpkg"))
    assert found.trend_ha["forest"].ci95 is None


def test_a_sample_of_another_design_is_refused_in_a_line(flicker, tmp_path):
    from pipeline.accuracy.sample_design import write_design
    from tests.accuracy.maps import draw

    paths, truth = flicker
    write_design(tmp_path / "other.gpkg", draw(paths[0], size=150, kind="simple_random", seed=9))
    panel_of(tmp_path / "panel.gpkg", truth)
    wrong = settings(tmp_path / "panel.gpkg").model_copy(update={"design": str(tmp_path / "other_design.json")})
    with pytest.raises(ReferenceDataError, match=r"lie elsewhere|does not have"):
        assess_panel(annual_maps(paths), paths, wrong)


def test_strata_of_a_panel_are_those_of_one_map(flicker, tmp_path):
    paths, truth = flicker
    panel_of(tmp_path / "panel.gpkg", truth)
    plain = settings(tmp_path / "panel.gpkg").model_copy(update={"design": None})
    with pytest.raises(ReferenceDataError, match="strata of a panel change with the map of each year"):
        assess_panel(annual_maps(paths), paths, plain.model_copy(update={"strata": "map"}))
    found = assess_panel(annual_maps(paths), paths, plain.model_copy(update={"strata": str(paths[0])}))
    assert len({tuple(item.design.frame.sizes) for item in found.assessments}) == 1


def test_maps_that_are_no_series_are_refused_in_a_line(flicker, tmp_path):
    paths, truth = flicker
    other = tmp_path / "other"
    other.mkdir()
    shifted = Grid(GRID.crs, GRID.transform @ GRID.transform.translation(0.5, 0), *truth[0].shape)
    with pytest.raises(GridError, match=r"other pixels than s2_2019_lc\.tif"):
        annual_maps([paths[0], write_year(other, 2023, truth[0], grid=shifted)])
    legend = ClassScheme(SCHEME.classes[:2])
    write_class_map(
        other / "s2_2024_lc.tif",
        ArrayPixels(np.full((40, 60), FOREST, np.uint8)),
        grid=annual_maps(paths).grid,
        scheme=legend,
    )
    with pytest.raises(LegendError, match="maps have different legends"):
        annual_maps([paths[0], other / "s2_2024_lc.tif"])
    with pytest.raises(ReferenceDataError, match="two maps or more"):
        annual_maps(paths[:1])
    with pytest.raises(ReferenceDataError, match="two maps of the year 2019"):
        annual_maps([paths[0], paths[0]])
    with pytest.raises(ReferenceDataError, match="--years"):
        annual_maps([paths[0], paths[1].rename(tmp_path / "map_lc.tif")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "from,to,cost"),
        ("from,to,cost\nx,water,1\n", "unknown class"),
        ("from,to,cost\n*,water,-1\n", "0 or more"),
        ("from,to,cost\n*,water,1e999\n", "0 or more"),
    ],
)
def test_costs_that_cannot_be_used_are_said(text, message, tmp_path):
    (tmp_path / "costs.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_costs(tmp_path / "costs.csv", SCHEME)


@pytest.mark.parametrize("text", ["from,to,cost\nforest,water,1,5\n", 'from,to,cost\n"' + "x" * 200_000 + '",*,1\n'])
def test_costs_of_more_columns_or_endless_text_are_refused(tmp_path, text):
    (tmp_path / "costs.csv").write_text(text)
    with pytest.raises(ConfigError):
        read_costs(tmp_path / "costs.csv", SCHEME)


@pytest.mark.parametrize("option", ["--change-cost=nan", "--change-cost=0", "--accuracy=inf", "--years=2018,-1"])
def test_settings_that_are_no_numbers_are_refused(option, flicker, tmp_path):
    assert run(*flicker[0], "-o", tmp_path / "out", option) == 2
    assert not (tmp_path / "out").exists()


def test_a_panel_that_cannot_be_used_leaves_no_maps(flicker, tmp_path, capsys):
    paths, _ = flicker
    points = geopandas.points_from_xy([500_005], [5_799_995])
    geopandas.GeoDataFrame({"c": ["forest"]}, geometry=points, crs=UTM).to_file(tmp_path / "panel.gpkg")
    out = tmp_path / "out"
    for more in (["--field", "nope_{year}"], ["--field", "c"], ["--field", "c_{year}", "--design", "missing.json"]):
        assert run(*paths, "-o", out, "--reference", tmp_path / "panel.gpkg", *more) == 2
        assert not out.exists()
    assert run(*paths, "-o", out, "--field", "class_{year}") == 2
    assert "add --reference" in capsys.readouterr().err
    assert not out.exists()


def test_a_panel_of_polygons_leaves_no_maps_or_no_trend(flicker, tmp_path, capsys):
    paths, _ = flicker
    squares = [shapely.box(500_000, 5_799_970, 500_030, 5_800_000)]
    frame = geopandas.GeoDataFrame({f"c_{year}": ["forest"] for year in YEARS}, geometry=squares, crs=UTM)
    frame.to_file(tmp_path / "panel.gpkg")
    given = ["--reference", tmp_path / "panel.gpkg", "--field", "c_{year}"]
    assert run(*paths, "-o", tmp_path / "out", *given, "--design", "simple random") == 2
    assert "polygons" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(*paths, "-o", tmp_path / "out", *given) == 0
    trend = json.loads((tmp_path / "out" / "series.json").read_text())["panel"]["trend_ha_per_year"]
    assert trend["forest"]["estimate"] is None
    assert "not a probability sample" in trend["forest"]["note"]


def test_confidence_without_a_number_counts_as_none(flicker, tmp_path):
    paths, _ = flicker
    beside = paths[0].with_name("s2_2019_conf.tif")
    with rasterio.open(beside) as dataset:
        profile = dataset.profile | {"dtype": "float32", "nodata": np.nan, "driver": "GTiff"}
    beside.unlink()
    with rasterio.open(beside, "w", **profile) as dataset:
        dataset.write(np.full((1, *GRID.shape), np.nan, dtype=np.float32))
    assert run(*paths, "-o", tmp_path / "out") == 0
    sure = (
        read(tmp_path / "out" / "s2_2019_lc_conf.tif")
        if (tmp_path / "out" / "s2_2019_lc_conf.tif").exists()
        else (read(tmp_path / "out" / "s2_2019_conf.tif"))
    )
    assert 50 < sure.min() <= sure.max() <= 100
