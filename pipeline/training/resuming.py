"""Going on from a checkpoint: only where it is of the same job, as a resumed run is the same run."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.errors import ModelError
from pipeline.training.settings import WHEN_AND_WHERE
from pipeline.training.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.training.module import Learner, Lessons
    from pipeline.training.settings import FitSettings

# The share in the average teaches nothing, and a trial may find it; pretrained weights count as tensors, not by place.
_FREE = (*WHEN_AND_WHERE, "context_share", "weights")


def job_key(learner: Learner, lessons: Lessons, *, held: Lessons | None, settings: FitSettings) -> str:
    """16 hexadecimal digits of what networks start as and learn from: settings, chips, labels of either part.

    The teacher's opinions are left out: they follow from these, but forests on several cores add them up in any order.
    """
    plain = {name: value for name, value in asdict(settings).items() if name not in _FREE}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    tensors = list(learner.state_dict().values())
    for part in (lessons, held):
        tensors += [] if part is None else [part.x, part.index, part.weight, part.asked]
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]


def fitting_checkpoint(path: Path, learner: Learner, *, job: str, averaged: bool) -> dict[str, Any]:
    """A checkpoint that training can go on from; nothing but tensors and plain values is unpickled.

    Raises:
        ModelError: not a checkpoint, one of other networks, one without the average of weights that is asked for, or
            one whose job has another key.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(value.shape) for name, value in found["state_dict"].items()}
        of_job = found["callbacks"].get(Watch.__qualname__, {}).get("job")
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, AttributeError) as err:
        raise ModelError("not a checkpoint to resume from", path=path, got=err, fix="train without resume") from err
    if shapes != {name: tuple(value.shape) for name, value in learner.state_dict().items()}:
        raise ModelError("checkpoint is of other networks than those asked for", path=path, fix="train without resume")
    if ("averaging_state" in found) != averaged:
        have, want = ("no average", "one") if averaged else ("an average", "none")
        raise ModelError(
            "checkpoint of another setting of ema", path=path, got=f"{have} of the weights", expected=want,
            fix="train without resume",
        )  # fmt: skip
    if of_job != job:
        raise ModelError(
            "checkpoint of another job", path=path, got="other settings, scenes, labels or split than now",
            fix="put them back, or train without resume",
        )  # fmt: skip
    return found
