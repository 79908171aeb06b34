"""Chips in memory: the windows of the chip index, read once, standardised once.

With two cores every copy hurts: there are no loader workers, no files between reading and training, and a batch is one
slice. Memory grows with the number of chips, never with the scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.errors import InputError, LabelError
from pipeline.legend import IGNORE_INDEX
from pipeline.scenes.reader import open_reader
from pipeline.training.chips import LEARNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.model.preprocess import Preprocess
    from pipeline.splits.split import Split, TrainingScene
    from pipeline.training.chip_index import ChipIndex


@dataclass(frozen=True, eq=False)
class ChipSet:
    """Chips of one size with all that is known of their pixels."""

    x: torch.Tensor  # Standardised channels, float32 [chip, channel, row, col]; 0 where not valid
    valid: torch.Tensor  # bool [chip, row, col]
    # Network index of the class, uint8 [chip, row, col]; IGNORE_INDEX where unlabelled, not valid, or of a polygon that
    # is not in the parts asked for
    index: torch.Tensor
    polygon: torch.Tensor  # Polygon of each labelled pixel, int32 [chip, row, col]; 0 elsewhere
    key: torch.Tensor  # A number for each pixel, the same in every chip that holds it, int64 [chip, row, col]
    margin: int = 0  # Pixels on each side that are there for neighbourhoods only
    around: bool = True  # Surroundings of a pixel are features too; not of embeddings, which hold them

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
    scenes: Sequence[TrainingScene], index: ChipIndex,
    *, split: Split, preprocess: Preprocess, margin: int = 0,
) -> ChipSet:  # fmt: skip
    """The chips of an index, scene by scene, with the labels of the training and validation polygons.

    Args:
        scenes: Where to read; every scene of the index is among them, by id.
        index: The chips; what it does not name is not read.
        split: Which polygons belong to which part.
        preprocess: Standardises.
        margin: Further pixels on each side.

    Raises:
        InputError: a scene of the index that is not there.
        LabelError: no chip.
    """
    known = {scene.source.id: number for number, scene in enumerate(scenes)}
    missing = sorted({name for name, _ in index.windows()} - set(known))
    if missing:
        raise InputError(
            "chip index of other scenes", got=", ".join(missing), expected=", ".join(known), fix="make the chips again"
        )
    if not len(index):
        raise LabelError("no chip to learn from", fix="check the split and the labels")
    rows = []
    for name, number in known.items():
        scene = scenes[number]
        kept = scene.pixels.select(np.isin(split.part[scene.pixels.polygon], LEARNED))
        with open_reader(scene.source) as reader:
            for window in (window.expand(margin) for own, window in index.windows() if own == name):
                raster = reader.read(window)
                codes, polygons = kept.dense(window)
                indices = np.where(raster.valid, index.scheme.code_to_index[codes], np.uint8(IGNORE_INDEX))
                x = preprocess(raster.values, raster.valid)
                rows.append((x, raster.valid, indices, polygons, _keys(window, number)))
    valid, classes, polygon, key = (torch.from_numpy(np.stack([row[layer] for row in rows])) for layer in range(1, 5))
    return ChipSet(torch.stack([row[0] for row in rows]), valid, classes, polygon, key, margin)


def _keys(window: Window, scene: int) -> NDArray[np.int64]:
    """Scene, row and column in one integer; rows and columns beyond the grid are negative or large, never equal."""
    rows = np.arange(window.row, window.row_stop, dtype=np.int64)[:, None] + 2**20
    cols = np.arange(window.col, window.col_stop, dtype=np.int64)[None, :] + 2**20
    return np.asarray((np.int64(scene) << 42) + (rows << 21) + cols)
