from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.inference.settings import MapSettings, parse_bytes


@pytest.mark.parametrize("text", ["", "2 potatoes", "-1GB", "0", "I", "1e3MB"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory", "2 potatoes"), ("memory", True), ("engine", "auto"), ("engine", "onnxruntime"), ("dtype", "float16"),
        ("mosaic_crs", "EPSG:3O35"), ("mosaic", "newest"), ("tile_px", 0), ("batch", 0), ("halo_px", -1),
        ("threads", 0), ("blend", "hann"), ("tta", True), ("mosaic_pixel", 0),
    ],
)  # fmt: skip
def test_a_value_without_meaning_is_refused_at_load(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        MapSettings.model_validate({key: value})


def test_integers_need_openvino_and_openvino_a_cpu() -> None:
    with pytest.raises(ValidationError, match="dtype int8 needs engine openvino"):
        MapSettings(dtype="int8")
    with pytest.raises(ValidationError, match="engine openvino runs on device cpu"):
        MapSettings(engine="openvino", device="cuda")


def test_memory_is_bytes_and_a_plain_number_is_too() -> None:
    assert MapSettings(memory="1.5GB").memory_bytes == 1_500_000_000
    assert MapSettings.model_validate({"memory": 10**9}).memory_bytes == 10**9
