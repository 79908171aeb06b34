"""How large a halo engines need for a scene, and how large tiles the memory leaves them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.inference.demand import demand, exact_halo_px, largest_tile, network_of, total_stride_px
from pipeline.inference.engine import works_in_strips
from pipeline.inference.reach import effective_halo_px
from pipeline.inference.samples import sample_of
from pipeline.inference.tiles import round_up

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipeline.inference.engine import Choice
    from pipeline.inference.engines import Engines
    from pipeline.inference.memory import Demand
    from pipeline.inference.plan import PredictSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
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
    _networks: dict[bool, nn.Module] = field(default_factory=dict, init=False)
    _demands: dict[Choice, Demand] = field(default_factory=dict, init=False)
    _sizes: dict[Choice, tuple[int, int]] = field(default_factory=dict, init=False)

    @cached_property
    def given_halo_px(self) -> int | None:
        """The halo that was asked for or is exact, in whole strides; None where it has to be found."""
        asked = self.settings.halo_px
        found = asked if asked is not None else exact_halo_px(self.engines.bundle)
        return None if found is None else round_up(found, total_stride_px(self.engines.bundle))

    @cached_property
    def sample(self) -> torch.Tensor:
        """A piece of the scene that engines and halos are tried on, float32 [1, band, row, col]."""
        bundle = self.engines.bundle
        return sample_of(bundle, self.engines.source, total_stride_px(bundle))

    def demand(self, choice: Choice) -> Demand:
        """What a choice asks of the memory; its halo, where that is not given, is taken to be two strides."""
        if choice not in self._demands:
            bundle, strips = self.engines.bundle, works_in_strips(choice)
            if strips not in self._networks:  # what is found of it stays with it
                self._networks[strips] = network_of(bundle, choice)
            halo = self.given_halo_px
            self._demands[choice] = demand(
                bundle,
                self.engines.source,
                choice=choice,
                halo=2 * total_stride_px(bundle) if halo is None else halo,
                network=self._networks[strips],
                batch=self.settings.batch,
                tta=self.settings.tta,
                blended=self.settings.blend == "hann",
            )
        return self._demands[choice]

    def allows(self, choice: Choice) -> bool:
        """Whether the memory has room for tiles; those that were asked for are the user's own."""
        try:
            return bool(self.settings.tile_px or self._tile(self.demand(choice), choice))
        except ConfigError as err:
            log.info("engine %s is not tried: %s", choice, err)
            return False

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
                halo = effective_halo_px(engine, self.sample, stride_px=wanted.stride_px, tile_px=tile)
                wanted = replace(wanted, halo_px=halo)
                tile = self._tile(wanted, choice)
            self._sizes[choice] = wanted.halo_px, tile
        return self._sizes[choice]

    def overlap(self, choice: Choice) -> float:
        """Pixels that a choice computes for each that it writes; infinite where the memory does not allow it."""
        try:
            halo, tile = self.halo_and_tile(choice)
        except ConfigError as err:
            log.info("engine %s is left out: %s", choice, err)
            return float("inf")
        return ((tile + 2 * halo) / tile) ** 2

    def _tile(self, wanted: Demand, choice: Choice) -> int:
        return self.settings.tile_px or largest_tile(wanted, self.engines.source, self.settings, choice)
