"""EOPF products are read like SAFE: groups, scale and offset from attributes, masks, every band in its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.errors import ProductError
from pipeline.files import fingerprint
from pipeline.scenes.opening import open_scene
from tests.fakes.eopf import LEFT, TOP, Eopf, write_eopf
from tests.fakes.safe import ramp

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.raster import Raster
    from pipeline.scenes.scene import Scene


def read(scene: Scene) -> Raster:
    with scene.open() as reader:
        return reader.read(scene.grid.window)


@pytest.mark.parametrize("what", [Eopf(), Eopf(apart=True), Eopf(level="1C", scale=5e-5, offset=-0.05)])
def test_every_band_has_the_reflectance_that_its_attributes_say(tmp_path: Path, what: Eopf) -> None:
    scene = open_scene(write_eopf(tmp_path, what), resolution_m=20)
    assert (scene.sensor, scene.level, scene.baseline) == ("sentinel-2", f"L{what.level}", "05.11")
    assert scene.acquired_utc == datetime(2025, 5, 30, 10, 15, 59, tzinfo=UTC)
    raster = read(scene)
    x, y = np.meshgrid(LEFT + (np.arange(60) + 0.5) * 20, TOP - (np.arange(60) + 0.5) * 20)
    inner = (slice(3, -3), slice(3, -3))
    for key, name in (("B04", "red"), ("B8A", "nir08"), ("B01", "coastal")):
        assert np.abs(raster.band(name) - ramp(key, x, y))[inner].max() < 2e-4, name
    assert raster.valid.all()
    assert str(scene.grid.crs) == "EPSG:32633"
    assert "scale_factor" in str(scene.ledger())


def test_the_grid_is_that_of_the_finest_band(tmp_path: Path) -> None:
    scene = open_scene(write_eopf(tmp_path))
    assert scene.grid.shape == (120, 120)
    assert scene.grid.transform[:6] == (10, 0, LEFT, 0, -10, TOP)
    assert len(scene.band_names) == 12


@pytest.mark.parametrize(("level", "side"), [("2A", 20), ("1C", 60)])
def test_clouds_mask_as_in_the_safe(tmp_path: Path, level: str, side: int) -> None:
    path = write_eopf(tmp_path, Eopf(level=level, cloud_px=3))
    clouded = ~read(open_scene(path)).valid
    expected = np.zeros((120, 120), dtype=bool)
    expected[: 3 * side // 10, : 3 * side // 10] = True
    assert np.array_equal(clouded, expected)
    assert read(open_scene(path, mask=())).valid.all()


def test_the_crs_may_stand_in_the_stac_properties(tmp_path: Path) -> None:
    stac = {"stac_discovery": {"properties": {"proj:code": "EPSG:32633"}}}
    assert str(open_scene(write_eopf(tmp_path, Eopf(crs=stac))).grid.crs) == "EPSG:32633"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="without a CRS"):
        open_scene(write_eopf(tmp_path / "a", Eopf(crs={})))
    path = write_eopf(tmp_path / "b")
    text = (path / ".zmetadata").read_text()
    (path / ".zmetadata").write_text(text.replace("add_offset", "offset"))
    with pytest.raises(ProductError, match="has no add_offset"):
        open_scene(path)
    (path / ".zmetadata").rename(path / "zarr.json")
    with pytest.raises(ProductError, match=r"without consolidated metadata of Zarr 2; got zarr\.json"):
        open_scene(path)


def test_an_array_without_a_description_is_refused(tmp_path: Path) -> None:
    path = write_eopf(tmp_path)
    metadata = json.loads((path / ".zmetadata").read_text())
    key = next(key for key in metadata["metadata"] if key.endswith("b02/.zarray"))
    metadata["metadata"][key] = 3
    (path / ".zmetadata").write_text(json.dumps(metadata))
    with pytest.raises(ProductError, match="is not described; got 3"):
        open_scene(path)


def test_changed_pixels_change_the_fingerprint(tmp_path: Path) -> None:
    path = write_eopf(tmp_path)
    files = open_scene(path).files[:1]
    before = fingerprint(files)
    chunk = path / "measurements/reflectance/r10m/b02/0.0"
    chunk.write_bytes(chunk.read_bytes() + b"\0")
    assert fingerprint(files) != before
