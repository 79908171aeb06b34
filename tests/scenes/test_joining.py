"""Scenes as the network sees them: which bands they are given where none are asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.errors import SceneError, SceneWarning
from pipeline.grid import Window
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.joining import composite_scenes, default_bands, join_scenes, warn_of_left
from pipeline.scenes.opening import open_scene
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import InputSettings, SceneOptions
from tests.fakes.rasters import write_raster
from tests.scenes.test_stack import holden

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

MSI = ("B01", "B02", "B03", "B04", "B08", "B8A", "B09", "B10", "B11", "B12")
GROUND = ("blue", "green", "red", "nir", "nir08", "swir16", "swir22")


def stack(folder: Path, bands: tuple[str, ...]) -> Scene:
    values = np.full((len(bands), 8, 8), 500, np.uint16)
    return open_scene(write_raster(folder / "stack.tif", values, names=bands))


def test_bands_of_air_are_left_out_and_said(tmp_path: Path) -> None:
    scene = stack(tmp_path, MSI)
    (source,) = join_scenes([("", scene)], InputSettings())
    with pytest.warns(SceneWarning, match=r"bands coastal, nir09, cirrus measure the air .* inputs\.bands"):
        warn_of_left(source)
    assert source.band_names == GROUND
    assert source.level == "L1C"


def test_bands_asked_for_are_used_whatever_they_measure(tmp_path: Path) -> None:
    wanted = ("cirrus", "red", "coastal")
    (source,) = join_scenes([("", stack(tmp_path, MSI))], InputSettings(bands=wanted))
    assert source.band_names == wanted
    assert source.level == "L1C"


def test_a_band_that_an_index_needs_stays(tmp_path: Path) -> None:
    scene = stack(tmp_path, ("green", "red", "nir08", "lwir11", "swir16"))
    kept, left = default_bands([scene], indices=["NDVI"])
    assert left == ("lwir11",)
    kept, left = default_bands([scene], indices=["EBBI"])  # built-up and bareness, of thermal and near infrared
    assert (left, "lwir11" in kept) == ((), True)


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (("coastal", "blue", "red", "nir08"), ()),  # Landsat's, at 30 m
        (("band 4 reflectance", "band 6 temperature"), ("band 6 temperature",)),
        (("SR_B4", "SR_B5", "SR_B6", "ST_B10"), ("lwir11",)),
        (("red", "nir", "elevation", "temperature"), ()),
        (("lwir11", "lwir12"), ()),
    ],
)
def test_landsats_thermal_bands_are_left_out(tmp_path: Path, names: tuple[str, ...], left: tuple[str, ...]) -> None:
    assert default_bands([stack(tmp_path, names)])[1] == left


SHAPE = (10, 14)
WHOLE = Window(0, 0, *SHAPE)


@pytest.fixture
def arrays() -> np.ndarray:
    """float32 [date, band, row, col] with clouds (NaN) in about half of the pixels, one pixel always clouded."""
    rng = np.random.default_rng(3)
    values = rng.uniform(0.01, 0.5, (5, 3, *SHAPE)).astype(np.float32)
    clouds = rng.random((5, *SHAPE)) < 0.5
    clouds[:, 4, 4] = True
    values[np.broadcast_to(clouds[:, None], values.shape)] = np.nan
    return values


@pytest.fixture
def scenes(tmp_path: Path, arrays: np.ndarray) -> list[Scene]:
    return [
        open_geotiff(
            write_raster(tmp_path / f"{position}.tif", values, names=("green", "red", "nir")),
            options=SceneOptions(acquired_utc=datetime(2021, 5 + position, 1, tzinfo=UTC)),
        )
        for position, values in enumerate(arrays)
    ]


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_the_median_equals_numpy_nanmedian(scenes: list[Scene], arrays: np.ndarray) -> None:
    with open_reader(composite_scenes(scenes)) as reader:
        raster = reader.read(WHOLE)
    expected = np.nanmedian(arrays, axis=0)
    seen = np.isfinite(arrays[:, 0]).sum(axis=0)
    np.testing.assert_array_equal(raster.valid, seen > 0)
    np.testing.assert_allclose(raster.values[:3, raster.valid], expected[:, raster.valid], atol=1e-6)
    assert not raster.valid[4, 4]
    assert (raster.values[:, 4, 4] == 0).all()


def test_the_medoid_is_the_date_of_the_least_sum_of_distances(scenes: list[Scene], arrays: np.ndarray) -> None:
    with open_reader(composite_scenes(scenes, method="medoid")) as reader:
        raster = reader.read(WHOLE)
    for row, col in zip(*np.nonzero(raster.valid), strict=True):
        series = arrays[:, :, row, col]
        series = series[np.isfinite(series[:, 0])].astype(float)
        cost = np.linalg.norm(series[:, None] - series[None], axis=2).sum(axis=1)
        np.testing.assert_allclose(raster.values[:, row, col], series[cost.argmin()], atol=1e-7)


def test_the_greenest_is_the_date_of_the_highest_ndvi(scenes: list[Scene], arrays: np.ndarray) -> None:
    with open_reader(composite_scenes(scenes, method="greenest")) as reader:
        raster = reader.read(WHOLE)
    red, nir = arrays[:, 1].astype(float), arrays[:, 2].astype(float)
    ndvi = np.where(np.isfinite(red), (nir - red) / (nir + red), -9)
    rows, cols = np.indices(SHAPE)
    expected = arrays[ndvi.argmax(axis=0), :, rows, cols].transpose(2, 0, 1)
    np.testing.assert_array_equal(raster.values[:, raster.valid], expected[:, raster.valid])


def test_selecting_bands_changes_neither_date_nor_validity(scenes: list[Scene]) -> None:
    for method in ("median", "medoid", "greenest"):
        composite = composite_scenes(scenes, method=method, min_dates=2)
        with open_reader(composite) as full, open_reader(composite.select(["green"])) as one:
            whole, part = full.read(WHOLE), one.read(WHOLE)
        np.testing.assert_array_equal(part.band("green"), whole.band("green"))
        np.testing.assert_array_equal(part.valid, whole.valid)


def test_windows_equal_the_whole_and_reach_beyond_the_grid(scenes: list[Scene]) -> None:
    for method in ("median", "medoid", "greenest"):
        with open_reader(composite_scenes(scenes, method=method)) as reader:
            whole, part = reader.read(WHOLE), reader.read(Window(7, -1, 6, 5))
        np.testing.assert_array_equal(part.values[:, :3, 1:], whole.values[:, 7:, :4])
        assert not part.valid[3:].any()
        assert not part.valid[:, 0].any()


def test_what_cannot_be_composed_is_refused(scenes: list[Scene]) -> None:
    with pytest.raises(SceneError, match="index NDVI needs band nir or nir08"):
        composite_scenes([scene.select(["red", "green"]) for scene in scenes], method="greenest")
    with pytest.raises(SceneError, match="min_dates of a composite; got 9"):
        composite_scenes(scenes, min_dates=9)
    with pytest.raises(SceneError, match="min_dates of a composite"):
        composite_scenes([])


def test_the_ledger_holds_the_rule_and_every_date(scenes: list[Scene]) -> None:
    composite = composite_scenes(scenes[::-1], method="medoid")
    ledger = composite.ledger()
    assert (ledger["method"], ledger["min_dates"]) == ("medoid", 1)
    assert [entry["scene"] for entry in ledger["scenes"]] == [scene.id for scene in scenes]
    assert composite.acquired_utc == scenes[0].acquired_utc


def test_two_real_dates_compose_and_clouds_vanish(shared_data: Path) -> None:
    first, second = holden(shared_data)
    window = Window(0, 0, 250, 250)
    with open_reader(first) as one, open_reader(second) as two:
        a, b = one.read(window), two.read(window)
    for method in ("median", "medoid", "greenest"):
        with open_reader(composite_scenes([first, second], method=method)) as reader:
            raster = reader.read(window)
        np.testing.assert_array_equal(raster.valid, a.valid | b.valid)
        only_first = a.valid & ~b.valid
        np.testing.assert_array_equal(raster.values[:, only_first], a.values[:, only_first])
