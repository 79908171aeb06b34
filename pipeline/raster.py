"""Raster: pixels with their validity, band names and place; never one without the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import SceneError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid import Grid


@dataclass(frozen=True, eq=False)
class Raster:
    """Pixels of some bands on a grid.

    Attributes:
        values: float32 [band, row, col]; reflectance 0..1 for optical bands, the band's own unit otherwise.
            Finite everywhere; 0 where not valid.
        valid: bool [row, col]; True where every band can be used.
        bands: Names, one per band.
        grid: Where the pixels lie.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    bands: tuple[str, ...]
    grid: Grid

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        expected = (len(self.bands), *self.grid.shape)
        if self.values.shape != expected or self.valid.shape != expected[1:]:
            what = "raster with arrays of another shape than its bands and grid"
            raise SceneError(what, got=f"values {self.values.shape}, valid {self.valid.shape}", expected=expected)
        if self.values.dtype != np.float32 or self.valid.dtype != np.bool_:
            what = "raster with arrays of another type"
            raise SceneError(what, got=f"{self.values.dtype}, {self.valid.dtype}", expected="float32, bool")

    def band(self, name: str) -> NDArray[np.float32]:
        """One band, float32 [row, col]."""
        try:
            layer: NDArray[np.float32] = self.values[self.bands.index(name)]
        except ValueError as err:
            what = f"raster has no band {name!r}"
            raise SceneError(what, got=", ".join(self.bands)) from err
        return layer
