"""What the network makes of chosen pixels: features before the head, for PCA, t-SNE and the area of applicability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

_TILE_PX = 256
# Context around a tile; more than the default network's effective reach.
_HALO_PX = 32


def pixel_features(
    bundle: ModelBundle, source: Source, pixels: LabelledPixels
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Features of labelled pixels, as the last member's head sees them.

    Args:
        bundle: The model.
        source: A scene with the model's bands.
        pixels: Labelled pixels of that scene; only where they are is used.

    Returns:
        float32 [pixel, feature], and the positions intp [pixel] of the valid ones among ``pixels``.
    """
    network = bundle.members[-1].eval()
    parts, positions = [], []
    with source.select(bundle.bands).open() as reader, torch.inference_mode():
        for tile in source.grid.tiles(_TILE_PX):
            position = pixels.within(tile)
            if not len(position):
                continue
            read = tile.expand(_HALO_PX)
            raster = reader.read(read)
            rows, cols = pixels.row[position] - read.row, pixels.col[position] - read.col
            usable = raster.valid[rows, cols]
            found = network.features(bundle.preprocess(raster.values, raster.valid)[None])[0].float().numpy()
            parts.append(found[:, rows[usable], cols[usable]].T)
            positions.append(position[usable])
    if not parts:
        return np.empty((0, network.features_out), dtype=np.float32), np.empty(0, dtype=np.intp)
    return np.concatenate(parts), np.concatenate(positions)
