"""The same network with less to do on a CPU: strip by strip where pixels stand alone, and quicker layers.

Most of a network's memory, and on a CPU much of its time, goes into what it does at full resolution: many channels,
little arithmetic. There pixels depend on their near neighbours only. So the coarse part is run on the whole tile, and
what is at full resolution on strips of rows whose channels stay in the cache; a tile of a given memory is several times
larger, and its halo costs less. Outputs are those of the network that is replaced, to rounding.

Measured on one core (AVX2, seconds of that core, 512 x 512 pixels, 10 bands): surroundings 0.27 -> 0.11; convolutions
of one pixel from 50 to 128 channels 0.19 -> 0.16, which torch, with one thread, would first copy (im2col) and then
multiply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from pipeline.model.network import TINY, Ensemble, Network
from pipeline.model.surroundings import DEVIATION, MEANS, REACH_PX, Surroundings

if TYPE_CHECKING:
    from pipeline.model.decoder import Decoder

# Added under the root, as in pipeline.model.surroundings.
_FLOOR = 1e-6
# Pixels of a strip: some 200 channels of them fit into a shared cache of 16 MB; rows at least, as a strip's own halo is
# computed twice.
_STRIP_PX = 16_384
_STRIP_ROWS = 32


def speed_up(network: nn.Module) -> nn.Module:
    """An ensemble (or one of its parts), already fused and in evaluation mode, made faster; it is taken over."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Surroundings):
                module._modules[name] = FastSurroundings()  # noqa: SLF001 - setattr refuses digits
            elif isinstance(child, nn.Conv2d) and _is_pointwise(child):
                module._modules[name] = Pointwise(child)  # noqa: SLF001
    members = list(network.members) if isinstance(network, Ensemble) else []
    if members and all(_has_strips(cast("Network", member)) for member in members):
        return StripEnsemble(cast("Ensemble", network))
    return network


def _has_strips(network: Network) -> bool:
    """Whether what is at full resolution can be computed strip by strip."""
    spec = network.spec
    if spec.head != "unet" or network.dropout.training:
        return False
    if network.decoder is None:
        return True
    stride, _, taken = network.decoder.plan[-1]
    return stride == 1 and not taken and spec.fuse_kernel == 1


class StripEnsemble(nn.Module):
    """An ensemble whose full resolution is computed strip by strip."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble
        networks = [cast("Network", member) for member in ensemble.members]
        self._reach = max(_spectral_reach(network) for network in networks)
        self._scale = max([network.decoder.plan[-1][1] for network in networks if network.decoder is not None] + [1])
        self._stride = max(network.stride for network in networks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits float [chip, class, row, col] at the size of ``x``."""
        chips, _, rows, cols = x.shape
        if rows % self._stride or cols % self._stride:
            whole: torch.Tensor = self.ensemble(x)  # tiles are whole strides
            return whole
        networks = [cast("Network", member) for member in self.ensemble.members]
        coarse = [_coarse(network, x) for network in networks]
        classes = networks[0].spec.classes
        out = torch.empty((chips, classes, rows, cols), dtype=x.dtype, device=x.device)
        step = max(_STRIP_PX // cols, _STRIP_ROWS) // self._scale * self._scale
        for top in range(0, rows, step):
            stop = min(top + step, rows)
            above, below = max(top - self._reach, 0), min(stop + self._reach, rows)
            part = x[:, :, above:below]
            found = [
                _full(network, part, features, rows=(top, stop), inner=(top - above, stop - above))
                for network, features in zip(networks, coarse, strict=True)
            ]
            out[:, :, top:stop] = self._joined(found)
        return out

    def _joined(self, found: list[torch.Tensor]) -> torch.Tensor:
        """As :class:`pipeline.model.network.Ensemble` joins its members."""
        if len(found) == 1:
            return found[0] / self.ensemble.temperature
        mean = torch.zeros((), device=found[0].device)
        for logits, share in zip(found, self.ensemble.shares, strict=True):
            mean = mean + share * logits.float().softmax(1)
        return mean.clamp_min(TINY).log() / self.ensemble.temperature


def _spectral_reach(network: Network) -> int:
    if network.spectral is None:
        return 0
    return sum(kernel // 2 for kernel in network.spec.spectral_kernels) + (REACH_PX if network.spec.surroundings else 0)


def _coarse(network: Network, x: torch.Tensor) -> torch.Tensor | None:
    """The decoder's features before its last step, of the whole tile; None without an encoder."""
    if network.encoder is None or network.decoder is None:
        return None
    decoder: Decoder = network.decoder
    features = network.encoder(x)
    found: torch.Tensor = features[-1]
    for step, (_, scale, taken) in zip(list(decoder.steps)[:-1], decoder.plan[:-1], strict=True):
        found = step(found, [features[i] for i in taken], scale)
    return found


def _full(
    network: Network, x: torch.Tensor, coarse: torch.Tensor | None, *, rows: tuple[int, int], inner: tuple[int, int]
) -> torch.Tensor:
    """Logits of a strip: rows ``rows`` of the tile, ``inner`` of ``x``, which holds the strip's own halo."""
    spectral = network.spectral(x)[:, :, inner[0] : inner[1]] if network.spectral is not None else None
    if coarse is None or network.decoder is None:
        return cast("torch.Tensor", network.head(cast("torch.Tensor", spectral)))
    scale = network.decoder.plan[-1][1]
    part = coarse[:, :, rows[0] // scale : -(-rows[1] // scale)]
    features = network.decoder.steps[-1](part, [spectral] if spectral is not None else [], scale)
    return cast("torch.Tensor", network.head(features))


def _is_pointwise(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding in {(0, 0), "valid"}
    return plain and conv.groups == 1


class Pointwise(nn.Module):
    """A convolution of single pixels as one matrix product over channels-last memory."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().flatten(1).contiguous(), requires_grad=False)
        bias = conv.bias.detach().clone() if conv.bias is not None else None
        self.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        pixels = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        return functional.linear(pixels, self.weight, self.bias).permute(0, 3, 1, 2)


class FastSurroundings(nn.Module):
    """Means over 3, 5 and 9 pixels from sums that grow out of each other, rows first, then columns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels of ``x`` float [chip, band, row, col], as :func:`pipeline.model.surroundings.surroundings`."""
        rows, cols = x.shape[-2:]
        padded = functional.pad(x, (REACH_PX,) * 4).contiguous(memory_format=torch.channels_last)
        down = _sums(padded, rows, axis=-2)
        means = [_sums(down[size], cols, axis=-1, most=size)[size].div_(size * size) for size in MEANS]
        square = _sums(padded.square(), rows, axis=-2, most=DEVIATION)[DEVIATION]
        square = _sums(square, cols, axis=-1, most=DEVIATION)[DEVIATION].div_(DEVIATION * DEVIATION)
        mean = means[MEANS.index(DEVIATION)]
        spread = square.addcmul_(mean, mean, value=-1.0).clamp_min_(0.0).add_(_FLOOR).sqrt_()
        return torch.cat([x, *means, spread], dim=1)


def _sums(x: torch.Tensor, length: int, *, axis: int, most: int = max(MEANS)) -> dict[int, torch.Tensor]:
    """Width of MEANS -> sums of so many neighbours along an axis that is padded by REACH_PX on both sides."""
    total = x.narrow(axis, REACH_PX, length)
    found: dict[int, torch.Tensor] = {}
    for reach in range(1, most // 2 + 1):
        before, after = (x.narrow(axis, REACH_PX + offset, length) for offset in (-reach, reach))
        # What was found before is kept: a new tensor for the next width that is wanted, in place otherwise.
        total = total + before if reach == 1 or 2 * reach - 1 in found else total.add_(before)
        total.add_(after)
        if 2 * reach + 1 in MEANS:
            found[2 * reach + 1] = total
    return found
