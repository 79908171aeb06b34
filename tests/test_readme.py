"""What the documents say is true: commands exist and parse, keys are documented, the README's own-data block runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import pytest
import rasterio
import typer
import yaml

import pipeline
from pipeline.cli import main
from pipeline.cli.entry import GROUPS, app
from pipeline.config import schema_json
from tests.fakes.small_world import write_labels, write_scene
from tools.documents import CONFIG_REFERENCE, SCHEMA, config_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROSE = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
EXAMPLES = [example for examples in GROUPS.values() for example in examples.values()]
GROUP = typer.main.get_command(app)


def command_names() -> Iterator[str]:
    """``init`` ... and ``model show``: every command of the command line."""
    for name, command in GROUP.commands.items():
        below = getattr(command, "commands", None)
        yield from (f"{name} {inner}" for inner in below) if below else (name,)


def command_lines(text: str) -> list[str]:
    """Every line of a code block that calls ``landcover``."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL) + re.findall(r"(?m)^ {4}(\S.*)$", text)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip().startswith("landcover ")]


def own_data_block() -> list[str]:
    """Its commands; the environment that its first line activates is the one that runs the tests."""
    found = re.search(r"<!-- own data -->(.*?)<!-- /own data -->", README, flags=re.DOTALL)
    assert found is not None
    return command_lines(found.group(1))


def parse(line: str) -> None:
    """Parse a command line as the program would, without running it."""
    words = shlex.split(line)[1:]
    context, command = GROUP.make_context("landcover", list(words)), GROUP
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)
        words = list(words)


@pytest.mark.parametrize("name", list(command_names()))
def test_every_command_is_in_the_documents(name):
    stages = re.findall(r"`landcover (\w+)`, ((?:`\w+`,? ?)+)", README)
    short = {word for first, rest in stages for word in (first, *re.findall(r"\w+", rest))}
    assert f"landcover {name}" in PROSE or name in short


@pytest.mark.parametrize("line", sorted({*command_lines(PROSE), *EXAMPLES}))
def test_command_line_in_the_documents_parses(line):
    parse(line)


def test_a_wrong_option_would_be_found():
    with pytest.raises(typer.TyperException):
        parse("landcover run config.yaml --no-such-option")


def test_commands_named_in_running_text_exist():
    known = {name.split()[0] for name in command_names()}
    named = set(re.findall(r"`landcover ([a-z]+)", PROSE))
    assert named <= known


def test_every_key_of_the_configuration_is_documented():
    assert (ROOT / CONFIG_REFERENCE).read_text(encoding="utf-8") == config_reference()


def test_schema_for_editors_is_current():
    assert (ROOT / SCHEMA).read_text(encoding="utf-8") == schema_json()


def test_make_targets_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    named = set(re.findall(r"(?m)(?:`| {4})make ([a-z-]+)", PROSE))
    assert {"demo", "test"} <= named <= targets


def test_the_two_make_commands_come_first():
    code = re.findall(r"(?m)^ {4}(\S.*)$", README)
    assert code[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_named_in_a_document_exist(path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:docs|configs|notebooks|sample_data|tests|pipeline)/[\w./-]*)`", text))
    missing = {name for name in named if not (ROOT / name).exists() and "newsat" not in name}
    assert missing == set()


def test_every_room_is_in_the_design():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rooms = [
        path for path in (ROOT / "pipeline").iterdir() if not path.name.startswith("_") and path.name != "py.typed"
    ]
    names = [path.stem if path.suffix == ".py" else f"{path.name}/" for path in rooms]
    assert [name for name in names if f"| `{name}` |" not in design] == []


def test_the_layers_drawn_in_the_design_are_enforced():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    drawn = re.search(r"```text\n(cli\n.*?)```", design, flags=re.DOTALL)
    assert drawn is not None
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [item["layers"] for item in contracts if item["type"] == "layers"]
    assert drawn.group(1).split("\n")[:-1] == [layer.strip("()") for layer in layers]


def test_functions_named_in_the_design_exist():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", design, flags=re.DOTALL)
    assert block is not None
    named = set(re.findall(r"\b([a-z]+_[a-z_]+)\(", block.group(1)))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "pipeline").rglob("*.py"))
    assert {name for name in named if not re.search(rf"\bdef {name}\b", code)} == set()


def test_the_place_for_the_results_is_marked():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text.count("<!-- results -->") == text.count("<!-- /results -->") == 1


def test_the_readme_is_one_screen_and_then_the_rest():
    first = README.partition("\n## ")[0]
    assert len(first.splitlines()) <= 45
    assert "docs/images/demo.png" in first
    assert ". .venv/bin/activate" in first


def test_what_is_cited_is_what_is_published():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["version"] == pipeline.__version__
    assert cited["license"] == project["license"]
    assert cited["url"] == project["urls"]["Documentation"]


def test_every_page_is_in_the_site():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if f": {page}\n" not in text} == set()


@pytest.fixture(scope="module")
def own_data(tmp_path_factory) -> Iterator[Path]:
    """The README's own-data block, run line by line on a small scene with few steps."""
    folder = tmp_path_factory.mktemp("own")
    write_scene(folder / "S2.tif")
    write_scene(folder / "next_year.tif")
    write_labels(folder / "polygons.gpkg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in own_data_block():
            assert main(shlex.split(line)[1:]) == 0, line
            if line.startswith("landcover init"):
                make_quick(folder / "config.yaml")
        yield folder


def make_quick(path: Path) -> None:
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["training"] = {"pixels": {"steps": 10}, "experts": {"trees": 10}}
    settings["map"] |= {"engine": "torch", "dtype": "float32", "device": "cpu"}
    settings["assessment"] = {"forest_trees": 10}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.mark.slow
def test_own_data_block_gives_the_files_that_are_listed(own_data):
    table = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    rows = [row for row in table.splitlines() if row.startswith("| `") and "on request" not in row]
    names = [name for row in rows for name in re.findall(r"`([\w<>./]+)`", row.split("|")[1])]
    names = [name.replace("<scene>", "S2").replace("<name>", "landcover") for name in names]
    run = own_data / "landcover-run"
    assert len(names) > 10
    assert [name for name in names if not (run / name).exists()] == []
    assert (own_data / "next_year" / "next_year_lc.tif").exists()


@pytest.mark.slow
def test_the_readmes_accuracy_block_runs_on_a_filled_sample(own_data, monkeypatch):
    monkeypatch.chdir(own_data)
    design, assess = (
        line for line in command_lines(README) if re.match(r"landcover (design|assess) landcover-run", line)
    )
    assert main(shlex.split(design)[1:]) == 0
    sample = gpd.read_file("sample.gpkg", layer="sample")
    names = {item["code"]: item["name"] for item in yaml.safe_load(Path("config.yaml").read_text())["classes"]}
    with rasterio.open("landcover-run/maps/S2_lc.tif") as dataset:
        codes = [int(value[0]) for value in dataset.sample(zip(sample.geometry.x, sample.geometry.y, strict=True))]
    sample["reference"] = [names[code] for code in codes]
    Path("sample.gpkg").unlink()
    sample.to_file("sample.gpkg", layer="sample", engine="pyogrio")
    assert main([*shlex.split(assess)[1:], "-o", "figures.json"]) == 0
    assert yaml.safe_load(Path("figures.json").read_text())["overall_accuracy"]["estimate"] == 1.0
