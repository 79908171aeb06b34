"""Names of scenes: what a file system, a pattern or another file of the run reads is never in them."""

from __future__ import annotations

import fnmatch
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import SceneError, SceneWarning
from pipeline.scenes.opening import open_scene
from pipeline.scenes.settings import MAX_BYTES, is_name, name_of
from tests.fakes.small_world import write_scene

ODD = (
    "a[1]",
    "-a",
    ".a",
    "a/b",
    "..",
    "<b>",
    "a" * 300,
    "é" * 90,
    "",
    "run",
    "Collection",
    "a\n",
    "a ",
    "a*",
    "a:b",
    "a?",
)


@pytest.mark.parametrize("text", ODD)
def test_an_unsafe_name_becomes_a_safe_one_with_a_notice(text):
    assert not is_name(text)
    with pytest.warns(SceneWarning, match="set id"):
        name = name_of(text, path="x.tif")
    assert is_name(name)


@given(st.text(max_size=150))
@example("a" * 99 + "é")
def test_every_name_is_a_single_file_that_no_pattern_reads(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SceneWarning)
        name = name_of(text, path="x.tif")
    assert is_name(name)
    assert Path(name).name == name
    assert len(name.encode()) <= MAX_BYTES
    assert fnmatch.fnmatchcase(name, name)
    assert name_of(name, path="x.tif") == name


def test_long_names_that_differ_at_the_end_stay_different():
    with pytest.warns(SceneWarning):
        assert name_of("a" * 200 + "1", path="x") != name_of("a" * 200 + "2", path="x")


def test_a_file_with_an_unsafe_name_opens_under_a_safe_one(tmp_path):
    path = write_scene(tmp_path / "site[3] <b>.tif")
    with pytest.warns(SceneWarning, match="site_3"):
        scene = open_scene(path)
    assert scene.id == "site_3_ _b_"


def test_a_scene_cannot_be_called_what_its_files_cannot(tmp_path):
    scene = open_scene(write_scene(tmp_path / "scene.tif"))
    with pytest.raises(SceneError, match="name of a scene"):
        type(scene)("../scene", scene.path, scene.grid, scene.bands)


@pytest.mark.parametrize(
    "scaling", [{"scale": 0.0}, {"scale": -1e-4}, {"scale": np.nan}, {"scale": np.inf}, {"offset": np.nan}]
)
def test_a_scaling_that_makes_no_values_is_refused_at_reading(tmp_path, scaling):
    path = write_scene(tmp_path / "scene.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (scaling.get("scale", 1.0),) * dataset.count
        dataset.offsets = (scaling.get("offset", 0.0),) * dataset.count
    with pytest.raises(SceneError, match="scaling of band blue"):
        open_scene(path)
