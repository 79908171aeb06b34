"""Two maps compared on every pixel, strip by strip: memory for a strip of rows, whatever the maps' size."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.accuracy.confusion import ErrorMatrix
from pipeline.accuracy.crosswalk import BLANK
from pipeline.accuracy.estimates import CENSUS, ClassFigures, Estimate, Figures
from pipeline.accuracy.frame import Frame
from pipeline.accuracy.framing import Framing
from pipeline.accuracy.pixels import CODES, class_areas, grid_of, open_class_map, read_codes, strips
from pipeline.accuracy.slots import open_slots
from pipeline.accuracy.strata import aligned
from pipeline.accuracy.translate import codes_of_values
from pipeline.errors import ReferenceDataError
from pipeline.grid import areas_by_code
from pipeline.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from pipeline.grid import Window
    from pipeline.legend import ClassScheme

# A share above it is written as 100.0 %.
_WHOLE = 0.9995


@dataclass(frozen=True, eq=False)
class CrossTable:
    """Pixels int64 [first code, second code] and area in ha float64 of the same shape, codes 0..255 of two maps."""

    pixels: NDArray[np.int64]
    area_ha: NDArray[np.float64]


def cross_maps(first: Path | str, second: Path | str) -> CrossTable:
    """Pairs of codes of two class maps on the pixels of the first; the second is resampled by nearest neighbour.

    Raises:
        SceneError: a map cannot be read.
    """
    with ExitStack() as stack:
        one = stack.enter_context(open_class_map(first))
        two = aligned(stack.enter_context(open_class_map(second)), grid_of(one), stack)
        return _cross(one, lambda window: read_codes(two, window))


def cross_values(first: Path | str, second: Path | str) -> tuple[CrossTable, list[int]]:
    """Pairs of a map's codes and the slots of any raster of integers, and the value of each slot from 1.

    Raises:
        SceneError: a raster cannot be read.
        ReferenceDataError: the second is not one of classes.
    """
    with open_class_map(first) as one, open_slots(second, grid_of(one)) as two:
        return _cross(one, two.read), two.values


def _cross(one: DatasetReader, other: Callable[[Window], NDArray[np.uint8]]) -> CrossTable:
    """Pixels and areas of pairs of codes, strip by strip."""
    pixels = np.zeros(CODES * CODES, dtype=np.int64)
    area: NDArray[np.float64] = np.zeros(CODES * CODES)
    grid = grid_of(one)
    for window in strips(grid, one.block_shapes[0][0]):
        pair = read_codes(one, window).astype(np.uint16)
        pair <<= 8
        pair |= other(window)
        found = areas_by_code(pair, grid.pixel_areas_ha(window), size=CODES * CODES)
        pixels += found[0]
        area += found[1]
    return CrossTable(pixels.reshape(CODES, CODES), area.reshape(CODES, CODES))


def compare_with_raster(
    map_path: Path | str, reference: Path | str, *, scheme: ClassScheme, crosswalk: Mapping[str, str] | None = None
) -> tuple[Figures, Framing, float]:
    """Agreement of a map with a reference raster on every pixel where both have a class, and that area in ha.

    Every pixel is compared, so there is no sampling error, and no interval; what remains unknown is how good the
    reference is.

    Raises:
        ReferenceDataError: no pixel has a class in both.
        LegendError: codes of the reference that neither its own legend nor the crosswalk leads to a class of the map.
    """
    table, values = cross_values(map_path, reference)
    codes = codes_of_values(reference, values, scheme=scheme, crosswalk=crosswalk)
    rows = list(scheme.codes)
    counts, area = np.zeros((len(scheme), len(scheme)), dtype=np.int64), np.zeros((len(scheme), len(scheme)))
    for slot, target in enumerate(codes, 1):
        if target > BLANK:
            counts[:, scheme.code_to_index[target]] += table.pixels[rows, slot]
            area[:, scheme.code_to_index[target]] += table.area_ha[rows, slot]
    if not counts.sum():
        raise ReferenceDataError("no pixel has a class both in the map and in the reference", path=reference)
    total = float(area.sum())
    _, mapped = class_areas(map_path)
    framing = census(int(counts.sum()), total / float(mapped[NODATA + 1 :].sum()), rasters="both rasters")
    return census_figures(ErrorMatrix(scheme.names, counts, area / total)), framing, total


def census(pixels: int, covered: float, *, rasters: str) -> Framing:
    """That every pixel was compared and none sampled, and which share of the map's area they are."""
    frame = Frame("census", np.zeros(1, dtype=np.intp), np.array([pixels], dtype=np.float64), ("all",))
    words = (
        f"All {pixels:,} pixels with a class in {rasters} were compared: the figures are agreement with the "
        "reference raster, without sampling error; its own errors are not known."
    )
    notes = () if covered > _WHOLE else (f"these pixels are {covered:.1%} of the map's area",)
    return Framing(frame, words, notes)


def census_figures(matrix: ErrorMatrix) -> Figures:
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
