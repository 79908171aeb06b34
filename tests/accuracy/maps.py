"""Small class maps on the spot, written plainly with their legend in a tag."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from affine import Affine

from pipeline.accuracy import assess_compare
from pipeline.accuracy import assess_map as of_map
from pipeline.accuracy.sample_draw import draw_sample
from pipeline.accuracy.settings import DesignSettings, ReferenceSettings
from pipeline.legend import ClassScheme, LandClass
from pipeline.maps.legends import LEGEND_TAG

SCHEME = ClassScheme(
    (LandClass(10, "forest", "#117733"), LandClass(20, "water", "#0072b2"), LandClass(30, "field", "#e69f00"))
)
UTM = "EPSG:32633"


def write_map(
    path: Path, codes: np.ndarray, *, crs: str = UTM, origin=(500_000.0, 5_800_000.0), pixel=10.0, scheme=SCHEME
) -> Path:
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": 0, "height": codes.shape[0], "width": codes.shape[1],
        "crs": crs, "transform": Affine(pixel, 0, origin[0], 0, -pixel, origin[1]), "tiled": True,
        "blockxsize": 64, "blockysize": 64,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(codes.astype(np.uint8), 1)
        if scheme is not None:
            dataset.update_tags(**{LEGEND_TAG: json.dumps(scheme.to_json())})
    return path


def patchy(seed: int = 0, shape=(200, 300), *, nodata: bool = True) -> np.ndarray:
    """Codes 10, 20, 30 in squares of 10 pixels; a nodata corner."""
    rng = np.random.default_rng(seed)
    cells = rng.choice([10, 20, 30], size=(-(-shape[0] // 10), -(-shape[1] // 10)), p=[0.6, 0.1, 0.3])
    codes = np.kron(cells, np.ones((10, 10), dtype=int))[: shape[0], : shape[1]].astype(np.uint8)
    if nodata:
        codes[:30, :40] = 0
    return codes


def spoil(codes: np.ndarray, seed: int = 1, share: float = 0.15) -> np.ndarray:
    """The same codes with some of them replaced by another class; nodata stays."""
    rng = np.random.default_rng(seed)
    other = rng.choice([10, 20, 30], size=codes.shape)
    return np.where((rng.random(codes.shape) < share) & (codes > 0), other, codes).astype(np.uint8)


def points(path: Path, rows, cols, values, *, ids=None, crs: str = UTM, origin=(500_000.0, 5_800_000.0), pixel=10.0):
    x = origin[0] + (np.asarray(cols) + 0.5) * pixel
    y = origin[1] - (np.asarray(rows) + 0.5) * pixel
    frame = geopandas.GeoDataFrame({"cover": list(values)}, geometry=geopandas.points_from_xy(x, y), crs=UTM).to_crs(
        crs
    )
    if ids is not None:
        frame["id"] = ids
    frame.to_file(path)
    return path


def draw(path: Path, *, strata=None, **told):
    """A sample, with settings by name and strata as a layer, or by name."""
    named = {"strata": strata} if isinstance(strata, str) else {}
    return draw_sample(path, DesignSettings(**told, **named), layer=None if named else strata)


def assess_map(path: Path, *, scheme=None, **told):
    """An assessment, with settings by name."""
    return of_map.assess_map(
        path, ReferenceSettings(**{key: _text(value) for key, value in told.items()}), scheme=scheme
    )


def compare_maps(first: Path, second: Path, *, scheme=None, second_crosswalk=None, **told):
    """A comparison, with settings by name."""
    settings = ReferenceSettings(**{key: _text(value) for key, value in told.items()})
    return assess_compare.compare_maps(first, second, settings, scheme=scheme, second_crosswalk=second_crosswalk)


def _text(value):
    return str(value) if isinstance(value, Path) else value
