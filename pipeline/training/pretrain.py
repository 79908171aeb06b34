"""Self-supervised pretraining on the user's own scenes: an encoder learns to fill in bands that are taken away.

A U-Net sees chips of which some bands, and some squares of all bands, are set to their mean, and gives all bands back;
it is judged where something was missing. What land looks like between its bands needs no labels. Only the encoder is
kept, with the names and the scaling of its bands, so that ``training.context.weights`` can match it to other bands.

Source: He et al. (2022), Masked autoencoders are scalable vision learners, CVPR (the task); Cong et al. (2022), SatMAE,
NeurIPS (masking spectral groups apart).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from pipeline.errors import ModelError, SceneError
from pipeline.experts.settings import Deadline
from pipeline.grid import Window
from pipeline.model.network import Network, NetworkSpec, build_network
from pipeline.model.preprocess import Preprocess
from pipeline.model.spec import STAGES
from pipeline.scenes.reader import open_reader
from pipeline.training.batches import symmetry
from pipeline.training.trainer import Watch, precision, run_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from pipeline.raster import Raster
    from pipeline.scenes.scene import Source
    from pipeline.training.settings import PretrainSettings

_LEAST_VALID = 0.5


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An encoder that has seen the scenes."""

    tensors: dict[str, torch.Tensor]  # Under torchvision's names
    preprocess: Preprocess  # Its bands and their scaling
    history: list[dict[str, float]]  # Rows of the log: step, ``loss``, seconds
    settings: PretrainSettings  # How it was trained
    # Loss of giving every missing value its mean (0 after standardisation) on the first batch: what nothing learned
    # would score
    baseline: float


def pretrain(
    sources: Sequence[Source], *, settings: PretrainSettings, progress: Callable[[str, int, int], None] | None = None
) -> Pretrained:
    """Pretrain an encoder on scenes with the same bands.

    Raises:
        SceneError: scenes with other bands than the first, or hardly a valid pixel.
        ModelError: settings that cannot train.
    """
    lightning.seed_everything(settings.seed, verbose=False)
    rasters = _read(sources, settings)
    preprocess = _statistics(rasters)
    x = torch.stack([preprocess(raster.values, raster.valid) for raster in rasters])
    valid = torch.from_numpy(np.stack([raster.valid for raster in rasters]))
    spec = NetworkSpec(
        preprocess.channels,
        preprocess.channels,
        encoder=settings.encoder,
        depth=STAGES,
        spectral_channels=0,
        dropout=0.0,
    )
    torch.manual_seed(settings.seed)
    network = build_network(spec)
    batches = MaskedBatches(x, valid, settings)
    baseline = float(_missing_loss(torch.zeros_like(batches.batch(0)[1]), *batches.batch(0)[1:]))
    watch = Watch("pretraining", steps=settings.steps, progress=progress)
    deadline = Deadline.after(settings.time_limit_s)
    run_trainer(
        _Filler(network, settings), DataLoader(batches, batch_size=None), watch=watch, deadline=deadline, max_epochs=1,
        precision=precision(), devices=1, logger=False, enable_checkpointing=False, gradient_clip_val=1.0,
    )  # fmt: skip
    deadline.warn("pretrain.time_limit_s", seconds=settings.time_limit_s)
    return Pretrained(_encoder_tensors(network), preprocess, watch.rows, settings, baseline)


class MaskedBatches(IterableDataset[tuple[torch.Tensor, ...]]):
    """Batches of chips with something taken away: input, target, and where a value is missing and known."""

    def __init__(self, x: torch.Tensor, valid: torch.Tensor, settings: PretrainSettings) -> None:
        """Chips float32 [chip, channel, row, col] and their valid pixels bool [chip, row, col]."""
        super().__init__()
        self._x, self._valid, self._settings = x, valid, settings

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """As many batches as there are steps."""
        return (self.batch(step) for step in range(self._settings.steps))

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Input and target float32 [chip, channel, row, col], and bool: taken away, and valid in the scene."""
        settings = self._settings
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        chosen = torch.randint(len(self._x), (settings.batch,), generator=generator)
        turn, flip = int(torch.randint(4, (1,), generator=generator)), bool(torch.randint(2, (1,), generator=generator))
        target, valid = symmetry([self._x[chosen], self._valid[chosen]], turn=turn, flip=flip)
        count, channels, rows, cols = target.shape
        bands = torch.rand((count, channels, 1, 1), generator=generator) < settings.band_share
        bands &= ~bands.all(dim=1, keepdim=True)  # something must be left to fill in from
        squares_shape = (count, 1, -(-rows // settings.square_px), -(-cols // settings.square_px))
        squares = torch.rand(squares_shape, generator=generator) < settings.square_share
        squares = squares.repeat_interleave(settings.square_px, 2).repeat_interleave(settings.square_px, 3)
        gone = bands | squares[..., :rows, :cols]
        seen = torch.where(gone, torch.zeros_like(target), target).contiguous(memory_format=torch.channels_last)
        return seen, target, gone & valid[:, None]


class _Filler(lightning.LightningModule):
    """Fills in what is missing."""

    def __init__(self, network: Network, settings: PretrainSettings) -> None:
        super().__init__()
        self.network = network
        self._settings = settings

    def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's
        """Mean absolute error of what is missing."""
        return _missing_loss(self.network(batch[0]), batch[1], batch[2])

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self._settings.lr, weight_decay=0.05)
        steps = max(self._settings.steps, 2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self._settings.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _missing_loss(filled: torch.Tensor, target: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    return ((filled - target).abs() * missing).sum() / missing.sum().clamp_min(1)


def _read(sources: Sequence[Source], settings: PretrainSettings) -> list[Raster]:
    """Chips at random places, scenes in proportion to their size; those with few valid pixels are passed over.

    Raises:
        SceneError: scenes with other bands, or none that is valid enough.
    """
    bands = tuple(sources[0].band_names)
    for source in sources:
        if tuple(source.band_names) != bands:
            raise SceneError(
                "bands differ", path=source.path, got=", ".join(source.band_names), expected=", ".join(bands)
            )
    rng = np.random.default_rng(settings.seed)
    area = np.array([float(np.prod(source.grid.shape)) for source in sources])
    wanted = min(settings.chips, int(np.ceil(4 * area.sum() / settings.chip_px**2)))
    share = rng.multinomial(wanted, area / area.sum())
    rasters = []
    for source, count in zip(sources, share, strict=True):
        height, width = source.grid.shape
        with open_reader(source) as reader:
            for _ in range(int(count)):
                row = int(rng.integers(max(height - settings.chip_px, 0) + 1))
                col = int(rng.integers(max(width - settings.chip_px, 0) + 1))
                raster = reader.read(Window(row, col, settings.chip_px, settings.chip_px))
                if raster.valid.mean() >= _LEAST_VALID:
                    rasters.append(raster)
    if not rasters:
        raise SceneError("hardly a valid pixel to learn from", path=sources[0].path, fix="check nodata and masks")
    return rasters


def _statistics(rasters: Sequence[Raster]) -> Preprocess:
    count = np.zeros(len(rasters[0].bands))
    total, square = np.zeros_like(count), np.zeros_like(count)
    for raster in rasters:
        values = raster.values[:, raster.valid].astype(np.float64)
        count += values.shape[1]
        total += values.sum(axis=1)
        square += (values**2).sum(axis=1)
    mean: NDArray[np.float64] = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 0.0))
    return Preprocess.from_statistics(bands=rasters[0].bands, mean=mean, std=std)


def _encoder_tensors(network: Network) -> dict[str, torch.Tensor]:
    if network.encoder is None:
        raise ModelError("a network without encoder cannot be pretrained", fix="choose an encoder")
    state = network.encoder.state_dict()
    return {name.split(".", 2)[2]: value.detach().cpu().contiguous() for name, value in state.items()}
