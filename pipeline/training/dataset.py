"""Chips in memory: windows around labelled pixels and windows spread over the scene, read once, standardised once.

With two cores every copy hurts: there are no loader workers, no files between reading and training, and a batch is one
slice. Memory grows with the number of chips, never with the scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.errors import LabelError
from pipeline.grid import Window
from pipeline.legend import IGNORE_INDEX
from pipeline.scenes.reader import open_reader
from pipeline.training.cutter import centres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.legend import ClassScheme
    from pipeline.model.preprocess import Preprocess
    from pipeline.scenes.scene import Source
    from pipeline.splits.split import Part, Split


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """A scene to learn from and its labelled pixels, on the scene's own grid."""

    source: Source
    pixels: LabelledPixels

    def __post_init__(self) -> None:
        """Refuse labels of another grid."""
        if not self.source.grid.same_pixels_as(self.pixels.grid):
            raise LabelError("labels were burned on another grid than the scene's", path=self.source.path)


@dataclass(frozen=True, eq=False)
class ChipSet:
    """Chips of one size with all that is known of their pixels.

    Attributes:
        x: Standardised channels, float32 [chip, channel, row, col]; 0 where not valid.
        valid: bool [chip, row, col].
        index: Network index of the class, uint8 [chip, row, col]; IGNORE_INDEX where unlabelled, not valid, or of a
            polygon that is not in the parts asked for.
        polygon: Polygon of each labelled pixel, int32 [chip, row, col]; 0 elsewhere.
        key: A number for each pixel, the same in every chip that holds it, int64 [chip, row, col].
        margin: Pixels on each side that are there for neighbourhoods only.
    """

    x: torch.Tensor
    valid: torch.Tensor
    index: torch.Tensor
    polygon: torch.Tensor
    key: torch.Tensor
    margin: int = 0

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.x)

    def only(self, ids: NDArray[np.int32]) -> torch.Tensor:
        """``index`` with every polygon that is not in ``ids`` made unlabelled, uint8 [chip, row, col]."""
        keep = torch.from_numpy(np.isin(self.polygon.numpy(), ids))
        return torch.where(keep, self.index, torch.full_like(self.index, IGNORE_INDEX))

    def once(self) -> torch.Tensor:
        """Valid pixels without margin, bool [chip, row, col]; of a pixel that several chips hold only the first."""
        valid = self.core(self.valid)
        at = torch.nonzero(valid.flatten()).flatten()
        _, first = np.unique(self.core(self.key).flatten()[at].numpy(), return_index=True)
        once = torch.zeros(valid.numel(), dtype=torch.bool)
        once[at[torch.from_numpy(first)]] = True
        return once.reshape(valid.shape)

    def core(self, layer: torch.Tensor) -> torch.Tensor:
        """A layer [chip, ..., row, col] without its margin."""
        m = self.margin
        return layer[..., m : layer.shape[-2] - m, m : layer.shape[-1] - m] if m else layer


def read_chips(
    scenes: Sequence[TrainingScene],
    *,
    split: Split,
    parts: Sequence[Part],
    scheme: ClassScheme,
    preprocess: Preprocess,
    chip_px: int,
    labelled: int,
    unlabelled: int,
    seed: int,
    margin: int = 0,
    spacing_px: int | None = None,
) -> ChipSet:
    """Chips centred on polygons of ``parts``, and chips anywhere.

    Of more places than ``labelled`` those are taken that leave no polygon without a chip, then no class behind.

    Args:
        scenes: Where to read.
        split: Which polygons belong to which part.
        parts: Parts whose labels are kept; those of all others are unlabelled here.
        scheme: Gives class codes their network index.
        preprocess: Standardises.
        chip_px: Side without margin.
        labelled: Most chips around labels, over all scenes.
        unlabelled: Chips of those that tile the scenes, drawn at random over all of them; at most all.
        seed: Of the choice.
        margin: Further pixels on each side.
        spacing_px: Distance of chips within a polygon; half a chip by default.
    """
    rng = np.random.default_rng(seed)
    ids = np.flatnonzero(np.isin(split.part, [int(part) for part in parts]))
    kept = [scene.pixels.select(np.isin(scene.pixels.polygon, ids)) for scene in scenes]
    spacing = spacing_px or max(chip_px // 2, 1)
    windows = _around(kept, chip_px=chip_px, spacing_px=spacing, most=labelled, rng=rng)
    windows += _anywhere([scene.source.grid.shape for scene in scenes], chip_px=chip_px, count=unlabelled, rng=rng)
    if not any(len(part) for part in kept):
        raise LabelError("no labelled pixel to learn from", fix="check the split and the labels")
    rows = []
    for number, scene in enumerate(scenes):
        with open_reader(scene.source) as source_reader:
            for at, row, col in windows:
                if at == number:
                    window = Window(row, col, chip_px, chip_px).expand(margin)
                    raster = source_reader.read(window)
                    codes, polygons = kept[number].dense(window)
                    indices = np.where(raster.valid, scheme.code_to_index[codes], np.uint8(IGNORE_INDEX))
                    x = preprocess(raster.values, raster.valid)
                    rows.append((x, raster.valid, indices, polygons, _keys(window, number)))
    valid, index, polygon, key = (torch.from_numpy(np.stack([row[layer] for row in rows])) for layer in range(1, 5))
    return ChipSet(torch.stack([row[0] for row in rows]), valid, index, polygon, key, margin)


def _keys(window: Window, scene: int) -> NDArray[np.int64]:
    """Scene, row and column in one integer; rows and columns beyond the grid are negative or large, never equal."""
    rows = np.arange(window.row, window.row_stop, dtype=np.int64)[:, None] + 2**20
    cols = np.arange(window.col, window.col_stop, dtype=np.int64)[None, :] + 2**20
    return np.asarray((np.int64(scene) << 42) + (rows << 21) + cols)


def _around(
    pixels: Sequence[LabelledPixels], *, chip_px: int, spacing_px: int, most: int, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """(scene, row, col) of chips centred on polygons, one per polygon and cell of ``spacing_px``; at most ``most``."""
    places, polygons, codes = [], [], []
    for number, part in enumerate(pixels):
        for position in centres(part, stride_px=spacing_px) if len(part) else ():
            row, col = int(part.row[position]) - chip_px // 2, int(part.col[position]) - chip_px // 2
            places.append((number, row, col))
            polygons.append(int(part.polygon[position]))
            codes.append(int(part.code[position]))
    order = rng.permutation(len(places))
    turn = turns(np.array(polygons)[order]) * 1_000_000 + turns(np.array(codes)[order]) if places else order
    chosen = order[np.argsort(turn, kind="stable")][:most]
    return [places[i] for i in sorted(chosen)]


def turns(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """For each item, how many equal ones come before it.

    >>> turns(np.array([7, 7, 3, 7])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(labels)), 0))
    turns = np.empty(len(labels), dtype=np.int64)
    turns[order] = np.arange(len(labels)) - start
    return turns


def _anywhere(
    shapes: Sequence[tuple[int, int]], *, chip_px: int, count: int, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """(scene, row, col) of ``count`` chips, drawn from those that tile the scenes; of small scenes all of them.

    Chips at places drawn freely overlap and leave out a third of a scene of their area. The last row and column of
    chips are moved back into the scene.
    """
    wide = [max(-(-width // chip_px), 1) for _, width in shapes]
    cells = np.array([max(-(-height // chip_px), 1) * cols for (height, _), cols in zip(shapes, wide, strict=True)])
    total = int(cells.sum())
    drawn = np.sort(rng.choice(total, size=min(count, total), replace=False))
    scene = np.searchsorted(np.cumsum(cells), drawn, side="right")
    cell = drawn - (np.cumsum(cells) - cells)[scene]
    return [
        (
            int(at),
            min(int(number) // wide[at] * chip_px, max(shapes[at][0] - chip_px, 0)),
            min(int(number) % wide[at] * chip_px, max(shapes[at][1] - chip_px, 0)),
        )
        for at, number in zip(scene, cell, strict=True)
    ]
