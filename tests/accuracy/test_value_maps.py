"""Maps of values against measurements: what is refused, units that differ, and agreement on every pixel."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from pipeline.accuracy.settings import ReferenceSettings
from pipeline.errors import InputError, LabelError, LabelWarning, ReferenceDataError
from pipeline.maps.geotiff import QUANTITY_TAG
from pipeline.quantity import Quantity
from pipeline.workflow.accuracy import assess_against_reference
from pipeline.workflow.outcome import Outcome

SIDE, PIXEL_M = 40, 10.0
NODATA = -9999.0
# What the planted map has too much, everywhere.
BIAS = 2.0


def write_raster(path: Path, layers: np.ndarray, *, nodata: float | None = NODATA, shift_m: float = 0.0) -> Path:
    """Layers [band, row, col] on the map's pixels, or shifted to the east."""
    transform = Affine(PIXEL_M, 0, 500_000 + shift_m, 0, -PIXEL_M, 5_200_000)
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": layers.dtype, "count": len(layers), "nodata": nodata,
                               "height": SIDE, "width": SIDE, "crs": "EPSG:32633", "transform": transform}  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(layers)
    return path


def planted(folder: Path, *, low: float | None = None) -> tuple[Path, np.ndarray]:
    """A map that is the truth and BIAS, with a hole and an interval of 2 to either side; the truth float32 [row, col].

    Every fourth column is 5 larger, outside the interval.
    """
    truth = 50 + 10 * np.random.default_rng(1).random((SIDE, SIDE)).astype(np.float32)
    value = truth + BIAS
    value[:, ::4] += 5
    layers = np.stack([value, value - 2.5, value + 2.5]).astype(np.float32)
    layers[:, :4] = NODATA
    path = write_raster(folder / "s_value.tif", layers)
    with rasterio.open(path, "r+") as target:
        target.update_tags(**{QUANTITY_TAG: json.dumps(Quantity("agb", "t/ha", low=low).to_json())})
    return path, truth


def sample_of(folder: Path, truth: np.ndarray, odd: Any = None, *, times: float = 1.0) -> Path:
    """Measured values of 60 pixels, the first of them odd; gives the file."""
    row, col = np.divmod(np.random.default_rng(2).permutation((SIDE - 4) * SIDE)[:60] + 4 * SIDE, SIDE)
    at = geopandas.points_from_xy(500_000 + PIXEL_M * (col + 0.5), 5_200_000 - PIXEL_M * (row + 0.5))
    measured = (truth[row, col] * times).astype(float).astype(object if isinstance(odd, str) else float)
    if odd is not None:
        measured[0] = odd
    column = measured.astype(str) if isinstance(odd, str) else measured
    geopandas.GeoDataFrame({"measured": column}, geometry=at, crs="EPSG:32633").to_file(folder / "sample.gpkg")
    return folder / "sample.gpkg"


def assess(path: Path, reference: Path, **more: Any) -> Outcome:
    """As the command does."""
    settings = ReferenceSettings(reference=reference, **more)
    return assess_against_reference(path, settings, scheme=None, output=None, overwrite=False)


SAMPLE = {"field": "measured", "design": "simple random"}


@pytest.mark.parametrize(
    ("odd", "low", "told"),
    [
        (-9999.0, None, "1 values of 'measured' stand for no data; got -9999; expected measurements; leave blank"),
        (-9999.0, 0.0, "1 values of 'measured' lie outside the range of the map; got -9999; expected 0..inf"),
        (
            -3.0,
            0.0,
            "1 values of 'measured' lie outside the range of the map; got -3; expected 0..inf; correct them, or leave",
        ),
        (np.inf, None, "1 values of 'measured' are infinite; got inf"),
        (1e300, None, r"1 values of 'measured' that none can be; got 1e\+300"),
    ],
)
def test_values_that_no_sample_can_have_are_refused(tmp_path: Path, odd: float, low: float | None, told: str) -> None:
    path, truth = planted(tmp_path, low=low)
    with pytest.raises(ReferenceDataError, match=told) as caught:
        assess(path, sample_of(tmp_path, truth, odd), **SAMPLE)
    assert "\n" not in str(caught.value)


def test_text_is_refused_and_blank_is_not_measured(tmp_path: Path) -> None:
    path, truth = planted(tmp_path)
    with pytest.raises(LabelError, match="'measured' has text where numbers are needed; got 'n/a' in 1 feature"):
        assess(path, sample_of(tmp_path, truth, "n/a"), **SAMPLE)
    assert assess(path, sample_of(tmp_path, truth, np.nan), **SAMPLE).data["at_units"]["samples"] == 59
    assert assess(path, sample_of(tmp_path, truth), **SAMPLE).data["at_units"]["samples"] == 60


@pytest.mark.parametrize("times", [1000.0, 0.001, 2.0])
def test_a_reference_in_another_unit_is_warned_of(tmp_path: Path, times: float) -> None:
    path, truth = planted(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assess(path, sample_of(tmp_path, truth, times=times), **SAMPLE)
        assess(path, write_raster(tmp_path / "y.tif", truth[None] * np.float32(times)))
    expected = [LabelWarning] * (2 if times in {1000.0, 0.001} else 0)
    assert [item.category for item in said] == expected
    assert all("in the map's unit?" in str(item.message) for item in said)
    if times == 1000.0:  # the map has BIAS and 5 more in places: a little less than 1000
        assert 900 < float(str(said[0].message).partition(" values are ")[2].split()[0].replace(",", "")) < 1000


def test_a_raster_is_compared_on_all_pixels_both_know(tmp_path: Path) -> None:
    path, truth = planted(tmp_path)
    reference = truth.copy()
    reference[:, -2:] = NODATA
    outcome = assess(path, write_raster(tmp_path / "y.tif", reference[None]))
    found = outcome.data["on_all_pixels"]
    known = truth[4:, :-2].astype(np.float64)
    error = np.full(known.shape, BIAS)
    error[:, ::4] += 5
    assert found["samples"] == known.size
    assert found["bias"] == pytest.approx(error.mean(), rel=1e-4)
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert found["mae"] == pytest.approx(error.mean(), rel=1e-4)
    assert found["r2"] == pytest.approx(1 - (error**2).mean() / known.var(), rel=1e-3)
    assert found["coverage"] == pytest.approx((error <= 2.5).mean())
    assert found["width"] == pytest.approx(5.0, rel=1e-4)
    assert outcome.data["area_ha"] == pytest.approx(known.size * PIXEL_M**2 / 10_000, rel=2e-3)
    assert "agreement on all pixels" in outcome.summary


def test_a_raster_on_another_grid_is_read_on_the_maps(tmp_path: Path) -> None:
    path, truth = planted(tmp_path)
    # Ten columns to the east: ten columns of the map are beyond the raster, and nothing else changes.
    moved = write_raster(tmp_path / "y.tif", np.roll(truth, -10, axis=1)[None], nodata=None, shift_m=10 * PIXEL_M)
    found = assess(path, moved).data
    assert found["on_all_pixels"]["samples"] == (SIDE - 4) * (SIDE - 10)
    assert found["on_all_pixels"]["mae"] == pytest.approx((BIAS * 23 + (BIAS + 5) * 7) / 30, rel=1e-4)
    assert found["share"] == pytest.approx(0.75)


def test_a_raster_has_no_field_and_no_design(tmp_path: Path) -> None:
    path, truth = planted(tmp_path)
    raster = write_raster(tmp_path / "y.tif", truth[None])
    for more, told in (({"field": "x"}, "has no field"), ({"design": "simple random"}, "has no sampling design")):
        with pytest.raises(ReferenceDataError, match=told):
            assess(path, raster, **more)
    untagged = np.where(np.arange(SIDE) == 5, np.float32(NODATA), truth)[None]
    with pytest.raises(ReferenceDataError, match=r"36 values of rows 0 to 39 .* stand for no data; got -9999"):
        assess(path, write_raster(tmp_path / "z.tif", untagged, nodata=None))
    with pytest.raises(ReferenceDataError, match="no pixel has a value both"):
        assess(path, write_raster(tmp_path / "far.tif", truth[None], shift_m=1e5))
    (tmp_path / "no.tif").write_text("nothing")
    with pytest.raises(InputError, match="not a raster that GDAL can open"):
        assess(path, tmp_path / "no.tif")
