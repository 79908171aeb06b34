"""Training of chip classifiers: experts learn the statistics of whole chips, a network learns their soft labels.

Experts on statistics of a chip (``pipeline.model.surroundings``) learn more from hundreds of chips than a network of
their pixels. A small network on the same statistics learns the soft labels of labelled chips, of unlabelled ones and of
mixtures of two, which fill the space between them (Zhang et al. 2018, mixup: Beyond empirical risk minimization; Hinton
et al. 2015). The network is in the model file, the experts are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from sklearn.dummy import DummyClassifier

from pipeline.errors import LabelError
from pipeline.experts.experts import Expert, PixelTable, linear_scores, shrunk_discriminant, soften_discriminant
from pipeline.experts.mixture import Mixture, fit_mixture
from pipeline.experts.settings import ENOUGH_POLYGONS, EXPERTS_TIME, LEAST_TIME
from pipeline.experts.shares import held_out_temperature
from pipeline.legend import IGNORE_INDEX
from pipeline.model.surroundings import ChipStatistics, chip_statistics
from pipeline.training.batches import ContextSet
from pipeline.training.encoder_features import FEATURES_TIME
from pipeline.training.pixels import train_pixels
from pipeline.training.training_set import SoftLabels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.experts.settings import Deadline
    from pipeline.model.network import Network
    from pipeline.training.chip_set import ChipSet
    from pipeline.training.encoder_features import FrozenFeatures
    from pipeline.training.networks import Networks
    from pipeline.training.settings import TrainingSettings

# Chips below which the kernel discriminant is left out: it compares with 500 of them (docs/learning.md).
KERNEL_CHIPS = 1000
# docs/learning.md has what was measured. A chip of a folder is its own polygon.
EXPERTS = (
    Expert("trees of polygons, statistics", "polygons", 1),
    Expert("logistic regression of statistics", "logistic", 1),
    Expert("linear discriminant of statistics", "discriminant", 1),
    Expert("kernel discriminant of statistics", "kernel", 1, needs=KERNEL_CHIPS),
    Expert("pretrained encoder and statistics", "discriminant", 1, needs=ENOUGH_POLYGONS, encoder=True),
)
MIXTURES = 20_000
# Of larger batches the network learns the same and takes longer.
CHIPS_AT_ONCE = 256
_BATCH = 64


@dataclass(frozen=True, eq=False)
class ChipExperts:
    """Experts of chips' statistics."""

    mixture: Mixture  # The fitted experts
    layer: ChipStatistics  # Knows how statistics are standardised
    # The pretrained encoder whose features an expert sees; None where there is none
    frozen: FrozenFeatures | None = None
    whole: bool = False  # The network with context stands alone, and learns the whole mixture

    def predict(self, x: torch.Tensor) -> NDArray[np.float32]:
        """What the network with context learns: probabilities float32 [chip, class] of standardised chips.

        Of the expert with a pretrained encoder, where it has a share and another network has the rest. Chips are
        float32 [chip, channel, row, col].
        """
        plain, encoder = self.mixture.parts()
        features = _features(self.layer, _raw_statistics(x))
        if encoder is None or self.frozen is None:
            return plain.predict(features)
        taught = self.mixture if self.whole else encoder
        return taught.predict(np.hstack([features, self.frozen.of_chips(x).numpy()]))


@dataclass(frozen=True, eq=False)
class WholeChips:
    """Chips to learn from, labelled or not."""

    x: torch.Tensor  # Standardised channels, float32 [chip, channel, row, col]; 0 where not valid
    valid: torch.Tensor  # bool [chip, row, col]
    index: NDArray[np.uint8]  # Network index of the class, uint8 [chip]; IGNORE_INDEX where unlabelled
    group: NDArray[np.int32]  # Where each labelled one comes from (its polygon), int32 [chip]

    def context_set(self, experts: ChipExperts | None) -> ContextSet:
        """Of the labelled chips, for a network of their pixels; drawn by class, then group, then place.

        With soft labels where there are experts.
        """
        labelled = self.index != IGNORE_INDEX
        rows = torch.from_numpy(labelled)
        x, index = self.x[rows], self.index[labelled]
        cell = (len(x), 1, 1)
        soft = torch.zeros((len(x), 1)) if experts is None else torch.from_numpy(experts.predict(x))
        return ContextSet(
            x=x,
            index=torch.from_numpy(index).reshape(cell),
            weight=torch.ones(cell),
            target=soft.half()[:, :, None, None],
            soft=torch.full(cell, experts is not None),
            chance=torch.from_numpy(balanced_chance(index, self.group[labelled])),
        )


def whole_chips(chips: ChipSet, ids: NDArray[np.int32]) -> WholeChips:
    """Chips with the class of the valid pixel in their middle, where it is one of the polygons ``ids``."""
    middle = chips.x.shape[-1] // 2  # where the chip index puts the labelled pixel that it centres a chip on
    index, group = (layer[:, middle, middle].numpy() for layer in (chips.index, chips.polygon))
    index = np.where(np.isin(group, ids), index, np.uint8(IGNORE_INDEX))
    seen = chips.valid.flatten(1).any(1)
    return WholeChips(chips.x[seen], chips.valid[seen], index[seen.numpy()], group[seen.numpy()])


def train_on_statistics(
    networks: Networks, chips: WholeChips,
    *, classes: int, group_of: NDArray[np.int32], settings: TrainingSettings, deadline: Deadline,
    frozen: FrozenFeatures | None = None, progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Networks, ChipExperts | None, list[dict[str, float]]]:  # fmt: skip
    """Fit the experts, then train the network of chips' statistics in place, where there is one.

    The head of a network with a pretrained encoder starts as the linear discriminant of the encoder's features.

    Args:
        networks: ``pixels`` has ``statistics`` in its spec.
        chips: What to learn from.
        classes: Number of classes.
        group_of: Group of each polygon (its block), int32 [polygon]; -1 where the polygon is its own group.
        settings: How.
        deadline: Nothing new is begun after it.
        frozen: A pretrained encoder, where one fits the chips.
        progress: Called with stage ("experts", "pixel network"), step and number of steps.

    Returns:
        The networks with their shares, the experts, None where they are off, and rows of the training log.

    Raises:
        LabelError: nothing to learn from.
    """
    labelled = chips.index != IGNORE_INDEX
    if not labelled.any():
        raise LabelError("no chip with a valid labelled pixel to learn from", fix="check nodata under the polygons")
    layer = _statistics_layer(networks.pixels, chips.x)
    raw = _raw_statistics(chips.x)
    layer.standardise_by(raw)
    features = _features(layer, raw)
    seen = features
    if frozen is not None and settings.asks_encoder(int(labelled.sum())):
        until = deadline.share(EXPERTS_TIME * FEATURES_TIME) if settings.can_drop_encoder else None
        seen = np.hstack([features, frozen.of_chips(chips.x, deadline=until).numpy()])
    statistics, further = features.shape[1], seen.shape[1] - features.shape[1]
    table = PixelTable(seen[labelled], chips.index[labelled], chips.group[labelled], statistics, further)
    experts, target = None, np.eye(classes, dtype=np.float32)[table.index]
    soft = _as_soft_labels(np.zeros((0, features.shape[1]), np.float32), np.zeros((0, classes), np.float32))
    if settings.experts.enabled:
        mixture = fit_mixture(
            table, classes=classes, group_of=group_of, trees=settings.experts.trees, seed=settings.seed,
            known=EXPERTS, deadline=deadline.share(EXPERTS_TIME), progress=progress,
        )  # fmt: skip
        plain, _ = mixture.parts()
        experts, target = ChipExperts(mixture, layer, frozen), plain.predict(table.features)
        soft = _mixed_chips(plain, features, labelled, settings=settings)
    networks = networks.judged(experts.mixture if experts is not None else None, settings, frozen=frozen)
    if frozen is not None and networks.context is not None:
        pairs = zip(experts.mixture.experts, experts.mixture.temperatures, strict=True) if experts is not None else ()
        learned = [own for expert, own in pairs if expert.encoder]
        temperature = learned[0] if learned else held_out_temperature(
            EXPERTS[-1], table, classes=classes, group_of=group_of, seed=settings.seed
        )  # fmt: skip
        start_head(
            networks.context, chips.x[torch.from_numpy(labelled)], chips.index[labelled], temperature=temperature
        )
    networks = networks.alone_where_strong(settings)
    if networks.pixels is None:
        return networks, replace(experts, whole=True) if experts is not None else None, []
    steps = settings.pixels.model_copy(update={"batch": min(settings.pixels.batch, CHIPS_AT_ONCE)})
    history = train_pixels(
        networks.pixels, table, target, soft, settings=steps, seed=settings.seed, progress=progress,
        deadline=deadline.at_least(LEAST_TIME * settings.time_limit_s),
    )  # fmt: skip
    return networks, experts, history


def start_head(network: Network, x: torch.Tensor, index: NDArray[np.uint8], *, temperature: float = 1.0) -> None:
    """The head becomes the linear discriminant of what it sees, moments and statistics of the chip: the linear probe.

    Classes without a labelled chip are never the most probable.

    Args:
        network: Of chips, with ``moments``.
        x: Labelled chips, standardised float32 [chip, channel, row, col].
        index: Network index of the class of each, uint8 [chip].
        temperature: What its scores are divided by.
    """
    network.eval()
    with torch.no_grad():
        network.scale_moments(torch.cat([network.moments(part) for part in torch.split(x, _BATCH)]))
        if network.beside is not None:
            network.beside.standardise_by(_raw_statistics(x))
        features = torch.cat([network.pooled(part) for part in torch.split(x, _BATCH)]).flatten(1).double().numpy()
    several = len(np.unique(index)) > 1
    probe = shrunk_discriminant() if several else DummyClassifier()
    probe.fit(features, index)
    soften_discriminant(probe, temperature)
    weight, bias = linear_scores(probe, classes=len(network.head.weight))
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weight).float()[:, :, None, None])
        cast("torch.Tensor", network.head.bias).copy_(torch.from_numpy(bias).float())


def _statistics_layer(network: Network | None, x: torch.Tensor) -> ChipStatistics:
    """The network's first layer, or one by itself where there is no network of statistics."""
    if network is not None:
        return cast("ChipStatistics", next(iter(cast("torch.nn.Sequential", network.spectral))))
    return ChipStatistics(x.shape[1], chip_px=x.shape[-1], stride_px=x.shape[-1])


def _raw_statistics(x: torch.Tensor) -> torch.Tensor:
    """Statistics of whole chips before they are standardised, float32 [chip, statistic, 1, 1]."""
    side = x.shape[-1]
    with torch.inference_mode():
        raw = torch.cat([chip_statistics(part, chip_px=side, stride_px=side) for part in torch.split(x, _BATCH)])
    return raw.clone()


def _features(layer: ChipStatistics, raw: torch.Tensor) -> NDArray[np.float32]:
    """Standardised statistics float32 [chip, statistic]."""
    return np.asarray(((raw - layer.mean) * layer.gain).flatten(1).numpy(), dtype=np.float32)


def _mixed_chips(
    mixture: Mixture, features: NDArray[np.float32], labelled: NDArray[np.bool_], *, settings: TrainingSettings
) -> SoftLabels:
    """Soft labels of unlabelled chips, and of mixtures of any two chips in proportions drawn at random."""
    rng = np.random.default_rng(settings.seed)
    first, second = rng.integers(0, len(features), (2, min(MIXTURES, settings.experts.soft_pixels)))
    share = rng.random((len(first), 1), dtype=np.float32)
    mixed = np.concatenate([features[~labelled], share * features[first] + (1 - share) * features[second]])
    return _as_soft_labels(mixed, mixture.predict(mixed))


def _as_soft_labels(features: NDArray[np.float32], target: NDArray[np.float32]) -> SoftLabels:
    where = torch.ones((len(features), 1, 1), dtype=torch.bool)
    return SoftLabels(torch.from_numpy(features), torch.from_numpy(target), where)


def balanced_chance(index: NDArray[np.uint8], group: NDArray[np.integer]) -> NDArray[np.float64]:
    """How often each chip is drawn, sums to 1: classes alike, groups of a class alike, chips of a group alike.

    >>> balanced_chance(np.array([0, 0, 0, 1], np.uint8), np.array([1, 1, 2, 3])).tolist()
    [0.125, 0.125, 0.25, 0.5]
    """
    pairs, of, places = np.unique(np.stack([index, group], axis=1), axis=0, return_inverse=True, return_counts=True)
    groups = np.bincount(pairs[:, 0].astype(np.intp))
    chance = 1.0 / (places[of.ravel()] * groups[index])
    return np.asarray(chance / chance.sum())
