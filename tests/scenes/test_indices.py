"""Spectral indices as bands of a scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from pipeline.errors import SceneError
from pipeline.grid import Window
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.indices import with_indices
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import SceneOptions

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")


def make_scene(folder: Path, values: np.ndarray, names: tuple[str, ...] = BANDS) -> Scene:
    path = folder / "scene.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype="float32",
        crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500000, 0, -10, 5000000),
        nodata=float("nan"),
    ) as dataset:
        dataset.write(values)
    return open_geotiff(path, options=SceneOptions(bands=names))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    rng = np.random.default_rng(1)
    values = rng.uniform(0.02, 0.6, (len(BANDS), 20, 30)).astype(np.float32)
    values[3, 0, 0] = values[2, 0, 0] = 0.0  # NDVI is 0/0
    values[0, 5, 5] = np.nan
    return make_scene(tmp_path, values)


def test_common_indices_equal_their_textbook_formulas(scene: Scene) -> None:
    source = with_indices(scene, ["NDVI", "ndwi", "MNDWI", "NDBI", "NBR", "NDMI", "BSI", "EVI", "SAVI"])
    with open_reader(source) as reader:
        raster = reader.read(scene.grid.window)
    blue, green, red, nir, swir1, swir2 = raster.values[:6].astype(float)
    ok = raster.valid
    expected = {
        "ndvi": (nir - red, nir + red),
        "ndwi": (green - nir, green + nir),
        "mndwi": (green - swir1, green + swir1),
        "ndbi": (swir1 - nir, swir1 + nir),
        "nbr": (nir - swir2, nir + swir2),
        "ndmi": (nir - swir1, nir + swir1),
        "bsi": (swir1 + red - nir - blue, swir1 + red + nir + blue),
        "evi": (2.5 * (nir - red), nir + 6 * red - 7.5 * blue + 1),
        "savi": (2 * (nir - red), nir + red + 1),
    }
    assert raster.bands == (*BANDS, *expected)
    for name, (above, below) in expected.items():
        truth = above[ok] / below[ok]
        limit = 100.0 if name in {"evi", "savi"} else 1.0
        np.testing.assert_allclose(raster.band(name)[ok], np.clip(truth, -limit, limit), rtol=2e-5, atol=2e-6)


def test_an_undefined_index_or_missing_band_is_not_valid(scene: Scene) -> None:
    with open_reader(with_indices(scene, ["NDVI"])) as reader:
        raster = reader.read(scene.grid.window)
    assert not raster.valid[0, 0]
    assert not raster.valid[5, 5]
    assert raster.valid.sum() == raster.valid.size - 2
    assert (raster.values[:, ~raster.valid] == 0).all()


def test_negative_reflectance_keeps_an_index_within_one(tmp_path: Path) -> None:
    values = np.full((2, 1, 2), 0.01, dtype=np.float32)
    values[0] = -0.009
    with open_reader(with_indices(make_scene(tmp_path, values, ("red", "nir")), ["NDVI"])) as reader:
        assert reader.read(Window(0, 0, 1, 2)).band("ndvi").tolist() == [[1.0, 1.0]]


def test_windows_equal_the_whole_and_outside_is_not_valid(scene: Scene) -> None:
    with open_reader(with_indices(scene, ["NDVI", "BSI"])) as reader:
        whole = reader.read(scene.grid.window)
        part = reader.read(Window(-2, 25, 10, 10))
    np.testing.assert_array_equal(part.values[:, 2:, :5], whole.values[:, :8, 25:])
    assert not part.valid[:2].any()
    assert not part.valid[:, 5:].any()


def test_selecting_an_index_reads_only_what_it_needs(scene: Scene) -> None:
    source = with_indices(scene, ["NDVI", "NBR"])
    chosen = source.select(["nbr", "blue"])
    with open_reader(chosen) as reader, open_reader(source) as whole:
        raster = reader.read(Window(1, 1, 3, 3))
        np.testing.assert_array_equal(raster.band("nbr"), whole.read(Window(1, 1, 3, 3)).band("nbr"))
    assert raster.bands == reader.bands == chosen.band_names == ("nbr", "blue")
    with pytest.raises(SceneError, match="lacks band evi"):
        source.select(["evi"])


def test_landsat_near_infrared_serves_where_no_broad_one_is(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, np.full((2, 2, 2), 0.2, dtype=np.float32), ("red", "nir08"))
    assert dict(with_indices(scene, ["NDVI"]).indices[0].inputs)["N"] == "nir08"


def test_unknown_index_and_missing_band_are_named(scene: Scene) -> None:
    with pytest.raises(SceneError, match="no spectral index called 'NDXX'"):
        with_indices(scene, ["NDXX"])
    with pytest.raises(SceneError, match="index NDREI needs band rededge071"):
        with_indices(scene, ["NDREI"])
    with pytest.raises(SceneError, match="band name used twice: ndvi"):
        with_indices(scene, ["NDVI", "ndvi"])


def test_the_ledger_tells_formula_and_bands(scene: Scene) -> None:
    ledger = with_indices(scene, ["BSI"]).ledger()
    assert ledger["scene"] == scene.id
    assert ledger["indices"] == [
        {
            "band": "bsi",
            "index": "BI",
            "formula": "((S1+R)-(N+B))/((S1+R)+(N+B))",
            "from": {"S1": "swir16", "R": "red", "N": "nir", "B": "blue"},
            "clipped_to": 1.0,
        }
    ]
