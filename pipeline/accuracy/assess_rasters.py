"""Maps against a reference raster on every pixel, strip by strip: memory does not grow with the maps."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.assess_design import AssumedDesign
from pipeline.accuracy.assess_estimators import CENSUS, ClassFigures, ErrorMatrix, Estimate, Figures
from pipeline.accuracy.assess_frame import Frame
from pipeline.accuracy.class_maps import (
    CODES,
    aligned,
    class_areas,
    grid_of,
    open_class_map,
    open_slots,
    read_codes,
    strips,
)
from pipeline.accuracy.crosswalk import codes_of_values
from pipeline.errors import ReferenceDataError
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.legend import ClassScheme

# A share above it is written as 100.0 %.
_WHOLE = 0.9995


@dataclass(frozen=True, eq=False)
class OnEveryPixel:
    """What one or two maps say where they and the reference have a class.

    Attributes:
        figures: Of each map, on the same pixels.
        design: That they are no sample, in words.
        area_ha: Area of these pixels.
        right_px: int64 [first is right, second is right], 0 wrong and 1 right, of two maps.
        right_ha: float64, the same as areas.
    """

    figures: tuple[Figures, ...]
    design: AssumedDesign
    area_ha: float
    right_px: NDArray[np.int64]
    right_ha: NDArray[np.float64]


def compare_with_raster(
    maps: Sequence[Path | str],
    reference: Path | str,
    *,
    scheme: ClassScheme,
    crosswalk: Mapping[str, str] | None = None,
) -> OnEveryPixel:
    """Agreement of one or two maps with a reference raster, on the pixels of the first map (others: nearest).

    Every pixel is compared, so there is no sampling error, and no interval; what remains unknown is how good the
    reference is.

    Raises:
        ReferenceDataError: no pixel has a class in all of them.
        LegendError: values of the reference that lead to no class of the maps.
        SceneError: a raster cannot be read.
    """
    sizes = [len(scheme)] * len(maps) + [2]
    pixels = [np.zeros((n, n), dtype=np.int64) for n in sizes]
    area = [np.zeros((n, n)) for n in sizes]
    index = np.zeros(CODES, dtype=np.int32)  # 0 for no class, k + 1 for class k
    index[list(scheme.codes)] = np.arange(1, len(scheme) + 1)
    target = np.zeros(1, dtype=np.int32)
    with ExitStack() as stack:
        first = stack.enter_context(open_class_map(maps[0]))
        grid = grid_of(first)
        rasters = [first, *(aligned(stack.enter_context(open_class_map(path)), grid, stack) for path in maps[1:])]
        slots = stack.enter_context(open_slots(reference, grid))
        for window in strips(grid, first.block_shapes[0][0]):
            seen = slots.read(window)
            if len(slots.values) >= len(target):
                found = codes_of_values(reference, slots.values, scheme=scheme, crosswalk=crosswalk)
                target = index[np.concatenate([[NODATA], np.maximum(found, NODATA)])]
            truth, said = target[seen], [index[read_codes(raster, window)] for raster in rasters]
            known = np.logical_and.reduce([truth > 0, *(part > 0 for part in said)])
            right = [(part == truth).astype(np.int32) + 1 for part in said]
            pairs = [*((part, truth) for part in said), (right[0], right[-1])]
            for number, (row, column) in enumerate(pairs):
                cell = np.where(known, (row - 1) * sizes[number] + column - 1, -1)
                count, ha = areas_by_code(cell, grid.pixel_areas_ha(window), size=sizes[number] ** 2)
                pixels[number] += count.reshape(pixels[number].shape)
                area[number] += ha.reshape(pixels[number].shape)
    total, area_ha = int(pixels[0].sum()), float(area[0].sum())
    if not total:
        where = "both in the map" if len(maps) == 1 else "in both maps"
        raise ReferenceDataError(f"no pixel has a class {where} and in the reference", path=reference)
    share = area_ha / float(class_areas(maps[0])[1][NODATA + 1 :].sum())
    design = _census(total, share, rasters="both rasters" if len(maps) == 1 else "both maps and in the reference")
    figures = tuple(
        _figures(ErrorMatrix(scheme.names, n, ha / area_ha)) for n, ha in zip(pixels[:-1], area[:-1], strict=True)
    )
    return OnEveryPixel(figures, design, area_ha, pixels[-1], area[-1])


def _census(pixels: int, covered: float, *, rasters: str) -> AssumedDesign:
    """That every pixel was compared and none sampled, and which share of the map's area they are."""
    frame = Frame("census", np.zeros(1, dtype=np.intp), np.array([pixels], dtype=np.float64), ("all",))
    words = (
        f"All {pixels:,} pixels with a class in {rasters} were compared: the figures are agreement with the "
        "reference raster, without sampling error; its own errors are not known."
    )
    notes = () if covered > _WHOLE else (f"these pixels are {covered:.1%} of the map's area",)
    return AssumedDesign(frame, words, notes)


def _figures(matrix: ErrorMatrix) -> Figures:
    """Figures of an error matrix of all pixels: no standard errors, as nothing was sampled."""
    share = matrix.proportions
    hit, mapped, truth = np.diag(share), share.sum(axis=1), share.sum(axis=0)

    def figure(top: float, bottom: float) -> Estimate:
        return Estimate(top / bottom, note=CENSUS) if bottom > 0 else Estimate(None, note="no pixel of this class")

    per_class = {
        name: ClassFigures(
            figure(hit[k], mapped[k]),
            figure(hit[k], truth[k]),
            figure(2 * hit[k], mapped[k] + truth[k]),
            Estimate(float(truth[k]), note=CENSUS),
        )
        for k, name in enumerate(matrix.names)
    }
    return Figures(Estimate(float(hit.sum()), note=CENSUS), per_class, matrix, ())
