"""Train a network of values: teachers learn the samples, the network learns their mixture and its distribution.

The same chips, features and network of pixels as for classes; in the place of probabilities stand draws from the
distribution of a pixel's value (``pipeline.model.quantiles``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from pipeline.experts.regressor_mixture import fit_regressor_mixture
from pipeline.experts.regressors import MANY_BANDS, NAMES, SPATIAL, SPECTRAL, TEACHERS, Places
from pipeline.experts.settings import Deadline
from pipeline.model.network import NetworkSpec, build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.quantiles import CHANNELS, quantile_loss, values_and_quantiles
from pipeline.model.surroundings import surroundings
from pipeline.scenes.derived import PLACE
from pipeline.training.chip_set import read_chips
from pipeline.training.fit import EXPERTS_TIME, training_statistics
from pipeline.training.networks import CHANNELS as WIDTH
from pipeline.training.networks import Networks
from pipeline.training.pixels import PixelBatches, PixelLearner
from pipeline.training.result import Clock, FitResult, assemble, provenance_of
from pipeline.training.settings import learned_polygons
from pipeline.training.trainer import Watch, run_trainer
from pipeline.training.training_set import MARGIN_PX
from pipeline.training.value_table import Plane, days_of, samples_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from pipeline.experts.regressor_mixture import RegressorMixture
    from pipeline.experts.regressors import Kind, ValueTable
    from pipeline.legend import ClassScheme
    from pipeline.model.bundle import ModelBundle
    from pipeline.model.network import Network
    from pipeline.quantity import Quantity
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.training.chip_index import ChipIndex
    from pipeline.training.chip_set import ChipSet
    from pipeline.training.settings import TrainingSettings
    from pipeline.training.value_table import Samples

# Most pixels that the mixture is asked for: a forest's quantiles take some 50 us each, and values are smooth.
SOFT_PIXELS = 20_000
_LEARNING_RATE = 3e-3


@dataclass(frozen=True, eq=False)
class Targets:
    """What is learned, and from which samples.

    Attributes:
        frame: Of the labels, with value and date.
        quantity: Name, unit, range, transform.
        group_of: What is held out together, int64 [poly_id].
        scheme: The value classes.
        days: Day of each scene by id; of scenes without a date 0.
    """

    frame: GeoDataFrame
    quantity: Quantity
    group_of: NDArray[np.int64]
    scheme: ClassScheme
    days: dict[str, int]

    def learned(self, ids: NDArray[np.int32]) -> Targets:
        """With the quantity standardised by the samples that are learned from: those with a valid pixel."""
        own = self.frame.loc[self.frame["poly_id"].isin(ids), "value"].to_numpy()
        edges = self.quantity.edges
        return replace(self, quantity=replace(self.quantity.fitted(own), edges=edges))


def kinds_for(bands: Sequence[str]) -> tuple[Kind, ...]:
    """The teachers: those that interpolate too where the network is given the place."""
    return (
        *TEACHERS,
        *(SPECTRAL if len(bands) >= MANY_BANDS else ()),
        *(SPATIAL if set(PLACE) <= set(bands) else ()),
    )


def fit_values(
    scenes: Sequence[TrainingScene], split: Split, targets: Targets, *, index: ChipIndex, settings: TrainingSettings,
    mixture: RegressorMixture | None = None, progress: Callable[[str, int, int], None] | None = None,
) -> tuple[FitResult, RegressorMixture]:  # fmt: skip
    """Train a model of values.

    Args:
        scenes: Scenes with the same bands, and the pixels of their samples.
        split: Which samples train and validate; those of test and buffer are never looked at.
        targets: The samples' values.
        index: Chips whose pixels get soft targets.
        settings: How; of experts the number of trees, of pixels steps and batch.
        mixture: Teachers of the same samples, where they are fitted already.
        progress: Called with stage, step, number of steps.

    Raises:
        LabelError: no sample with data, or all in one group.
    """
    clock, deadline = Clock(), Deadline.after(settings.time_limit_s)
    lightning.seed_everything(settings.seed, verbose=False)
    statistics = training_statistics(scenes, split)
    preprocess = Preprocess.from_statistics(bands=statistics.bands, mean=statistics.mean, std=statistics.std)
    plane = Plane.around(targets.frame)
    ids = learned_polygons(split, settings).tolist()
    own = [replace(scene, pixels=scene.pixels.select(ids)) for scene in scenes]
    samples = samples_of(own, targets.frame, preprocess=preprocess, plane=plane, seed=settings.seed)
    targets = targets.learned(np.unique(samples.polygon))
    table = samples.table(targets.frame, targets.quantity, targets.group_of)
    chips = read_chips(scenes, index, split=split, preprocess=preprocess, margin=MARGIN_PX)
    clock.lap("chips")
    mixture = mixture or fit_regressor_mixture(
        table,
        trees=settings.experts.trees,
        seed=settings.seed,
        kinds=kinds_for(preprocess.bands),
        deadline=deadline.share(EXPERTS_TIME),
        progress=progress,
    )
    soft = _soft_places(chips, scenes, targets, plane, pixels=min(settings.experts.soft_pixels, SOFT_PIXELS),
                        seed=settings.seed)  # fmt: skip
    clock.lap("experts")
    network = value_network(preprocess.channels)
    history = train_values(network, table, soft, mixture, settings=settings, deadline=deadline, progress=progress)
    clock.lap("pixels")
    notes: dict[str, Any] = {
        "teachers": {NAMES[kind]: round(float(share), 4) for kind, share in
                     zip(mixture.kinds, mixture.shares, strict=True)},
        "interval_factor": round(mixture.widen, 4),
        "samples": len(np.unique(samples.polygon)),
        "cut_short": list(deadline.cut),
    }  # fmt: skip
    bundle = assemble(
        Networks(network, None, 0.0), targets.scheme, preprocess, statistics, scenes=scenes,
        provenance=provenance_of(settings, notes=notes), quantity=targets.quantity,
    )  # fmt: skip
    return FitResult(bundle, history, clock.seconds), mixture


def value_network(channels: int) -> Network:
    """The network of a continuous target, as it starts."""
    return build_network(NetworkSpec(
        channels, CHANNELS, encoder="none", spectral_kernels=(1, 1), spectral_channels=WIDTH, dropout=0.0,
        surroundings=True,
    ))  # fmt: skip


def _soft_places(
    chips: ChipSet, scenes: Sequence[TrainingScene], targets: Targets, plane: Plane, *, pixels: int, seed: int
) -> Places:
    """Valid pixels spread over all chips, none twice, with features, place and day."""
    generator = torch.Generator().manual_seed(seed)
    valid = chips.once()
    where = valid & (torch.rand(valid.shape, generator=generator) < pixels / max(int(valid.sum()), 1))
    key = chips.core(chips.key)
    features, keys = [], []
    for chip in range(len(chips)):
        if bool(where[chip].any()):
            layers = chips.core(surroundings(chips.x[chip : chip + 1]))[0]
            features.append(layers[:, where[chip]].T)
            keys.append(key[chip][where[chip]])
    wide = 5 * chips.x.shape[1]
    flat = torch.cat(keys).numpy() if keys else np.empty(0, dtype=np.int64)
    number = flat >> 42
    row, col = ((flat >> 21) & (2**21 - 1)) - 2**20, (flat & (2**21 - 1)) - 2**20
    xy, day = np.empty((len(flat), 2)), np.empty(len(flat), dtype=np.int64)
    for scene in np.unique(number):
        own = number == scene
        xy[own] = plane.of_pixels(scenes[scene].source.grid, row[own], col[own])
        day[own] = targets.days.get(scenes[scene].source.id, 0)
    return Places(torch.cat(features).numpy() if features else np.empty((0, wide), dtype=np.float32), xy, day)


class ValueLearner(PixelLearner):
    """A network without encoder learns values and quantiles from features that were computed once."""

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Loss of the value and draws of its distribution, float [pixel, 1 + draw]."""
        out = batch[0]
        for layer in list(self.network.spectral or [])[1:]:  # the first computes what the batch already holds
            out = layer(out)
        raw = self.network.head(out).flatten(1)
        value, draws = batch[1][:, :1], batch[1][:, None, 1:]
        return quantile_loss(raw, draws, torch.ones_like(value), value=value)


def train_values(
    network: Any, table: ValueTable, soft: Places, mixture: RegressorMixture, *, settings: TrainingSettings,
    deadline: Deadline, progress: Callable[[str, int, int], None] | None,
) -> list[dict[str, float]]:  # fmt: skip
    """The network learns the mixture's values and draws of samples and other pixels, in place; gives the log."""
    pixels = settings.pixels
    places = (table.places, soft) if len(soft) else (table.places,)
    # The mean of draws is not the mixture's value where the distribution leans to one side.
    target = np.concatenate([mixture.values_and_draws(part) for part in places])
    chance = np.concatenate([table.weight / table.weight.sum(), np.full(len(soft), 1.0 / max(len(soft), 1))])
    batches = PixelBatches(
        torch.from_numpy(np.concatenate([part.features for part in places])),
        torch.from_numpy(target.astype(np.float32)), torch.from_numpy(chance),
        steps=pixels.steps, batch=pixels.batch, seed=settings.seed,
    )  # fmt: skip
    watch = Watch("pixel network", steps=pixels.steps, column="pixel_loss", progress=progress)
    learner = ValueLearner(network, steps=pixels.steps, lr=min(pixels.lr, _LEARNING_RATE),
                           weight_decay=pixels.weight_decay)  # fmt: skip
    run_trainer(learner, DataLoader(batches, batch_size=None), watch=watch, deadline=deadline, max_epochs=1, devices=1,
          logger=False, enable_checkpointing=False)  # fmt: skip
    network.eval()
    return watch.rows


def predict_samples(bundle: ModelBundle, samples: Samples) -> NDArray[np.float64]:
    """Value, lower, median, upper in the quantity's unit, float64 [n, 4], of samples that the model standardised."""
    quantity = bundle.quantity
    if quantity is None:
        msg = "a model of classes has no values"
        raise TypeError(msg)
    network = bundle.members[0]
    with torch.inference_mode():
        out = torch.from_numpy(samples.places.features)[:, :, None, None]
        for layer in list(network.spectral or [])[1:]:
            out = layer(out)
        found = values_and_quantiles(network.head(out).flatten(1))[:, 0].numpy()
    return quantity.inverse(found)


def scene_days(frame: GeoDataFrame, scenes: Sequence[TrainingScene]) -> dict[str, int]:
    """Day of each scene that has samples of one date; 0 for the others."""
    days = dict(zip(frame["poly_id"].tolist(), days_of(frame).tolist(), strict=True))
    found = {}
    for scene in scenes:
        own = {days[int(polygon)] for polygon in scene.pixels.polygon_ids()}
        found[scene.source.id] = own.pop() if len(own) == 1 else 0
    return found
