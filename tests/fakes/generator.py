"""The program that makes the sample data, as a module."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

SAMPLE_DATA = Path(__file__).resolve().parents[2] / "sample_data"


@cache
def load_generator() -> ModuleType:
    spec = spec_from_file_location("sample_data_generate", SAMPLE_DATA / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
