"""What the network makes of pixels: features before the heads, and scores; of chosen pixels or of scenes by tiles.

For PCA, t-SNE, calibration and the area of applicability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.model.network import Network, fuse_for_inference
from pipeline.model.reach import whole_cells

if TYPE_CHECKING:
    from pipeline.grid import Window
    from pipeline.labels.rasterise import LabelledPixels
    from pipeline.model.bundle import ModelBundle
    from pipeline.raster import Raster
    from pipeline.scenes.scene import Source

    Run = Callable[[torch.Tensor], torch.Tensor]

_TILE_PX = 256
# Context around a tile; more than the default network's effective reach.
_HALO_PX = 32


def network_features(
    bundle: ModelBundle, source: Source, pixels: LabelledPixels
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Features of labelled pixels, as the members' heads see them, one member after the other.

    ``source`` has the model's bands; of ``pixels`` only where they are is used.

    Returns:
        float32 [pixel, feature], and the positions intp [pixel] of the valid ones among ``pixels``.
    """
    width = sum(member.features_out for member in bundle.members)
    trunks = _trunks(bundle)
    return _at_pixels(bundle, source, pixels, run=lambda chip: torch.cat([run(chip) for run in trunks], 1), width=width)


def pixel_logits(
    bundle: ModelBundle, source: Source, pixels: LabelledPixels
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Scores of labelled pixels, divided by the model's temperature: the map's probabilities are their softmax.

    Returns:
        float32 [pixel, class] in the order of the legend, and the positions intp [pixel] of the valid ones.
    """
    return _at_pixels(bundle, source, pixels, run=bundle.network(fused=True), width=len(bundle.scheme))


def feature_weights(bundle: ModelBundle) -> NDArray[np.float64]:
    """Weights float64 [feature] with which standardised features count as much as their member does in the map.

    A member with share s and n features gives each the weight sqrt(s / n): its squared distances then have the mean s,
    however many features it has.
    """
    total = sum(bundle.shares)
    return np.concatenate([
        np.full(member.features_out, np.sqrt(share / total / member.features_out))
        for member, share in zip(bundle.members, bundle.shares, strict=True)
    ])  # fmt: skip


def feature_tiles(
    bundle: ModelBundle, source: Source, *, wanted: Callable[[Window], bool] | None = None
) -> Iterator[tuple[Window, NDArray[np.float32], NDArray[np.bool_]]]:
    """Features of a whole scene, tile by tile: memory does not grow with the scene.

    A pixel's features are those that :func:`network_features` gives it; tiles for which ``wanted`` says no are not
    read.

    Yields:
        Window inside the grid; float32 [feature, row, col] of it; bool [row, col], True where the scene is valid.
        Tiles without a valid pixel are left out.
    """
    tile_px, halo = whole_cells(bundle.specs, tile_px=_TILE_PX, halo_px=_HALO_PX)
    inner = (..., slice(halo, None), slice(halo, None))
    trunks = _trunks(bundle)
    with source.select(bundle.bands).open() as reader:
        for tile in source.grid.tiles(tile_px):
            if wanted is not None and not wanted(tile):
                continue
            raster = reader.read(tile.expand(halo))
            valid = raster.valid[inner][: tile.height, : tile.width]
            if not valid.any():
                continue
            with torch.inference_mode():
                chip = _chip(bundle, raster)
                parts = [run(chip)[0][inner][..., : tile.height, : tile.width].float().numpy() for run in trunks]
            yield tile, np.concatenate(parts), valid


def _trunks(bundle: ModelBundle) -> list[Run]:
    """The members without their heads, fused for speed."""
    return [cast("Network", fuse_for_inference(member)).features for member in bundle.members]


def _chip(bundle: ModelBundle, raster: Raster) -> torch.Tensor:
    """Input of the networks, float32 [1, band, row, col]."""
    return bundle.preprocess(raster.values, raster.valid)[None].contiguous(memory_format=torch.channels_last)


def _at_pixels(
    bundle: ModelBundle, source: Source, pixels: LabelledPixels, *, run: Run, width: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """What ``run`` makes of the tiles that hold ``pixels``, float32 [pixel, channel], and which of them are valid."""
    parts, positions = [], []
    tile_px, halo = whole_cells(bundle.specs, tile_px=_TILE_PX, halo_px=_HALO_PX)
    with source.select(bundle.bands).open() as reader, torch.inference_mode():
        for tile in source.grid.tiles(tile_px):
            position = pixels.within(tile)
            if not len(position):
                continue
            read = tile.expand(halo)
            raster = reader.read(read)
            rows, cols = pixels.row[position] - read.row, pixels.col[position] - read.col
            usable = raster.valid[rows, cols]
            found = run(_chip(bundle, raster))[0].float().numpy()
            parts.append(found[:, rows[usable], cols[usable]].T)
            positions.append(position[usable])
    if not parts:
        return np.empty((0, width), dtype=np.float32), np.empty(0, dtype=np.intp)
    return np.concatenate(parts), np.concatenate(positions)
