from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings

import pyogrio
import pytest
import rasterio

from pipeline.cli.console import Console, _Lines
from pipeline.cli.entry import GROUPS, INTERRUPTED, app, main
from pipeline.errors import LabelWarning
from pipeline.workflow.outcome import Outcome, Table

COMMANDS = [command.name for command in app.registered_commands]


def test_help_imports_nothing_slow():
    commands = [[], *([name] for name in COMMANDS), ["model", "show"]]
    code = (
        "import sys; sys.argv[0] = 'landcover'\n"
        "from pipeline.cli import main\n"
        "slow = {'torch', 'geopandas', 'matplotlib', 'scipy', 'sklearn', 'numpy', 'rasterio'}\n"
        f"for command in {commands!r}:\n"
        "    assert main([*command, '--help']) == 0, command\n"
        "    assert not slow & set(sys.modules), command\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: landcover") == len(commands)


@pytest.mark.parametrize("command", ["check", "chips", "run"])
def test_a_wrong_key_is_told_before_anything_slow(command, tmp_path):
    (tmp_path / "config.yaml").write_text("version: 2\nname: x\nlabel: {}\n")
    code = (
        "import sys; from pipeline.cli import main\n"
        f"assert main([{command!r}, {str(tmp_path / 'config.yaml')!r}]) == 2\n"
        "assert not {'torch', 'geopandas', 'sklearn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "unknown key 'label'; " in done.stderr
    assert "did you mean 'labels'?" in done.stderr


def test_a_misspelt_command_is_one_line_and_status_2(capsys):
    assert main(["chekc"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("landcover: error: No such command 'chekc'")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["model"], ["weights"], ["labels"]])
def test_without_arguments_the_help_is_shown_as_it_is(command, capsys):
    assert main(command) == 2
    assert main([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err.strip() == out.strip()


def test_a_missing_option_points_to_the_help_of_its_command(capsys):
    assert main(["compare", "a.tif", "b.tif"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("landcover: error: Missing option '--reference'")
    assert err.endswith("; see landcover compare --help\n")


def test_wrong_usage_is_json_for_machines(capsys):
    assert main(["compare", "a.tif", "b.tif", "--json"]) == 2
    assert "--reference" in json.loads(capsys.readouterr().out)["errors"][0]


def test_a_users_error_is_one_line_and_status_2(capsys, tmp_path):
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("landcover: error: ")
    assert err.count("\n") == 1


def test_a_users_error_is_json_for_machines(capsys, tmp_path):
    assert main(["check", str(tmp_path / "none.yaml"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert "none.yaml" in json.loads(out)["errors"][0]
    assert err.count("\n") == 1


def test_predict_wants_a_configuration_or_a_model(capsys):
    assert main(["predict"]) == 2
    assert "--model" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(capsys, monkeypatch):
    def stop(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.cli.entry.app", stop)
    assert main(["check", "x.yaml"]) == INTERRUPTED
    assert "continues" in capsys.readouterr().err


def test_a_bug_shows_its_traceback(monkeypatch):
    def fail(*args: object, **keywords: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pipeline.cli.entry.app", fail)
    with pytest.raises(ZeroDivisionError):
        main(["check", "x.yaml"])


def outcome_with_warning(_progress: object) -> Outcome:
    for _ in range(2):
        warnings.warn("two polygons overlap", LabelWarning, stacklevel=1)
    table = Table("areas", ("class", "ha"), (("water", "1.0"),))
    return Outcome("done", tables=(table,), data={"areas": {"water": 1.0}}, hint="open it in QGIS")


def test_warnings_come_once_on_stderr_the_summary_on_stdout(capsys):
    assert Console().perform(outcome_with_warning) == 0
    out, err = capsys.readouterr()
    assert err == "landcover: warning: two polygons overlap\n"
    assert out.startswith("done\n")
    assert "open it in QGIS" in out


def test_json_is_one_document_with_the_warnings(capsys):
    Console(as_json=True).perform(outcome_with_warning)
    document = json.loads(capsys.readouterr().out)
    assert document["warnings"] == ["two polygons overlap"]
    assert document["areas"] == {"water": 1.0}


def test_quiet_says_nothing(capsys):
    Console(quiet=True).perform(outcome_with_warning)
    assert capsys.readouterr() == ("", "")


def test_errors_found_together_exit_with_2(capsys):
    assert Console().perform(lambda _: Outcome("checked", failed=("labels outside the scene",))) == 2
    assert "landcover: error: labels outside the scene" in capsys.readouterr().err


def test_without_a_terminal_a_line_per_stage_and_minute(capsys):
    times = iter([0, 1, 30, 59, 62, 100, 125, 126])
    say = _Lines(clock=lambda: next(times))
    say("stage train", 0, 1)
    for done in (0, 20, 30, 45, 60, 80):
        say("experts", done, 100)
    say("stage train", 1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "landcover: stage train",
        "landcover: experts 45 %, 61 s",
        "landcover: experts 80 %, 124 s",
    ]


def test_every_command_has_a_group_and_an_example_that_names_it():
    known = {name: example for examples in GROUPS.values() for name, example in examples.items()}
    inner = {
        f"{group.name} {info.name}"
        for group in app.registered_groups
        for info in group.typer_instance.registered_commands
    }
    assert set(known) == {*COMMANDS, *inner}
    assert all(example.startswith(f"landcover {name}") for name, example in known.items())


def test_the_help_groups_commands_and_ends_with_examples(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places)
    assert main(["run", "--help"]) == 0
    assert capsys.readouterr().out.endswith("Example:\n    landcover run config.yaml\n")


def test_the_version_says_both_gdals(capsys):
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^landcover \d", out)
    assert rasterio.__gdal_version__ in out
    assert pyogrio.__gdal_version_string__ in out
