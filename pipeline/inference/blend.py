"""From scores to codes, confidence and what else is asked for; and tiles blended where they overlap.

Cropping writes each tile's inner part. Hann blending (Pielawski & Waehlby 2020, "Introducing Hann windows for reducing
edge-effects in patch-based image segmentation") averages the probabilities of neighbouring tiles over their halos with
raised-cosine weights, over bands of rows: no more than one row of tiles is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.grid import Window
from pipeline.legend import NODATA
from pipeline.maps.style import PERCENT_NODATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.inference.tiles import Tile

# Rows that are turned into classes at once: scores of so many rows stay in the cache (measured: 77 ns per pixel with 9
# classes on one AVX2 core, against 140 to 160 for a whole tile).
_CHUNK_ROWS = 32


@dataclass(frozen=True)
class Products:
    """Which layers are made besides codes and confidence."""

    probabilities: bool = False
    entropy: bool = False
    margin: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers that are made."""
        extra = [name for name in ("probabilities", "entropy", "margin") if getattr(self, name)]
        return ("codes", "confidence", *extra)


def classify(
    scores: torch.Tensor,
    valid: NDArray[np.bool_],
    *,
    index_to_code: NDArray[np.uint8],
    products: Products,
    are_logits: bool = True,
) -> dict[str, NDArray[np.uint8]]:
    """Layers of one window.

    Args:
        scores: Logits (or probabilities) of any floating type [class, row, col], on any device.
        valid: bool [row, col]; elsewhere codes are nodata and percentages 255.
        index_to_code: Lookup table uint8 [256].
        products: Which layers.
        are_logits: Whether ``scores`` still need a softmax.

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
        part = scores[:, rows].float().contiguous()
        for name, layer in _decide(part, table, products, are_logits=are_logits).items():
            out[name][..., rows, :] = layer
    arrays = {name: layer.cpu().numpy() for name, layer in out.items()}
    if not valid.all():
        blank = ~valid
        for name, array in arrays.items():
            array[..., blank] = NODATA if name == "codes" else PERCENT_NODATA
    return arrays


def _decide(
    scores: torch.Tensor, table: torch.Tensor, products: Products, *, are_logits: bool
) -> dict[str, torch.Tensor]:
    """Layers uint8 of scores float32 [class, row, col]."""
    probabilities = scores.softmax(0) if are_logits else scores
    best, index = probabilities.max(0)
    made = {"codes": table[index], "confidence": _percent(best)}
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


def hann_profile(*, inner: int, halo: int) -> NDArray[np.float32]:
    """Weights float32 [halo + inner + halo] along one axis: 1 inside, raised cosines of length 2 x halo at both ends.

    The weights of neighbours sum to 1 where they overlap, and are positive everywhere.
    """
    if halo == 0:
        return np.ones(inner, dtype=np.float32)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(2 * halo) + 0.5) / (2 * halo))
    profile = np.ones(inner + 2 * halo)
    profile[: 2 * halo] *= ramp[: len(profile)]
    profile[-2 * halo :] *= ramp[::-1][-len(profile) :]
    return profile.astype(np.float32)


@dataclass
class Band:
    """Rows that are finished: probabilities float32 [class, row, col], valid bool [row, col], and where they are."""

    window: Window
    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]


class HannBlender:
    """Adds up weighted probabilities of tiles, row of tiles by row of tiles, and gives rows back when they are final.

    Args:
        rows_of_tiles: The tiles of the whole grid, by row.
        shape: (height, width) of the grid.
        classes: Number of classes.
    """

    def __init__(self, rows_of_tiles: Sequence[Sequence[Tile]], *, shape: tuple[int, int], classes: int) -> None:
        self._rows = rows_of_tiles
        self._height, self._width = shape
        tallest = max(tile.read.height for row in rows_of_tiles for tile in row)
        self._sum = np.zeros((classes, tallest, self._width), dtype=np.float32)
        self._weight = np.zeros((tallest, self._width), dtype=np.float32)
        self._valid = np.zeros((tallest, self._width), dtype=np.bool_)
        self._top = 0

    def first_row(self, row: int) -> int:
        """The first row of pixels that is not final before row ``row`` of tiles is added."""
        return 0 if row == 0 else max(self._rows[row][0].read.row, 0)

    def start(self, row: int) -> int:
        """Begin with the pixels that row ``row`` of tiles makes final or leaves open; those above are not kept.

        Returns:
            The first row of tiles that reaches them: rows are to be added from there. It is the one above, or, where
            tiles are lower than two halos (cuts are even, the last one takes what remains), one further up.
        """
        self._top = self.first_row(row)
        return next(number for number, tiles in enumerate(self._rows) if tiles[0].read.row_stop > self._top)

    def add(self, tile: Tile, probabilities: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add probabilities float32 [class, row, col] of a tile's read window; ``valid`` bool [row, col]."""
        halo = tile.write.row - tile.read.row
        bounds = Window(self._top, 0, min(self._weight.shape[0], self._height - self._top), self._width)
        inside = tile.read.intersect(bounds)
        if inside is None:
            return
        weight = np.outer(
            _edge_profile(tile.read.height, halo=halo),
            _edge_profile(tile.read.width, halo=halo),
        )
        source, target = inside.relative_to(tile.read).slices, inside.relative_to(bounds).slices
        self._sum[(slice(None), *target)] += probabilities[(slice(None), *source)] * weight[source]
        self._weight[target] += weight[source]
        self._valid[target] |= valid[source]

    def finish(self, row: int) -> Band | None:
        """The rows that no later tile reaches, after the last tile of row ``row``; None where there are none."""
        stop = self.first_row(row + 1) if row + 1 < len(self._rows) else self._height
        count = stop - self._top
        if count <= 0:
            return None
        weight = self._weight[:count]
        seen = weight > 0
        probabilities = np.divide(self._sum[:, :count], np.where(seen, weight, 1.0), dtype=np.float32)
        band = Band(Window(self._top, 0, count, self._width), probabilities, self._valid[:count] & seen)
        for store in (self._sum, self._weight, self._valid):
            kept = store.shape[-2] - count
            store[..., :kept, :] = store[..., count:, :].copy()
            store[..., kept:, :] = 0
        self._top = stop
        return band


def _edge_profile(length: int, *, halo: int) -> NDArray[np.float32]:
    return hann_profile(inner=length - 2 * halo, halo=halo)
