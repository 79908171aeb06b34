"""Engines of one model for one scene, and which of them maps it."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from pipeline.inference.demand import total_stride_px
from pipeline.inference.engine import Choice, Engine, make_engine
from pipeline.inference.picks import pick_key, recall, remember
from pipeline.inference.samples import range_samples, sample_of
from pipeline.inference.trials import Trial, agrees, calibrate, candidates

if TYPE_CHECKING:
    from pipeline.inference.fitting import Fitting
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

log = logging.getLogger(__name__)
# Scenes of fewer pixels are mapped by the first candidate (torch): on two cores the calibration takes some 20 seconds
# (engines convert and compile the network first), in which torch maps about this much.
SMALL_SCENE_PX = 4_000_000


def engine_of(bundle: ModelBundle, choice: Choice, *, threads: int, source: Source | None = None) -> Engine:
    """The bundle's fused network in an engine; "int8" takes its ranges from ``source``, the scene to be mapped."""
    samples = range_samples(bundle, source, total_stride_px(bundle)) if source and choice.dtype == "int8" else ()
    channels = bundle.preprocess.channels
    return make_engine(bundle.network(fused=True), choice, channels=channels, threads=threads, samples=samples)


class Engines:
    """Makes engines, and keeps the last: what a scene was planned with also maps it.

    Attributes:
        bundle: The model.
        source: The scene; "int8" takes its ranges from it.
    """

    def __init__(self, bundle: ModelBundle, source: Source) -> None:
        """Nothing is made yet."""
        self.bundle, self.source = bundle, source
        self._kept: tuple[Choice, int, Engine] | None = None

    def __call__(self, choice: Choice, *, threads: int) -> Engine:
        """The engine of a choice.

        Raises:
            ConfigError: it is not installed, or cannot do the type or device.
        """
        if self._kept is None or self._kept[:2] != (choice, threads):
            self._kept = None  # its memory goes before another takes some
            self._kept = choice, threads, engine_of(self.bundle, choice, threads=threads, source=self.source)
        return self._kept[2]


def pick_engine(fitting: Fitting) -> tuple[Choice, list[Trial]]:
    """The only choice, that of an earlier run, or the one that is measured to be the fastest; and what was measured.

    Choices that the memory does not allow are left out where there are others.

    Raises:
        ConfigError: what was asked for is not installed, or no engine can run the network.
    """
    engines, settings, threads = fitting.engines, fitting.settings, fitting.threads
    bundle, source = engines.bundle, engines.source

    def tried(among: list[Choice]) -> tuple[Choice, list[Trial]]:
        stride = total_stride_px(bundle)
        sample, make = sample_of(bundle, source, stride), partial(engines, threads=threads)
        return calibrate(make, among, sample, threads=threads, stride_px=stride, overlap=fitting.overlap)

    def recalled(among: list[Choice]) -> Choice | None:
        return recall(pick_key(bundle.hash, among, threads=threads), among)

    choices = candidates(engine=settings.engine, dtype=settings.dtype, device=settings.device)
    known = choices[0] if len(choices) == 1 else recalled(choices)
    if len(choices) > 1 and (known is None or not fitting.allows(known)):
        if source.grid.height * source.grid.width < SMALL_SCENE_PX:
            return choices[0], []
        # Only now, since each takes a moment: a network is built and probed for it.
        choices = [choices[0], *filter(fitting.allows, choices[1:])]
        known = recalled(choices)
    if known is None:
        picked, trials = tried(choices)
        remember(pick_key(bundle.hash, choices, threads=threads), picked)
        return picked, trials
    if known.dtype != "int8":
        return known, []
    # How well it agrees depends on the scene: a pick of another one holds where it does here too.
    picked, trials = tried([known])
    if choices[0].dtype != "int8" and not agrees(trials[-1]):
        log.info("engine %s instead: it agrees too little on this scene", choices[0])
        picked = choices[0]
    return picked, trials
