from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
import yaml

from pipeline.config import GONE, MOVED, Config, load_config, schema_json, upgraded
from pipeline.errors import ConfigError, ConfigWarning
from tests.fakes.small_world import settings

GOOD = {
    "version": 1,
    "scenes": [{"path": "scene.tif"}],
    "labels": {"path": "labels.gpkg", "field": "class"},
    "classes": [{"code": 1, "name": "water", "color": "#0072b2"}],
}


def write(folder: Path, data: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file_wherever_run(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    assert config.scenes[0].path == str(tmp_path / "scene.tif")
    assert config.labels.path == str(tmp_path / "labels.gpkg")


@pytest.mark.parametrize("path", ["https://example.org/item.json", "/vsizip/a.zip/b.tif"])
def test_urls_and_gdal_paths_stay_as_they_are(tmp_path, path):
    assert load_config(write(tmp_path, GOOD | {"scenes": [{"path": path}]})).scenes[0].path == path


def test_a_misspelt_key_is_an_error_that_names_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key 'split\.blok_m'.*did you mean 'block_m'\?"):
        load_config(write(tmp_path, GOOD | {"split": {"blok_m": 5}}))


def test_a_misspelt_key_in_a_list_is_found_too(tmp_path):
    with pytest.raises(ConfigError, match=r"scenes\.0\.pth.*did you mean 'path'"):
        load_config(write(tmp_path, GOOD | {"scenes": [{"path": "a.tif", "pth": 1}]}))


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match="key 'labels' is missing"):
        load_config(write(tmp_path, {key: value for key, value in GOOD.items() if key != "labels"}))


def test_a_wrong_value_says_what_was_found_and_expected(tmp_path):
    with pytest.raises(ConfigError, match=r"key 'split\.block_m'; got -5; expected .*greater than 0"):
        load_config(write(tmp_path, GOOD | {"split": {"block_m": -5}}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": [{"code": 1, "name": "w", "color": "blue"}]}, "classes.0.color'; got 'blue'; expected #rrggbb in"),
        ({"name": "a/b"}, "'name'; got 'a/b'; expected letters, digits"),
        ({"map": {"dtype": "x"}}, "'map.dtype'; got 'x'; expected 'auto', 'float32', 'bfloat16' or 'int8'"),
        ({"map": {"entropy": "maybe"}}, "'map.entropy'; got 'maybe'; expected true or false"),
        ({"map": 5}, "'map'; got 5; expected keys with values"),
        ({"classes": []}, "'classes'; got []; expected at least 1 item, not 0"),
        ({"training": {"context": {"share": "x"}}}, "'training.context.share'; got 'x'; expected a number"),
        ({"labels": {"path": "a", "point_window_px": 4}}, "'labels.point_window_px'; got 4; expected an odd number"),
        ({"labels": {"path": "a", "aliases": {False: "x"}}}, "got False; expected text, in quotes"),
        ({"split": {"train": 0.9}}, "key 'split': train + validation"),
    ],
)
def test_what_is_expected_is_said_without_library_words(tmp_path, change, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        load_config(write(tmp_path, GOOD | change))
    assert not re.search("Value error|should|pattern|Input", str(caught.value))


def test_classes_that_are_numbers_need_no_quotes_as_keys(tmp_path):
    labels = {"path": "a", "aliases": {11: "Wald", 2.0: "See"}, "class_erode_px": {11: 1}}
    section = load_config(write(tmp_path, GOOD | {"labels": labels})).labels
    assert section.aliases == {"11": "Wald", "2": "See"}
    assert section.class_erode_px == {"11": 1}


def test_fractions_of_the_split_must_sum_to_one(tmp_path):
    with pytest.raises(ConfigError, match=r"train \+ validation \+ test is 1\.3"):
        load_config(write(tmp_path, GOOD | {"split": {"train": 0.9}}))


@pytest.mark.parametrize("text", ["a: [1, 2", "\x00"])
def test_what_is_not_yaml_is_one_line(tmp_path, text):
    with pytest.raises(ConfigError, match="cannot be read as YAML") as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_list_is_not_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match="not a mapping"):
        load_config(write(tmp_path, "- 1\n- 2\n"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_every_key_has_a_description():
    def undocumented(schema: dict, where: str) -> list[str]:
        return [
            f"{where}.{key}"
            for key, value in schema.get("properties", {}).items()
            if not value.get("description") and "$ref" not in value and "default" not in value
        ]

    schema = json.loads(schema_json())
    missing = [name for part, body in schema["$defs"].items() for name in undocumented(body, part)]
    assert missing == []


def test_a_configuration_cannot_be_changed_after_loading(tmp_path):
    config = load_config(write(tmp_path, GOOD))
    with pytest.raises(Exception, match="frozen"):
        config.name = "other"
    assert isinstance(config, Config)


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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("key", sorted(GONE))
def test_a_key_that_went_is_left_out_with_the_reason(key, version):
    section, name = key.split(".")
    with pytest.warns(ConfigWarning, match=f"{key} went"):
        new = upgraded({"version": version, section: {name: 1}}, path=HERE)
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


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ({"head": "chip", "steps": 5}, False),
        ({"frozen": True, "weights": "ResNet18_Weights.SENTINEL2_ALL_MOCO", "steps": 5}, False),
        ({"head": "chip", "frozen": False, "steps": 5}, True),
        ({"head": "chip", "context_share": 0.3, "steps": 5}, True),
        ({"frozen": True, "encoder": "resnet18", "weights": "imagenet", "steps": 5}, True),
    ],
    ids=str,
)
def test_steps_that_a_kept_encoder_does_not_take_went(tmp_path, old, kept):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(version=1, training=old)), encoding="utf-8")
    with pytest.warns(ConfigWarning) as caught:
        config = load_config(path)
    said = "training.steps is now" if kept else "training.steps went: it steers nothing here"
    assert any(said in str(item.message) for item in caught)
    assert config.training.context.steps == (5 if kept else 300)
