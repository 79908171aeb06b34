"""Engines of one model for one scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.inference.demand import total_stride_px
from pipeline.inference.engine import Choice, Engine, make_engine
from pipeline.inference.samples import range_samples

if TYPE_CHECKING:
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source


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
