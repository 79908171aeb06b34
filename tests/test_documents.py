"""JSON and YAML with limits: what a person writes is read as it is, what an attacker writes is one line at once."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import yaml

from pipeline.documents import MAX_DEPTH, MAX_YAML_BYTES, parse_json, read_json, read_yaml
from pipeline.errors import ConfigError, InputError, PipelineError

EXAMPLES = sorted(Path(__file__).resolve().parents[1].glob("configs/*.yaml"))
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000))


def written(folder: Path, text: str | bytes, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_yaml_is_read_as_pyyaml_reads_it(tmp_path):
    text = "\ufeffname: a\nbands: [blue, 2, 0.5, true, null]\nshared: &s {x: 1}\nagain: *s\nmerged: {<<: *s, y: 2}\n"
    assert read_yaml(written(tmp_path, text)) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).resolve().parents[1].glob("configs/*.yaml")), ids=lambda p: p.name
)
def test_examples_are_read_as_pyyaml_reads_them(path):
    assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_key_that_occurs_twice_is_named_with_both_lines(tmp_path):
    path = written(tmp_path, "map:\n  memory: 1GB\n  tile_px: 64\n  memory: 2GB\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: the configuration: key 'memory' on line 2 again on line 4$"):
        read_yaml(path)


def test_the_same_key_in_two_mappings_is_no_double(tmp_path):
    assert read_yaml(written(tmp_path, "a: {x: 1}\nb: {x: 1, 'y': 1, \"1\": 1, 1: 1}\n"))["b"][1] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "too many values"),
        (CHAIN, "nested too deeply"),
        ("a: &a [*a]", "the alias on line 1 holds itself"),
        ("[" * 500_000, f"at most {MAX_DEPTH} levels"),
        ("- " * 200 + "x", "nested too deeply"),
        ("{a: " * 200, "nested too deeply"),
        ("x" * (MAX_YAML_BYTES + 1), "too large; expected at most 1 MiB"),
        ("day: 2024-02-31", "cannot be read as YAML"),
        ("number: " + "9" * 5000, "cannot be read as YAML"),
        ("? [a, b]\n: 1", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.system [echo]", "cannot be read as YAML"),
        ("a: b: c", "cannot be read as YAML"),
        (b"\xff\xfe\x00", "cannot be read as YAML"),
        (b"a: \x00", "cannot be read as YAML"),
    ],
)
def test_yaml_that_is_hostile_is_one_line(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        read_yaml(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 1_000_000, "nested too deeply"),
        ("[" * 100 + "]" * 100, f"at most {MAX_DEPTH} levels"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' twice in one object"),
        ("9" * 5000, "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
    ],
)
def test_json_that_is_hostile_is_one_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as caught:
        read_json(written(tmp_path, text, "design.json"))
    assert "\n" not in str(caught.value)


def test_json_is_read_as_pythons_own_reads_it():
    data = {"a": [1, 2.5, None, True, "ä"], "b": {"c": []}}
    assert parse_json(json.dumps(data).encode("utf-8-sig")) == data


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path, got in (("pipe", "a pipe or device"), (".", "a folder"), ("/dev/zero", "a pipe or device")):
        with pytest.raises(PipelineError, match=f"not a regular file; got {got}"):
            read(tmp_path / path)
    for name in ("absent", "nul\0"):
        with pytest.raises(PipelineError, match=r"cannot read the (file|configuration)"):
            read(tmp_path / name)


@pytest.mark.parametrize(("read", "start"), [(read_json, '{"a": [1, {"b": "c"}], "d": null}'), (read_yaml, BOMB[:90])])
def test_damaged_documents_are_read_or_refused(tmp_path, read, start):
    draw = random.Random(7)  # noqa: S311 - the same damage in every run
    pieces = [b"", b"\0", b"[", b"{", b"&a ", b"*a", b"\xff", b"\n", b": "]
    said = set()
    for _ in range(400):
        data = bytearray(start.encode())
        for _ in range(draw.randint(1, 6)):
            place = draw.randrange(len(data))
            data[place : place + draw.randint(0, 3)] = draw.choice(pieces)
        try:
            read(written(tmp_path, bytes(data), "damaged"))
        except PipelineError as err:
            said.add(str(err))
    assert len(said) > 20
    assert not any("\n" in line for line in said)
