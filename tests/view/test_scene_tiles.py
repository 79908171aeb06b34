"""The scene as tiles and as values: stretched reflectance where it was observed, nothing elsewhere."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import Affine

from pipeline.grid import Grid
from pipeline.scenes.opening import open_scene
from pipeline.view import tiles as module
from pipeline.view.tiles import SceneTiles, bands_for, tile_grid
from tests.fakes.viewed_maps import LIBRARY_NOTES, METRES, write_scene
from tests.view.test_tiles import pixels_under, tile_over

pytestmark = LIBRARY_NOTES


def pixels_of(png):
    """uint8 [row, col, 4] of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def expected_picture(world, tile, bands):
    """uint8 [row, col, 4] from the arrays the scene was written from."""
    row, col = pixels_under(tile, world.grid)
    inside = (row >= 0) & (row < world.grid.height) & (col >= 0) & (col < world.grid.width)
    row, col = np.clip(row, 0, world.grid.height - 1), np.clip(col, 0, world.grid.width - 1)
    layers = []
    for band in bands:
        low, high = np.percentile(world.reflectance[band][world.seen], (2, 98))
        layers.append(np.clip((world.reflectance[band][row, col] - low) / (high - low), 0, 1) * 255)
    shown = inside & world.seen[row, col]
    return np.where(shown[..., None], np.stack([*layers, np.full(row.shape, 255)], axis=-1), 0)


@pytest.mark.parametrize(("kind", "bands"), [("true", (2, 1, 0)), ("false", (3, 2, 1))])
def test_close_up_the_pixels_are_the_scenes_own(world, kind, bands):
    tile = tile_over(world.grid, 16)
    scene = SceneTiles(open_scene(world.scene))
    found = pixels_of(scene.tile(tile, kind)).astype(float)
    scene.close()
    near = np.abs(found - expected_picture(world, tile, bands)).max(axis=-1) <= 1
    assert near.mean() > 0.97  # the rest lies at the edge of a pixel


def test_what_was_not_observed_is_transparent(world):
    tile = tile_over(world.grid, 14, pixel=(10, 60))
    found = pixels_of(SceneTiles(open_scene(world.scene)).tile(tile, "true"))
    row, col = pixels_under(tile, world.grid)
    hidden = (row >= 3) & (row < 17) & (col >= 3) & (col < world.grid.width // 2 - 3)
    assert hidden.any()
    assert (found[hidden] == 0).all()
    assert set(np.unique(found[..., 3])) == {0, 255}


def test_values_at_a_pixel_are_the_files(world):
    scene = SceneTiles(open_scene(world.scene))
    assert scene.values_at(100, 33) == pytest.approx(world.reflectance[:, 100, 33], abs=1e-6)
    assert scene.values_at(2, 2) is None
    assert scene.values_at(-5, 2) is None
    scene.close()


def test_a_scene_elsewhere_is_an_empty_tile(world):
    assert not pixels_of(SceneTiles(open_scene(world.scene)).tile(tile_grid(8, 1, 1), "true"))[..., 3].any()


@pytest.mark.parametrize("zoom", [10, 11, 12, 13, 14])
def test_every_level_of_a_large_scene_shows_the_same_ground(tmp_path, monkeypatch, zoom):
    """A scene whose brightness is its row looks the same from every distance, and no tile reads much."""
    monkeypatch.setattr(module, "TOP_PX", 150)
    grid = Grid(METRES.crs, Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0), 1000, 900)
    rows = np.broadcast_to(np.arange(1000)[:, None] + 1000, grid.shape).astype(np.uint16)
    scene = SceneTiles(open_scene(write_scene(tmp_path / "rows.tif", np.stack([rows] * 3), grid)))
    assert [max(level.shape) for level in scene._levels] == [1000, 500, 250, 125]
    tile = tile_over(grid, zoom)
    found = pixels_of(scene.tile(tile, "true"))
    scene.close()
    row, _ = pixels_under(tile, grid)
    low, high = np.percentile(np.arange(1000), (2, 98))
    expected = np.clip((row + 0.5 - low) / (high - low), 0, 1) * 255
    shown = found[..., 3] > 0
    assert shown.any()
    assert np.abs(found[..., 0][shown] - expected[shown]).max() < 5


@dataclass(frozen=True)
class Named:
    """Only what :func:`bands_for` looks at."""

    band_names: tuple[str, ...]
    sensor: str = ""


@pytest.mark.parametrize(
    ("names", "true", "false"),
    [
        (("blue", "green", "red", "nir"), ("red", "green", "blue"), ("nir", "red", "green")),
        (
            ("blue_2020-05-01", "green_2020-05-01", "red_2020-05-01", "red_2020-07-01"),
            ("red_2020-05-01", "green_2020-05-01", "blue_2020-05-01"),
            None,
        ),
        (("b1", "b2"), ("b1", "b1", "b1"), None),
    ],
)
def test_bands_of_the_picture(names, true, false):
    assert bands_for(Named(names), "true") == true
    assert bands_for(Named(names), "false") == false
