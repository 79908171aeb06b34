"""Histograms travel with the model; a scene whose values are spread otherwise is told, with figures."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.errors import ModelError, ModelWarning
from pipeline.model.bundle import TrainedOn, load_bundle, save_bundle
from pipeline.model.checks import (
    BINS,
    check_source,
    check_value_range,
    histograms_of,
    sample_values,
    shift_text,
    shifts,
)  # fmt: skip
from pipeline.model.preprocess import Preprocess

BANDS = ("red", "nir", "swir16")


@given(st.floats(-2, 2), st.floats(0.5, 2))
def test_the_distance_is_that_of_kolmogorov_and_smirnov(shift, spread):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0, 1, (4000, 1)), rng.normal(shift, spread, (3000, 1))
    stored = histograms_of([ours.astype(np.float32)])
    (found,) = shifts(stored, theirs.astype(np.float32), bands=["red"])
    exact = stats.ks_2samp(ours[:, 0], theirs[:, 0]).statistic
    assert found.distance <= exact + 1e-3
    # Between two edges lies a twentieth of the one: no more can be missed.
    assert found.distance >= exact - 1 / BINS - 1e-3


@pytest.mark.parametrize("values", [np.zeros(500), np.repeat([0, 1, 5], 400), np.arange(30)])
def test_a_scene_is_at_no_distance_from_its_own_histogram(values):
    pixels = values.astype(np.float32)[:, None]
    (found,) = shifts(histograms_of([pixels]), pixels, bands=["red"])
    assert found.distance <= 0.05


def test_samples_of_several_scenes_are_one_histogram():
    one, two = (np.full((100, 2), value, np.float32) for value in (1, 3))
    stored = histograms_of([one, two])
    assert len(stored) == 2
    assert (stored[0][0], stored[0][BINS // 2], stored[0][-1]) == (1, 2, 3)
    assert histograms_of([np.empty((0, 2), np.float32)]) == ()


def test_half_of_the_bands_must_have_moved():
    rng = np.random.default_rng(1)
    pixels = rng.normal(0.2, 0.02, (1000, 3)).astype(np.float32)
    stored = histograms_of([pixels])
    one = pixels + np.float32([0.1, 0, 0])
    assert shift_text(shifts(stored, one, bands=BANDS)) == ""
    text = shift_text(shifts(stored, pixels + np.float32([0.1, 0.05, 0]), bands=BANDS))
    assert text == (
        "2 of 3 bands are distributed unlike those of the training scenes: red median 0.301 against 0.201 "
        "(distance 0.98); nir median 0.251 against 0.201 (distance 0.79)"
    )


def test_a_model_keeps_histograms_and_warns_of_a_shift(bundle, make_scene, tmp_path):
    scene = make_scene(bands=("red", "nir")).select(("red", "nir"))
    knowing = replace(bundle, histograms=histograms_of([sample_values(scene)]))
    again = load_bundle(save_bundle(tmp_path / "model.safetensors", knowing))
    assert again.histograms == knowing.histograms
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_source(again, scene)
        check_source(bundle, make_scene(bands=("red", "nir"), factor=1.4))  # a model that knows no histograms
    brighter = make_scene(bands=("red", "nir"), factor=1.5)
    with pytest.warns(ModelWarning, match=r"scene\.tif: 1 of 2 bands are distributed unlike.*red median .* against"):
        check_source(again, brighter)


def test_histograms_that_do_not_fit_are_refused(bundle):
    for wrong in (((0.0, 1.0), (0.0,)), ((0.0,) * (BINS + 1),)):
        with pytest.raises(ModelError, match="histograms"):
            replace(bundle, histograms=wrong)


def test_a_scene_that_fits_has_the_models_bands_in_order(bundle, make_scene):
    assert check_source(bundle, make_scene()).band_names == ("red", "nir")


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ({"bands": ("nir", "green")}, "lacks band red"),
        ({"bands": tuple(f"d{day}" for day in range(384))}, r"got d0, [^;]*, d11 \.\.\. and 372 more; expected"),
        ({"level": "L1C"}, r"got L1C \(top-of-atmosphere\); expected L2A \(surface\); use the same product level"),
        ({"level": "L1TP"}, "product level"),
        ({"pixel_m": 30.0}, r"another size.*got 30 m; expected 10 m; read it at that size \(--resolution 10,"),
        ({"factor": 10_000}, "times larger"),
        ({"factor": 1 / 10_000}, "times smaller"),
        ({"factor": 8}, "outside the training range"),
    ],
)
def test_a_scene_that_does_not_fit_is_refused_in_one_line(bundle, make_scene, scene, words):
    with pytest.raises(ModelError, match=words) as caught:
        check_source(bundle, make_scene(**scene))
    assert "\n" not in str(caught.value)
    assert "scene.tif" in str(caught.value)


def test_a_training_scene_of_another_pixel_size_warns(bundle, make_scene):
    trained = replace(bundle, sources=(*bundle.sources, TrainedOn("sentinel-2", "L2A", scene="scene")))
    with pytest.warns(ModelWarning, match="pixels of 30 m, but of the model's scenes the first has 10 m"):
        check_source(trained, make_scene(pixel_m=30.0))


def test_another_unit_is_refused_but_for_counts(bundle, make_scene):
    scene = make_scene()
    for unit in ("DN", ""):
        check_source(bundle, replace(scene, bands=tuple(replace(band, unit=unit) for band in scene.bands)))
    radiance = replace(scene, bands=tuple(replace(band, unit="W/(m2 sr um)") for band in scene.bands))
    with pytest.raises(ModelError, match=r"band red is in another unit.*got W/\(m2 sr um\); expected reflectance"):
        check_source(bundle, radiance)


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ({"sensor": "landsat-oli"}, "matched by name"),
        ({"sensor": "landsat-oli", "level": "L2SP"}, "matched by name"),
        ({"factor": 2.8, "bands": ("red", "nir")}, "less certain"),
        ({"valid": False}, "no valid pixel"),
    ],
)
def test_a_scene_near_the_edge_is_mapped_with_a_warning(bundle, make_scene, scene, words):
    with pytest.warns(ModelWarning, match=words):
        check_source(bundle, make_scene(**scene))


LAND = np.array([0.08, 0.1, 0.09, 0.3, 0.25, 0.15])
SEA = np.array([0.03, 0.02, 0.01, 0.005, 0.003, 0.002])


def land_model(*, low):
    """What the checks look at of a model of land, darkest at a share of its means."""
    count = len(LAND)
    preprocess = Preprocess(tuple(f"b{i}" for i in range(count)), tuple(LAND), tuple(LAND / 4))
    ranges = tuple((low * value, 3 * value) for value in LAND)
    return SimpleNamespace(bands=preprocess.bands, preprocess=preprocess, value_range=ranges, histograms=())


@pytest.mark.parametrize("factor", [1 / 40, 1 / 10, 30])
def test_a_copy_in_another_unit_is_refused(factor):
    pixels = (LAND * np.random.default_rng(0).normal(1, 0.2, (500, 6)) * factor).astype(np.float32)
    with pytest.raises(ModelError, match=r"values are [\d.]+ times (smaller|larger) than those"):
        check_value_range(land_model(low=0.3), pixels, path="scene.tif")


@pytest.mark.parametrize(("scene", "low"), [(SEA, 0.3), (LAND / 20, 0.0)])
def test_open_sea_and_known_shadow_are_not_another_unit(scene, low):
    """Sea is as dark as a copy in bytes is, but by another factor in each band; shadow is there in the training set."""
    pixels = (scene * np.random.default_rng(0).normal(1, 0.2, (500, 6))).astype(np.float32)
    check_value_range(land_model(low=low), pixels, path="scene.tif")
