"""Two maps against one reference raster, on every pixel where all three have a class; memory for a strip of rows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.confusion import ErrorMatrix
from pipeline.accuracy.pixels import CODES, class_areas, grid_of, open_class_map, read_codes, strips
from pipeline.accuracy.slots import open_slots
from pipeline.accuracy.strata import aligned
from pipeline.accuracy.translate import codes_of_values
from pipeline.accuracy.wall_to_wall import census, census_figures
from pipeline.errors import ReferenceDataError
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.accuracy.estimates import Figures
    from pipeline.accuracy.framing import Framing
    from pipeline.legend import ClassScheme


@dataclass(frozen=True, eq=False)
class OnEveryPixel:
    """What two maps say where both and the reference have a class.

    Attributes:
        figures: Of the first and of the second map, on the same pixels.
        framing: That they are no sample, in words.
        area_ha: Area of these pixels.
        right_px: int64 [first is right, second is right], 0 wrong and 1 right.
        right_ha: float64, the same as areas.
    """

    figures: tuple[Figures, Figures]
    framing: Framing
    area_ha: float
    right_px: NDArray[np.int64]
    right_ha: NDArray[np.float64]


def compare_on_raster(
    first: Path | str,
    second: Path | str,
    reference: Path | str,
    *,
    scheme: ClassScheme,
    crosswalk: Mapping[str, str] | None = None,
) -> OnEveryPixel:
    """Agreement of two maps with a reference raster; second map and reference come to the first's pixels (nearest).

    Raises:
        ReferenceDataError: no pixel has a class in all three.
        LegendError: values of the reference that lead to no class of the maps.
        SceneError: a raster cannot be read.
    """
    tables = _Tables(len(scheme))
    index = np.zeros(CODES, dtype=np.uint8)  # 0 for no class, k + 1 for class k
    index[list(scheme.codes)] = np.arange(1, len(scheme) + 1)
    with ExitStack() as stack:
        one = stack.enter_context(open_class_map(first))
        grid = grid_of(one)
        two = aligned(stack.enter_context(open_class_map(second)), grid, stack)
        three = stack.enter_context(open_slots(reference, grid))
        target = np.zeros(1, dtype=np.uint8)
        for window in strips(grid, one.block_shapes[0][0]):
            slots = three.read(window)
            if len(three.values) >= len(target):
                found = codes_of_values(reference, three.values, scheme=scheme, crosswalk=crosswalk)
                target = index[np.concatenate([[NODATA], np.maximum(found, NODATA)])]
            flat = grid.pixel_areas_ha(window)
            area = None if flat.size == 1 else np.broadcast_to(flat, window.shape).ravel()
            tables.add(index[read_codes(one, window)], index[read_codes(two, window)], target[slots], area)
        flat_ha = None if area is not None else float(flat[0, 0])
    pixels, areas = tables.split(flat_ha)
    count, area_ha = int(pixels[0].sum()), float(areas[0].sum())
    if not count:
        raise ReferenceDataError("no pixel has a class in both maps and in the reference", path=reference)
    figures = [census_figures(ErrorMatrix(scheme.names, pixels[k], areas[k] / area_ha)) for k in (0, 1)]
    share = area_ha / float(class_areas(first)[1][NODATA + 1 :].sum())
    framing = census(count, share, rasters="both maps and in the reference")
    return OnEveryPixel((figures[0], figures[1]), framing, area_ha, pixels[2], areas[2])


class _Tables:
    """Pixels, and on geographic grids areas, of three tables: first x reference, second x reference, right x right."""

    def __init__(self, classes: int) -> None:
        self._shapes = ((classes, classes), (classes, classes), (2, 2))
        self._pixels = [np.zeros(rows * cols, dtype=np.int64) for rows, cols in self._shapes]
        self._areas = [np.zeros(rows * cols) for rows, cols in self._shapes]

    def add(
        self,
        first: NDArray[np.uint8],
        second: NDArray[np.uint8],
        truth: NDArray[np.uint8],
        area_ha: NDArray[np.float64] | None,
    ) -> None:
        """Count the pixels of a window [row, col] that have a class (k + 1) in all three."""
        known = ((first > 0) & (second > 0) & (truth > 0)).ravel()
        a, b, r = (part.ravel()[known] - np.uint8(1) for part in (first, second, truth))
        weights = None if area_ha is None else area_ha[known]
        pairs = ((a, r), (b, r), ((a == r).astype(np.uint8), (b == r).astype(np.uint8)))
        for number, (row, column) in enumerate(pairs):
            cell = row.astype(np.int32) * self._shapes[number][1] + column
            size = len(self._pixels[number])
            self._pixels[number] += np.bincount(cell, minlength=size)
            if weights is not None:
                self._areas[number] += np.bincount(cell, weights=weights, minlength=size)

    def split(self, pixel_ha: float | None) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]]]:
        """The tables in pixels and in ha; ``pixel_ha`` where all pixels have one area."""
        pixels = [part.reshape(shape) for part, shape in zip(self._pixels, self._shapes, strict=True)]
        if pixel_ha is not None:
            return pixels, [np.asarray(part * pixel_ha, dtype=np.float64) for part in pixels]
        return pixels, [part.reshape(shape) for part, shape in zip(self._areas, self._shapes, strict=True)]
