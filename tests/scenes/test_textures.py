"""Textures against windows cut out one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pydantic import ValidationError

from pipeline.errors import SceneError
from pipeline.grid import Window
from pipeline.scenes.derived import DerivedReader
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.indices import texture_names, textures, with_textures
from pipeline.scenes.settings import InputSettings, SceneOptions

WINDOWS = (3, 7)


@pytest.fixture
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Brightness float32 [row, col] and where it is valid: noise with a hole."""
    rng = np.random.default_rng(0)
    valid = np.ones((20, 24), dtype=bool)
    valid[4:13, 6:15] = False
    return rng.normal(500.0, 40.0, valid.shape).astype(np.float32), valid


def expected(brightness: np.ndarray, valid: np.ndarray, side: int, row: int, col: int) -> list[float]:
    """Of one window, by hand."""
    reach = side // 2
    inside = (slice(max(row - reach, 0), row + reach + 1), slice(max(col - reach, 0), col + reach + 1))
    seen = brightness[inside][valid[inside]].astype(float)
    return [seen.mean(), seen.std(), seen.min(), seen.max()] if seen.size else [0.0] * 4


def test_textures_are_those_of_each_window(planted: tuple[np.ndarray, np.ndarray]) -> None:
    brightness, valid = planted
    found = np.stack(textures(brightness, valid, WINDOWS))
    for row, col in ((0, 0), (8, 10), (5, 7), (19, 23), (10, 3)):
        wanted = [value for side in WINDOWS for value in expected(brightness, valid, side, row, col)]
        np.testing.assert_allclose(found[:, row, col], wanted, rtol=1e-5, atol=1e-3)


def test_a_part_of_the_scene_has_the_same_textures(planted: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    brightness, valid = planted
    profile = {"driver": "GTiff", "dtype": "float32", "count": 2, "height": 20, "width": 24, "nodata": -1.0,
               "crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_200_000)}  # fmt: skip
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as target:
        for number, gain in enumerate((0.8, 1.2), 1):
            target.write(np.where(valid, gain * brightness, -1.0).astype(np.float32), number)
    source = with_textures(open_geotiff(tmp_path / "a.tif", options=SceneOptions(bands=("red", "green"))), WINDOWS)
    assert source.band_names == ("red", "green", *texture_names(WINDOWS))
    with source.open() as reader:
        whole, part = reader.read(source.grid.window), reader.read(Window(3, 5, 9, 14))
    np.testing.assert_allclose(part.values, whole.values[:, 3:12, 5:19], rtol=1e-6)
    np.testing.assert_array_equal(whole.valid, valid)
    made = np.stack(textures(brightness, valid, WINDOWS)) * valid
    np.testing.assert_allclose(whole.values[2:], made, rtol=1e-4, atol=0.05)
    only = source.select(("texture_max7", "green"))
    with only.open() as reader:
        np.testing.assert_array_equal(reader.read(only.grid.window).values, whole.values[[9, 1]])
    image = source.select(("red", "green"))
    assert not isinstance(image.open(), DerivedReader)
    with image.open() as reader:
        np.testing.assert_array_equal(reader.read(only.grid.window).values, whole.values[:2])
    with pytest.raises(SceneError, match="used twice"):
        with_textures(source, (7,))


@pytest.mark.parametrize("windows", [[4], [1], [5, 5], [103]])
def test_windows_are_odd_and_different(windows: list[int]) -> None:
    with pytest.raises(ValidationError, match="different odd numbers"):
        InputSettings.model_validate({"textures": windows})
