"""Pieces of a scene that engines and halo are tried on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import SceneError
from pipeline.grid import Window

if TYPE_CHECKING:
    import torch

    from pipeline.model.bundle import ModelBundle
    from pipeline.scenes.scene import Source

SAMPLE_PX = 512
# So many windows are looked at for one with enough valid pixels.
_TRIES = 9
# Pieces that ranges of "int8" are taken from, and their side: spread over the scene, other pixels than most of those
# that its agreement is measured on.
_RANGE_SAMPLES, _RANGE_SAMPLE_PX = 4, 256


def sample_of(bundle: ModelBundle, source: Source, stride: int) -> torch.Tensor:
    """A piece of the scene with many valid pixels, standardised: float32 [1, band, row, col]."""
    best: torch.Tensor | None = None
    most = -1
    windows = _windows(source, SAMPLE_PX, stride)
    with source.select(bundle.bands).open() as reader:
        for window in windows:
            raster = reader.read(window)
            count = int(raster.valid.sum())
            if count > most:
                best, most = bundle.preprocess(raster.values, raster.valid)[None], count
            if count > raster.valid.size // 2:
                break
    if best is None:
        raise SceneError("scene has no pixels", path=source.path)
    return best


def range_samples(bundle: ModelBundle, source: Source, stride: int) -> list[torch.Tensor]:
    """The pieces with the most valid pixels, standardised: float32 [1, band, row, col] each."""
    found = []
    with source.select(bundle.bands).open() as reader:
        for window in _windows(source, _RANGE_SAMPLE_PX, stride):
            raster = reader.read(window)
            found.append((int(raster.valid.sum()), bundle.preprocess(raster.values, raster.valid)[None]))
    found.sort(key=lambda pair: -pair[0])
    return [chips for _, chips in found[:_RANGE_SAMPLES]]


def _windows(source: Source, side_px: int, stride: int) -> list[Window]:
    """Windows of whole strides from the middle outwards."""
    grid = source.grid
    side = max(min(side_px, max(grid.shape)) // stride, 1) * stride
    starts = [[_spread(number, size, side, stride) for size in grid.shape] for number in range(_TRIES)]
    return [Window(row, col, side, side) for row, col in starts]


def _spread(number: int, size: int, side: int, stride: int) -> int:
    """Starts of windows from the middle outwards, in whole strides."""
    room = max(size - side, 0)
    share = (0.5, 0.25, 0.75, 0.0, 1.0, 0.4, 0.6, 0.1, 0.9)[number]
    return int(room * share) // stride * stride
