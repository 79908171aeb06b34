"""The same network with less to do on a CPU: strip by strip where pixels stand alone, and quicker layers.

Most of a network's memory, and on a CPU much of its time, goes into what it does at full resolution: many channels,
little arithmetic. There pixels depend on their near neighbours only. So the coarse part is run on the whole tile, and
what is at full resolution on strips of rows, and in them on blocks of pixels whose channels stay in a core's own cache;
a tile of a given memory is several times larger, and its halo costs less. Outputs are those of the network that is
replaced, to rounding. Written for one thread per call: calls may run side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from pipeline.model.network import TINY, Ensemble, Network
from pipeline.model.surroundings import DEVIATION, LEVELS, MEANS, REACH_PX, Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.model.decoder import Decoder

# Added under the root, as in pipeline.model.surroundings.
_FLOOR = 1e-6
# Pixels of a strip, and its rows at least: its own halo of REACH_PX rows is read twice.
_STRIP_PX = 32_768
_STRIP_ROWS = 32
# Pixels of a block: 128 channels of them fit into a core's own cache.
_BLOCK_PX = 2048


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
        networks = self._networks
        self._scale = max([network.decoder.plan[-1][1] for network in networks if network.decoder is not None] + [1])
        self._stride = max(network.stride for network in networks)

    @property
    def _networks(self) -> list[Network]:
        return [cast("Network", member) for member in self.ensemble.members]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [chip, class, row, col] of the weights' type; ``x`` float32 or of that type, plane by plane in memory.

        Sums over neighbours are taken in the type of ``x``.
        """
        chips, _, rows, cols = x.shape
        dtype = self._networks[0].head.weight.dtype
        if rows % self._stride or cols % self._stride:
            whole: torch.Tensor = self.ensemble(x.to(dtype))  # tiles are whole strides
            return whole
        coarse = [_coarse(network, x.to(dtype)) for network in self._networks]
        out = torch.empty((chips, self._networks[0].spec.classes, rows, cols), dtype=dtype, device=x.device)
        step = _whole_steps(max(_STRIP_PX // cols, _STRIP_ROWS), self._scale)
        for chip in range(chips):
            own = slice(chip, chip + 1)
            features = [part[own] if part is not None else None for part in coarse]
            for top in range(0, rows, step):
                self._strip(x[own], features, rows=(top, min(top + step, rows)), out=out[own])
        return out

    def _strip(
        self, x: torch.Tensor, coarse: list[torch.Tensor | None], *, rows: tuple[int, int], out: torch.Tensor
    ) -> None:
        """Logits of rows ``rows`` of one chip into ``out``."""
        top, stop = rows
        inputs = [_channels(network, x, rows=rows, dtype=out.dtype) for network in self._networks]
        step = _whole_steps(_BLOCK_PX // x.shape[-1], self._scale)
        for start in range(top, stop, step):
            end = min(start + step, stop)
            found = [
                _logits(
                    network, seen[:, :, start - top : end - top] if seen is not None else None, features, (start, end)
                )
                for network, seen, features in zip(self._networks, inputs, coarse, strict=True)
            ]
            out[:, :, start:end] = self._joined(found)

    def _joined(self, found: list[torch.Tensor]) -> torch.Tensor:
        """As :class:`pipeline.model.network.Ensemble` joins its members."""
        if len(found) == 1:
            return found[0] / self.ensemble.temperature
        mean = torch.zeros((), device=found[0].device)
        for logits, share in zip(found, self.ensemble.shares, strict=True):
            mean = mean + share * logits.float().softmax(1)
        return mean.clamp_min(TINY).log() / self.ensemble.temperature


def _whole_steps(rows: int, scale: int) -> int:
    """At least one row of the coarse features, and whole ones."""
    return max(rows // scale, 1) * scale


def _coarse(network: Network, x: torch.Tensor) -> torch.Tensor | None:
    """The decoder's features before its last step, of the whole tile; None without an encoder."""
    if network.encoder is None or network.decoder is None:
        return None
    decoder: Decoder = network.decoder
    features = network.encoder(x.contiguous(memory_format=torch.channels_last))
    found: torch.Tensor = features[-1]
    for step, (_, scale, taken) in zip(list(decoder.steps)[:-1], decoder.plan[:-1], strict=True):
        found = step(found, [features[i] for i in taken], scale)
    return found


def _channels(network: Network, x: torch.Tensor, *, rows: tuple[int, int], dtype: torch.dtype) -> torch.Tensor | None:
    """What the spectral path makes of rows ``rows`` of ``x`` before pixels stand alone; None without such a path."""
    if network.spectral is None:
        return None
    reach = _spectral_reach(network)
    above, below = max(rows[0] - reach, 0), min(rows[1] + reach, x.shape[2])
    found = x[:, :, above:below]
    for layer in _parts(network.spectral)[0]:
        found = layer(found if isinstance(layer, FastSurroundings) else found.to(dtype))
    return found[:, :, rows[0] - above : rows[1] - above].to(dtype)


def _logits(
    network: Network, seen: torch.Tensor | None, coarse: torch.Tensor | None, rows: tuple[int, int]
) -> torch.Tensor:
    """Logits of rows ``rows`` of a tile from what :func:`_channels` gives for them."""
    if network.spectral is not None:
        for layer in _parts(network.spectral)[1]:
            seen = layer(seen)
    if coarse is None or network.decoder is None:
        return cast("torch.Tensor", network.head(seen))
    scale = network.decoder.plan[-1][1]
    part = coarse[:, :, rows[0] // scale : -(-rows[1] // scale)]
    features = network.decoder.steps[-1](part, [seen] if seen is not None else [], scale)
    return cast("torch.Tensor", network.head(features))


def _parts(path: nn.Sequential) -> tuple[list[nn.Module], list[nn.Module]]:
    """The layers up to the last that looks at neighbours, and those after it."""
    layers = list(path)
    wide = [i for i, layer in enumerate(layers) if not _stands_alone(layer)]
    cut = wide[-1] + 1 if wide else 0
    return layers[:cut], layers[cut:]


def _stands_alone(layer: nn.Module) -> bool:
    return not any(isinstance(part, FastSurroundings | nn.Conv2d) for part in layer.modules())


def _spectral_reach(network: Network) -> int:
    if network.spectral is None:
        return 0
    return sum(kernel // 2 for kernel in network.spec.spectral_kernels) + (REACH_PX if network.spec.surroundings else 0)


def _is_pointwise(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding in {(0, 0), "valid"}
    return plain and conv.groups == 1


class Pointwise(nn.Module):
    """A convolution of single pixels as one matrix product, over planes or over channels-last memory."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().flatten(1).contiguous(), requires_grad=False)
        bias = conv.bias.detach().clone() if conv.bias is not None else torch.zeros(conv.out_channels)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        if len(x) == 1 and x.stride(-1) == 1:
            planes = torch.addmm(self.bias[:, None], self.weight, x[0].flatten(1))
            return planes.view(1, -1, *x.shape[2:])
        pixels = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        return functional.linear(pixels, self.weight, self.bias).permute(0, 3, 1, 2)


class FastSurroundings(nn.Module):
    """Means over 3, 5 and 9 pixels from sums along columns, then rows, written side by side."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels of ``x`` float [chip, band, row, col], as :func:`pipeline.model.surroundings.surroundings`."""
        bands = x.shape[1]
        out = torch.empty((len(x), LEVELS * bands, *x.shape[2:]), dtype=x.dtype, device=x.device)
        levels = [out[:, i * bands : (i + 1) * bands] for i in range(LEVELS)]
        levels[0].copy_(x)
        padded = functional.pad(x, (REACH_PX,) * 4)
        for level, size in zip(levels[1:-1], MEANS, strict=True):
            _box(padded, size, out=level)
        spread, mean = levels[-1], levels[1 + MEANS.index(DEVIATION)]
        _box(padded.square_(), DEVIATION, out=spread)
        spread.addcmul_(mean, mean, value=-1.0).clamp_min_(0.0).add_(_FLOOR).sqrt_()
        return out


def _box(x: torch.Tensor, size: int, *, out: torch.Tensor) -> None:
    """Means over windows of ``size`` pixels; ``x`` is padded by REACH_PX on all sides."""
    _sums(_sums(x, size, axis=-2), size, axis=-1, out=out)
    out.div_(size * size)


def _sums(x: torch.Tensor, size: int, *, axis: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """Sums of ``size`` neighbours along an axis that is padded by REACH_PX on both sides."""
    length, first = x.shape[axis] - 2 * REACH_PX, REACH_PX - size // 2
    if size % 9:
        return _added(x, range(first, first + size), length=length, axis=axis, out=out)
    threes = _added(x, range(3), length=x.shape[axis] - 2, axis=axis)
    return _added(threes, range(first, first + size, 3), length=length, axis=axis, out=out)


def _added(
    x: torch.Tensor, starts: Iterable[int], *, length: int, axis: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """The sum of the pieces of ``length`` that start there."""
    first, second, *more = (x.narrow(axis, start, length) for start in starts)
    total = torch.add(first, second, out=out)
    for part in more:
        total.add_(part)
    return total
