"""Change between two maps with one legend: a from-to map and a transition table.

Areas counted from two maps multiply the errors of both, so they are the map's, not the world's: draw a sample with
:class:`pipeline.accuracy.sample_strata.ChangeStrata`, interpret it, and assess the from-to map as any other map.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.accuracy.class_maps import (
    CODES,
    aligned,
    grid_of,
    map_scheme,
    open_class_map,
    read_codes,
    read_grid,
    strips,
)  # fmt: skip
from pipeline.accuracy.sample_strata import ChangeStrata
from pipeline.errors import LegendError
from pipeline.ground import areas_by_code
from pipeline.legend import NODATA, ClassScheme, scheme_for
from pipeline.maps.geotiff import write_class_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid import Window

MAX_CHANGES = 254
REST = "other change"


@dataclass(frozen=True, eq=False)
class ChangeResult:
    """What two maps say about change.

    Attributes:
        scheme: Their legend.
        change_scheme: Legend of the from-to map: ``stable forest``, ``forest -> water``, ...
        pixels: int64 [earlier class, later class].
        area_ha: float64 [earlier class, later class].
        left_out_ha: Area that has a class in one of the maps only, and is in neither figure.
    """

    scheme: ClassScheme
    change_scheme: ClassScheme
    pixels: NDArray[np.int64]
    area_ha: NDArray[np.float64]
    left_out_ha: float

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
    pixels, area = np.zeros(CODES * CODES, dtype=np.int64), np.zeros(CODES * CODES)
    with ExitStack() as stack:
        one = stack.enter_context(open_class_map(first))
        grid = grid_of(one)
        two = aligned(stack.enter_context(open_class_map(second)), grid, stack)
        for window in strips(grid, one.block_shapes[0][0]):
            pair = read_codes(one, window).astype(np.uint16) * np.uint16(CODES) + read_codes(two, window)
            found = areas_by_code(pair, grid.pixel_areas_ha(window), size=CODES * CODES)
            pixels += found[0]
            area += found[1]
    return CrossTable(pixels.reshape(CODES, CODES), area.reshape(CODES, CODES))


def change_map(
    earlier: Path | str, later: Path | str, *, output: Path, scheme: ClassScheme | None = None, overwrite: bool = False
) -> ChangeResult:
    """Write the from-to map of two maps and count their transitions.

    Args:
        earlier: The first map; its pixels are the output's.
        later: The second map; resampled by nearest neighbour where its pixels differ.
        output: GeoTIFF to write, with legend, style and attribute table.
        scheme: Legend of both, where the maps do not carry one.
        overwrite: Replace an existing file.

    Raises:
        LegendError: legends that differ, or codes that are not in them.
        OutputError: the file exists or cannot be written.
    """
    legend = map_scheme(earlier, scheme)
    if scheme is None and map_scheme(later, None).hash != legend.hash:
        raise LegendError("the two maps have different legends", path=later, fix="bring them to one with a crosswalk")
    table = cross_maps(earlier, later)
    strange = [int(c) for c in np.flatnonzero(table.pixels[1:, 1:].sum(axis=1)) + 1 if c not in legend.codes]
    strange += [int(c) for c in np.flatnonzero(table.pixels[1:, 1:].sum(axis=0)) + 1 if c not in legend.codes]
    if strange:
        raise LegendError("codes that are not in the legend", got=", ".join(map(str, sorted(set(strange)))))
    codes = np.ix_(legend.codes, legend.codes)
    pixels, area = table.pixels[codes], table.area_ha[codes]
    lookup, change_scheme = _change_codes(legend, pixels)
    grid = read_grid(earlier)
    with ChangeStrata(earlier, later, scheme=legend) as strata:
        write_class_map(
            output, _ChangePixels(strata, lookup, grid.shape), grid=grid, scheme=change_scheme, overwrite=overwrite,
            tags={"change": [Path(earlier).name, Path(later).name]},
        )  # fmt: skip
    left_out = float(table.area_ha[NODATA, 1:].sum() + table.area_ha[1:, NODATA].sum())
    return ChangeResult(legend, change_scheme, pixels, area, left_out)


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
