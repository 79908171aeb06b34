"""Which engine: ``auto`` measures.

Each engine that is installed, in each type that it and the machine are made for, maps the same piece of the scene. Of
those whose classes agree with torch in float32 the one is taken that writes pixels the fastest: what tiles compute
twice counts, as rounding to integers lets pixels depend on more context, and engines leave room for tiles of their own
size. What it picked, and the figures, are logged.
"""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pipeline.errors import ConfigError
from pipeline.inference.engine import (
    EXTRAS,
    TYPES,
    Choice,
    best_device,
    check_choice,
    fast_bfloat16,
    installed,
    runs_side_by_side,
)
from pipeline.inference.memory import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.inference.engine import Engine

log = logging.getLogger(__name__)

# An engine or type is taken only if so many pixels get the class that torch gives them in float32.
LEAST_AGREEMENT = {"float32": 0.9995, "bfloat16": 0.995, "int8": 0.995}
# A challenger must be so much faster than torch.
WORTH_CHANGING = 1.1


@dataclass(frozen=True)
class Trial:
    """One engine's result of the calibration: seconds per megapixel, and share of pixels with float32 torch's class."""

    choice: Choice
    s_per_mpx: float
    agreement: float


def candidates(*, engine: str, dtype: str, device: str) -> list[Choice]:
    """What ``auto`` tries, torch in float32 first; a single choice where nothing is left open.

    The compiled engine is tried only when asked for by name: compiling costs more than most scenes take to map.
    """
    where = best_device() if device == "auto" else device
    types: list[Any] = [dtype]
    if dtype == "auto":
        quick = ["bfloat16"] if fast_bfloat16(where) else []
        types = ["float32", *quick, *(["int8"] if where == "cpu" and installed("onnxruntime") else [])]
    names: list[Any] = [engine]
    if engine == "auto":
        names = ["torch", *(name for name in EXTRAS if where == "cpu" and installed(name))]
    found = [Choice(name, kind, where) for name in names for kind in types]
    usable = [choice for choice in found if choice.dtype in TYPES.get(choice.engine, ())]
    for choice in usable or found:
        check_choice(choice)
    return usable


def calibrate(
    make: Callable[[Choice], Engine],
    choices: Sequence[Choice],
    sample: torch.Tensor,
    *,
    threads: int = 1,
    stride_px: int = 1,
    repeats: int = 2,
) -> list[Trial]:
    """How fast choices are, and how well they agree with torch in float32; those that cannot run take for ever.

    Args:
        make: Gives an engine for a choice.
        choices: What is tried.
        sample: A typical input, float32 [chip, band, row, col].
        threads: Threads in all.
        stride_px: Total stride of the network.
        repeats: Timed passes, of which the fastest counts; one untimed pass goes before.
    """
    reference = Choice(device=choices[0].device)
    trials: list[Trial] = []
    expected: torch.Tensor | None = None
    for choice in choices if reference in choices else [reference, *choices]:
        try:
            classes, seconds = time_passes(
                make(choice), choice, sample, threads=threads, stride_px=stride_px, repeats=repeats
            )
        except (RuntimeError, ImportError, ValueError) as err:
            log.info("engine %s cannot run this network: %s", choice, str(err).split("\n", 1)[0])
            trials.append(Trial(choice, float("inf"), 0.0))
            continue
        expected = classes if expected is None else expected
        agreement = float((classes == expected).float().mean())
        trials.append(Trial(choice, seconds / (sample.shape[0] * sample.shape[2] * sample.shape[3] / 1e6), agreement))
        log.info("engine %s: %.3f s per Mpx, agreement %.4f", choice, trials[-1].s_per_mpx, agreement)
    return [trial for trial in trials if trial.choice in choices]


def agrees(trial: Trial) -> bool:
    """Whether so many pixels get float32's class as its type must reach to be picked unasked."""
    return trial.agreement >= LEAST_AGREEMENT[trial.choice.dtype]


def best_of(trials: Sequence[Trial], overlap: Callable[[Choice], float] = lambda _: 1.0) -> Trial:
    """The trial that takes the least time for a pixel that is written, of those that agree where there are any.

    Args:
        trials: The first one is kept unless another is clearly faster.
        overlap: Pixels that a choice computes for each that it writes, infinite where it cannot be used; asked only of
            those that may be the fastest.

    Raises:
        ConfigError: none of them runs the network.
    """
    if not any(math.isfinite(trial.s_per_mpx) for trial in trials):
        raise ConfigError("no engine can run this network", fix="use engine torch")
    first = trials[0]
    best = _cheapest([trial for trial in trials if agrees(trial)] or trials, overlap) if len(trials) > 1 else first
    if not agrees(best):
        share = 100.0 * best.agreement
        log.warning("%s gives %.2f %% of the pixels the class that float32 gives them", best.choice, share)
    if best is first or not agrees(first):
        return best
    # Below it noise decides, and results would change by chance.
    least = best.s_per_mpx * overlap(best.choice) * WORTH_CHANGING
    return first if least > first.s_per_mpx and least > first.s_per_mpx * overlap(first.choice) else best


def _cheapest(trials: Sequence[Trial], overlap: Callable[[Choice], float]) -> Trial:
    best, least = trials[0], float("inf")
    for trial in sorted(trials, key=lambda one: one.s_per_mpx):
        if trial.s_per_mpx >= least:
            break
        cost = trial.s_per_mpx * overlap(trial.choice)
        log.info("engine %s: %.3f s per Mpx that is written", trial.choice, cost)
        if cost < least:
            best, least = trial, cost
    return best


def time_passes(
    engine: Engine, choice: Choice, sample: torch.Tensor, *, threads: int, stride_px: int, repeats: int
) -> tuple[torch.Tensor, float]:
    """Classes [chip, row, col], and seconds of a pass over ``sample`` as scenes are mapped.

    The sample goes in halves of whole strides, side by side where the engine does that: so it takes no more memory.
    The fastest of ``repeats`` counts; an untimed one goes before and gives the classes: whatever the layout of its
    logits, an engine is not charged for how quickly torch finds the largest of them.
    """

    def timed(chips: torch.Tensor) -> None:
        logits = engine(chips)
        if logits.is_cuda:
            torch.cuda.synchronize(logits.device)

    half = max(sample.shape[2] // WORKERS // stride_px, 1) * stride_px
    parts = [part.contiguous() for part in torch.split(sample, half, dim=2)]
    workers = WORKERS if runs_side_by_side(choice) and threads >= WORKERS else 1
    seconds = []
    before = torch.get_num_threads()  # parts of it are kept per process, not per thread
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
        made = list(pool.map(lambda chips: engine(chips).argmax(1).cpu(), parts))
        for _ in range(repeats):
            start = time.perf_counter()
            list(pool.map(timed, parts))
            seconds.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return torch.cat(made, 1), min(seconds)
