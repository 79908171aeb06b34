"""A tile's pixels before and after the network: read and standardised strip by strip, and decided row by row.

A tile's digital numbers, their values and the standardised ones are each as large as the tile; in strips two of the
three are small, stay in the cache, and reuse the memory of the strip before instead of asking the system for new pages.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pipeline.grid import Window
from pipeline.legend import NODATA
from pipeline.maps.style import PERCENT_NODATA

if TYPE_CHECKING:
    from pipeline.inference.settings import Products
    from pipeline.maps.look import Glimpse
    from pipeline.model.preprocess import Preprocess
    from pipeline.quantity import Quantity
    from pipeline.scenes.reader import Reader

# Pixels of a strip: ten bands of them in float32 are 5 MB.
READ_PX = 131_072
# Rows that are turned into classes at once: scores of so many rows stay in the cache (measured: 77 ns per pixel with 9
# classes on one AVX2 core, against 140 to 160 for a whole tile).
_CHUNK_ROWS = 32


@dataclass(frozen=True)
class TileLayout:
    """How an engine takes tiles without copying them."""

    dtype: torch.dtype = torch.float32  # Type of the values
    # Whether the channels of a pixel lie side by side in memory (channels-last), not plane by plane
    by_pixel: bool = False

    def shape(self, memory: torch.Tensor, channels: int, height: int, width: int) -> torch.Tensor:
        """A tile [channel, row, col] in the first values of ``memory``, which is flat."""
        flat = memory[: channels * height * width]
        if self.by_pixel:
            return flat.view(height, width, channels).permute(2, 0, 1)
        return flat.view(channels, height, width)

    def empty(self, channels: int, height: int, width: int) -> torch.Tensor:
        """An empty tile [channel, row, col]."""
        return self.shape(torch.empty(channels * height * width, dtype=self.dtype), channels, height, width)


PLANES = TileLayout()


class Buffers:
    """Memory of tiles, used again for the next tile; for any number of threads.

    A tile of some 20 MB that is freed stays with the C library, beside what is allocated meanwhile. Measured on
    ``landcover predict`` of 10980 x 10980 pixels, ResNet-18 U-Net: 37 MB (bfloat16) and 66 MB (float32) less.
    """

    def __init__(self, layout: TileLayout, *, largest: int) -> None:
        self.layout, self._largest = layout, largest
        self._free: deque[torch.Tensor] = deque()

    def take(self) -> torch.Tensor:
        """Memory for a tile, flat."""
        try:
            return self._free.pop()
        except IndexError:
            return torch.empty(self._largest, dtype=self.layout.dtype)

    def give(self, memory: torch.Tensor) -> None:
        """Give back what nobody reads any more."""
        self._free.append(memory)


def read_tile(
    reader: Reader,
    window: Window,
    preprocess: Preprocess,
    *,
    out: torch.Tensor | None = None,
    glimpse: Glimpse | None = None,
) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    """The network's input of a window, which may reach beyond the grid.

    The tile [channel, row, col] is put into ``out``, of any type, or into new float32 planes; ``glimpse`` gets what was
    read, for a picture of the scene.

    Returns:
        The tile, 0 where not valid; and what is valid, bool [row, col].

    Raises:
        SceneError: the scene cannot be read there.
    """
    tile = PLANES.empty(preprocess.channels, *window.shape) if out is None else out
    valid = np.empty(window.shape, dtype=np.bool_)
    step = max(READ_PX // window.width, 1)
    for top in range(0, window.height, step):
        height = min(step, window.height - top)
        strip = Window(window.row + top, window.col, height, window.width)
        raster = reader.read(strip)
        if glimpse is not None:
            glimpse.add(raster, strip)
        tile[:, top : top + height] = preprocess(raster.values, raster.valid)
        valid[top : top + height] = raster.valid
    return tile, valid


def classify(
    scores: torch.Tensor, valid: NDArray[np.bool_], *, index_to_code: NDArray[np.uint8], products: Products
) -> dict[str, NDArray[np.uint8]]:
    """Layers of one window.

    ``scores`` are logits of any floating type [class, row, col], on any device; where ``valid``, bool [row, col], is
    False codes are nodata and percentages 255. ``index_to_code`` is a lookup table uint8 [256].

    Returns:
        "codes" uint8 [row, col], "confidence" uint8 [row, col] in percent, "probabilities" uint8 [class, row, col] in
        percent, "entropy" in percent of log K, "margin" in percent.
    """
    shape = tuple(scores.shape[1:])
    table = torch.from_numpy(index_to_code).to(scores.device)
    out = {name: torch.empty(shape, dtype=torch.uint8, device=scores.device) for name in products.layers}
    if products.probabilities:
        out["probabilities"] = torch.empty(tuple(scores.shape), dtype=torch.uint8, device=scores.device)
    step = _CHUNK_ROWS if scores.device.type == "cpu" else shape[0]
    for start in range(0, shape[0], step):
        rows = slice(start, start + step)
        part = scores[:, rows].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, layer in _decide(part, table, products).items():
            out[name][..., rows, :] = layer
    arrays = {name: layer.cpu().numpy() for name, layer in out.items()}
    if not valid.all():
        blank = ~valid
        for name, array in arrays.items():
            array[..., blank] = NODATA if name == "codes" else PERCENT_NODATA
    return arrays


def value_layers(scores: torch.Tensor, valid: NDArray[np.bool_], *, quantity: Quantity) -> dict[str, NDArray[Any]]:
    """Layers of one window of a continuous target.

    ``scores`` are raw outputs of any floating type [CHANNELS, row, col] (``pipeline.model.quantiles``), on any device;
    where ``valid``, bool [row, col], is False codes are nodata and values NaN. The bounds hold the value between them.

    Returns:
        "codes" uint8 [row, col], value classes; "values" float32 [value, lower, upper; row; col] in the unit.
    """
    shape = tuple(scores.shape[1:])
    values = torch.empty((3, *shape), dtype=torch.float32, device=scores.device)
    codes = torch.empty(shape, dtype=torch.uint8, device=scores.device)
    edges = torch.tensor(quantity.edges, device=scores.device, dtype=torch.float32)
    step = _CHUNK_ROWS if scores.device.type == "cpu" else shape[0]
    for start in range(0, shape[0], step):
        rows = slice(start, start + step)
        part = scores[:, rows].float()
        found = values[:, rows]
        found[0] = part[0]
        torch.sub(part[1], functional.softplus(part[2]), out=found[1])
        torch.add(part[1], functional.softplus(part[3]), out=found[2])
        torch.minimum(found[1], part[0], out=found[1])
        torch.maximum(found[2], part[0], out=found[2])
        _in_unit(found, quantity)
        codes[rows] = 1
        for edge in edges:
            codes[rows] += found[0] >= edge
    out = {"codes": codes.cpu().numpy(), "values": values.cpu().numpy()}
    if not valid.all():
        out["codes"][~valid] = NODATA
        out["values"][:, ~valid] = np.nan
    return out


def _in_unit(standard: torch.Tensor, quantity: Quantity) -> None:
    """:meth:`pipeline.quantity.Quantity.inverse`, in place."""
    standard.mul_(quantity.deviation).add_(quantity.mean)
    if quantity.transform == "log":
        standard.clamp_(max=88.0).exp_().sub_(quantity.offset)  # exp of more is no float32
    elif quantity.transform == "sqrt":
        standard.clamp_(min=0.0).square_()
    if quantity.low is not None or quantity.high is not None:
        standard.clamp_(quantity.low, quantity.high)


def _decide(scores: torch.Tensor, table: torch.Tensor, products: Products) -> dict[str, torch.Tensor]:
    """Layers uint8 of scores float32 [class, row, col], which are written over."""
    exponentials = scores.sub_(scores.amax(0)).exp_()
    total = exponentials.sum(0)
    # The best class is the first whose exponential is 1. Found so in a twentieth of the time of torch's argmax.
    ranks = torch.arange(len(scores), 0, -1, dtype=scores.dtype, device=scores.device)[:, None, None]
    index = len(scores) - (exponentials.floor() * ranks).amax(0).long()
    made = {"codes": torch.take(table, index), "confidence": _percent(1.0 / total)}
    if not (products.probabilities or products.entropy or products.margin):
        return made
    probabilities = exponentials / total
    if products.probabilities:
        made["probabilities"] = _percent(probabilities)
    if products.entropy:
        # A single class has no uncertainty, and log K is 0.
        most = np.log(max(len(scores), 2))
        made["entropy"] = _percent(torch.special.entr(probabilities).sum(0) / most)
    if products.margin:
        two = probabilities.topk(min(2, len(scores)), dim=0).values
        made["margin"] = _percent(two[0] - two[1] if len(two) > 1 else two[0])
    return made


def _percent(share: torch.Tensor) -> torch.Tensor:
    return (share * 100.0).round_().clamp_(0, 100).to(torch.uint8)
