"""The generated documents are current."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pipeline.config import Config
from pipeline.training.settings import TrainingSettings
from tests.fakes.small_world import settings
from tools.documents import (
    API_REFERENCE,
    COMMAND_REFERENCE,
    CONFIG_REFERENCE,
    SCHEMA,
    config_reference,
    write_documents,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", [SCHEMA, CONFIG_REFERENCE, COMMAND_REFERENCE, API_REFERENCE])
def test_generated_documents_are_current(tmp_path, name):
    write_documents(tmp_path)
    wanted = (tmp_path / name).read_text(encoding="utf-8")
    assert (ROOT / name).read_text(encoding="utf-8") == wanted, "run python tools/documents.py"


def test_the_reference_has_a_row_for_every_key():
    text = config_reference()
    for name, section in Config.model_fields.items():
        assert f"`{name}" in text
        assert section is not None
    for name in TrainingSettings.model_fields:
        assert f"`training.{name}`" in text


def test_the_schema_takes_a_good_file_and_no_unknown_key():
    schema = json.loads((ROOT / SCHEMA).read_text(encoding="utf-8"))
    jsonschema.validate(settings(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings(trainning={}), schema)
