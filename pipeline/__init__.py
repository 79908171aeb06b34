"""landcover: from satellite scenes and a few hundred polygons to a land-cover map.

Public names are imported when they are first used, so that ``import pipeline`` and ``landcover --help`` answer at once:

>>> import pipeline as lc
>>> lc.Window(0, 0, 64, 64).shape
(64, 64)

What is not listed in ``__all__`` may change between versions.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module and name there. The only place that knows; tests/test_face.py holds it against the modules.
_HOMES = {
    # scenes
    "Window": "pipeline.grid:Window",
    "open_scene": "pipeline.scenes.opening:open_scene",
    "open_reader": "pipeline.scenes.reader:open_reader",
    "with_indices": "pipeline.scenes.indices:with_indices",
    # labels and splits
    "read_labels": "pipeline.labels.source:read_labels",
    "burn": "pipeline.labels.rasterise:burn",
    "split_blocks": "pipeline.splits.search:split_blocks",
    "check_leakage": "pipeline.splits.split:check_leakage",
    # training
    "TrainingScene": "pipeline.splits.split:TrainingScene",
    "ChipSettings": "pipeline.training.settings:ChipSettings",
    "TrainingSettings": "pipeline.training.settings:TrainingSettings",
    "choose_chips": "pipeline.training.chips:choose_chips",
    "fit": "pipeline.training.fit:fit",
    "save_bundle": "pipeline.model.bundle:save_bundle",
    "load_bundle": "pipeline.model.bundle:load_bundle",
    "check_source": "pipeline.model.checks:check_source",
    # maps
    "MapSettings": "pipeline.inference.settings:MapSettings",
    "predict": "pipeline.inference.predict:predict_scene",
    "write_class_map": "pipeline.maps.geotiff:write_class_map",
    # accuracy
    "DesignSettings": "pipeline.accuracy.settings:DesignSettings",
    "design": "pipeline.accuracy.sample_draw:draw_sample",
    "write_design": "pipeline.accuracy.sample_design:write_design",
    "ReferenceSettings": "pipeline.accuracy.settings:ReferenceSettings",
    "assess": "pipeline.accuracy.assess_map:assess_map",
    "compare": "pipeline.accuracy.assess_compare:compare_maps",
    # a whole run, and the data to try it on
    "run": "pipeline.workflow.stages:run_stages",
    "find_sample_data": "pipeline.workflow.demo:find_sample_data",
    "PipelineError": "pipeline.errors:PipelineError",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the table's keys are names


def __getattr__(name: str) -> Any:
    """Import a public name from where it is defined; see PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
