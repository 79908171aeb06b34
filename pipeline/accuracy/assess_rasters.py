"""Maps on every pixel, strip by strip: agreement with a reference raster, and change between two maps of one legend.

Areas counted from two maps multiply the errors of both, so they are the map's, not the world's: draw a sample with
:class:`pipeline.accuracy.sample_strata.ChangeStrata`, interpret it, and assess the from-to map as any other map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.assess_design import AssumedDesign
from pipeline.accuracy.assess_estimators import CENSUS, ClassFigures, ErrorMatrix, Estimate, Figures
from pipeline.accuracy.assess_frame import Frame
from pipeline.accuracy.class_maps import (
    CODES,
    aligned,
    class_areas,
    count_strips,
    map_scheme,
    open_class_map,
    open_slots,
    read_codes,
    read_grid,
    strips,
)
from pipeline.accuracy.crosswalk import codes_of_values
from pipeline.accuracy.sample_strata import ChangeStrata
from pipeline.errors import LegendError, ReferenceDataError
from pipeline.grid import Grid, Window
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA, ClassScheme, scheme_for
from pipeline.maps.geotiff import write_class_map

# A share above it is written as 100.0 %.
_WHOLE = 0.9995
MAX_CHANGES = 254
REST = "other change"


@dataclass(frozen=True, eq=False)
class OnEveryPixel:
    """What one or two maps say where they and the reference have a class."""

    figures: tuple[Figures, ...]  # Of each map, on the same pixels
    design: AssumedDesign  # That they are no sample, in words
    area_ha: float  # Area of these pixels
    right_px: NDArray[np.int64]  # [first is right, second is right] 0 wrong and 1 right, of two maps
    right_ha: NDArray[np.float64]  # float64, the same as areas


def compare_with_raster(
    maps: Sequence[Path | str], reference: Path | str,
    *, scheme: ClassScheme, crosswalk: Mapping[str, str] | None = None,
) -> OnEveryPixel:  # fmt: skip
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
        grid = Grid.of(first)
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
    frame = Frame("census", np.zeros(1, dtype=np.intp), np.array([total], dtype=np.float64), ("all",))
    where = "both rasters" if len(maps) == 1 else "both maps and in the reference"
    words = (
        f"All {total:,} pixels with a class in {where} were compared: the figures are agreement with the reference "
        "raster, without sampling error; its own errors are not known."
    )
    design = AssumedDesign(frame, words, () if share > _WHOLE else (f"these pixels are {share:.1%} of the map's area",))
    figures = tuple(
        _figures(ErrorMatrix(scheme.names, n, ha / area_ha)) for n, ha in zip(pixels[:-1], area[:-1], strict=True)
    )
    return OnEveryPixel(figures, design, area_ha, pixels[-1], area[-1])


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


@dataclass(frozen=True, eq=False)
class ChangeResult:
    """What two maps say about change."""

    scheme: ClassScheme  # Their legend
    pixels: NDArray[np.int64]  # [earlier class, later class]
    area_ha: NDArray[np.float64]  # [earlier class, later class]
    left_out_ha: float  # Area that has a class in one of the maps only, and is in neither figure

    def to_json(self) -> dict[str, object]:
        """The transition table, with what it is not."""
        names = self.scheme.names
        return {
            "classes": list(names),
            "rows": "earlier map",
            "columns": "later map",
            "pixels": self.pixels.tolist(),
            "area_ha": self.area_ha.tolist(),
            "left_out_ha": self.left_out_ha,
            "transitions": [
                {"from": names[i], "to": names[j], "pixels": int(n), "area_ha": float(self.area_ha[i, j])}
                for (i, j), n in np.ndenumerate(self.pixels)
                if n
            ],
            "note": (
                "counted from the maps: both maps' errors are in it, and most of them overstate change; "
                "estimate areas of change from a sample of change strata"
            ),
        }  # fmt: skip


def cross_maps(first: Path | str, second: Path | str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels int64 and ha float64 [first code, second code], codes 0..255, of two maps on the pixels of the first.

    The second is resampled by nearest neighbour.

    Raises:
        SceneError: a map cannot be read.
    """
    with ExitStack() as stack:
        one = stack.enter_context(open_class_map(first))
        two = aligned(stack.enter_context(open_class_map(second)), Grid.of(one), stack)

        def pair(window: Window) -> NDArray[np.uint16]:
            return read_codes(one, window).astype(np.uint16) * np.uint16(CODES) + read_codes(two, window)

        pixels, area = count_strips(one, pair, size=CODES * CODES)
    return pixels.reshape(CODES, CODES), area.reshape(CODES, CODES)


def change_map(
    earlier: Path | str, later: Path | str, *, output: Path, scheme: ClassScheme | None = None, overwrite: bool = False
) -> ChangeResult:
    """Write the from-to map of two maps and count their transitions.

    Pixels are those of the first map; the second is resampled by nearest neighbour where its own differ.

    Raises:
        LegendError: legends that differ, or codes that are not in them.
        OutputError: the file exists or cannot be written.
    """
    legend = map_scheme(earlier, scheme)
    if scheme is None and map_scheme(later, None).hash != legend.hash:
        raise LegendError("the two maps have different legends", path=later, fix="bring them to one with a crosswalk")
    every, every_ha = cross_maps(earlier, later)
    inner = every[1:, 1:]
    present = np.flatnonzero(inner.sum(axis=1) + inner.sum(axis=0)) + 1
    if strange := [str(code) for code in present if code not in legend.codes]:
        raise LegendError("codes that are not in the legend", got=", ".join(strange))
    codes = np.ix_(legend.codes, legend.codes)
    pixels, area = every[codes], every_ha[codes]
    lookup, change_scheme = _change_codes(legend, pixels)
    grid = read_grid(earlier)
    with ChangeStrata(earlier, later, scheme=legend) as strata:
        write_class_map(
            output, _ChangePixels(strata, lookup, grid.shape), grid=grid, scheme=change_scheme, overwrite=overwrite,
            tags={"change": [Path(earlier).name, Path(later).name]},
        )  # fmt: skip
    left_out = float(every_ha[NODATA, 1:].sum() + every_ha[1:, NODATA].sum())
    return ChangeResult(legend, pixels, area, left_out)


def _change_codes(scheme: ClassScheme, pixels: NDArray[np.int64]) -> tuple[NDArray[np.uint8], ClassScheme]:
    """Codes 1.. of stable classes and of transitions by falling size; beyond 254 the rest is one class."""
    pairs = [(i, i) for i in range(len(scheme))]
    moves = [(int(i), int(j)) for i, j in np.argwhere(pixels) if i != j]
    pairs += sorted(moves, key=lambda pair: -int(pixels[pair]))
    kept = pairs if len(pairs) <= MAX_CHANGES else pairs[: MAX_CHANGES - 1]
    names = [f"stable {scheme.names[i]}" if i == j else f"{scheme.names[i]} -> {scheme.names[j]}" for i, j in kept]
    if len(kept) < len(pairs):
        names.append(REST)
    lookup = np.zeros(CODES * CODES, dtype=np.uint8)
    for number, (i, j) in enumerate(pairs, 1):
        lookup[scheme.codes[i] * CODES + scheme.codes[j]] = min(number, len(names))
    return lookup, scheme_for(names)[0]


class _ChangePixels:
    """The from-to map, window by window, as the writer of maps asks for it."""

    def __init__(self, strata: ChangeStrata, lookup: NDArray[np.uint8], shape: tuple[int, int]) -> None:
        self._strata, self._lookup, self.shape = strata, lookup, shape
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)

    def read(self, window: Window) -> NDArray[np.uint8]:
        return np.asarray(self._lookup[np.maximum(self._strata.read(window), 0)])
