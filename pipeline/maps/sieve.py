"""Minimum mapping unit: patches too small to count take the code of their largest neighbour, class by class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from rasterio.features import sieve as gdal_sieve

from pipeline.errors import ConfigError
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.grid import Grid
    from pipeline.legend import ClassScheme

# Patches are removed from small to large, each round four times larger: noise first merges into what it lies in, so
# that a cluster of small patches is not left over because every neighbour is small too.
_GROWTH = 4


def minimum_pixels(
    grid: Grid, scheme: ClassScheme, *, mmu_ha: float = 0.0, class_mmu_ha: Mapping[str, float] | None = None
) -> dict[int, int]:
    """Smallest patch that is kept, in pixels, by code: no smaller patch reaches the unit on any row of the grid.

    Args:
        grid: The map's grid.
        scheme: Its classes.
        mmu_ha: Minimum mapping unit in ha.
        class_mmu_ha: Other units for some classes, by name.

    Raises:
        ConfigError: a unit is negative, or a class is unknown.
    """
    own = dict(class_mmu_ha or {})
    unknown = sorted(set(own) - set(scheme.names))
    if unknown:
        raise ConfigError(
            f"minimum mapping unit of unknown class {', '.join(unknown)}", expected=", ".join(scheme.names)
        )
    if min([mmu_ha, *own.values()]) < 0:
        raise ConfigError("minimum mapping unit in ha", got=min([mmu_ha, *own.values()]), expected="0 or more")
    smallest_ha = grid.pixel_area_range_ha[0]
    # The small subtraction keeps a unit of exactly n pixels from becoming n + 1 by rounding.
    return {c.code: max(1, math.ceil(own.get(c.name, mmu_ha) / smallest_ha - 1e-6)) for c in scheme.classes}


def sieve_codes(codes: NDArray[np.uint8], minimum_px: Mapping[int, int]) -> NDArray[np.uint8]:
    """Codes uint8 [row, col] in which patches (4-connected) below their class's minimum have joined a neighbour.

    Nodata neither joins nor is joined: a small patch alone in nodata stays, as dropping it would unsay an observation.
    """
    units = sorted({size for size in minimum_px.values() if size > 1})
    if not units:
        return codes
    # Without a mask GDAL needs a byte less per pixel.
    seen = None if codes.all() else (codes != NODATA).view(np.uint8)
    current = codes
    for unit in units:
        sieved = _sieve_up_to(current, unit, seen)
        table = np.zeros(256, dtype=np.bool_)
        table[[code for code, size in minimum_px.items() if size >= unit]] = True
        # Patches of classes with a smaller unit were removed only as long as this unit was looked at.
        current = sieved if table[list(minimum_px)].all() else np.where(table[current], sieved, current)
    return current


def _sieve_up_to(codes: NDArray[np.uint8], unit: int, seen: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    size = 2
    while size < unit:
        codes = gdal_sieve(codes, size, mask=seen, connectivity=4)
        size *= _GROWTH
    result: NDArray[np.uint8] = gdal_sieve(codes, unit, mask=seen, connectivity=4)
    return result
