"""Blocks of files in pixels of the scene's grid, and windows made of whole ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from pipeline.inference.tiles import file_blocks
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.sentinel2 import open_safe
from tests.fakes.safe import ULX, ULY, Safe, write_safe

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, *, side: int, pixel_m: float, block: int, bands: int = 1, driver: str = "GTiff") -> None:
    options = {"tiled": True} if driver == "GTiff" else {"QUALITY": 100, "REVERSIBLE": "YES"}
    with rasterio.open(
        path, "w", driver=driver, dtype="uint16", count=bands, height=side, width=side, crs=CRS.from_epsg(32633),
        transform=Affine(pixel_m, 0, 500_000, 0, -pixel_m, 5_000_000), blockxsize=block, blockysize=block, **options,
    ) as file:  # fmt: skip
        file.write(np.ones((bands, side, side), dtype=np.uint16))


def test_blocks_of_coarser_files_cover_more_and_weigh_less(tmp_path: Path) -> None:
    write(tmp_path / "T33UUP_20240601T101031_B02_10m.jp2", side=512, pixel_m=10.0, block=256, driver="JP2OpenJPEG")
    write(tmp_path / "T33UUP_20240601T101031_B11_20m.tif", side=256, pixel_m=20.0, block=64)
    ten, twenty = file_blocks(open_geotiff(tmp_path))
    assert (ten.rows, ten.cols, ten.bytes_per_px) == (256, 256, 2.0)
    assert (twenty.rows, twenty.cols, twenty.bytes_per_px) == (128, 128, 0.5)
    # JPEG 2000 takes many times as long, byte for byte.
    assert ten.decode_s_per_px > 10 * 4 * twenty.decode_s_per_px


def test_a_file_counts_all_bands_that_its_blocks_hold(tmp_path: Path) -> None:
    write(tmp_path / "scene.tif", side=128, pixel_m=10.0, block=64, bands=3)
    (blocks,) = file_blocks(open_geotiff(tmp_path / "scene.tif").select(["band1"]))
    assert blocks.bytes_per_px == 6.0


def test_cloud_polygons_beside_the_bands_leave_their_blocks(tmp_path: Path) -> None:
    path = write_safe(tmp_path, Safe(level="L1C", baseline="02.09", clouds=((ULX, ULY - 300, ULX + 300, ULY),)))
    scene = open_safe(path)
    assert any(layer.vector for layer in scene.quality)
    bands, plain = file_blocks(scene), file_blocks(replace(scene, quality=()))
    assert len(bands) == len(scene.bands)
    assert bands == plain


def test_a_file_that_vanished_has_none(tmp_path: Path) -> None:
    write(tmp_path / "scene.tif", side=128, pixel_m=10.0, block=64)
    scene = open_geotiff(tmp_path / "scene.tif")
    (tmp_path / "scene.tif").unlink()
    assert file_blocks(scene) == ()
