"""Train a network of values: teachers learn the samples, the network learns their mixture and its distribution.

The same chips, features and networks as for classes; in the place of probabilities stand draws from the distribution
of a pixel's value (``pipeline.model.quantiles``). A pretrained encoder takes part as one more teacher, a ridge
regression of its frozen features and the surroundings, where held-out groups speak for it; a network with columns gives
just what that teacher gives, and is averaged with the network of pixels by its share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import lightning
import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from pipeline.experts.regressor_mixture import ENCODER, fit_regressor_mixture
from pipeline.experts.regressors import MANY_BANDS, NAMES, SPATIAL, SPECTRAL, TEACHERS, Places, linear_value
from pipeline.experts.settings import EXPERTS_TIME, LEAST_TIME, Deadline
from pipeline.model.network import NetworkSpec, build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.quantiles import CHANNELS
from pipeline.model.surroundings import surroundings
from pipeline.scenes.derived import PLACE
from pipeline.training.chip_set import read_chips
from pipeline.training.encoder_features import FEATURES_TIME, frozen_features
from pipeline.training.fit import training_statistics
from pipeline.training.networks import Networks, build_networks, network_specs, start_columns
from pipeline.training.pixels import PixelBatches, ValueLearner, linear_parts, on_features, put_parts
from pipeline.training.result import Clock, FitResult, assemble, context_note, provenance_of
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
    from pipeline.model.network import Network
    from pipeline.quantity import Quantity
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.training.chip_index import ChipIndex
    from pipeline.training.chip_set import ChipSet
    from pipeline.training.encoder_features import FrozenFeatures
    from pipeline.training.settings import TrainingSettings
    from pipeline.training.statistics import BandStatistics
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


@dataclass(frozen=True, eq=False)
class ValueSet:
    """What a fit learns from.

    Attributes:
        scenes: Scenes with the same bands, and the pixels of their samples.
        targets: The samples' values, standardised by those that are learned.
        statistics: Of the bands.
        preprocess: How they are standardised.
        chips: Their pixels get soft targets.
        table: The samples with their features.
        frozen: A pretrained encoder that fits the scenes, where one may be judged.
        encoder: The same, judged or not: for the record.
        why_not: Why no pretrained encoder fits, where none does.
        clock: Since reading began.
        cut: What the time limit has cut short.
    """

    scenes: Sequence[TrainingScene]
    targets: Targets
    statistics: BandStatistics
    preprocess: Preprocess
    chips: ChipSet
    table: ValueTable
    frozen: FrozenFeatures | None
    encoder: FrozenFeatures | None
    why_not: str
    clock: Clock
    cut: list[str]

    @property
    def samples(self) -> int:
        """How many samples have a valid pixel."""
        return round(float(self.table.weight.sum()))

    def mixture(
        self, settings: TrainingSettings, *, deadline: Deadline | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> RegressorMixture:  # fmt: skip
        """The teachers, fitted.

        Raises:
            LabelError: samples all in one group.
        """
        kinds, trees, seed = kinds_for(self.preprocess.bands), settings.experts.trees, settings.seed
        return fit_regressor_mixture(
            self.table, trees=trees, seed=seed, kinds=(*kinds, ENCODER) if self.frozen is not None else kinds,
            deadline=deadline, given=settings.context.share, progress=progress,
        )  # fmt: skip

    def rows_of(self, scenes: Sequence[TrainingScene]) -> Samples:
        """Other samples with the features that the teachers see."""
        frame = self.targets.frame
        return samples_of(scenes, frame, preprocess=self.preprocess, plane=Plane.around(frame), frozen=self.frozen)


def value_spec(settings: TrainingSettings, preprocess: Preprocess) -> NetworkSpec:
    """The network of pixels of a continuous target."""
    pixels, _ = network_specs(
        settings, bands_in=preprocess.channels, classes=CHANNELS, chip_px=NetworkSpec.chip_px
    )  # fmt: skip
    return cast("NetworkSpec", pixels)


def kinds_for(bands: Sequence[str]) -> tuple[Kind, ...]:
    """The teachers: those that interpolate too where the network is given the place."""
    return (
        *TEACHERS,
        *(SPECTRAL if len(bands) >= MANY_BANDS else ()),
        *(SPATIAL if set(PLACE) <= set(bands) else ()),
    )


def value_set(
    scenes: Sequence[TrainingScene], split: Split, targets: Targets, *, index: ChipIndex, settings: TrainingSettings
) -> ValueSet:
    """Samples and chips, read.

    Args:
        scenes: Scenes with the same bands, and the pixels of their samples.
        split: Which samples train and validate; those of test and buffer are never looked at.
        targets: The samples' values.
        index: Chips whose pixels get soft targets.
        settings: How.

    Raises:
        LabelError: no sample with data.
        ModelError: pretrained weights that are asked for by name and do not fit.
    """
    clock, deadline = Clock(), Deadline.after(settings.time_limit_s)
    statistics = training_statistics(scenes, split)
    preprocess = Preprocess.from_statistics(bands=statistics.bands, mean=statistics.mean, std=statistics.std)
    first, ids = scenes[0].source, learned_polygons(split, settings).tolist()
    encoder, why_not = frozen_features(settings, preprocess, sensor=first.sensor, level=first.level, units=first.units)
    own = [replace(scene, pixels=scene.pixels.select(ids)) for scene in scenes]
    chips = read_chips(scenes, index, split=split, preprocess=preprocess, margin=MARGIN_PX)
    encoder = encoder.calibrated(chips.x, chips.valid) if encoder is not None else None
    frozen = encoder if settings.asks_encoder(len(ids)) else None
    plane = Plane.around(targets.frame)
    samples = samples_of(
        own, targets.frame, preprocess=preprocess, plane=plane, seed=settings.seed, frozen=frozen,
        deadline=deadline.share(EXPERTS_TIME * FEATURES_TIME) if settings.can_drop_encoder else None,
    )  # fmt: skip
    frozen = frozen if samples.places.columns is not None else None
    targets = targets.learned(np.unique(samples.polygon))
    table = samples.table(targets.frame, targets.quantity, targets.group_of)
    clock.lap("chips")
    return ValueSet(
        scenes, targets, statistics, preprocess, chips, table, frozen, encoder, why_not, clock, deadline.cut
    )


def fit_values(
    given: ValueSet, *, settings: TrainingSettings, mixture: RegressorMixture | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> FitResult:  # fmt: skip
    """Train a model of values.

    Args:
        given: What to learn from.
        settings: How; of experts the number of trees, of pixels steps and batch, of context weights and share.
        mixture: Teachers of the same samples, where they are fitted already.
        progress: Called with stage, step, number of steps.

    Raises:
        LabelError: samples all in one group.
    """
    clock = given.clock
    deadline = replace(Deadline.after(settings.time_limit_s - sum(clock.seconds.values())), cut=given.cut)
    lightning.seed_everything(settings.seed, verbose=False)
    mixture = mixture or given.mixture(settings, deadline=deadline.share(EXPERTS_TIME), progress=progress)
    soft = _soft_places(given, pixels=min(settings.experts.soft_pixels, SOFT_PIXELS), seed=settings.seed)
    clock.lap("experts")
    plain, ridge = mixture.parts()
    if ridge is None:
        networks = Networks(build_network(value_spec(settings, given.preprocess)), None, 0.0)
    else:
        networks = build_networks(settings, classes=CHANNELS, chip_px=given.chips.x.shape[-1],
                                  preprocess=given.preprocess, frozen=given.frozen)  # fmt: skip
        networks = networks.judged(mixture, settings, frozen=given.frozen)
    pixels = cast("Network", networks.pixels)
    history = train_values(
        pixels, given.table, soft, plain, settings=settings, progress=progress,
        deadline=deadline.at_least(LEAST_TIME * settings.time_limit_s),
    )  # fmt: skip
    if networks.context is not None:
        start_values(networks.context, ridge, pixels, soft if len(soft) else given.table.places)
    clock.lap("pixels")
    notes: dict[str, Any] = {
        "teachers": {NAMES[kind]: round(float(share), 4) for kind, share in
                     zip(mixture.kinds, mixture.shares, strict=True)},
        "interval_factor": round(mixture.widen, 4),
        "samples": given.samples,
        "context": context_note(networks, mixture, given.encoder, settings=settings, polygons=given.samples,
                                what="samples", figure="of R2", kept=True, why_not=given.why_not, cut=deadline.cut),
    }  # fmt: skip
    bundle = assemble(
        networks, given.targets.scheme, given.preprocess, given.statistics, scenes=given.scenes,
        provenance=provenance_of(settings, deadline=deadline, notes=notes), quantity=given.targets.quantity,
    )  # fmt: skip
    return FitResult(bundle, history, clock.seconds)


def start_values(context: Network, ridge: Any, pixels: Network, places: Places) -> None:
    """The network with columns gives the ridge regression's values.

    Its quantiles lie around them as those of the network of pixels do, as far as that is linear in the surroundings.
    """
    value, bias = linear_value(ridge)
    own = places.features.shape[1]
    with torch.inference_mode():
        raw = on_features(pixels, torch.from_numpy(places.features)[:, :, None, None]).numpy().astype(np.float64)
    around = make_pipeline(StandardScaler(), Ridge()).fit(places.features, raw[:, 1:] - raw[:, :1] * [1, 0, 0])
    weight, constant = linear_value(around)
    start_columns(
        context,
        np.stack([value, *(np.r_[row, np.zeros(len(value) - own)] for row in weight)]) + np.outer([0, 1, 0, 0], value),
        np.r_[0, constant] + bias * np.array([1, 1, 0, 0]),
    )


def _soft_places(given: ValueSet, *, pixels: int, seed: int) -> Places:
    """Valid pixels spread over all chips, none twice, with features, place and day."""
    chips, scenes, targets, plane = given.chips, given.scenes, given.targets, Plane.around(given.targets.frame)
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


def train_values(
    network: Network, table: ValueTable, soft: Places, mixture: RegressorMixture, *, settings: TrainingSettings,
    deadline: Deadline, progress: Callable[[str, int, int], None] | None,
) -> list[dict[str, float]]:  # fmt: skip
    """The network learns the mixture's values and draws of samples and other pixels, in place; gives the log.

    What is linear in the features is solved for, and what is left is learned, from the features' principal components
    at equal variance: spectra of many bands are so much alike that steps along gradients hardly tell them apart. Both
    are put into the network's own layers afterwards (``put_parts``).
    """
    pixels = settings.pixels
    places = (table.places, soft) if len(soft) else (table.places,)
    # The mean of draws is not the mixture's value where the distribution leans to one side.
    target = np.concatenate([mixture.values_and_draws(part) for part in places])
    chance = np.concatenate([table.weight / table.weight.sum(), np.full(len(soft), 1.0 / max(len(soft), 1))])
    features = np.concatenate([part.features for part in places])
    parts = linear_parts(features, target[:, 0], chance)
    seen = (features - parts.mean) @ parts.axes
    target -= (features @ parts.weight + parts.bias)[:, None]
    small = build_network(replace(
        network.spec, bands_in=seen.shape[1], surroundings=False, spectral_channels=network.spec.spectral_channels - 2
    ))  # fmt: skip
    batches = PixelBatches(
        torch.from_numpy(seen.astype(np.float32)), torch.from_numpy(target.astype(np.float32)),
        torch.from_numpy(chance), steps=pixels.steps, batch=pixels.batch, seed=settings.seed,
    )  # fmt: skip
    watch = Watch("pixel network", steps=pixels.steps, column="pixel_loss", progress=progress)
    learner = ValueLearner(small, steps=pixels.steps, lr=min(pixels.lr, _LEARNING_RATE),
                           weight_decay=pixels.weight_decay)  # fmt: skip
    run_trainer(learner, DataLoader(batches, batch_size=None), watch=watch, deadline=deadline, max_epochs=1, devices=1,
          logger=False, enable_checkpointing=False)  # fmt: skip
    put_parts(network, small, parts)
    network.eval()
    return watch.rows


def scene_days(frame: GeoDataFrame, scenes: Sequence[TrainingScene]) -> dict[str, int]:
    """Day of each scene that has samples of one date; 0 for the others."""
    days = dict(zip(frame["poly_id"].tolist(), days_of(frame).tolist(), strict=True))
    found = {}
    for scene in scenes:
        own = {days[int(polygon)] for polygon in scene.pixels.polygon_ids()}
        found[scene.source.id] = own.pop() if len(own) == 1 else 0
    return found
