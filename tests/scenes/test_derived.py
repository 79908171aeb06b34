"""Sources made of sources: they nest, travel to other processes, and go wherever a scene goes."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.errors import SceneError
from pipeline.grid import Window
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.indices import with_indices
from pipeline.scenes.joining import composite_scenes
from pipeline.scenes.layers import dem_layer, with_layers
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import SceneOptions, StackSettings
from pipeline.scenes.stack import stack_scenes
from tests.fakes.rasters import TRANSFORM, write_raster

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene, Source

SHAPE = (30, 40)


@pytest.fixture
def dates(tmp_path: Path) -> list[Scene]:
    rng = np.random.default_rng(2)
    scenes = []
    for month in (5, 6, 7):
        values = rng.uniform(0.01, 0.5, (2, *SHAPE)).astype(np.float32)
        values[:, rng.random(SHAPE) < 0.3] = np.nan
        path = write_raster(tmp_path / f"{month}.tif", values, names=("red", "nir"))
        scenes.append(open_geotiff(path, options=SceneOptions(acquired_utc=datetime(2022, month, 1, tzinfo=UTC))))
    return scenes


@pytest.fixture
def sources(dates: list[Scene], tmp_path: Path) -> list[Source]:
    dem = write_raster(tmp_path / "dem.tif", np.arange(30 * 40, dtype=np.float32).reshape(SHAPE))
    indexed = [with_indices(scene, ["NDVI"]) for scene in dates]
    stack = stack_scenes(indexed, StackSettings(naming="order"))
    return [
        dates[0],
        indexed[0],
        stack,
        with_layers(stack, [dem_layer(dem)]),
        with_indices(composite_scenes(dates), ["NDVI"]),
        stack_scenes([composite_scenes(dates[:2]), dates[2]]),
    ]


def test_sources_nest_and_their_windows_agree_with_the_whole(sources: list[Source]) -> None:
    for source in sources:
        with open_reader(source) as reader:
            assert reader.bands == source.band_names
            assert reader.grid == source.grid
            whole, part = reader.read(source.grid.window), reader.read(Window(7, 11, 9, 13))
        assert whole.bands == source.band_names
        assert part.grid == source.grid.crop(Window(7, 11, 9, 13))
        np.testing.assert_array_equal(part.values, whole.values[:, 7:16, 11:24])
        np.testing.assert_array_equal(part.valid, whole.valid[7:16, 11:24])
        assert np.isfinite(whole.values).all()
        assert (whole.values[:, ~whole.valid] == 0).all()


def test_sources_travel_to_other_processes(sources: list[Source]) -> None:
    for source in sources:
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own
        with open_reader(source) as one, open_reader(copy) as two:
            a, b = (reader.read(Window(0, 0, 8, 8)) for reader in (one, two))
        np.testing.assert_array_equal(a.values, b.values)


def test_any_source_goes_to_another_grid(sources: list[Source]) -> None:
    grid = sources[0].grid.crop(Window(4, 6, 20, 20))
    for source in sources:
        moved = source.on_grid(grid)
        with open_reader(source) as one, open_reader(moved) as two:
            a, b = one.read(Window(4, 6, 20, 20)), two.read(grid.window)
        np.testing.assert_array_equal(a.valid, b.valid)
        np.testing.assert_allclose(a.values, b.values, atol=1e-4)


def test_an_index_of_every_date_equals_the_index_of_the_date(dates: list[Scene], sources: list[Source]) -> None:
    window = Window(0, 0, *SHAPE)
    with open_reader(sources[2]) as stack, open_reader(sources[1]) as first:
        a, b = stack.read(window), first.read(window)
    np.testing.assert_array_equal(a.band("ndvi_t1")[b.valid], b.band("ndvi")[b.valid])


def test_scenes_without_a_common_or_known_band_are_refused(dates: list[Scene]) -> None:
    with pytest.raises(SceneError, match="no band in common"):
        composite_scenes([dates[0].select(["red"]), dates[1].select(["nir"])])
    with pytest.raises(SceneError, match="lacks band blue"):
        composite_scenes(dates).select(["blue"])


def test_a_coarser_date_does_not_decide_the_grid(dates: list[Scene], tmp_path: Path) -> None:
    coarse = write_raster(
        tmp_path / "c.tif",
        np.full((2, 15, 20), 0.3, np.float32),
        names=("red", "nir"),
        transform=TRANSFORM @ TRANSFORM.scale(2),
    )
    options = SceneOptions(acquired_utc=datetime(2022, 1, 1, tzinfo=UTC))
    assert composite_scenes([open_geotiff(coarse, options=options), *dates]).grid == dates[0].grid
