"""The network of pixels, or of chips' statistics: features once, then seconds of a Lightning trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import lightning
import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, IterableDataset

from pipeline.experts.regressors import linear_value
from pipeline.experts.weights import pixel_weights
from pipeline.model.quantiles import quantile_loss
from pipeline.training.trainer import Watch, run_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.experts.experts import PixelTable
    from pipeline.experts.settings import Deadline
    from pipeline.model.network import Network
    from pipeline.training.settings import PixelSettings
    from pipeline.training.training_set import SoftLabels

# Of features: principal components that the network learns from, at most; what is added to their variances, over the
# largest; and the penalty of the linear part, over the mean square of errors.
COMPONENTS, _FLOOR, _LEAST_RIDGE = 100, 1e-6, 0.01


class PixelBatches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of features and probabilities: half labelled, polygon by polygon, half from anywhere."""

    def __init__(
        self, features: torch.Tensor, target: torch.Tensor, chance: torch.Tensor, *, steps: int, batch: int, seed: int
    ) -> None:
        super().__init__()
        self._features = features
        self._target = target
        self._chance = chance
        self._shape = (steps, batch)
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Features float32 [pixel, feature, 1, 1] and probabilities float32 [pixel, class]."""
        steps, batch = self._shape
        drawn = torch.multinomial(self._chance, steps * batch, replacement=True, generator=self._generator)
        for chosen in torch.split(drawn, batch):
            yield self._features[chosen][:, :, None, None], self._target[chosen]


class PixelLearner(lightning.LightningModule):
    """A network without encoder learns probabilities from features that were computed once."""

    def __init__(self, network: Network, *, steps: int, lr: float, weight_decay: float) -> None:
        super().__init__()
        self.network = network
        self._settings = (steps, lr, weight_decay)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Cross-entropy with the probabilities."""
        logits = on_features(self.network, batch[0])
        loss: torch.Tensor = -(batch[1] * logits.log_softmax(1)).sum(1).mean()
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle."""
        steps, lr, decay = self._settings
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=lr, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_pixels(
    network: Network,
    table: PixelTable,
    target: NDArray[np.float32],
    soft: SoftLabels,
    *,
    settings: PixelSettings,
    seed: int,
    deadline: Deadline,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, float]]:
    """The network learns the probabilities of labelled pixels and the soft labels, in place.

    Args:
        network: Without encoder.
        table: The labelled pixels.
        target: Their probabilities, float32 [pixel, class].
        soft: Further pixels with probabilities; may be of none.
        settings: How.
        seed: Of the batches.
        deadline: No step is begun after it.
        progress: Called with "pixel network", step and number of steps.

    Returns:
        Rows of the log: step, ``pixel_loss``.
    """
    weight = pixel_weights(table.index, table.polygon, classes=target.shape[1])
    anywhere = len(soft.features)
    batches = PixelBatches(
        torch.cat([torch.from_numpy(table.features[:, : soft.features.shape[1]]), soft.features]),
        torch.cat([torch.from_numpy(target), soft.target]),
        torch.cat([torch.from_numpy(weight / weight.sum()), torch.full((anywhere,), 1.0 / max(anywhere, 1))]),
        steps=settings.steps,
        batch=settings.batch,
        seed=seed,
    )
    watch = Watch("pixel network", steps=settings.steps, column="pixel_loss", progress=progress)
    learner = PixelLearner(network, steps=settings.steps, lr=settings.lr, weight_decay=settings.weight_decay)
    run_trainer(
        learner, DataLoader(batches, batch_size=None), watch=watch, deadline=deadline, max_epochs=1, devices=1,
        logger=False, enable_checkpointing=False,
    )  # fmt: skip
    network.eval()
    return watch.rows


class ValueLearner(PixelLearner):
    """A network without encoder learns values and quantiles from features that were computed once."""

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Loss of the value and draws of its distribution, float [pixel, 1 + draw]."""
        raw = on_features(self.network, batch[0])
        value, draws = batch[1][:, :1], batch[1][:, None, 1:]
        return quantile_loss(raw, draws, torch.ones_like(value), value=value)


@dataclass(frozen=True, eq=False)
class LinearParts:
    """What is linear in a table of features.

    Attributes:
        mean: Of each feature, float64 [feature].
        axes: Features less their mean -> principal components with a variance of 1, float64 [feature, component].
        weight: Of each feature in the ridge regression of the value, float64 [feature].
        bias: Of that regression.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: float


def linear_parts(features: NDArray[np.float32], value: NDArray[np.float64], chance: NDArray[np.float64]) -> LinearParts:
    """Principal components of features float32 [pixel, feature], and a ridge regression of values float64 [pixel]."""
    ridge = make_pipeline(StandardScaler(), Ridge(_LEAST_RIDGE))
    weight, bias = linear_value(ridge.fit(features, value, ridge__sample_weight=chance / chance.sum()))
    mean = features.mean(0, dtype=np.float64)
    variance, axes = np.linalg.eigh(np.cov(features.T.astype(np.float64), ddof=0).reshape(len(mean), -1))
    variance, axes = variance[::-1][:COMPONENTS], axes[:, ::-1][:, :COMPONENTS]
    return LinearParts(mean, axes / np.sqrt(variance + _FLOOR * variance[0]), weight, float(bias))


def put_parts(network: Network, small: Network, parts: LinearParts) -> None:
    """Put a network of principal components, and beside it what is linear, into a network of features, in place.

    Two units of each layer carry the linear part, as ``relu(a) - relu(-a) = a``.
    """
    (conv, norm), (last, last_norm), head = _layers(network)
    (own_conv, own_norm), (own_last, own_last_norm), own_head = _layers(small)
    axes, mean, line = (torch.from_numpy(part).float() for part in (parts.axes, parts.mean, parts.weight))
    width = len(own_conv.weight)
    with torch.no_grad():
        first = own_conv.weight[:, :, 0, 0] @ axes.T
        conv.weight.copy_(torch.cat([first, line[None], -line[None]])[:, :, None, None])
        last.weight.zero_()
        last.weight[:width, :width] = own_last.weight
        last.weight[width:, width:] = torch.eye(2)[:, :, None, None]
        head.weight.zero_()
        head.weight[:, :width] = own_head.weight
        head.weight[:2, width:] = torch.tensor([1.0, -1.0])[None, :, None, None]  # of value and median
        cast("torch.Tensor", head.bias).copy_(cast("torch.Tensor", own_head.bias))
        for into, given in ((norm, own_norm), (last_norm, own_last_norm)):
            for name in ("running_mean", "running_var", "weight", "bias"):
                getattr(into, name)[:width] = getattr(given, name)
            into.weight[width:] = (1.0 + into.eps) ** 0.5  # which leaves what it is given as it is
        cast("torch.Tensor", norm.running_mean)[:width] += first @ mean
        norm.bias[width:] = torch.tensor([parts.bias, -parts.bias])


def _layers(network: Network) -> tuple[Any, Any, torch.nn.Conv2d]:
    """Convolution and norm of either layer of the spectral path, and the head."""
    one, other = (cast("torch.nn.Sequential", layer) for layer in list(network.spectral or [])[-2:])
    return one[:2], other[:2], network.head


def on_features(network: Network, features: torch.Tensor) -> torch.Tensor:
    """Scores [pixel, class] of features [pixel, feature, 1, 1], which a fixed first layer computes elsewhere."""
    fixed = network.spec.surroundings or network.spec.statistics
    out = features
    for layer in list(network.spectral or [])[int(fixed) :]:
        out = layer(out)
    raw: torch.Tensor = network.head(out).flatten(1)
    return raw
