"""Fill that no tag declares is found by its area; measurements are not taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.scenes.fill import find_fill
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.settings import SceneOptions
from tests.fakes.rasters import write_raster

SHAPE = (3, 80, 90)


def noise(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 3000, SHAPE).astype(dtype)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(0, "uint16"), (-9999, "int16"), (-32768, "int16"), (65535, "uint16"), (-3.4028235e38, "float32")],
)
def test_one_value_over_a_part_is_fill_with_its_share(tmp_path: Path, value: float, dtype: str) -> None:
    values = noise(dtype)
    values[:, :, :30] = value
    found = find_fill(open_geotiff(write_raster(tmp_path / "a.tif", values)))
    assert found is not None
    assert found.value == pytest.approx(value)
    assert found.share == pytest.approx(1 / 3, abs=1e-3)


def test_a_value_of_one_band_is_no_fill(tmp_path: Path) -> None:
    values = noise()
    values[0, :, :30] = 0
    assert find_fill(open_geotiff(write_raster(tmp_path / "a.tif", values))) is None
    flat = np.zeros((80, 90), np.float32)  # a plain, a lake
    assert find_fill(open_geotiff(write_raster(tmp_path / "b.tif", flat))) is None


def test_scattered_pixels_are_no_fill(tmp_path: Path) -> None:
    values = noise()
    values[:, ::3, ::3] = 7
    assert find_fill(open_geotiff(write_raster(tmp_path / "a.tif", values))) is None


@pytest.mark.parametrize("nodata", [0.0, 5.0, "none"])
def test_what_is_stated_is_not_asked_again(tmp_path: Path, nodata: float | str) -> None:
    values = noise()
    values[:, :, :30] = 0
    path = write_raster(tmp_path / "a.tif", values)
    assert find_fill(open_geotiff(path, options=SceneOptions(nodata=nodata))) is None
    tagged = write_raster(tmp_path / "b.tif", values, nodata=0)
    assert find_fill(open_geotiff(tagged)) is None


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), levels=st.integers(40, 3000))
def test_noise_is_no_fill(tmp_path: Path, seed: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(1, levels, SHAPE).astype(np.uint16)
    assert find_fill(open_geotiff(write_raster(tmp_path / "a.tif", values))) is None


def test_fill_beside_another_nodata_of_the_file(tmp_path: Path) -> None:
    values = noise("int16")
    values[:, :, :30] = 0
    values[:, :, 60:] = 7  # no value that writers use: a field, a roof
    path = write_raster(tmp_path / "a.tif", values, nodata=-9999)
    found = find_fill(open_geotiff(path))
    assert found is not None
    assert (found.value, found.tagged) == (0.0, -9999.0)
    assert find_fill(open_geotiff(path, options=SceneOptions(nodata=-9999))) is None
