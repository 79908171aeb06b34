"""HLS products: what is needed of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.errors import ProductError
from pipeline.scenes.clouds import product_mask
from pipeline.scenes.hls import open_hls
from pipeline.scenes.reader import open_reader
from tests.scenes.test_geotiff import write

if TYPE_CHECKING:
    from pathlib import Path

START = "HLS.L30.T33UUU.2024153T101031.v2.0"


def test_fmask_is_needed_only_for_reasons_that_it_has(tmp_path: Path) -> None:
    pixels = np.full((1, 4, 6), 1000, np.int16)
    pixels[0, 0, 0] = -9999
    write(tmp_path / f"{START}.B04.tif", pixels, nodata=-9999)
    for mask in ((), ("nodata", "saturated"), product_mask(None, "none")):
        with open_reader(open_hls(tmp_path, mask=mask)) as reader:
            assert np.argwhere(~reader.read(reader.grid.window).valid).tolist() == [[0, 0]]
    for mask in (None, ("nodata", "snow")):
        with pytest.raises(ProductError, match="HLS product has no Fmask"):
            open_hls(tmp_path, mask=mask)
    write(tmp_path / f"{START}.Fmask.tif", np.full((1, 4, 6), 255, np.uint8))
    with open_reader(open_hls(tmp_path, mask=("nodata",))) as reader:
        assert not reader.read(reader.grid.window).valid.any()
