"""Scenes as the network sees them: which bands they are given where none are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.errors import SceneWarning
from pipeline.scenes.joining import default_bands, join_scenes, warn_of_left
from pipeline.scenes.opening import open_scene
from pipeline.scenes.settings import InputSettings
from tests.fakes.rasters import write_raster

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
