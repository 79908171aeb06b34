"""The example configurations load, and between them they use every key that there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pipeline.config import load_config, schema_json
from pipeline.model.records import find_record
from pipeline.workflow.inputs import legend_of
from pipeline.workflow.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "configs").glob("*.yaml"))
SCHEMA = json.loads(schema_json())
# Keys whose names are the user's own words.
FREE = (
    "labels.aliases", "labels.class_all_touched", "labels.class_erode_px", "labels.class_buffer_m", "labels.groups",
    "map.class_mmu_ha",
)  # fmt: skip
RUNNABLE = ("buildings.yaml", "first_look.yaml", "sample_data.yaml")


def known_keys(part: dict[str, Any], *, prefix: str = "") -> Iterator[str]:
    """Every key of the schema as ``map.entropy`` or ``scenes[].path``."""
    for name, body in part["properties"].items():
        key = prefix + name
        below = _section(body)
        yield key + ("[]" if below is not None and body.get("type") == "array" else "")
        if below is not None:
            yield from known_keys(below, prefix=f"{key}[]." if body.get("type") == "array" else f"{key}.")


def _section(body: dict[str, Any]) -> dict[str, Any] | None:
    inner = body.get("items", body)
    reference = inner.get("$ref") or next((part["$ref"] for part in inner.get("anyOf", ()) if "$ref" in part), None)
    return SCHEMA["$defs"][reference.rsplit("/", 1)[-1]] if reference else None


def used_keys(value: Any, *, prefix: str = "") -> Iterator[str]:
    """Every key of a YAML document, in the same form."""
    if isinstance(value, dict) and prefix not in FREE:
        for name, below in value.items():
            key = f"{prefix}.{name}" if prefix else name
            many = isinstance(below, list) and below and isinstance(below[0], dict)
            yield f"{key}[]" if many else key
            yield from used_keys(below, prefix=f"{key}[]" if many else key)
    elif isinstance(value, list):
        for item in value:
            yield from used_keys(item, prefix=prefix)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_loads_and_says_what_it_is_for(path):
    config = load_config(path)
    if config.labels.kind == "class":  # the classes of values are made of the samples
        assert len(legend_of(config)) == len(config.classes)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=landcover.schema.json\n")
    assert "What it is for:" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_weights_of_the_examples_exist_and_fit_their_encoder(path):
    training = load_config(path).training.context
    if training.weights in {"none", "auto"} or Path(training.weights).is_absolute():  # a file is the user's own
        return
    assert find_record(training.weights, architecture=training.encoder).architecture == training.encoder


def test_examples_together_use_every_key():
    used = {key for path in EXAMPLES for key in used_keys(yaml.safe_load(path.read_text(encoding="utf-8")))}
    known = set(known_keys(SCHEMA))
    assert used <= known
    assert known - used == set()


def test_every_key_is_read_by_the_code():
    sources = [path for path in (ROOT / "pipeline").rglob("*.py") if path.name != "config.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    names = {key.rsplit(".", 1)[-1].removesuffix("[]") for key in known_keys(SCHEMA) if key != "version"}
    unread = {name for name in names if not re.search(rf"\.{name}\b", code)}
    assert unread == set()


@pytest.mark.filterwarnings("ignore::pipeline.errors.SplitWarning")  # water lies in few blocks
@pytest.mark.parametrize("name", RUNNABLE)
def test_example_on_the_sample_data_finds_scene_and_labels(name):
    job = Job.load(ROOT / "configs" / name)
    found = {job.scheme.by_code(int(code)).name for pixels in job.pixels for code in set(pixels.code.tolist())}
    assert found == set(job.scheme.names)
    assert len(job.split.polygons(0)) > 0
