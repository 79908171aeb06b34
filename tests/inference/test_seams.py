from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.inference.engine import Choice
from pipeline.inference.plan import Plan
from pipeline.inference.predict import predict_scene
from pipeline.inference.rows import RowStore
from pipeline.inference.seams import compare_tilings, seam_figure
from pipeline.inference.settings import MapSettings
from tests.inference.models import grid_of, noise_scene, small_bundle

if TYPE_CHECKING:
    from pathlib import Path

GRID = grid_of(1200, 700)
PLAN = Plan(tile_px=100, halo_px=0, stride_px=1, batch=1, threads=1, choice=Choice())


def store(path: Path, codes: np.ndarray) -> RowStore:
    made = RowStore.create(path, shape=GRID.shape)
    made.write(GRID.window, codes.astype(np.uint8))
    return made


def test_equal_maps_have_no_seam_whatever_the_landscape(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(1, 4, GRID.shape)
    with store(tmp_path / "a", codes) as a, store(tmp_path / "b", codes) as b:
        got = compare_tilings(a, b, grid=GRID, plans=(PLAN, replace(PLAN, shift_px=50)))
    assert (got.seam, got.agreement, got.near, got.far) == (1.0, 1.0, 0.0, 0.0)
    assert 0 < got.noise < 0.1


def test_a_map_whose_tiles_differ_in_class_has_a_seam(tmp_path: Path) -> None:
    rows, cols = np.mgrid[: GRID.height, : GRID.width]
    noise = np.random.default_rng(0).random(GRID.shape) < 0.02
    checker = np.where(noise, 3, 1 + (rows // 100 + cols // 100) % 2)
    plain = np.where(noise, 3, 1)
    with store(tmp_path / "a", checker) as a, store(tmp_path / "b", plain) as b:
        got = compare_tilings(a, b, grid=GRID, plans=(PLAN, replace(PLAN, shift_px=50)))
    assert got.seam > 10
    assert got.agreement < 0.6


def test_the_figure_of_a_scene_is_one_with_a_halo_only(tmp_path: Path) -> None:
    scene, bundle = noise_scene(tmp_path / "scene.tif", height=256, width=256), small_bundle()
    figures = []
    for halo in (32, 0):
        asked = MapSettings(engine="torch", dtype="float32", threads=1, tile_px=32, halo_px=halo)
        with predict_scene(bundle, scene, out=tmp_path / "first", settings=asked) as first:
            figures.append(seam_figure(bundle, scene, first, out=tmp_path / "second", settings=asked))
    assert not list((tmp_path / "second").iterdir())
    assert figures[0].agreement > 0.9995
    assert abs(figures[0].seam - 1.0) <= 0.02
    assert figures[1].agreement < figures[0].agreement
    assert figures[1].near > figures[1].far
