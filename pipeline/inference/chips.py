"""Tiles as the network takes them: read, scaled and standardised strip by strip.

A tile's digital numbers, their values and the standardised ones are each as large as the tile; in strips two of the
three are small, stay in the cache, and reuse the memory of the strip before instead of asking the system for new pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.grid import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.model.preprocess import Preprocess
    from pipeline.scenes.reader import Reader

# Pixels of a strip: ten bands of them in float32 are 5 MB.
READ_PX = 131_072


def read_chip(reader: Reader, window: Window, preprocess: Preprocess) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    """The network's input of a window, which may reach beyond the grid.

    Returns:
        float32 [channel, row, col], 0 where not valid; and what is valid, bool [row, col].

    Raises:
        SceneError: the scene cannot be read there.
    """
    chip = torch.empty((preprocess.channels, *window.shape))
    valid = np.empty(window.shape, dtype=np.bool_)
    step = max(READ_PX // window.width, 1)
    for top in range(0, window.height, step):
        height = min(step, window.height - top)
        raster = reader.read(Window(window.row + top, window.col, height, window.width))
        chip[:, top : top + height] = preprocess(raster.values, raster.valid)
        valid[top : top + height] = raster.valid
    return chip, valid
