"""How many pixels and hectares each class covers, counted while a map is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import LegendError
from pipeline.grid import areas_by_code
from pipeline.legend import NODATA, ClassScheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid import Grid, Window

_CODES = 256


@dataclass(frozen=True)
class ClassCounts:
    """What a map holds.

    Attributes:
        scheme: The classes.
        pixels: Pixels per class, in the order of the scheme.
        area_ha: Area per class in ha (geodesic where the grid's CRS is not equal-area), in the order of the scheme.
        nodata_pixels: Pixels without an observation.
    """

    scheme: ClassScheme
    pixels: tuple[int, ...]
    area_ha: tuple[float, ...]
    nodata_pixels: int

    @property
    def total_ha(self) -> float:
        """Area of all classes in ha."""
        return sum(self.area_ha)

    def to_json(self) -> list[dict[str, int | float | str]]:
        """JSON-ready list of {code, name, color, pixels, area_ha, share}; share of the mapped area, 0..1."""
        total = self.total_ha or 1.0
        return [
            {"code": c.code, "name": c.name, "color": c.color, "pixels": n, "area_ha": ha, "share": ha / total}
            for c, n, ha in zip(self.scheme.classes, self.pixels, self.area_ha, strict=True)
        ]


class ClassCounter:
    """Counts codes band by band of rows."""

    def __init__(self, grid: Grid, scheme: ClassScheme) -> None:
        self._grid = grid
        self._scheme = scheme
        self._pixels = np.zeros(_CODES, dtype=np.int64)
        self._area_ha = np.zeros(_CODES, dtype=np.float64)

    def add(self, codes: NDArray[np.uint8], window: Window) -> None:
        """Count the codes uint8 [row, col] of a window of whole rows or parts of rows.

        Raises:
            LegendError: a code is neither nodata nor a class.
        """
        counts, area = areas_by_code(codes, self._grid.pixel_areas_ha(window), size=_CODES)
        known = {NODATA, *self._scheme.codes}
        strange = [int(code) for code in np.flatnonzero(counts) if int(code) not in known]
        if strange:
            raise LegendError(
                f"map has codes that are no class in rows {window.row}..{window.row_stop}",
                got=", ".join(map(str, strange)),
                expected="one of " + ", ".join(map(str, sorted(known))),
            )
        self._pixels += counts
        self._area_ha += area

    def result(self) -> ClassCounts:
        """The counts so far."""
        codes = list(self._scheme.codes)
        return ClassCounts(
            scheme=self._scheme,
            pixels=tuple(int(n) for n in self._pixels[codes]),
            area_ha=tuple(float(ha) for ha in self._area_ha[codes]),
            nodata_pixels=int(self._pixels[NODATA]),
        )
