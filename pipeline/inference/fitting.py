"""How large a halo engines need for a scene, and how large tiles the memory leaves them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.inference.demand import demand, exact_halo_px, largest_tile, total_stride_px
from pipeline.inference.reach import effective_halo_px
from pipeline.inference.samples import sample_of
from pipeline.inference.tiles import round_up

if TYPE_CHECKING:
    from pipeline.inference.engine import Choice
    from pipeline.inference.engines import Engines
    from pipeline.inference.memory import Demand
    from pipeline.inference.plan import PredictSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitting:
    """Halos and tiles of the choices for one scene.

    Attributes:
        engines: Of the model and the scene.
        settings: What was asked for.
        threads: Threads that compute, in all.
    """

    engines: Engines
    settings: PredictSettings
    threads: int
    _sizes: dict[Choice, tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def given_halo_px(self) -> int | None:
        """The halo that was asked for or is exact, in whole strides; None where it has to be found."""
        asked = self.settings.halo_px
        found = asked if asked is not None else exact_halo_px(self.engines.bundle)
        return None if found is None else round_up(found, total_stride_px(self.engines.bundle))

    def demand(self, choice: Choice, *, halo_px: int | None = None) -> Demand:
        """What a choice asks of the memory; its halo, where that is not known yet, is taken to be two strides."""
        bundle = self.engines.bundle
        halo = halo_px if halo_px is not None else self.given_halo_px
        halo = 2 * total_stride_px(bundle) if halo is None else halo
        return demand(bundle, self.engines.source, choice=choice, halo=halo, blended=self.settings.blend == "hann")

    def allows(self, choice: Choice) -> bool:
        """Whether the memory has room for tiles; those that were asked for are the user's own."""
        try:
            self._tile(self.demand(choice), choice)
        except ConfigError as err:
            log.info("engine %s is not tried: %s", choice, err)
            return False
        return True

    def halo_and_tile(self, choice: Choice) -> tuple[int, int]:
        """Halo and largest tile; the halo is measured with the choice's engine unless it is given.

        Raises:
            ConfigError: the memory does not allow even the smallest tile.
        """
        if choice not in self._sizes:
            wanted = self.demand(choice)
            tile = self._tile(wanted, choice)
            if self.given_halo_px is None:
                engine = self.engines(choice, threads=self.threads)
                sample = sample_of(self.engines.bundle, self.engines.source, wanted.stride_px)
                halo = effective_halo_px(engine, sample, stride_px=wanted.stride_px, tile_px=tile)
                wanted = replace(wanted, halo_px=halo)
                tile = self._tile(wanted, choice)
            self._sizes[choice] = wanted.halo_px, tile
        return self._sizes[choice]

    def overlap(self, choice: Choice) -> float:
        """Pixels that a choice computes for each that it writes."""
        halo, tile = self.halo_and_tile(choice)
        return ((tile + 2 * halo) / tile) ** 2

    def _tile(self, wanted: Demand, choice: Choice) -> int:
        return self.settings.tile_px or largest_tile(wanted, self.engines.source, self.settings, choice)
