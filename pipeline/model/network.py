"""The network: an encoder's context and the pixel's own spectrum, fused at full resolution before the head.

A ResNet halves the resolution twice before anything is learned; at 10 to 30 m the pixel's own spectrum is most of the
evidence. So the bands also take a short path at full resolution, which joins the decoder in its last step; beside a
pretrained encoder there is no decoder, and the scores are linear in its features and in the surroundings.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.errors import ModelError
from pipeline.model import efficientnet
from pipeline.model.decoder import Columns, Decoder, SpectralPath, Step, fixed_layer
from pipeline.model.encoder import Encoder, build_encoder
from pipeline.model.spec import NetworkSpec
from pipeline.model.surroundings import LEVELS, ChipStatistics
from pipeline.model.transfer import put_weights
from pipeline.model.weights import EncoderWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.model.preprocess import Preprocess

__all__ = ["Ensemble", "Network", "NetworkSpec", "build_network", "compute_dtype", "fuse_for_inference", "stride_px"]
CHIP_BATCH = 64
TINY = 1e-8
LEAST_DEVIATION = 1e-4
LEAST_DIFFERENCE = 1e-3
# Numbers that :func:`moments` makes of a feature.
MOMENTS = 3
# Views of a chip whose moments new networks average; docs/learning.md has what was measured.
VIEWS = 2


class Network(nn.Module):
    """Standardised bands -> class scores.

    Attributes:
        spec: What it was built from.
        encoder: None where the spectral path stands alone.
        spectral: None where there is no spectral path; with columns the layer before it that is not learned.
        columns: None where the encoder's features are not read as columns.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = build_encoder(spec) if spec.encoder != "none" else None
        self.spectral: nn.Sequential | None = None
        self.decoder: Decoder | None = None
        self.columns: Columns | None = None
        if self.encoder is not None and spec.columns:
            self.spectral = nn.Sequential(fixed_layer(spec) or nn.Identity())
            self.columns = Columns(self.encoder, classes=spec.classes)
        else:
            self.spectral = SpectralPath(spec) if spec.has_spectral else None
            if self.encoder is not None and spec.head == "unet":
                self.decoder = Decoder(spec, self.encoder)
        self.beside: ChipStatistics | None = None
        if spec.moments and self.encoder is not None:
            count = MOMENTS * sum(self.encoder.channels)
            self.moment_mean, self.moment_gain = nn.Buffer(torch.zeros(count, 1, 1)), nn.Buffer(torch.ones(count, 1, 1))
            if spec.statistics:
                self.beside = ChipStatistics(spec.bands_in, chip_px=spec.chip_px, stride_px=spec.chip_px)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.head = nn.Conv2d(self.features_out, spec.classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(cast("torch.Tensor", self.head.bias))

    @property
    def features_out(self) -> int:
        """Channels of :meth:`features`."""
        if self.decoder is not None:
            return self.decoder.channels
        if self.columns is not None:
            return self.spec.bands_in * (LEVELS if self.spec.surroundings else 1)
        coarse = self.encoder.channels[-1] if self.encoder is not None else 0
        if self.encoder is not None and self.spec.moments:
            coarse = len(self.moment_mean) + (self.beside.channels if self.beside is not None else 0)
        return coarse + (self.spec.spectral_channels if self.spectral is not None else 0)

    @property
    def starts_as_probe(self) -> bool:
        """Whether its last layer can be a linear discriminant of frozen features."""
        return bool(self.spec.moments) or self.spec.columns

    @property
    def stride(self) -> int:
        """Stride of the coarsest features, in pixels: windows that start on its multiples see the same grid."""
        return self.encoder.strides[-1] if self.encoder is not None else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of standardised chips ``x`` float [chip, band, row, col] of any size.

        Returns:
            Head "unet": float [chip, class, row, col] at the size of ``x``. Head "chip": float [chip, class]; with
            statistics ``x`` has the spec's ``chip_px``.
        """
        if self.spec.head == "unet":
            logits: torch.Tensor = self.head(self.dropout(self.features(x)))
            return logits if self.columns is None else logits + self.context(x)
        pooled: torch.Tensor = self.head(self.dropout(self.pooled(x)))
        return pooled.flatten(1)

    def per_pixel(self, x: torch.Tensor) -> torch.Tensor:
        """Logits float [chip, class, row, col] at the size of ``x`` whatever the head; what maps are made of.

        A chip classifier gives each cell of ``chip_stride_px`` squared the class of the chip centred on it, by the same
        calculation as in training: its halo is ``(chip_px - chip_stride_px) / 2``, its cells start at the first pixel.
        """
        if self.spec.head == "unet":
            return self.forward(x)
        return _enlarge(self.head(self._cells(x)), self.spec.chip_stride_px, like=x)

    def context(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the encoder's columns, float [chip, class, row, col] at the size of ``x``."""
        found: torch.Tensor = cast("Columns", self.columns)(cast("Encoder", self.encoder)(pad_to(x, self.stride)))
        return found[..., : x.shape[-2], : x.shape[-1]]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: float [chip, feature, row, col] at the size of ``x`` (dropout not applied)."""
        if self.spec.head == "chip":
            return _enlarge(self._cells(x), self.spec.chip_stride_px, like=x)
        spectral = self.spectral(x) if self.spectral is not None else None
        if self.encoder is None or self.decoder is None:
            return cast("torch.Tensor", spectral)
        rows, cols = x.shape[-2:]
        padded = pad_to(x, self.stride)
        if spectral is not None and padded.shape != x.shape:
            spectral = pad_to(spectral, self.stride)
        out: torch.Tensor = self.decoder(self.encoder(padded), spectral)
        return out[..., :rows, :cols]

    def moments(self, x: torch.Tensor) -> torch.Tensor:
        """:func:`moments` of the encoder's features of whole chips, scaled: float [chip, moment, 1, 1]."""
        found = view_moments(
            lambda view: cast("Encoder", self.encoder)(pad_to(view, self.stride)), x, views=self.spec.moments
        )
        return (found - self.moment_mean) * self.moment_gain

    def scale_moments(self, raw: torch.Tensor) -> None:
        """Take means and deviations from unscaled moments float [chip, moment, 1, 1] of chips to learn from."""
        self.moment_mean.copy_(raw.mean(0))
        self.moment_gain.copy_(1.0 / (raw.std(0, unbiased=False) + LEAST_DEVIATION))

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """Features of whole chips, means of maps or statistics: float [chip, feature, 1, 1]."""
        if self.encoder is None and self.spec.statistics:
            return cast("torch.Tensor", cast("SpectralPath", self.spectral)(x))
        parts = []
        if self.encoder is not None:
            if self.spec.moments:
                parts += [self.moments(x), *([] if self.beside is None else [self.beside(x)])]
            else:
                parts.append(self.encoder(pad_to(x, self.stride))[-1].mean((2, 3), keepdim=True))
        if self.spectral is not None:
            parts.append(self.spectral(x).mean((2, 3), keepdim=True))
        return torch.cat(parts, dim=1)

    def _cells(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the chip centred on each cell: float [chip, feature, cell row, cell col]."""
        chip, stride = self.spec.chip_px, self.spec.chip_stride_px
        halo = (chip - stride) // 2
        rows, cols = (-(-size // stride) for size in x.shape[-2:])
        below, right = rows * stride - x.shape[-2], cols * stride - x.shape[-1]
        padded = functional.pad(x, (halo, halo + right, halo, halo + below))
        if self.encoder is None and self.spec.statistics:
            return self.pooled(padded)
        windows = padded.unfold(2, chip, stride).unfold(3, chip, stride).permute(0, 2, 3, 1, 4, 5)
        flat = windows.reshape(-1, x.shape[1], chip, chip)
        pooled = torch.cat([self.pooled(part) for part in torch.split(flat, CHIP_BATCH)])
        return pooled.reshape(x.shape[0], rows, cols, -1).permute(0, 3, 1, 2)


class Ensemble(nn.Module):
    """Members' probabilities averaged (Lakshminarayanan et al. 2017), as log-probabilities over a temperature.

    A single member's logits pass unchanged but for the temperature (Guo et al. 2017). Of ``values`` the members' raw
    channels are averaged: value and quantiles then are, and do not cross.
    """

    def __init__(
        self, members: Sequence[nn.Module], *, shares: Sequence[float], temperature: float, values: bool = False
    ) -> None:
        super().__init__()
        self.values = values
        self.members = nn.ModuleList(members)
        self.shares = tuple(share / sum(shares) for share in shares)
        self.temperature = temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits float [chip, class, row, col] at the size of ``x``."""
        first = cast("Network", self.members[0])
        if len(self.members) == 1:
            return first.per_pixel(x) / self.temperature
        mean = torch.zeros(())
        for member, share in zip(self.members, self.shares, strict=True):
            own = cast("Network", member).per_pixel(x).float()
            mean = mean + share * (own if self.values else own.softmax(1))
        return mean if self.values else mean.clamp_min(TINY).log() / self.temperature


def build_network(
    spec: NetworkSpec,
    *,
    weights: EncoderWeights | Sequence[EncoderWeights] | None = None,
    preprocess: Preprocess | None = None,
    units: Sequence[str] = (),
) -> Network:
    """A network with random weights, or with a pretrained encoder whose stem is matched by band.

    Args:
        spec: The architecture.
        weights: Pretrained encoder weights; of an encoder with branches those of each.
        preprocess: How its input will be standardised: names the bands that the stem is matched to, and undoes the
            difference to the scaling the weights were trained with. Needed with ``weights``.
        units: Unit of each band of its input; () where it is not known.

    Raises:
        ModelError: the weights are of another architecture, or no band names are given for them.
    """
    network = Network(spec)
    of_branches = [] if weights is None else [weights] if isinstance(weights, EncoderWeights) else weights
    for branch, own in enumerate(of_branches):
        if preprocess is None:
            raise ModelError("pretrained weights without the bands they meet", fix="pass preprocess")
        if network.encoder is None:
            raise ModelError(f"weights {own.name} for a network without encoder", fix="set weights: none")
        put_weights(network.encoder, own, preprocess=preprocess, units=units, branch=branch)
    return network.to(memory_format=torch.channels_last)


def moments(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean, deviation and roughness over rows and columns of each feature at each stride: float [chip, moment, 1, 1].

    Roughness is the logarithm of the mean difference of neighbours. None changes when a chip is turned or mirrored.
    """
    parts: list[torch.Tensor] = []
    for f in features:
        down, along = (f[..., 1:, :] - f[..., :-1, :]).abs(), (f[..., 1:] - f[..., :-1]).abs()
        rough = (down.sum((2, 3)) + along.sum((2, 3))) / f[0, 0].numel()
        parts += [f.mean((2, 3)), f.var((2, 3), correction=0).add(TINY).sqrt(), rough.add(LEAST_DIFFERENCE).log()]
    return torch.cat(parts, dim=1)[:, :, None, None]


def view_moments(
    encoder: Callable[[torch.Tensor], Sequence[torch.Tensor]], x: torch.Tensor, *, views: int
) -> torch.Tensor:
    """:func:`moments` of what ``encoder`` makes of chips, averaged over views of them: float [chip, moment, 1, 1].

    Args:
        encoder: Features at each stride of chips float [chip, channel, row, col].
        x: The chips.
        views: 1: as they are; 2: and with rows and columns exchanged. A filter answers to both differently, a class is
            the same in both.
    """
    found = moments(encoder(x))
    return found if views == 1 else (found + moments(encoder(x.transpose(-1, -2)))) / 2


def freeze_encoder(network: Network, *, frozen: bool = True) -> None:
    """Hold the encoder's weights and batch-norm statistics fixed while the rest learns, or let them go again."""
    if network.encoder is not None:
        network.encoder.frozen = frozen
        network.encoder.requires_grad_(requires_grad=not frozen)
        network.encoder.train(mode=network.training)


def parameter_groups(
    network: Network, *, lr: float, layer_decay: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser: each encoder stage learns ``layer_decay`` times as fast as the one after it.

    Decoder, spectral path and head learn at ``lr``, the last encoder stage at ``lr * layer_decay``, the stem slowest
    (discriminative fine-tuning, Howard & Ruder 2018). Biases and batch norms get no weight decay.
    """
    stages = list(network.encoder.stages) if network.encoder is not None else []
    parts: list[tuple[str, list[nn.Module], float]] = [
        (f"encoder {number}", [stage], lr * layer_decay ** (len(stages) - number))
        for number, stage in enumerate(stages)
    ]
    others = (network.spectral, network.decoder, network.columns, network.head)
    rest: list[nn.Module] = [part for part in others if part is not None]
    parts.append(("rest", rest, lr))
    groups = []
    for name, modules, rate in parts:
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        for label, decay, chosen in (
            (name, weight_decay, [p for p in parameters if p.ndim > 1]),
            (f"{name} norm", 0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"name": label, "params": chosen, "lr": rate, "weight_decay": decay})
    return groups


def stride_px(spec: NetworkSpec) -> int:
    """The coarsest stride of a network in pixels: tiles that start on its multiples agree with the whole."""
    if spec.head == "chip":
        return spec.chip_stride_px
    if spec.encoder == "none":
        return 1
    if spec.encoder == efficientnet.NAME:
        return 1 << spec.depth
    return spec.stem_stride << (spec.depth - 2)


def compute_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """bfloat16 where the machine calculates in it, float32 where it would only be emulated.

    On a CPU with AVX2 alone a bfloat16 convolution takes some twenty times as long as a float32 one.
    """
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
    return torch.bfloat16 if native and torch.cpu._is_avx512_bf16_supported() else torch.float32  # noqa: SLF001


def fuse_for_inference(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode with every batch norm folded into the convolution before it.

    The output is the same to rounding; it saves a pass over memory per layer.
    """
    fused = copy.deepcopy(network).eval()
    for module in list(fused.modules()):
        if isinstance(module, Step):
            module.fold_norm()
        before: tuple[str, nn.Module] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
                module.add_module(before[0], fuse_conv_bn_eval(before[1], child))
                module.add_module(name, nn.Identity())
            before = (name, child)
    fused.requires_grad_(requires_grad=False)
    return fused.to(memory_format=torch.channels_last)


def pad_to(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Zeros (the mean) below and right, up to the next multiple of ``stride``."""
    below, right = (-x.shape[-2]) % stride, (-x.shape[-1]) % stride
    return functional.pad(x, (0, right, 0, below)) if below or right else x


def _enlarge(cells: torch.Tensor, stride: int, *, like: torch.Tensor) -> torch.Tensor:
    whole = cells.repeat_interleave(stride, dim=2).repeat_interleave(stride, dim=3)
    return whole[..., : like.shape[-2], : like.shape[-1]]
