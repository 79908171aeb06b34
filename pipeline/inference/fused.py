"""Layers that give what the model's layers give, quicker on a CPU: convolutions with what follows them, and sums.

On a CPU that multiplies in tiles (AMX) or in wide vectors the passes that only add and clamp cost as much as the
convolutions: in bfloat16 a third of a ResNet-18 U-Net's time. oneDNN does them while a convolution's result is still in
registers (its "post-ops"); torch has operators for that, which its compiler uses. Where they are missing, or do not
give what the plain operators give, the plain ones are called.

Source: https://uxlfoundation.github.io/oneDNN/dev_guide_attributes_post_ops.html
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional

from pipeline.model.decoder import Step
from pipeline.model.efficientnet import MobileBlock
from pipeline.model.encoder import Block
from pipeline.model.surroundings import DEVIATION, FLOOR, LEVELS, MEANS, REACH_PX

# Values of a buffer, 1 MB: a few of them stay in a processor's cache. Smaller ones are quicker for one thread and
# slower for two side by side, which then wait for each other between calls that take some microseconds each.
_GROUP_VALUES = 262_144
# What follows a convolution, in oneDNN's words: swish is SiLU.
Follows = Literal["none", "relu", "swish"]
_LAYERS: dict[type[nn.Module], Follows] = {nn.ReLU: "relu", nn.SiLU: "swish"}


class FusedConv(nn.Module):
    """A convolution, the sum with another tensor if one is given, and what follows: nothing, a ReLU, or a SiLU."""

    def __init__(self, conv: nn.Conv2d, *, follows: Follows = "none") -> None:
        super().__init__()
        self.follows: Follows = follows
        weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        bias = conv.bias.detach().clone() if conv.bias is not None else torch.zeros(conv.out_channels)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.steps = (list(cast("tuple[int, ...]", conv.padding)), list(conv.stride), list(conv.dilation), conv.groups)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Float [chip, channel, row, col]; ``added`` has the shape and the memory format of the result."""
        run = _fused if x.device.type == "cpu" and fused_works(x.dtype) else _plain
        return run(self, x, added)


def _plain(layer: FusedConv, x: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
    (padding, stride, dilation, groups), follows = layer.steps, layer.follows
    out = functional.conv2d(
        x, layer.weight, layer.bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    if added is not None:
        out = out.add_(added)
    if follows == "none":
        return out
    return functional.relu_(out) if follows == "relu" else functional.silu(out, inplace=True)


def _fused(layer: FusedConv, x: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
    operator = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001 - the compiler's own; checked by fused_works
    if added is None:
        out = operator(x, layer.weight, layer.bias, *layer.steps, layer.follows, [], "")
    else:
        after = None if layer.follows == "none" else layer.follows
        out = operator.binary(x, added, layer.weight, layer.bias, *layer.steps, "add", 1.0, after, [], None)
    return cast("torch.Tensor", out)


@cache
def fused_works(dtype: torch.dtype) -> bool:
    """Whether torch's fused operators exist for the type on this CPU and do what the plain ones do."""
    generator = torch.Generator().manual_seed(0)
    x, added, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((1, 4, 6, 5), (1, 3, 6, 5), (3, 4, 3, 3), (3,))
    )
    x, added = (item.contiguous(memory_format=torch.channels_last) for item in (x, added))
    conv = nn.utils.skip_init(nn.Conv2d, 4, 3, 3, padding=1)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    wide = copy.deepcopy(conv).float()
    asked: tuple[tuple[torch.Tensor | None, Follows], ...] = (
        (None, "none"), (None, "relu"), (None, "swish"), (added, "none"), (added, "relu"),
    )  # fmt: skip
    try:
        with torch.inference_mode():
            for other, follows in asked:
                found = _fused(FusedConv(conv, follows=follows), x, other).float()
                added_wide = other.float() if other is not None else None
                expected = _plain(FusedConv(wide, follows=follows), x.float(), added_wide)
                # bfloat16 has eight bits; a wrong operation is wrong by the size of the values.
                if not torch.allclose(found, expected, rtol=2e-2, atol=5e-2):
                    return False
    except (RuntimeError, AttributeError, TypeError):
        return False
    return True


class EvenPool(nn.Module):
    """Maxima of 3 x 3 pixels at every second one, the pooling of a ResNet's stem, for even sides.

    torch's own also notes where each maximum lies, in int64: 100 MB of the peak of mapping with a ResNet-18 U-Net.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col] -> [chip, channel, row / 2, col / 2]."""
        if x.shape[-2] % 2 or x.shape[-1] % 2:
            return functional.max_pool2d(x, 3, 2, 1)
        even, odd = x[..., 0::2, :], x[..., 1::2, :]
        tall = torch.maximum(even, odd)
        torch.maximum(tall[..., 1:, :], odd[..., :-1, :], out=tall[..., 1:, :])
        even, odd = tall[..., 0::2], tall[..., 1::2]
        found = torch.maximum(even, odd)
        torch.maximum(found[..., 1:], odd[..., :-1], out=found[..., 1:])
        return found


class FusedResidual(nn.Module):
    """A residual block (He et al. 2016) whose sum and ReLU belong to its last convolution."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        *before, last = (FusedConv(conv, follows="relu") for conv, _ in block.pairs())
        self.convs, self.last = nn.ModuleList(before), last
        shortcut = cast("nn.Conv2d", block.downsample[0]) if block.downsample is not None else None
        self.shortcut = FusedConv(shortcut) if shortcut is not None else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        shortcut = self.shortcut(x)
        for conv in self.convs:
            x = conv(x)
        return cast("torch.Tensor", self.last(x, shortcut))


class FusedMobile(nn.Module):
    """A block of an EfficientNet without gates (Tan & Le 2019): its SiLUs and its sum belong to its convolutions."""

    def __init__(self, block: MobileBlock) -> None:
        super().__init__()
        wide, each, last = block._expand_conv, block._depthwise_conv, block._project_conv  # noqa: SLF001 - published
        self.wide = FusedConv(wide, follows="swish") if wide is not None else nn.Identity()
        self.each = FusedConv(padded(each, block._pad), follows="swish")  # noqa: SLF001
        self.last, self.adds = FusedConv(last), block.adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float [chip, channel, row, col]."""
        inside = self.each(self.wide(x))
        return cast("torch.Tensor", self.last(inside, x if self.adds else None))


def padded(conv: nn.Conv2d, pad: nn.Module) -> nn.Conv2d:
    """A convolution that pads as ``pad`` did before it, by the same number of rows as of columns.

    Where fewer zeros come before than after, its kernel begins with rows and columns of zeros. Padding by itself took a
    fifth of the time of an EfficientNet-B4's first three stages: it writes what it pads anew.
    """
    if not isinstance(pad, nn.ZeroPad2d):
        return conv
    before, after = pad.padding[:2]
    found = copy.deepcopy(conv)
    found.padding = (after, after)
    weight = functional.pad(conv.weight.detach(), (after - before, 0) * 2)
    found.weight = nn.Parameter(weight, requires_grad=False)
    found.kernel_size = cast("tuple[int, int]", tuple(weight.shape[-2:]))
    return found


class FusedStep(nn.Module):
    """A decoder step: the sum with the finest skip and the ReLU belong to that skip's convolution.

    Without a skip the ReLU goes before the upsampling, which changes no value and has fewer to look at.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        last = len(step.mix) - 1
        mixes = [
            FusedConv(cast("nn.Conv2d", conv), follows="relu" if number == last else "none")
            for number, conv in enumerate(step.mix)
        ]
        self.mix = nn.ModuleList(mixes)
        self.conv = step.conv

    def forward(self, coarse: torch.Tensor, skips: Sequence[torch.Tensor], scale: int) -> torch.Tensor:
        """As :class:`pipeline.model.decoder.Step`."""
        x = self.mix[0](coarse)
        del coarse  # the caller may hold it no longer
        if scale > 1:
            x = functional.interpolate(x, scale_factor=float(scale), mode="nearest")
        for mix, skip in zip(list(self.mix)[1:], skips, strict=True):
            x = mix(skip, x)
        return cast("torch.Tensor", self.conv(x))


def fuse_layers(network: nn.Module) -> None:
    """Replace, in place, convolutions and pooling of a network in evaluation mode whose batch norms are folded."""
    for name, child in list(network.named_children()):
        if isinstance(child, Block) and all(isinstance(norm, nn.Identity) for _, norm in child.pairs()):
            network.add_module(name, FusedResidual(child))
        elif isinstance(child, MobileBlock) and not child.gated and isinstance(child._bn2, nn.Identity):  # noqa: SLF001
            network.add_module(name, FusedMobile(child))
        elif isinstance(child, Step) and isinstance(child.norm, nn.Identity):
            fuse_layers(child)
            network.add_module(name, FusedStep(child))
        elif isinstance(child, nn.MaxPool2d) and (child.kernel_size, child.stride, child.padding) == (3, 2, 1):
            network.add_module(name, EvenPool())
        elif isinstance(child, nn.Conv2d) and not isinstance(network, Step):
            conv = padded(child, _taken_before(network, name))
            network.add_module(name, FusedConv(conv, follows=_taken_after(network, name)))
        elif not isinstance(child, nn.ModuleList) or not isinstance(network, Step):
            fuse_layers(child)


def _taken_before(parent: nn.Module, name: str) -> nn.Module:
    """The padding before the convolution ``name`` in a sequence, which is taken out of the sequence; else nothing."""
    layers = list(parent.named_children())
    position = [own for own, _ in layers].index(name)
    if not (isinstance(parent, nn.Sequential) and position and isinstance(layers[position - 1][1], nn.ZeroPad2d)):
        return nn.Identity()
    before, pad = layers[position - 1]
    parent.add_module(before, nn.Identity())
    return pad


def _taken_after(parent: nn.Module, name: str) -> Follows:
    """What follows the convolution ``name`` in a sequence; a ReLU or SiLU is taken out of the sequence then."""
    if not isinstance(parent, nn.Sequential):
        return "none"
    layers = list(parent.named_children())
    position = [own for own, _ in layers].index(name)
    for after, layer in layers[position + 1 :]:
        if type(layer) in _LAYERS:
            parent.add_module(after, nn.Identity())
            return _LAYERS[type(layer)]
        if not isinstance(layer, nn.Identity):
            return "none"
    return "none"


def scales(channels: int) -> torch.Tensor:
    """What the channels of :class:`SurroundingSums` are to be multiplied with, float32 [channel]."""
    areas = (1, *(size * size for size in MEANS), DEVIATION * DEVIATION)
    return torch.tensor([1.0 / area for area in areas]).repeat_interleave(channels // LEVELS)


class SurroundingSums(nn.Module):
    """The surroundings of :func:`pipeline.model.surroundings.surroundings`, times window sizes: see :func:`scales`.

    Sums along columns, then along rows; what several windows share is added once. A few bands at a time, so that
    what is added to is still in the cache.
    """

    def forward(self, x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Channels in channels-last memory, float [chip, 5 * band, row, col] of ``dtype``, by default that of ``x``."""
        return self.within(functional.pad(x, (REACH_PX,) * 4), dtype or x.dtype)

    def within(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The same of all pixels of ``x`` but the outer REACH_PX on each side, which are only summed."""
        chips, bands = x.shape[:2]
        rows, cols = (side - 2 * REACH_PX for side in x.shape[-2:])
        out = torch.empty(
            (chips, LEVELS * bands, rows, cols), dtype=dtype, device=x.device, memory_format=torch.channels_last
        )
        group = max(_GROUP_VALUES // (x.shape[-2] * x.shape[-1]), 1)
        planes = torch.empty((LEVELS, bands, rows, cols), dtype=dtype, device=x.device)
        for chip, made in zip(x, out, strict=True):
            for first in range(0, bands, group):
                some = slice(first, first + group)
                _levels(chip[some].float(), planes[:, some])
            # A plain transposition, which torch does block by block.
            made.permute(1, 2, 0).view(rows * cols, -1).copy_(planes.view(LEVELS * bands, -1).T)
        return out


def _levels(x: torch.Tensor, out: torch.Tensor) -> None:
    """Levels [level, band, row, col] of a few bands float32 [band, row, col], which reach REACH_PX farther."""
    rows, cols = out.shape[-2:]
    three = _sum(x, range(3), size=rows + 6, axis=-2)  # centred on the rows from the fourth before to ...
    middle = three[:, 3 : 3 + rows]
    five = middle + x[:, 2 : 2 + rows]
    five.add_(x[:, 6 : 6 + rows])
    nine = _sum(three, (0, 3, 6), size=rows, axis=-2)
    out[0].copy_(x[:, REACH_PX : REACH_PX + rows, REACH_PX : REACH_PX + cols])
    sums = _sum(middle, range(3, 6), size=cols)
    out[1].copy_(sums)
    out[2].copy_(_sum(five, range(2, 7), size=cols))
    out[3].copy_(_sum(_sum(nine, range(3), size=cols + 6), (0, 3, 6), size=cols))
    squares = _sum(x[:, 3 : 5 + rows].square(), range(3), size=rows, axis=-2)
    # The deviation is the root of the mean square less the squared mean: here times 9, under the root times 81.
    spread = _sum(squares, range(3, 6), size=cols).mul_(9.0).addcmul_(sums, sums, value=-1.0)
    out[4].copy_(spread.clamp_min_(0.0).add_(81.0 * FLOOR).sqrt_())


def _sum(x: torch.Tensor, starts: Iterable[int], *, size: int, axis: int = -1) -> torch.Tensor:
    """The sum of the pieces of ``size`` along an axis that start there."""
    first, second, *more = (x.narrow(axis, start, size) for start in starts)
    total = first + second
    for part in more:
        total.add_(part)
    return total
