"""Layers beside the bands are known by their names, wherever these stand."""

from __future__ import annotations

import pytest

from pipeline.scenes.quality import ASIDE, masks_of, role_of
from pipeline.scenes.settings import REASONS


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("T33UUU_20240601T102021_SCL_20m", "scl"),
        ("LC08_L2SP_193024_20240601_20240610_02_T1_QA_PIXEL", "qa_pixel"),
        ("LC08_L2SP_193024_20240601_20240610_02_T1_QA_RADSAT", "qa_radsat"),
        ("LC08_L2SP_193024_20240601_20240610_02_T1_SR_QA_AEROSOL", ASIDE),
        ("HLS.L30.T33UUU.2024153T101031.v2.0.Fmask", "fmask"),
        ("HLS.L30.T33UUU.2024153T101031.v2.0.SZA", ASIDE),
        ("20240601_101010_udm2", "udm2"),
        ("MSK_CLDPRB_20m", ASIDE),
        ("MSK_CLASSI_B00", "classi"),
        ("T33UUU_20240601T102021_AOT_10m", ASIDE),
        ("T33UUU_20240601T102021_TCI_10m", ASIDE),
        ("pixel_qa", "pixel_qa"),
        ("QA60", "qa60"),
        ("solar_azimuth_angle", ASIDE),
    ],
)
def test_quality_layers_and_angles_are_known(name: str, role: str) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    "name", ["B04", "SR_B5", "ST_B10", "nir", "VV", "slope", "ndvi", "T33UUU_B8A_20m", "band1", "A00", "triangle"]
)
def test_bands_are_no_quality_layers(name: str) -> None:
    assert role_of(name) is None


def test_layers_mask_by_the_reasons_of_full_products() -> None:
    (fmask,) = masks_of("fmask", "a.tif", ("cloud", "nodata"), sensor="hls-l30", bands=())
    assert (fmask.bad_bits, fmask.bad_values) == (0b10, (255,))
    (old,) = masks_of("fmask", "a.tif", ("cloud", "shadow"), sensor="landsat-etm", bands=())
    assert old.bad_values == (2, 4)
    (radsat,) = masks_of("qa_radsat", "a.tif", ("saturated",), sensor="landsat-oli", bands=("red", "nir08"))
    assert radsat.bad_bits == 1 << 3 | 1 << 4 | 1 << 11
    assert masks_of(ASIDE, "a.tif", REASONS, sensor="", bands=()) == ()
    assert masks_of("scl", "a.tif", (), sensor="", bands=()) == ()
