"""Options that are settings: short forms, help from the declaration, one meaning each."""

from __future__ import annotations

import pytest
import typer

from pipeline.cli.entry import app, main
from pipeline.cli.options import SettingsCommand
from pipeline.errors import ConfigError
from pipeline.settings import changed

COMMANDS = {
    name: command
    for name, command in typer.main.get_command(app).commands.items()
    if isinstance(command, SettingsCommand)
}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["--date", "2024-06-01", "--date=2024-07-01"], {"scene": {"date": ["2024-06-01", "2024-07-01"]}}),
        (["--bands", "blue,green"], {"scene": {"bands": ["blue", "green"]}}),
        (["--polygons"], {"map": {"polygons": "true"}}),
        (["--resolution", "10", "--engine=openvino"], {"scene": {"resolution_m": "10"}, "map": {"engine": "openvino"}}),
    ],
)
def test_options_stand_for_settings(given, made):
    words = COMMANDS["predict"].spelled_out(given, own=set())
    assert words[::2] == ["--set"] * (len(words) // 2)
    assert changed({}, words[1::2]) == made


def test_values_with_commas_stay_whole_in_a_list():
    (_, word) = COMMANDS["design"].spelled_out(["--expected", "crops, dry=0.9", "--expected", "0.8"], own=set())
    assert changed({}, [word]) == {"design": {"expected": ["crops, dry=0.9", "0.8"]}}


def test_an_option_without_its_value_is_refused():
    with pytest.raises(ConfigError, match="option --engine without a value"):
        COMMANDS["predict"].spelled_out(["--engine"], own=set())


def test_options_of_nobody_are_left_to_be_refused(capsys):
    assert main(["design", "map.tif", "--nonsense", "1"]) == 2
    assert "No such option: --nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["objects", "m.tif", "--min-area", "inf"], ["objects", "m.tif", "--tolerance=nan"],
        ["objects", "m.tif", "--min-area=-1"],
        ["design", "m.tif", "--target-se", "nan"], ["design", "m.tif", "--cluster-px=-5"],
        ["design", "m.tif", "--seed=-1"],
        ["compare", "a.tif", "b.tif", "--reference", "p.gpkg", "--sequential", "--margin", "inf"],
        ["zone", "m.tif", "--reference", "p.gpkg", "--field", "c", "--design", "d.json", "--max-error=nan"],
        ["export", "m", "--scale", "inf"], ["predict", "--model", "m", "--scene", "s", "--sieve-ha", "inf"],
        ["search", "earth-search", "-c", "a", "--area", "0,0,1,1", "--dates", "2024", "--max-cloud=-3"],
        ["forecast", "s.tif", "--dropout", "nan"], ["pretrain", "c.yaml", "--time-limit-s", "inf"],
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "no such file" not in said.lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_means_one_setting(name):
    options = [option for option, _, _ in COMMANDS[name]._settings()]
    assert len(options) == len(set(options)) > 0


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_option_and_setting(name, capsys):
    assert main([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for option, key, field in COMMANDS[name]._settings():
        assert f"{key} " in text or f"{option} " in text
        if f"{key} " in text:
            assert " ".join((field.description or "").split())[:40] in text
