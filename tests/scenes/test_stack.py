"""Stacks of dates: order, names, and what happens on clouded dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.errors import SceneError, SceneWarning
from pipeline.grid import Window
from pipeline.scenes.geotiff import open_geotiff
from pipeline.scenes.reader import open_reader
from pipeline.scenes.settings import SceneOptions, StackSettings
from pipeline.scenes.sources import QualitySource
from pipeline.scenes.stack import fill_in_time, scenes_from_bands, stack_scenes
from tests.fakes.rasters import TRANSFORM, write_raster

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.scenes.scene import Scene

SHAPE = (12, 9)
DAYS = ("2020-05-01", "2020-05-11", "2020-06-10")


def at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def dated(scene: Scene, day: str) -> Scene:
    return replace(scene, acquired_utc=at(day))


@pytest.fixture
def season(tmp_path: Path) -> list[Scene]:
    """Three dates of two bands; value = 0.01 x days since the first + band / 10; date 2 is clouded in columns 0..3."""
    scenes = []
    for day in DAYS:
        base = 0.01 * (at(day) - at(DAYS[0])).days
        values = np.stack([np.full(SHAPE, base + 0.1), np.full(SHAPE, base + 0.2)]).astype(np.float32)
        if day == DAYS[1]:
            values[:, :, :4] = np.nan
        path = write_raster(tmp_path / f"{day}.tif", values, names=("red", "nir"))
        scenes.append(open_geotiff(path, options=SceneOptions(acquired_utc=at(day))))
    return scenes


def test_dates_are_sorted_and_named(season: list[Scene]) -> None:
    stack = stack_scenes(season[::-1])
    assert stack.band_names == tuple(f"{band}_{day}" for day in DAYS for band in ("red", "nir"))
    assert stack.acquired_utc == at(DAYS[0])
    assert stack_scenes(season, StackSettings(naming="order")).band_names[-1] == "nir_t3"


def test_a_clouded_date_is_interpolated_and_never_zero(season: list[Scene]) -> None:
    with open_reader(stack_scenes(season, StackSettings(validity=True))) as reader:
        raster = reader.read(Window(0, 0, *SHAPE))
    assert raster.valid.all()
    np.testing.assert_allclose(raster.band("red_2020-05-11"), 0.2, atol=1e-6)  # linear in time, as the truth is
    np.testing.assert_allclose(raster.band("nir_2020-05-11"), 0.3, atol=1e-6)
    seen = raster.band("valid_2020-05-11")
    assert (seen[:, :4] == 0).all()
    assert (seen[:, 4:] == 1).all()
    assert (raster.band("valid_2020-05-01") == 1).all()


def test_the_rule_of_validity_can_be_chosen(season: list[Scene]) -> None:
    window = Window(0, 0, *SHAPE)
    for options in ({"min_dates": 3}, {"fill": "none"}):
        with open_reader(stack_scenes(season, StackSettings(**options))) as reader:
            raster = reader.read(window)
        assert not raster.valid[:, :4].any()
        assert raster.valid[:, 4:].all()
        assert (raster.values[:, :, :4] == 0).all()
    with open_reader(stack_scenes(season, StackSettings(fill="nearest"))) as reader:
        np.testing.assert_allclose(reader.read(window).band("red_2020-05-11")[:, :4], 0.1, atol=1e-6)


def test_a_pixel_that_no_date_saw_is_not_valid(tmp_path: Path) -> None:
    values = np.full((1, *SHAPE), np.nan, dtype=np.float32)
    path = write_raster(tmp_path / "a.tif", values, names=("red",))
    with open_reader(stack_scenes([dated(open_geotiff(path), day) for day in DAYS[:2]])) as reader:
        raster = reader.read(Window(0, 0, *SHAPE))
    assert not raster.valid.any()
    assert (raster.values == 0).all()


def test_regular_steps_make_stacks_of_other_days_alike(season: list[Scene]) -> None:
    noon = [replace(scene, acquired_utc=scene.acquired_utc + timedelta(hours=12)) for scene in season]
    days = (122, 131, 152)
    full = stack_scenes(noon, StackSettings(regular=days))
    fewer = stack_scenes([noon[0], noon[2]], StackSettings(regular=days))
    assert full.band_names == fewer.band_names == tuple(f"{b}_doy{d}" for d in days for b in ("red", "nir"))
    window = Window(0, 0, *SHAPE)
    with open_reader(full) as one, open_reader(fewer) as two:
        a, b = one.read(window), two.read(window)
    np.testing.assert_allclose(a.values, b.values, atol=1e-6)
    np.testing.assert_allclose(a.band("red_doy152")[0, 0], 0.1 + 0.01 * (152 - 122), atol=1e-6)


def test_regular_steps_outside_the_dates_are_told(season: list[Scene]) -> None:
    with pytest.warns(SceneWarning, match="doy300 lie outside the dates 2020-05-01 to 2020-06-10"):
        stack_scenes(season, StackSettings(regular=(130, 300)))


def test_windows_equal_the_whole_and_reach_beyond_the_grid(season: list[Scene]) -> None:
    with open_reader(stack_scenes(season)) as reader:
        whole = reader.read(Window(0, 0, *SHAPE))
        part = reader.read(Window(-2, 5, 6, 8))
    np.testing.assert_array_equal(part.values[:, 2:, :4], whole.values[:, :4, 5:])
    assert not part.valid[:2].any()
    assert not part.valid[:, 4:].any()


def test_selected_bands_come_alone_and_in_order(season: list[Scene]) -> None:
    stack = stack_scenes(season, StackSettings(validity=True))
    names = ["nir_2020-06-10", "valid_2020-05-11", "red_2020-05-11"]
    with open_reader(stack.select(names)) as reader, open_reader(stack) as whole:
        window = Window(3, 2, 4, 4)
        raster, everything = reader.read(window), whole.read(window)
    assert raster.bands == reader.bands == tuple(names)
    for name in names:
        np.testing.assert_array_equal(raster.band(name), everything.band(name))
    with pytest.raises(SceneError, match="lacks band nir_2020-07-01"):
        stack.select(["nir_2020-07-01"])


def test_a_date_on_coarser_pixels_comes_onto_the_finest_grid(season: list[Scene], tmp_path: Path) -> None:
    values = np.full((2, 6, 5), 0.7, dtype=np.float32)
    coarse = write_raster(tmp_path / "c.tif", values, names=("red", "nir"), transform=TRANSFORM @ TRANSFORM.scale(2))
    stack = stack_scenes([dated(open_geotiff(coarse), DAYS[2]), season[0]])
    assert stack.grid == season[0].grid
    with open_reader(stack) as reader:
        np.testing.assert_allclose(reader.read(Window(0, 0, *SHAPE)).band("red_2020-06-10"), 0.7, atol=1e-6)


def test_what_cannot_be_stacked_is_refused_with_the_reason(season: list[Scene]) -> None:
    undated = replace(season[0], acquired_utc=None)
    with pytest.raises(SceneError, match="date of acquisition unknown; give a date for every scene"):
        stack_scenes([undated, season[1]])
    with pytest.raises(SceneError, match="band name used twice: nir_2020-05-01, red_2020-05-01"):
        stack_scenes([season[0], season[0]])
    with pytest.raises(SceneError, match="no band in common"):
        stack_scenes([season[0].select(["red"]), season[1].select(["nir"])])
    with pytest.raises(SceneError, match="min_dates of a stack; got 4; expected 1 to 3"):
        stack_scenes(season, StackSettings(min_dates=4))
    with pytest.raises(SceneError, match="no scene given"):
        stack_scenes([])
    with pytest.raises(SceneError, match="ascending days of the year"):
        stack_scenes(season, StackSettings(regular=[152, 122]))


def test_the_ledger_holds_the_rule_and_every_date(season: list[Scene]) -> None:
    stack = stack_scenes(season, StackSettings(min_dates=2))
    ledger = stack.ledger()
    assert ledger["min_dates"] == 2
    assert [entry["scene"] for entry in ledger["scenes"]] == [scene.id for scene in season]
    assert set(stack.files) == {scene.path for scene in season}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), count=st.integers(1, 6))
def test_filling_equals_numpy_interp_on_valid_dates(data: st.DataObject, count: int) -> None:
    days = data.draw(st.lists(st.integers(0, 300), min_size=count, max_size=count, unique=True))
    times = np.sort(np.array(days, dtype=float))
    targets = np.array(data.draw(st.lists(st.integers(-20, 320), min_size=1, max_size=5)), dtype=float)
    valid = data.draw(arrays(np.bool_, (count, 2, 2)))
    values = data.draw(arrays(np.float32, (count, 2, 2, 2), elements=st.floats(0, 1, width=32)))
    result = fill_in_time(values, valid, times=times, targets=targets)
    for row, col in np.ndindex(2, 2):
        seen = valid[:, row, col]
        for band in range(2):
            series = result[:, band, row, col]
            if seen.any():
                expected = np.interp(targets, times[seen], values[seen, band, row, col])
                np.testing.assert_allclose(series, expected, atol=1e-5)
            else:
                assert (series == 0).all()


def test_valid_dates_come_back_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((5, 3, 8, 8), dtype=np.float32)
    valid = rng.random((5, 8, 8)) < 0.6
    times = np.array([0.0, 3.5, 11.0, 30.0, 31.0])
    result = fill_in_time(values, valid, times=times, targets=times)
    seen = np.broadcast_to(valid[:, None], values.shape)
    np.testing.assert_array_equal(result[seen], values[seen])


def test_a_file_of_dates_is_plain_bands_and_can_be_a_stack(shared_data: Path) -> None:
    scene = open_geotiff(shared_data / "fieldrs_ndvi" / "ndvi.tif", options=SceneOptions(scale=1e-4))
    with open_reader(scene) as reader:
        plain = reader.read(Window(0, 0, 112, 227))
    assert plain.bands == ("band1", "band2", "band3", "band4", "band5")
    dates = [datetime(2016, month, 15, tzinfo=UTC) for month in range(4, 9)]
    stack = stack_scenes(scenes_from_bands(scene, dates=dates, band="ndvi"))
    assert stack.band_names == tuple(f"ndvi_{date.date().isoformat()}" for date in dates)
    with open_reader(stack) as reader:
        raster = reader.read(Window(0, 0, 112, 227))
    np.testing.assert_array_equal(raster.values[:, plain.valid], plain.values[:, plain.valid])
    assert raster.valid.sum() >= plain.valid.sum()


def holden(shared_data: Path) -> list[Scene]:
    """Two dates of Landsat 7 surface reflectance with their Fmask layer as quality."""
    bands = ("blue", "green", "red", "nir08", "swir16", "swir22", "thermal", "fmask")
    scenes = []
    for name, when in (
        ("LE70220491999322EDC01_stack", datetime(1999, 11, 18, tzinfo=UTC)),
        ("LE70220492002106EDC00_stack", datetime(2002, 4, 16, tzinfo=UTC)),
    ):
        path = shared_data / "holden_le7" / f"{name}.gtif"
        options = SceneOptions(bands=bands, scale=1e-4, sensor="landsat-etm", acquired_utc=when)
        scene = open_geotiff(path, options=options).select(bands[:6])
        # Fmask: 2 cloud shadow, 3 snow, 4 cloud, 255 fill (Zhu & Woodcock 2012); 16000 is LEDAPS' saturation.
        fmask = QualitySource("fmask", str(path), index=8, bad_values=(2, 3, 4, 255))
        bands_clipped = tuple(replace(band, valid_max=15999) for band in scene.bands)
        scenes.append(replace(scene, bands=bands_clipped, quality=(fmask,)))
    return scenes


def test_clouds_of_one_real_date_are_filled_from_the_other(shared_data: Path) -> None:
    first, second = holden(shared_data)
    with open_reader(first) as one, open_reader(second) as two, open_reader(stack_scenes([second, first])) as both:
        a, b, stack = (reader.read(Window(0, 0, 250, 250)) for reader in (one, two, both))
    clouded = a.valid & ~b.valid
    assert 0 < clouded.sum() < clouded.size
    assert stack.valid[a.valid | b.valid].all()
    np.testing.assert_array_equal(stack.band("nir08_2002-04-16")[b.valid], b.band("nir08")[b.valid])
    np.testing.assert_array_equal(stack.band("nir08_2002-04-16")[clouded], a.band("nir08")[clouded])
