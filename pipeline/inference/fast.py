"""The same network with less to do on a CPU: block by block where pixels stand alone, and quicker layers.

Most of a network's memory, and on a CPU much of its time, goes into what it does at full resolution: many channels,
little arithmetic. There pixels depend on their near neighbours only. So the coarse part is run on the whole tile, and
what is at full resolution on blocks of pixels whose channels stay in a core's own cache; a tile of a given memory is
several times larger, and its halo costs less. Outputs are those of the network that is replaced, to rounding. Written
for one thread per call: calls may run side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from pipeline.grid import Window
from pipeline.inference.fused import SurroundingSums, fuse_layers, scales
from pipeline.inference.pixels import PLANES, TileLayout
from pipeline.inference.tiles import cut
from pipeline.model.decoder import Decoder, SpectralPath
from pipeline.model.network import TINY, Ensemble, Network
from pipeline.model.surroundings import REACH_PX, Surroundings

# Pixels of a block. Measured on tiles of 1056 px, a core with 2 MB of its own: 0.73, 0.65, 0.56, 0.49 s per Mpx in
# float32 and 0.40, 0.31, 0.27, 0.24 in bfloat16 at 2048, 4096, 8192, 16384: a call costs something beside its pixels.
_BLOCK_PX = 16_384


def speed_up(network: nn.Module) -> nn.Module:
    """An ensemble (or one of its parts), already fused and in evaluation mode, made faster; it is taken over."""
    for module in list(network.modules()):
        if isinstance(module, Network) and module.columns is not None:
            if isinstance(cast("nn.Sequential", module.spectral)[0], Surroundings):
                _take_sums(cast("nn.Sequential", module.spectral), module.head)
        elif isinstance(module, SpectralPath) and isinstance(module[0], Surroundings):
            _take_sums(module, next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d)))
    if isinstance(network, Ensemble) and len(network.members) == 1:
        _take_temperature(network)
    fuse_layers(network)
    members = list(network.members) if isinstance(network, Ensemble) else []
    if members and all(_has_blocks(cast("Network", member)) for member in members):
        return BlockEnsemble(cast("Ensemble", network))
    return network


def tile_layout(network: nn.Module, dtype: torch.dtype) -> TileLayout:
    """Of chips that :func:`speed_up`'s network takes without a copy: sums over neighbours are of float32 planes."""
    if isinstance(network, BlockEnsemble) and network.sees_pixels:
        return PLANES
    return TileLayout(dtype, by_pixel=True)


def _take_sums(path: nn.Sequential, conv: nn.Conv2d) -> None:
    """Sums in the place of means in the first layer; their factors move into the convolution after it."""
    path[0] = SurroundingSums()
    factors = scales(conv.in_channels).to(conv.weight.dtype)
    conv.weight = nn.Parameter(conv.weight.detach() * factors[None, :, None, None], requires_grad=False)


def _take_temperature(ensemble: Ensemble) -> None:
    """A single member's temperature moves into the weights of its last layers."""
    member = cast("Network", ensemble.members[0])
    mixes = list(member.columns.mix) if member.columns is not None else []
    for parameter in [part for layer in (member.head, *mixes) for part in layer.parameters()]:
        parameter.data /= ensemble.temperature
    ensemble.temperature = 1.0


def _has_blocks(network: Network) -> bool:
    """Whether what is at full resolution can be computed block by block."""
    spec = network.spec
    if spec.head != "unet" or network.dropout.training:
        return False
    if network.decoder is None:
        return True
    stride, _, taken = network.decoder.plan[-1]
    return stride == 1 and not taken and spec.fuse_kernel == 1


class BlockEnsemble(nn.Module):
    """An ensemble whose full resolution is computed block by block."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble
        networks = self._networks
        self._scale = max([network.decoder.plan[-1][1] for network in networks if network.decoder is not None] + [1])
        self._stride = max(network.stride for network in networks)

    @property
    def _networks(self) -> list[Network]:
        return [cast("Network", member) for member in self.ensemble.members]

    @property
    def sees_pixels(self) -> bool:
        """Whether a member takes the bands at full resolution, beside or without an encoder."""
        return any(network.spectral is not None for network in self._networks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [chip, class, row, col] of the weights' type; ``x`` float32 or of that type.

        Sums over neighbours are taken in float32.
        """
        chips, _, rows, cols = x.shape
        dtype = self._networks[0].head.weight.dtype
        if rows % self._stride or cols % self._stride:
            whole: torch.Tensor = self.ensemble(x.to(dtype))  # tiles are whole strides
            return whole
        coarse = [_coarse(network, x, dtype) for network in self._networks]
        out = torch.empty((chips, self._networks[0].spec.classes, rows, cols), dtype=dtype, device=x.device)
        blocks = list(self._blocks(rows, cols))
        for chip in range(chips):
            own = slice(chip, chip + 1)
            features = [part[own] if part is not None else None for part in coarse]
            for block in blocks:
                sums: dict[Window, torch.Tensor] = {}
                found = [
                    _logits(network, x[own], part, block=block, sums=sums)
                    for network, part in zip(self._networks, features, strict=True)
                ]
                out[(own, slice(None), *block.slices)] = self._joined(found)
        return out

    def _blocks(self, rows: int, cols: int) -> Iterator[Window]:
        """Blocks of a tile, of whole coarse features: squares have the shortest edge to sum over neighbours beyond."""
        side = int(_BLOCK_PX**0.5) if self.sees_pixels else cols
        for col, width in cut(cols, side, self._scale):
            for row, height in cut(rows, _BLOCK_PX // width, self._scale):
                yield Window(row, col, height, width)

    def _joined(self, found: list[torch.Tensor]) -> torch.Tensor:
        """As :class:`pipeline.model.network.Ensemble` joins its members.

        Class by class in memory, and in place: a third of the time of a softmax over classes side by side.
        """
        if len(found) == 1:
            return found[0]  # its temperature is in the head
        values = self.ensemble.values
        mean, *others = (own if values else own.softmax(1) for own in (logits.contiguous().float() for logits in found))
        share, *shares = self.ensemble.shares
        mean.mul_(share)
        for other, share in zip(others, shares, strict=True):
            mean.add_(other, alpha=share)
        return mean if values else mean.clamp_min_(TINY).log_().div_(self.ensemble.temperature)


def _coarse(network: Network, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """What is joined block by block: the decoder's features before its last step, or scores of columns.

    Of the whole tile; None without an encoder.
    """
    if network.columns is not None:
        return network.context(by_pixel(x, dtype))
    if network.encoder is None or network.decoder is None:
        return None
    decoder: Decoder = network.decoder
    features: dict[int, torch.Tensor] = dict(enumerate(network.encoder(by_pixel(x, dtype))))
    # Each stage's features are handed over by the only ones who hold them, and free their memory once they are used.
    found = [features.pop(len(features) - 1)]
    for step, (_, scale, taken) in zip(list(decoder.steps)[:-1], decoder.plan[:-1], strict=True):
        found.append(step(found.pop(), [features.pop(i) for i in taken], scale))
    return found[0]


def _logits(
    network: Network, x: torch.Tensor, coarse: torch.Tensor | None, *, block: Window, sums: dict[Window, torch.Tensor]
) -> torch.Tensor:
    """Logits of a block of a tile ``x`` float [1, band, row, col]; members share their ``sums`` over neighbours."""
    seen = _spectral(network, x, block=block, sums=sums) if network.spectral is not None else None
    if network.columns is not None and coarse is not None:
        return cast("torch.Tensor", network.head(seen)) + coarse[(..., *block.slices)]
    if coarse is None or network.decoder is None:
        return cast("torch.Tensor", network.head(seen))
    scale = network.decoder.plan[-1][1]
    rows, cols = (slice(part.start // scale, -(-part.stop // scale)) for part in block.slices)
    features = network.decoder.steps[-1](coarse[:, :, rows, cols], [seen] if seen is not None else [], scale)
    return cast("torch.Tensor", network.head(features))


def _spectral(network: Network, x: torch.Tensor, *, block: Window, sums: dict[Window, torch.Tensor]) -> torch.Tensor:
    """What the spectral path makes of a block of a tile."""
    dtype = network.head.weight.dtype
    first, *layers = cast("nn.Sequential", network.spectral)
    reach = sum(kernel // 2 for kernel in network.spec.spectral_kernels)
    wide = block.expand(reach).intersect(Window(0, 0, *x.shape[-2:])) or block
    if isinstance(first, SurroundingSums):
        if wide not in sums:
            sums[wide] = first.within(_padded(x, wide.expand(REACH_PX)), dtype)
        found = sums[wide]
    else:
        found = first(by_pixel(x[(..., *wide.slices)], dtype))
    for layer in layers:
        found = layer(found)
    return by_pixel(found[(..., *block.relative_to(wide).slices)], dtype) if reach else found


def _padded(x: torch.Tensor, window: Window) -> torch.Tensor:
    """A window of a tile; 0 beyond it."""
    inside = window.intersect(Window(0, 0, *x.shape[-2:])) or window
    part = x[(..., *inside.slices)]
    beyond = (
        inside.col - window.col,
        window.col_stop - inside.col_stop,
        inside.row - window.row,
        window.row_stop - inside.row_stop,
    )
    return functional.pad(part, beyond) if any(beyond) else part


def by_pixel(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The same values in a type, channels of a pixel side by side in memory; no copy where they are."""
    if x.dtype == dtype and x.is_contiguous(memory_format=torch.channels_last):
        return x  # ``to`` would copy a chip whose batch has another stride, though it is the only one
    # In one step: two take eight times as long for ten bands in bfloat16.
    return x.to(dtype, memory_format=torch.channels_last)
