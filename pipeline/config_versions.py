"""Configuration files of version 1, read as version 2: one table of keys that moved, one of keys that went.

Version 2 has the settings of training in sections by what they steer (``experts``, ``pixels``, ``context``).
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigWarning

if TYPE_CHECKING:
    from pathlib import Path

NOW = 2
MOVED = {
    "training.encoder": "training.context.encoder",
    "training.weights": "training.context.weights",
    "training.weights_bands": "training.context.weights_bands",
    "training.frozen": "training.context.frozen",
    "training.steps": "training.context.steps",
    "training.batch": "training.context.batch",
    "training.lr": "training.context.lr",
    "training.weight_decay": "training.context.weight_decay",
    "training.dropout": "training.context.dropout",
    "training.smoothing": "training.context.smoothing",
    "training.soft_weight": "training.context.soft_weight",
    "training.context_share": "training.context.share",
    "training.patience": "training.context.patience",
    "training.devices": "training.context.devices",
    "training.nodes": "training.context.nodes",
    "training.pixel_steps": "training.pixels.steps",
    "training.teacher_trees": "training.experts.trees",
}
ENGINES_GONE = ("auto", "compiled", "onnxruntime")
GONE = {
    "training.ema": "averages of weights made no set better",
    "training.ensemble": "networks of several seeds made no set better by more than chance",
    "map.tta": "averaging over flips changed the figures by less than chance",
    "map.blend": "tiles are cropped to where the network's reach is inside them, which is exact",
}


def upgraded(data: dict[str, Any], *, path: Path) -> dict[str, Any]:
    """The mapping of keys as version 2 has it; a ConfigWarning for each key that moved or went.

    A file without ``version`` that has keys of version 1 is read as one; other versions are left as they are.
    """
    if data.get("version", 1) != 1:
        return data
    new = copy.deepcopy(data)
    training = new.get("training")
    implied = _implied(training) if isinstance(training, dict) else {}
    for old, place in MOVED.items():
        if (value := _take(new, old)) is not _ABSENT:
            _say(path, f"{old} is now {place}")
            if place not in implied:
                _put(new, place, value)
    for old, why in GONE.items():
        if _take(new, old) is not _ABSENT:
            _say(path, f"{old} went: {why}")
    mapping = new.get("map")
    if isinstance(mapping, dict):
        _upgrade_engine(mapping, path)
    for place, value in implied.items():
        if value is not _ABSENT:
            _put(new, place, value)
            _say(path, f"{place} is set to {str(value).lower()}, as the keys of version 1 mean it")
    return new | {"version": NOW}


def _upgrade_engine(mapping: dict[str, Any], path: Path) -> None:
    """Leave out engines that went; int8 has openvino, which is the one that computes in it."""
    if mapping.get("engine") in ENGINES_GONE:
        _say(path, f"map.engine {mapping.pop('engine')} went: torch maps, or openvino where it is named")
    if mapping.get("dtype") == "int8" and "engine" not in mapping:
        mapping["engine"] = "openvino"
        _say(path, "map.engine is set to openvino, as map.dtype int8 needs it")


def _implied(training: dict[str, Any]) -> dict[str, Any]:
    """Keys of version 2 that follow from several of version 1; _ABSENT for a key that is to be left out."""
    found: dict[str, Any] = {}
    share, weights = training.get("context_share"), training.get("weights", "none")
    trained = share != 0 and (share is not None or weights != "none") and training.get("encoder") != "none"
    if {"context_share", "weights", "encoder"} & set(training):
        found["training.context.enabled"] = trained
    if trained and weights == "none":
        found["training.context.weights"] = "none"
    if not trained:
        found |= dict.fromkeys(("training.context.encoder", "training.context.weights"), _ABSENT)
    if share in {"learned", None, 0}:
        found["training.context.share"] = _ABSENT
    if weights == "none":
        found["training.context.weights_bands"] = _ABSENT
    if training.get("soft_weight") == 0:
        found["training.experts.enabled"] = False
    if training.get("patience") and training.get("refit", True):
        found["training.refit"] = False
    return found


_ABSENT: Any = object()


def _take(data: dict[str, Any], key: str) -> Any:
    """Remove a key; its value, or _ABSENT where there is none."""
    section, _, name = key.partition(".")
    inner = data.get(section)
    return inner.pop(name, _ABSENT) if isinstance(inner, dict) else _ABSENT


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
    data[name] = value


def _say(path: Path, text: str) -> None:
    warnings.warn(f"{path.name}: {text}", ConfigWarning, stacklevel=4)
