"""What training gives back: the model with all that must travel with it, the log, and the seconds of each stage."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.scenes.reader import open_reader
from pipeline.splits.split import Part
from pipeline.training.statistics import band_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme
    from pipeline.model.network import Network
    from pipeline.model.preprocess import Preprocess
    from pipeline.splits.split import Split
    from pipeline.training.dataset import TrainingScene
    from pipeline.training.settings import FitSettings
    from pipeline.training.statistics import BandStatistics

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What could be predicted of labelled pixels without having seen their blocks.

    Attributes:
        probabilities: float32 [pixel, class].
        index: uint8 [pixel]; network index of the labelled class.
        polygon: int32 [pixel].
    """

    probabilities: NDArray[np.float32]
    index: NDArray[np.uint8]
    polygon: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A trained model and how it came about.

    Attributes:
        bundle: The model.
        history: Rows of the training log.
        seconds: Seconds of each stage: chips, teacher, network.
        held_out: The teacher's opinions of pixels it had not seen, to calibrate with; None without a teacher.
    """

    bundle: ModelBundle
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    held_out: HeldOut | None = None


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """The time since the last lap was spent on ``name``."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
        _LOG.info("%s: %.1f s", name, self.seconds[name])


def training_statistics(scenes: Sequence[TrainingScene], split: Split) -> BandStatistics:
    """Statistics of the valid pixels of training polygons, and of nothing else."""
    readers = [open_reader(scene.source) for scene in scenes]
    try:
        return band_statistics(readers, [split.pixels(scene.pixels, Part.TRAIN) for scene in scenes])
    finally:
        for reader in readers:
            reader.close()


def assemble(
    members: list[Network],
    shares: tuple[float, ...],
    scheme: ClassScheme,
    preprocess: Preprocess,
    statistics: BandStatistics,
    *,
    scenes: Sequence[TrainingScene],
    provenance: dict[str, Any],
) -> ModelBundle:
    """The model of trained members, with where and on what they learned."""
    grid = scenes[0].source.grid
    return ModelBundle(
        members=tuple(member.cpu().eval() for member in members),
        scheme=scheme,
        preprocess=preprocess,
        value_range=tuple(zip(statistics.min.tolist(), statistics.max.tolist(), strict=True)),
        units=scenes[0].source.units,
        shares=shares,
        gsd_m=float(np.sqrt(np.prod(grid.pixel_size_m))),
        sources=tuple(TrainedOn(s.source.sensor, s.source.level, s.source.baseline, s.source.id) for s in scenes),
        footprint=_footprint(scenes),
        provenance=provenance,
    )


def _footprint(scenes: Sequence[TrainingScene]) -> dict[str, Any]:
    """GeoJSON geometry of the scenes' extents in WGS84."""
    from rasterio.warp import transform_geom
    from shapely.geometry import box, mapping

    shapes = [
        transform_geom(scene.source.grid.crs, "EPSG:4326", mapping(box(*scene.source.grid.bounds))) for scene in scenes
    ]
    if len(shapes) == 1:
        return dict(shapes[0])
    return {"type": "MultiPolygon", "coordinates": [shape["coordinates"] for shape in shapes]}


def provenance_of(settings: FitSettings, clock: Clock, *, notes: dict[str, Any]) -> dict[str, Any]:
    """How the model came about, JSON-ready; ``notes`` join settings, seconds and versions."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
    return {
        "settings": plain,
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
        "versions": {"torch": str(torch.__version__), "lightning": lightning.__version__},
        **notes,
    }
