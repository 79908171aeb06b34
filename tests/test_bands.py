"""Band tables: every spelling finds its band, and names are translated only where they are certain."""

from __future__ import annotations

import pytest

from pipeline.bands import COMMON_NAMES, TABLES, centre_um, common_name, find_band, infer_sensor, is_optical


@pytest.mark.parametrize("sensor", TABLES)
def test_names_keys_and_aliases_of_a_sensor_are_unique(sensor: str) -> None:
    spellings = [text.lower() for spec in TABLES[sensor] for text in (spec.name, spec.key, *spec.aliases)]
    assert len(spellings) == len(set(spellings))
    for spec in TABLES[sensor]:
        for text in (spec.name, spec.key.lower(), spec.key.upper(), *spec.aliases):
            assert find_band(f" {text} ", sensor=sensor) is spec


def test_a_common_name_is_the_same_spectrum_for_every_sensor() -> None:
    for name in COMMON_NAMES:
        centres = [spec.centre_um for table in TABLES.values() for spec in table if spec.name == name]
        if name != "pan":
            assert max(centres) / min(centres) < 1.06, name


def test_near_infrared_of_landsat_is_sentinel2s_narrow_one() -> None:
    keys = {"landsat-tm": "SR_B4", "landsat-etm": "SR_B4", "landsat-oli": "SR_B5", "sentinel-2": "B8A"}
    names = {common_name(key, sensor=sensor) for sensor, key in keys.items()}
    assert names == {"nir08"}


@pytest.mark.parametrize(
    ("texts", "sensor"),
    [
        (("B1", "B8A", "B11", "B12"), "sentinel-2"),
        (("B01", "B02"), None),
        (("B1", "B2", "B3"), None),
        (("B1", "B10", "B11", "B12"), "sentinel-2"),
        (("SR_B1", "SR_B6", "ST_B10"), "landsat-oli"),
        (("SR_B1", "SR_B5"), None),
        (("blue", "green"), None),
        (("B8A", "B13"), None),
        ((), None),
    ],
)
def test_a_sensor_is_inferred_from_unambiguous_names_only(texts: tuple[str, ...], sensor: str | None) -> None:
    assert infer_sensor(texts) == sensor


def test_unknown_descriptions_stay_what_they_are_in_lower_case() -> None:
    assert common_name("Canopy Height") == "canopy height"
    assert common_name("B5") == "b5"


def test_thermal_bands_and_layers_are_not_optical() -> None:
    assert is_optical("swir22")
    assert not is_optical("lwir11")
    assert not is_optical("elevation")
    assert centre_um("elevation") is None
