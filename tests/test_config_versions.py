"""Configuration files of version 1 are read, with one line per key that moved or went."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_config
from pipeline.config_versions import GONE, MOVED, upgraded
from pipeline.errors import ConfigError, ConfigWarning
from tests.fakes.small_world import settings

HERE = Path("config.yaml")


def upgrade(training, **sections):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = upgraded({"version": 1, "training": training, **sections}, path=HERE)
    return new, [str(item.message) for item in caught]


SEVERAL = {"training.context_share", "training.weights_bands", "training.encoder", "training.weights"}


@pytest.mark.parametrize("key", sorted(MOVED.keys() - SEVERAL))
def test_a_key_that_moved_is_found_in_its_place(key):
    new, said = upgrade({key.removeprefix("training."): 7})
    for name in MOVED[key].split("."):
        new = new[name]
    assert new == 7
    assert f"config.yaml: {key} is now {MOVED[key]}" in said


@pytest.mark.parametrize("key", sorted(GONE))
def test_a_key_that_went_is_left_out_with_the_reason(key):
    section, name = key.split(".")
    with pytest.warns(ConfigWarning, match=f"{key} went"):
        new = upgraded({"version": 1, section: {name: 1}}, path=HERE)
    assert name not in new[section]


@pytest.mark.parametrize(
    ("old", "context"),
    [
        ({"context_share": 0.3}, {"enabled": True, "weights": "none", "share": 0.3}),
        (
            {"context_share": "learned", "encoder": "resnet34"},
            {"enabled": True, "weights": "none", "encoder": "resnet34"},
        ),
        ({"context_share": 0}, {"enabled": False}),
        ({"weights": "imagenet"}, {"enabled": True, "weights": "imagenet"}),
        ({"encoder": "none", "context_share": 0.3}, {"enabled": False, "share": 0.3}),
        ({"encoder": "resnet18", "weights": "none", "context_share": None}, {"enabled": False}),
        ({"steps": 5}, {"steps": 5}),
    ],
    ids=str,
)
def test_the_network_with_context_is_on_where_it_was(old, context):
    new, _ = upgrade(old)
    assert new["training"].get("context", {}) == context


def test_labels_alone_are_still_labels_alone():
    new, said = upgrade({"soft_weight": 0})
    assert new["training"]["experts"] == {"enabled": False}
    assert any("training.experts.enabled is set to false" in line for line in said)


def test_with_patience_validation_polygons_are_not_learned():
    assert upgrade({"patience": 3})[0]["training"]["refit"] is False


def test_a_whole_file_of_version_1_loads(tmp_path):
    training = {"encoder": "resnet34", "steps": 5, "pixel_steps": 9, "teacher_trees": 3, "ema": 0.9, "ensemble": 2}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(version=1, training=training)), encoding="utf-8")
    with pytest.warns(ConfigWarning) as caught:
        config = load_config(path)
    assert len(caught) == len(training) + 1  # context.enabled follows
    assert (config.version, config.training.context.steps, config.training.pixels.steps) == (2, 5, 9)
    assert not config.training.context.enabled


@pytest.mark.parametrize("engine", [{}, {"engine": "auto"}])
def test_int8_maps_with_openvino(tmp_path, engine):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(version=1, map={"dtype": "int8", **engine})), encoding="utf-8")
    with pytest.warns(ConfigWarning) as caught:
        assert load_config(path).map.engine == "openvino"
    assert "map.engine is set to openvino" in str(caught[-1].message)


def test_a_file_of_version_2_is_left_as_it_is(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(training={"pixel_steps": 9})), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown key .training\.pixel_steps."):
        load_config(path)
