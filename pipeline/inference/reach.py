"""How much context a pixel's class depends on, measured: the halo that tiles need and no more.

In theory a ResNet reaches hundreds of pixels; in effect most of the weight lies near (Luo et al. 2016, "Understanding
the effective receptive field in deep convolutional neural networks"). So a block of the scene is mapped with all its
context and again with less and less of it, and the pixels that change their class are counted.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pipeline.inference.engine import Engine

log = logging.getLogger(__name__)

# Halos that are tried, in strides of the network.
STRIDES_TRIED = (1, 2, 3, 4, 6, 8)
# Share of a map's pixels that may depend on where the tiles are cut; the project's goal is 5e-4 between two tilings,
# each of which has its own.
LARGEST_SHARE = 1.5e-4
_BLOCKS_PER_SAMPLE = 4


def effective_halo_px(engine: Engine, sample: torch.Tensor, *, stride_px: int, tile_px: int) -> int:
    """The smallest halo, in whole strides, at which tiles of ``tile_px`` hardly change the map.

    Four blocks are tried where the sample has the halo on all sides of all of them, else the one in the middle.

    Args:
        engine: Runs the network.
        sample: A piece of the scene, standardised float32 [1, band, row, col]; a multiple of the stride long.
        stride_px: Total stride of the network.
        tile_px: Side of the tiles: pixels along their borders count by their share of the tile.
    """
    side = min(sample.shape[-2:])
    block = max(side // _BLOCKS_PER_SAMPLE // stride_px, 1) * stride_px
    whole = engine(sample)[0].argmax(0).cpu()
    for strides in STRIDES_TRIED:
        halo = strides * stride_px
        starts = _starts(side, block=block, stride=stride_px, halo=halo)
        if not starts:
            break
        changed = 0
        for row, col in itertools.product(starts, starts):
            seen = sample[..., row - halo : row + block + halo, col - halo : col + block + halo]
            own = engine(seen.contiguous())[0, :, halo : halo + block, halo : halo + block].argmax(0).cpu()
            changed += int((own != whole[row : row + block, col : col + block]).sum())
        # Changes happen along the border: their share falls as tiles grow.
        share = changed / (4 * block * len(starts) ** 2) * 4 / tile_px
        log.info("halo %d px: share of pixels that depend on the tiles %.1e", halo, share)
        if share <= LARGEST_SHARE:
            return halo
    return STRIDES_TRIED[-1] * stride_px


def _starts(side: int, *, block: int, stride: int, halo: int) -> list[int]:
    """Where blocks start along an axis: two side by side around the middle, one where only that fits, or none."""
    two, one = (side - 2 * block) // 2 // stride * stride, (side - block) // 2 // stride * stride
    if two >= halo:
        return [two, two + block]
    return [one] if one >= halo else []
