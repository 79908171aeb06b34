"""The measures of the house, on a small one whose figures are known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.house import find_cycles, read_house, report, single_importers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(tmp_path):
    room = tmp_path / "pipeline" / "cli"
    room.mkdir(parents=True)
    (tmp_path / "pipeline" / "__init__.py").write_text('"""A package."""\n')
    (room / "__init__.py").write_text("")
    (room / "one.py").write_text(
        '"""One."""\nfrom typing import TYPE_CHECKING\nfrom pipeline.cli import two\n\nLIMIT = 3\n_OWN = 4\n\n\n'
        "def act(a, *, b: typer.Option):\n"
        '    """Not counted."""\n    x = a\n    return x, b, two\n'
    )
    (room / "two.py").write_text("if TYPE_CHECKING:\n    from pipeline.cli.one import act\n\n\nclass Two:\n    pass\n")
    return read_house(tmp_path)


def test_bodies_parameters_and_names_are_counted(small):
    (act,) = small["pipeline.cli.one"].functions
    assert (act.body_lines, act.parameters, act.is_command) == (2, 2, True)
    assert small["pipeline.cli.one"].public == ("LIMIT", "act")


def test_an_import_for_type_checkers_makes_no_cycle_at_import(small):
    assert small["pipeline.cli.one"].at_import == {"pipeline.cli.two"}
    assert small["pipeline.cli.two"].later == {"pipeline.cli.one"}
    at_import = {name: module.at_import for name, module in small.items()}
    assert find_cycles(at_import) == []
    both = {name: module.at_import | module.later for name, module in small.items()}
    assert find_cycles(both) == [["pipeline.cli.one", "pipeline.cli.two"]]
    assert single_importers(small) == ["pipeline.cli.one", "pipeline.cli.two"]


def test_the_report_has_the_sums(small):
    lines = "\n".join(report(small))
    assert "modules              4" in lines
    assert "lines                19" in lines


@pytest.fixture(scope="module")
def house():
    """The project's own."""
    return read_house(ROOT)


def test_nothing_of_the_project_is_imported_in_a_circle(house):
    assert find_cycles({name: module.at_import | module.later for name, module in house.items()}) == []


def test_no_command_has_more_than_twelve_parameters(house):
    commands = [item for module in house.values() for item in module.functions if item.is_command]
    assert len(commands) > 20
    assert [(item.name, item.parameters) for item in commands if item.parameters > 12] == []


def test_names_of_tests_are_shorter_than_sixty_characters():
    names = [
        name for file in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    ]
    assert [name for name in names if len(name) >= 60] == []
