"""What is measured on pieces of a scene before it is mapped: the halo, the agreement of number types, and time.

In theory a ResNet reaches hundreds of pixels; in effect most of the weight lies near (Luo et al. 2016, "Understanding
the effective receptive field in deep convolutional neural networks"). So a block of the scene is mapped with all its
context and again with less and less of it, and the pixels that change their class are counted.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING

from pipeline.errors import SceneError
from pipeline.grid import Window
from pipeline.inference.memory import SAMPLE_PX
from pipeline.inference.pixels import read_tile

if TYPE_CHECKING:
    import torch

    from pipeline.inference.engine import Engine
    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

log = logging.getLogger(__name__)

# Halos that are tried, in strides of the network.
STRIDES_TRIED = (1, 2, 3, 4, 6, 8)
# Share of a map's pixels that may depend on where the tiles are cut; the project's goal is 5e-4 between two tilings,
# each of which has its own.
LARGEST_SHARE = 1.5e-4
# Values that differ by less than so many of the samples' standard deviations are the same for a map: a twentieth of
# what tells places apart. A guess.
ALIKE = 0.05
_BLOCKS_PER_SAMPLE = 4
# Places of windows along an axis, from the middle outwards, as shares of the room.
_PLACES = (0.5, 0.25, 0.75, 0.0, 1.0, 0.4, 0.6, 0.1, 0.9)
# Pieces that ranges of "int8" are taken from, and their side: spread over the scene, other pixels than most of those
# that its agreement is measured on.
_RANGE_SAMPLES, _RANGE_SAMPLE_PX = 4, 256


def sample_of(bundle: ModelBundle, source: Source, stride: int) -> torch.Tensor:
    """A piece of the scene with many valid pixels, standardised: float32 [1, band, row, col].

    Raises:
        SceneError: the scene has no pixels, or cannot be read.
    """
    best: torch.Tensor | None = None
    most = -1
    with source.select(bundle.bands).open() as reader:
        for window in _windows(source, SAMPLE_PX, stride):
            tile, valid = read_tile(reader, window, bundle.preprocess)
            count = int(valid.sum())
            if count > most:
                best, most = tile[None], count
            if count > valid.size // 2:
                break
    if best is None:
        raise SceneError("scene has no pixels", path=source.path)
    return best


def range_samples(bundle: ModelBundle, source: Source, stride: int) -> list[torch.Tensor]:
    """The pieces with the most valid pixels, standardised: float32 [1, band, row, col] each."""
    found = []
    with source.select(bundle.bands).open() as reader:
        for window in _windows(source, _RANGE_SAMPLE_PX, stride):
            tile, valid = read_tile(reader, window, bundle.preprocess)
            found.append((int(valid.sum()), tile[None]))
    found.sort(key=lambda pair: -pair[0])
    return [tile for _, tile in found[:_RANGE_SAMPLES]]


def _windows(source: Source, side_px: int, stride: int) -> list[Window]:
    """Windows of whole strides from the middle outwards."""
    shape = source.grid.shape
    side = max(min(side_px, max(shape)) // stride, 1) * stride
    starts = [[int(max(size - side, 0) * place) // stride * stride for size in shape] for place in _PLACES]
    return [Window(row, col, side, side) for row, col in starts]


def class_agreement(engine: Engine, other: Engine, sample: torch.Tensor) -> float:
    """Share of the sample's pixels, 0..1, to which two engines give the same class."""
    return 1 - float(_differ(engine(sample), other(sample), values=False).float().mean())


def _differ(one: torch.Tensor, other: torch.Tensor, *, values: bool) -> torch.Tensor:
    """Where scores [chip, class, ...] give another class, or raw channels of ``values`` another value: bool."""
    found = (one[:, 0] - other[:, 0]).abs() > ALIKE if values else one.argmax(1) != other.argmax(1)
    return found.cpu()


def effective_halo_px(
    engine: Engine, sample: torch.Tensor, *, stride_px: int, tile_px: int, values: bool = False
) -> int:
    """The smallest halo, in whole strides, at which tiles of ``tile_px`` hardly change the map.

    The map is of classes, or of ``values``. Four blocks are tried where the sample has the halo on all sides of all of
    them, else the one in the middle.

    ``sample`` is a piece of the scene, standardised float32 [1, band, row, col], a multiple of the stride long. Pixels
    along the borders of tiles count by their share of the tile.
    """
    side = min(sample.shape[-2:])
    block = max(side // _BLOCKS_PER_SAMPLE // stride_px, 1) * stride_px
    full = engine(sample)
    for strides in STRIDES_TRIED:
        halo = strides * stride_px
        starts = _starts(side, block=block, stride=stride_px, halo=halo)
        if not starts:
            break
        changed = 0
        for row, col in itertools.product(starts, starts):
            seen = sample[..., row - halo : row + block + halo, col - halo : col + block + halo]
            own = engine(seen.contiguous())[..., halo : halo + block, halo : halo + block]
            changed += int(_differ(own, full[..., row : row + block, col : col + block], values=values).sum())
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


def tile_seconds(bundle: ModelBundle, source: Source, engine: Engine, *, window: Window) -> float:
    """Seconds of a core to read a tile, and run the network on it; once everything is warm."""
    with source.select(bundle.bands).open() as reader:
        read_tile(reader, window, bundle.preprocess)
    seconds = 0.0
    for _ in range(2):
        start, busy = time.perf_counter(), time.process_time()
        # A reader of its own: blocks that are decoded already would be had for nothing.
        with source.select(bundle.bands).open() as reader:
            tile, _ = read_tile(reader, window, bundle.preprocess)
        engine(tile[None]).argmax(1).cpu()
        # JPEG 2000 is decoded on all cores; a remote file and a GPU keep none busy.
        seconds = max(time.perf_counter() - start, time.process_time() - busy)
    return seconds
