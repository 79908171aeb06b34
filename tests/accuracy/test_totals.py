"""The regression estimator of a mean against R's survey, and whether its intervals hold."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from pipeline.accuracy.sample_design import write_design
from pipeline.accuracy.totals import estimate_mean, totals_of_map
from pipeline.errors import ReferenceDataError
from pipeline.grid import Grid
from pipeline.maps.geotiff import QUANTITY_TAG
from pipeline.quantity import Quantity
from tests.accuracy.maps import draw, write_map
from tests.accuracy.test_against_r_survey import _survey_is_here

_R = """
suppressMessages(library(survey))
d <- read.csv("{path}")
design <- svydesign(ids = ~1, strata = ~h, fpc = ~N, data = d)
direct <- svymean(~y, design)
cal <- calibrate(design, ~x, population = c(`(Intercept)` = {every}, x = {total}))
m <- svymean(~y, cal)
cat(format(c(coef(direct), SE(direct), coef(m), SE(m)), digits = 15), "\\n")
"""


def _population(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    stratum = np.repeat([0, 1, 2], [2000, 1200, 800])
    truth = rng.gamma(2.0, 10.0, 4000) + 15.0 * stratum
    return stratum, truth, 0.8 * truth + 5.0 + rng.normal(0, 6.0, 4000)


def _draw(stratum: np.ndarray, sizes: list[int], rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.choice(np.flatnonzero(stratum == h), n, replace=False) for h, n in enumerate(sizes)])


@pytest.mark.skipif(not _survey_is_here(), reason="Rscript with the package survey is not installed")
def test_mean_and_error_are_those_of_r_survey(tmp_path):
    stratum, truth, mapped = _population()
    at = _draw(stratum, [20, 30, 15], np.random.default_rng(5))
    sizes = np.bincount(stratum).astype(float)
    found = estimate_mean(truth[at], mapped[at], stratum=stratum[at], sizes=sizes, map_mean=mapped.mean())
    table = np.column_stack([truth[at], mapped[at], stratum[at], sizes[stratum[at]]])
    np.savetxt(tmp_path / "d.csv", table, delimiter=",", header="y,x,h,N", comments="", fmt="%.15g")
    script = tmp_path / "s.R"
    script.write_text(_R.format(path=tmp_path / "d.csv", every=4000, total=repr(float(mapped.sum()))))
    out = subprocess.run(["Rscript", str(script)], capture_output=True, text=True, check=True)
    expected = [float(word) for word in out.stdout.split()]
    ours = [found.direct.estimate, found.direct.se, found.regression.estimate, found.regression.se]
    assert ours == pytest.approx(expected, rel=1e-8)


def test_intervals_hold_95_of_100_and_the_map_narrows_them():
    stratum, truth, mapped = _population()
    rng, sizes = np.random.default_rng(1), np.bincount(stratum).astype(float)
    hits, gains = [], []
    for _ in range(400):
        at = _draw(stratum, [30, 30, 30], rng)
        found = estimate_mean(truth[at], mapped[at], stratum=stratum[at], sizes=sizes, map_mean=mapped.mean())
        hits.append(found.regression.low <= truth.mean() <= found.regression.high)
        gains.append(found.gain)
    assert 0.91 <= np.mean(hits) <= 0.98
    assert np.median(gains) > 2.0


def test_sample_of_every_unit_has_no_error():
    stratum, truth, mapped = _population()
    sizes = np.bincount(stratum).astype(float)
    found = estimate_mean(truth, mapped, stratum=stratum, sizes=sizes, map_mean=mapped.mean())
    assert found.direct.estimate == pytest.approx(truth.mean())
    assert found.regression.se == pytest.approx(0.0, abs=1e-9)


def test_stratum_with_one_unit_is_refused():
    with pytest.raises(ReferenceDataError, match="too few units"):
        estimate_mean(np.arange(6.0), np.arange(6.0), stratum=np.array([0, 0, 0, 0, 0, 1]),
                      sizes=np.array([10.0, 10.0]), map_mean=2.0)  # fmt: skip


WORLD = Grid(CRS.from_epsg(4326), Affine(1, 0, 10, 0, -1, 70), 60, 12)


def _world(folder: Path) -> tuple[Path, Path, np.ndarray]:
    """A map in degrees whose values fall to the north, every pixel measured: map, points, measured values."""
    values = np.repeat(np.arange(60.0), 12).reshape(60, 12).astype(np.float32)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 3, "height": 60, "width": 12, "crs": WORLD.crs,
               "transform": WORLD.transform, "nodata": np.nan}  # fmt: skip
    with rasterio.open(folder / "s_value.tif", "w", **profile) as target:
        target.write(np.stack([values, values - 1, values + 1]))
        target.update_tags(**{QUANTITY_TAG: json.dumps(Quantity("x").to_json())})
    row, col = np.divmod(np.arange(values.size), 12)
    truth = 2.0 * values.ravel() + np.random.default_rng(0).normal(0, 1, values.size)
    points = geopandas.points_from_xy(*WORLD.transform @ (col + 0.5, row + 0.5))
    geopandas.GeoDataFrame({"x": truth}, geometry=points, crs=WORLD.crs.to_wkt()).to_file(folder / "points.gpkg")
    return folder / "s_value.tif", folder / "points.gpkg", truth.reshape(60, 12)


def test_pixels_of_a_map_in_degrees_weigh_with_their_area(tmp_path):
    path, points, truth = _world(tmp_path)
    found = totals_of_map(path, reference=points, field="x", design="simple random")
    areas = np.broadcast_to(WORLD.pixel_areas_ha(), truth.shape)
    assert found.area_ha == pytest.approx(areas.sum())
    expected = (truth * areas).sum() / areas.sum()
    assert abs(expected - truth.mean()) > 5
    assert found.totals.direct.estimate == pytest.approx(expected)
    assert found.totals.regression.estimate == pytest.approx(expected)


def test_a_sample_of_other_pixels_is_refused(tmp_path):
    path, points, _ = _world(tmp_path)
    other = write_map(tmp_path / "other_lc.tif", np.tile([10, 20, 30, 10], (40, 10)))
    write_design(tmp_path / "d.gpkg", draw(other, size=50, kind="simple_random", seed=0))
    with pytest.raises(ReferenceDataError, match="drawn from other pixels than those of the map"):
        totals_of_map(path, reference=points, field="x", design=str(tmp_path / "d_design.json"))
