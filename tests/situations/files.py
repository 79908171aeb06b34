"""What cases write, and how any version of the package reads it."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import yaml
from affine import Affine
from numpy.typing import NDArray

from pipeline.grid import Window
from pipeline.scenes import geotiff
from pipeline.scenes.opening import open_scene

SIDE = 64
UTM = "EPSG:32633"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
ROWS, COLS = np.indices((SIDE, SIDE))
# Every pixel holds its own place: row x 100 + column, as no other pixel does.
PLACES = (ROWS * 100 + COLS + 1).astype(np.uint16)


def opened(path: Path | str, *, mask: Any = None, **known: Any) -> Any:
    """A scene by any version of the package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not known:
            return open_scene(path, mask=mask)
        try:
            from pipeline.scenes.settings import SceneOptions
        except ImportError:
            return open_scene(path, mask=mask, told=geotiff.Interpretation(**known))
        return open_scene(path, mask=mask, options=SceneOptions(**known))


def pixels(source: Any) -> Any:
    """All pixels of a source."""
    with source.open() as reader:
        return reader.read(Window(0, 0, *source.grid.shape))


def write(
    path: Path, values: NDArray[Any], *, south_up: bool = False, names: tuple[str, ...] = (), **profile: Any
) -> Path:
    """A raster [band,row,col] whose first row is the northern one, whichever way it is stored."""
    layers = values if values.ndim == 3 else values[None]
    transform = profile.pop("transform", NORTH_UP)
    if south_up:
        layers = layers[:, ::-1]
        transform = transform @ Affine.translation(0, layers.shape[1]) @ Affine.scale(1, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"driver": "GTiff", "crs": UTM, "transform": transform, "dtype": layers.dtype} | profile
    with rasterio.open(path, "w", count=len(layers), height=layers.shape[1], width=layers.shape[2], **about) as file:
        file.write(layers)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


def same(got: NDArray[Any], expected: NDArray[Any], what: str = "pixels") -> str:
    if got.shape == expected.shape and np.allclose(got, expected, rtol=1e-4):
        return "right"
    share = float((~np.isclose(got, expected, rtol=1e-4)).mean()) if got.shape == expected.shape else 1.0
    return f"wrong: {what} of {share:.0%} differ"


def command(*arguments: Any) -> tuple[int, str]:
    """Exit status and output of a command."""
    from pipeline.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as err_:
            status = int(err_.code or 0)
    return int(status or 0), " ".join((out.getvalue() + err.getvalue()).split())


def squares(
    crs: str = UTM, transform: Affine = NORTH_UP, names: tuple[str, ...] = ("field", "forest")
) -> gpd.GeoDataFrame:
    """Thirty-two polygons of 4 x 4 pixels, of two or more classes in turn."""
    rows = []
    for number, (row, col) in enumerate((r, c) for r in range(4, SIDE - 8, 8) for c in range(4, SIDE - 8, 8)):
        (x0, y0), (x1, y1) = transform @ (col, row), transform @ (col + 4, row + 4)
        rows.append((names[number % len(names)], shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))))
    return gpd.GeoDataFrame({"class": [name for name, _ in rows]}, geometry=[shape for _, shape in rows], crs=crs)


def two_bands(*, seed: int = 0) -> NDArray[np.float32]:
    """Reflectance of two bands, noise around 0.1 and 0.3."""
    rng = np.random.default_rng(seed)
    return (np.array([0.1, 0.3])[:, None, None] + rng.normal(0, 0.02, (2, SIDE, SIDE))).astype(np.float32)


def labels_in(folder: Path, frame: gpd.GeoDataFrame | None = None, name: str = "labels.gpkg", **options: Any) -> Path:
    (squares() if frame is None else frame).to_file(folder / name, **options)
    return folder / name


def init(
    folder: Path, scene: Path | str, labels: Path | str, *more: Any, output: str = "config.yaml"
) -> tuple[int, str, dict[str, Any]]:
    """Status, output, and the configuration that was written."""
    file = folder / output
    status, text = command("init", "--scene", scene, "--labels", labels, "--field", "class", "-o", file, *more)
    return status, text, yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}


def class_map(path: Path, codes: NDArray[np.uint8], *, south_up: bool = False) -> Path:
    """A class map with a legend of two classes."""
    legend = [{"code": 1, "name": "field", "color": "#f096ff"}, {"code": 2, "name": "forest", "color": "#006400"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "legend.json").write_text(json.dumps(legend), encoding="utf-8")
    return write(path, codes, south_up=south_up, nodata=0)


HALVES = np.where(ROWS < SIDE // 4, 1, 2).astype(np.uint8)
