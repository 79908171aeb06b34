"""What training gives back: the model with all that must travel with it, the log, and the seconds of each stage."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from pipeline.experts.settings import ENOUGH_POLYGONS
from pipeline.model.bundle import ModelBundle, TrainedOn
from pipeline.training.context import STAGE
from pipeline.training.settings import NO_FIT, NO_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.experts.mixture import Mixture, OutOfFold
    from pipeline.experts.regressor_mixture import RegressorMixture
    from pipeline.experts.settings import Deadline
    from pipeline.legend import ClassScheme
    from pipeline.model.preprocess import Preprocess
    from pipeline.quantity import Quantity
    from pipeline.splits.split import TrainingScene
    from pipeline.training.encoder_features import FrozenFeatures
    from pipeline.training.networks import Networks
    from pipeline.training.settings import TrainingSettings
    from pipeline.training.statistics import BandStatistics

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FitResult:
    """A trained model and how it came about.

    Attributes:
        bundle: The model.
        history: Rows of the training log.
        seconds: Seconds of each step: chips, experts, pixels, context.
        out_of_fold: The experts' out-of-fold probabilities, to calibrate with; None without experts.
    """

    bundle: ModelBundle
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    out_of_fold: OutOfFold | None = None


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


def assemble(
    networks: Networks,
    scheme: ClassScheme,
    preprocess: Preprocess,
    statistics: BandStatistics,
    *,
    scenes: Sequence[TrainingScene],
    provenance: dict[str, Any],
    quantity: Quantity | None = None,
) -> ModelBundle:
    """The model of trained networks, with where and on what they learned; ``quantity`` of a continuous target."""
    grid = scenes[0].source.grid
    return ModelBundle(
        members=tuple(member.cpu().eval() for member in networks.members),
        scheme=scheme,
        preprocess=preprocess,
        value_range=tuple(zip(statistics.min.tolist(), statistics.max.tolist(), strict=True)),
        units=scenes[0].source.units,
        shares=networks.shares,
        gsd_m=float(np.sqrt(np.prod(grid.pixel_size_m))),
        sources=tuple(TrainedOn(s.source.sensor, s.source.level, s.source.baseline, s.source.id) for s in scenes),
        footprint=_footprint(scenes),
        provenance=provenance,
        quantity=quantity,
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


def provenance_of(settings: TrainingSettings, *, deadline: Deadline, notes: dict[str, Any]) -> dict[str, Any]:
    """How the model came about, JSON-ready; ``notes`` join settings, versions and what the ``deadline`` cut short.

    ModelWarning where it cut anything.
    """
    deadline.warn("training.time_limit_s", seconds=settings.time_limit_s)
    return {
        "settings": settings.model_dump(mode="json"),
        "versions": {"torch": str(torch.__version__), "lightning": lightning.__version__},
        "cut_short": list(deadline.cut),
        **notes,
    }


def context_note(
    networks: Networks,
    mixture: Mixture | RegressorMixture | None,
    frozen: FrozenFeatures | None,
    *,
    settings: TrainingSettings,
    polygons: int,
    what: str = "polygons",
    figure: str = "macro-F1",
    kept: bool = False,
    why_not: str = "",
    cut: Sequence[str] = (),
) -> dict[str, Any]:
    """What became of the network with context, JSON-ready; ``line`` says it in one line.

    Args:
        networks: That are kept.
        mixture: Of the experts; None where they are off.
        frozen: The pretrained encoder; None where none fits the scene (``why_not``), or none is asked for.
        settings: How it was learned.
        polygons: How many were learned from.
        what: They are called.
        figure: Of which something was gained, or not.
        kept: The encoder stays as it is whatever the settings say.
        why_not: No pretrained weights fit.
        cut: What the time limit cut short.
    """
    if not settings.context.enabled:
        return {"share": 0.0, "line": "no network with context: training.context is off"}
    if kept and not settings.context.frozen_first:
        return {"share": 0.0, "line": "no pretrained encoder: training.context.weights is none"}
    if settings.context.frozen_first and frozen is None:
        return {"share": 0.0, "line": f"no network with context: {NO_FIT}{f' ({why_not})' if why_not else ''}"}
    start = "random weights" if settings.context.weights == NO_WEIGHTS else settings.context.weights
    name = frozen.describe() if frozen is not None else f"{settings.context.architecture} from {start}"
    admission = mixture.admission if mixture is not None else None
    note: dict[str, Any] = {"share": networks.share, "encoder": name}
    gained = ""
    if admission is not None:
        note |= {"held_out": admission.note()}
        gained = f"gained {admission.gain:+.3f} {figure} on held-out {what}"
    if networks.context is None:
        return note | {
            "line": f"{name}: not used, {_why_left_out(gained, settings, polygons=polygons, what=what, cut=cut)}"
        }
    frozen_still = kept or settings.keeps_encoder
    how = "frozen" if frozen_still else "fine-tuned" if settings.context.weights != NO_WEIGHTS else "trained"
    short = next((f" until the time limit ended ({one})" for one in cut if one.startswith(STAGE)), "")
    parts = [f"{name}, {how} on {polygons} {what}{short}"]
    if networks.pixels is None and admission is not None and settings.pixels.enabled:
        parts.append(f"alone, as held-out {what} gave it a share of {admission.share:.2f}")
    elif networks.pixels is None:
        return note | {"line": f"{parts[0]}, alone (training.pixels is off)"}
    else:
        parts.append(f"share {networks.share:.2f}")
    # Held-out polygons judge the features as they come.
    before = "" if frozen_still or not gained else " before it was fine-tuned"
    return note | {"line": ", ".join(filter(None, (*parts, gained + before)))}


def _why_left_out(gained: str, settings: TrainingSettings, *, polygons: int, what: str, cut: Sequence[str]) -> str:
    if gained:
        return f"{gained}, not more than chance"
    if not settings.experts.enabled:
        return "without experts nothing judges it (training.experts is off)"
    if polygons < ENOUGH_POLYGONS:
        return f"{polygons} {what} are too few to judge it"
    # What judges it comes before the steps of any network.
    late = any(" at step " not in one for one in cut)
    return f"no held-out {what} judged it: {'training.time_limit_s ended first' if late else 'too few groups'}"
